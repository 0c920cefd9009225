"""The machine's int8 peak: the rate of a large integer matrix product in onnxruntime, on all threads."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

ROWS, INNER, COLUMNS = 256, 1024, 4096  # the fastest of eight sizes; the weights fit a core's cache
PRODUCT = f"{ROWS} x {INNER} by {INNER} x {COLUMNS}, unsigned by signed 8 bits"


class Int8Peak:
    """
    A matrix product of unsigned by signed 8-bit integers, with one independent call per thread.

    :param threads: number of calls at the same time
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._session = _session()
        # Random numbers: zeros need less power, so a processor may raise its clock for them.
        self._activation = np.random.default_rng(0).integers(0, 255, (ROWS, INNER), dtype=np.uint8)

    def operations_per_s(self, seconds: float) -> float:
        """Return the rate, measured for ``seconds``. A multiplication and an addition are two operations."""
        with ThreadPoolExecutor(self.threads) as pool:
            begin = time.perf_counter()
            # All threads at once: memory and clock that they share limit the peak that a tagger can reach.
            counts = list(pool.map(self._calls, [begin + seconds] * self.threads))
            spent = time.perf_counter() - begin

        return 2 * ROWS * INNER * COLUMNS * sum(counts) / spent

    def _calls(self, until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            self._session.run(None, {"a": self._activation})
            count += 1
        return count


def _session() -> Any:
    """Return a session with one integer matrix product, whose weights are constant."""
    import onnx
    import onnxruntime

    weight = np.random.default_rng(1).integers(-127, 127, (INNER, COLUMNS), dtype=np.int8)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["a", "b", "zero"], ["c"])],
        "peak",
        [onnx.helper.make_tensor_value_info("a", onnx.TensorProto.UINT8, [ROWS, INNER])],
        [onnx.helper.make_tensor_value_info("c", onnx.TensorProto.INT32, [ROWS, COLUMNS])],
        # 128 as the zero point of activations, as in most products of the recipe int8.
        [onnx.numpy_helper.from_array(weight, "b"), onnx.numpy_helper.from_array(np.array(128, np.uint8), "zero")],
    )
    # onnx writes its own newest IR version, which an older onnxruntime refuses.
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)

    options = onnxruntime.SessionOptions()
    # One thread per call, as in the tagger.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
