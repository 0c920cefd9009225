"""What all commands of both packages have in common: their help, and one line for a mistake."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

import click
import pytest

from nerd_onnx.cli.grouped_help import GroupedCommand
from nerd_onnx.cli.tag import main
from tests.conftest import ROOT
from tests.support.commands import runner

SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]


@pytest.fixture(params=sorted(SCRIPTS))
def name(request: pytest.FixtureRequest) -> str:
    """Return each command's name."""
    return str(request.param)


def run(
    name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    module, _, function = SCRIPTS[name].partition(":")
    return runner(name, getattr(import_module(module), function), monkeypatch, capfd)(*arguments)


def test_help_is_short_and_long(name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(name, ["-h"], monkeypatch, capfd)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: {name} [OPTIONS]")
    assert out == run(name, ["--help"], monkeypatch, capfd)[1]


def command_of(name: str) -> click.Command:
    module = import_module(SCRIPTS[name].partition(":")[0])
    return next(one for one in vars(module).values() if isinstance(one, click.Command) and one.name == name)


def test_every_option_has_help(name: str) -> None:
    options = [one for one in command_of(name).params if isinstance(one, click.Option)]
    assert options
    assert [option.opts for option in options if not option.help] == []


@pytest.mark.parametrize("name", ["nerd-tag", "nerd-train", "nerd-export"])
def test_help_lists_every_option_once_under_the_headings(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    command = command_of(name)
    assert isinstance(command, GroupedCommand)
    names = [max(one.opts, key=len) for one in command.params if isinstance(one, click.Option)]
    assert set(command.headings) <= set(names)

    lines = run(name, ["--help"], monkeypatch, capfd)[1].splitlines()
    shown = [line[:-1] for line in lines if line.endswith(":") and line[:1].strip()]
    assert shown == list(command.headings.values())
    lists = lines[lines.index(f"{shown[0]}:") :]  # a line of the text above them may begin with an option too
    assert [line.split()[0] for line in lists if line.startswith("  --")] == names


def test_a_heading_ends_where_the_next_one_begins() -> None:
    options = [click.Option([name], help="...") for name in ("--first", "--red", "--green", "--last")]
    paths = click.Argument(["paths"])
    hidden = click.Option(["--secret"], hidden=True)
    headings = {"--red": "Colours", "--last": "Other"}
    command = GroupedCommand("try", params=[paths, *options, hidden], headings=headings)

    assert command.get_help(click.Context(command, info_name="try")).partition("PATHS\n")[2].split() == [
        *("Options:", "--first", "TEXT", "..."),
        *("Colours:", "--red", "TEXT", "...", "--green", "TEXT", "..."),
        *("Other:", "--last", "TEXT", "...", "--help", "Show", "this", "message", "and", "exit."),
    ]


def test_a_wrong_option_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(name, ["--zzz"], monkeypatch, capfd)
    assert (code, out) == (2, "")
    assert err == f"{name}: error: No such option '--zzz'. ({name} --help lists the options)\n"


MISTAKES = {
    "nerd-tag": (["gone.parquet", "o.parquet"], "gone.parquet"),
    "nerd-view": (["gone.parquet"], "gone.parquet"),
    "nerd-convert": (["gone.parquet", "o.conll", "--to", "conll"], "gone.parquet"),
    "nerd-train": (["--output", "file/x"], "file/x"),
    "nerd-export": (["--model", ".", "--output", "o", "--texts", "gone.txt"], "gone.txt"),
    "nerd-eval": (["gone.parquet"], "gone.parquet"),
}


def test_another_mistake_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    arguments, message = MISTAKES[name]
    code, out, err = run(name, arguments, monkeypatch, capfd)
    assert (code, out) == (1, "")
    assert err.startswith(f"{name}: error: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_missing_choice_names_the_choices_in_its_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run("nerd-convert", ["a", "b"], monkeypatch, capfd)
    assert code == 2
    assert err.startswith("nerd-convert: error: Missing option '--to'. Choose from: conll, brat, label-studio, ")
    assert err.count("\n") == 1
    assert "\\" not in err


@pytest.mark.parametrize(("paths", "missing"), [([], "INPUT..."), (["a.jsonl"], "OUTPUT")])
def test_the_path_that_is_missing_is_named(
    paths: list[str], missing: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _, err = runner("nerd-tag", main, monkeypatch, capfd)(*paths)
    assert (code, err) == (2, f"nerd-tag: error: Missing argument '{missing}'. (nerd-tag --help lists the options)\n")


@pytest.mark.parametrize(
    ("name", "arguments", "variable", "value", "message"),
    [
        (
            "nerd-train",
            ["--output", "o", "--model", "."],
            "NERD_TRAIN_TEACHER",
            "./a ./b",
            "--teacher ./a: no such folder",
        ),
        ("nerd-train", ["--output", "o", "--model", "."], "NERD_TRAIN_TIER_WEIGHT", "A=1 B=x", "'B=x': expected TIER"),
        (
            "nerd-train",
            ["--output", "o", "--model", ".", "--validation-file", "b.jsonl"],
            "NERD_TRAIN_TRAIN_FILE",
            "gone.jsonl",
            "gone.jsonl",
        ),
        (
            "nerd-export",
            ["--output", "o", "--model", "."],
            "NERD_EXPORT_AVERAGE_WITH",
            "./gone",
            "with ./gone: ",
        ),
        ("nerd-eval", ["gone.jsonl"], "NERD_EVAL_MODEL", "./gone", "gone: "),
        ("nerd-tag", ["a.x", "o.x"], "NERD_FORMAT", "xml", "'xml' is not one of"),
        ("nerd-convert", ["a.x", "o.x", "--to", "conll"], "NERD_CONVERT_FORMAT", "xml", "'xml' is not one of"),
    ],
)
def test_each_option_has_an_environment_variable(
    name: str,
    arguments: list[str],
    variable: str,
    value: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    without = run(name, arguments, monkeypatch, capfd)[2]
    monkeypatch.setenv(variable, value)
    code, _, err = run(name, arguments, monkeypatch, capfd)
    assert code in (1, 2)
    assert message in err
    assert message not in without


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("nerd-tag", "--model"),
        *(("nerd-train", option) for option in ("--model", "--dataset", "--teacher")),
        *(("nerd-export", option) for option in ("--model", "--average-with", "--check", "--dataset")),
        *(("nerd-eval", option) for option in ("--model", "--against")),
    ],
)
def test_the_shell_completes_folders(
    name: str, option: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"_{name.upper().replace('-', '_')}_COMPLETE", "zsh_complete")
    monkeypatch.setenv("COMP_WORDS", f"{name} {option} my-")
    monkeypatch.setenv("COMP_CWORD", "2")
    code, out, _ = run(name, [], monkeypatch, capfd)
    assert (code, out) == (0, "dir\nmy-\n_\n")
