"""
Rewrite an exported encoder so that it runs fastest on a CPU, without changing what it computes.

Constants are folded, token types become a constant unless they encode letter case, the scale of attention
scores moves into the weights of the queries, and attention is rewritten (:mod:`attention`). The attention mask stays an
input: other programs pad batches and need it, and it costs 1 to 3% of the time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript import optimizer

from nerd_export.graph.attention import move_scale_into_weights, rewrite_attention
from nerd_export.graph.centering import center
from nerd_export.graph.nodes import MICROSOFT, add_initializer, constant, nodes_of, tidy
from nerd_export.graph.rewritten_constants import ONE_ROW, marked
from nerd_onnx.errors import ModelError
from nerd_onnx.inference.arrays import Doubles

_LARGEST_FOLDED = 1 << 28  # bytes; weights that an exporter left transposed are constants too


def folded(model_file: Path, *, letter_case: bool = False) -> ir.Model:
    """
    Load a graph that optimum exported, and fold its constants.

    :param model_file: inputs are input_ids and attention_mask, and perhaps token_type_ids
    :param letter_case: whether the network has letter case as an input
    :return: a model whose inputs are input_ids and attention_mask, and token_type_ids if they encode letter case
    :raises ModelError: when the network has letter case and the graph lacks its input
    """
    model = ir.load(model_file)
    if not letter_case:
        drop_token_types(model.graph)
    elif "token_type_ids" not in {value.name for value in model.graph.inputs}:
        raise ModelError(
            "the config.json of the checkpoint has letter_case, but optimum exports this architecture without "
            "token_type_ids, which letter case needs; train without --letter-case, or train another encoder, such as "
            "BERT",
            reason="no-token-types",
        )

    # The optimizer warns about each operator that it does not know; none of this concerns the user.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        optimizer.optimize_ir(
            model, onnx_shape_inference=True, input_size_limit=_LARGEST_FOLDED, output_size_limit=_LARGEST_FOLDED
        )
    finally:
        logging.disable(before)

    # Initializers have names, by which rewrites are marked and weights are found again.
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    split_gemm(model.graph)

    return model


def rewritten(model: ir.Model, means: Mapping[str, Doubles] | None = None) -> ir.Model:
    """
    Return a graph with rewritten attention, and centered activations if means are given.

    :param model: from :func:`folded`; it is not changed
    :param means: what to subtract from the outputs of layer norms (:mod:`centering`); None for nothing
    """
    model = model.clone()
    # Before attention is rewritten: that moves biases, and centering needs them where the exporter put them.
    if means is not None:
        center(model.graph, means)

    for node in [*nodes_of(model.graph, "Div"), *nodes_of(model.graph, "Mul")]:
        move_scale_into_weights(model.graph, node)

    if rewrite_attention(model.graph):
        model.opset_imports.setdefault(MICROSOFT, 1)

    tidy(model)
    return model


def split_gemm(graph: ir.Graph) -> None:
    """Replace each Gemm with constant weights, as other exporters write linear layers, by a MatMul and an Add."""
    for gemm in nodes_of(graph, "Gemm"):
        weight = constant(gemm.inputs[1])
        has_addend = len(gemm.inputs) > 2  # noqa: PLR2004
        addend = constant(gemm.inputs[2]) if has_addend else None
        # Weights or a bias that the graph computes are no linear layer.
        if weight is None or gemm.attributes.get_int("transA", 0) or (has_addend and addend is None):
            continue

        # alpha and beta, which a MatMul and an Add lack, go into the constants.
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
    """Replace token_type_ids, which are 0 for a single text, by their row of a table or by a constant."""
    value = next((v for v in graph.inputs if v.name == "token_type_ids"), None)
    if value is None:
        return

    ids = next(v for v in graph.inputs if v.name == "input_ids")
    for node in [use.node for use in value.uses()]:
        table = constant(node.inputs[0]) if node.op_type == "Gather" and node.inputs[1] is value else None
        if table is not None:
            row = add_initializer(graph, marked(str(node.inputs[0].name), ONE_ROW), table[0])
            node.outputs[0].replace_all_uses_with(row)
            graph.remove(node, safe=True)
        # Some models take the number of tokens from this input; input_ids has the same shape.
        elif node.op_type == "Shape":
            node.replace_input_with(0, ids)

    # Readers of another kind get real zeros, because the input itself goes.
    if value.uses():
        shape = ir.node("Shape", [ids])
        zeros = ir.node("ConstantOfShape", shape.outputs, {"value": ir.tensor(np.array([0], dtype=np.int64))})
        graph.insert_before(graph[0], [shape, zeros])
        value.replace_all_uses_with(zeros.outputs[0])

    graph.inputs.remove(value)
