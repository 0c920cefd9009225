"""
The networks that score tokens. This is the only module that creates onnxruntime sessions.

A session runs each call on one thread. The tagger calls it from several Python threads at once, and all of them share
one copy of the weights. The module also checks what a graph takes and returns: its inputs must be those of a tokenizer,
its output must be one score per segment, token and label, and every score must be a finite number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from nerd_onnx.errors import ModelError, NotFiniteError, first_line
from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.graph_file import GraphFile, read_graph, weights_of
from nerd_onnx.stages import stage

KNOWN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Network(Protocol):
    """Anything that scores tokens: an onnxruntime session, or the PyTorch original when an export is verified."""

    def logits(self, batch: EncodedBatch) -> Floats:
        """
        Score segments of one length. Several threads may call this at the same time.

        :param batch: the segments
        :return: one score per segment, token and label. *Shape:* (batch, tokens, labels)
        """
        ...


class Session:
    """
    A network in onnxruntime, with one thread per call.

    Several Python threads call it at the same time and share its weights. On CPUs this was faster than the same number
    of threads inside one call, and the arithmetic of a text does not depend on the number of threads.

    :param model_file: the ONNX file
    :param optimized: whether ``nerd-export`` wrote the graph in its final form, with weights that cannot saturate;
        onnxruntime must not fuse it further. Any other graph is optimized when it is loaded, see
        :func:`session_options`
    :param graph: facts about the graph, where they were read before; None to read them
    :ivar inputs: names of the inputs of the graph
    :ivar labels: number of labels the network scores; None where the graph does not state it
    :ivar mixes_texts: whether the network quantizes activations over the whole batch, so that the texts of one batch
        change each other's results
    :raises ModelError: when onnxruntime cannot load the graph, or its inputs or output are not those of a token
        classifier
    """

    def __init__(self, model_file: Path, *, optimized: bool, graph: GraphFile | None = None) -> None:
        # The environment variable that the package sets has no effect where onnxruntime was imported before it.
        ort.disable_telemetry_events()

        graph = graph or read_graph(model_file)
        options = session_options(optimized=optimized)

        weights = weights_of(model_file, graph)
        if weights:
            # onnxruntime would map these files, and a mapped file that is cut ends the process.
            content = list(weights.values())
            options.add_external_initializers_from_files_in_memory(list(weights), content, list(map(len, content)))

        self._name = str(model_file)
        self._session, inputs, outputs = _loaded(model_file, options)
        self._run_options = _run_options()
        self.mixes_texts = graph.mixes_texts

        self.inputs = tuple(name for name, _ in inputs)
        self._check_inputs()

        # Some exporters write inputs of 32 bits, most write 64.
        self._types = {name: np.int32 if kind == "tensor(int32)" else np.int64 for name, kind in inputs}

        self._output, shape = outputs[0] if outputs else ("", [])
        # A graph may leave the shape of its output open; then only the logits themselves can be checked.
        if not outputs or (shape and len(shape) != 3):  # noqa: PLR2004
            raise ModelError(
                f"{model_file}: its output {self._output!r} has shape {shape}; expected (batch, tokens, labels), as a "
                "token classifier has",
                reason="other-output",
                file=self._name,
                found=str(shape),
            )

        self.labels: int | None = shape[-1] if shape and isinstance(shape[-1], int) else None

    def _check_inputs(self) -> None:
        """Check that the inputs are those of a tokenizer."""
        unknown = [name for name in self.inputs if name not in KNOWN_INPUTS]
        if unknown or "input_ids" not in self.inputs:
            raise ModelError(
                f"{self._name}: its inputs are {', '.join(self.inputs)}; expected input_ids and at most attention_mask "
                "and token_type_ids, as a token-classification export has",
                reason="other-inputs",
                file=self._name,
                found=", ".join(self.inputs),
            )

    @stage("model")
    def logits(self, batch: EncodedBatch) -> Floats:
        """
        Score a batch; see :class:`Network`.

        :raises ModelError: when the network fails, or returns logits of an unexpected shape
        :raises NotFiniteError: when a logit is not a finite number
        """
        inputs = batch.inputs()
        feed = {name: inputs[name].astype(kind, copy=False) for name, kind in self._types.items()}

        try:
            result = self._session.run([self._output], feed, self._run_options)[0]
            logits = np.asarray(result, dtype=np.float32)
        except Exception as err:
            raise ModelError(
                f"{self._name}: fails on {batch.ids.shape[1]} tokens: {first_line(err)}",
                reason="cannot-run",
                file=self._name,
                tokens=int(batch.ids.shape[1]),
            ) from err

        return checked_logits(logits, batch, self.labels, self._name)

    def stop(self) -> None:
        """End the calls of :meth:`logits` that are running; they fail. Later calls are not affected."""
        # onnxruntime ends the calls whose options say so. Later calls must not find these.
        running, self._run_options = self._run_options, _run_options()
        running.terminate = True


def _loaded(model_file: Path, options: Any) -> tuple[Any, list[tuple[str, str]], list[tuple[str, Any]]]:
    """
    Load a graph.

    :return: the session, name and type of each input, name and shape of each output
    :raises ModelError: when onnxruntime cannot load it
    """
    try:
        # The fallback would try the same provider again and print that to standard output, between the rows.
        session = ort.InferenceSession(str(model_file), options, providers=["CPUExecutionProvider"], enable_fallback=0)
        # Here, because onnxruntime raises an error for a name that is no UTF-8.
        inputs = [(node.name, node.type) for node in session.get_inputs()]
        outputs = [(node.name, node.shape) for node in session.get_outputs()]
    except Exception as err:  # onnxruntime's errors share no base class
        raise ModelError(
            f"{model_file}: onnxruntime cannot load it: {first_line(err)}", reason="cannot-load", file=str(model_file)
        ) from err

    return session, inputs, outputs


def _run_options() -> Any:
    options = ort.RunOptions()
    options.log_severity_level = 4  # as in :func:`session_options`
    return options


def checked_logits(logits: Floats, batch: EncodedBatch, labels: int | None, name: str) -> Floats:
    """
    Return the logits of a batch after a check of their shape and of their values.

    The shape must be checked too: an empty array has no value that is not finite, and some execution providers return
    an empty array for a graph that they do not support.

    :param logits: what the network returned
    :param batch: the segments that were scored
    :param labels: number of labels the network must score; None where that is not known
    :param name: name of the network, for the message
    :return: ``logits`` unchanged. *Shape:* (batch, tokens, labels)
    :raises ModelError: when the shape is not (batch, tokens, labels)
    :raises NotFiniteError: when a logit is not a finite number
    """
    scores = labels or (logits.shape[-1] if logits.ndim else 0)
    if logits.shape != (*batch.ids.shape, scores) or scores == 0:
        raise ModelError(
            f"{name}: returned logits of shape {logits.shape}; expected {batch.ids.shape[0]} segments of "
            f"{batch.ids.shape[1]} tokens with {'one score per label' if labels is None else f'{labels} labels'}",
            reason="other-shape",
            file=name,
            found=str(logits.shape),
        )

    if not np.isfinite(logits).all():
        raise NotFiniteError(
            f"{name}: computes logits that are not finite; the model is damaged", reason="not-finite", file=name
        )

    return logits


def session_options(*, optimized: bool) -> Any:
    """
    Return the options of a session: one thread per call, and the optimization that the graph allows.

    :param optimized: see :class:`Session`
    :return: ``onnxruntime.SessionOptions``
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Memory patterns save time only where all shapes are equal; here they vary.
    options.enable_mem_pattern = False
    # onnxruntime raises its errors as well, and the commands print them in one line.
    options.log_severity_level = 4

    level = ort.GraphOptimizationLevel
    if optimized:
        options.graph_optimization_level = level.ORT_ENABLE_BASIC
        return options

    # The 8-bit weights of a graph from another exporter may saturate in products on x86 without VNNI. With this entry
    # onnxruntime replaces such products by exact but slower ones where necessary.
    options.graph_optimization_level = level.ORT_ENABLE_ALL
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options
