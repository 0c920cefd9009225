"""Standard streams that are closed, full or without a reader: the output decides the exit code."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.marks import slow_but
from tests.support.models import SAMPLE

SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
# Standard error as a shell gives it to a command, with its messages lost.
LOST = {"closed": "2>&-", "full": "2>/dev/full", "reader gone": "2> >(exec true)", "all closed": "<&- >&- 2>&-"}


def shell(name: str, arguments: list[object], streams: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, with its streams redirected by a shell."""
    module, _, function = SCRIPTS[name].partition(":")
    code = f"from {module} import {function} as main; main()"
    line = shlex.join([sys.executable, "-c", code, *map(str, arguments)])
    return subprocess.run(["bash", "-c", f"{line} {streams}"], capture_output=True, text=True, check=False)  # noqa: S607


@pytest.fixture(scope="module")
def tagged(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sample, tagged by a command whose messages are read."""
    path = tmp_path_factory.mktemp("tagged") / "tagged.jsonl"
    done = shell("nerd-tag", [SAMPLE, path, "--model", tiny_bundle])
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    return path


@pytest.mark.parametrize("streams", slow_but([LOST["full"]], LOST.values()), ids=LOST)
def test_lost_messages_change_neither_output_nor_exit_code(
    streams: str, tiny_bundle: Path, tagged: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    arguments = [SAMPLE, output, "--model", tiny_bundle]
    done = shell("nerd-tag", arguments, streams)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert output.read_bytes() == tagged.read_bytes()


def test_a_lost_error_still_has_its_exit_code() -> None:
    assert shell("nerd-convert", ["gone.jsonl", "out", "--to", "conll"], LOST["full"]).returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "streams"), [("nerd-view", [], "full"), ("nerd-convert", ["--to", "conll"], "all closed")]
)
def test_lost_messages_of_other_commands(
    name: str, options: list[str], streams: str, tagged: Path, tmp_path: Path
) -> None:
    done = shell(name, [tagged, tmp_path / "out", *options], LOST[streams])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out").stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "option"), [("nerd-tag", "--version"), *((name, "--help") for name in sorted(SCRIPTS))]
)
def test_help_for_a_full_device_is_one_line(name: str, option: str) -> None:
    done = shell(name, [option], ">/dev/full")
    assert done.returncode == 1
    assert done.stderr == f"{name}: error: standard output: cannot be written: No space left on device\n"


@pytest.mark.parametrize("streams", slow_but([">/dev/full"], [">/dev/full", ">&-"]))
@pytest.mark.parametrize(
    ("name", "options"), [("nerd-tag", []), ("nerd-view", []), ("nerd-convert", ["--to", "conll"])]
)
def test_standard_output_that_cannot_be_written_is_an_error(
    name: str, options: list[str], streams: str, tagged: Path, tiny_bundle: Path
) -> None:
    more = ["--model", tiny_bundle, "--column", "more"] if name == "nerd-tag" else []
    done = shell(name, [tagged, "-", *options, *more], streams)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}: error: standard output: ")
    assert done.stderr.count("\n") == 1


def test_what_a_library_prints_does_not_end_up_in_a_file(tmp_path: Path) -> None:
    code = (
        "import os\nfrom nerd_onnx.cli.streams import safe_streams\n"
        "with safe_streams(), open('out', 'w') as file:\n"
        "    os.write(2, b'noise')\n    file.write('content')\n"
    )
    command = f"{shlex.join([sys.executable, '-c', code])} 2>&-"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, check=True)  # noqa: S607
    assert (tmp_path / "out").read_text() == "content"


def test_a_sentence_on_standard_input(tiny_bundle: Path, tmp_path: Path) -> None:
    """Without --format and OUTPUT: the note goes to standard error, the row to standard output."""
    (tmp_path / "in").write_text("Angela Merkel met Emmanuel Macron in Paris.\n")
    done = shell("nerd-tag", ["-", "--model", tiny_bundle, "--min-score", 0], f"< {tmp_path / 'in'}")
    assert done.returncode == 0, done.stderr
    (row,) = map(json.loads, done.stdout.splitlines())
    assert row["text"] == "Angela Merkel met Emmanuel Macron in Paris."
    assert all(row["text"][e["start"] : e["end"]] == e["text"] for e in row["entities"])
    assert "plain text" in done.stderr.splitlines()[0]
    assert "--format" in done.stderr.splitlines()[0]

    quiet = shell("nerd-tag", ["-", "-", "--model", tiny_bundle, "--min-score", 0, "--quiet"], f"< {tmp_path / 'in'}")
    assert (quiet.stdout, quiet.stderr) == (done.stdout, "")
