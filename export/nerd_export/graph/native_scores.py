"""Recognize what attention adds to scores: the mask, which adds nothing here, and a number per distance (MPNet)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from nerd_export.graph.matching import (
    gather_of,
    input_of,
    integers_of,
    is_computed_by,
    name_of,
    node_of,
    number,
    permutation_of,
    require,
)
from nerd_export.graph.nodes import constant
from nerd_export.graph.shape_values import value_at
from nerd_onnx.inference.arrays import Ints

_HEADS_FIRST = (2, 0, 1)
_LENGTHS = (1, 2, 3)
_MOVES = frozenset({"Expand", "Reshape", "Unsqueeze"})  # none of them changes a number


@dataclass(frozen=True)
class Distances:
    """
    What is added to a score for the distance of its two tokens.

    :param table: name of the table. *Shape:* (rows, heads)
    :param buckets: (distance, row) in order; see :class:`nerd_onnx.inference.native_layout.NativeLayout`
    """

    table: str
    buckets: tuple[tuple[int, int], ...]


def unmasked(value: ir.Value) -> ir.Value:
    """
    Return the scores behind the mask, which changes none of them where no token is masked.

    :raises OtherGraphError: when the mask is another
    """
    if is_computed_by(value, "Where"):
        chosen = node_of(value, "Where")
        number(chosen.inputs[1])
        is_masked = node_of(_unmoved(input_of(chosen, 0)), "Equal")
        require(input_of(is_masked, 0).name == "attention_mask" and number(is_masked.inputs[1]) == 0)
        return input_of(chosen, 2)

    # The mask is 1 for each token, so (1 - mask) * a large number is 0.
    added = node_of(value, "Add")
    product = node_of(input_of(added, 1), "Mul")
    difference = node_of(input_of(product, 0), "Sub")
    require(np.isfinite(number(product.inputs[1])) and number(difference.inputs[0]) == 1)

    cast = node_of(input_of(difference, 1), "Cast")
    require(integers_of(cast).get("to") == int(ir.DataType.FLOAT))
    require(_unmoved(input_of(cast, 0)).name == "attention_mask")
    return input_of(added, 0)


def distances_of(graph: ir.Graph, value: ir.Value, longest: int) -> Distances:
    """
    Read what is added to scores, which must depend on the distance of two tokens alone.

    :param longest: maximum number of tokens
    :raises OtherGraphError: when it is something else
    """
    lifted = node_of(input_of(node_of(value, "Expand"), 0), "Unsqueeze")
    moved = node_of(input_of(lifted, 0), "Transpose")
    require(number(lifted.inputs[1]) == 0 and permutation_of(moved) == _HEADS_FIRST)
    gather = gather_of(input_of(moved, 0))
    rows = value_at(graph, input_of(gather, 1), longest)

    _require_distances(rows, longest)
    # A row that depends on more than the distance, such as the length of the text, shows at another length.
    for tokens in _LENGTHS:
        found = value_at(graph, input_of(gather, 1), min(tokens, longest))
        require(np.array_equal(found, rows[:tokens, :tokens]))

    # From the last query to the first key, to the last key from the first query.
    by_distance = np.concatenate([rows[-1], rows[0, 1:]]).tolist()
    require(min(by_distance) >= 0 and max(by_distance) < len(constant(gather.inputs[0])))
    first = [i for i, row in enumerate(by_distance) if i == 0 or row != by_distance[i - 1]]
    return Distances(name_of(gather.inputs[0]), tuple((i + 1 - longest, by_distance[i]) for i in first))


def _require_distances(rows: Ints, longest: int) -> None:
    """Raise unless a row is the same for all queries and keys of one distance. *Shape:* (queries, keys)."""
    require(rows.shape == (longest, longest))
    require(np.array_equal(rows[1:, 1:], rows[:-1, :-1]))


def _unmoved(value: ir.Value) -> ir.Value:
    """Return what a value is before its shape was changed."""
    node = value.producer()
    while node is not None and node.op_type in _MOVES:
        value = input_of(node, 0)
        node = value.producer()
    return value
