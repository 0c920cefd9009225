"""
Recognize graphs that the native encoder of the runtime can compute.

The graph is followed from its logits back to its ids, and each node must be the one that this project's own rewrites
and the recipe ``int8`` leave there. Any other graph is not recognized, and runs in onnxruntime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from nerd_export.graph.matching import (
    OtherGraphError,
    input_of,
    integers_of,
    is_computed_by,
    name_of,
    node_of,
    number,
    permutation_of,
    require,
    vector_and_value,
)
from nerd_export.graph.native_embeddings import embeddings_of
from nerd_export.graph.native_scores import distances_of, unmasked
from nerd_export.graph.nodes import constant
from nerd_onnx.inference.native_layout import NativeLayout, TokenLevels, roles

_TOKENS_FIRST, _HEADS_BACK = (1, 0, 2), (0, 2, 1, 3)
_SCORES = {"transBatchA": 1, "transBatchB": 1, "transB": 1}
_CONTEXT = {"transBatchB": 1}
_LARGEST_MULTIPLE = 32  # the hidden size and the others are multiples of it
_LANES = 16  # the width of a head is a multiple of it


@dataclass(frozen=True)
class _Linear:
    """
    A linear layer in 8 bits.

    :param source: the activation that is quantized for it
    :param levels: how its integers are divided
    :param tensors: names of weight, scale and bias; None without a bias
    """

    source: ir.Value
    levels: TokenLevels
    tensors: tuple[str, str, str | None]


@dataclass(frozen=True)
class _Norm:
    """A layer norm: what it reads, and its constants."""

    source: ir.Value
    epsilon: float
    tensors: tuple[str, str]


def native_layout(graph: ir.Graph) -> NativeLayout | None:
    """Return where the native encoder finds its weights; None for a graph that it cannot compute."""
    try:
        return _Reading().layout(graph)
    except OtherGraphError:
        return None


class _Reading:
    """One pass over a graph, from its logits to its ids. What all layers must have in common is kept here."""

    def __init__(self) -> None:
        self.layers: list[list[str | None]] = []
        self.heads: set[tuple[int, int]] = set()
        self.epsilons: set[float] = set()
        self.symmetric: set[TokenLevels] = set()
        self.after_gelu: set[TokenLevels] = set()
        self.shifts: set[ir.Value | None] = set()  # what is added to scores for the distance of two tokens

    def layout(self, graph: ir.Graph) -> NativeLayout:
        """
        Return the layout of a graph.

        :raises OtherGraphError: when the graph is not of the pattern
        """
        biased = node_of(graph.outputs[0], "Add")
        bias, product = vector_and_value(biased)
        classifier = node_of(product, "MatMul")
        weight = constant(classifier.inputs[1])
        require(weight is not None and weight.ndim == 2)  # noqa: PLR2004

        value, projection = input_of(classifier, 0), None
        # Layer by layer from the last to the first, until only the embeddings and their norm are left.
        while not _is_linear(value):
            norm = self._norm(value)
            if not _ends_layer(norm):
                break
            value = self._layer(norm)

        if _is_linear(value):
            projection = self._symmetric(value)
            value = projection.source
        norm = self._norm(value)
        embeddings = embeddings_of(graph, norm.source)

        require(len(self.shifts) == 1)
        (shift,) = self.shifts
        distances = None if shift is None else distances_of(graph, shift, embeddings.longest)

        names = [*embeddings.tensors, *norm.tensors]
        names += [] if projection is None else projection.tensors
        names += [] if distances is None else [distances.table]
        for layer in reversed(self.layers):
            names += layer
        names += [name_of(classifier.inputs[1]), name_of(bias)]

        require(bool(self.layers) and self._is_uniform())
        (heads,), (epsilon,), (symmetric,), (after_gelu,) = self.heads, self.epsilons, self.symmetric, self.after_gelu
        order = roles(len(self.layers), projected=projection is not None, relative=distances is not None)
        tensors = dict(zip(order, names, strict=True))
        buckets = () if distances is None else distances.buckets
        found = NativeLayout(heads[0], epsilon, symmetric, after_gelu, tensors, embeddings.padding, buckets)

        shapes = {role: constant(graph.initializers[name]).shape for role, name in tensors.items() if name is not None}
        require(heads[1] % _LANES == 0 and _are_usable(shapes, hidden=heads[0] * heads[1], heads=heads[0]))
        return found

    def _is_uniform(self) -> bool:
        """Whether all layers have the same heads and levels."""
        return all(len(each) == 1 for each in (self.heads, self.epsilons, self.symmetric, self.after_gelu))

    def _norm(self, value: ir.Value) -> _Norm:
        """Read the layer norm that computes a value."""
        node = node_of(value, "LayerNormalization")
        require(len(node.inputs) == 3 and node.attributes.get_int("axis", -1) == -1)  # noqa: PLR2004
        epsilon = float(np.float32(node.attributes.get_float("epsilon", 1e-5)))
        self.epsilons.add(epsilon)
        return _Norm(input_of(node, 0), epsilon, (name_of(node.inputs[1]), name_of(node.inputs[2])))

    def _layer(self, after_feed_forward: _Norm) -> ir.Value:
        """Read one encoder layer from its last norm. Return what it reads."""
        down, middle = self._residual(after_feed_forward.source)
        self.after_gelu.add(down.levels)
        gelu = node_of(down.source, "Gelu")
        require(gelu.attributes.get_string("approximate", "none") == "none")
        up = self._symmetric(input_of(gelu, 0))
        require(up.source is middle)

        after_attention = self._norm(middle)
        output, source = self._residual(after_attention.source)
        self.symmetric.add(output.levels)
        query, key, value = self._attention(output.source)
        require(all(_moved(part.source) is source for part in (query, key, value)))

        parts = [*query.tensors, *key.tensors, *value.tensors, *output.tensors, *after_attention.tensors]
        self.layers.append([*parts, *up.tensors, *down.tensors, *after_feed_forward.tensors])
        return source

    def _residual(self, value: ir.Value) -> tuple[_Linear, ir.Value]:
        """Read a sum of a linear layer's result and the value that the block began with."""
        node = node_of(value, "Add")
        first, second = input_of(node, 0), input_of(node, 1)
        for result, other in ((first, second), (second, first)):
            if _is_linear(result):
                return _linear(result), other
        raise OtherGraphError

    def _symmetric(self, value: ir.Value) -> _Linear:
        """Read a linear layer whose input has as many levels below zero as above."""
        linear = _linear(value)
        self.symmetric.add(linear.levels)
        return linear

    def _attention(self, value: ir.Value) -> tuple[_Linear, _Linear, _Linear]:
        """Read queries, keys and values from what the output layer reads."""
        joined = node_of(value, "Reshape")
        moved = node_of(input_of(joined, 0), "Transpose")
        require(permutation_of(moved) == _HEADS_BACK)

        context = node_of(input_of(moved, 0), "FusedMatMul")
        softmax = node_of(input_of(context, 0), "Softmax")
        shifted, shift = unmasked(input_of(softmax, 0)), None
        if is_computed_by(shifted, "Add"):
            added = node_of(shifted, "Add")
            shifted, shift = input_of(added, 0), input_of(added, 1)
        self.shifts.add(shift)

        scores = node_of(shifted, "FusedMatMul")
        require(integers_of(context) == _CONTEXT and integers_of(scores) == _SCORES)
        require(softmax.attributes.get_int("axis", -1) in (-1, 3))

        query, key = (self._head(input_of(scores, i)) for i in range(2))
        return query, key, self._head(input_of(context, 1))

    def _head(self, value: ir.Value) -> _Linear:
        """Read a projection that is split into heads."""
        split = node_of(value, "Reshape")
        shape = constant(split.inputs[1])
        require(shape is not None and shape.shape == (4,) and not shape[:2].any())

        self.heads.add((int(shape[2]), int(shape[3])))
        return self._symmetric(input_of(split, 0))


def _are_usable(shapes: Mapping[str, tuple[int, ...]], *, hidden: int, heads: int) -> bool:
    """Whether the native encoder has code for tensors of these shapes, by role."""
    embedding, wide = shapes["words.weight"][1], shapes["layer.0.up.weight"][1]
    # The library takes embeddings of another width as the sign of a projection.
    is_projected = "projection.weight" in shapes
    fits = is_projected == (embedding != hidden) and shapes.get("relative", (0, heads))[1] == heads
    return fits and all(width % _LARGEST_MULTIPLE == 0 for width in (embedding, hidden, wide))


def _ends_layer(norm: _Norm) -> bool:
    """Whether a layer norm is the last of a layer, which has the result of a block in its sum, and not embeddings."""
    node = norm.source.producer()
    return node is None or any(_is_linear(value) for value in node.inputs if value is not None)


def _is_linear(value: ir.Value) -> bool:
    """Whether a value is the result of a linear layer in 8 bits."""
    try:
        _linear(value)
    except OtherGraphError:
        return False
    return True


def _linear(value: ir.Value) -> _Linear:
    """Read a linear layer from its result, with or without a bias."""
    node = value.producer()
    bias: str | None = None
    if node is not None and node.op_type == "Add":
        vector, value = vector_and_value(node)
        bias = name_of(vector)

    scaled = node_of(value, "Mul")
    product, row_scale = node_of(input_of(scaled, 0), "MatMulIntegerToFloat"), input_of(scaled, 1)
    # Order of the inputs: integers, weight, scale of both, zero point of the integers. A zero point of the weight or a
    # bias would be a sixth or seventh.
    inputs = product.inputs
    zero_point = constant(inputs[4]) if len(inputs) == 5 else None  # noqa: PLR2004
    # A scale of 1, because the Mul behind the product applies that of each token.
    if zero_point is None or zero_point.ndim != 0 or number(inputs[2]) != 1:
        raise OtherGraphError

    source, levels = _quantized(input_of(product, 0), row_scale, int(zero_point))
    return _Linear(source, levels, (name_of(inputs[1]), name_of(inputs[3]), bias))


def _quantized(integers: ir.Value, row_scale: ir.Value, zero_point: int) -> tuple[ir.Value, TokenLevels]:
    """Read the nodes that quantize an activation token by token: what they read, and the levels."""
    shaped = node_of(integers, "Reshape")
    rounded = node_of(input_of(shaped, 0), "QuantizeLinear")
    require(rounded.attributes.get_int("axis", 1) == 0)
    source = input_of(node_of(input_of(rounded, 0), "Reshape"), 0)

    zero_points = node_of(input_of(rounded, 2), "ConstantOfShape").attributes["value"].as_tensor().numpy()
    require(zero_points.tolist() == [zero_point])
    require(input_of(node_of(input_of(rounded, 1), "Reshape"), 0) is row_scale)

    division = node_of(row_scale, "Div")
    size = node_of(input_of(division, 0), "Max")
    positive, smallest = number(division.inputs[1]), number(size.inputs[-1])

    require(input_of(node_of(input_of(size, 0), "ReduceMax"), 0) is source)
    # After Gelu and Relu the minimum is known. Elsewhere it is measured too, and the middle, 128, stands for 0.
    is_symmetric = len(size.inputs) == 3  # noqa: PLR2004

    if is_symmetric:
        below = node_of(input_of(node_of(input_of(size, 1), "Neg"), 0), "ReduceMin")
        require(input_of(below, 0) is source)

    require(is_symmetric == (zero_point == 128))  # noqa: PLR2004
    return source, TokenLevels(zero_point, round(float(positive)), float(smallest))


def _moved(value: ir.Value) -> ir.Value:
    """Return what a Transpose to tokens first reads."""
    node = node_of(value, "Transpose")
    require(permutation_of(node) == _TOKENS_FIRST)
    return input_of(node, 0)
