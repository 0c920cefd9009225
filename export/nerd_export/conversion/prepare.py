"""
Bring an exported encoder into the form that runs fastest on a CPU, without changing what it computes.

Constants are folded, token types (always zero for one text) become the constant they are, the scale of attention scores
moves into the weights of the queries, and attention is rewritten (:mod:`attention`). The attention mask stays an input:
padded batches, as other programs make them, keep their meaning, and adding it costs 1 to 3% of the time.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript import optimizer

from nerd_export.conversion.attention import rewrite_attention
from nerd_export.conversion.graph import MICROSOFT, add_initializer, constant, nodes_of, only_reader, tidy

_LARGEST_FOLDED = 1 << 28  # bytes; weights that an exporter left transposed are constants too
_MOVING = frozenset({"Reshape", "Transpose"})  # nodes that move numbers and change none


def prepared(model_file: Path) -> ir.Model:
    """
    Load a graph as optimum exports it, with constants folded and no token types.

    :param model_file: inputs are input_ids and attention_mask, and perhaps token_type_ids
    :return: a model whose inputs are input_ids and attention_mask
    """
    model = ir.load(model_file)
    drop_token_types(model.graph)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        optimizer.optimize_ir(
            model, onnx_shape_inference=True, input_size_limit=_LARGEST_FOLDED, output_size_limit=_LARGEST_FOLDED
        )
    finally:
        logging.disable(before)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    split_gemm(model.graph)
    for node in [*nodes_of(model.graph, "Div"), *nodes_of(model.graph, "Mul")]:
        move_scale_into_weights(model.graph, node)
    if rewrite_attention(model.graph):
        model.opset_imports.setdefault(MICROSOFT, 1)
    tidy(model)
    return model


def move_scale_into_weights(graph: ir.Graph, node: ir.Node) -> None:
    """
    Take ``q / c`` or ``MatMul(q, k) / c`` for a scalar constant c, where q is moved from a linear layer, and scale its
    weights.

    Attention scores are the largest activation of long texts: this saves a pass over them in every layer.
    """
    scaled, scale = node.inputs
    factor = constant(scale)
    if factor is None or factor.size != 1 or scaled is None or not only_reader(scaled):
        return
    product = scaled.producer()
    if product is not None and product.op_type == "MatMul" and constant(product.inputs[1]) is None:
        bias = _linear_behind(product.inputs[0])
    else:
        bias = _linear_behind(scaled)
    if bias is None:
        return
    number = np.float32(1 / factor.item() if node.op_type == "Div" else factor.item())
    vector, matmul = _bias_and_matmul(bias)
    _scale_input(graph, bias, vector, number)
    _scale_input(graph, matmul, 1, number)
    node.outputs[0].replace_all_uses_with(scaled)
    graph.remove(node, safe=True)


def _linear_behind(value: ir.Value | None) -> ir.Node | None:
    """Find the bias Add of the linear layer that alone gives a value, moved at most; None where it is none."""
    while value is not None and only_reader(value) and (node := value.producer()) is not None:
        if node.op_type == "Add":
            return node if _bias_and_matmul(node)[1] is not None else None
        if node.op_type not in _MOVING:
            return None
        value = node.inputs[0]
    return None


def _bias_and_matmul(add: ir.Node) -> tuple[int, Any]:
    """Give the place of the constant among an Add's inputs, and the MatMul with a constant matrix it follows."""
    for place in (0, 1):
        vector, other = constant(add.inputs[place]), add.inputs[1 - place]
        matmul = other.producer() if other is not None and only_reader(other) else None
        if vector is not None and vector.ndim == 1 and matmul is not None and matmul.op_type == "MatMul":
            return place, matmul if constant(matmul.inputs[1]) is not None else None
    return 0, None


def _scale_input(graph: ir.Graph, node: ir.Node, place: int, factor: np.float32) -> None:
    """Multiply a constant input of one node; others that read the same constant keep it as it was."""
    old = node.inputs[place]
    array: npt.NDArray[np.float32] = (constant(old) * factor).astype(np.float32)
    node.replace_input_with(place, add_initializer(graph, f"{old.name if old else ''}.scaled", array))


def split_gemm(graph: ir.Graph) -> None:
    """Turn each Gemm of constants, which other exporters write for linear layers, into a MatMul and an Add."""
    for gemm in nodes_of(graph, "Gemm"):
        weight, addend = constant(gemm.inputs[1]), constant(gemm.inputs[2]) if len(gemm.inputs) > 2 else None  # noqa: PLR2004
        if weight is None or gemm.attributes.get_int("transA", 0) or (addend is None and len(gemm.inputs) > 2):  # noqa: PLR2004
            continue
        matrix = weight.T if gemm.attributes.get_int("transB", 0) else weight
        matrix = np.ascontiguousarray(matrix * np.float32(gemm.attributes.get_float("alpha", 1.0)))
        constant_matrix = add_initializer(graph, f"{gemm.name}.matrix", matrix)
        nodes = [ir.node("MatMul", [gemm.inputs[0], constant_matrix], name=f"{gemm.name}/MatMul")]
        if addend is not None:
            scaled = (addend * np.float32(gemm.attributes.get_float("beta", 1.0))).astype(np.float32)
            nodes.append(ir.node("Add", [nodes[0].outputs[0], add_initializer(graph, f"{gemm.name}.addend", scaled)]))
        graph.insert_before(gemm, nodes)
        gemm.outputs[0].replace_all_uses_with(nodes[-1].outputs[0], replace_graph_outputs=True)
        graph.remove(gemm, safe=True)


def drop_token_types(graph: ir.Graph) -> None:
    """Replace token_type_ids by the zeros they always are for one text: their row of a table, or a constant."""
    value = next((v for v in graph.inputs if v.name == "token_type_ids"), None)
    if value is None:
        return
    ids = next(v for v in graph.inputs if v.name == "input_ids")
    for node in [use.node for use in value.uses()]:
        table = constant(node.inputs[0]) if node.op_type == "Gather" and node.inputs[1] is value else None
        if table is not None:
            row = add_initializer(graph, f"{node.inputs[0].name}.row0", table[0])
            node.outputs[0].replace_all_uses_with(row)
            graph.remove(node, safe=True)
        elif node.op_type == "Shape":
            node.replace_input_with(0, ids)
    if value.uses():
        shape = ir.node("Shape", [ids])
        zeros = ir.node("ConstantOfShape", shape.outputs, {"value": ir.tensor(np.array([0], dtype=np.int64))})
        graph.insert_before(graph[0], [shape, zeros])
        value.replace_all_uses_with(zeros.outputs[0])
    graph.inputs.remove(value)
