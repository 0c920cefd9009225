"""Compare a finished output with its input and the options, if there is no journal with its fingerprint."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.formats.finished_files import incomplete_output
from nerd_onnx.formats.open_input import Reader, open_reader
from nerd_onnx.formats.registry import format_named
from nerd_onnx.formats.text_arrays import has_lists, text_objects
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.output_place import output_name
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.pipeline import open_pair_reader
from nerd_onnx.tagging.plan import Plan

_Row = tuple[object, ...]


def check_new_columns(plan: Plan, pair: FilePair) -> None:
    """
    Check that the first rows of an output have the new columns: it may be a copy of the input.

    Not looked at where the metadata of a format says more, or for the long layout.

    :raises OutputError: if it lacks one, or cannot be read
    """
    format = format_named(plan.output_format(pair))  # noqa: A001 - the option's name
    new = [field.name for field in plan.layout.fields]
    if not new or not format.shows_columns:
        return

    try:
        with _opened_output(plan, pair) as made:
            names = made.column_names or new  # without rows, JSON Lines has no names
    except InputError as err:
        raise incomplete_output(pair.output, format.title) from err
    missing = next((name for name in new if name not in names), None)
    if missing is not None:
        raise OutputError(
            f"{output_name(pair.output)}: already exists, but has no {missing!r}, which this run would add; move it "
            "away and write it again with --resume, or write all files again with --overwrite",
            reason="no-new-column",
            file=output_name(pair.output),
            column=missing,
        )


def check_same_rows(plan: Plan, pair: FilePair) -> None:
    """
    Check that an output has the texts of its input, row by row.

    Not looked at where the options leave rows out or write others: a rejected row, a retried row, the long layout.

    :raises OutputError: if it has others, or more, or fewer
    :raises InputError: if the input cannot be read
    """
    if plan.is_lenient or plan.retried is not None or plan.layout.is_long:
        return

    with open_pair_reader(plan, pair, texts_only=True) as source:
        rows = zip_longest(_rows(source), _output_rows(plan, pair))
        different = next((number for number, (asked, found) in enumerate(rows) if asked != found), None)
    if different is not None:
        raise _other_rows(pair, different)


def _rows(source: Reader) -> Iterator[_Row]:
    """Yield the texts of each row."""
    for batch in source.batches():
        columns = (texts.to_pylist() if has_lists(texts) else text_objects(texts) for texts in batch.all_texts)
        yield from zip(*columns, strict=True)


def _output_rows(plan: Plan, pair: FilePair) -> Iterator[_Row]:
    """Yield the texts of each row of the output; what cannot be read ends them."""
    try:
        with _opened_output(plan, pair) as made:
            yield from _rows(made)
    except InputError:
        return


def _opened_output(plan: Plan, pair: FilePair) -> Reader:
    return open_reader(
        pair.output,
        format=plan.output_format(pair),
        text_column=plan.tagger.options.text_columns,
        typed=False,
        batch_rows=plan.batch_rows,
        batch_bytes=plan.limits.batch,
        limit=None,
        added_columns=(),
    )


def _other_rows(pair: FilePair, row: int) -> OutputError:
    return OutputError(
        f"{output_name(pair.output)}: already exists, but does not have the texts of {input_name(pair.input)}, from "
        f"row {row} on; move it away and write it again with --resume, or write all files again with --overwrite",
        reason="other-rows",
        file=output_name(pair.output),
        input=input_name(pair.input),
        row=row,
    )
