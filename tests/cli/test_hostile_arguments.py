"""Arguments that somebody may try: each is used, or refused in one line with exit code 1 or 2; never a traceback."""

from __future__ import annotations

import shutil
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.commands import Run, runner
from tests.support.marks import slow_but

SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
NAMES = {
    "300 characters": "x" * 300,
    "longer than a path may be": "xxxxxxxx/" * 600,
    "in a long folder": "y/" + "x" * 300,
    "of no user": "~nosuchuser/x",
    "link to itself": "loop",
    "below a link to itself": "loop/x",
    "not UTF-8": "a\udcff",
    "control characters": "a\x1b[31m\nb\u202e",
    "empty": "",
    "below a file": "file/x",
    "this folder": ".",
    "device": "/dev/null",
    "memory": "/proc/self/mem",
    "control": "\x01",
    "scheme": "nosuch://x/y",
    "option": "--",
}
NUMBERS = [
    "1" + "0" * 30,
    "-" + "9" * 30,
    "9" * 5000,
    "-1",
    "0",
    "nan",
    "inf",
    "1e400",
    "0x10",
    "",
    "\u0661",
    " 5 ",
    "1_0",
]
# A place is a command line in which the hostile value replaces HERE.
HERE = "HERE"
PLACES = {
    "nerd-tag": [
        ["HERE", "out.jsonl"],
        ["in.jsonl", "HERE"],
        ["in.jsonl", "tagged.jsonl", "HERE"],
        ["in.jsonl", "out.jsonl", "--model", "HERE"],
        ["in.jsonl", "out.jsonl", "--rejects", "HERE", "--on-error", "null"],
        ["in.jsonl", "out.jsonl", "--retry-rejects", "HERE"],
        ["in.jsonl", "out.jsonl", "--work-dir", "HERE"],
        ["in.jsonl", "out.jsonl", "--text-column", "HERE"],
        ["in.jsonl", "out.parquet", "--column", "HERE"],
        ["in.jsonl", "out.jsonl", "--layout", "long", "--key", "HERE"],
        ["in.jsonl", "out.jsonl", "--labels", "HERE"],
        ["in.jsonl", "out.jsonl", "--format", "HERE"],
        ["in.jsonl", "out.jsonl", "--max-memory", "HERE"],
        ["in.jsonl", "out.jsonl", "--zzz=HERE"],
    ],
    "nerd-view": [
        ["HERE", "out.html"],
        ["tagged.jsonl", "HERE"],
        ["tagged.jsonl", "out.html", "--text-column", "HERE"],
        ["tagged.jsonl", "out.html", "--column", "HERE"],
    ],
    "nerd-convert": [
        ["HERE", "out.conll", "--to", "conll"],
        *(["tagged.jsonl", "HERE", "--to", to] for to in ("conll", "brat", "long", "label-studio")),
        ["tagged.jsonl", "out.jsonl", "--to", "long", "--key", "HERE"],
        ["tagged.jsonl", "out.conll", "--to", "HERE"],
    ],
    "nerd-eval": [
        ["HERE"],
        ["gone.jsonl", "--model", "HERE"],
        ["gone.jsonl", "--output", "HERE"],
        ["gone.jsonl", "--calibrate-on", "HERE"],
        ["gone.jsonl", "--types", "HERE"],
    ],
    "nerd-export": [
        ["--model", "HERE", "--output", "out"],
        ["--model", "file", "--output", "HERE"],
        ["--model", "gone/gone/gone", "--output", "out", "--texts", "HERE"],
        ["--model", "gone/gone/gone", "--output", "out", "--notes", "HERE"],
        ["--model", "gone/gone/gone", "--output", "out", "--report", "HERE"],
        ["--model", "gone/gone/gone", "--output", "out", "--dataset", "HERE"],
        ["--model", "gone/gone/gone", "--output", "out", "--average-with", "HERE"],
        ["--check", "HERE"],
    ],
    "nerd-train": [
        ["--model", "gone/gone/gone", "--output", "HERE"],
        ["--model", "HERE", "--output", "out"],
        ["--model", "file", "--output", "out", "--teacher", "HERE"],
        ["--model", "file", "--output", "out", "--dataset", "HERE"],
        ["--model", "file", "--output", "out", "--train-file", "HERE", "--validation-file", "gone.jsonl"],
        ["--model", "file", "--output", "out", "--train-file", "gone.jsonl", "--validation-file", "HERE"],
    ],
}
NUMERIC = {
    "nerd-tag": [
        "--limit",
        "--batch-tokens",
        "--chunk-rows",
        "--max-errors",
        "--min-score",
        "--precision",
        "--max-memory",
    ],
    "nerd-view": ["--rows", "--seed"],
    "nerd-convert": ["--limit"],
}


@pytest.fixture
def command(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Return a function that runs a command in a folder with a text, its tagged form, a file and a link to itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("in.jsonl").write_text('{"text": "Anna Smith lives in Paris.", "id": 1}\n', "utf-8")
    Path("tagged.jsonl").write_text('{"text": "Anna", "id": 1, "entities": []}\n', "utf-8")
    Path("file").touch()
    Path("loop").symlink_to("loop")

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        module, _, function = SCRIPTS[name].partition(":")
        model = ["--model", tiny_bundle] if name == "nerd-tag" and "--model" not in arguments else []
        return runner(name, getattr(import_module(module), function), monkeypatch, capfd)(*model, *arguments)

    return run


def assert_one_line(name: str, result: tuple[int, str, str], value: str) -> None:
    code, _, err = result
    if code == 0:
        return
    assert code in (1, 2), (value, err)
    *notes, line = err.removesuffix("\n").split("\n")
    assert line.startswith(f"{name}: error: "), (value, err)
    assert all(note.startswith("note: ") for note in notes), (value, err)
    assert "unexpected " not in line, (value, line)
    assert "Traceback" not in err
    assert len(line) < 13_000, value


# An input, an output, a model, a column, and a place of each other command.
FAST_PLACES = [
    ("nerd-tag", 0),
    ("nerd-tag", 1),
    ("nerd-tag", 3),
    ("nerd-tag", 7),
    ("nerd-view", 1),
    ("nerd-convert", 1),
    ("nerd-export", 0),
]


@pytest.mark.parametrize(
    ("name", "place"),
    slow_but(
        [(name, PLACES[name][place]) for name, place in FAST_PLACES],
        [(name, place) for name, places in PLACES.items() for place in places],
    ),
    ids=str,
)
def test_hostile_names(name: str, place: list[str], command: Run) -> None:
    for value in NAMES.values():
        assert_one_line(name, command(name, *(part.replace(HERE, value) for part in place)), value)
        for output in Path.cwd().glob("out*"):
            output.unlink() if output.is_file() else shutil.rmtree(output)


@pytest.mark.parametrize(("name", "option"), [(name, option) for name, found in NUMERIC.items() for option in found])
def test_hostile_numbers(name: str, option: str, command: Run) -> None:
    more = {"nerd-tag": ["in.jsonl", "out.jsonl"], "nerd-view": ["tagged.jsonl", "out.html"]}
    files = more.get(name, ["tagged.jsonl", "out.conll", "--to", "conll"])
    for value in NUMBERS:
        assert_one_line(name, command(name, *files, option, value), value)
        for output in Path.cwd().glob("out*"):
            output.unlink()
