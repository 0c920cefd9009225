"""Export, rewrite and verify: a bundle equals its PyTorch original; one that differs too much is refused."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx.reference import ReferenceEvaluator

from nerd_export.config import VerifyLimits
from nerd_export.conversion.bundle_writer import new_bundle_folder
from nerd_export.conversion.export import ExportRequest, export_bundle
from nerd_export.graph.linear import linear_layers, plain_name, quantizable_layers
from nerd_export.graph.rewrite import split_gemm
from nerd_export.models.onnx_export import Checkpoint, export_onnx, load_checkpoint
from nerd_export.quantization.layers import quantize_embeddings, quantize_products, quantized_weight
from nerd_onnx.errors import ModelError, OptionError, OutputError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.description import Description
from nerd_onnx.tagger import Tagger
from tests.support.bundles import TEXTS, prepared
from tests.support.failures import fails
from tests.support.make_models import make
from tests.support.marks import slow_but
from tests.support.models import BIO_LABELS, FINE_LABELS, make_checkpoint, sample_texts

WIDE = VerifyLimits(min_entity_agreement=0.5, max_labels_changed=0.2, max_f1_drop=1)


@pytest.fixture(scope="module", params=slow_but(["bert"], ["bert", "mpnet"]))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def exported(family: str, plain_graph: Callable[[str], Path]) -> Path:
    return plain_graph(family)


@pytest.mark.slow
@pytest.mark.parametrize("written", [str, plain_name])
def test_kept_layers_stay_fp32(exported: Path, written: Callable[[str], str]) -> None:
    model = prepared(exported)
    first = linear_layers(model.graph)[0].name
    assert first not in quantize_products(model, keep_fp32=[written(first)])
    assert first in [layer.name for layer in linear_layers(model.graph)]


@pytest.mark.slow
def test_an_unknown_layer_to_keep_is_named_with_the_layers_there_are(exported: Path) -> None:
    model = prepared(exported)
    first = linear_layers(model.graph)[0].name
    with fails(OptionError, "unknown-layer", found="nonsense"):
        quantize_products(model, keep_fp32=[first, "nonsense"])


def test_linear_layers_are_found_by_what_they_are() -> None:
    """A Gemm with a transposed matrix, a product of constants, a product of two activations, and the classifier."""
    text = """
    <ir_version: 9, opset_import: ["" : 20]>
    tables (int64[batch, tokens] input_ids) => (float[tokens, 3] logits) {
        word = Gather (words, input_ids)
        one = Constant <value: tensor = int64[1] {0}> ()
        rows = Squeeze (word, one)
        hidden = Gemm <transB: int = 1, alpha: float = 2.0> (rows, matrix, bias)
        other = MatMul (hidden, square)
        positions = MatMul (square, square)
        shifted = MatMul (other, positions)
        turned = Transpose <perm: ints = [1, 0]> (shifted)
        scores = MatMul (turned, shifted)
        mixed = MatMul (shifted, scores)
        logits = MatMul (mixed, last)
    }
    """
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(1)
    shapes = {"words": (30, 4), "matrix": (4, 4), "bias": (4,), "square": (4, 4), "last": (4, 3)}
    for name, shape in shapes.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    run = ReferenceEvaluator(proto)
    ids = np.array([[3, 1, 4]])
    expected = run.run(None, {"input_ids": ids})[0]
    model = ir.from_proto(proto)
    split_gemm(model.graph)
    layers = linear_layers(model.graph)
    assert [layer.weight.shape for layer in layers] == [(4, 4), (4, 4), (4, 3)]
    assert [layer.bias is not None for layer in layers] == [True, False, False]
    assert len(quantizable_layers(model.graph)) == 2
    found = ReferenceEvaluator(ir.to_proto(model)).run(None, {"input_ids": ids})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_only_tables_that_input_ids_index_are_embeddings() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 20]>
    tables (int32[batch, tokens] input_ids) => (float[batch, tokens, 4] out)
    <float[30, 4] words, float[2000, 4] positions> {
        ids = Cast <to: int = 7> (input_ids)
        word = Gather (words, ids)
        counted = CumSum (ids, axis)
        position = Gather (positions, counted)
        out = Add (word, position)
    }
    """.replace("<float[30, 4] words, float[2000, 4] positions>", "<int64 axis = {1}, float[1, 4] none = {0, 0, 0, 0}>")
    proto = onnx.parser.parse_model(text)
    rows = np.random.default_rng(1)
    for name, length in (("words", 30), ("positions", 2000)):
        table = rows.normal(size=(length, 4)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(table, name))
    model = ir.from_proto(proto)
    assert quantize_embeddings(model) == ["words"]
    assert "positions" in model.graph.initializers


@given(arrays.arrays(np.float32, (7, 5), elements=st.floats(-1e4, 1e4, width=32)))
def test_tables_are_rounded_to_the_nearest_step(weight: Any) -> None:
    integers, scale = quantized_weight(weight)
    assert np.abs(integers.astype(int)).max() <= 127
    assert (np.abs(integers * scale - weight) <= scale * 0.501 + 1e-12).all()


@pytest.mark.slow
def test_graphs_are_the_same_byte_for_byte_when_made_again(tiny_bundle: Path, tmp_path: Path) -> None:
    make("int8", tmp_path / "again")
    timed = {"README.md", "nerd.json"}  # they hold how fast it was
    names = {path.name for path in tiny_bundle.iterdir()} - timed
    assert names > {"model.onnx", "tokenizer.json", "expected.json"}
    for name in names:
        assert (tiny_bundle / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_fp32_bundle_agrees_with_pytorch(family: str, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    request = ExportRequest(str(checkpoint(family)), tmp_path / "b", quantize="none", level="fine", texts=TEXTS)
    found = export_bundle(request, lambda _: None).verdict.comparison
    assert found.max_logit_difference < 1e-3
    assert found.labels_changed < 1e-3
    assert found.entity_agreement > 0.99
    assert found.entities > 100
    assert Bundle.load(tmp_path / "b").quantization == "none"


@pytest.mark.slow
def test_what_was_quantized_is_recorded_as_it_is(
    checkpoint: Callable[..., Path], plain_graph: Callable[[str], Path], tmp_path: Path
) -> None:
    name = linear_layers(prepared(plain_graph("bert")).graph)[0].name
    for options, method, embeddings, kept in (
        ({"quantize": "none", "embeddings": "int8"}, "int8 embeddings", "signed 8 bits", None),
        ({"embeddings": "fp32", "keep_fp32": [name]}, "per-token int8", "fp32", [name]),
    ):
        request = ExportRequest(
            str(checkpoint("bert")), tmp_path / method, level="fine", texts=TEXTS[:10], limits=WIDE, **options
        )
        export_bundle(request, lambda _: None)
        record = Description.read(tmp_path / method).quantization
        assert record["method"] == method
        assert record["embeddings"].startswith(embeddings)
        assert record.get("kept_fp32") == kept
    with fails(OptionError, "keep-without-quantize", option="--keep-fp32"):
        export_bundle(ExportRequest("x", tmp_path / "x", quantize="none", keep_fp32=["y"]), lambda _: None)


def test_segments_longer_than_the_positions_are_refused(
    family: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    request = ExportRequest(str(checkpoint(family)), tmp_path / "b", level="fine", segment_tokens=131)
    with fails(OptionError, "too-many-tokens", found=131, maximum=130):
        export_bundle(request, lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_without_entities_is_told_and_recorded(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    import torch
    import transformers

    shutil.copytree(checkpoint("bert"), tmp_path / "dull")
    model = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "dull")
    with torch.no_grad():
        model.classifier.bias[0] += 1000
    model.save_pretrained(tmp_path / "dull")
    told: list[str] = []
    export_bundle(ExportRequest(str(tmp_path / "dull"), tmp_path / "b", level="fine", texts=["The army."]), told.append)
    notes = [text for text in told if "the original finds no entity in the" in text]
    assert len(notes) == 1
    assert json.loads((tmp_path / "b" / "nerd.json").read_text("utf-8"))["verification"]["note"] == notes[0]
    assert notes[0] in (tmp_path / "b" / "README.md").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("full_at", ["model", "tokenizer.json", "nerd.json", "README.md"])
def test_a_full_disk_ends_in_one_line_and_leaves_nothing(
    full_at: str,
    *,
    family: str,
    checkpoint: Callable[..., Path],
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import nerd_export.conversion.export as module

    full = OSError(errno.ENOSPC, "No space left on device")
    write_text = Path.write_text

    def write(path: Path, *args: Any, **options: Any) -> int:
        if path.name == full_at and path.is_relative_to(tmp_path):
            raise full
        return write_text(path, *args, **options)

    def save(*_: Any) -> None:
        raise full

    def export(_: Checkpoint, scratch: Path) -> Path:
        shutil.copytree(exported.parent, scratch, dirs_exist_ok=True)
        return scratch / "model.onnx"

    monkeypatch.setattr(module, "export_onnx", export)
    monkeypatch.setattr(Path, "write_text", write)
    if full_at == "model":
        monkeypatch.setattr(ir, "save", save)
    request = ExportRequest(str(checkpoint(family)), tmp_path / "b", level="fine", limits=WIDE, texts=["The army."])
    with fails(OutputError, "cannot-write"):
        export_bundle(request, lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_only_writing_is_called_writing(tmp_path: Path) -> None:
    failure = OSError("the network is away")
    with (
        pytest.raises(OSError, match="the network is away") as caught,
        new_bundle_folder(tmp_path / "b", overwrite=False),
    ):
        raise failure
    assert caught.value is failure
    assert list(tmp_path.iterdir()) == []
    with (
        fails(OutputError, "not-folder", file="/dev/null/b", folder="/dev/null"),
        new_bundle_folder(Path("/dev/null/b"), overwrite=False),
    ):
        pass


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not-json"),
        ("[]", "bad-training-record"),
        ('{"recipe": []}', "bad-training-record"),
        ('{"data": {"train": 1}}', "bad-training-record"),
    ],
)
def test_a_malformed_training_record_is_named(
    checkpoint: Callable[..., Path], tmp_path: Path, content: str, reason: str
) -> None:
    shutil.copytree(checkpoint("bert"), tmp_path / "c")
    (tmp_path / "c" / "training.json").write_text(content)
    with fails(ModelError, reason, file=tmp_path / "c" / "training.json"):
        export_bundle(ExportRequest(str(tmp_path / "c"), tmp_path / "b"), lambda _: None)


def test_the_description_records_what_was_measured(tiny_bundle: Path) -> None:
    description = json.loads((tiny_bundle / "nerd.json").read_text("utf-8"))
    assert description["verification"]["texts"] == len(sample_texts())
    assert description["coarse"] == {
        "location-GPE": "location",
        "location-island": "location",
        "person-actor": "person",
        "person-other": "person",
    }
    assert description["lineage"]["checkpoint"] == "checkpoint"
    assert str(tiny_bundle.parent) not in json.dumps(description)
    assert set(description["files"]) >= {"model.onnx", "tokenizer.json", "config.json"}
    assert "README.md" not in description["files"]  # people may add to it
    assert (tiny_bundle / "README.md").read_text("utf-8").startswith("---\n")


def test_an_existing_output_is_kept_unless_told(
    tiny_bundle: Path, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    with fails(OutputError, "output-exists", file=tiny_bundle):
        export_bundle(ExportRequest(str(checkpoint("bert")), tiny_bundle), lambda _: None)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("x")
    with fails(OutputError, "not-bundle", file=tmp_path / "precious"):
        export_bundle(ExportRequest(str(checkpoint("bert")), tmp_path / "precious", overwrite=True), lambda _: None)


def test_unfit_checkpoints_are_refused(tmp_path: Path) -> None:
    with fails(ModelError, "cannot-load", file=tmp_path):
        load_checkpoint(str(tmp_path))
    make_checkpoint(tmp_path / "nameless", "bert", ("LABEL_0", "LABEL_1"))
    with fails(ModelError, "no-label-names"):
        load_checkpoint(str(tmp_path / "nameless"))
    make_checkpoint(tmp_path / "other", "bert", FINE_LABELS)
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    with fails(ModelError, "not-token-classifier", found="BertForMaskedLM"):
        load_checkpoint(str(tmp_path / "other"))


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_a_plain_hugging_face_folder_agrees_with_transformers_pipeline(
    kind: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    import transformers

    source = str(checkpoint(kind, BIO_LABELS))
    export_onnx(load_checkpoint(source), tmp_path)
    assert not (tmp_path / "nerd.json").exists()
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModelForTokenClassification.from_pretrained(source)
    texts = [text for text in sample_texts() if len(tokenizer(text)["input_ids"]) < 120][:60]
    pipeline = transformers.pipeline(
        "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first"
    )
    expected = [[(e["start"], e["end"], e["entity_group"]) for e in row] for row in pipeline(texts)]
    scores = [e["score"] for row in pipeline(texts) for e in row]
    found = Tagger.load(tmp_path, join="scheme").tag(texts)
    assert [[(e.start, e.end, e.label) for e in row or []] for row in found] == expected
    assert sum(map(len, expected)) > 100
    np.testing.assert_allclose([e.score for row in found for e in row or []], scores, atol=1e-4)
