"""Constants are read from ONNX files as the onnx package reads them; damaged files are errors, never anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from nerd_onnx.inference.bundle import DEFAULT_FOLDER
from nerd_onnx.inference.onnx_tensors import initializers


def test_the_constants_are_those_of_the_onnx_package() -> None:
    file = DEFAULT_FOLDER / "model.onnx"
    expected = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load(file).graph.initializer
        if tensor.data_type in {TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8}
    }
    found = initializers(file)
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


def test_constants_of_other_types_or_in_other_fields_are_left_out(tmp_path: Path) -> None:
    tensors = [
        numpy_helper.from_array(np.ones((2, 3), np.float32), "floats"),
        numpy_helper.from_array(np.ones(3, np.int64), "integers"),
        helper.make_tensor("listed", TensorProto.FLOAT, [2], [1.0, 2.0]),  # in float_data
    ]
    graph = helper.make_graph([], "g", [], [], tensors)
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    assert set(initializers(tmp_path / "m.onnx")) == {"floats"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_errors(tmp_path: Path, data: st.DataObject) -> None:
    tensor = numpy_helper.from_array(np.arange(40, dtype=np.float32).reshape(5, 8), "a")
    good = helper.make_model(helper.make_graph([], "g", [], [], [tensor])).SerializeToString()
    damaged = bytearray(good)
    for place in data.draw(st.lists(st.integers(0, len(good) - 1), min_size=1, max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    file = tmp_path / "m.onnx"
    file.write_bytes(bytes(damaged[: data.draw(st.integers(1, len(good)))]))

    try:
        found = initializers(file)
    except ValueError:
        return
    assert all(isinstance(array, np.ndarray) for array in found.values())


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    with pytest.raises(ValueError, match="empty"):
        initializers(tmp_path / "m.onnx")
