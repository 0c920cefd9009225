"""What an engine's worker does: one tagger a process, kept from call to call; rows and whole files through it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import pyarrow as pa

from nerd_onnx import errors
from nerd_onnx.engines.model import WorkerModel
from nerd_onnx.errors import BusyError, InputError, NerdError, OutputError, restored
from nerd_onnx.formats.columns import column_exists
from nerd_onnx.inference.remote_bundle import load_bundle
from nerd_onnx.storage.output_place import make_folder_for
from nerd_onnx.tagger import Tagger, TagOptions
from nerd_onnx.tagging.job import TagJob, TagReport, peak_rss_bytes
from nerd_onnx.tagging.run import tag_files

BATCH_ROWS = 1024
_BUSY_S = 60.0  # an attempt that lost its machine's engine process may live on for some seconds
_taggers: dict[tuple[WorkerModel, TagOptions], Tagger] = {}


def process_tagger(model: WorkerModel, options: TagOptions, fetch: Callable[[], bytes]) -> Tagger:
    """
    Give this process's tagger for a model and options, loading it once.

    :param options: their threads are the processors that the engine gives to this process
    :param fetch: gives the model that was sent along
    """
    if (model, options) not in _taggers:
        os.environ.setdefault("RAYON_NUM_THREADS", str(options.threads or 1))  # the tokenizer's threads
        _taggers[model, options] = Tagger(load_bundle(model.folder(fetch)), options)
    return _taggers[model, options]


def check_columns(names: Sequence[str], options: TagOptions, *, replace_column: bool) -> None:
    """
    Find mistakes in the names of columns before any worker starts.

    :param names: those of the rows
    :raises InputError: when the text column is missing
    :raises OutputError: when the new column exists and may not be replaced
    """
    if options.text_column not in names:
        raise InputError(
            f"the data has no column {options.text_column!r}; the columns are: {', '.join(names)}",
            reason="column-missing",
            column=options.text_column,
            found=", ".join(names),
        )
    if options.column in names and not replace_column:
        remedy = "choose another name, or pass replace_column=True"
        raise OutputError(
            column_exists("the data", options.column, remedy), reason="column-exists", column=options.column
        )


def tag_table(tagger: Tagger, table: pa.Table, *, replace_column: bool) -> pa.Table:
    """
    Add the entities column to a table.

    :raises NerdError: as :meth:`Tagger.tag_batch` does
    """
    batches = table.to_batches(max_chunksize=BATCH_ROWS) or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    return pa.Table.from_batches([tagger.tag_batch(batch, replace_column=replace_column) for batch in batches])


@dataclass(frozen=True)
class Outcome:
    """
    What came of one file.

    :param report: what was done
    :param error: why it could not be; an error that trying again would not mend
    :param peak_rss_bytes: the largest resident size of the worker so far
    """

    report: TagReport
    error: NerdError | None
    peak_rss_bytes: int

    def to_json(self) -> str:
        """Write it as text, for engines that carry no objects."""
        error = self.error and [type(self.error).__name__, str(self.error), self.error.reason, self.error.fields]
        return json.dumps({"report": asdict(self.report), "error": error, "peak_rss_bytes": self.peak_rss_bytes})

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """Read what :meth:`to_json` wrote; the error has its kind again."""
        facts = json.loads(text)
        error = None
        if facts["error"] is not None:
            name, message, reason, fields = facts["error"]
            kind = getattr(errors, name, NerdError)
            error = restored(kind, (message,), {"reason": reason, "fields": fields})
        return cls(TagReport(**facts["report"]), error, facts["peak_rss_bytes"])


@dataclass(frozen=True)
class FileTasks:
    """
    The files of a run, each tagged by one worker just as a local run tags it.

    A worker that takes over from one that died goes on with what that one had made safe.

    :param jobs: one file each
    """

    model: WorkerModel
    options: TagOptions
    jobs: Sequence[TagJob]

    def run(self, number: int, fetch: Callable[[], bytes]) -> Outcome:
        """
        Tag a file.

        :param number: which
        :param fetch: gives the model that was sent along
        """
        job = self.jobs[number]
        report, error = TagReport(), None
        try:
            make_folder_for(job.output)
            report = _tagged_alone(process_tagger(self.model, self.options, fetch), job)
        except NerdError as err:
            error = err
        return Outcome(report, error, peak_rss_bytes())

    def with_threads(self, threads: int) -> FileTasks:
        """Give the same files to workers of so many processors."""
        return replace(self, options=replace(self.options, threads=threads))


def _tagged_alone(tagger: Tagger, job: TagJob) -> TagReport:
    """
    Tag a file once nobody else is at it: an attempt before this one may still be dying.

    A process whose parent died belongs to no engine any more: another attempt waits for its file. So it stops.
    """
    end, parent = time.monotonic() + _BUSY_S, os.getppid()
    while True:
        try:
            return tag_files(tagger, job, stop=lambda: None if os.getppid() == parent else signal.SIGTERM)
        except BusyError:
            if time.monotonic() > end:
                raise
        time.sleep(0.5)
