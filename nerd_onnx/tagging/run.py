"""A run over one file or many: locked, journaled, stopped and gone on with."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from contextlib import ExitStack, closing

from nerd_onnx.durability.journal import Event, Journal
from nerd_onnx.durability.work_folder import WorkFolder
from nerd_onnx.errors import InputError, InterruptedRunError, NerdError
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.output_place import make_folder_for
from nerd_onnx.storage.remote import exists
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.checks import check_job
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.file_run import FileRun, OnBatch, RunState, Stop
from nerd_onnx.tagging.finished_outputs import is_file, was_committed
from nerd_onnx.tagging.job import TagJob, TagReport, Totals
from nerd_onnx.tagging.job_fingerprint import facts_of
from nerd_onnx.tagging.previous_runs import entered, is_finished
from nerd_onnx.tagging.rejects_file import gathered, rejected_rows
from nerd_onnx.tagging.small_files import ReadAhead


def tag_files(tagger: Tagger, job: TagJob, on_batch: OnBatch | None = None, stop: Stop | None = None) -> TagReport:
    """
    Tag files: the same rows in the same order, all other columns as they were, and the new one.

    Each output appears whole or not at all. Memory depends on the batch, not on the file. What is done when the
    process dies or is stopped is gone on with by the same job with ``resume``, to the same bytes.

    :param on_batch: called after every batch that was written
    :param stop: asked after every batch; the number of a signal ends the run, with its work safe
    :raises InputError: when an input cannot be read as asked
    :raises OutputError: when an output cannot be written as asked, or another run is at it
    :raises InterruptedRunError: when it was asked to stop
    """
    check_job(job)
    wanted = rejected_rows(job.retry_rejects) if job.retry_rejects is not None else None
    with ExitStack() as stack:
        work = journal = None
        if job.many or is_file(job.pairs[0].output):
            work = stack.enter_context(WorkFolder(job.output, many=job.many, stores_folder=job.work_dir))
            journal = work.begin(facts_of(tagger, job), resume=job.resume, overwrite=job.overwrite)
        scratch = work.path if work else stack.enter_context(tempfile.TemporaryDirectory(prefix="nerd-"))
        state = RunState(tagger, job, scratch, journal, TagReport(), wanted, on_batch, stop)
        try:
            return _Run(state, work).run()
        except NerdError as err:
            raise _with_hint(err, work.safe_rows if work else 0) from err.__cause__


def _with_hint(err: NerdError, safe_rows: int) -> NerdError:
    """Say in an error how many rows need not be tagged again."""
    if isinstance(err, InterruptedRunError):
        return InterruptedRunError(err.number, safe_rows)
    if safe_rows:
        err.args = (f"{err} ({safe_rows} rows are safe: continue with --resume)",)
        err.fields["safe_rows"] = safe_rows
    return err


class _Run:
    """
    One run over its files.

    :param state: what they share
    :param work: the work folder, None where the output is a stream
    """

    def __init__(self, state: RunState, work: WorkFolder | None) -> None:
        self._state = state
        self._work = work
        self._begin = time.perf_counter()
        self._parts: dict[str, str] = {}

    def run(self) -> TagReport:
        """Do what is not done yet, and leave nothing but the outputs."""
        pairs = self._ordered()
        with closing(ReadAhead(self._state.tagger, self._state.job, pairs, self._is_worth_reading_ahead)) as ahead:
            for number, pair in enumerate(pairs):
                journal = self._state.journal
                if journal is None or not self._is_done(journal, pair):
                    if self._state.job.many:
                        make_folder_for(pair.output)
                    tag_stream = ahead.tag_stream_of(number)
                    self._keep_part(pair, FileRun(self._state, pair, self._part_of(pair), tag_stream).run())
                self._state.report.seconds = time.perf_counter() - self._begin
        self._require_one_readable()
        self._write_rejects()
        if self._work is not None:
            self._work.remove()
        self._state.report.seconds = time.perf_counter() - self._begin
        return self._state.report

    def _require_one_readable(self) -> None:
        """Refuse a run in which no file could be read: then it is the options that are wrong, most likely."""
        report = self._state.report
        if report.refused_files and not report.files and not report.finished_before:
            if self._work is not None:
                self._work.remove()
            raise InputError(
                f"none of the {report.refused_files} files can be read; the first: {self._state.refusal}",
                reason="no-readable-file",
                found=report.refused_files,
            )

    def _ordered(self) -> list[FilePair]:
        """Order the files: the one that was begun comes first, for its chunks are there."""
        pairs = self._state.job.pairs
        if self._state.wanted is not None:
            pairs = [pair for pair in pairs if pair.name in self._state.wanted]
            if not pairs:
                raise InputError(
                    f"{input_name(self._state.job.retry_rejects or '')}: names no row of the input; it names "
                    f"{', '.join(map(input_name, self._state.wanted)) or 'nothing'}",
                    reason="rejects-of-other-input",
                    file=input_name(self._state.job.retry_rejects or ""),
                    option="--retry-rejects",
                )
        journal = self._state.journal
        return sorted(pairs, key=lambda pair: journal is None or journal.progress.begun(pair.name) is None)

    def _is_worth_reading_ahead(self, pair: FilePair) -> bool:
        """Tell whether a file is one of several that are tagged whole, and is most likely not done."""
        state = self._state
        if len(state.job.pairs) == 1 or state.wanted is not None:
            return False
        finished = state.journal is not None and pair.name in state.journal.progress.finished
        return not finished and (state.overwrites or not exists(pair.output))

    def _is_done(self, journal: Journal, pair: FilePair) -> bool:
        """Tell whether an output is finished, by this run or by one before."""
        state, progress = self._state, journal.progress
        done = entered(pair, progress, state.job.on_error)
        if done is not None:
            if pair.name not in progress.finished:
                journal.append(**{**done, "event": "done"})
            self._take_finished(pair, done)
            return True
        if is_finished(pair, progress, state.metadata, overwrites=state.overwrites):
            state.report.finished_before += 1
            return True
        return False

    def _take_finished(self, pair: FilePair, done: Event) -> None:
        """Count a file that the journal says is done."""
        totals, report = Totals(**done["totals"]), self._state.report
        report.add(totals)
        report.resumed_rows += totals.rows
        report.resumed_tokens += totals.tokens
        report.files += 1
        self._keep_part(pair, done["rejects"])

    def _part_of(self, pair: FilePair) -> str:
        name = hashlib.sha256(os.fsencode(pair.name)).hexdigest()[:32]
        return os.path.join(self._state.scratch, f"rejects-{name}.jsonl")

    def _keep_part(self, pair: FilePair, part: str | None) -> None:
        if part is not None:
            self._parts[pair.name] = part

    def _write_rejects(self) -> None:
        """Put the rejects of all files into the one that was asked for; without any, make none."""
        path, journal = self._state.job.rejects, self._state.journal
        if path is None or not self._parts:
            return
        if journal is not None and journal.progress.rejects and was_committed(path, journal.progress.rejects):
            return
        parts = [self._parts[name] for name in sorted(self._parts)]
        target = gathered(path, parts, overwrite=self._state.overwrites, scratch=self._state.scratch)
        try:
            size, identity = target.flush()
            if journal is not None:
                journal.append("rejects", size=size, identity=identity)
            target.commit()
        finally:
            target.discard()
