"""
Damaged work folders: interrupted runs of which journal, chunks and rejected rows are changed before they are resumed.

A resumed run gives the bytes of an undisturbed one, or refuses in one line. A journal counts up to its first line that
is not the one written there. Some damages are sealed again: their lines have valid hashes, as only a person can write
them. Then the run may believe them, but it still ends in one line.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import Any

from nerd_onnx.durability.journal import read_progress
from nerd_onnx.errors import NerdError
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.run import tag_files
from tests.support.damage import LINE_DAMAGES, damage_work_folder, mutated
from tests.support.journals import sealed_line
from tests.support.lives import write_input
from tests.support.processes import JOURNAL, WORK, work_folder
from tests.support.quick_tagger import quick_tagger
from tests.support.runs import at_step, in_child, kill, visible

CASES_PER_RUN = 1000  # so many damages of one interrupted run
REJECTS = "rejects.jsonl"

Facts = tuple[object, ...]


@dataclass(frozen=True)
class Interrupted:
    """
    A run that was killed.

    :param folder: what it left, in ``out``; its inputs, in ``in``
    :param source: its input
    :param target: its output
    :param options: fields of its job
    :param expected: the outputs of an undisturbed run
    :param lines: its journal
    :param progress: what the journal says is done, after none, one, two and all of its lines
    """

    folder: Path
    source: Path
    target: Path
    options: dict[str, Any]
    expected: dict[str, bytes] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    progress: list[Facts] = field(default_factory=list)

    def job(self, out: Path, **options: Any) -> TagJob:
        """Return its job, with the outputs in another folder."""
        chosen = {**self.options, **options}
        if "on_error" in chosen:
            chosen["rejects"] = str(out / REJECTS)
        return TagJob([str(self.source)], str(out / self.target.name), **chosen)

    @property
    def work(self) -> Path:
        """Its work folder."""
        return work_folder(self.target)


def interrupted(tagger: Tagger, folder: Path, rng: Random) -> Interrupted:
    """
    Make an interrupted run: a file or a folder, Parquet or JSON Lines, killed at a random step.

    :param folder: where; replaced if it is there
    """
    shutil.rmtree(folder, ignore_errors=True)

    names = rng.choice(
        (["a.jsonl"], ["a.parquet"], ["a.jsonl", "k=1/b.parquet", "k=2/c.jsonl"], ["a.jsonl", "b.jsonl"])
    )
    is_lenient = rng.random() < 0.5
    for name in names:
        write_input(folder / "in" / name, rng, broken=2 if is_lenient else 0)

    many = len(names) > 1
    run = Interrupted(
        folder,
        folder / "in" if many else folder / "in" / names[0],
        folder / "out" / ("tagged" if many else rng.choice(("o.jsonl", "o.parquet"))),
        {"chunk_rows": rng.randint(1, 4), "mixed": "json", **({"on_error": "skip"} if is_lenient else {})},
    )

    (folder / "whole").mkdir()
    tag_files(tagger, run.job(folder / "whole"))

    step = rng.randint(6, 60)
    # A short run ends before its step, and nothing of it is left to damage: then an earlier step is tried.
    while not (run.work / JOURNAL).is_file():
        shutil.rmtree(folder / "out", ignore_errors=True)
        (folder / "out").mkdir()

        def killed(step: int = step) -> None:
            at_step(step, kill)
            tag_files(tagger, run.job(folder / "out"))

        in_child(killed)
        step = step * 2 // 3

    lines = (run.work / JOURNAL).read_bytes().splitlines(keepends=True)
    progress = [progress_of(folder / "lines", lines[:count]) for count in range(len(lines) + 1)]
    return replace(run, expected=visible(folder / "whole"), lines=lines, progress=progress)


def progress_of(path: Path, lines: list[bytes]) -> Facts:
    """Return what lines of a journal say is done. ``path`` is for a file."""
    path.write_bytes(b"".join(lines))
    found = read_progress(str(path))
    return (found.header, found.finished, found.unfinished, found.chunks, found.commit, found.rejects)


def copied(run: Interrupted, scratch: Path) -> Path:
    """Copy what a run left; the outputs keep their inodes, by which a journal knows them."""
    out = scratch / "out"
    shutil.rmtree(out, ignore_errors=True)
    for path in sorted((run.folder / "out").rglob("*")):
        copy = out / path.relative_to(run.folder / "out")
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            # Links, because a journal knows a finished output by its inode; copies of the work folder, because a damage
            # writes into files.
            shutil.copy2(path, copy) if WORK in str(path) else os.link(path, copy)
    return out


def sealed(lines: list[bytes]) -> list[bytes]:
    """Return lines of a journal with numbers and hashes that fit their places; a line that is no event stays."""
    previous, found = "", []
    for number, line in enumerate(lines):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            found.append(line)
            continue

        event.pop("hash", None)
        again, previous = sealed_line({**event, "number": number} if "number" in event else event, previous)
        found.append(again)
    return found


class WorkFolders:
    """
    The two targets of the fuzzers.

    :param folder: for runs and copies
    """

    def __init__(self, folder: Path) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the interrupted runs are forked
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._tagger = quick_tagger()
        self._runs: tuple[int, Interrupted] | None = None

    def run_of(self, seed: int) -> Interrupted:
        """Return an interrupted run; neighbouring seeds share one."""
        number = seed // CASES_PER_RUN
        if self._runs is None or self._runs[0] != number:
            self._runs = number, interrupted(self._tagger, self._folder / "run", Random(number))
        return self._runs[1]

    def journal(self, run: Interrupted, rng: Random) -> str:
        """
        Damage a journal, and read it.

        :return: what came of it
        :raises AssertionError: when more of it counts than what is there as it was written
        """
        original = run.lines
        lines = list(original)
        for _ in range(rng.randint(1, 3)):
            if rng.random() < 0.15 or not lines:
                lines = mutated(b"".join(lines), rng).splitlines(keepends=True)
            else:
                rng.choice(LINE_DAMAGES)(lines, rng)

        is_sealed = rng.random() < 0.3
        progress = progress_of(self._folder / JOURNAL, sealed(lines) if is_sealed else lines)
        if is_sealed:
            return "sealed again, read"

        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(lines, original, strict=False)))
        assert progress == run.progress[same], "a damaged journal counts for more or less"
        return "read"

    def work_folder(self, run: Interrupted, rng: Random) -> str:
        """
        Damage the work folder of a run, and resume it.

        :return: what came of it
        :raises AssertionError: when the outputs differ from those of an undisturbed run
        """
        out = copied(run, self._folder)

        work = work_folder(out / run.target.name)
        for _ in range(rng.randint(1, 3)):
            if work.is_dir():
                damage_work_folder(work, rng)

        is_sealed = rng.random() < 0.2 and (work / JOURNAL).is_file()
        if is_sealed:
            (work / JOURNAL).write_bytes(b"".join(sealed((work / JOURNAL).read_bytes().splitlines(keepends=True))))

        before, is_left, refusal = visible(out), work.is_dir(), None
        try:
            report = tag_files(self._tagger, run.job(out, resume=True))
        except NerdError as err:
            refusal = err

        if refusal is not None:
            assert len(str(refusal).splitlines()) == 1, f"an error of several lines: {refusal}"
            assert refusal.reason != "unknown", f"an error without a reason: {refusal}"
            made = {name: content for name, content in visible(out).items() if content != before.get(name)}
            assert made.items() <= run.expected.items() or is_sealed, "a refused run left a half-written output"
            return f"refused: {refusal.reason}"

        if is_sealed:
            return "sealed again, done"

        made, expected = visible(out), dict(run.expected)
        if not is_left:  # the rejected rows of finished files were in it, and nothing says that they were
            made.pop(REJECTS, None)
            expected.pop(REJECTS, None)

        assert made == expected, f"other outputs after {report}"
        assert not work.exists(), "the work folder stayed"
        return "done"
