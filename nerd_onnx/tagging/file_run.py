"""One file of a run: tag its rows, write them and count them; an interruption loses at most the last chunk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from nerd_onnx.durability.events import BeginEvent, CommitEvent, DoneEvent, PartRecord, RefusedEvent
from nerd_onnx.durability.fingerprints import content_sha256, file_fingerprint, version_of
from nerd_onnx.durability.journal import Journal
from nerd_onnx.durability.recorded_files import FileState, state_of
from nerd_onnx.durability.stored_results import ResultLog
from nerd_onnx.durability.totals import Totals
from nerd_onnx.errors import InputError, InterruptedRunError, NerdError, OutputError, UnreadableFileError
from nerd_onnx.formats.columns import OTHER_NAME
from nerd_onnx.formats.interfaces import RowBatch, Writer, Written
from nerd_onnx.formats.open_input import Reader
from nerd_onnx.interruption import waiting
from nerd_onnx.stages import in_stage, iterate
from nerd_onnx.storage.file_record import FileRecord
from nerd_onnx.storage.input_stream import input_name, is_stream
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import check_place, output_errors, output_name
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.final_check import FinalCheck
from nerd_onnx.tagging.job import TagReport
from nerd_onnx.tagging.pipeline import (
    TagStream,
    open_pair_reader,
    open_pair_writer,
    rewritten_because,
    selected,
    tagged_batches,
)
from nerd_onnx.tagging.plan import Plan
from nerd_onnx.tagging.previous_runs import Standing, check_unchanged
from nerd_onnx.tagging.rejected_rows import RejectionPolicy
from nerd_onnx.tagging.rejects_file import RejectsPart
from nerd_onnx.tagging.run_meter import RunMeter

REPLACEABLE: tuple[FileState, ...] = ("intact", "cut")  # a rejects file that is this run's own
WORTH_TOKENS = 10_000  # about a second of work: a failed run does not store less

OnBatch = Callable[[TagReport, Reader], None]
Stop = Callable[[], int | None]


@dataclass
class RunState:
    """
    The state that the files of a run share.

    :param scratch: folder for unfinished files
    :param journal: records what is done; None if the output is a stream
    :param report: counts the rows of all files
    :param look: looks at all outputs at the end
    :param on_batch: called after every batch that was written
    :param stop: called after every batch; returns the number of a signal to end the run, else None
    :param meter: gets the progress of the run; None if nobody wants to know
    :param refusal: the error of the first file that could not be read
    :param are_rejects_checked: whether the place of the rejects file was looked at
    """

    plan: Plan
    scratch: str
    journal: Journal | None
    report: TagReport
    look: FinalCheck
    on_batch: OnBatch | None = None
    stop: Stop | None = None
    meter: RunMeter | None = None
    refusal: str = ""
    are_rejects_checked: bool = False

    @property
    def overwrites(self) -> bool:
        """Whether outputs may be replaced: as it was decided when the run was started, or is decided now."""
        header = None if self.journal is None else self.journal.progress.header
        return self.plan.job.overwrite or (header is not None and header.overwrite)

    def recorded_rejects(self) -> tuple[FileRecord | None, FileState | None]:
        """Return the rejects file that the interrupted run renamed into place, and its state; None without one."""
        rejects, path = None if self.journal is None else self.journal.progress.rejects, self.plan.job.rejects_place
        if rejects is None or rejects.file is None or path is None:
            return None, None
        return rejects.file, state_of(path, rejects.file, None)

    def check_rejects(self) -> None:
        """
        Check that a rejects file may be written. Called when a row is rejected: without one, no file is written.

        :raises ExistsError: if another file is in its place that this run may not replace
        """
        path = self.plan.job.rejects_place
        if path is None or self.overwrites or self.are_rejects_checked:
            return

        if self.recorded_rejects()[1] not in REPLACEABLE:
            with output_errors(path):
                check_place(path, path.info_if_any(), overwrite=False)
        self.are_rejects_checked = True


class FileRun:
    """
    The tagging of one file.

    :param state: the run it belongs to
    :param pair: the file
    :param standing: what of an earlier run can be used for it
    :param part: path for its rejected rows, in the scratch folder
    :param tag_stream: finds the entities of its texts
    """

    def __init__(self, state: RunState, pair: FilePair, standing: Standing, part: str, tag_stream: TagStream) -> None:
        self._state = state
        self._plan = state.plan
        self._job = state.plan.job
        self._pair = pair
        self._overwrites = standing.overwrites
        self._part_path = part
        self._tag_stream = tag_stream

        # A stream cannot be resumed, because its rows can be read only once.
        self._journal = None if _is_stream(pair.input) else state.journal
        self._log: ResultLog | None = None

        # The counts of the files before this one. Those of this file are added to them anew after each batch.
        self._before = replace(state.report)

        # Shares of the run of the batches that are read and not written.
        self._shares: deque[float] = deque()

    def run(self) -> str | None:
        """
        Tag the file, and record it in the journal as finished.

        An unreadable file is recorded as refused instead, if the job allows it.

        :return: path of its rejected rows, None without any
        :raises NerdError: if the file cannot be read, tagged or written
        :raises InterruptedRunError: if the run was asked to stop
        """
        try:
            return self._tag(self._begin())
        except UnreadableFileError as err:
            if not self._job.may_refuse or self._state.journal is None:
                raise
            return self._refuse(self._state.journal, err)

    def _tag(self, fingerprint: dict[str, Any]) -> str | None:
        """Write the output and record it: ``commit`` before the output is renamed into place, ``done`` after."""
        with ExitStack() as stack:
            source = stack.enter_context(self._open_reader())
            self._log = stack.enter_context(self._open_log(self._journal)) if self._journal is not None else None
            part = stack.enter_context(RejectsPart(self._part_path, self._pair.output, self._state.check_rejects))
            policy = self._policy(part)

            writer = stack.enter_context(
                open_pair_writer(
                    self._plan, self._pair, source, overwrite=self._overwrites, scratch=self._state.scratch
                )
            )

            with self._keeping_results():
                self._write(source, writer, policy)
                if self._log is not None:
                    self._count_resumed(self._log)

                with waiting():  # a large output is read once more, for its hash
                    written = in_stage("write", writer.finish)

                self._check_totals(source, policy.totals, written)
                self._note_copy(source, policy.totals)

                rejects = part.finish()
                self._commit(fingerprint, policy.totals, written, rejects)

        # Leaving the block renamed the output. That changed its ctime, so its version is not known before.
        version = None if written.file is None else version_of(self._pair.output)
        self._state.look.add(self._pair.output, written.file, version)
        if self._journal is not None:
            self._journal.append(DoneEvent(self._pair.name, version))
        if self._log is not None:
            self._log.remove()

        self._state.report.files += 1
        return None if rejects is None else part.path

    def _refuse(self, journal: Journal, err: UnreadableFileError) -> str:
        """Record the file as unreadable: no output, and its rows are not counted. A resumed run tries it again."""
        state, maximum = self._state, self._job.max_errors
        state.report.set_totals(self._before, Totals(refused_files=1))

        rejected = state.report.rejected + state.report.refused_files
        if maximum is not None and rejected > maximum:
            raise InputError(
                f"{err}; this unreadable file exceeds --max-errors {maximum}",
                reason="too-many-rejected",
                file=input_name(self._pair.input),
                option="--max-errors",
                maximum=maximum,
            ) from err

        state.refusal = state.refusal or str(err)
        # The user must not take an older output for the result of this run.
        older = "; an older output was left as it is" if self._pair.output.exists() else ""
        with RejectsPart(self._part_path, self._pair.output, self._state.check_rejects) as part:
            part.refuse(self._pair.name, f"{err}{older}")
            part.finish()

        journal.append(RefusedEvent(self._pair.name, str(err)))
        if self._log is not None:
            # The rows of a refused file do not count, so those with stored results do not either.
            state.report.resumed_rows = self._before.resumed_rows
            state.report.resumed_tokens = self._before.resumed_tokens
            self._log.remove()

        return part.path

    def _open_reader(self) -> Reader:
        with _reading():
            return open_pair_reader(self._plan, self._pair)

    def _rows(self, source: Reader, writer: Writer) -> Iterator[RowBatch]:
        """Yield the rows to tag; rows that the output cannot contain are rejected, or end the run."""
        with _reading():
            for rows in selected(iterate("read", source.batches()), self._plan.retried_rows(self._pair)):
                unfit = writer.unfit(rows)
                if unfit and not self._plan.is_lenient:
                    row, reason = min(unfit.items())
                    raise OutputError(
                        f"{input_name(self._pair.input)}, {rows.place(row)} {reason}; {OTHER_NAME}",
                        reason="column-exists",
                        file=input_name(self._pair.input),
                        row=rows.shown_number(row),
                    )

                if self._state.meter is not None:
                    self._shares.append(self._state.meter.read(self._pair.name, source))
                yield rows.refusing(unfit) if unfit else rows

    def _begin(self) -> dict[str, Any]:
        """Return the input's fingerprint and record it; of a resumed file, check that it is unchanged."""
        if self._journal is None:
            return {}

        begun = self._journal.progress.begun(self._pair.name)
        if begun is not None:
            check_unchanged(self._pair, begun.input, while_what="since the run started")
            return dict(begun.input)

        with _reading():
            fingerprint = file_fingerprint(self._pair.input)
        self._journal.append(BeginEvent(self._pair.name, fingerprint))
        return fingerprint

    def _open_log(self, journal: Journal) -> ResultLog:
        state, field = self._state, self._plan.layout.results
        log = ResultLog(self._pair.output, state.scratch, journal, field, self._job.chunk_rows)

        self._count_resumed(log)
        return log

    def _count_resumed(self, log: ResultLog) -> None:
        """Count the rows with stored results: all that the journal names, less those that were damaged when read."""
        report, before = self._state.report, self._before

        report.resumed_rows = before.resumed_rows + log.resumed_rows
        report.resumed_tokens = before.resumed_tokens + log.resumed_tokens
        report.damaged_chunks = before.damaged_chunks + log.damaged_chunks

    def _policy(self, part: RejectsPart) -> RejectionPolicy:
        recorded_in = part if self._job.rejects is not None else None
        before = self._before.rejected + self._before.refused_files
        return RejectionPolicy(self._pair.input, self._pair.name, self._job, recorded_in, before)

    def _write(self, source: Reader, writer: Writer, policy: RejectionPolicy) -> None:
        """Write all rows."""
        state, batches = self._state, self._rows(source, writer)
        for rows, results in tagged_batches(self._plan, self._pair, batches, self._log, self._tag_stream):
            in_stage("write", writer.write, *policy.settle(rows, results))
            state.report.set_totals(self._before, policy.totals)
            self._count_written(policy.totals.rows)

            # After the write: a row group or line in the writer counts too.
            self._plan.limits.check(output_name(self._pair.output))

            if state.on_batch is not None:
                state.on_batch(state.report, source)
            if state.stop is not None and (number := state.stop()) is not None:
                raise InterruptedRunError(number)

    @contextmanager
    def _keeping_results(self) -> Iterator[None]:
        """If the run is stopped or fails, store the results of the tagged rows first."""
        try:
            yield
        except NerdError as err:
            if self._log is not None and (isinstance(err, InterruptedRunError) or self._log.tokens > WORTH_TOKENS):
                # The first error is the one to report, also if the disk is full now.
                with suppress(OutputError):
                    self._log.close_chunk()
            raise

    def _count_written(self, rows: int) -> None:
        """
        Report to the meter that a batch was written.

        :param rows: rows of this file that are written by now
        """
        if (meter := self._state.meter) is not None:
            earlier = 0 if self._log is None else self._log.resumed_rows
            meter.wrote(self._state.report.rows, self._shares.popleft(), is_earlier=rows <= earlier)

    def _check_totals(self, source: Reader, totals: Totals, written: Written) -> None:
        """Check that no row was lost or repeated, by the counts of source, policy and finished output."""
        retried = self._plan.retried_rows(self._pair)
        expected = source.rows_read if retried is None else len(retried)
        if retried is not None and totals.rows < expected:
            raise InputError(
                f"{input_name(self._pair.input)}: {expected - totals.rows} of the rows that --retry-rejects names are "
                "not in the file; give the file that these rows come from",
                reason="retried-rows-missing",
                file=input_name(self._pair.input),
                option="--retry-rejects",
                found=totals.rows,
                expected=expected,
            )

        # Parquet files record their number of rows: it counts independently of the reader.
        known = expected if retried is not None or source.num_rows is None else source.num_rows
        counts = (known, expected, totals.rows, totals.written + totals.rejected)
        rows = totals.entities if self._job.layout == "long" else totals.written + totals.nulled

        if len(set(counts)) > 1 or written.rows != rows:
            raise OutputError(
                f"{output_name(self._pair.output)}: the numbers of rows do not agree: {counts[0]} in the input, "
                f"{expected} read, {totals.written} tagged, {totals.rejected} rejected, {written.rows} in the output. "
                "The output was discarded; please report this defect of nerd-onnx",
                reason="rows-differ",
                file=output_name(self._pair.output),
                expected=rows,
                found=written.rows,
            )

    def _note_copy(self, source: Reader, totals: Totals) -> None:
        """Count the file as copied, or note why its columns were rewritten."""
        totals.copied_files = int(source.copied is not None)
        self._state.report.set_totals(self._before, totals)

        reason = rewritten_because(self._plan, self._pair, source)
        if reason:
            self._state.report.rewritten_because.append(reason)

    def _commit(
        self, fingerprint: dict[str, Any], totals: Totals, written: Written, rejects: PartRecord | None
    ) -> None:
        """Record that the output is complete and about to be renamed into place."""
        if self._journal is None:
            return

        # The version is taken first: a change after it leaves a doubt, and the content is compared.
        version = version_of(self._pair.input)
        digest = None if self._pair.input.is_remote else content_sha256(self._pair.input)
        # After the hash, so that a change while it was computed is noticed.
        check_unchanged(self._pair, fingerprint, while_what="while it was read")

        # The upload is still to come. If it fails, a resumed run need not tag anything again.
        if self._log is not None and self._pair.output.is_remote:
            self._log.close_chunk()

        self._journal.append(
            CommitEvent(
                self._pair.name,
                input=fingerprint,
                input_version=version,
                input_sha256=digest,
                on_error=self._job.on_error,
                totals=totals,
                rejects=rejects,
                output=written.file,
            )
        )


@contextmanager
def _reading() -> Iterator[None]:
    """Turn an error of the input into the one for which the file can be refused."""
    try:
        yield
    except InputError as err:
        raise UnreadableFileError.of(err) from err


def _is_stream(path: Location) -> bool:
    """Whether an input can be read only once; False for a missing one, whose opening reports the error."""
    try:
        return is_stream(path)
    except InputError:
        return False
