"""The boundary of all commands: whatever is raised inside of one becomes one line and an exit code."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import click
import pyarrow as pa
import pytest

from nerd_onnx import interruption
from nerd_onnx.cli.common import run_command, settings
from nerd_onnx.errors import InputError, NerdError, OutputError, UnexpectedError
from nerd_onnx.storage.input_stream import check_readable
from nerd_onnx.storage.location import Location
from nerd_onnx.tagging.checks import check_job
from nerd_onnx.tagging.job import TagJob
from tests.conftest import ROOT
from tests.support.commands import Run, runner
from tests.support.failures import fails, failure_of
from tests.support.models import SAMPLE


class PanicError(BaseException):
    """Like the panic of a Rust library: no Exception."""


def fails_with(
    err: BaseException, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Run a command that raises an exception; return exit code, stdout and stderr."""

    @click.command("nerd-test", context_settings=settings("NERD_TEST"))
    def command() -> NoReturn:
        raise err

    return runner("nerd-test", lambda: run_command(command), monkeypatch, capfd)()


UNEXPECTED = [
    MemoryError(),
    pa.ArrowMemoryError("malloc of size 123 failed"),
    RuntimeError("can't start new thread"),
    RecursionError("maximum recursion depth exceeded"),
    OverflowError("Python int too large to convert to C ssize_t"),
    EOFError("cut"),
    OSError(5, "Input/output error", "file"),
    ValueError("one line\nand another one"),
    KeyError("x" * 1_000_000),
    PanicError("index out of bounds"),
]


@pytest.mark.parametrize("err", UNEXPECTED, ids=lambda err: type(err).__name__)
def test_an_unexpected_exception_is_one_line(
    err: BaseException, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, stderr = fails_with(err, monkeypatch, capfd)
    assert (code, out) == (1, "")
    line = stderr.strip("\n")
    assert line.startswith(f"nerd-test: error: unexpected {type(err).__name__}: ")
    assert "\n" not in line
    assert "NERD_DEBUG=1" in line
    assert len(line) < 2200


def test_the_traceback_is_printed_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NERD_DEBUG", "1")
    code, _, err = fails_with(ValueError("inside"), monkeypatch, capfd)
    assert code == 1
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1].startswith("nerd-test: error: unexpected ValueError: inside; ")


def test_control_c_is_no_error(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = fails_with(KeyboardInterrupt(), monkeypatch, capfd)
    assert (code, err) == (130, "\nnerd-test: interrupted. No output was written.\n")


def test_an_error_of_a_library_that_a_signal_met_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    @click.command("nerd-test", context_settings=settings("NERD_TEST"))
    def command() -> NoReturn:
        try:
            interruption.signalled(signal.SIGTERM)
        except KeyboardInterrupt:  # so do modules in C whose import it ends
            raise ImportError("initialization failed") from None
        raise AssertionError

    interruption.begin()
    try:
        found = runner("nerd-test", lambda: run_command(command), monkeypatch, capfd)()
    finally:
        interruption.begin()
    assert found == (143, "", "nerd-test: interrupted. No output was written.\n")


@pytest.mark.parametrize("code", [0, 3])
def test_an_exit_code_is_passed_on(
    code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fails_with(SystemExit(code), monkeypatch, capfd) == (code, "", "")


def test_a_reader_that_is_gone_is_no_message(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fails_with(BrokenPipeError(32, "Broken pipe"), monkeypatch, capfd) == (1, "", "")


def test_messages_and_fields_are_bounded() -> None:
    err = InputError("begin " + "\n" * 1_000_000 + " end", reason="x", found="y" * 1_000_000, row=3)
    assert len(str(err)) < 2100
    assert str(err).startswith("begin ")
    assert str(err).endswith(" end")
    assert "1,998,010 characters left out" in str(err)
    assert len(str(err.fields["found"])) < 2100
    assert err.fields["row"] == 3
    assert str(InputError("x" * 2000, reason="x")) == "x" * 2000


def test_a_long_argument_makes_a_bounded_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from nerd_onnx.cli.tag import main

    run: Run = runner("nerd-tag", main, monkeypatch, capfd)
    for arguments in (["--" + "z" * 100_000], ["--limit", "9" * 100_000, "a", "b"], ["x" * 100_000, "o"]):
        code, _, err = run(*arguments, "--json")
        assert code in (1, 2)
        assert len(err) < 9000
        assert all(len(str(value)) < 2200 for value in failure_of(err).values())


@pytest.mark.parametrize("option", ["--limit", "--chunk-rows", "--batch-tokens", "--max-errors", "--threads"])
def test_a_number_no_list_can_have_is_an_error_of_usage(
    option: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from nerd_onnx.cli.tag import main

    code, _, err = runner("nerd-tag", main, monkeypatch, capfd)("a", "b", option, 10**30, "--json")
    failure = failure_of(err)
    assert (code, failure["error"], failure["reason"], failure["option"]) == (2, "usage", "bad-parameter", option)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "x/" * 3000 + "x", "loop", "loop/x"])
def test_names_that_the_system_refuses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with fails(InputError, "cannot-read"):
        check_readable(Location.of(name))
    with fails(InputError, "cannot-read"):
        check_job(TagJob([name], "out.jsonl"))
    with fails(InputError, "cannot-read"):
        check_job(TagJob([str(SAMPLE)], "out.jsonl", retry_rejects=name))
    with fails(OutputError, "cannot-write"):
        check_job(TagJob([str(SAMPLE)], "out.jsonl", rejects=name, on_error="null"))
    with pytest.raises(NerdError):
        check_job(TagJob([str(SAMPLE)], name))


def test_a_model_behind_a_closed_folder_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "closed" / "model").mkdir(parents=True)
    (tmp_path / "closed").chmod(0)
    code = (
        "import os, sys\nfrom nerd_onnx.errors import ModelError\n"
        "from nerd_onnx.inference.remote_bundle import load_bundle\n"
        "if os.geteuid() == 0:\n    os.setuid(65534)\n"
        "try:\n    load_bundle(sys.argv[1])\nexcept ModelError as err:\n    print(err.reason, err)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "closed" / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    (tmp_path / "closed").chmod(0o700)
    assert done.stdout.startswith("cannot-read ")
    assert "ermission denied" in done.stdout


@pytest.mark.parametrize(
    ("kind", "limit"), [(resource.RLIMIT_AS, 150 << 20), (resource.RLIMIT_AS, 350 << 20), (resource.RLIMIT_NOFILE, 7)]
)
def test_a_limit_of_the_system_ends_in_one_line(kind: int, limit: int, tiny_bundle: Path, tmp_path: Path) -> None:
    """Below these limits the libraries cannot be loaded, or the network cannot; nothing is written."""
    command = [sys.executable, "-m", "nerd_onnx.cli", str(SAMPLE), str(tmp_path / "out.jsonl"), "--json"]
    done = subprocess.run(
        [*command, "--model", str(tiny_bundle)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(kind, (limit, limit)),
    )
    # OpenBLAS, onnxruntime or this program says it, whichever asks for more first.
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_the_category_of_unexpected_errors() -> None:
    assert (UnexpectedError.code, UnexpectedError.exit_code) == ("unexpected", 1)
