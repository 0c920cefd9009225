"""One file: source, tagger and sink as one chain of generators."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

import pyarrow as pa

from nerd_onnx.durability.results import ResultLog, Results, misfit
from nerd_onnx.formats.base import Format, RowBatch, Sink
from nerd_onnx.formats.layouts import Layout
from nerd_onnx.formats.readers import Source, detect_format, open_source
from nerd_onnx.formats.registry import format_named
from nerd_onnx.formats.writers import open_sink, output_format, terminal_format
from nerd_onnx.tagger import TaggedTexts, Tagger, TagOptions
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.finished_outputs import OPTIONS_FACT
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.job_fingerprint import options_of
from nerd_onnx.tagging.memory_limits import Limits
from nerd_onnx.tagging.rejected_rows import reasons_field

BATCH_ROWS = 2048


def output_format_of(job: TagJob, pair: FilePair) -> Format:
    """Tell an output's format: as asked, by its name, else the input's."""
    asked = job.output_format or terminal_format(pair.output, job.layout)
    return output_format(pair.output, asked, lambda: detect_format(pair.input, job.input_format))


def batch_rows_of(job: TagJob) -> int:
    """Choose how many rows are read at a time: no more than may be lost."""
    return min(BATCH_ROWS, job.chunk_rows or BATCH_ROWS)


def limits_of(tagger: Tagger, job: TagJob) -> Limits:
    """Choose the sizes that keep a job in its memory."""
    return Limits.of(job.max_memory, tagger.bundle.model_file.stat().st_size)


def layout_of(tagger: Tagger, job: TagJob) -> Layout:
    """
    Tell where the entities are to stand; wide columns are named by their labels, behind ``--column`` where it is given.

    :raises OptionError: when the names of the new columns do not fit
    """
    column = tagger.options.column
    prefix = "" if column == TagOptions.column else f"{column}_"
    layout = Layout(tagger.entity_field(), job.layout, tagger.kept_types, prefix, job.key)
    layout.check_names(tagger.options.text_column)
    return layout


def output_metadata(tagger: Tagger, job: TagJob) -> dict[str, str]:
    """Give what an output's schema says of what made it: see :meth:`Tagger.schema_metadata`, and the options."""
    options = {**options_of(tagger, job), "--on-error": job.on_error}
    return tagger.schema_metadata(**layout_of(tagger, job).facts, **{OPTIONS_FACT: json.dumps(options)})


def open_pair_source(tagger: Tagger, job: TagJob, pair: FilePair) -> Source:
    """
    Open an input as its output needs it: JSON Lines get types only when they become Parquet.

    :raises InputError: when it cannot be read as asked, or has not the key of its rows
    """
    limits = limits_of(tagger, job)
    source = open_source(
        pair.input,
        format=job.input_format,
        text_column=tagger.options.text_column,
        typed=format_named(output_format_of(job, pair)).has_types,
        batch_rows=batch_rows_of(job),
        batch_bytes=limits.batch,
        line_bytes=limits.line,
        limit=job.limit,
        lenient=job.on_error != "fail",
    )
    try:
        layout_of(tagger, job).check_key(source)
    except BaseException:
        source.close()
        raise
    return source


def open_pair_sink(
    tagger: Tagger,
    job: TagJob,
    pair: FilePair,
    source: Source,
    metadata: Mapping[str, str],
    *,
    overwrite: bool,
    scratch: str | None,
) -> Sink:
    """
    Open an output for the rows of its source.

    :param metadata: joins that of its schema, see :func:`output_metadata`
    """
    return open_sink(
        pair.output,
        format=output_format_of(job, pair),
        source=source,
        layout=layout_of(tagger, job),
        entities_metadata=metadata,
        replace=job.overwrite_column,
        overwrite=overwrite,
        reasons_field=reasons_field(job, tagger.options.column),
        scratch=scratch,
        group_bytes=limits_of(tagger, job).group,
        text_column=tagger.options.text_column,
    )


class TagStream(Protocol):
    """Tags batch after batch of texts, in order, as :meth:`Tagger.tag_stream` does."""

    def __call__(self, batches: Iterable[Sequence[str | None]], *, lenient: bool) -> Iterator[TaggedTexts]:
        """Tag them."""


def tagged_batches(
    tagger: Tagger, batches: Iterator[RowBatch], log: ResultLog | None, tag_stream: TagStream, *, lenient: bool
) -> Iterator[tuple[RowBatch, Results]]:
    """
    Pair each batch of rows with its results: stored ones first, then new ones, which are stored too.

    The tagger reads one batch ahead.

    :param tag_stream: finds the entities
    :param log: stores the results; None for rows that cannot be read again
    :param lenient: a text that the model fails on gets a reason instead of ending the run
    :raises OutputError: when what is stored does not fit the rows
    """
    if log is not None:
        for stored in log.stored():
            rows = next(batches, None)
            if rows is None or rows.num_rows != len(stored):
                raise misfit(log.output)
            yield rows, stored
    waiting: deque[RowBatch] = deque()
    for results in map(partial(_results, tagger), tag_stream(_texts(batches, waiting), lenient=lenient)):
        if log is not None:
            log.append(results)
        yield waiting.popleft(), results


def selected(batches: Iterator[RowBatch], numbers: Container[int] | None) -> Iterator[RowBatch]:
    """Keep the rows of some numbers; None keeps all."""
    return batches if numbers is None else (rows.only(numbers) for rows in batches)


def _texts(batches: Iterator[RowBatch], waiting: deque[RowBatch]) -> Iterator[list[str | None]]:
    """
    Yield the texts of each batch.

    :param waiting: takes the batches
    """
    for rows in batches:
        waiting.append(rows)
        yield rows.texts.to_pylist()


def _results(tagger: Tagger, tagged: TaggedTexts) -> Results:
    return Results(tagger.entity_column(tagged), _reasons(tagged), tagged.tokens)


def _reasons(tagged: TaggedTexts) -> pa.Array:
    return pa.array([tagged.reasons.get(i) for i in range(len(tagged.texts))], pa.string())
