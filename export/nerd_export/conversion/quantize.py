"""
Per-token dynamic int8: 8-bit weights and activations, with one scale a row of the activation matrix.

For each linear layer ``x @ W + b`` the activation of every token is scaled by its own ``max|x| / 127`` and rounded
to unsigned 8 bits around 128, the weights by one scale an output channel to signed 8 bits; the product runs in
integers (onnxruntime's ``MatMulIntegerToFloat``, whose kernel for unsigned times signed is the fast one), and both
scales and the bias are applied to the result. A token's result depends on that token alone, so no batch neighbour
or padding can change it, unlike ONNX Runtime's dynamic quantization, which takes one scale for the whole batch.
The scheme is that of ZeroQuant (Yao et al., 2022, arXiv:2206.01861), without its distillation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from nerd_export.conversion.graph import MICROSOFT, add_initializer, constant, consumers, nodes_of, tidy
from nerd_onnx.errors import OptionError

ZERO_POINT = 128
LARGEST = 127.0
_PASSING_IDS = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})  # nodes that leave ids what they are
_SMALLEST_SCALE = 1e-9  # a row of zeros stays a row of zeros instead of dividing by zero


@dataclass(frozen=True)
class Linear:
    """
    A linear layer of the graph, found by what it is: a MatMul with a constant matrix, and its bias.

    :param matmul: the product
    :param weight: *Shape:* (inputs, outputs)
    :param bias: the Add that follows, None without one
    """

    matmul: ir.Node
    weight: npt.NDArray[np.float32]
    bias: ir.Node | None

    @property
    def name(self) -> str:
        """Name for messages and parameters."""
        return str(self.matmul.name or self.matmul.outputs[0].name)


def linear_layers(graph: ir.Graph) -> list[Linear]:
    """List the graph's linear layers in order."""
    layers = []
    for node in nodes_of(graph, "MatMul"):
        weight = constant(node.inputs[1])
        if weight is not None and weight.ndim == 2:  # noqa: PLR2004
            followers = list(consumers(node.outputs[0]))
            add = followers[0] if len(followers) == 1 and followers[0].op_type == "Add" else None
            is_bias = add is not None and any(_is_vector(value, weight.shape[1]) for value in add.inputs)
            layers.append(Linear(node, weight.astype(np.float32), add if is_bias else None))
    return layers


def quantize_per_token(model: ir.Model, keep_fp32: Collection[str] = ()) -> list[str]:
    """
    Rewrite linear layers to per-token int8, in place; the classifier stays fp32.

    :param keep_fp32: names of further layers to leave as they are
    :return: names of the layers rewritten
    :raises OptionError: when a name to keep is no layer's
    """
    graph = model.graph
    names = [layer.name for layer in linear_layers(graph)]
    unknown = [name for name in keep_fp32 if name not in names]
    if unknown:
        raise OptionError(f"--keep-fp32: no layer {', '.join(unknown)}; the linear layers are {', '.join(names)}")
    outputs = set(graph.outputs)
    shared: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
    done = []
    for layer in linear_layers(graph):
        result = layer.bias.outputs[0] if layer.bias else layer.matmul.outputs[0]
        if layer.name in keep_fp32 or result in outputs:
            continue
        source = layer.matmul.inputs[0]
        if source is None:
            continue
        if source not in shared:
            shared[source] = _quantized_activation(graph, source, before=layer.matmul)
        _rewrite(graph, layer, *shared[source])
        done.append(layer.name)
    model.opset_imports.setdefault(MICROSOFT, 1)
    tidy(model)
    return done


def quantized_weight(weight: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """
    Round a weight matrix to 8 bits with one scale an output channel.

    :param weight: *Shape:* (inputs, outputs)
    :return: integers *Shape:* (inputs, outputs), and scales *Shape:* (outputs,)
    """
    scale = np.maximum(np.abs(weight).max(axis=0) / LARGEST, _SMALLEST_SCALE).astype(np.float32)
    return np.clip(np.rint(weight / scale), -LARGEST, LARGEST).astype(np.int8), scale


def quantize_embeddings(model: ir.Model) -> list[str]:
    """
    Store word embeddings in signed 8 bits with one scale a row, in place: a quarter of their size.

    Only the rows that a text uses are turned back into floats, so it costs next to no time.

    :return: names of the tables rewritten: those that input_ids index
    """
    graph = model.graph
    done = []
    for gather in nodes_of(graph, "Gather"):
        table = constant(gather.inputs[0])
        if table is None or table.ndim != 2 or not _reads_input_ids(gather):  # noqa: PLR2004
            continue
        name = str(gather.inputs[0].name)
        integers, scale = quantized_weight(np.ascontiguousarray(table.T))
        rows = ir.node("Gather", [add_initializer(graph, f"{name}.int8", integers.T.copy()), gather.inputs[1]])
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
    """Tell whether a Gather takes rows of its table by input_ids, as they are or through nodes that keep them."""
    value = gather.inputs[1]
    while value is not None and (node := value.producer()) is not None and node.op_type in _PASSING_IDS:
        value = node.inputs[0]
    return value is not None and value.name == "input_ids" and gather.attributes.get_int("axis", 0) == 0


def _quantized_activation(graph: ir.Graph, source: ir.Value, before: ir.Node) -> tuple[ir.Value, ir.Value]:
    """
    Insert the nodes that quantize an activation once for all the layers that read it.

    :return: the integers *Shape:* (batch, tokens, inputs), and the row scales *Shape:* (batch, tokens, 1)
    """
    axes = _shared_constant(graph, "per_token.axis", np.array([-1], dtype=np.int64))
    largest = _shared_constant(graph, "per_token.largest", np.float32(LARGEST))
    smallest = _shared_constant(graph, "per_token.smallest", np.float32(_SMALLEST_SCALE * LARGEST))
    one = _shared_constant(graph, "per_token.one", np.float32(1))
    zero_point = _shared_constant(graph, "per_token.zero_point", np.array(ZERO_POINT, dtype=np.uint8))
    size = ir.node("Abs", [source])
    peak = ir.node("ReduceMax", [size.outputs[0], axes], {"keepdims": 1})
    peak_or_more = ir.node("Max", [peak.outputs[0], smallest])
    factor = ir.node("Div", [largest, peak_or_more.outputs[0]])
    scaled = ir.node("Mul", [source, factor.outputs[0]])
    integers = ir.node("QuantizeLinear", [scaled.outputs[0], one, zero_point])
    scale = ir.node("Div", [peak_or_more.outputs[0], largest])
    nodes = [size, peak, peak_or_more, factor, scaled, integers, scale]
    graph.insert_before(before, nodes)
    return integers.outputs[0], scale.outputs[0]


def _rewrite(graph: ir.Graph, layer: Linear, integers: ir.Value, row_scale: ir.Value) -> None:
    """Replace one MatMul by the integer product and its scales; the bias stays the Add it was."""
    weight, scale = quantized_weight(layer.weight)
    product = ir.node(
        "MatMulIntegerToFloat",
        [
            integers,
            add_initializer(graph, f"{layer.name}.weight_int8", weight),
            _shared_constant(graph, "per_token.one", np.float32(1)),
            add_initializer(graph, f"{layer.name}.weight_scale", scale),
            _shared_constant(graph, "per_token.zero_point", np.array(ZERO_POINT, dtype=np.uint8)),
        ],
        domain=MICROSOFT,
        name=layer.name,
    )
    scaled = ir.node("Mul", [product.outputs[0], row_scale])
    graph.insert_before(layer.matmul, [product, scaled])
    layer.matmul.outputs[0].replace_all_uses_with(scaled.outputs[0])
    graph.remove(layer.matmul, safe=True)


def _shared_constant(graph: ir.Graph, name: str, value: Any) -> ir.Value:
    """Give the constant of that name, adding it on first use."""
    found = graph.initializers.get(name)
    return found if found is not None else add_initializer(graph, name, np.asarray(value))


def _is_vector(value: ir.Value | None, length: int) -> bool:
    array = constant(value)
    return array is not None and array.shape == (length,)
