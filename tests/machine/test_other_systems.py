"""
The program on systems that lack what Linux has: the same outputs, after kills too, and nothing left behind.

There is neither Windows nor macOS here. ``tests/support/other_system.py`` takes their missing functions away.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from nerd_onnx.machine import system as this_system
from tests.conftest import ROOT
from tests.support.marks import slow_but
from tests.support.processes import JOURNAL, command, continue_with, start_and_stop, work_folder
from tests.support.runs import texts, write_arrow, write_csv, write_lines, write_parquet

SYSTEMS = ("macos", "windows", "bare")
WRITERS: dict[str, Callable[[Path, list[str]], Path]] = {
    ".parquet": write_parquet,
    ".jsonl.gz": write_lines,
    ".csv": write_csv,
    ".arrow": write_arrow,
}
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}


def on(system: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Start ``nerd-tag`` with one thread, as on another system."""
    line = [sys.executable, "-m", "tests.support.other_system", system, *map(str, arguments)]
    return subprocess.Popen(line, stderr=subprocess.PIPE, env=ENVIRONMENT, cwd=ROOT)


def summary(process: subprocess.Popen[bytes]) -> dict[str, object]:
    """Wait for the end of a run with ``--json``, which must succeed, and return its summary."""
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    found: dict[str, object] = json.loads(err)
    return found


def here(*arguments: object) -> None:
    subprocess.run(command(*arguments), check=True, env=ENVIRONMENT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "suffix"),
    slow_but([("macos", ".parquet"), ("windows", ".jsonl.gz")], [*product(SYSTEMS, WRITERS)]),
)
def test_a_run_that_is_killed_and_resumed_writes_the_bytes_of_this_system(
    tiny_bundle: Path, tmp_path: Path, system: str, suffix: str
) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    source = WRITERS[suffix](tmp_path / f"in{suffix}", texts(400))
    output, expected = folder / f"out{suffix}", tmp_path / f"expected{suffix}"
    arguments = [source, output, "--model", tiny_bundle, "--chunk-rows", 40, "--json"]

    first = start_and_stop(2, *arguments, system=system)
    first.kill()
    first.communicate()

    # A torn line, as a crash leaves one: the journal is written again.
    with (work_folder(output) / JOURNAL).open("ab") as journal:
        journal.write(b'{"event": "chu')

    assert int(str(summary(on(system, *arguments, "--resume"))["resumed_rows"])) >= 80
    here(source, expected, "--model", tiny_bundle)
    assert output.read_bytes() == expected.read_bytes()
    assert [path.name for path in folder.iterdir()] == [output.name]


@pytest.mark.slow
@pytest.mark.parametrize("system", slow_but(["windows"], SYSTEMS))
def test_an_output_is_replaced_only_when_asked(tiny_bundle: Path, tmp_path: Path, system: str) -> None:
    source, output = write_parquet(tmp_path / "in.parquet", texts(20)), tmp_path / "out.parquet"
    output.write_bytes(b"before")
    output.chmod(0o640)
    arguments = [source, output, "--model", tiny_bundle, "--json"]

    refused = on(system, *arguments)
    _, err = refused.communicate(timeout=60)
    assert json.loads(err)["reason"] == "output-exists"
    assert output.read_bytes() == b"before"

    summary(on(system, *arguments, "--overwrite"))
    assert output.read_bytes()[:4] == b"PAR1"


@pytest.mark.slow
@pytest.mark.parametrize("system", slow_but(["windows"], ["macos", "windows"]))
def test_a_second_run_is_refused_where_the_system_has_locks(tiny_bundle: Path, tmp_path: Path, system: str) -> None:
    source, output = write_parquet(tmp_path / "in.parquet", texts(400)), tmp_path / "out.parquet"
    arguments = [source, output, "--model", tiny_bundle, "--chunk-rows", 40, "--json"]

    first = start_and_stop(1, *arguments, system=system)
    second = on(system, *arguments, "--resume")
    _, err = second.communicate(timeout=60)
    first.send_signal(signal.SIGCONT)

    refused = json.loads(err)
    assert refused["reason"] == "busy"
    assert f"process {first.pid} " in refused["message"]
    summary(first)


@pytest.mark.slow
@pytest.mark.parametrize("system", slow_but(["windows"], SYSTEMS))
def test_a_signal_stops_a_run_that_can_be_resumed(tiny_bundle: Path, tmp_path: Path, system: str) -> None:
    source, output = write_parquet(tmp_path / "in.parquet", texts(400)), tmp_path / "out.parquet"
    arguments = [source, output, "--model", tiny_bundle, "--chunk-rows", 40, "--json"]

    stopped = start_and_stop(1, *arguments, system=system)
    err = continue_with(stopped, signal.SIGINT)

    assert stopped.returncode == 130
    assert json.loads(err.splitlines()[-1])["error"] == "interrupted"
    assert int(str(summary(on(system, *arguments, "--resume"))["resumed_rows"])) >= 40


@pytest.mark.parametrize("encoding", slow_but(["cp1252"], ["ascii", "cp1252", "cp932"]))
def test_a_console_that_cannot_show_a_name_gets_escapes(tmp_path: Path, encoding: str) -> None:
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(
        command(tmp_path / "né→名.parquet", tmp_path / "x.parquet"), capture_output=True, check=False, env=environment
    )
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"no such file" in done.stderr

    shown = subprocess.run(command("--help"), capture_output=True, check=True, env=environment)
    assert b"--resume" in shown.stdout


def test_bytes_at_an_offset_without_pread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pread")
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"0123456789")
        file.seek(3)
        assert this_system.read_at(file.fileno(), 4, 5) == b"5678"
        assert this_system.read_at(file.fileno(), 4, 9) == b"9"
        assert file.tell() == 3
