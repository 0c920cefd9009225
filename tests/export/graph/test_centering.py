"""Centered activations: the network stays the same, and the range of a token's 8 bits gets smaller."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nerd_export.graph.centering import center, channel_means
from nerd_export.graph.linear import quantizable_layers
from nerd_export.graph.nodes import nodes_of
from nerd_export.models.networks import segment_batches
from nerd_export.models.onnx_export import export_onnx, load_checkpoint
from nerd_export.quantization.layers import quantize_products
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.description import Description
from nerd_onnx.inference.encoding import EncodedBatch
from tests.support.bundles import prepared, random_batches
from tests.support.models import FINE_LABELS, sample_texts
from tests.support.profiles import example_count

FAR = 12.0
_SECOND = re.compile(r"layer\.\d+/output/dense")  # it reads no layer norm, and has most of the error here


def logits(model: ir.Model, ids: Any, folder: Path) -> Any:
    ir.save(model, folder / "m.onnx")
    session = ort.InferenceSession(str(folder / "m.onnx"), providers=["CPUExecutionProvider"])
    return session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_channels_far_from_zero_cost_next_to_nothing(
    family: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """As in trained models, in which layer norms move a few channels far from zero in every text."""
    original = load_checkpoint(str(checkpoint(family, FINE_LABELS)))
    with torch.no_grad():
        for name, parameter in original.model.named_parameters():
            if name.endswith("LayerNorm.bias"):
                parameter[:3] += torch.tensor([FAR, -FAR, FAR / 2])
    exported = export_onnx(original, tmp_path / "onnx")
    means = channel_means(prepared(exported), random_batches(3), tmp_path)
    assert all(np.abs(mean).max() > FAR / 2 for mean in means.values())
    ids = np.random.default_rng(9).integers(5, 500, (4, 50))
    expected = logits(prepared(exported), ids, tmp_path)
    errors = []
    for given_means in (None, means):
        model = prepared(exported, means=given_means)
        np.testing.assert_allclose(logits(model, ids, tmp_path), expected, atol=1e-4)
        names = [layer.name for layer in quantizable_layers(model.graph)]
        quantize_products(model, keep_fp32=[name for name in names if _SECOND.search(name)])
        errors.append(float(((logits(model, ids, tmp_path) - expected) ** 2).mean()))
    assert errors[1] < errors[0] / 100


def test_the_means_are_those_of_the_text_in_whole_steps(
    checkpoint: Callable[..., Path], plain_graph: Callable[[str], Path], tmp_path: Path
) -> None:
    original = load_checkpoint(str(checkpoint("bert")))
    model = prepared(plain_graph("bert"))
    batches = [EncodedBatch(np.random.default_rng(n).integers(5, 500, (n, 10 * n))) for n in (1, 2, 3)]
    found = channel_means(model, batches, tmp_path)
    rows: list[Any] = []
    norm = original.model.bert.embeddings.LayerNorm
    norm.register_forward_hook(lambda *seen: rows.append(seen[-1].reshape(-1, seen[-1].shape[-1]).detach()))
    for batch in batches:
        original.model(input_ids=torch.from_numpy(batch.ids), attention_mask=torch.ones(batch.ids.shape))
    mean = found[str(nodes_of(model.graph, "LayerNormalization")[0].outputs[0].name)]
    assert np.abs(mean - torch.cat(rows).mean(0).numpy()).max() < 0.51 / 16
    assert (mean * 16 == np.rint(mean * 16)).all()


def test_what_is_exported_is_centered(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    graph = ir.load(bundle.model_file)
    means = channel_means(graph, segment_batches(bundle, sample_texts()), tmp_path)
    assert len(means) == Description.read(tiny_bundle).quantization["centered_layer_norms"] == 5
    assert all(np.abs(mean).max() <= 1 / 8 for mean in means.values())  # in fp32 they were found, in int8 they moved


def test_a_graph_without_layer_norms_and_means_that_are_not_finite_stay(tmp_path: Path) -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 20]>
    norms (float[batch, 4] x) => (float[batch, 4] out) <float[4] one = {1, 1, 1, 1}, float[4] none = {0, 0, 0, 0},
    float[4] also = {1, 1, 1, 1}, float[4, 4] matrix = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}> {
        seen = LayerNormalization (x, one, none)
        product = MatMul (seen, matrix)
        out = Add (product, also)
    }
    """
    graph = ir.from_proto(onnx.parser.parse_model(text)).graph
    assert center(graph, {"seen": np.array([1.0, np.nan, 0.0, 0.0])}) == []
    assert center(graph, {"seen": np.array([1.0, 2.0, 0.0, 0.0])}) == ["seen"]
    bare = ir.from_proto(onnx.parser.parse_model(text.replace("LayerNormalization (x, one, none)", "Relu (x)")))
    assert channel_means(bare, [EncodedBatch(np.ones((1, 4), dtype=np.int64))], tmp_path) == {}


def test_a_layer_norm_that_anyone_reads_who_cannot_make_up_for_it_stays() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 20]>
    norms (float[batch, tokens, 4] x) => (float[batch, tokens, 4] out) {
        seen = LayerNormalization (x, weight, bias1)
        product = MatMul (seen, matrix)
        layer = Add (product, addend1)
        also = LayerNormalization (layer, weight, bias2)
        second = MatMul (also, matrix)
        other = Add (second, addend2)
        squared = Mul (also, also)
        last = LayerNormalization (other, weight, bias3)
        bare = MatMul (last, matrix)
        summed = Add (bare, squared)
        alike = LayerNormalization (summed, weight, shared)
        third = MatMul (alike, matrix)
        twin = Add (third, addend3)
        given = LayerNormalization (twin, weight, bias4)
        fourth = MatMul (given, one)
        none1 = Add (fourth, zeros)
        tied = LayerNormalization (none1, weight, bias5)
        fifth = MatMul (tied, matrix)
        none2 = Add (fifth, zeros)
        output = LayerNormalization (none2, weight, shared)
        out = Identity (output)
    }
    """
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(1)
    vectors = ("weight", "shared", *(f"{name}{i}" for name in ("bias", "addend") for i in range(1, 6)))
    shapes = {"matrix": (4, 4), "one": (4, 4), **dict.fromkeys(vectors, (4,))}
    arrays_of = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, array in (*arrays_of.items(), ("zeros", np.zeros(4, dtype=np.float32))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = ir.from_proto(proto)
    values = {"x": rng.normal(size=(2, 3, 4)).astype(np.float32)}
    run = onnx.reference.ReferenceEvaluator
    expected = run(proto).run(None, values)[0]
    means = {name: np.full(4, 3.0) for name in ("seen", "also", "last", "alike", "given", "tied", "output")}
    # "also" is squared, "last" meets no bias, "alike" has one for two, "tied" meets zeros behind a matrix of others too
    assert center(model.graph, means) == ["seen", "given"]
    np.testing.assert_allclose(run(ir.to_proto(model)).run(None, values)[0], expected, atol=1e-5)


@settings(max_examples=example_count(60), deadline=None)
@given(arrays.arrays(np.float32, (1, 5, 8), elements=st.floats(-12, 12, width=32)))
@pytest.mark.parametrize(("kind", "least", "above"), [("Gelu", 0.17, 215), ("Relu", 0.0, 255)])
def test_what_is_known_to_be_small_below_zero_leaves_the_steps_to_what_is_above(
    kind: str, least: float, above: int, x: Any
) -> None:
    """The second layer restores each value of the first layer's activation within half a step."""
    text = f"""
    <ir_version: 9, opset_import: ["" : 20]>
    layers (int64[batch, tokens, 8] input_ids) => (float[batch, tokens, 8] logits) {{
        x = Cast <to: int = 1> (input_ids)
        small = Mul (x, thousandth)
        activation = {kind} (small)
        same = MatMul (activation, unit)
        logits = MatMul (same, unit)
    }}
    """
    proto = onnx.parser.parse_model(text)
    for name, array in {"unit": np.eye(8), "thousandth": np.array(1e-3)}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    model = ir.from_proto(proto)
    ids = np.rint(x * 1000).astype(np.int64)
    plain, rounded = (
        ort.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"])
        for each in (proto, _quantized(model))
    )
    expected, found = (session.run(None, {"input_ids": ids})[0] for session in (plain, rounded))
    floor = least * above / (255 - above) if above < 255 else 0.0
    step = np.maximum(expected.max(-1, keepdims=True), floor) / above
    assert (np.abs(found - expected) <= 0.51 * step + 1e-6).all()


def _quantized(model: ir.Model) -> Any:
    assert len(quantize_products(model)) == 1
    return ir.to_proto(model)
