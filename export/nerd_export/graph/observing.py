"""Read activations of a graph on real text, one batch at a time, so that memory does not grow with the text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort

from nerd_export.outputs import writing
from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.encoding import EncodedBatch


def observed(
    model: ir.Model, names: Sequence[str], batches: Iterable[EncodedBatch], scratch: Path
) -> Iterator[dict[str, Floats]]:
    """
    Run a network on real batches and yield, for each batch, some of its activations by name.

    :param model: the graph; it is not changed
    :param names: names of values in the graph; if empty, nothing runs
    :param batches: real segments
    :param scratch: folder for the graph that returns its activations
    :raises OutputError: when the disk has no room
    """
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return

    # In the graph itself, more outputs would keep onnxruntime from fusing nodes.
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    for name in wanted:
        # Graph outputs need a type, and shape inference does not know all fused operators.
        if values[name].type is None:
            values[name].dtype = ir.DataType.FLOAT
        if not values[name].is_graph_output():
            copy.graph.outputs.append(values[name])

    # Through a file, because a protobuf message in memory ends at 2 GB.
    with writing(scratch):
        ir.save(copy, scratch / "observed.onnx")

    session = ort.InferenceSession(str(scratch / "observed.onnx"), providers=["CPUExecutionProvider"])
    for batch in batches:
        inputs = batch.inputs()
        # Not all graphs read token types, and onnxruntime refuses an input that it does not know.
        feed = {node.name: inputs[node.name] for node in session.get_inputs()}
        yield dict(zip(wanted, session.run(wanted, feed), strict=True))
