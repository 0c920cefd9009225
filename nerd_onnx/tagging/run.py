"""A run over one or more files: locked, recorded in a journal, and resumable after an interruption."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack, closing

from nerd_onnx.durability.events import DoneEvent, RejectsEvent
from nerd_onnx.durability.fingerprints import version_of
from nerd_onnx.durability.journal import Finished
from nerd_onnx.durability.work_folder import WorkFolder
from nerd_onnx.errors import InputError, InterruptedRunError, NerdError
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.output_place import make_folder_for
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.checks import check_job
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.file_run import REPLACEABLE, FileRun, OnBatch, RunState, Stop
from nerd_onnx.tagging.final_check import FinalCheck
from nerd_onnx.tagging.job import TagJob, TagReport
from nerd_onnx.tagging.outputs_without_journal import is_file
from nerd_onnx.tagging.pipeline import TagStream
from nerd_onnx.tagging.plan import Plan
from nerd_onnx.tagging.previous_runs import Standing, safe_rows, standing_of
from nerd_onnx.tagging.rejects_file import gather_rejects, part_path
from nerd_onnx.tagging.run_meter import RunMeter
from nerd_onnx.tagging.small_files import ReadAhead
from nerd_onnx.terminal import counted


def tag_files(
    tagger: Tagger,
    job: TagJob,
    on_batch: OnBatch | None = None,
    stop: Stop | None = None,
    meter: RunMeter | None = None,
) -> TagReport:
    """
    Tag files: the outputs have the same rows in the same order, unchanged columns, and the new column.

    Each output is written atomically. Memory depends on the size of a batch, not on that of a file. After a crash or a
    stop, the same job with ``resume`` continues the run, and its outputs have the same bytes as those of a run that was
    not interrupted.

    :param on_batch: called after every batch that was written
    :param stop: called after every batch; if it returns the number of a signal, the run stores its work and ends
    :param meter: gets the progress of the run, for another thread that shows it
    :raises InputError: if an input cannot be read as asked
    :raises OutputError: if an output cannot be written as asked, or another run is writing it
    :raises InterruptedRunError: if ``stop`` ended the run
    """
    check_job(job)
    plan = Plan.of(tagger, job)

    with ExitStack() as stack:
        work = journal = None
        if job.many or is_file(job.pairs[0].output):
            work = stack.enter_context(WorkFolder(job.output_place, many=job.many, remote_work_dir=job.work_dir))
            journal = work.begin(plan.facts, resume=job.resume, overwrite=job.overwrite)
        scratch = work.path if work else stack.enter_context(tempfile.TemporaryDirectory(prefix="nerd-"))

        report = TagReport(damaged_lines=work.progress.damaged_lines if work else 0)
        state = RunState(plan, scratch, journal, report, FinalCheck(verify=job.verify), on_batch, stop, meter)

        try:
            return _Run(state, work).run()
        except NerdError as err:
            raise _with_hint(err, plan, work) from err.__cause__


def _with_hint(err: NerdError, plan: Plan, work: WorkFolder | None) -> NerdError:
    """Add to an error how many rows need not be tagged again, or that the work folder is gone."""
    is_lost = work is not None and work.progress.safe_rows > 0 and not work.is_in_place
    safe = 0 if work is None or is_lost else safe_rows(plan.pairs, work.progress, work.path)

    if isinstance(err, InterruptedRunError):
        return InterruptedRunError(err.number, safe, is_lost=is_lost)

    if is_lost:
        err.args = (f"{err} (nothing is saved: the work folder was removed or moved during the run)",)
    elif safe:
        err.args = (f"{err} ({counted(safe, 'row is', 'rows are')} safe: continue with --resume)",)
        err.fields["safe_rows"] = safe
    return err


class _Run:
    """
    A run over its files.

    :param state: the state that the files share
    :param work: the work folder; None if the output is a stream
    """

    def __init__(self, state: RunState, work: WorkFolder | None) -> None:
        self._state = state
        self._plan = state.plan
        self._job = state.plan.job
        self._work = work
        self._begin = time.perf_counter()

        # Paths of the rejected rows of each file, by its name.
        self._parts: dict[str, str] = {}

        # Before any work: an output that is refused must not be found after hours of tagging. And what appears at the
        # name of an output during these hours was not there before, so it is no work of an earlier run.
        self._standings = {pair.name: self._look_at(pair) for pair in state.plan.pairs}

    def run(self) -> TagReport:
        """Tag the files that are not finished, write the rejects file, and remove the work folder."""
        pairs, meter = self._ordered(), self._state.meter
        if meter is not None:
            meter.begin(pairs, self._job.limit)
            self._plan.tagger.measure(meter.network)

        with closing(ReadAhead(self._plan, pairs, self._is_worth_reading_ahead, meter)) as ahead:
            for number, pair in enumerate(pairs):
                standing = self._standing_of(pair)
                if not standing.is_done:
                    self._tag_file(pair, standing, ahead.tag_stream_of(number))
                if meter is not None:
                    meter.end_file(pair.name, is_earlier=standing.is_done)

                self._state.report.seconds = time.perf_counter() - self._begin

        self._require_one_readable()
        self._write_rejects()

        # Before the work folder goes: with it, --resume makes a lost output again.
        self._state.look.check()
        if self._work is not None:
            self._work.remove()

        self._state.report.seconds = time.perf_counter() - self._begin
        return self._state.report

    def _tag_file(self, pair: FilePair, standing: Standing, tag_stream: TagStream) -> None:
        if self._job.many:
            make_folder_for(pair.output)

        part = part_path(self._state.scratch, pair.name)
        rejects = FileRun(self._state, pair, standing, part, tag_stream).run()
        self._keep_part(pair, rejects)

    def _require_one_readable(self) -> None:
        """Raise an error if no file at all could be read: most likely an option is wrong then."""
        report = self._state.report
        if report.refused_files and not report.files and not report.finished_before:
            if self._work is not None:
                self._work.remove()

            raise InputError(
                f"none of {counted(report.refused_files, 'file')} can be read; the first: {self._state.refusal}",
                reason="no-readable-file",
                found=report.refused_files,
            )

    def _ordered(self) -> list[FilePair]:
        """Return the files in the order of tagging: first the one that an interrupted run has stored chunks of."""
        pairs, retried = self._plan.pairs, self._plan.retried
        if not pairs and retried is not None:
            rejects = input_name(self._job.retry_rejects or "")
            raise InputError(
                f"{rejects}: names no row of the input; it names {', '.join(map(input_name, retried)) or 'nothing'}",
                reason="rejects-of-other-input",
                file=rejects,
                option="--retry-rejects",
            )

        journal = self._state.journal

        # Its chunks would be lost when the journal records the begin of another file.
        return sorted(pairs, key=lambda pair: journal is None or journal.progress.begun(pair.name) is None)

    def _is_worth_reading_ahead(self, pair: FilePair) -> bool:
        """Whether a file is one of several, has all its rows tagged, and is most likely not finished."""
        state = self._state
        if len(self._job.pairs) == 1 or self._plan.retried is not None:
            return False

        finished = state.journal is not None and pair.name in state.journal.progress.finished
        return not finished and (state.overwrites or not pair.output.exists())

    def _standing_of(self, pair: FilePair) -> Standing:
        """Return what of an earlier run can be used for a file; finished files are counted."""
        state = self._state
        standing = self._standings.pop(pair.name)
        if standing.finished is not None:
            self._take_finished(pair, standing.finished, is_recorded=standing.is_recorded)
        elif standing.earlier is not None:
            state.report.finished_before += 1
            state.look.add_earlier(pair.output, standing.earlier)

        state.report.remade_files += standing.is_remade
        return standing

    def _look_at(self, pair: FilePair) -> Standing:
        state, journal = self._state, self._state.journal
        if journal is None:
            return Standing(overwrites=state.overwrites)
        return standing_of(self._plan, pair, journal.progress, state.scratch, overwrites=state.overwrites)

    def _take_finished(self, pair: FilePair, finished: Finished, *, is_recorded: bool) -> None:
        """Count a file that the interrupted run finished."""
        state, commit = self._state, finished.commit
        version = finished.version
        if not is_recorded and state.journal is not None:
            # The run ended between renaming the output into place and recording that.
            version = version_of(pair.output)
            state.journal.append(DoneEvent(pair.name, version))

        report = state.report
        report.add(commit.totals)
        report.resumed_rows += commit.totals.rows
        report.resumed_tokens += commit.totals.tokens
        report.files += 1

        state.look.add(pair.output, commit.output, version)
        self._keep_part(pair, None if commit.rejects is None else part_path(state.scratch, pair.name))

    def _keep_part(self, pair: FilePair, part: str | None) -> None:
        if part is not None:
            self._state.check_rejects()
            self._parts[pair.name] = part

    def _write_rejects(self) -> None:
        """Write the rejects file from the rejected rows of all files; without any, no file is created."""
        path, journal = self._job.rejects_place, self._state.journal
        if path is None or not self._parts:
            return

        # The interrupted run may have renamed it into place already. A file may have been made again since then.
        recorded, state = self._state.recorded_rejects()
        overwrite = self._state.overwrites or state in REPLACEABLE

        # By name, and not in the order of tagging: a resumed run begins with another file.
        parts = [self._parts[name] for name in sorted(self._parts)]
        target = gather_rejects(path, parts, overwrite=overwrite, scratch=self._state.scratch)
        try:
            record = target.flush()
            if state != "intact" or record != recorded:
                # First the event: without it, a resumed run would take the file for another program's.
                if journal is not None:
                    journal.append(RejectsEvent(record))
                target.commit()
            self._state.look.add(path, record, None if record is None else version_of(path))
        finally:
            target.discard()
