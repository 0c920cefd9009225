"""Inputs and model folders made to harm: bounded memory or a clear refusal, and nothing that leaves the folder."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nerd_onnx.errors import InputError, ModelError, NerdError, OptionError, OutputError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.session import Session
from nerd_onnx.machine.memory import resident_bytes
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.memory_limits import Limits, size_of
from nerd_onnx.tagging.run import tag_files
from nerd_onnx.terminal import printable
from tests.conftest import ROOT
from tests.support.failures import fails, failure_of
from tests.support.models import sample_texts
from tests.support.processes import command
from tests.support.quick_tagger import quick_tagger

MB = 10**6
PROGRAM = """
import json, sys, time
from nerd_onnx.machine.memory import peak_rss_bytes, resident_bytes
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.support.quick_tagger import quick_tagger
tagger = quick_tagger()
before, sizes, begin = resident_bytes(), [], time.process_time()
report = tag_files(tagger, TagJob([sys.argv[1]], sys.argv[2]), lambda *_: sizes.append(resident_bytes()))
print(json.dumps({"before": before, "peak": peak_rss_bytes(), "sizes": sizes[:: max(1, len(sizes) // 50)],
                  "rows": report.rows, "cpu_s": time.process_time() - begin}))
"""


def measured(source: Path, output: Path) -> dict[str, Any]:
    """Tag in a process of its own, all but the network, and tell its memory in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(source), str(output)], cwd=ROOT, capture_output=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def prose(size: int) -> str:
    """Make a text of paragraphs."""
    return "\n\n".join(sample_texts() * (size // 20_000 + 1))[:size]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "bytes_a_byte"), [("parquet", 11), ("jsonl", 6)])
def test_memory_grows_by_little_with_a_text_and_time_in_proportion(
    tmp_path: Path, kind: str, bytes_a_byte: int
) -> None:
    """Dense entities and two bytes a character: 14 and 39 bytes a byte, were entities made Python objects at once."""
    found = {}
    for size in (4 * MB, 16 * MB):
        text = "\u0142" + prose(size)  # a letter that makes Python hold two bytes a character
        if kind == "parquet":
            pq.write_table(pa.table({"text": [text]}), tmp_path / f"{size}.parquet")
        else:
            (tmp_path / f"{size}.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=False), "utf-8")
        found[size] = measured(tmp_path / f"{size}.{kind}", tmp_path / f"o{size}.{kind}")
    small, large = found.values()
    assert large["peak"] - small["peak"] < bytes_a_byte * 12 * MB
    assert large["cpu_s"] < 4 * 2 * small["cpu_s"]  # processor time: no other process counts


@pytest.mark.slow
def test_memory_is_flat_over_many_rows(tmp_path: Path) -> None:
    with (tmp_path / "in.jsonl").open("w") as file:
        for i in range(120_000):
            file.write(f'{{"id": {i}, "text": "Anna Bell met Row {i} in Berlin."}}\n')
    sizes = measured(tmp_path / "in.jsonl", tmp_path / "o.jsonl")["sizes"]
    assert len(sizes) > 20
    assert max(sizes[len(sizes) // 2 :]) < max(sizes[: len(sizes) // 2]) + 25 * MB


@pytest.mark.slow
def test_a_large_row_group_is_read_in_parts(tmp_path: Path) -> None:
    chunk = pa.chunked_array([pa.array([os.urandom(512).hex() for _ in range(4096)])] * 60)
    pq.write_table(
        pa.table({"text": pa.nulls(len(chunk), pa.string()), "other": chunk}),
        tmp_path / "in.parquet",
        row_group_size=len(chunk),
        use_dictionary=False,
        compression="snappy",
    )
    assert pq.read_metadata(tmp_path / "in.parquet").row_group(0).total_byte_size > 240 * MB
    found = measured(tmp_path / "in.parquet", tmp_path / "o.parquet")
    assert found["peak"] - found["before"] < 350 * MB
    assert (
        pq.read_table(tmp_path / "o.parquet", columns=["other"])["other"]
        .combine_chunks()
        .equals(chunk.combine_chunks())
    )


@pytest.mark.slow
@pytest.mark.parametrize("content", ['{"text": "' + "a" * 40 * MB + '"}', "a" * 40 * MB])
def test_a_line_over_what_memory_allows(tmp_path: Path, content: str) -> None:
    """A bomb: 40 MB that take 40 KB on disk, with some 35 MB allowed for a line, beside the model."""
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    done = subprocess.run(
        command(tmp_path / "in.jsonl.gz", tmp_path / "o.jsonl", "--max-memory", "500MB", "--json"),
        capture_output=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (900 * MB,) * 2),
    )
    assert done.returncode == 1
    failure = failure_of(done.stderr.decode())
    assert (failure["reason"], failure["row"]) == ("line-too-long", 1)
    assert 30 * MB < failure["maximum"] < 40 * MB
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl.gz"]


def test_deep_nesting_is_a_row_that_cannot_be_read(tmp_path: Path) -> None:
    lines = ['{"text": "Paris"}', '{"text": "a", "d": ' + "[" * 200_000 + "]" * 200_000 + "}", '{"text": "Rome"}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    options: dict[str, Any] = {"on_error": "skip", "rejects": str(tmp_path / "r.jsonl")}
    for output in ("o.jsonl", "o.parquet"):
        report = tag_files(quick_tagger(), TagJob([str(tmp_path / "in.jsonl")], str(tmp_path / output), **options))
        assert (report.rows, report.rejected) == (3, 1)
        (tmp_path / "r.jsonl").unlink()


def test_a_hundred_thousand_keys_of_junk(tmp_path: Path) -> None:
    junk = {f"key {i}": i for i in range(100_000)}
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": "Paris", **junk}) + "\n")
    tag_files(quick_tagger(), TagJob([str(tmp_path / "in.jsonl")], str(tmp_path / "o.jsonl")))
    with fails(InputError, "too-many-keys", maximum=10_000):
        tag_files(quick_tagger(), TagJob([str(tmp_path / "in.jsonl")], str(tmp_path / "o.parquet")))


def test_too_many_columns(tmp_path: Path) -> None:
    names = ["text", *(f"c{i}" for i in range(20_000))]
    pq.write_table(pa.table([pa.array(["Paris"])] * len(names), names), tmp_path / "in.parquet", compression="none")
    with fails(InputError, "too-many-columns", found=20_001, maximum=20_000):
        tag_files(quick_tagger(), TagJob([str(tmp_path / "in.parquet")], str(tmp_path / "o.parquet")))


def test_a_footer_that_would_take_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    with path.open("wb") as file:
        file.truncate(200 << 20)
        file.seek(0, os.SEEK_END)
        file.write(struct.pack("<I4s", 200 << 20, b"PAR1"))
    begin = resident_bytes()
    with fails(InputError, "footer-too-large", found=200 << 20):
        tag_files(quick_tagger(), TagJob([str(path)], str(tmp_path / "o.parquet")))
    assert resident_bytes() - begin < 100 * MB


def test_limits_of_memory() -> None:
    assert Limits.of(None, 10**9) == Limits()
    small, large = Limits.of(260 * MB, 25 * MB), Limits.of(2000 * MB, 25 * MB)
    assert small.batch < large.batch == Limits().batch
    assert small.line < large.line < Limits().line
    with fails(OptionError, "memory-too-small", option="--max-memory", minimum=228_276_800):
        Limits.of(200 * MB, 25 * MB)
    assert [size_of(text) for text in ("500MB", "2g", "1.5 GiB", "7")] == [500 * MB, 2 * 10**9, 3 << 29, 7]
    for text in ("", "MB", "-1", "1e9", "5 TB"):
        with pytest.raises(ValueError, match="no size"):
            size_of(text)
    with fails(OutputError, "over-memory", maximum=MB):
        Limits(memory=MB).check("o")


@pytest.mark.slow
def test_smaller_batches_give_the_same_entities(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": sample_texts()[:60]}), tmp_path / "in.parquet")
    for name, options in (("a", []), ("b", ["--max-memory", "280MB"])):
        subprocess.run(command(tmp_path / "in.parquet", tmp_path / f"{name}.parquet", *options), check=True)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def external_model(path: Path, location: str) -> None:
    """Write a graph whose weights lie in another file."""
    from onnx import TensorProto, helper

    weights = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        weights.external_data.add(key=key, value=value)
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])
    scores = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", 4])
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["f"], to=1),
        helper.make_node("Unsqueeze", ["f", "axis"], ["u"]),
        helper.make_node("Add", ["u", "w"], ["logits"]),
    ]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [2])
    graph = helper.make_graph(nodes, "g", [ids], [scores], [weights, axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin", "sub/../../secret.bin"])
def test_weights_outside_the_model_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "secret.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (tmp_path / "model" / "inside.bin").write_bytes((tmp_path / "secret.bin").read_bytes())
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "secret.bin")
    external_model(tmp_path / "model" / "model.onnx", "inside.bin")
    Session(tmp_path / "model" / "model.onnx", optimized=False)
    external_model(tmp_path / "model" / "model.onnx", location)
    with fails(ModelError, "cannot-load"):
        Session(tmp_path / "model" / "model.onnx", optimized=False)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.onnx", "weights.bin"])
def test_links_out_of_a_plain_folder_are_refused(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "model"))
    (folder / "nerd.json").unlink()
    Bundle.load(folder)
    (tmp_path / "outside").write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "outside")
    with fails(ModelError, "outside-folder", file=folder / name):
        Bundle.load(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b" " * (17 << 20)),
        lambda path: path.write_text("[" * 200_000),
        lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch /tmp/pwned'\ntR."),
    ],
)
def test_descriptions_are_data(tiny_bundle: Path, tmp_path: Path, damage: Callable[[Path], object]) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "model"))
    for name in ("nerd.json", "config.json"):
        damage(folder / name)
        with pytest.raises(ModelError) as caught:
            Bundle.load(folder)
        assert "\n" not in str(caught.value)
        (folder / name).unlink()
    assert not Path("/tmp/pwned").exists()  # noqa: S108


def test_nothing_in_the_runtime_unpickles_or_runs_model_code() -> None:
    # The build of the native encoder runs when the package is installed, and reads no model.
    for path in {*(ROOT / "nerd_onnx").rglob("*.py")} - {ROOT / "nerd_onnx" / "native" / "build.py"}:
        source = path.read_text("utf-8")
        for word in ("pickle", "marshal", "eval(", "exec(", "trust_remote_code", "__import__", "importlib"):
            assert word not in source.replace("picklable", "").replace("May be pickled", ""), (path, word)


def test_text_that_would_steer_a_terminal() -> None:
    said = printable("a\x1b[2J\x9b1m\r\n\u202egnp.exe\u2066\u2028\ud800é東🙂")
    assert said == r"a\x1b[2J\x9b1m\x0d\n\u202egnp.exe\u2066\u2028\ud800" + "é東🙂"


@pytest.mark.slow
def test_offline_is_kept_and_nothing_is_fetched_unasked(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "https_proxy": "http://[::1]:9",
    }
    (tmp_path / "in.jsonl").write_text('{"text": "Paris"}\n')
    arguments = command(tmp_path / "in.jsonl", tmp_path / "o.jsonl")
    done = subprocess.run([*arguments, "--model", "some/model"], env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"(OfflineModeIsEnabled)" in done.stderr or b"nerd-onnx[hub]" in done.stderr
    subprocess.run(arguments, env=environment, check=True, capture_output=True)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab29\nsize 12345\n"


@pytest.mark.parametrize("kind", ["int8", "plain"])
def test_a_pointer_in_place_of_a_model_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    """As a clone has without ``git lfs pull``."""
    whole = ROOT / "tests" / "data" / "models" / kind
    for path in whole.iterdir():
        if path.name not in ("model.onnx", "tokenizer.json", "nerd.json", "config.json"):
            continue
        model = shutil.copytree(whole, tmp_path / path.name)
        (model / path.name).write_bytes(POINTER)
        with fails(ModelError, "lfs-pointer", file=model / path.name):
            Tagger.load(model)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv", "a.txt"])
def test_a_pointer_in_place_of_an_input_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(InputError) as caught:
        tag_files(quick_tagger(), TagJob([str(tmp_path / name)], str(tmp_path / "o.jsonl")))
    assert "Git LFS" in str(caught.value)


@pytest.mark.slow
def test_damaged_files_of_every_kind_in_short() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.fuzz", "--cases", "3000", "--seconds", "60"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["peak_rss_bytes"] < 600 * MB


class FailingRead(io.BufferedReader):
    """A file that cannot be read any further, as on a failing disk."""

    def readline(self, size: int | None = -1) -> bytes:
        """Read a line; fail in the middle."""
        if self.tell() > 20_000:
            raise OSError(5, "Input/output error")
        return super().readline(size)


def test_a_disk_that_cannot_be_read_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nerd_onnx.storage import input_stream

    (tmp_path / "in.jsonl").write_text('{"text": "Anna Bell is in Berlin."}\n' * 1000)
    job = TagJob([str(tmp_path / "in.jsonl")], str(tmp_path / "o.jsonl"), chunk_rows=100)
    with monkeypatch.context() as patch:
        patch.setattr(input_stream, "decompressed", lambda _, raw: FailingRead(io.BytesIO(raw.read())))
        with fails(InputError, "cannot-read", file=tmp_path / "in.jsonl"):
            tag_files(quick_tagger(), job)
    assert not (tmp_path / "o.jsonl").exists()
    resumed = TagJob([str(tmp_path / "in.jsonl")], str(tmp_path / "o.jsonl"), chunk_rows=100, resume=True)
    assert tag_files(quick_tagger(), resumed).resumed_rows >= 400


def test_a_parquet_file_cut_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": [os.urandom(300).hex() for _ in range(9000)]}), path, row_group_size=3000)

    def cut(*_: object) -> None:
        os.truncate(path, 100_000)

    with fails(NerdError, "file-cut", file=path):
        tag_files(quick_tagger(), TagJob([str(path)], str(tmp_path / "o.parquet")), cut)
    assert not (tmp_path / "o.parquet").exists()
