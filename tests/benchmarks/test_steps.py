"""Stored results of steps, and the clock of the stages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.measurements.stages import STAGES, StageClock
from benchmarks.paths import ROOT
from benchmarks.steps import Steps
from nerd_export.data.sample import sample_texts
from nerd_onnx.stages import iterate, observe, stage


def steps(folder: Path, *, resume: bool = True, about: str = "a") -> Steps:
    return Steps(folder, {"about": about}, resume=resume, tell=lambda _: None)


def test_results_are_taken_up_and_only_those_of_the_same_settings(tmp_path: Path) -> None:
    calls: list[int] = []

    def measured() -> dict[str, int]:
        calls.append(1)
        return {"runs": len(calls)}

    assert steps(tmp_path).run("speed", measured) == {"runs": 1}
    assert steps(tmp_path).run("speed", measured) == {"runs": 1}
    assert steps(tmp_path, about="b").run("speed", measured) == {"runs": 2}
    assert steps(tmp_path, resume=False).run("speed", measured) == {"runs": 3}


def test_a_failing_step_is_named_and_not_kept(tmp_path: Path) -> None:
    def fails() -> None:
        raise OSError("disk full")

    first = steps(tmp_path)
    assert first.run("speed", fails) is None
    assert first.failed == {"speed": "OSError: disk full"}
    assert steps(tmp_path).run("speed", lambda: 1) == 1


def burn(seconds: float) -> float:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return end


def test_time_inside_another_stage_is_that_stages_own() -> None:
    clock = StageClock()

    def outer() -> None:
        burn(0.02)
        clock.run("model", lambda: burn(0.05))
        burn(0.02)

    clock.run("decode", outer)
    clock.run("write", lambda: time.sleep(0.05))
    observe(clock.run)
    try:
        list(iterate("read", (burn(0.01) for _ in range(3))))
    finally:
        observe(None)

    assert clock.seconds["decode"] == pytest.approx(0.04, abs=0.015)
    assert clock.seconds["model"] == pytest.approx(0.05, abs=0.015)
    assert clock.seconds["read"] == pytest.approx(0.03, abs=0.015)
    assert clock.seconds["write"] < 0.02  # sleeping uses no processor time


def test_an_observer_sees_each_call_of_a_stage_and_changes_no_result() -> None:
    seen: list[str] = []

    def observer(name: str, action: Callable[[], Any]) -> Any:
        seen.append(name)
        return action()

    @stage("decode")
    def divide(one: int, by: int) -> float:
        return one / by

    assert divide(6, by=2) == 3
    observe(observer)
    try:
        assert divide(6, by=2) == 3
        assert list(iterate("read", iter([1, 2]))) == [1, 2]
        with pytest.raises(ZeroDivisionError):
            divide(6, by=0)
    finally:
        observe(None)

    assert divide(6, by=2) == 3
    assert seen == ["decode", "read", "read", "read", "decode"]


@pytest.mark.slow
def test_stages_of_a_real_run_add_up(tmp_path: Path, tiny_bundle: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": sample_texts()}), source)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.measurements.stages",
            str(source),
            str(tmp_path / "o.parquet"),
            "--model",
            tiny_bundle,
        ],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'export'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)

    assert set(found["stages_s"]) == set(STAGES)
    assert all(found["stages_s"][stage] > 0 for stage in ("read", "tokenize", "model", "decode", "write"))
    assert sum(found["stages_s"].values()) == pytest.approx(found["cpu_s"], rel=0.1)
    assert pq.read_metadata(tmp_path / "o.parquet").num_rows == len(sample_texts())
