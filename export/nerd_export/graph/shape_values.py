"""Values that depend on nothing but the number of tokens: positions and distances."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from nerd_export.graph.matching import OtherGraphError, require
from nerd_onnx.inference.encoding import EncodedBatch

_IR_VERSION = 10


def value_at(graph: ir.Graph, value: ir.Value, tokens: int) -> Any:
    """
    Return what onnxruntime computes for a value of a graph, for a segment of that many tokens.

    :raises OtherGraphError: when the value depends on more than the number of tokens, or cannot be computed
    """
    require(not _reads_inputs(value))

    fed = EncodedBatch(np.zeros((1, tokens), dtype=np.int64)).inputs()
    try:
        # A copy of what the value is computed from alone.
        part = ir.convenience.extract(graph, [v for v in graph.inputs if v.name in fed], [value])
        session = ort.InferenceSession(
            ir.to_proto(ir.Model(part, ir_version=_IR_VERSION)).SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return session.run(None, {node.name: fed[node.name] for node in session.get_inputs()})[0]
    except Exception as err:  # onnxruntime's errors share no base class
        raise OtherGraphError from err


def _reads_inputs(value: ir.Value) -> bool:
    """Whether the numbers of the graph's inputs, and not their shapes alone, decide a value."""
    pending, seen = [value], {value}
    while pending:
        current = pending.pop()
        node = current.producer()
        if node is None and current.is_graph_input():
            return True
        # Of a batch, Shape reads how many tokens it has, and no token.
        for source in node.inputs if node is not None and node.op_type != "Shape" else ():
            if source is not None and source not in seen:
                seen.add(source)
                pending.append(source)
    return False
