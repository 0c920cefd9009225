"""
Bring an exported encoder into the form that the runtime runs fastest, without changing what it computes.

The runtime batches segments of one length, so nothing is ever padded: the attention mask is always ones and the
token types are always zeros. Both inputs are replaced by those constants, and what only they fed disappears.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

MICROSOFT = "com.microsoft"


def simplified(model_file: Path) -> ir.Model:
    """
    Load a graph with constants folded and no mask left.

    :param model_file: as optimum exports it, with input_ids and perhaps attention_mask and token_type_ids
    :return: a model whose only input is input_ids
    """
    model = ir.load(model_file)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    bypass_mask(model.graph)
    for name in ("token_type_ids", "attention_mask"):
        replace_input(model.graph, name, filled_with=0 if name == "token_type_ids" else 1)
    tidy(model)
    return model


def tidy(model: ir.Model) -> None:
    """Drop what nothing uses, merge what is computed twice, and keep the nodes in an order that runs."""
    for one_pass in (
        passes.IdentityEliminationPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.DeduplicateInitializersPass(),
        passes.RemoveUnusedNodesPass(),
        passes.TopologicalSortPass(),
        passes.RemoveUnusedOpsetsPass(),
    ):
        one_pass(model)


def bypass_mask(graph: ir.Graph) -> None:
    """
    Take the mask out of every attention: ``Add(scores, mask)`` before a Softmax becomes ``scores``.

    With a mask of ones what is added is zero everywhere, so the result stays the same to the last bit.
    """
    mask = next((value for value in graph.inputs if value.name == "attention_mask"), None)
    if mask is None:
        return
    masked = descendants(mask)
    ids = next(value for value in graph.inputs if value.name == "input_ids")
    hidden = descendants(ids, follow=lambda node: node.op_type != "Shape")
    for softmax in nodes_of(graph, "Softmax"):
        add = softmax.inputs[0].producer() if softmax.inputs[0] is not None else None
        if add is None or add.op_type != "Add":
            continue
        for scores, addend in (add.inputs, tuple(reversed(add.inputs))):
            if addend in masked and addend not in hidden and scores is not None:
                add.outputs[0].replace_all_uses_with(scores)
                break


def replace_input(graph: ir.Graph, name: str, filled_with: int) -> None:
    """Replace an input of shape (batch, tokens) by a constant of the shape of input_ids, or its row of a table."""
    value = next((v for v in graph.inputs if v.name == name), None)
    if value is None:
        return
    ids = next(v for v in graph.inputs if v.name == "input_ids")
    for node in [use.node for use in value.uses()]:
        table = constant(node.inputs[0]) if node.op_type == "Gather" and node.inputs[1] is value else None
        if table is not None:
            row = add_initializer(graph, f"{node.inputs[0].name}.row{filled_with}", table[filled_with])
            node.outputs[0].replace_all_uses_with(row)
            graph.remove(node, safe=True)
        elif node.op_type == "Shape":
            node.replace_input_with(0, ids)
    if value.uses():
        shape = ir.node("Shape", [ids])
        fill = ir.node("ConstantOfShape", shape.outputs, {"value": ir.tensor(np.array([filled_with], dtype=np.int64))})
        graph.insert_before(graph[0], [shape, fill])
        value.replace_all_uses_with(fill.outputs[0])
    graph.inputs.remove(value)


def add_initializer(graph: ir.Graph, name: str, array: Any) -> ir.Value:
    """Add a constant to the graph under a name that is still free."""
    free = name
    for number in range(1, len(graph.initializers) + 2):
        if free not in graph.initializers:
            break
        free = f"{name}.{number}"
    value = ir.val(free, const_value=ir.tensor(array, name=free))
    graph.register_initializer(value)
    return value


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
    """Give a constant's array, or None for what is computed."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()
