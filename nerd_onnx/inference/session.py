"""The only place that makes an onnxruntime session; and what processor and threads it runs on."""

from __future__ import annotations

import math
import mmap
import os
import platform
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from nerd_onnx.errors import ModelError, NotFiniteError, first_line
from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.encoding import EncodedBatch

KNOWN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu")
_CPUINFO = Path("/proc/cpuinfo")
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")  # what int8 kernels ask for


class Network(Protocol):
    """Anything that scores tokens: an onnxruntime session, or in verification the PyTorch original."""

    def logits(self, batch: EncodedBatch) -> Floats:
        """
        Score segments of one length; safe to call from several threads at once.

        :return: *Shape:* (batch, tokens, labels)
        """
        ...


class Session:
    """
    A network in onnxruntime, one thread a call.

    Parallelism comes from calling it from several Python threads, which share the weights: on CPUs this beat
    the same number of threads inside one call, and it leaves each text's arithmetic independent of their number.

    :param model_file: the ONNX file
    :ivar labels: number of labels it scores, None where the graph does not say
    :ivar mixes_texts: it quantizes activations over the whole batch, so that texts in one batch change each other

    :param optimized: ``nerd-export`` wrote the graph in its final form, with weights that cannot saturate; onnxruntime
        must not fuse it further. Any other graph is optimized when it is loaded, see :func:`session_options`
    :raises ModelError: when onnxruntime cannot load it, or it wants inputs that a tokenizer does not give
    """

    def __init__(self, model_file: Path, *, optimized: bool) -> None:
        ort.disable_telemetry_events()  # also where onnxruntime was imported before this package
        options = session_options(optimized=optimized)
        try:
            # Without its fallback, which tries the same again and says so on standard output, among the rows.
            self._session = ort.InferenceSession(
                str(model_file), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            inputs = [(node.name, node.type) for node in self._session.get_inputs()]  # names may be no UTF-8
            outputs = [(node.name, node.shape) for node in self._session.get_outputs()]
        except Exception as err:  # onnxruntime's errors share no base class
            raise ModelError(
                f"{model_file}: onnxruntime cannot load it: {first_line(err)}",
                reason="cannot-load",
                file=str(model_file),
            ) from err
        self.inputs = tuple(name for name, _ in inputs)
        unknown = [name for name in self.inputs if name not in KNOWN_INPUTS]
        if unknown or "input_ids" not in self.inputs:
            raise ModelError(
                f"{model_file}: its inputs are {', '.join(self.inputs)}; expected input_ids and at most attention_mask "
                "and token_type_ids, as a token-classification export has",
                reason="other-inputs",
                file=str(model_file),
                found=", ".join(self.inputs),
            )
        self._types = {name: np.int32 if kind == "tensor(int32)" else np.int64 for name, kind in inputs}
        output, shape = outputs[0] if outputs else ("", [])
        if len(shape or (0, 0, 0)) != 3 or not outputs:  # noqa: PLR2004
            raise ModelError(
                f"{model_file}: its output {output!r} has shape {shape}; expected (batch, tokens, labels), as a token "
                "classifier has",
                reason="other-output",
                file=str(model_file),
                found=str(shape),
            )
        self._output, self._name = output, str(model_file)
        self.labels: int | None = shape[-1] if shape and isinstance(shape[-1], int) else None
        self.mixes_texts = _mixes_texts(model_file)

    def logits(self, batch: EncodedBatch) -> Floats:
        """
        Score a batch; see :class:`Network`.

        :raises ModelError: when the network fails, or returns logits of another shape than the batch asks for
        :raises NotFiniteError: when a logit is not a finite number
        """
        inputs = batch.inputs()
        feed = {name: inputs[name].astype(kind, copy=False) for name, kind in self._types.items()}
        try:
            result = self._session.run([self._output], feed)[0]
        except Exception as err:
            raise ModelError(
                f"{self._name}: fails on {batch.ids.shape[1]} tokens: {first_line(err)}",
                reason="cannot-run",
                file=self._name,
                tokens=int(batch.ids.shape[1]),
            ) from err
        return checked_logits(np.asarray(result, dtype=np.float32), batch, self.labels, self._name)


def checked_logits(logits: Floats, batch: EncodedBatch, labels: int | None, name: str) -> Floats:
    """
    Return logits that have the shape the batch asks for and are finite.

    A test of finiteness alone would pass an empty array, which some execution providers return for a graph that they
    do not support.

    :param logits: what a network returned
    :param labels: number of labels it must score, None where that is not known
    :param name: of the network, for the message
    :raises ModelError: when the shape is not (batch, tokens, labels)
    :raises NotFiniteError: when a logit is not a finite number
    """
    wanted = (*batch.ids.shape, logits.shape[-1] if labels is None and logits.ndim else labels)
    if logits.shape != wanted or 0 in logits.shape[-1:]:
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
    Return the options with which onnxruntime runs a network here; see :class:`Session`.

    :return: ``onnxruntime.SessionOptions``
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # patterns pay for equal shapes only, and ours vary
    options.log_severity_level = 4  # its errors are raised as well, and told in one line
    level = ort.GraphOptimizationLevel
    if optimized:
        options.graph_optimization_level = level.ORT_ENABLE_BASIC
        return options

    # Nobody vouches for the 8-bit weights of a foreign graph: on x86 without VNNI their products can saturate. With
    # this entry onnxruntime replaces such products by exact, slower ones where it has to.
    options.graph_optimization_level = level.ORT_ENABLE_ALL
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def available_cpus() -> int:
    """Count the processors this process may use: its affinity, and the container's quota where there is one."""
    return _allowed_cpus()[0]


def thread_plan(asked: int | None) -> str:
    """
    Say why so many calls run at the same time.

    :param asked: threads that the user wants; None for one a processor
    """
    return f"{asked}, as asked" if asked else "{}, {}".format(*_allowed_cpus())


def _allowed_cpus() -> tuple[int, str]:
    """Count the processors this process may use, and say what bounds them."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota = _cgroup_quota()
    if quota and math.ceil(quota) < cpus:
        return max(1, math.ceil(quota)), f"the container's quota of {quota:g} processors"
    return cpus, f"the processors {'this process may use' if has_affinity else 'of this machine'}"


def cpu_features() -> tuple[str, ...]:
    """List the processor's features that decide which int8 kernels run; empty where the system does not tell."""
    try:
        words = set(_CPUINFO.read_text().split())
    except OSError:
        return ()
    return tuple(name for name in _FEATURES if name in words)


def processor_kind() -> str:
    """Name the kind of this processor: ``x86-vnni``, ``x86`` (without VNNI, or features unknown) or ``arm64``."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    return "x86-vnni" if {"avx512_vnni", "avx_vnni"} & set(cpu_features()) else "x86"


def integer_kernels() -> str:
    """Name the instructions with which this processor multiplies 8-bit integers."""
    features = set(cpu_features())
    kind = processor_kind()
    if kind == "arm64":
        return "int8, dot product" if {"asimddp", "i8mm"} & features else "int8, no dot product"
    if kind == "x86-vnni":
        return "int8, VNNI"
    return "int8, AVX-512" if "avx512f" in features else "int8, AVX2"


def _cgroup_quota() -> float | None:
    """Read the CPU quota of the container in processors, or None without one."""
    try:
        if _CGROUP_V2.is_file():
            quota, period = _CGROUP_V2.read_text().split()
            return None if quota == "max" else int(quota) / int(period)
        quota_us = int((_CGROUP_V1 / "cpu.cfs_quota_us").read_text())
        return quota_us / int((_CGROUP_V1 / "cpu.cfs_period_us").read_text()) if quota_us > 0 else None
    except (OSError, ValueError):
        return None


def _mixes_texts(model_file: Path) -> bool:
    """Tell whether a graph holds onnxruntime's dynamic quantization, which takes one scale for a whole batch."""
    with model_file.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"DynamicQuantize") >= 0
