"""The machine's int8 peak: a large integer matrix product in onnxruntime, on as many threads as the engine takes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

ROWS, INNER, COLUMNS = 512, 2048, 2048


def int8_peak(threads: int, seconds: float) -> dict[str, Any]:
    """
    Measure unsigned times signed 8-bit products, a call a thread, for so many seconds; the best second half counts.

    :return: ``operations_per_s``, a multiplication and an addition each one operation; and how it was measured
    """
    session = _session()
    rng = np.random.default_rng(0)
    activation = rng.integers(0, 255, (ROWS, INNER), dtype=np.uint8)

    def calls(until: float) -> list[float]:
        ends = []
        while time.perf_counter() < until:
            session.run(None, {"a": activation})
            ends.append(time.perf_counter())
        return ends

    rates = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(4):
            begin = time.perf_counter()
            until = begin + seconds / 4
            ends = sorted(end for found in pool.map(calls, [until] * threads) for end in found)
            rates.append(2 * ROWS * INNER * COLUMNS * len(ends) / (ends[-1] - begin))
    return {
        "operations_per_s": max(rates),
        "threads": threads,
        "product": f"{ROWS} x {INNER} by {INNER} x {COLUMNS}, unsigned by signed 8 bits",
        "lowest": min(rates),
    }


def _session() -> Any:
    """Make a session of one integer matrix product with constant weights."""
    import onnx
    import onnxruntime

    weight = np.random.default_rng(1).integers(-127, 127, (INNER, COLUMNS), dtype=np.int8)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["a", "b", "zero"], ["c"])],
        "peak",
        [onnx.helper.make_tensor_value_info("a", onnx.TensorProto.UINT8, [ROWS, INNER])],
        [onnx.helper.make_tensor_value_info("c", onnx.TensorProto.INT32, [ROWS, COLUMNS])],
        [onnx.numpy_helper.from_array(weight, "b"), onnx.numpy_helper.from_array(np.array(128, np.uint8), "zero")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
