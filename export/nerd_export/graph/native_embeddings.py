"""Recognize embeddings that the native encoder can compute: words in 8 bits, perhaps token types, and positions."""

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
    require,
)
from nerd_export.graph.nodes import constant
from nerd_export.graph.shape_values import value_at

_INT32, _INT64, _FLOAT = (int(kind) for kind in (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT))
_LENGTHS = (1, 2)  # on which indices are computed, and the longest


@dataclass(frozen=True)
class Embeddings:
    """
    The sum of embeddings.

    :param tensors: names of the table of words, of its scales, of the types' table or row, of the positions' table;
        None where all types add nothing
    :param padding: the id from behind which positions count; -1 if they count from 0
    :param longest: maximum number of tokens
    """

    tensors: tuple[str, str, str | None, str]
    padding: int
    longest: int


def embeddings_of(graph: ir.Graph, value: ir.Value) -> Embeddings:
    """
    Read the embeddings whose sum a value is.

    :raises OtherGraphError: when the native encoder computes something else
    """
    node = node_of(value, "Add")
    rest, position = input_of(node, 0), gather_of(input_of(node, 1))

    types: str | None = None
    if is_computed_by(rest, "Add"):
        node = node_of(rest, "Add")
        rest, types = input_of(node, 0), _types(input_of(node, 1))

    product = node_of(rest, "Mul")
    cast = node_of(input_of(product, 0), "Cast")
    words, scales = gather_of(input_of(cast, 0)), gather_of(input_of(product, 1))
    require(integers_of(cast).get("to") == _FLOAT)
    require(all(input_of(gather, 1).name == "input_ids" for gather in (words, scales)))

    index, rows = input_of(position, 1), len(constant(position.inputs[0]))
    padding = _padding(index) if is_computed_by(index, "Add") else -1
    # Behind the padding's id, or all of them where there is none (-1).
    longest = rows - padding - 1
    require(longest > 0)
    if padding < 0:
        for tokens in (*_LENGTHS, longest):
            require(np.array_equal(value_at(graph, index, tokens), np.arange(tokens)[None]))

    names = (name_of(words.inputs[0]), name_of(scales.inputs[0]), types, name_of(position.inputs[0]))
    return Embeddings(names, padding, longest)


def _types(value: ir.Value) -> str:
    """Return the name of the table of token types, or of the row that all tokens have."""
    if constant(value) is not None:
        require(constant(value).ndim == 1)
        return name_of(value)

    gather = gather_of(value)
    # A table of one row has this one whatever the index is.
    require(input_of(gather, 1).name == "token_type_ids" or len(constant(gather.inputs[0])) == 1)
    return name_of(gather.inputs[0])


def _padding(index: ir.Value) -> int:
    """
    Return the padding's id where positions count as RoBERTa's do.

    A token's position is that id plus the number of tokens up to it that are not padding; padding's is the id itself.
    """
    begin = node_of(index, "Add")
    padding = number(begin.inputs[1])

    wide = node_of(input_of(begin, 0), "Cast")
    product = node_of(input_of(wide, 0), "Mul")
    count, is_token = node_of(input_of(product, 0), "CumSum"), input_of(product, 1)
    # Neither exclusive nor reversed: the position of a token counts the token itself.
    require(input_of(count, 0) is is_token and number(count.inputs[1]) == 1 and not any(integers_of(count).values()))

    narrow = node_of(is_token, "Cast")
    require(integers_of(wide) == {"to": _INT64} and integers_of(narrow) == {"to": _INT32})
    equal = node_of(input_of(node_of(input_of(narrow, 0), "Not"), 0), "Equal")
    require(input_of(equal, 0).name == "input_ids" and number(equal.inputs[1]) == padding)

    require(padding >= 0)
    return int(padding)
