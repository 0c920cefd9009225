"""
Move activations to the middle of their 8 bits, without changing what the network computes and at no cost when it runs.

The outputs of layer norms have channels that are far from zero in every text, and the 8 bits of a token have to reach
that far. Each channel's mean on real text is taken off the bias of its layer norm, and what is missing then is added to
the biases behind: ``mean @ matrix`` in the linear layers that read it, the mean itself where it is added to a layer's
result. The shift is that of Outlier Suppression+ (Wei et al., 2023, arXiv:2304.09145), without its scaling, which would
cost a product on the way around each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from nerd_export.conversion.graph import add_initializer, constant, consumers, nodes_of
from nerd_export.conversion.linear import layer_behind, vector_place
from nerd_export.conversion.observing import observed
from nerd_onnx.inference.arrays import Doubles
from nerd_onnx.inference.encoding import EncodedBatch

_STEP = 1 / 256
_BIAS = 2  # the place of its bias among a layer norm's inputs


def centers(model: ir.Model, batches: Iterable[EncodedBatch], scratch: Path) -> Mapping[str, Doubles]:
    """
    Find the mean of each channel that layer norms give on real text.

    :param model: the fp32 graph; it is not changed
    :param batches: real segments
    :param scratch: folder for the graph that gives its activations
    :return: by the name of a layer norm's output, in whole steps, which another machine's last bits do not change.
        *Shape:* (channels,) each
    """
    names = [str(norm.outputs[0].name) for norm in nodes_of(model.graph, "LayerNormalization")]
    sums: dict[str, Doubles] = {}
    tokens = 0
    for found in observed(model, names, batches, scratch):
        for name, values in found.items():
            rows = values.reshape(-1, values.shape[-1])
            sums[name] = sums.get(name, 0.0) + rows.sum(axis=0, dtype=np.float64)
        tokens += len(rows)
    return {name: np.rint(total / tokens / _STEP) * _STEP for name, total in sums.items()}


def center(graph: ir.Graph, middles: Mapping[str, Doubles]) -> list[str]:
    """
    Take the means off the layer norms whose readers can all make up for it, in place.

    :param graph: its attention as exporters write it, not yet rewritten, which would hide the biases
    :param middles: as :func:`centers` gives them
    :return: names of the outputs that were moved
    """
    moved = []
    for norm in nodes_of(graph, "LayerNormalization"):
        output = norm.outputs[0]
        middle, bias = middles.get(str(output.name)), norm.inputs[_BIAS] if len(norm.inputs) > _BIAS else None
        array, repairs = constant(bias), _repairs(output)
        if middle is None or array is None or not repairs:
            continue
        _add(graph, norm, _BIAS, -middle)
        for add, place, missing in repairs:
            _add(graph, add, place, missing(middle))
        moved.append(str(output.name))
    return moved


_Repair = tuple[ir.Node, int, Callable[[Doubles], Doubles]]  # a node, the place of its bias, and what that then lacks


def _repairs(value: ir.Value) -> list[_Repair] | None:
    """Find where what is taken off a value can be added behind; None where a reader has no bias that could take it."""
    repairs = []
    for node in consumers(value):
        if node.op_type == "Shape":
            continue
        repair = _in_layer(node, value) or _beside_layer(node, value)
        if repair is None:
            return None
        repairs.append(repair)
    return None if value.is_graph_output() else repairs


def _in_layer(node: ir.Node, value: ir.Value) -> _Repair | None:
    """Repair a linear layer that reads the value."""
    matrix = constant(node.inputs[1]) if node.op_type == "MatMul" and node.inputs[0] is value else None
    readers = [] if matrix is None else list(consumers(node.outputs[0]))
    place = vector_place(readers[0]) if len(readers) == 1 and readers[0].op_type == "Add" else None
    if matrix is None or place is None:
        return None
    return readers[0], place, lambda middle: middle @ matrix.astype(np.float64)


def _beside_layer(node: ir.Node, value: ir.Value) -> _Repair | None:
    """Repair a linear layer to whose result the value is added."""
    if node.op_type != "Add":
        return None
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    layer = layer_behind(other)
    place = vector_place(layer.bias) if layer is not None and layer.bias is not None and not layer.moves else None
    if layer is None or layer.bias is None or place is None:
        return None
    return layer.bias, place, lambda middle: middle


def _add(graph: ir.Graph, node: ir.Node, place: int, addend: Doubles) -> None:
    """Add to a constant input of one node; others that read the same constant keep it as it was."""
    old = node.inputs[place]
    total = constant(old).astype(np.float64) + addend
    name = f"{old.name if old else ''}.centered"
    node.replace_input_with(place, add_initializer(graph, name, total.astype(np.float32)))
