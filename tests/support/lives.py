"""A run's whole life in one folder: its inputs, outputs, model and work folder, and what an undisturbed run gives."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nerd_onnx.cli.tag import main
from tests.support.damage import swap_lines
from tests.support.make_models import MODELS
from tests.support.processes import WORK
from tests.support.runs import PACKERS, at_step, in_child, kill, tree, visible, write_arrow_table

DONE_CODES = (0, 3)
# One file, and folders: different formats in subfolders, and two small files that are tagged together.
INPUTS = (
    *(["a.jsonl"], ["a.parquet"], ["a.arrow"], ["a.jsonl.gz"], ["a.jsonl.xz"], ["a.csv"], ["a.csv.bz2"]),
    *(["a.jsonl", "k=1/b.parquet", "k=2/c.jsonl"], ["a.jsonl", "b.jsonl"], ["a.csv", "b.jsonl.bz2"]),
)
# A field with values of several types, and of types that a first look at some of them would not find.
_VALUES = ("1", "2", "", "007", "-3.5", "Oslo", "true", "2020-01-31")
_NAMES = ("Anna Bell", "Rome", "the Berlin office", "Lena", "Paris", "Mount Logan", "Karl", "Oslo", "a small town", "")
_ENDS = ("met them.", "is near the sea.", "wrote to Anna.", "left in May.", "stayed.")


@dataclass(frozen=True)
class Ended:
    """
    How a command ended.

    :param code: exit code; below 0 the signal that killed the process
    :param facts: the summary or the error that ``--json`` prints; empty after a kill
    """

    code: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether the outputs are said to be whole."""
        return self.code in DONE_CODES

    @property
    def reason(self) -> str:
        """Why it was refused."""
        return f"{self.facts.get('error')}/{self.facts.get('reason')}"


def nerd_tag(*arguments: object) -> Ended:
    """
    Run the command in this process, to its end.

    :raises RuntimeError: when it says anything but one line, or gives no reason
    """
    sys.argv = ["nerd-tag", *map(str, arguments), "--json", "--threads", "1"]
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            main()
    except SystemExit as stop:
        code = stop.code

    lines = said.getvalue().splitlines()
    if not isinstance(code, int) or len(lines) != 1:
        raise RuntimeError(f"exit code {code} with {len(lines)} lines: {said.getvalue()[:2000]}")

    facts = json.loads(lines[0])
    if code not in DONE_CODES and (not facts.get("reason") or facts["reason"] in ("unknown", "unexpected")):
        raise RuntimeError(f"no reason: {facts}")

    return Ended(code, facts)


def fail_with(code: int) -> Callable[[], None]:
    """Return a function that fails as a system call does."""

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    return fail


# What may happen at a step of the disk protocol.
DISTURBANCES: dict[str, Callable[[], None]] = {
    "SIGKILL": kill,
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "disk full": fail_with(errno.ENOSPC),
    "disk error": fail_with(errno.EIO),
}


def disturbed(said: Path, step: int, what: str, *arguments: object) -> Ended:
    """
    Run the command in a child process in which something happens before a step that changes the disk.

    :param said: path for what the child says
    :param step: number of the step; in a run with fewer steps nothing happens
    :param what: one of :data:`DISTURBANCES`
    """

    def work() -> None:
        at_step(step, DISTURBANCES[what])
        ended = nerd_tag(*arguments)
        said.write_text(json.dumps([ended.code, ended.facts]))

    code = in_child(work)
    if code == -signal.SIGKILL:
        return Ended(code)

    if code:
        raise RuntimeError(f"the child ended with {code}: it printed a traceback")

    ended = Ended(*json.loads(said.read_text()))
    said.unlink()
    return ended


# -- what a run needs --------------------------------------------------------------------------------------------------


@cache
def models(folder: Path) -> dict[str, Path]:
    """Make the models of all lives: a bundle, and a plain folder whose weights are in a file of their own."""
    import onnx

    shutil.copytree(MODELS / "int8", folder / "bundle")
    plain = folder / "plain"
    shutil.copytree(MODELS / "plain", plain)

    graph = onnx.load(plain / "model.onnx")
    (plain / "model.onnx").unlink()
    onnx.save_model(graph, plain / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=64)

    return {"bundle": folder / "bundle", "plain": plain}


def rows(rng: Random, count: int) -> list[str]:
    """Make short texts, most of them different."""
    return [
        f"{rng.choice(_NAMES)} and {rng.choice(_NAMES)} {rng.choice(_ENDS)} {rng.randrange(100)}" for _ in range(count)
    ]


def write_input(path: Path, rng: Random, *, broken: int = 0) -> None:
    """
    Write an input file of a few short rows, with two columns of text and one of several types.

    :param broken: number of lines, of plain JSON Lines and CSV, that cannot be read
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    count = rng.randint(4, 14)
    bodies = [None if rng.random() < 0.2 else text for text in rows(rng, count)]

    kinds = rng.sample(_VALUES, rng.randint(1, 3))
    values = [rng.choice(kinds) for _ in range(count)]
    columns = {"id": range(count), "text": rows(rng, count), "body": bodies, "x": values}

    if path.suffix in {".parquet", ".arrow"}:
        table = pa.table({name: list(column) for name, column in columns.items()})
        if path.suffix == ".parquet":
            pq.write_table(table, path, row_group_size=5)
        else:
            write_arrow_table(path, table, 5)
        return

    is_csv = ".csv" in path.suffixes
    records = list(zip(*columns.values(), strict=True))
    lines = _csv_lines([tuple(columns), *records]) if is_csv else _json_lines(tuple(columns), records)

    for _ in range(broken if path.suffix in (".jsonl", ".csv") else 0):
        lines.insert(rng.randint(1, len(lines)), b'1,2,"3\n' if is_csv else b'{"text": \xff}\n')
    path.write_bytes(PACKERS.get(path.suffix, bytes)(b"".join(lines)))


def _csv_lines(records: Sequence[tuple[object, ...]]) -> list[bytes]:
    content = io.StringIO(newline="")
    csv.writer(content, lineterminator="\n").writerows(records)
    return content.getvalue().encode().splitlines(keepends=True)


def _json_lines(names: tuple[str, ...], records: Sequence[tuple[object, ...]]) -> list[bytes]:
    """Return rows as JSON objects, in which the last column has values of several types."""
    plain = {"": None, "true": True, "-3.5": -3.5, "1": 1, "2": [2]}
    found = []
    for *others, value in records:
        row = dict(zip(names, [*others, plain.get(str(value), value)], strict=True))
        found.append(json.dumps(row).encode() + b"\n")
    return found


def change_text(path: Path, rng: Random) -> None:
    """Change letters of one text; the file keeps its format, and plain lines their size."""
    if path.suffix not in {".jsonl", ".csv"}:
        write_input(path, rng)
        return

    content = bytearray(path.read_bytes())
    places = [i for i in range(len(content) - 3) if content[i : i + 3] == b"and"]
    if places:
        at = rng.choice(places)
        content[at : at + 3] = b"met"
        # In place: size and inode stay, so that a run must notice the change by time or content.
        with path.open("r+b") as file:
            file.write(content)


def swap_rows(path: Path, rng: Random) -> None:
    """Exchange two lines of an input; a file in another format is written again with other rows."""
    if path.suffix != ".jsonl":
        write_input(path, rng)
        return

    lines = path.read_bytes().splitlines(keepends=True)
    swap_lines(lines, rng)
    path.write_bytes(b"".join(lines))


@dataclass
class Life:
    """
    A folder with everything that belongs to a run.

    :param folder: an empty folder
    :param source: the input: a file or a folder
    :param target: the output, in a folder of its own
    :param options: the run's options
    """

    folder: Path
    source: Path
    target: Path
    options: list[str]

    @property
    def outputs(self) -> Path:
        """The folder that has nothing but outputs and the work folder."""
        return self.folder / "out"

    @property
    def model(self) -> Path:
        """The model."""
        return self.folder / "model"

    @property
    def work(self) -> Path:
        """The work folder."""
        return self.target / WORK if self.many else self.outputs / f".{self.target.name}{WORK}"

    @property
    def many(self) -> bool:
        """Whether the output is a folder."""
        return self.target.suffix == ""

    def arguments(self, options: list[str]) -> list[object]:
        """Return the arguments of ``nerd-tag``."""
        placed = [str(self.outputs / "rejects.jsonl") if part == "REJECTS" else part for part in options]
        return [self.source, self.target, "--model", self.model, *placed]

    def visible(self) -> dict[str, bytes]:
        """Return the outputs with their bytes."""
        return visible(self.outputs)

    def whole(self) -> dict[str, bytes]:
        """Return everything, inputs and model too."""
        return tree(self.folder)


class Undisturbed:
    """
    What runs give that nothing disturbs, on the inputs and the model of a life as they are now.

    :param folder: for copies
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, tuple[Ended, dict[str, bytes]]] = {}
        self.runs = 0

    def of(self, life: Life, options: list[str], only: str | None = None) -> tuple[Ended, dict[str, bytes]]:
        """
        Return how a run ends, and its outputs.

        :param only: name of the one file of an input folder to tag; None for all
        """
        # By content: a run on inputs that came back to what they were is not made again.
        key = _digest(life.source, life.model, options, life.target.name, only)
        if key not in self._known:
            self._known[key] = self._run(life, options, only)
            self.runs += 1
        return self._known[key]

    def _run(self, life: Life, options: list[str], only: str | None) -> tuple[Ended, dict[str, bytes]]:
        shutil.rmtree(self.folder, ignore_errors=True)
        again = Life(
            self.folder,
            self.folder / life.source.relative_to(life.folder),
            self.folder / life.target.relative_to(life.folder),
            options,
        )

        again.outputs.mkdir(parents=True)
        # Not copied, because a run that nothing disturbs does not change its model.
        again.model.symlink_to(life.model)

        if life.source.is_dir():
            shutil.copytree(life.source, again.source, ignore=lambda _, names: _others(names, only))
        elif life.source.exists():
            again.source.parent.mkdir(exist_ok=True)
            shutil.copyfile(life.source, again.source)

        return nerd_tag(*again.arguments(options)), again.visible()


def _others(names: list[str], only: str | None) -> list[str]:
    """Return the files to leave out."""
    return [] if only is None else [name for name in names if "." in name and name != only]


def _digest(*parts: object) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            if part.is_dir():
                files = tree(part)
            elif part.exists():
                files = {part.name: part.read_bytes()}
            else:
                files = {}
            for name, content in files.items():
                digest.update(f"{name} {len(content)} ".encode() + content)
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()
