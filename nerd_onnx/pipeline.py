"""File to file: source, tagger and sink as one chain of generators."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import Any

from nerd_onnx.tables.rows import Format, RowBatch
from nerd_onnx.tables.sinks import check_output, open_sink, output_format
from nerd_onnx.tables.sources import Source, detect_format, open_source
from nerd_onnx.tagger import TaggedTexts, Tagger

BATCH_ROWS = 2048
BATCH_BYTES = 1 << 19
_KIB = 1024
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class FileJob:
    """
    What to tag and where to put it.

    :param input: a file, or ``-`` for standard input
    :param output: a file, or ``-`` for standard output
    :param input_format: None to tell it by suffix and content
    :param output_format: None to tell it by suffix, else the input's
    :param limit: stop after so many rows
    :param overwrite: an existing output may be replaced
    :param overwrite_column: an existing column of the new name may be replaced
    """

    input: str
    output: str
    input_format: Format | None = None
    output_format: Format | None = None
    limit: int | None = None
    overwrite: bool = False
    overwrite_column: bool = False


@dataclass
class TagReport:
    """
    What a run did. Times are wall times in seconds, memory in bytes, rates per second of tagging.

    :param null_rows: rows without text, whose entities are null
    """

    rows: int = 0
    null_rows: int = 0
    entities: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Give the report as plain data, as ``--json`` prints it."""
        seconds = max(self.seconds, 1e-9)
        return {
            "status": "done",
            "rows": self.rows,
            "null_rows": self.null_rows,
            "entities": self.entities,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 4),
            "rows_per_s": round(self.rows / seconds, 2),
            "tokens_per_s": round(self.tokens / seconds, 2),
            "peak_rss_bytes": peak_rss_bytes(),
        }


Progress = Callable[[TagReport, Source], None]


def tag_file(tagger: Tagger, job: FileJob, progress: Progress | None = None) -> TagReport:
    """
    Tag a file: the same rows in the same order, all other columns as they were, and the new one.

    The output appears whole or not at all. Memory depends on the batch, not on the file.

    :param progress: called after every batch that was written
    :raises InputError: when the input cannot be read as asked
    :raises OutputError: when the output cannot be written as asked
    """
    check_output(job.input, job.output, overwrite=job.overwrite)
    format_out = output_format_of(job)
    report = TagReport()
    begin = time.perf_counter()
    with open_job_source(tagger, job, format_out) as source:
        sink = open_sink(
            job.output,
            format=format_out,
            source=source,
            entities_field=tagger.entity_field(),
            entities_metadata=tagger.schema_metadata(),
            replace=job.overwrite_column,
            overwrite=job.overwrite,
        )
        with sink:
            for rows, tagged in _tagged_rows(tagger, source):
                sink.write(rows, tagger.entity_column(tagged))
                _count(report, tagged)
                report.seconds = time.perf_counter() - begin
                if progress is not None:
                    progress(report, source)
    report.seconds = time.perf_counter() - begin
    return report


def output_format_of(job: FileJob) -> Format:
    """Tell the output's format: as asked, by its name, else the input's."""
    return output_format(job.output, job.output_format, lambda: detect_format(job.input, job.input_format))


def peak_rss_bytes() -> int:
    """
    Give the largest resident size of this process so far; 0 where the system does not tell.

    On Linux it is read from ``/proc``: ``getrusage`` counts the memory of the process that started this one too.
    """
    if _STATUS.is_file():
        found = re.search(r"^VmHWM:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        return int(found[1]) * _KIB if found else 0
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KIB


def open_job_source(tagger: Tagger, job: FileJob, format_out: Format) -> Source:
    """Open the job's input as its output needs it: JSON Lines get types only when they become Parquet."""
    return open_source(
        job.input,
        format=job.input_format,
        text_column=tagger.options.text_column,
        typed=format_out == "parquet",
        batch_rows=BATCH_ROWS,
        batch_bytes=BATCH_BYTES,
        limit=job.limit,
    )


def _tagged_rows(tagger: Tagger, source: Source) -> Iterator[tuple[RowBatch, TaggedTexts]]:
    """Pair each batch of rows with its entities; the tagger reads one batch ahead."""
    for_tagger, for_sink = tee(source.batches())
    return zip(for_sink, tagger.tag_stream(rows.texts.to_pylist() for rows in for_tagger), strict=True)


def _count(report: TagReport, tagged: TaggedTexts) -> None:
    report.rows += len(tagged.texts)
    report.null_rows += sum(text is None for text in tagged.texts)
    report.entities += len(tagged.spans)
    report.tokens += tagged.tokens
