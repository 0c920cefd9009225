"""Helpers for graphs: nodes, constants and readers of values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from nerd_export.graph.rewritten_constants import marked

MICROSOFT = "com.microsoft"


def tidy(model: ir.Model) -> None:
    """Remove unused nodes, merge duplicates, and sort the nodes so that the graph runs."""
    # Duplicates go first, because merged nodes leave unused ones behind. The ONNX checker refuses a graph that is not
    # sorted.
    for one_pass in (
        passes.CommonSubexpressionEliminationPass(),
        passes.DeduplicateHashedInitializersPass(),
        passes.RemoveUnusedNodesPass(),
        passes.TopologicalSortPass(),
        passes.RemoveUnusedOpsetsPass(),
    ):
        one_pass(model)


def add_initializer(graph: ir.Graph, name: str, array: Any) -> ir.Value:
    """Add a constant to the graph; a number is appended to its name if the name is taken."""
    free = name
    # One name more than there are constants, so one of them is free.
    for number in range(1, len(graph.initializers) + 2):
        if free not in graph.initializers:
            break
        free = f"{name}.{number}"

    value = ir.val(free, const_value=ir.tensor(array, name=free))
    graph.register_initializer(value)
    return value


def replace_constant(graph: ir.Graph, node: ir.Node, place: int, array: Any, mark: str) -> None:
    """
    Replace the constant that one node reads; other nodes that read the old one keep it.

    :param place: index of the constant among the node's inputs
    :param mark: suffix that is added to the old constant's name (:mod:`rewritten_constants`)
    """
    # A new constant instead of a change in place: layers may share the old one (zeros, or all layers of ALBERT).
    old = node.inputs[place]
    name = marked(str(old.name) if old is not None else "", mark)
    node.replace_input_with(place, add_initializer(graph, name, np.asarray(array, dtype=np.float32)))


def nodes_of(graph: ir.Graph, op_type: str) -> list[ir.Node]:
    """List the nodes of one operator, in order."""
    return [node for node in graph if node.op_type == op_type]


def descendants(value: ir.Value, follow: Callable[[ir.Node], bool] = lambda _: True) -> set[ir.Value]:
    """Collect every value computed from ``value``, through the nodes that ``follow`` accepts."""
    found: set[ir.Value] = set()
    pending = [value]
    while pending:
        for node in consumers(pending.pop()):
            new = [out for out in node.outputs if out not in found] if follow(node) else []
            found.update(new)
            pending.extend(new)

    return found


def consumers(value: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes that read a value."""
    for use in value.uses():
        yield use.node


def constant(value: ir.Value | None) -> Any:
    """Return the array of a constant; None for a value that the graph computes."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def only_reader(value: ir.Value) -> bool:
    """Whether one node alone reads a value and it is no output, so that a change of it reaches no other node."""
    return len(value.uses()) == 1 and not value.is_graph_output()
