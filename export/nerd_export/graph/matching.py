"""
Compare parts of a graph with a pattern, from a value back to what it is computed from.

Each function returns a part that is as expected, or raises :class:`OtherGraphError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from nerd_export.graph.nodes import constant


class OtherGraphError(Exception):
    """The graph is not of the pattern."""


def require(holds: bool) -> None:  # noqa: FBT001 - a condition of the pattern
    """Raise where a condition of the pattern does not hold."""
    if not holds:
        raise OtherGraphError


def node_of(value: ir.Value, op_type: str) -> ir.Node:
    """Return the node that computes a value, which must be of an operator."""
    node = value.producer()
    if node is None or node.op_type != op_type:
        raise OtherGraphError
    return node


def input_of(node: ir.Node, place: int) -> ir.Value:
    """Return an input of a node, which must be there."""
    inputs: Sequence[Any] = node.inputs
    value: ir.Value | None = inputs[place] if place < len(inputs) else None
    if value is None:
        raise OtherGraphError
    return value


def is_computed_by(value: ir.Value, op_type: str) -> bool:
    """Whether a node of an operator computes a value."""
    node = value.producer()
    return node is not None and node.op_type == op_type


def name_of(value: ir.Value | None) -> str:
    """Return the name of a constant that is an initializer."""
    require(value is not None and value.is_initializer() and constant(value) is not None)
    return str(value.name) if value is not None else ""


def number(value: ir.Value | None) -> Any:
    """Return the number of a constant that has one."""
    found = constant(value)
    require(found is not None and found.size == 1)
    return found.item()


def integers_of(node: ir.Node) -> dict[str, int]:
    """Return the attributes of a node, which are whole numbers."""
    return {name: attribute.as_int() for name, attribute in node.attributes.items()}


def permutation_of(node: ir.Node) -> tuple[int, ...]:
    """Return how a Transpose orders the axes."""
    return tuple(node.attributes["perm"].as_ints())


def vector_and_value(node: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Return the constant vector and the computed value that an Add reads."""
    vectors = [value for value in node.inputs if value is not None and constant(value) is not None]
    others = [value for value in node.inputs if value is not None and constant(value) is None]
    require(len(vectors) == len(others) == 1 and constant(vectors[0]).ndim == 1)
    return vectors[0], others[0]


def gather_of(value: ir.Value) -> ir.Node:
    """Return the Gather of rows of a constant table that computes a value."""
    node = node_of(value, "Gather")
    require(node.attributes.get_int("axis", 0) == 0 and constant(node.inputs[0]) is not None)
    return node
