"""Model folders: what is read from them, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nerd_onnx.cli.messages import graph_note
from nerd_onnx.errors import ModelError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.remote_bundle import load_bundle
from nerd_onnx.tagger import Tagger, TagOptions, open_network
from tests.support.failures import fails


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def test_a_bundle_is_read_whole(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    assert bundle.labels.types == ("location", "person")
    assert bundle.segment_tokens == 48
    assert bundle.quantization == "per-token int8"
    assert len(bundle.model_sha256) == 64


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_an_altered_file_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with fails(ModelError, "altered", file=copy / name):
        Bundle.load(copy)


@pytest.mark.parametrize("kind", ["int8", "plain"])
@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_file_that_is_replaced_before_it_is_loaded_is_refused(
    committed: Callable[[str], Path], tmp_path: Path, kind: str, name: str
) -> None:
    folder = Path(shutil.copytree(committed(kind), tmp_path / "model"))
    bundle, path = Bundle.load(folder), folder / name
    os.utime(path)  # another time alone is no other file
    Tagger(bundle, TagOptions(threads=1))

    path.write_bytes(path.read_bytes() + (b"\n" if name == "tokenizer.json" else b"\x0a\x00"))
    with fails(ModelError, "changed-while-loaded", file=path):
        Tagger(bundle, TagOptions(threads=1), open_network(bundle) if name == "tokenizer.json" else None)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with fails(ModelError, "missing-file", file=copy / name):
        Bundle.load(copy)


def test_a_link_out_of_the_folder_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (copy / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with fails(ModelError, "outside-folder", found="model.onnx"):
        Bundle.load(copy)


def test_the_hubs_cache_may_link_to_its_blobs(tiny_bundle: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--us--tiny" / "snapshots" / "abc"
    blobs = tmp_path / "models--us--tiny" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in tiny_bundle.iterdir():
        shutil.copy(path, blobs / path.name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    assert Bundle.load(snapshot).labels.types == ("location", "person")


def test_a_path_out_of_the_folder_is_refused(copy: Path) -> None:
    edit(copy / "nerd.json", lambda d: d["files"].update({"../x": {"sha256": "0"}}))  # type: ignore[attr-defined]
    with fails(ModelError, "outside-folder", found="../x"):
        Bundle.load(copy)


@pytest.mark.parametrize("version", [0, 99])
def test_another_format_version_says_what_to_do(copy: Path, version: int) -> None:
    edit(copy / "nerd.json", lambda d: d.update(format_version=version))
    with fails(ModelError, "other-format-version", file=copy / "nerd.json", found=str(version)):
        Bundle.load(copy)


@pytest.mark.parametrize("value", ["whatever", None, 1])
@pytest.mark.parametrize("key", ["word_rule", "letter_case"])
def test_values_that_no_version_writes_are_refused(copy: Path, key: str, value: object) -> None:
    edit(copy / "nerd.json", lambda d: d.update({key: value}))
    with fails(ModelError, "bad-description", file=copy / "nerd.json"):
        Bundle.load(copy)


@pytest.mark.parametrize("value", ["yes", None, 1])
def test_integer_products_are_true_or_false(copy: Path, value: object) -> None:
    edit(copy / "nerd.json", lambda d: d["quantization"].update(integer_products=value))  # type: ignore[attr-defined]
    with fails(ModelError, "bad-description", file=copy / "nerd.json"):
        Bundle.load(copy)


@pytest.mark.parametrize("key", ["labels", "files", "segment_tokens", "word_rule", "letter_case", "quantization"])
def test_an_incomplete_description_is_refused(copy: Path, key: str) -> None:
    edit(copy / "nerd.json", lambda d: d.pop(key))
    with fails(ModelError, "no-fingerprint" if key == "files" else "bad-description", file=copy / "nerd.json"):
        Bundle.load(copy)


def test_a_file_without_fingerprint_is_refused(copy: Path) -> None:
    edit(copy / "nerd.json", lambda d: d["files"].pop("tokenizer.json"))  # type: ignore[attr-defined]
    with fails(ModelError, "no-fingerprint", found="tokenizer.json"):
        Bundle.load(copy)


def test_weights_beside_the_graph_are_fingerprinted_with_it(copy: Path) -> None:
    (copy / "nerd.json").unlink()
    alone = Bundle.load(copy).model_sha256
    (copy / "model.onnx_data").write_bytes(b"weights")
    assert Bundle.load(copy).model_sha256 != alone


def with_outside_weights(folder: Path, location: str) -> Path:
    """Move the weights of a folder's graph into a file of their own."""
    import onnx

    graph = onnx.load(folder / "model.onnx")
    (folder / "model.onnx").unlink()
    onnx.save_model(graph, folder / "model.onnx", save_as_external_data=True, location=location, size_threshold=64)
    return folder / location


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("location", ["weights.bin", "model.onnx_data", "-other.name"])
def test_weights_that_the_graph_names_are_fingerprinted_with_it(copy: Path, location: str) -> None:
    (copy / "nerd.json").unlink()
    weights = with_outside_weights(copy, location)
    bundle = Bundle.load(copy)
    assert bundle.weight_files == (weights,)
    flip(weights)
    assert Bundle.load(copy).model_sha256 != bundle.model_sha256
    (copy / "README.md").write_text("not read by the graph")
    flip(weights)
    assert Bundle.load(copy).model_sha256 == bundle.model_sha256


def test_weights_of_a_bundle_need_a_fingerprint(copy: Path) -> None:
    alone = Bundle.load(copy).model_sha256
    weights = with_outside_weights(copy, "weights.bin")

    def list_files(*names: str) -> None:
        files = {name: {"sha256": hashlib.sha256((copy / name).read_bytes()).hexdigest()} for name in names}
        edit(copy / "nerd.json", lambda d: d["files"].update(files))  # type: ignore[attr-defined]

    list_files("model.onnx")
    with fails(ModelError, "unlisted-file", file=copy / "model.onnx", found="weights.bin"):
        Bundle.load(copy)
    list_files("weights.bin")
    whole = Bundle.load(copy)
    assert whole.weight_files == (weights,)
    assert alone != whole.model_sha256
    flip(weights)
    with fails(ModelError, "altered", file=weights):
        Bundle.load(copy)
    list_files("weights.bin")
    assert Bundle.load(copy).model_sha256 != whole.model_sha256


def test_too_few_tokens_are_refused(copy: Path) -> None:
    edit(copy / "nerd.json", lambda d: d.update(segment_tokens=3))
    with fails(ModelError, "too-few-tokens", found=3):
        Tagger.load(copy)


def test_labels_that_do_not_fit_the_network_are_refused(copy: Path) -> None:
    edit(copy / "nerd.json", lambda d: d.update(labels=["O", "person-actor"], coarse={"person-actor": "person"}))
    with fails(ModelError, "label-count", found=5, expected=2):
        Tagger.load(copy)


def test_what_is_no_onnx_file_is_refused(copy: Path) -> None:
    (copy / "nerd.json").unlink()
    (copy / "model.onnx").write_bytes(b"not a graph")
    with fails(ModelError, "cannot-load", file=copy / "model.onnx"):
        Tagger.load(copy)


def test_a_plain_folder_is_taken_with_onnx_in_its_subfolder(copy: Path) -> None:
    (copy / "nerd.json").unlink()
    (copy / "onnx").mkdir()
    (copy / "model.onnx").rename(copy / "onnx" / "model_quantized.onnx")
    bundle = Bundle.load(copy)
    assert bundle.model_file.name == "model_quantized.onnx"
    assert bundle.labels.names[0] == "O"
    assert not bundle.labels.has_fine_level
    assert bundle.segment_tokens == 128  # positions 130, and the tokenizer's 1e30 means no limit


def test_of_several_graphs_the_one_taken_and_the_others_are_named(copy: Path) -> None:
    (copy / "nerd.json").unlink()
    (copy / "onnx").mkdir()
    shutil.copy(copy / "model.onnx", copy / "onnx" / "model_fp16.onnx")
    bundle = Bundle.load(copy)
    assert bundle.model_file == copy / "model.onnx"
    assert bundle.other_graphs == (str(Path("onnx", "model_fp16.onnx")),)
    assert graph_note(bundle).endswith(f"model.onnx is used, and not {bundle.other_graphs[0]}")


def test_tags_without_names_are_refused(copy: Path) -> None:
    """No tag would be that of words outside of entities."""
    (copy / "nerd.json").unlink()
    config = json.loads((copy / "config.json").read_text("utf-8"))
    config["id2label"] = {number: f"LABEL_{number}" for number in config["id2label"]}
    (copy / "config.json").write_text(json.dumps(config), "utf-8")
    with fails(
        ModelError, "no-label-names", file=copy / "config.json", found="LABEL_0, LABEL_1, LABEL_2", expected="O"
    ):
        Bundle.load(copy)


def test_several_graphs_without_a_usual_name_are_refused(copy: Path) -> None:
    (copy / "nerd.json").unlink()
    shutil.copy(copy / "model.onnx", copy / "a.onnx")
    (copy / "model.onnx").rename(copy / "b.onnx")
    with fails(ModelError, "several-graphs", found="a.onnx, b.onnx"):
        Bundle.load(copy)


@pytest.mark.parametrize(
    ("breakage", "reason"),
    [
        (lambda d: (d / "model.onnx").unlink(), "no-graph"),
        (lambda d: (d / "tokenizer.json").unlink(), "missing-file"),
        (lambda d: (d / "config.json").unlink(), "missing-file"),
        (lambda d: (d / "config.json").write_text("[]"), "not-object"),
        (lambda d: (d / "config.json").write_text("{"), "not-json"),
        (lambda d: (d / "config.json").write_text("{}"), "no-labels"),
        (lambda d: (d / "config.json").write_text('{"id2label": {"0": "O", "2": "x"}}'), "bad-labels"),
    ],
)
def test_an_unfit_plain_folder_is_refused(copy: Path, breakage: Callable[[Path], object], reason: str) -> None:
    (copy / "nerd.json").unlink()
    breakage(copy)
    with fails(ModelError, reason):
        Bundle.load(copy)


@pytest.mark.parametrize(
    "name", ["x" * 300, "y/" + "x" * 300, "x/" * 3000, "~nosuchuser/x", "a\0b", "loop", "./loop/x", "file/x", ""]
)
def test_names_that_the_system_refuses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    with pytest.raises(ModelError) as caught:
        load_bundle(name)
    assert caught.value.reason in {"cannot-read", "missing-model", "missing-file", "missing-folder", "hub-failed"}
    assert len(str(caught.value)) < 2100


def test_a_working_folder_that_was_deleted(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with fails(ModelError, "cannot-read", file="./model"):
        load_bundle("./model")
    assert load_bundle(tiny_bundle).folder == tiny_bundle


def test_a_link_to_itself_in_a_model(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer.json").symlink_to("tokenizer.json")
    with pytest.raises(ModelError):
        Bundle.load(copy)
