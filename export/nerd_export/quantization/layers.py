"""
Rewrite linear layers to 8 bits, in one of three ways. In all of them a text's result is independent of its batch.

**Per token** (``int8``): the activation of every token has its own scale and is rounded to unsigned 8 bits. The scale
is ``max|x| / 127`` with zero point 128; after Gelu ``max(x) / 215`` with zero point 40, and after Relu ``max(x) / 255``
with zero point 0, because these are never far below zero. The weights have one scale per output channel and are rounded
to signed 8 bits that cannot saturate (:mod:`rounding`). The product uses integers (onnxruntime's
``MatMulIntegerToFloat``, whose kernel for unsigned times signed is the fast one), and both scales and the bias are
applied to the result. The result of a token depends on that token alone. ONNX Runtime's own dynamic quantization takes
one scale for the whole batch instead. The scheme is that of ZeroQuant (Yao et al., 2022, arXiv:2206.01861), without its
distillation.

**Static** (``int8-static``): the same product with one scale per activation, measured beforehand on real text
(:mod:`ranges`).

**Weights** (``int8-weights``): weights are stored in 8 bits and turned back to fp32 when the model is loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from nerd_export.graph.linear import Linear, quantizable_layers
from nerd_export.graph.nodes import MICROSOFT, add_initializer, constant, nodes_of, tidy
from nerd_export.graph.rewritten_constants import INT8, marked
from nerd_export.quantization.rounding import LARGEST, SMALLEST_SCALE, Rounded, WeightRounding

_PASSING_IDS = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})  # nodes that do not change ids


@dataclass(frozen=True)
class ActivationRange:
    """
    The 8-bit range of an activation: ``(integer - zero_point) * scale``.

    :param scale: step between two integers
    :param zero_point: the integer for 0.0, from 0 to 255
    """

    scale: float
    zero_point: int


@dataclass(frozen=True)
class _Levels:
    """
    How the 256 integers of a token are divided between values above and below zero.

    :param zero_point: the integer for 0.0
    :param positive: levels above it
    :param minimum: lower bound of all values, 0 or less; None if it depends on the text
    """

    zero_point: int
    positive: int
    minimum: float | None = None

    @property
    def smallest_peak(self) -> float:
        """Lower bound for the largest value of a token, so that the minimum still has a level."""
        needed = -(self.minimum or 0.0) * self.positive / self.zero_point if self.zero_point else 0.0
        return max(needed, SMALLEST_SCALE * self.positive)


_SYMMETRIC = _Levels(128, 127)
# Gelu's minimum is -0.16997. Where it has 40 levels, they are coarser than symmetric ones only in tokens whose largest
# value is below 0.54.
_LEVELS_AFTER = {"Gelu": _Levels(40, 215, -0.17), "Relu": _Levels(0, 255, 0.0)}


def quantize_products(
    model: ir.Model,
    ranges: Mapping[str, ActivationRange] | None = None,
    keep_fp32: Collection[str] = (),
    rounding: WeightRounding | None = None,
) -> list[str]:
    """
    Rewrite linear layers to products of 8-bit integers, in place; the classifier stays fp32.

    :param ranges: fixed ranges of activations, by name in the graph; an activation without one is scaled per token
    :param keep_fp32: names of further layers that stay fp32
    :param rounding: rounds the weights; None to ignore the statistics of their inputs
    :return: names of the layers rewritten
    :raises OptionError: when a name in ``keep_fp32`` is not the name of a layer
    """
    graph = model.graph
    layers = quantizable_layers(graph, keep_fp32)
    rounding = rounding or WeightRounding()
    shared: dict[ir.Value, _Integers] = {}

    for layer in layers:
        # Queries, keys and values read one activation, which is quantized once.
        if layer.source not in shared:
            found = (ranges or {}).get(layer.source_name)
            shared[layer.source] = _per_token(graph, layer) if found is None else _fixed(graph, layer, found)
        integers = shared[layer.source]

        # With one scale for the tensor, the operator adds the bias itself. A scale per token has to be applied first.
        fixed = integers.row_scale is None
        product = _integer_product(graph, layer, integers, rounding(layer), with_bias=fixed)
        nodes = [product]
        if integers.row_scale is not None:
            nodes.append(ir.node("Mul", [product.outputs[0], integers.row_scale]))
        graph.insert_before(layer.matmul, nodes)

        replaced = layer.result if fixed else layer.matmul.outputs[0]
        replaced.replace_all_uses_with(nodes[-1].outputs[0])

    model.opset_imports.setdefault(MICROSOFT, 1)
    tidy(model)

    return [layer.name for layer in layers]


def quantize_weights(model: ir.Model, keep_fp32: Collection[str] = ()) -> list[str]:
    """
    Store the weights of linear layers in 8 bits, in place; onnxruntime folds them to fp32 when it loads the model.

    :return: names of the layers rewritten
    :raises OptionError: when a name in ``keep_fp32`` is not the name of a layer
    """
    graph = model.graph
    layers = quantizable_layers(graph, keep_fp32)

    for layer in layers:
        # Ordinary 8-bit weights: onnxruntime turns them back to floats, so no integer product can saturate.
        integers, scale = quantized_weight(layer.weight)

        cast = ir.node(
            "Cast", [add_initializer(graph, f"{layer.name}.weight_int8", integers)], {"to": ir.DataType.FLOAT}
        )
        scaled = ir.node("Mul", [cast.outputs[0], add_initializer(graph, f"{layer.name}.weight_scale", scale)])
        graph.insert_before(layer.matmul, [cast, scaled])
        layer.matmul.replace_input_with(1, scaled.outputs[0])

    tidy(model)
    return [layer.name for layer in layers]


def quantized_weight(weight: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """
    Round a matrix to 8 bits with one scale per column, for storage: no integer kernel reads it.

    :param weight: *Shape:* (inputs, outputs)
    :return: integers *Shape:* (inputs, outputs), and scales *Shape:* (outputs,)
    """
    scale = np.maximum(np.abs(weight).max(axis=0) / LARGEST, SMALLEST_SCALE).astype(np.float32)
    return np.clip(np.rint(weight / scale), -LARGEST, LARGEST).astype(np.int8), scale


def quantize_embeddings(model: ir.Model) -> list[str]:
    """
    Store word embeddings in signed 8 bits with one scale per row, in place: a quarter of their size.

    Only the rows that a text uses are converted to floats, so it costs next to no time.

    :return: names of the tables rewritten: those that input_ids index
    """
    graph = model.graph
    done = []
    for gather in nodes_of(graph, "Gather"):
        table = constant(gather.inputs[0])
        # Tables of positions and token types are small, and their error would be in every token.
        if table is None or table.ndim != 2 or not _reads_input_ids(gather):  # noqa: PLR2004
            continue

        name = str(gather.inputs[0].name)

        # Transposed, because the scales are per column there and per row here.
        integers, scale = quantized_weight(np.ascontiguousarray(table.T))
        rows = ir.node("Gather", [add_initializer(graph, marked(name, INT8), integers.T.copy()), gather.inputs[1]])
        scales = ir.node("Gather", [add_initializer(graph, f"{name}.scale", scale[:, None]), gather.inputs[1]])
        floats = ir.node("Cast", rows.outputs, {"to": ir.DataType.FLOAT})
        result = ir.node("Mul", [floats.outputs[0], scales.outputs[0]])

        graph.insert_before(gather, [rows, scales, floats, result])
        gather.outputs[0].replace_all_uses_with(result.outputs[0])
        graph.remove(gather, safe=True)
        done.append(name)

    tidy(model)
    return done


def _reads_input_ids(gather: ir.Node) -> bool:
    """Whether a Gather reads rows of its table by input_ids, either directly or through nodes that keep the ids."""
    value = gather.inputs[1]
    # Exporters put Casts and Reshapes between the input and the table.
    while value is not None and (node := value.producer()) is not None and node.op_type in _PASSING_IDS:
        value = node.inputs[0]
    return value is not None and value.name == "input_ids" and gather.attributes.get_int("axis", 0) == 0


@dataclass(frozen=True)
class _Integers:
    """
    An activation in 8 bits, quantized once for all the layers that read it.

    :param value: *Shape:* (batch, tokens, inputs)
    :param scale: scale of the whole tensor
    :param row_scale: additional scale of each token, None without one. *Shape:* (batch, tokens, 1)
    """

    value: ir.Value
    scale: ir.Value
    zero_point: ir.Value
    row_scale: ir.Value | None = None


def _fixed(graph: ir.Graph, layer: Linear, found: ActivationRange) -> _Integers:
    """Insert the node that quantizes an activation by a fixed range."""
    scale = add_initializer(graph, f"{layer.name}.input_scale", np.float32(found.scale))
    zero_point = add_initializer(graph, f"{layer.name}.input_zero_point", np.array(found.zero_point, dtype=np.uint8))
    rounded = ir.node("QuantizeLinear", [layer.source, scale, zero_point])
    graph.insert_before(layer.matmul, [rounded])
    return _Integers(rounded.outputs[0], scale, zero_point)


def _per_token(graph: ir.Graph, layer: Linear) -> _Integers:
    """
    Insert the nodes that quantize an activation token by token.

    The largest absolute value is the larger of maximum and -minimum, which writes no tensor of absolute values. A token
    is a row of QuantizeLinear with its own scale. This saves 5 to 9% of the network's time compared with Abs and Mul.
    After Gelu and Relu the minimum is known, which saves another 2 to 3%.
    """
    source, width = layer.source, layer.weight.shape[0]
    producer = source.producer()
    levels = _LEVELS_AFTER.get(producer.op_type, _SYMMETRIC) if producer is not None else _SYMMETRIC

    last = _shared_constant(graph, "per_token.last_axis", np.array([-1], dtype=np.int64))
    positive = _shared_constant(graph, f"per_token.levels_{levels.positive}", np.float32(levels.positive))
    smallest = _shared_constant(graph, f"per_token.peak_{levels.positive}", np.float32(levels.smallest_peak))
    rows = _shared_constant(graph, f"per_token.rows_of_{width}", np.array([-1, width], dtype=np.int64))

    high = ir.node("ReduceMax", [source, last], {"keepdims": 1})
    below: list[ir.Node] = []
    if levels.minimum is None:
        low = ir.node("ReduceMin", [source, last], {"keepdims": 1})
        below = [low, ir.node("Neg", low.outputs)]
        size = ir.node("Max", [high.outputs[0], below[1].outputs[0], smallest])
    else:
        size = ir.node("Max", [high.outputs[0], smallest])

    scale = ir.node("Div", [size.outputs[0], positive])
    scales = ir.node("Reshape", [scale.outputs[0], last])
    # QuantizeLinear wants one zero point per scale, and the number of tokens is known at run time only.
    count = ir.node("Shape", scales.outputs)
    middle = ir.tensor(np.array([levels.zero_point], dtype=np.uint8))
    zero_points = ir.node("ConstantOfShape", count.outputs, {"value": middle})

    # One row per token: QuantizeLinear takes one scale per row of a matrix.
    tokens = ir.node("Reshape", [source, rows])
    integers = ir.node("QuantizeLinear", [tokens.outputs[0], scales.outputs[0], zero_points.outputs[0]], {"axis": 0})
    shape = ir.node("Shape", [source])
    result = ir.node("Reshape", [integers.outputs[0], shape.outputs[0]])

    nodes = [high, *below, size, scale, scales, count, zero_points, tokens, integers, shape, result]
    graph.insert_before(layer.matmul, nodes)

    # The product is scaled by token afterwards, so its own scale is 1.
    one = _shared_constant(graph, "per_token.one", np.float32(1))
    zero_point = _shared_constant(graph, f"per_token.zero_point_{levels.zero_point}", np.uint8(levels.zero_point))

    return _Integers(result.outputs[0], one, zero_point, scale.outputs[0])


def _integer_product(
    graph: ir.Graph, layer: Linear, integers: _Integers, rounded: Rounded, *, with_bias: bool
) -> ir.Node:
    """Return the integer product with float output: ``(integers - zero_point) @ weight * scale * weight_scale``."""
    weight, weight_scale = rounded
    # Without its own bias the layer keeps the Add that follows, which comes after the scale of the token.
    bias = layer.bias_vector if with_bias else None
    inputs = [
        integers.value,
        add_initializer(graph, f"{layer.name}.weight_int8", weight),
        integers.scale,
        add_initializer(graph, f"{layer.name}.weight_scale", weight_scale),
        integers.zero_point,
        *([] if bias is None else [None, bias]),
    ]
    return ir.node("MatMulIntegerToFloat", inputs, domain=MICROSOFT, name=layer.name)


def _shared_constant(graph: ir.Graph, name: str, value: Any) -> ir.Value:
    """Return the constant of that name; it is added on first use."""
    found = graph.initializers.get(name)
    return found if found is not None else add_initializer(graph, name, np.asarray(value))
