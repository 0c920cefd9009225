"""The pipeline of one file: open its source and writer, and tag its batches of rows."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nerd_onnx.durability.chunks import Results
from nerd_onnx.durability.fingerprints import texts_fingerprint
from nerd_onnx.durability.stored_results import ResultLog, results_mismatch
from nerd_onnx.errors import InputError
from nerd_onnx.formats.column_types import ALL_TEXT
from nerd_onnx.formats.columns import joined_elements
from nerd_onnx.formats.interfaces import RowBatch, Writer
from nerd_onnx.formats.open_input import Reader, detect_format, open_reader
from nerd_onnx.formats.open_output import open_writer
from nerd_onnx.formats.registry import format_named
from nerd_onnx.formats.text_arrays import column_of, each_text, has_elements, text_bounds, text_objects
from nerd_onnx.inference.arrays import Ints
from nerd_onnx.options import TaggedTexts
from nerd_onnx.stages import stage
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.plan import Plan


@stage("read")
def open_pair_reader(plan: Plan, pair: FilePair, *, texts_only: bool = False) -> Reader:
    """
    Open an input as its output needs it: JSON Lines get typed columns only if they become Parquet.

    :param texts_only: only the texts are needed, so no column is converted
    :raises InputError: if it cannot be read as asked, or lacks the column given as ``--key``
    """
    job = plan.job
    written = detect_format(pair.input, job.input_format) if texts_only else plan.output_format(pair)

    rewrites = not texts_only and plan.rewritten_because(pair)
    has_types = not texts_only and format_named(written).holds_types

    # Without names of new columns the reader decodes all columns, because they are written again. With names, or an
    # empty list of them, it decodes the texts alone.
    source = open_reader(
        pair.input,
        format=job.input_format,
        text_column=plan.tagger.options.text_columns,
        typed=format_named(written).has_types,
        batch_rows=plan.batch_rows,
        batch_bytes=plan.limits.batch,
        line_bytes=plan.limits.line,
        limit=job.limit,
        lenient=plan.is_lenient,
        mixed_as_json=job.mixed == "json",
        column_types=job.csv_types if has_types else ALL_TEXT,
        added_columns=None if rewrites else () if texts_only else plan.added_columns,
    )

    try:
        plan.layout.check_key(source)
    except BaseException:
        source.close()
        raise

    return source


def open_pair_writer(plan: Plan, pair: FilePair, source: Reader, *, overwrite: bool, scratch: str | None) -> Writer:
    """
    Open an output for the rows of its source.

    :param overwrite: an existing output may be replaced
    :param scratch: folder for the unfinished output
    """
    return open_writer(
        pair.output,
        format=plan.output_format(pair),
        source=source,
        layout=plan.layout,
        entities_metadata=plan.metadata,
        replace=plan.job.overwrite_column,
        overwrite=overwrite,
        reasons_field=plan.reasons_field,
        scratch=scratch,
        group_bytes=plan.limits.group,
        text_columns=plan.tagger.options.text_columns,
    )


def rewritten_because(plan: Plan, pair: FilePair, source: Reader) -> str:
    """Return why columns that might be copied are rewritten; empty if they are copied, or no format copies them."""
    can_copy = format_named(plan.output_format(pair)).copies_columns
    if not can_copy or source.copied is not None or source.rewritten_because is None:
        return ""
    return plan.rewritten_because(pair) or source.rewritten_because


class TagStream(Protocol):
    """Tags batch after batch of rows, in order, as :meth:`Tagger.tag_items` does."""

    def __call__(
        self, items: Iterable[tuple[RowBatch, Sequence[str | None]]], *, lenient: bool
    ) -> Iterator[tuple[RowBatch, TaggedTexts]]:
        """Yield each batch with the entities of its texts."""


def tagged_batches(
    plan: Plan, pair: FilePair, batches: Iterator[RowBatch], log: ResultLog | None, tag_stream: TagStream
) -> Iterator[tuple[RowBatch, Results]]:
    """
    Yield each batch of rows with its results: first those that an interrupted run stored, then new ones.

    At most one batch is read ahead of the one that is yielded.

    :param log: has the stored results and stores the new ones; None if the rows cannot be read a second time
    :param tag_stream: finds the entities
    :raises InputError: if the rows of stored results have other texts than those that were tagged
    :raises OutputError: if the stored results do not match the rows
    """
    new = _new_results(plan, batches, log, tag_stream)
    return new if log is None else chain(_stored_results(pair, batches, log), new)


def _stored_results(pair: FilePair, batches: Iterator[RowBatch], log: ResultLog) -> Iterator[tuple[RowBatch, Results]]:
    """Yield a batch of rows for each stored batch of results."""
    for results in log.stored():
        rows = next(batches, None)
        if rows is None or rows.num_rows != len(results):
            raise results_mismatch(log.output)

        # The file's own fingerprint covers its ends and its times. Only the texts show that a result is of this row.
        if _fingerprint(rows) != results.texts:
            raise _texts_changed(pair, rows)

        yield rows, results


def _new_results(
    plan: Plan, batches: Iterator[RowBatch], log: ResultLog | None, tag_stream: TagStream
) -> Iterator[tuple[RowBatch, Results]]:
    """Tag the batches that are left, and store their results."""
    items = ((rows, text_objects_of(rows)) for rows in batches)
    for rows, tagged in tag_stream(items, lenient=plan.is_lenient):
        results = _results(plan, rows, tagged)
        # Else its texts, which may be long, would be kept until the next batch is tagged.
        del tagged

        if log is not None:
            results = replace(results, texts=_fingerprint(rows))
            log.append(results)
        yield rows, results


def text_objects_of(rows: RowBatch) -> list[str | None]:
    """Return the texts of rows: all those of the first text column, then those of the second, and so on."""
    return [text for texts in rows.all_texts for text in text_objects(each_text(texts))]


def _results(plan: Plan, rows: RowBatch, tagged: TaggedTexts) -> Results:
    """
    Return the results of a batch of rows.

    With several text columns, the entities are a struct of one list column per text column. A row that failed in one
    of them, or in one element of a list, has no entities in any.

    :param tagged: the texts of the first text column, then those of the second, and so on
    """
    entities, names, first = plan.tagger.entity_column(tagged), plan.tagger.options.text_columns, 0
    columns: list[pa.Array] = []
    failed: dict[int, str] = {}
    for name, texts in zip(names, rows.all_texts, strict=True):
        bounds = text_bounds(texts)
        count = int(bounds[-1])

        found = entities.slice(first, count)
        columns.append(joined_elements(found, texts) if has_elements(name) else found)

        column = f"column {column_of(name)!r}: " if len(names) > 1 else ""
        for row, why in _failures(tagged.reasons, first, bounds, by_element=has_elements(name)):
            failed.setdefault(row, column + why)
        first += count

    # A row is rejected as a whole, also if only one of its texts failed.
    mask = pa.array([row in failed for row in range(rows.num_rows)], pa.bool_())
    joined = columns[0]
    if len(names) > 1:
        joined = pa.StructArray.from_arrays(columns, fields=list(plan.layout.results.type), mask=mask)
    elif has_elements(names[0]) and failed:
        joined = pc.if_else(mask, pa.scalar(None, joined.type), joined)

    reasons = pa.array([failed.get(row) for row in range(rows.num_rows)], pa.string())
    return Results(joined, reasons, tagged.tokens)


def _failures(reasons: Mapping[int, str], first: int, bounds: Ints, *, by_element: bool) -> Iterator[tuple[int, str]]:
    """
    Yield the rows of a text column that have a text that failed, and why; a row with several such texts several times.

    :param reasons: why texts failed, by their index among all tagged texts
    :param first: index of the column's first text
    :param bounds: first text of each row, counted within the column, and the total at the end. *Shape:* (rows + 1,)
    :param by_element: a row has a list of texts, so the reason names the element
    """
    for i, why in sorted(reasons.items()):
        place = i - first
        if 0 <= place < bounds[-1]:
            row = int(np.searchsorted(bounds, place, side="right")) - 1
            yield row, f"element {place - bounds[row]}: {why}" if by_element else why


def _fingerprint(rows: RowBatch) -> str:
    """Return the fingerprint of the texts of rows; with several text columns, one per column."""
    return " ".join(map(texts_fingerprint, rows.all_texts))


def _texts_changed(pair: FilePair, rows: RowBatch) -> InputError:
    """Return the error for rows whose texts are not those that the interrupted run tagged."""
    name, place = input_name(pair.input), rows.place(0)
    changed = f"{place} and the {rows.num_rows - 1} rows after it" if rows.num_rows > 1 else place
    return InputError(
        f"{name}: the texts of {changed} are not those that were tagged; restore the file, or start again with "
        "--overwrite",
        reason="input-changed",
        file=name,
        row=rows.shown_number(0),
        changed="texts",
    )


def selected(batches: Iterator[RowBatch], numbers: Container[int] | None) -> Iterator[RowBatch]:
    """Yield the batches with only the rows of the given numbers; None keeps all rows."""
    return batches if numbers is None else (rows.only(numbers) for rows in batches)
