"""
The whole life of a run, drawn by hypothesis: ``python -m tests.durability.state_machine --sequences 2000``.

A run is started, killed, stopped or failed at any step of the disk protocol, resumed with the same or with other
options, while inputs, outputs, model and work folder are changed, cut, flipped, swapped, doubled and deleted. After
each command:

- with exit code 0 or 3, all outputs are those of an undisturbed run on what is there now, byte for byte;
- otherwise it gives a reason in one line, and each output is as it was, or whole;
- ``--dry-run`` changes nothing and announces what the run then does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import ClassVar
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, currently_in_test_context, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from nerd_onnx.durability import fingerprints
from tests.support import damage
from tests.support.lives import (
    DISTURBANCES,
    INPUTS,
    Ended,
    Life,
    Undisturbed,
    change_text,
    disturbed,
    models,
    nerd_tag,
    swap_rows,
    write_input,
)
from tests.support.processes import JOURNAL

STEPS = 12  # commands and damages in a sequence
SLICE = 50  # sequences after which the long form says how far it is
END_BYTES = 100
REJECTS = "rejects.jsonl"
STEP = st.integers(3, 24)  # of the disk protocol: these runs have 15 to 90 of them
# Refusals that need the rows or the network, which a dry run does not read or start.
SEEN_WHILE_READING = ("input/", "model/", "output/results-mismatch", "output/rows-differ")
OTHER_OPTIONS = (
    *(["--limit", "7"], ["--min-score", "0.3"], ["--layout", "wide"], ["--layout", "long"], ["--offset-unit", "utf8"]),
    *(["--chunk-rows", "5"], ["--labels", "person"], ["--output-format", "jsonl"], ["--on-error", "null"]),
    *(["--on-error", "skip", "--rejects", "REJECTS"], ["--mixed", "json"], ["--text-column", "body"]),
    *(["--csv-types", "auto"], ["--csv-types", "id=int32"]),
)
ROW_DAMAGES = (change_text, swap_rows, *map(damage.keep_time, (change_text, swap_rows)))
INPUT_DAMAGES = (*damage.FILE_DAMAGES, *ROW_DAMAGES)
KINDLY = {*ROW_DAMAGES, damage.touch}  # after these, an input can still be read
OUTPUT_DAMAGES = (*damage.FILE_DAMAGES, damage.keep_time(damage.replace))
MODEL_DAMAGES = (damage.flip, damage.cut, damage.delete, damage.touch, damage.keep_time(damage.flip))
# Files of the model that stay readable whatever their bytes are. Others are for the fuzzers: they may hold any graph.
MODEL_FILES = ("weights.bin", "nerd.json", "config.json", "tokenizer.json", "tokenizer_config.json")

RANDOMS = st.randoms(use_true_random=False)


def was_started(machine: RunLife) -> bool:
    """Whether a run left anything."""
    return machine.life.work.exists() or bool(machine.life.visible())


class RunLife(RuleBasedStateMachine):
    """One run and everything around it."""

    counts: ClassVar[Counter[str]] = Counter()
    place: ClassVar[Path]  # of all lives of this process
    undisturbed: ClassVar[Undisturbed]

    life: Life
    inputs: list[Path]
    damaged: set[Path]  # inputs and the model
    model: str

    @classmethod
    def prepare(cls, place: Path) -> None:
        """Make what all lives share, in a folder."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # children are forked
        cls.place = place
        cls.undisturbed = Undisturbed(place / "undisturbed")
        cls.counts.clear()

    @initialize(
        rng=RANDOMS,
        model=st.sampled_from(["bundle", "plain"]),
        inputs=st.sampled_from(INPUTS),
        suffix=st.sampled_from([".jsonl", ".parquet", ".arrow", ".jsonl.gz", ".jsonl.xz", ".csv", ".csv.bz2"]),
        options=st.sampled_from(
            [
                *([], ["--layout", "wide"], ["--layout", "long"], ["--min-score", "0"]),
                *(["--on-error", "null"], ["--on-error", "skip", "--rejects", "REJECTS"]),
                ["--on-error", "null", "--rejects", "REJECTS"],
            ]
        ),
        # What is listed twice is drawn twice as often.
        columns=st.sampled_from([[], [], ["--text-column", "text", "--text-column", "body"]]),
        types=st.sampled_from([[], ["--csv-types", "auto"], ["--csv-types", "auto,x=int64"]]),
        mixed=st.sampled_from([["--mixed", "json"], ["--mixed", "json"], []]),
        chunk_rows=st.integers(1, 6),
    )
    def begin(
        self,
        rng: Random,
        model: str,
        inputs: list[str],
        suffix: str,
        options: list[str],
        columns: Sequence[str] = (),
        types: Sequence[str] = (),
        mixed: Sequence[str] = (),
        chunk_rows: int = 3,
    ) -> None:
        """Write inputs and model."""
        folder = self.place / "life"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "out").mkdir(parents=True)
        self.inputs = [folder / "in" / name for name in inputs]

        self.damaged, self.model = set(), model
        for path in self.inputs:
            write_input(path, rng, broken=2 if "--rejects" in options else 0)

        many = len(inputs) > 1
        source = folder / "in" if many else folder / "in" / inputs[0]
        target = folder / "out" / ("tagged" if many else f"o{suffix}")
        options = [*options, *columns, *types, *mixed, "--chunk-rows", str(chunk_rows)]
        self.life = Life(folder, source, target, options)

        self._copy_model()
        self.counts["sequences"] += 1

    # -- commands ------------------------------------------------------------------------------------------------------

    @rule(step=STEP, again=st.booleans())
    def kill(self, step: int, again: bool) -> None:  # noqa: FBT001 - hypothesis draws it
        """Run, and be killed at some step."""
        self._run_disturbed(step, "SIGKILL", again=again)

    @rule(step=STEP, what=st.sampled_from(sorted(DISTURBANCES)), again=st.booleans())
    def disturb(self, step: int, what: str, again: bool) -> None:  # noqa: FBT001 - hypothesis draws it
        """Run, and be stopped or failed at some step."""
        self._run_disturbed(step, what, again=again)

    def _run_disturbed(self, step: int, what: str, *, again: bool) -> None:
        """Resume an interrupted run, or start it again, or start a new one."""
        is_interrupted = self.life.work.exists()
        how = "--resume" if is_interrupted and not again else "--overwrite"
        options = [*self.life.options, *([how] if is_interrupted or self.life.visible() else [])]

        before, recorded = self.life.visible(), self._recorded()
        ended = disturbed(self.place / "said", step, what, *self.life.arguments(options))
        self.counts["kills" if ended.code < 0 else f"{what}, {'done' if ended.is_done else 'refused'}"] += 1
        self._check(ended, options, before, recorded)

    @rule(how=st.sampled_from([["--resume"], ["--resume"], ["--resume", "--overwrite"], ["--overwrite"], []]))
    def run(self, how: list[str]) -> None:
        """Run to the end."""
        self._run_whole([*self.life.options, *how])

    @rule(how=st.sampled_from([["--resume"], ["--overwrite"]]), other=st.sampled_from(OTHER_OPTIONS))
    def run_with_other_options(self, how: list[str], other: list[str]) -> None:
        """Run with one option that is not as it was."""
        self._run_whole([*self.life.options, *other, *how])

    def _run_whole(self, options: list[str]) -> None:
        arguments = self.life.arguments(options)
        whole = self.life.whole()

        planned = nerd_tag(*arguments, "--dry-run")
        assert self.life.whole() == whole, "the dry run changed a file"

        before, recorded = self.life.visible(), self._recorded()
        ended = nerd_tag(*arguments)
        self.counts["runs"] += 1
        self._check_plan(planned, ended)
        self._check(ended, options, before, recorded)
        assert not (ended.is_done and self.life.work.exists()), "the work folder stayed"

    def _check_plan(self, planned: Ended, ended: Ended) -> None:
        """Check that the run did what the dry run announced."""
        if not planned.is_done:
            # A dry run opens all inputs, a run only those of files that are not finished.
            is_input = planned.reason.startswith("input/") and ended.is_done and ended.facts["finished_before"] > 0
            assert is_input or not ended.is_done, f"planned {planned.facts}, ended {ended.facts}"
        elif ended.is_done:
            assert planned.facts["safe_rows"] == ended.facts["resumed_rows"], f"planned {planned}, ended {ended}"
        else:
            # That a rejects file is in the way is seen when a row was rejected.
            is_rejects = ended.reason == "output/output-exists" and ended.facts["file"].endswith("rejects.jsonl")
            assert is_rejects or ended.reason.startswith(SEEN_WHILE_READING), f"not announced: {ended.facts}"

    def _recorded(self) -> str:
        """Return the journal as text."""
        journal = self.life.work / JOURNAL
        return journal.read_text("utf-8", "replace") if journal.is_file() else ""

    def _recorded_name(self, output: str) -> str:
        """Return what a journal has in it if it records an output."""
        if output == REJECTS:
            return '"event": "rejects"'
        return output.removeprefix("tagged/") if self.life.many else self.life.source.name

    def _check(self, ended: Ended, options: list[str], before: dict[str, bytes], recorded: str) -> None:
        """Check all outputs after a command."""
        now, whole = self.life.visible(), None
        if ended.is_done:
            self.counts["done"] += 1
            expected, whole = self.undisturbed.of(self.life, options)
            for name in {*whole, *now}:
                # A run may leave an output of no input, and one that was finished before, of which nothing is recorded.
                is_kept = name in now and now[name] == before.get(name)
                is_unknown = "--overwrite" not in options and self._recorded_name(name) not in recorded
                may_differ = is_kept and (is_unknown or name not in whole)
                assert may_differ or self._is_equal(name, now, whole), (
                    f"{name} differs after exit code {ended.code}: {ended.facts}; {expected.facts}"
                )
            return

        if ended.code >= 0:
            self.counts[f"refused: {ended.reason}"] += 1
        for name, content in now.items():
            if content != before.get(name):
                whole = whole or self._whole_files(options)
                assert self._is_equal(name, now, whole), f"{name} is half-written after {ended}"
        assert set(before) <= set(now), "a refused run deleted an output"

    def _is_equal(self, name: str, now: dict[str, bytes], whole: dict[str, bytes]) -> bool:
        """
        Compare an output with that of an undisturbed run.

        The record of an unreadable input has its path, and says whether an older output was kept, which an undisturbed
        run never has.
        """
        found, expected = now.get(name), whole.get(name)
        if name != REJECTS or found is None or expected is None:
            return found == expected

        for part in (str(self.life.folder), str(self.undisturbed.folder), "; an older output was left as it is"):
            found, expected = found.replace(part.encode(), b""), expected.replace(part.encode(), b"")
        return found == expected

    def _whole_files(self, options: list[str]) -> dict[str, bytes]:
        """Return each output as an undisturbed run makes it, also if another input cannot be read."""
        _, whole = self.undisturbed.of(self.life, options)
        if self.life.many and self.life.source.is_dir():
            for path in self.life.source.rglob("*.*"):
                if path.is_file():
                    whole = {**self.undisturbed.of(self.life, options, only=path.name)[1], **whole}
        return whole

    # -- damages -------------------------------------------------------------------------------------------------------

    @precondition(was_started)
    @rule(rng=RANDOMS, change=st.sampled_from(INPUT_DAMAGES))
    def damage_input(self, rng: Random, change: damage.Change) -> None:
        """Change an input; one that may be unreadable by now is written anew."""
        path = rng.choice(self.inputs)
        if path in self.damaged:
            self.damaged.remove(path)
            change = write_input
        elif change not in KINDLY:
            self.damaged.add(path)
        self._damage(path, rng, change, "input")

    @precondition(was_started)
    @rule(rng=RANDOMS, change=st.sampled_from(OUTPUT_DAMAGES))
    def damage_output(self, rng: Random, change: damage.Change) -> None:
        """Change an output."""
        if names := sorted(self.life.visible()):
            self._damage(self.life.outputs / rng.choice(names), rng, change, "output")

    @precondition(was_started)
    @rule(rng=RANDOMS, change=st.sampled_from(MODEL_DAMAGES))
    def damage_model(self, rng: Random, change: damage.Change) -> None:
        """Change a file of the model; a changed model is put right."""
        if self.life.model in self.damaged:
            self.damaged.remove(self.life.model)
            self._copy_model()
        else:
            self.damaged.add(self.life.model)
            files = [self.life.model / name for name in MODEL_FILES]
            self._damage(rng.choice([path for path in files if path.exists()]), rng, change, "model")

    @precondition(lambda self: self.life.work.exists())
    @rule(rng=RANDOMS)
    def damage_work(self, rng: Random) -> None:
        """Damage the work folder."""
        _note(damage.damage_work_folder(self.life.work, rng))
        self.counts["damages: work folder"] += 1

    def _copy_model(self) -> None:
        shutil.rmtree(self.life.model, ignore_errors=True)
        shutil.copytree(models(self.place)[self.model], self.life.model)

    def _damage(self, path: Path, rng: Random, change: damage.Change, what: str) -> None:
        _note(f"{change.__name__}: {path.relative_to(self.life.folder)}")
        change(path, rng)
        self.counts[f"damages: {what}"] += 1


@contextmanager
def middles_without_fingerprint() -> Iterator[None]:
    """Let small inputs have a middle that is not in their fingerprint, as large ones have."""
    with patch.object(fingerprints, "END_BYTES", END_BYTES):
        yield


def _note(text: str) -> None:
    """Show a damage beside the sequence that hypothesis reports; in a sequence that is written down, nothing."""
    if currently_in_test_context():
        note(text)


def check(sequences: int, place: Path, *, shrink: bool = True) -> Counter[str]:
    """
    Draw sequences, until one of them breaks a promise.

    :param place: an empty folder
    :param shrink: look for the shortest sequence that breaks it, which takes minutes
    :return: what happened, counted
    """
    RunLife.prepare(place)
    chosen = settings(
        max_examples=sequences,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.reuse, Phase.generate, *([Phase.shrink] if shrink else [])],
        report_multiple_bugs=False,
        print_blob=True,
    )

    with middles_without_fingerprint():
        run_state_machine_as_test(RunLife, settings=chosen)
    return Counter(RunLife.counts)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=7200, help="no sequence is drawn after that")
    parser.add_argument("--no-shrink", action="store_true", help="report the first sequence that breaks a promise")
    parser.add_argument("--log", type=Path)
    asked = parser.parse_args()

    begin, counts = time.monotonic(), Counter[str]()
    while counts["sequences"] < asked.sequences and time.monotonic() - begin < asked.seconds:
        with tempfile.TemporaryDirectory(prefix="nerd-life-") as place:
            counts += check(SLICE, Path(place), shrink=not asked.no_shrink)
        sys.stderr.write(json.dumps(counts) + "\n")

    summary = {"seconds": round(time.monotonic() - begin), **dict(sorted(counts.items()))}
    text = json.dumps(summary, indent=1)
    sys.stdout.write(text + "\n")
    if asked.log:
        asked.log.write_text(text + "\n")


if __name__ == "__main__":
    main()
