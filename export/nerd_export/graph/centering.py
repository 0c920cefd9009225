"""
Center activations in the range of their 8 bits, without changing what the network computes and at no run-time cost.

The outputs of layer norms have channels that are far from zero in every text, and the 8 bits of a token must cover
them. Each channel's mean on real text is subtracted from the bias of its layer norm, and added back in
the next biases: ``mean @ matrix`` in the linear layers that read it, the mean itself where it is added to a layer's
result. The shift is that of Outlier Suppression+ (Wei et al., 2023, arXiv:2304.09145), without its scaling, which would
add a product to each residual connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from nerd_export.graph.linear import bias_of, layer_behind, vector_place
from nerd_export.graph.nodes import constant, consumers, nodes_of, replace_constant
from nerd_export.graph.observing import observed
from nerd_export.graph.rewritten_constants import CENTERED, has_mark
from nerd_onnx.inference.arrays import Doubles
from nerd_onnx.inference.encoding import EncodedBatch

# Coarse, because most of the shift is enough; finer steps would differ between machines in the last bits, and with them
# the fingerprint of the graph.
_STEP = 1 / 16
_BIAS = 2  # index of the bias among a layer norm's inputs
_MATRIX = 2  # axes


def channel_means(model: ir.Model, batches: Iterable[EncodedBatch], scratch: Path) -> Mapping[str, Doubles]:
    """
    Return the mean of each output channel of the layer norms on real text.

    :param model: the fp32 graph; it is not changed
    :param batches: real segments
    :param scratch: folder for the graph that returns its activations
    :return: by the name of a layer norm's output, rounded to coarse steps, so that another machine's last bits seldom
        change them. *Shape:* (channels,) each
    :raises OutputError: when the disk has no room for that graph
    """
    names = [str(norm.outputs[0].name) for norm in nodes_of(model.graph, "LayerNormalization")]
    sums: dict[str, Doubles] = {}
    counts = dict.fromkeys(names, 0)

    for found in observed(model, names, batches, scratch):
        for name, values in found.items():
            # Sums, not values, are kept: memory does not grow with the text.
            rows = values.reshape(-1, values.shape[-1])
            sums[name] = sums.get(name, 0.0) + rows.sum(axis=0, dtype=np.float64)
            counts[name] += len(rows)

    return {name: np.rint(total / max(1, counts[name]) / _STEP) * _STEP for name, total in sums.items()}


def center(graph: ir.Graph, means: Mapping[str, Doubles]) -> list[str]:
    """
    Subtract the means from the layer norms whose readers can all compensate for it, in place.

    Layers that share their weights, like ALBERT's, are not changed: restoring reads them as one layer.

    :param graph: before :mod:`attention` rewrites it, which would hide the biases
    :param means: from :func:`channel_means`; means that are not finite are ignored
    :return: names of the centered outputs
    """
    found = [
        (norm, compensations)
        for norm in nodes_of(graph, "LayerNormalization")
        if (compensations := _compensations(norm))
    ]
    moved = []
    for norm, compensations in found:
        name = str(norm.outputs[0].name)
        # A mean that is not finite comes from a network that overflows; the gate reports that.
        mean = means.get(name)
        if mean is None or not np.isfinite(mean).all():
            continue

        _add(graph, norm, _BIAS, -mean)
        for compensation in compensations:
            _add(
                graph,
                compensation.bias,
                compensation.place,
                mean if compensation.is_residual else mean @ compensation.weight,
            )
        moved.append(name)

    return moved


def centered_norms(graph: ir.Graph) -> list[ir.Node]:
    """List the layer norms that :func:`center` changed, in this graph or the one it was made from."""
    biases = ((norm, norm.inputs[_BIAS]) for norm in nodes_of(graph, "LayerNormalization") if len(norm.inputs) > _BIAS)
    return [norm for norm, bias in biases if has_mark(bias, CENTERED)]


@dataclass(frozen=True)
class _Compensation:
    """
    A linear layer whose bias can compensate for the centering of a layer norm.

    :param bias: the Add after the product
    :param place: index of the constant among its inputs
    :param matrix: a constant
    :param is_residual: whether the layer's result is added to the norm's output; else the layer reads that output
    """

    bias: ir.Node
    place: int
    matrix: ir.Value | None
    is_residual: bool

    @property
    def weight(self) -> Doubles:
        """The matrix. *Shape:* (inputs, outputs)."""
        return np.asarray(constant(self.matrix), dtype=np.float64)

    @property
    def is_free(self) -> bool:
        """Whether the bias is this layer's alone; zeros may be a constant of all layers without a bias."""
        vector = self.bias.inputs[self.place]
        # Unrelated layers may share zeros, and this one gets a copy of its own. Layers with one matrix are one layer in
        # PyTorch, which has one bias.
        return _is_its_own(vector) or (_is_its_own(self.matrix) and not constant(vector).any())


def _is_its_own(value: ir.Value | None) -> bool:
    """Whether a value is a constant that one node alone reads."""
    return value is not None and constant(value) is not None and len(value.uses()) == 1


def _add(graph: ir.Graph, node: ir.Node, place: int, addend: Doubles) -> None:
    """Add an array to the constant that one node reads."""
    replace_constant(graph, node, place, constant(node.inputs[place]).astype(np.float64) + addend, CENTERED)


def _compensations(norm: ir.Node) -> list[_Compensation] | None:
    """Return the biases that can compensate for centering a layer norm; None if a reader has no such bias."""
    value = norm.outputs[0]
    if value.is_graph_output() or len(norm.inputs) <= _BIAS or not _is_its_own(norm.inputs[_BIAS]):
        return None

    compensations = []
    for node in consumers(value):
        if node.op_type == "Shape":  # reads no numbers
            continue

        compensation = _in_layer(node, value) or _in_residual(node, value)
        # All readers or none: one that cannot compensate would read shifted numbers.
        if compensation is None or not compensation.is_free:
            return None
        compensations.append(compensation)

    return compensations


def _in_layer(node: ir.Node, value: ir.Value) -> _Compensation | None:
    """Return the compensation in a linear layer that reads the value; None if the node is no such layer."""
    matrix = constant(node.inputs[1]) if node.op_type == "MatMul" and node.inputs[0] is value else None
    if matrix is None or matrix.ndim != _MATRIX:
        return None

    bias = bias_of(node, matrix.shape[1])
    place = None if bias is None else vector_place(bias)
    return None if bias is None or place is None else _Compensation(bias, place, node.inputs[1], is_residual=False)


def _in_residual(node: ir.Node, value: ir.Value) -> _Compensation | None:
    """Return the compensation in a linear layer to whose result the value is added; None if there is none."""
    if node.op_type != "Add":
        return None

    layer = layer_behind(node.inputs[1] if node.inputs[0] is value else node.inputs[0])
    # Behind a Reshape or Transpose, the channels of the bias would not be those of the norm.
    if layer is None or layer.bias is None or layer.moves:
        return None

    place = vector_place(layer.bias)
    return None if place is None else _Compensation(layer.bias, place, layer.matmul.inputs[1], is_residual=True)
