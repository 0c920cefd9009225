"""Networks in onnxruntime: which graphs are accepted, and which logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nerd_onnx.errors import ModelError, NotFiniteError
from nerd_onnx.inference import bundle, session
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.graph_file import GraphFile, read_graph
from nerd_onnx.inference.session import Session, checked_logits
from nerd_onnx.tagger import Tagger
from tests.support.failures import fails


def make_model(
    path: Path, inputs: list[str], location: str | None = None, *, first: float = 0, matmul: bool = False
) -> Path:
    """Write a graph that looks ids up in a table of 4 rows and 2 labels, and perhaps multiplies them by one matrix."""
    import onnx
    from onnx import TensorProto, helper

    rows = np.arange(8, dtype=np.float32)
    rows[0] = first
    table = helper.make_tensor("table", TensorProto.FLOAT, [4, 2], rows.tobytes(), raw=True)
    if location is not None:
        table.ClearField("raw_data")
        table.data_location = TensorProto.EXTERNAL
        entry = table.external_data.add()
        entry.key, entry.value = "location", location
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"]) for name in inputs]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "t", 2])
    square = helper.make_tensor("square", TensorProto.FLOAT, [2, 2], rows[4:].tobytes(), raw=True)
    nodes = [helper.make_node("Gather", ["table", inputs[0]], ["found" if matmul else "logits"])]
    if matmul:
        nodes += [
            helper.make_node("Neg", ["found"], ["rows"]),
            helper.make_node("MatMul", ["rows", "square"], ["logits"]),
        ]
    graph = helper.make_graph(nodes, "g", values, [output], [table, *([square] if matmul else [])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_network_scores_ids(tmp_path: Path) -> None:
    session = Session(make_model(tmp_path / "m.onnx", ["input_ids", "attention_mask"]), optimized=False)
    assert session.labels == 2
    np.testing.assert_array_equal(session.logits(EncodedBatch(np.array([[3, 0]]))), [[[6, 7], [0, 1]]])


def test_a_graph_is_parsed_once_at_the_start(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []

    def counted(path: Path) -> GraphFile:
        parsed.append(path)
        return read_graph(path)

    for module in (bundle, session):
        monkeypatch.setattr(module, "read_graph", counted)
    tagger = Tagger.load(str(tiny_bundle), kernel="onnxruntime")
    assert tagger.tag([""]) == [[]]
    tagger.close()
    assert parsed == [tiny_bundle / "model.onnx"]


@pytest.mark.parametrize("inputs", [["input_ids", "pixel_values"], ["ids"]])
def test_foreign_inputs_are_refused(tmp_path: Path, inputs: list[str]) -> None:
    with fails(ModelError, "other-inputs", found=", ".join(inputs)):
        Session(make_model(tmp_path / "m.onnx", inputs), optimized=False)


def test_what_is_no_token_classifier_is_refused(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(make_model(tmp_path / "m.onnx", ["input_ids"]))
    del model.graph.output[0].type.tensor_type.shape.dim[0]
    del model.graph.input[0].type.tensor_type.shape.dim[0]
    onnx.save(model, tmp_path / "flat.onnx")
    with fails(ModelError, "other-output", file=tmp_path / "flat.onnx"):
        Session(tmp_path / "flat.onnx", optimized=False)


def test_failures_while_running_are_model_errors(tmp_path: Path) -> None:
    session = Session(make_model(tmp_path / "m.onnx", ["input_ids"]), optimized=False)
    with fails(ModelError, "cannot-run", tokens=2):
        session.logits(EncodedBatch(np.array([[1, 99]])))
    nan = Session(make_model(tmp_path / "n.onnx", ["input_ids"], first=float("nan")), optimized=False)
    with fails(NotFiniteError, "not-finite", file=tmp_path / "n.onnx"):
        nan.logits(EncodedBatch(np.array([[0]])))


@pytest.mark.parametrize("shape", [(0, 0, 2), (0, 2, 2), (1, 3, 2), (1, 2, 0), (1, 2, 3), (1, 2), (2,), ()])
def test_logits_of_another_shape_than_asked_for_are_refused(shape: tuple[int, ...]) -> None:
    batch = EncodedBatch(np.array([[1, 2]]))
    with fails(ModelError, "other-shape", file="m.onnx", found=str(shape)):
        checked_logits(np.zeros(shape, dtype=np.float32), batch, 2, "m.onnx")
    unknown = len(shape) == 3 and shape[:2] == (1, 2) and shape[2] > 0
    if not unknown:
        with fails(ModelError, "other-shape", file="m.onnx", found=str(shape)):
            checked_logits(np.zeros(shape, dtype=np.float32), batch, None, "m.onnx")


def test_a_network_that_returns_too_few_segments_is_refused(tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    model = onnx.load(make_model(tmp_path / "m.onnx", ["input_ids"]))
    model.graph.node[0].output[0] = "all"
    bounds = [helper.make_tensor(name, onnx.TensorProto.INT64, [1], [value]) for name, value in (("b", 0), ("e", 1))]
    model.graph.initializer.extend(bounds)
    model.graph.node.append(helper.make_node("Slice", ["all", "b", "e"], ["logits"]))
    onnx.save(model, tmp_path / "m.onnx")
    session = Session(tmp_path / "m.onnx", optimized=True)
    assert session.logits(EncodedBatch(np.array([[1, 2]]))).shape == (1, 2, 2)
    with fails(ModelError, "other-shape", file=tmp_path / "m.onnx", found="(1, 2, 2)"):
        session.logits(EncodedBatch(np.array([[1, 2], [2, 3]])))


def test_dynamic_quantization_of_whole_batches_is_noticed(tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    source = make_model(tmp_path / "m.onnx", ["input_ids"], matmul=True)
    quantize_dynamic(source, tmp_path / "q.onnx")
    assert not Session(source, optimized=False).mixes_texts
    assert Session(tmp_path / "q.onnx", optimized=False).mixes_texts


def test_external_data_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(np.arange(8, dtype=np.float32).tobytes())
    (tmp_path / "model").mkdir()
    inside = make_model(tmp_path / "model" / "m.onnx", ["input_ids"], location="weights.bin")
    (tmp_path / "model" / "weights.bin").write_bytes((tmp_path / "secret.bin").read_bytes())
    assert Session(inside, optimized=False).labels == 2
    outside = make_model(tmp_path / "model" / "o.onnx", ["input_ids"], location="../secret.bin")
    with fails(ModelError, "cannot-load", file=outside):
        Session(outside, optimized=False)


def test_an_output_that_is_not_numeric_is_refused(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "t"])
    output = helper.make_tensor_value_info("logits", TensorProto.STRING, ["b", "t", 1])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [2])
    words = helper.make_tensor("words", TensorProto.STRING, [4], [b"a", b"b", b"nan", b"d"])
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["found"]),
        helper.make_node("Unsqueeze", ["found", "axes"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "g", [ids], [output], [axes, words])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    session = Session(tmp_path / "m.onnx", optimized=False)
    with fails(ModelError, "cannot-run", tokens=2):
        session.logits(EncodedBatch(np.array([[0, 1]])))
