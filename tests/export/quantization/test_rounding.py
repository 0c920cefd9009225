"""Weights that cannot saturate: the limit holds for any matrix, the error stays small, and every kernel is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from nerd_export.quantization.layers import quantized_weight
from nerd_export.quantization.rounding import LARGEST, PAIR_LIMIT, rounded_weight
from nerd_onnx.inference.bundle import DEFAULT_FOLDER
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.session import Session

INTEGER_PRODUCT = "MatMulIntegerToFloat"
# Every row count has a kernel of its own up to 6, and reduced axes are packed in fours, output channels in sixteens.
SHAPES = [
    (rows, inputs, outputs)
    for rows in (1, 2, 3, 4, 5, 6, 7, 13)
    for inputs, outputs in ((3, 1), (4, 3), (6, 8), (65, 16), (384, 33), (1538, 20))
]


def saturating(activations: Any, weight: Any) -> Any:
    """
    Multiply as ``vpmaddubsw`` and ``vpmaddwd`` do: two neighbouring products in saturating 16 bits, the rest in 32.

    :param activations: *Shape:* (rows, inputs)
    :param weight: *Shape:* (inputs, outputs)
    """
    if len(weight) % 2:
        activations, weight = np.pad(activations, ((0, 0), (0, 1))), np.pad(weight, ((0, 1), (0, 0)))
    left, right = activations.astype(np.int64), weight.astype(np.int64)
    total = np.zeros((len(left), right.shape[1]), dtype=np.int64)
    for pair in range(0, len(right), 2):
        total += np.clip(left[:, pair : pair + 2] @ right[pair : pair + 2], -32768, 32767)
    return total


def exact(activations: Any, weight: Any) -> Any:
    return activations.astype(np.int64) @ weight.astype(np.int64)


def pair_sums(weight: Any) -> Any:
    """Return, for each pair of neighbours, how much of the limit it uses; 0 where the signs differ."""
    even = weight[: len(weight) // 2 * 2].astype(int).reshape(-1, 2, weight.shape[1])
    return np.where(even[:, 0] * even[:, 1] > 0, np.abs(even).sum(axis=1), 0)


def worst_weights(rng: np.random.Generator, inputs: int, outputs: int) -> Any:
    """Return weights at the limit: pairs of one sign that reach it, and pairs of two signs at full size."""
    first = rng.integers(1, LARGEST + 1, (inputs // 2 + 1, outputs))
    sign = rng.choice([-1, 1], first.shape)
    pairs = np.stack([first * sign, (PAIR_LIMIT - first) * sign], axis=1)
    opposite = rng.random(first.shape) < 0.2
    pairs[:, 0][opposite], pairs[:, 1][opposite] = LARGEST, -LARGEST
    return pairs.reshape(-1, outputs)[:inputs].astype(np.int8)


def worst_activations(rng: np.random.Generator, rows: int, weight: Any) -> Any:
    """Make rows of 255, of 255 where an output channel is positive or negative, and of 0 and 255 by chance."""
    made = [np.full(len(weight), 255)]
    made += [255 * (weight[:, channel] * sign > 0) for channel in range(weight.shape[1]) for sign in (1, -1)]
    chosen = [made[i % len(made)] for i in range(rows)]
    return np.stack([row if i % 3 < 2 else rng.choice([0, 255], len(weight)) for i, row in enumerate(chosen)]).astype(
        np.uint8
    )


def product_session(weight: Any, zero_point: int, options: ort.SessionOptions | None = None) -> ort.InferenceSession:
    """Open a session that multiplies by a constant matrix, as any program that runs our graph does."""
    constants = {
        "weight": weight,
        "one": np.float32(1),
        "scale": np.ones(weight.shape[1], np.float32),
        "zero": np.uint8(zero_point),
    }
    node = helper.make_node(INTEGER_PRODUCT, ["x", "weight", "one", "scale", "zero"], ["y"], domain="com.microsoft")
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", len(weight)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", weight.shape[1]])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("zero_point", [0, 40, 128])
def test_products_at_the_limit_are_exact_in_the_kernels_of_this_processor(zero_point: int) -> None:
    rng = np.random.default_rng(1)
    for rows, inputs, outputs in SHAPES:
        weight = worst_weights(rng, inputs, outputs)
        activations = worst_activations(rng, rows, weight)
        found = product_session(weight, zero_point).run(None, {"x": activations})[0]
        expected = exact(activations, weight) - zero_point * weight.sum(axis=0, dtype=np.int64)
        np.testing.assert_array_equal(found, expected.astype(np.float32), err_msg=f"{rows} x {inputs} x {outputs}")


def test_the_limit_is_what_keeps_sums_of_16_bits_exact() -> None:
    """The emulated product shows it on every processor: at the limit it is exact, one step above it is not."""
    rng = np.random.default_rng(2)
    weight = worst_weights(rng, 64, 16)
    activations = worst_activations(rng, 40, weight)
    np.testing.assert_array_equal(saturating(activations, weight), exact(activations, weight))

    above = np.array([[64], [65]], dtype=np.int8)
    assert saturating(np.full((1, 2), 255), above) != exact(np.full((1, 2), 255), above)

    plain, _ = quantized_weight(rng.normal(size=(384, 64)).astype(np.float32))
    rows = worst_activations(rng, 128, plain)
    assert (saturating(rows, plain) != exact(rows, plain)).any()


def test_the_default_model_cannot_saturate() -> None:
    rng = np.random.default_rng(3)
    graph = onnx.load(DEFAULT_FOLDER / "model.onnx").graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == INTEGER_PRODUCT]
    assert len(products) == 36
    for node in products:
        weight = numpy_helper.to_array(constants[node.input[1]])
        assert weight.dtype == np.int8
        assert pair_sums(weight).max() <= PAIR_LIMIT
        assert weight.min() >= -LARGEST
    activations = worst_activations(rng, 50, weight)
    found = product_session(weight, 0).run(None, {"x": activations})[0]
    np.testing.assert_array_equal(found, exact(activations, weight).astype(np.float32))


WEIGHTS = st.tuples(st.integers(1, 9), st.integers(1, 4)).flatmap(
    lambda shape: arrays.arrays(np.float32, shape, elements=st.floats(-1e4, 1e4, width=32))
)


@given(WEIGHTS, st.booleans())
def test_any_matrix_is_rounded_within_the_limit(weight: Any, with_moments: bool) -> None:  # noqa: FBT001
    inputs = np.random.default_rng(len(weight)).normal(size=(7, len(weight))).astype(np.float32)
    integers, scale = rounded_weight(weight, inputs.T @ inputs if with_moments else None)
    assert integers.dtype == np.int8
    assert np.abs(integers.astype(int)).max() <= LARGEST
    assert pair_sums(integers).max(initial=0) <= PAIR_LIMIT
    assert (scale > 0).all()
    assert np.isfinite(scale).all()


@given(WEIGHTS, st.booleans())
def test_weights_that_were_rounded_before_stay_as_they_are(weight: Any, with_moments: bool) -> None:  # noqa: FBT001
    inputs = np.random.default_rng(len(weight)).normal(size=(7, len(weight))).astype(np.float32)
    moments = inputs.T @ inputs if with_moments else None
    integers, scale = rounded_weight(weight, moments)
    again, same_scale = rounded_weight(integers * scale, moments)
    np.testing.assert_allclose(again * same_scale, integers * scale, rtol=1e-5, atol=1e-6 * float(scale.max()))


@given(WEIGHTS)
def test_a_pair_within_the_limit_is_rounded_to_the_nearest_step(weight: Any) -> None:
    integers, scale = rounded_weight(weight)
    steps = weight / scale
    free = np.abs(integers.astype(int)) < LARGEST
    room = pair_sums(integers) < PAIR_LIMIT
    free[: len(room) * 2] &= np.repeat(room, 2, axis=0)
    np.testing.assert_allclose(integers[free], steps[free], atol=0.501)


def test_a_scale_is_chosen_by_its_error() -> None:
    """Trimming many pairs at the full scale costs more than coarser steps do."""
    rng = np.random.default_rng(4)
    weight = np.abs(rng.normal(size=(64, 32))).astype(np.float32) + 1  # of one sign, and of about one size
    integers, scale = rounded_weight(weight)
    full = np.abs(weight).max(axis=0) / LARGEST
    assert (scale > 1.2 * full).all()
    error = np.square(integers * scale - weight).mean()
    trimmed = np.minimum(np.rint(weight / full), PAIR_LIMIT / 2) * full
    assert error < np.square(trimmed - weight).mean() / 10


def test_later_inputs_compensate_for_the_error_of_earlier_ones() -> None:
    rng = np.random.default_rng(5)
    inputs = (rng.normal(size=(2000, 8)) @ rng.normal(size=(8, 64)) + 0.3 * rng.normal(size=(2000, 64))).astype(
        np.float32
    )
    weight = rng.normal(size=(64, 24)).astype(np.float32)

    def error(rounded: Any) -> float:
        integers, scale = rounded
        return float(np.square(inputs @ (integers * scale - weight)).mean())

    plain = quantized_weight(weight)
    assert error(rounded_weight(weight, inputs.T @ inputs)) < 0.5 * error(rounded_weight(weight))
    assert error(rounded_weight(weight, inputs.T @ inputs)) < error(plain)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_moments_that_say_nothing_are_left_out(value: float) -> None:
    weight = np.random.default_rng(6).normal(size=(6, 3)).astype(np.float32)
    expected, expected_scale = rounded_weight(weight)
    integers, scale = rounded_weight(weight, np.full((6, 6), value, dtype=np.float32))
    np.testing.assert_array_equal(integers, expected)
    np.testing.assert_array_equal(scale, expected_scale)


def test_a_foreign_graph_with_weights_that_can_saturate_is_run_exactly(tmp_path: Path) -> None:
    """A bundle of format 4 too: its graph is opened like one of another program where its products could saturate."""
    rng = np.random.default_rng(7)
    weight = rng.choice([-127, 127], (64, 5)).astype(np.int8)
    table = worst_activations(rng, 20, weight)
    assert (saturating(table, weight) != exact(table, weight)).any()

    constants = {
        "table": table,
        "weight": weight,
        "one": np.float32(1),
        "scale": np.ones(5, np.float32),
        "zero": np.uint8(0),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node(INTEGER_PRODUCT, ["x", "weight", "one", "scale", "zero"], ["logits"], domain="com.microsoft"),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", 5])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "m.onnx")
    found = Session(tmp_path / "m.onnx", optimized=False).logits(EncodedBatch(np.arange(20).reshape(2, 10)))
    np.testing.assert_array_equal(found.reshape(20, 5), exact(table, weight).astype(np.float32))
