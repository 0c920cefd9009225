"""The real program is killed, stopped, started twice; its output is the same, and it says what to do."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.durability.soak import soak
from tests.support import profiles
from tests.support.marks import slow_but
from tests.support.processes import Forked, command, continue_with, run_with_kills, start_and_stop, work_folder
from tests.support.runs import texts, tree, write_lines, write_parquet

KILLS = 4 if profiles.name() == "ci" else 1  # of each job; the long form is `make soak`


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the inputs: enough rows for a second of work."""
    folder = tmp_path_factory.mktemp("data")
    rows = texts(600) * 3
    write_parquet(folder / "a.parquet", rows, 400)
    write_lines(folder / "a.jsonl.gz", rows)
    for part in range(6):
        (folder / "set" / f"part={part}").mkdir(parents=True)
        write_parquet(folder / "set" / f"part={part}" / "a.parquet", rows[part * 200 :][:750], 400)
    return folder


@pytest.mark.examples
@pytest.mark.parametrize(
    ("source", "target"),
    slow_but([("a.parquet", "o.parquet")], [("a.parquet", "o.parquet"), ("a.jsonl.gz", "o.jsonl.gz"), ("set", "set")]),
)
def test_kills_at_random_moments_change_no_byte(
    tiny_bundle: Path, data: Path, tmp_path: Path, source: str, target: str
) -> None:
    (tmp_path / "whole").mkdir()
    options = ["--model", tiny_bundle, "--chunk-rows", 200]
    begin = time.monotonic()
    subprocess.run(command(data / source, tmp_path / "whole" / target, *options), check=True)
    longest_s = 0.9 * (time.monotonic() - begin)
    kills, rng = 0, random.Random(5)
    while kills < KILLS:
        out = tmp_path / f"out{kills}"
        out.mkdir(exist_ok=True)
        kills += run_with_kills(
            [data / source, out / target, *options], rng, longest_s=longest_s, most_kills=KILLS - kills
        ).kills
        assert tree(out) == tree(tmp_path / "whole")
        shutil.rmtree(out)


@pytest.mark.slow
def test_kills_of_files_and_folders_of_both_formats_with_and_without_rejected_rows(tiny_bundle: Path) -> None:
    """The long form, in short."""
    found = soak(kills=20, seconds=120, seed=7, model=str(tiny_bundle), starter=Forked)
    assert found["kills"] > 0
    assert found["different"] == 0


@pytest.mark.parametrize(
    ("number", "code"), slow_but([(signal.SIGINT, 130)], [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
)
def test_a_signal_stops_the_run_and_names_the_command_that_resumes_it(
    tiny_bundle: Path, data: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    output = tmp_path / "it's.parquet"
    process = start_and_stop(2, data / "a.parquet", output, "--model", tiny_bundle, "--chunk-rows", 150)
    err = continue_with(process, number)

    assert process.returncode == code
    assert err.count(b"\n") == 1
    going_on = err.decode().strip().partition(": nerd-tag ")[2]

    assert not output.exists()
    done = subprocess.run(
        [*command(), *shlex.split(going_on), "--json"], capture_output=True, check=True, cwd=Path.cwd()
    )
    summary = json.loads(done.stderr)

    assert summary["resumed_rows"] >= 300
    assert summary["rows"] == 1800
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.slow
def test_a_second_interrupt_stops_at_once(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.parquet"
    process = start_and_stop(2, data / "a.parquet", output, "--model", tiny_bundle, "--chunk-rows", 150)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    assert process.returncode == 130
    assert err.count(b"\n") == 1
    subprocess.run(
        command(data / "a.parquet", output, "--model", tiny_bundle, "--chunk-rows", 150, "--resume"), check=True
    )

    assert list(tmp_path.iterdir()) == [output]


def test_a_stop_as_json(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.jsonl"
    process = start_and_stop(1, data / "a.jsonl.gz", output, "--model", tiny_bundle, "--chunk-rows", 150, "--json")
    err = continue_with(process, signal.SIGTERM)
    assert process.returncode == 143
    assert json.loads(err)["error"] == "interrupted"


@pytest.mark.slow
def test_two_runs_at_one_output(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.parquet"
    arguments = [data / "a.parquet", output, "--model", tiny_bundle, "--chunk-rows", 150]
    first = start_and_stop(1, *arguments)
    for options in ([], ["--resume"], ["--overwrite"]):
        second = subprocess.run(command(*arguments, *options), capture_output=True, check=False)
        assert second.returncode == 1
        assert second.stderr.count(b"\n") == 1
        assert f"(process {first.pid} on ".encode() in second.stderr
        assert b", started 20" in second.stderr

    from_stream = subprocess.run(
        command("-", output, "--model", tiny_bundle), input=b'{"text": "a"}\n', capture_output=True, check=False
    )

    assert b"another run" in from_stream.stderr
    first.kill()
    first.communicate()

    assert work_folder(output).is_dir()
    third = subprocess.run(command(*arguments, "--resume", "--json"), capture_output=True, check=True)

    assert json.loads(third.stderr)["resumed_rows"] >= 150
    assert list(tmp_path.iterdir()) == [output]


def test_a_closed_standard_output_ends_quietly(tiny_bundle: Path, data: Path) -> None:
    script = f"{shlex.join(command(data / 'a.jsonl.gz', '-', '--model', tiny_bundle))} | head -2 | wc -l"
    done = subprocess.run(["/bin/bash", "-c", script], capture_output=True, check=True, timeout=60)
    assert done.stdout.strip() == b"2"
    assert done.stderr == b""


def test_a_stopped_stream_leaves_no_file(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    with (data / "a.jsonl.gz").open("rb") as rows:
        process = subprocess.Popen(
            command("-", tmp_path / "o.jsonl", "--model", tiny_bundle), stdin=rows, stderr=subprocess.PIPE
        )

    while not list(tmp_path.iterdir()):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode in (143, -signal.SIGTERM)  # the second: before it could be asked
    assert err.count(b"\n") <= 1
    if process.returncode == 143:
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_unusual_file_names(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    name, output = tmp_path / "-in\n\x1b[2J.parquet", tmp_path / "-o\nut.parquet"
    os.link(data / "set" / "part=0" / "a.parquet", name)
    options = ["--model", str(tiny_bundle), "--chunk-rows", "100", "--", name.name, output.name]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = start_and_stop(1, *options, cwd=tmp_path)
    err = continue_with(process, signal.SIGINT)

    assert process.returncode == 130
    assert err.count(b"\n") == 1
    assert b"\x1b" not in err

    # What it prints is what a shell reads.
    words = err.decode().strip().partition(": nerd-tag ")[2]
    script = f"printf '%s\\0' {words}"
    said = subprocess.run(["/bin/bash", "-c", script], capture_output=True, check=True).stdout.split(b"\0")
    subprocess.run(command(*map(os.fsdecode, said[:-1])), cwd=tmp_path, check=True, env=environment)

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name.name, output.name])
