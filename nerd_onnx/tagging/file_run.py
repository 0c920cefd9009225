"""One file of a run: its rows written and counted, its work safe at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from nerd_onnx.durability.fingerprints import file_fingerprint
from nerd_onnx.durability.journal import Event, Journal
from nerd_onnx.durability.results import ResultLog
from nerd_onnx.errors import InputError, InterruptedRunError, NerdError, OutputError, UnreadableFileError
from nerd_onnx.formats.base import RowBatch, Sink, Written
from nerd_onnx.formats.columns import OTHER_NAME
from nerd_onnx.formats.readers import Source
from nerd_onnx.storage.input_stream import input_name, is_stream
from nerd_onnx.storage.location import is_uri
from nerd_onnx.storage.output_place import output_name
from nerd_onnx.storage.remote import exists
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.job import TagJob, TagReport, Totals
from nerd_onnx.tagging.pipeline import (
    TagStream,
    limits_of,
    open_pair_sink,
    open_pair_source,
    output_metadata,
    selected,
    tagged_batches,
)
from nerd_onnx.tagging.previous_runs import check_unchanged
from nerd_onnx.tagging.rejected_rows import FaultPolicy
from nerd_onnx.tagging.rejects_file import RejectsPart

WORTH_TOKENS = 10_000  # about a second of work: less is not kept for the sake of a failed run

OnBatch = Callable[[TagReport, Source], None]
Stop = Callable[[], int | None]


@dataclass
class RunState:
    """
    What the files of a run share.

    :param scratch: a folder for what is not finished
    :param journal: what is done; None where the output is a stream
    :param report: counts all rows
    :param wanted: rows to tag, by file, None for all of them; None for all files
    :param on_batch: called after every batch that was written
    :param stop: asked after every batch; gives the number of a signal to end the run
    :param refusal: why the first file that could not be read was refused
    """

    tagger: Tagger
    job: TagJob
    scratch: str
    journal: Journal | None
    report: TagReport
    wanted: dict[str, frozenset[int] | None] | None = None
    on_batch: OnBatch | None = None
    stop: Stop | None = None
    refusal: str = ""

    @cached_property
    def metadata(self) -> dict[str, str]:
        """What the outputs' schemas say of what made them."""
        return output_metadata(self.tagger, self.job)

    @property
    def overwrites(self) -> bool:
        """Whether the run was begun with leave to replace outputs."""
        return self.job.overwrite if self.journal is None else bool(self.journal.progress.header["overwrite"])


class FileRun:
    """
    The tagging of one file.

    :param state: the run it belongs to
    :param pair: the file
    :param part: where its rejects go in the scratch folder
    :param tag_stream: finds the entities of its texts
    """

    def __init__(self, state: RunState, pair: FilePair, part: str, tag_stream: TagStream) -> None:
        self._state = state
        self._pair = pair
        self._part_path = part
        self._tag_stream = tag_stream
        # Rows that can be read only once cannot be gone on with.
        self._journal = None if _is_stream(pair.input) else state.journal
        self._before = Totals()
        self._before.add(state.report)
        self._log: ResultLog | None = None

    def run(self) -> str | None:
        """
        Tag the file, and enter it in the journal; one of several that cannot be read is refused, where bad rows are.

        :return: the file with its rejects, None where there are none
        """
        try:
            return self._tagged(self._begin())
        except UnreadableFileError as err:
            if not self._state.job.may_refuse or self._state.journal is None:
                raise
            return self._refused(self._state.journal, err)

    def _tagged(self, found: Event) -> str | None:
        with ExitStack() as stack:
            source = stack.enter_context(self._open_source())
            self._log = stack.enter_context(self._open_log(self._journal)) if self._journal is not None else None
            part = stack.enter_context(RejectsPart(self._part_path, self._pair.output))
            policy = self._policy(part)
            sink = stack.enter_context(self._open_sink(source))
            self._write(source, sink, policy)
            written = sink.finish()
            self._check_totals(source, policy.totals, written)
            part.finish()
            rejects = part.path if part.rows else None
            if self._journal is not None:
                check_unchanged(self._pair, found, while_what="while it was read")
                if self._log is not None and is_uri(self._pair.output):
                    self._log.close_chunk()  # an upload may fail
                commit = self._commit(found, policy.totals, written, rejects)
        if self._journal is not None:
            self._journal.append("done", **commit)
        if self._log is not None:
            self._log.remove()
        self._state.report.files += 1
        return rejects

    def _refused(self, journal: Journal, err: UnreadableFileError) -> str:
        """Leave the file out: no output, one reject, and its rows count nowhere. A run that goes on tries it again."""
        state, job = self._state, self._state.job
        state.report.set_totals(self._before, Totals(refused_files=1))
        bad = state.report.rejected + state.report.refused_files
        if job.max_errors is not None and bad > job.max_errors:
            raise InputError(
                f"{err}; this unreadable file exceeds --max-errors {job.max_errors}",
                reason="too-many-rejected",
                file=input_name(self._pair.input),
                option="--max-errors",
                maximum=job.max_errors,
            ) from err
        state.refusal = state.refusal or str(err)
        older = "; an older output was left as it is" if exists(self._pair.output) else ""
        with RejectsPart(self._part_path, self._pair.output) as part:
            part.refuse(self._pair.name, f"{err}{older}")
            part.finish()
        journal.append("refused", name=self._pair.name, reason=str(err))
        if self._log is not None:
            state.report.resumed_rows -= self._log.stored_rows
            state.report.resumed_tokens -= self._log.stored_tokens
            self._log.remove()
        return part.path

    def _open_source(self) -> Source:
        with _reading():
            return open_pair_source(self._state.tagger, self._state.job, self._pair)

    def _rows(self, source: Source, sink: Sink) -> Iterator[RowBatch]:
        """Yield the rows to tag; those that the output cannot take are refused where bad rows do not end the run."""
        with _reading():
            for rows in selected(source.batches(), self._wanted):
                unfit = sink.unfit(rows)
                if unfit and self._state.job.on_error == "fail":
                    row, reason = min(unfit.items())
                    raise OutputError(
                        f"{input_name(self._pair.input)}, {rows.place(row)} {reason}; {OTHER_NAME}",
                        reason="column-exists",
                        file=input_name(self._pair.input),
                        row=rows.shown_number(row),
                    )
                yield rows.refusing(unfit) if unfit else rows

    def _begin(self) -> Event:
        """Enter the file in the journal, or check that it is the one that was begun."""
        if self._journal is None:
            return {}
        begun = self._journal.progress.begun(self._pair.name)
        if begun is not None:
            check_unchanged(self._pair, begun["input"], while_what="since the run started")
            return dict(begun["input"])
        with _reading():
            found = file_fingerprint(self._pair.input)
        self._journal.append("begin", name=self._pair.name, input=found)
        return found

    def _open_log(self, journal: Journal) -> ResultLog:
        state = self._state
        log = ResultLog(self._pair.output, state.scratch, journal, state.tagger.entity_field(), state.job.chunk_rows)
        state.report.resumed_rows += log.stored_rows
        state.report.resumed_tokens += log.stored_tokens
        return log

    def _policy(self, part: RejectsPart) -> FaultPolicy:
        kept = part if self._state.job.rejects is not None else None
        return FaultPolicy(
            self._pair.input, self._pair.name, self._state.job, kept, self._before.rejected + self._before.refused_files
        )

    def _open_sink(self, source: Source) -> Sink:
        state = self._state
        return open_pair_sink(
            state.tagger,
            state.job,
            self._pair,
            source,
            state.metadata,
            overwrite=state.overwrites,
            scratch=state.scratch,
        )

    def _write(self, source: Source, sink: Sink, policy: FaultPolicy) -> None:
        """Write all rows; when the run is stopped or fails, what is tagged is made safe first."""
        state = self._state
        limits = limits_of(state.tagger, state.job)
        lenient = state.job.on_error != "fail"
        batches = self._rows(source, sink)
        try:
            for rows, results in tagged_batches(state.tagger, batches, self._log, self._tag_stream, lenient=lenient):
                sink.write(*policy.settle(rows, results))
                state.report.set_totals(self._before, policy.totals)
                limits.check(output_name(self._pair.output))
                if state.on_batch is not None:
                    state.on_batch(state.report, source)
                if state.stop is not None and (number := state.stop()) is not None:
                    raise InterruptedRunError(number)
        except NerdError as err:
            if self._log is not None and (isinstance(err, InterruptedRunError) or self._log.tokens > WORTH_TOKENS):
                with suppress(OutputError):
                    self._log.close_chunk()
            raise

    @property
    def _wanted(self) -> frozenset[int] | None:
        return None if self._state.wanted is None else self._state.wanted[self._pair.name]

    def _check_totals(self, source: Source, totals: Totals, written: Written) -> None:
        """Check that no row was lost and none came twice: by source, policy and the finished file itself."""
        expected = source.rows_read if self._wanted is None else len(self._wanted)
        if self._wanted is not None and totals.rows < expected:
            raise InputError(
                f"{input_name(self._pair.input)}: {expected - totals.rows} of the rows that --retry-rejects names are "
                "not in the file; give the file that these rows come from",
                reason="retried-rows-missing",
                file=input_name(self._pair.input),
                option="--retry-rejects",
                found=totals.rows,
                expected=expected,
            )
        known = expected if self._wanted is not None or source.num_rows is None else source.num_rows
        counts = (known, expected, totals.rows, totals.written + totals.rejected)
        rows = totals.entities if self._state.job.layout == "long" else totals.written + totals.nulled
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

    def _commit(self, found: Event, totals: Totals, written: Written, rejects: str | None) -> dict[str, Any]:
        """Enter in the journal that the output is about to get its name."""
        commit = {
            "name": self._pair.name,
            "input": found,
            "on_error": self._state.job.on_error,
            "totals": asdict(totals),
            "rejects": rejects,
            "identity": written.identity,
            "size": written.size,
        }
        if self._journal is not None:
            self._journal.append("commit", **commit)
        return commit


@contextmanager
def _reading() -> Iterator[None]:
    """Turn what goes wrong with an input into the error that lets it be refused."""
    try:
        yield
    except InputError as err:
        raise UnreadableFileError.of(err) from err


def _is_stream(path: str) -> bool:
    """Tell whether an input can be read only once; of one that is not there, opening it will say so."""
    try:
        return is_stream(path)
    except InputError:
        return False
