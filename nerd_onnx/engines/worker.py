"""What a worker of an engine does: tag batches or files with one tagger per process, which is kept between calls."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import pyarrow as pa

from nerd_onnx import errors
from nerd_onnx.engines.model_archive import WorkerModel
from nerd_onnx.errors import BusyError, InputError, NerdError, OutputError, restored
from nerd_onnx.formats.columns import column_exists
from nerd_onnx.inference.remote_bundle import load_bundle
from nerd_onnx.machine.memory import peak_rss_bytes
from nerd_onnx.storage.output_place import make_folder_for
from nerd_onnx.tagger import Tagger, TagOptions
from nerd_onnx.tagging.job import TagJob, TagReport
from nerd_onnx.tagging.run import tag_files

BATCH_ROWS = 1024
_BUSY_S = 60.0  # an attempt whose engine process died may run for some more seconds
# A worker process is used for many tasks, and loading a model takes longer than a small file.
taggers: dict[tuple[WorkerModel, TagOptions], Tagger] = {}


def process_tagger(model: WorkerModel, options: TagOptions, fetch: Callable[[], bytes]) -> Tagger:
    """
    Return the tagger of this process for a model and options; it is loaded once.

    :param options: ``threads`` is the number of processors that the engine gives to this process
    :param fetch: returns the archive of the model that was sent
    :raises ModelError: when the model here is another one than where the run was started
    """
    if (model, options) not in taggers:
        # The tokenizer has threads of its own, by default one per processor.
        os.environ.setdefault("RAYON_NUM_THREADS", str(options.threads or 1))
        bundle = load_bundle(model.folder(fetch))
        model.check(bundle)
        taggers[model, options] = Tagger(bundle, options)
    return taggers[model, options]


def check_columns(names: Sequence[str], options: TagOptions, *, replace_column: bool) -> None:
    """
    Check the names of columns before any worker starts.

    :param names: names of the columns of the data
    :raises InputError: when a text column is missing
    :raises OptionError: when a text column has lists of texts
    :raises OutputError: when a new column exists and may not be replaced
    """
    text_columns = options.columns_of_texts("tag() for Ray and Spark")
    missing = next((name for name in text_columns if name not in names), None)
    if missing is not None:
        raise InputError(
            f"the data has no column {missing!r}; the columns are: {', '.join(names)}",
            reason="column-missing",
            column=missing,
            found=", ".join(names),
        )

    taken = next((name for name in options.new_columns if name in names), None)
    if taken is not None and not replace_column:
        remedy = "choose another name, or pass replace_column=True"
        raise OutputError(column_exists("the data", taken, remedy), reason="column-exists", column=taken)


def tag_table(tagger: Tagger, table: pa.Table, *, replace_column: bool) -> pa.Table:
    """
    Return a table with the entities columns added.

    :raises NerdError: as :meth:`Tagger.tag_batch` does
    """
    # An empty table has no batch, but its result needs the new column too.
    batches = table.to_batches(max_chunksize=BATCH_ROWS) or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    return pa.Table.from_batches([tagger.tag_batch(batch, replace_column=replace_column) for batch in batches])


@dataclass(frozen=True)
class Outcome:
    """
    The result of one file.

    :param report: counts of what was done
    :param error: why the file failed, or None; a retry would fail in the same way
    :param peak_rss_bytes: maximum resident size of the worker so far
    """

    report: TagReport
    error: NerdError | None
    peak_rss_bytes: int

    def to_json(self) -> str:
        """Return the outcome as JSON, for engines that cannot carry Python objects."""
        error = self.error and [type(self.error).__name__, str(self.error), self.error.reason, self.error.fields]
        return json.dumps({"report": asdict(self.report), "error": error, "peak_rss_bytes": self.peak_rss_bytes})

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """Return the outcome that :meth:`to_json` wrote; the error has its class again."""
        facts = json.loads(text)
        error = None
        if facts["error"] is not None:
            name, message, reason, fields = facts["error"]
            error = restored(getattr(errors, name, NerdError), (message,), {"reason": reason, "fields": fields})

        return cls(TagReport(**facts["report"]), error, facts["peak_rss_bytes"])


@dataclass(frozen=True)
class FileTasks:
    """
    The files of a run. One worker tags each file in the same way as a local run.

    A worker that takes over from one that died resumes from the rows that were saved.

    :param model: where a worker finds the model
    :param options: options of tagging; ``threads`` is the number of processors per worker
    :param jobs: one job per file
    """

    model: WorkerModel
    options: TagOptions
    jobs: Sequence[TagJob]

    def run(self, number: int, fetch: Callable[[], bytes]) -> Outcome:
        """
        Tag a file and return its outcome; an error of the file is part of the outcome and is not raised.

        :param number: index of the file in ``jobs``
        :param fetch: returns the archive of the model that was sent
        """
        job = self.jobs[number]
        report, error = TagReport(), None

        # An error that is returned is not tried again; a retry would only repeat it.
        try:
            make_folder_for(job.output_place)
            report = _tag_when_free(process_tagger(self.model, self.options, fetch), job)
        except NerdError as err:
            error = err

        return Outcome(report, error, peak_rss_bytes())

    def with_threads(self, threads: int) -> FileTasks:
        """Return the same tasks for workers with this number of processors."""
        return replace(self, options=replace(self.options, threads=threads))


def _tag_when_free(tagger: Tagger, job: TagJob) -> TagReport:
    """
    Tag a file as soon as no other process writes it; an earlier attempt may still be ending.

    A process stops when its parent dies: it no longer belongs to an engine, and another attempt waits for its file.
    """
    end, parent = time.monotonic() + _BUSY_S, os.getppid()

    while True:
        try:
            return tag_files(tagger, job, stop=lambda: None if os.getppid() == parent else signal.SIGTERM)
        except BusyError:
            if time.monotonic() > end:
                raise

        time.sleep(0.5)
