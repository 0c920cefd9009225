"""
Rewrite attention so that it runs fastest on a CPU, without changing what it computes.

- The scale of the scores moves into the weights of the queries.
- The bias of the keys adds the same number to all scores of a query. Softmax cancels it, so it is dropped.
- The attention weights of a query sum to 1, so the bias of the values passes through: it moves to the next layer.
- Heads are not moved before tokens by copying. Queries, keys and values are computed with the tokens first, with one
  copy of their common input instead of one copy of each, and onnxruntime's ``FusedMatMul`` reads the heads in place.

Together this saves 6 to 9% of the time of MiniLM at 32 and 64 tokens. Attention of another structure (rotated
queries, keys that several products read) is not changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from nerd_export.graph.linear import layer_behind, vector_place
from nerd_export.graph.nodes import (
    MICROSOFT,
    add_initializer,
    constant,
    consumers,
    nodes_of,
    only_reader,
    replace_constant,
)
from nerd_export.graph.rewritten_constants import SCALED, WITH_VALUES

_HEADS_FIRST = (0, 2, 1, 3)  # (batch, tokens, heads, width) to (batch, heads, tokens, width)
_HEADS_FIRST_TRANSPOSED = (0, 2, 3, 1)
_TOKENS_FIRST = (1, 0, 2)
_SHIFTED = frozenset({"Add", "Where"})  # between scores and softmax: positions and the mask


@dataclass(frozen=True)
class Projection:
    """
    A linear layer whose outputs are split into heads.

    :param matmul: the product with a constant matrix
    :param bias: the Add after it, None without one
    :param split: the Reshape to (batch, tokens, heads, width)
    :param moved: the Transposes that bring the heads forward
    """

    matmul: ir.Node
    bias: ir.Node | None
    split: ir.Node
    moved: tuple[ir.Node, ...]

    @property
    def permutation(self) -> tuple[int, ...]:
        """The composition of all Transposes."""
        order = list(range(4))
        for node in self.moved:
            # Exporters often bring the keys into place by two Transposes; only the sum of both says where the heads
            # are.
            order = [order[place] for place in node.attributes["perm"].as_ints()]
        return tuple(order)

    @property
    def heads(self) -> tuple[int, int] | None:
        """Number and width of the heads; None if they are computed at run time."""
        shape = self.split.inputs[1]
        if (known := constant(shape)) is not None:
            sizes: list[Any] = known.tolist()
        elif shape is not None and (concat := shape.producer()) is not None and concat.op_type == "Concat":
            sizes = [constant(value) for value in concat.inputs]
        else:
            return None

        # Batch and tokens are known at run time only; the last two sizes are those of the model.
        found = [size for size in sizes[2:] if size is not None and np.size(size) == 1]
        if len(sizes) != 4 or len(found) != 2:  # noqa: PLR2004
            return None

        count, width = (int(np.asarray(size).item()) for size in found)
        return (count, width) if count > 0 and width > 0 else None


@dataclass(frozen=True)
class Attention:
    """
    One attention layer: ``softmax(query @ key + shifts) @ value``.

    :param scores: the product of queries and keys
    :param context: the product of weights and values
    """

    query: Projection
    key: Projection
    value: Projection
    scores: ir.Node
    context: ir.Node


def move_scale_into_weights(graph: ir.Graph, node: ir.Node) -> None:
    """
    Fold a Div or Mul of ``q`` or ``MatMul(q, k)`` by a scalar constant into the weights of the linear layer that
    computes ``q``.

    Attention scores are the largest activation of long texts. This saves one pass over them in every layer.
    """
    scaled, scale = node.inputs
    factor = constant(scale)
    # A second reader would get the scaled numbers too.
    if factor is None or factor.size != 1 or scaled is None or not only_reader(scaled):
        return

    product = scaled.producer()
    is_scores = product is not None and product.op_type == "MatMul" and constant(product.inputs[1]) is None
    layer = layer_behind(product.inputs[0] if product is not None and is_scores else scaled)
    place = vector_place(layer.bias) if layer is not None and layer.bias is not None else None
    if layer is None or layer.bias is None or place is None:
        return

    number = np.float32(1 / factor.item() if node.op_type == "Div" else factor.item())
    # Both parts: (x @ W + b) * s = x @ (W * s) + b * s.
    for scaling, of_constant in ((layer.bias, place), (layer.matmul, 1)):
        replace_constant(graph, scaling, of_constant, constant(scaling.inputs[of_constant]) * number, SCALED)

    node.outputs[0].replace_all_uses_with(scaled)
    graph.remove(node, safe=True)


def rewrite_attention(graph: ir.Graph) -> int:
    """
    Rewrite every attention layer that looks as expected, in place.

    :return: number of layers found
    """
    found = [attention for softmax in nodes_of(graph, "Softmax") if (attention := _attention(softmax)) is not None]
    for attention in found:
        # softmax(q @ (k + b)) = softmax(q @ k): q @ b is the same number for every key.
        if attention.key.bias is not None:
            _drop(graph, attention.key.bias, attention.key.matmul)
        _move_value_bias(graph, attention)
        _read_heads_in_place(graph, attention)
    return len(found)


def _attention(softmax: ir.Node) -> Attention | None:
    """Return the attention layer around a softmax; None if any part has another structure."""
    weights = softmax.outputs[0]
    if softmax.attributes.get_int("axis", -1) not in (-1, 3) or not only_reader(weights):
        return None

    context = next(consumers(weights))
    if context.op_type != "MatMul" or context.inputs[0] is not weights:
        return None

    value = _projection(context.inputs[1])
    if value is None or value.permutation != _HEADS_FIRST:
        return None

    for scores in _products_behind(softmax.inputs[0]):
        query, key = _projection(scores.inputs[0]), _projection(scores.inputs[1])
        if query is None or key is None:
            continue
        if query.permutation == _HEADS_FIRST and key.permutation == _HEADS_FIRST_TRANSPOSED:
            return Attention(query, key, value, scores, context)

    return None


def _products_behind(value: ir.Value | None) -> Iterator[ir.Node]:
    """Yield the MatMuls that a softmax reads, directly or with positions and the mask added."""
    node = value.producer() if value is not None and _reader(value) is not None else None
    if node is not None and node.op_type == "MatMul":
        yield node
    elif node is not None and node.op_type in _SHIFTED:
        for shifted in node.inputs:
            yield from _products_behind(shifted)


def _projection(value: ir.Value | None) -> Projection | None:
    """Return the linear layer that feeds one side of an attention product; None if other nodes read it too."""
    layer = layer_behind(value)
    if layer is None or [node.op_type for node in layer.moves[:2]] != ["Reshape", "Transpose"]:
        return None

    split, *moved = layer.moves
    if any(node.op_type != "Transpose" for node in moved):
        return None
    return Projection(layer.matmul, layer.bias, split, tuple(moved))


def _reader(value: ir.Value) -> ir.Node | None:
    """Return the only node that reads the numbers of a value, not just its shape; None if there are several."""
    readers = [node for node in consumers(value) if node.op_type != "Shape"]
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def _move_value_bias(graph: ir.Graph, attention: Attention) -> None:
    """Add ``bias @ matrix`` to the bias of the layer that reads the context, instead of the bias to the values."""
    bias, reader = attention.value.bias, _reader(attention.context.outputs[0])

    # The heads are put together again before the next layer reads them.
    while reader is not None and reader.op_type in ("Transpose", "Reshape"):
        reader = _reader(reader.outputs[0])

    matrix = constant(reader.inputs[1]) if reader is not None and reader.op_type == "MatMul" else None
    add = _reader(reader.outputs[0]) if reader is not None else None
    if bias is None or matrix is None or add is None or add.op_type != "Add":
        return

    # Only a matrix with one row per value reads the values themselves.
    place, of_values = vector_place(add), vector_place(bias)
    if place is None or of_values is None or (moved := constant(bias.inputs[of_values])).shape != matrix.shape[:1]:
        return

    # In double precision, because the result is rounded to fp32 only once.
    total = constant(add.inputs[place]).astype(np.float64) + moved.astype(np.float64) @ matrix.astype(np.float64)
    replace_constant(graph, add, place, total, WITH_VALUES)
    _drop(graph, bias, attention.value.matmul)


def _read_heads_in_place(graph: ir.Graph, attention: Attention) -> None:
    """Compute the projections as (tokens, batch, inputs), so that the products can read the heads in place."""
    parts = (attention.query, attention.key, attention.value)
    sources = {part.matmul.inputs[0] for part in parts}
    heads = {part.heads for part in parts}
    source, sizes = sources.pop(), heads.pop()

    # Only if queries, keys and values have the same input and the same heads.
    if source is None or sizes is None or sources or heads:
        return

    tokens_first = ir.node("Transpose", [source], {"perm": _TOKENS_FIRST})
    graph.insert_before(attention.query.matmul, [tokens_first])
    # A 0 in the shape of a Reshape keeps the size of the input: tokens and batch are known at run time only.
    shape = add_initializer(graph, "heads", np.array([0, 0, *sizes], dtype=np.int64))
    split = []

    for part in parts:
        part.matmul.replace_input_with(0, tokens_first.outputs[0])
        node = ir.node("Reshape", [part.split.inputs[0], shape])
        graph.insert_after(part.split, [node])
        split.append(node.outputs[0])

    query, key, value = split
    weights = attention.context.inputs[0]
    # transBatch moves the first axis, the tokens, behind those of batch and heads before the product.
    _replace(graph, attention.scores, [query, key], {"transBatchA": 1, "transBatchB": 1, "transB": 1})
    _replace(graph, attention.context, [weights, value], {"transBatchB": 1})


def _replace(graph: ir.Graph, product: ir.Node, inputs: list[Any], attributes: dict[str, int]) -> None:
    """Replace a product by onnxruntime's ``FusedMatMul``, which reads transposed inputs in place."""
    fused = ir.node("FusedMatMul", inputs, attributes, domain=MICROSOFT, name=product.name)
    fused.outputs[0].name = product.outputs[0].name
    # Shape inference does not know the fused operator.
    fused.outputs[0].type, fused.outputs[0].shape = product.outputs[0].type, product.outputs[0].shape

    graph.insert_before(product, [fused])
    product.outputs[0].replace_all_uses_with(fused.outputs[0])
    graph.remove(product, safe=True)


def _drop(graph: ir.Graph, bias: ir.Node, matmul: ir.Node) -> None:
    """Remove a bias."""
    bias.outputs[0].replace_all_uses_with(matmul.outputs[0])
    graph.remove(bias, safe=True)
