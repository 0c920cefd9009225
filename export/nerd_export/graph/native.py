"""
Recognize graphs that the native encoder of the runtime can compute.

The graph is followed from its logits back to its ids, and each node must be the one that this project's own rewrites
and the recipe ``int8`` leave there. Any other graph is not recognized, and runs in onnxruntime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from nerd_export.graph.nodes import constant
from nerd_onnx.inference.native_layout import NativeLayout, TokenLevels, roles

_TOKENS_FIRST, _HEADS_BACK = (1, 0, 2), (0, 2, 1, 3)
_SCORES = {"transBatchA": 1, "transBatchB": 1, "transB": 1}
_CONTEXT = {"transBatchB": 1}
_LARGEST_MULTIPLE = 32  # the hidden size and the others are multiples of it
_LANES = 16  # the width of a head is a multiple of it


class _OtherGraphError(Exception):
    """The graph is not of the pattern."""


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
    except _OtherGraphError:
        return None


class _Reading:
    """One pass over a graph, from its logits to its ids. What all layers must have in common is kept here."""

    def __init__(self) -> None:
        self.layers: list[list[str | None]] = []
        self.heads: set[tuple[int, int]] = set()
        self.epsilons: set[float] = set()
        self.symmetric: set[TokenLevels] = set()
        self.after_gelu: set[TokenLevels] = set()

    def layout(self, graph: ir.Graph) -> NativeLayout:
        """
        Return the layout of a graph.

        :raises _OtherGraphError: when the graph is not of the pattern
        """
        biased = _node(graph.outputs[0], "Add")
        bias, product = _constant_and_value(biased)
        classifier = _node(product, "MatMul")
        weight = constant(classifier.inputs[1])
        _require(weight is not None and weight.ndim == 2)  # noqa: PLR2004

        value = _value(classifier, 0)
        while (norm := self._norm(value)) and not self._are_embeddings(norm.source):
            value = self._layer(norm)
        embeddings = self._embeddings(norm.source)

        names = [*embeddings, *norm.tensors]
        for layer in reversed(self.layers):
            names += layer
        names += [_name(classifier.inputs[1]), _name(bias)]

        _require(bool(self.layers) and self._is_uniform())
        (heads,), (epsilon,), (symmetric,), (after_gelu,) = self.heads, self.epsilons, self.symmetric, self.after_gelu
        width, wide = heads[1], constant(_initializer(graph, names[roles(1).index("layer.0.up.weight")])).shape[1]
        _require(width % _LANES == 0 and heads[0] * width % _LARGEST_MULTIPLE == 0 and wide % _LARGEST_MULTIPLE == 0)

        tensors = dict(zip(roles(len(self.layers)), names, strict=True))
        return NativeLayout(heads[0], epsilon, symmetric, after_gelu, tensors)

    def _is_uniform(self) -> bool:
        """Whether all layers have the same heads and levels."""
        return all(len(each) == 1 for each in (self.heads, self.epsilons, self.symmetric, self.after_gelu))

    def _norm(self, value: ir.Value) -> _Norm:
        """Read the layer norm that computes a value."""
        node = _node(value, "LayerNormalization")
        _require(len(node.inputs) == 3 and node.attributes.get_int("axis", -1) == -1)  # noqa: PLR2004
        epsilon = float(np.float32(node.attributes.get_float("epsilon", 1e-5)))
        self.epsilons.add(epsilon)
        return _Norm(_value(node, 0), epsilon, (_name(node.inputs[1]), _name(node.inputs[2])))

    def _layer(self, after_feed_forward: _Norm) -> ir.Value:
        """Read one encoder layer from its last norm. Return what it reads."""
        down, middle = self._residual(after_feed_forward.source)
        self.after_gelu.add(down.levels)
        gelu = _node(down.source, "Gelu")
        _require(gelu.attributes.get_string("approximate", "none") == "none")
        up = self._symmetric(_value(gelu, 0))
        _require(up.source is middle)

        after_attention = self._norm(middle)
        output, source = self._residual(after_attention.source)
        self.symmetric.add(output.levels)
        query, key, value = self._attention(output.source)
        _require(all(_moved(part.source) is source for part in (query, key, value)))

        parts = [*query.tensors, *key.tensors, *value.tensors, *output.tensors, *after_attention.tensors]
        self.layers.append([*parts, *up.tensors, *down.tensors, *after_feed_forward.tensors])
        return source

    def _residual(self, value: ir.Value) -> tuple[_Linear, ir.Value]:
        """Read a sum of a linear layer's result and the value that the block began with."""
        node = _node(value, "Add")
        first, second = _value(node, 0), _value(node, 1)
        for result, other in ((first, second), (second, first)):
            if _is_linear(result):
                return _linear(result), other
        raise _OtherGraphError

    def _symmetric(self, value: ir.Value) -> _Linear:
        """Read a linear layer whose input has as many levels below zero as above."""
        linear = _linear(value)
        self.symmetric.add(linear.levels)
        return linear

    def _attention(self, value: ir.Value) -> tuple[_Linear, _Linear, _Linear]:
        """Read queries, keys and values from what the output layer reads."""
        joined = _node(value, "Reshape")
        moved = _node(_value(joined, 0), "Transpose")
        _require(tuple(moved.attributes["perm"].as_ints()) == _HEADS_BACK)

        context = _node(_value(moved, 0), "FusedMatMul")
        softmax = _node(_value(context, 0), "Softmax")
        masked = _node(_value(softmax, 0), "Add")
        scores = _node(_value(masked, 0), "FusedMatMul")
        _require(_integers_of(context) == _CONTEXT and _integers_of(scores) == _SCORES)
        _require(softmax.attributes.get_int("axis", -1) in (-1, 3))
        # Only the mask is added: relative positions would depend on the ids, or be a constant.
        _require(_graph_inputs(_value(masked, 1)) == {"attention_mask"})

        query, key = (self._head(_value(scores, i)) for i in range(2))
        return query, key, self._head(_value(context, 1))

    def _head(self, value: ir.Value) -> _Linear:
        """Read a projection that is split into heads."""
        split = _node(value, "Reshape")
        shape = constant(split.inputs[1])
        _require(shape is not None and shape.shape == (4,) and not shape[:2].any())
        self.heads.add((int(shape[2]), int(shape[3])))
        return self._symmetric(_value(split, 0))

    def _are_embeddings(self, value: ir.Value) -> bool:
        """Whether a value is a sum of embeddings, and not of a block."""
        node = value.producer()
        return node is not None and not any(_is_linear(v) for v in node.inputs if v is not None)

    def _embeddings(self, value: ir.Value) -> list[str | None]:
        """Read the embeddings: names of the words' table, of its scales, of the types' table, of the positions'."""
        node = _node(value, "Add")
        rest, position = _value(node, 0), _gathered(_value(node, 1))
        _require(_is_range(_value(position, 1)))

        types: str | None = None
        if _computed_by(rest, "Add"):
            node = _node(rest, "Add")
            rest, second = _value(node, 0), _value(node, 1)
            if constant(second) is not None:
                _require(constant(second).ndim == 1)
                types = _name(second)
            else:
                gather = _gathered(second)
                _require(_value(gather, 1).name == "token_type_ids")
                types = _name(gather.inputs[0])

        product = _node(rest, "Mul")
        words = _gathered(_value(_node(_value(product, 0), "Cast"), 0))
        scales = _gathered(_value(product, 1))
        _require(all(_value(gather, 1).name == "input_ids" for gather in (words, scales)))
        return [_name(words.inputs[0]), _name(scales.inputs[0]), types, _name(position.inputs[0])]


def _is_linear(value: ir.Value) -> bool:
    """Whether a value is the result of a linear layer in 8 bits."""
    try:
        _linear(value)
    except _OtherGraphError:
        return False
    return True


def _linear(value: ir.Value) -> _Linear:
    """Read a linear layer from its result, with or without a bias."""
    node = value.producer()
    bias: str | None = None
    if node is not None and node.op_type == "Add":
        vector, value = _constant_and_value(node)
        bias = _name(vector)

    scaled = _node(value, "Mul")
    product, row_scale = _node(_value(scaled, 0), "MatMulIntegerToFloat"), _value(scaled, 1)
    inputs = product.inputs
    zero_point, one = constant(inputs[4]) if len(inputs) == 5 else None, constant(inputs[2])  # noqa: PLR2004
    if zero_point is None or zero_point.ndim != 0 or one is None or one != 1:
        raise _OtherGraphError

    source, levels = _quantized(_value(product, 0), row_scale, int(zero_point))
    return _Linear(source, levels, (_name(inputs[1]), _name(inputs[3]), bias))


def _quantized(integers: ir.Value, row_scale: ir.Value, zero_point: int) -> tuple[ir.Value, TokenLevels]:
    """Read the nodes that quantize an activation token by token: what they read, and the levels."""
    shaped = _node(integers, "Reshape")
    rounded = _node(_value(shaped, 0), "QuantizeLinear")
    _require(rounded.attributes.get_int("axis", 1) == 0)
    source = _value(_node(_value(rounded, 0), "Reshape"), 0)

    zero_points = _node(_value(rounded, 2), "ConstantOfShape").attributes["value"].as_tensor().numpy()
    _require(zero_points.tolist() == [zero_point])
    _require(_value(_node(_value(rounded, 1), "Reshape"), 0) is row_scale)

    division = _node(row_scale, "Div")
    size, positive = _node(_value(division, 0), "Max"), constant(division.inputs[1])
    smallest = constant(size.inputs[-1])
    _require(positive is not None and positive.size == 1 and smallest is not None and smallest.size == 1)

    _require(_value(_node(_value(size, 0), "ReduceMax"), 0) is source)
    is_symmetric = len(size.inputs) == 3  # noqa: PLR2004
    if is_symmetric:
        below = _node(_value(_node(_value(size, 1), "Neg"), 0), "ReduceMin")
        _require(_value(below, 0) is source)
    _require(is_symmetric == (zero_point == 128))  # noqa: PLR2004
    return source, TokenLevels(zero_point, round(float(positive)), float(smallest))


def _is_range(index: ir.Value) -> bool:
    """Whether positions are 0, 1, 2 and so on, whatever the ids are: the beginning of a constant."""
    node = index.producer()
    counted = constant(node.inputs[0]) if node is not None and node.op_type == "Slice" else None
    return counted is not None and np.array_equal(counted, np.arange(counted.size)[None])


def _moved(value: ir.Value) -> ir.Value:
    """Return what a Transpose to tokens first reads."""
    node = _node(value, "Transpose")
    _require(tuple(node.attributes["perm"].as_ints()) == _TOKENS_FIRST)
    return _value(node, 0)


def _gathered(value: ir.Value) -> ir.Node:
    """Return the Gather of rows of a constant table that computes a value."""
    node = _node(value, "Gather")
    _require(node.attributes.get_int("axis", 0) == 0 and constant(node.inputs[0]) is not None)
    return node


def _graph_inputs(value: ir.Value) -> set[str]:
    """Return the names of the graph's inputs that a value depends on."""
    pending, seen, found = [value], {value}, set()
    while pending:
        current = pending.pop()
        node = current.producer()
        if node is None and current.is_graph_input():
            found.add(str(current.name))
        for source in node.inputs if node is not None else ():
            if source is not None and source not in seen:
                seen.add(source)
                pending.append(source)
    return found


def _integers_of(node: ir.Node) -> dict[str, int]:
    """Return the attributes of a product that differ from their default."""
    return {name: attribute.as_int() for name, attribute in node.attributes.items()}


def _constant_and_value(node: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Return the constant vector and the computed value that an Add reads."""
    vectors = [value for value in node.inputs if value is not None and constant(value) is not None]
    others = [value for value in node.inputs if value is not None and constant(value) is None]
    _require(len(vectors) == len(others) == 1 and constant(vectors[0]).ndim == 1)
    return vectors[0], others[0]


def _computed_by(value: ir.Value, op_type: str) -> bool:
    """Whether a node of an operator computes a value."""
    node = value.producer()
    return node is not None and node.op_type == op_type


def _node(value: ir.Value, op_type: str) -> ir.Node:
    """Return the node that computes a value, which must be of an operator."""
    node = value.producer()
    if node is None or node.op_type != op_type:
        raise _OtherGraphError
    return node


def _value(node: ir.Node, place: int) -> ir.Value:
    """Return an input of a node, which must be there."""
    inputs: Sequence[Any] = node.inputs
    value: ir.Value | None = inputs[place] if place < len(inputs) else None
    if value is None:
        raise _OtherGraphError
    return value


def _name(value: ir.Value | None) -> str:
    """Return the name of a constant."""
    _require(value is not None and constant(value) is not None)
    return str(value.name) if value is not None else ""


def _initializer(graph: ir.Graph, name: str | None) -> ir.Value:
    """Return the constant of that name."""
    return graph.initializers[str(name)]


def _require(holds: bool) -> None:  # noqa: FBT001 - a condition of the pattern
    """Raise where a condition of the pattern does not hold."""
    if not holds:
        raise _OtherGraphError
