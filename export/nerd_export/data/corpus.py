"""Read labelled sentences from the hub, Parquet, JSON Lines or CoNLL columns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nerd_export.data.span_data import SPAN_COLUMNS, TEXT_COLUMN, tagged_sentences
from nerd_onnx.errors import Field, TrainingDataError, first_line
from nerd_onnx.inference.labels import OUTSIDE

TOKENS_COLUMN = "tokens"
TIER_COLUMN = "tier"
KNOWN_COLUMN = "known_types"
SPLIT_COLUMN = "split"
_SHORTEST = 2  # columns of a line with a word: word and tag
_COMMENT = re.compile(r"#\s*[\w.-]+\s*[=:]")
_OPTIONAL = (TIER_COLUMN, KNOWN_COLUMN, SPLIT_COLUMN)
TAG_COLUMNS = {"coarse": "ner_tags", "fine": "fine_ner_tags"}
SPLIT_FILES = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
SUFFIXES = (".parquet", ".jsonl", ".json", ".conll", ".txt", ".tsv")


class MissingColumnError(TrainingDataError):
    """A file has no column of words, or none of the requested tags."""


@dataclass(frozen=True)
class Row:
    """
    One sentence as it is in the file, not yet checked.

    :param where: file and row or line, for messages
    :param tokens: words; null where the file has null
    :param tags: one tag per word, as names or ClassLabel integers
    :param tier: the file's name for the quality of its labels
    :param text: the text that the words were cut from, and the characters of each word in it as ``places``; None for
        words without a text
    :param known_types: the coarse types that the sentence is labelled for; None for all
    :param split: the file's name for the split of the sentence
    """

    where: str
    tokens: Sequence[str | None] | None
    tags: Sequence[str | int | None] | None
    tier: object = None
    text: str | None = None
    places: Sequence[tuple[int, int]] | None = None
    known_types: object = None
    split: object = None


@dataclass(frozen=True)
class Split:
    """
    The rows of one split.

    :param source: where it was read from
    :param rows: its sentences in file order
    :param tag_names: names of integer tags, if the source stores them
    :param is_coarse: whether fine tags were wanted, and the source has only coarse ones
    """

    source: str
    rows: tuple[Row, ...]
    tag_names: tuple[str, ...] | None = None
    is_coarse: bool = False

    def part(self, name: str) -> Split:
        """Return the rows whose column ``split`` names this split; all rows if the source has no such column."""
        if all(row.split is None for row in self.rows):
            return self
        return replace(self, rows=tuple(row for row in self.rows if row.split in SPLIT_FILES.get(name, (name,))))


def find_split_file(folder: Path, split: str) -> Path | None:
    """Return the file of a split in a folder, such as ``train.parquet`` or ``dev.conll``; None without one."""
    # Data sets name their validation file in several ways; the usual name comes first.
    for stem in SPLIT_FILES[split]:
        for suffix in SUFFIXES:
            path = folder / f"{stem}{suffix}"
            if path.is_file():
                return path
    return None


def read_file(path: Path, tag_column: str, words_column: str = TOKENS_COLUMN) -> Split:
    """
    Read one labelled file; its suffix determines the format.

    :param tag_column: column of the tags; CoNLL files have no names of columns
    :param words_column: column of the words
    :raises TrainingDataError: when it is missing, of an unknown format, damaged, or lacks a column
    """
    if not path.is_file():
        raise TrainingDataError(
            f"{path}: no such file; give a .parquet, .jsonl or .conll file of labelled sentences",
            reason="missing-file",
            file=str(path),
        )

    suffix = path.suffix.lower()
    # Before the suffix decides, because Parquet and JSON Lines may have texts with spans instead of words with tags.
    if (text_columns := _text_columns(path, tag_column, words_column)) is not None:
        return Split(str(path), tuple(_text_rows(path, *text_columns, fine=tag_column == TAG_COLUMNS["fine"])))
    if suffix == ".parquet":
        return _read_parquet(path, tag_column, words_column)
    if suffix in (".jsonl", ".json"):
        return Split(str(path), tuple(_json_rows(path, tag_column, words_column)))
    if suffix in (".conll", ".txt", ".tsv"):
        return Split(str(path), tuple(_conll_rows(path)))

    raise TrainingDataError(
        f"{path}: unknown file format {suffix!r}; expected one of {', '.join(SUFFIXES)}",
        reason="unknown-format",
        file=str(path),
        found=suffix,
    )


def read_hub(dataset: str, config: str, split: str, tag_column: str, words_column: str = TOKENS_COLUMN) -> Split:
    """
    Read one split of a hub data set with ``datasets``.

    :raises TrainingDataError: when it cannot be fetched or lacks a column
    """
    import datasets

    source = f"{dataset} ({config}, {split})"
    try:
        data = datasets.load_dataset(dataset, config, split=split)
    except Exception as err:
        raise TrainingDataError(
            f"{source}: cannot be loaded: {first_line(err)}. Without a network, give a folder or files: --dataset DIR, "
            "or --train-file and --validation-file",
            reason="cannot-load",
            file=source,
        ) from err

    _require_columns(source, data.column_names, words_column, tag_column, file=source)
    rows = _table_rows(
        source, {name: data[name] for name in _read_columns(data.column_names, words_column, tag_column)}
    )

    return Split(
        source,
        tuple(rows),
        _class_label_names(data.features, tag_column),
    )


def _read_parquet(path: Path, tag_column: str, words_column: str) -> Split:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        _require_columns(str(path), schema.names, words_column, tag_column, file=str(path))
        # Only these: other columns of a data set may be large or of types that fail to convert.
        columns = _read_columns(schema.names, words_column, tag_column)
        table = pq.read_table(path, columns=columns)
    except (pa.ArrowInvalid, OSError) as err:
        raise TrainingDataError(
            f"{path}: is not a Parquet file, or is damaged: {first_line(err)}", reason="not-parquet", file=str(path)
        ) from err

    # datasets stores the names of ClassLabel integers in the metadata of the schema.
    names = _class_label_names(datasets.Features.from_arrow_schema(schema), tag_column)
    rows = _table_rows(str(path), {name: table[name].to_pylist() for name in columns})

    return Split(str(path), tuple(rows), names)


def _text_columns(path: Path, tag_column: str, words_column: str) -> tuple[str, str] | None:
    """Return the columns of texts and spans, if a file has these instead of words and tags."""
    first = _first_record(path)
    if first is None:
        return None

    # With the usual names, a file of texts has no column of words; with other names, that column holds texts.
    text_column = TEXT_COLUMN if words_column == TOKENS_COLUMN and words_column not in first else words_column
    named = () if tag_column in TAG_COLUMNS.values() else (tag_column,)
    spans = next((name for name in (*named, *SPAN_COLUMNS) if name in first), None)
    is_text = text_column in first and not isinstance(first[text_column], list)
    return (text_column, spans) if is_text and spans is not None else None


def _first_record(path: Path) -> Mapping[str, Any] | None:
    """Return the first row of a Parquet or JSON Lines file; None if there is none, or it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix.lower() == ".parquet":
            file = pq.ParquetFile(path)
            found = next(file.iter_batches(1), None)
            # A file without rows has columns, and these say what it is.
            return dict.fromkeys(file.schema_arrow.names) if found is None else found.to_pylist()[0]

        if path.suffix.lower() in (".jsonl", ".json"):
            with path.open(encoding="utf-8") as lines:
                record = json.loads(next((line for line in lines if line.strip()), "null"))
            return record if isinstance(record, dict) else None
    except (OSError, ValueError, pa.ArrowException):
        pass  # the reader of the format says what is wrong

    return None


def _text_rows(path: Path, text_column: str, span_column: str, *, fine: bool) -> Iterator[Row]:
    """
    Yield the sentences of a file of texts with spans.

    :raises MissingColumnError: when fine labels are wanted and no span has one
    """
    has_fine = False
    for place, sentences in tagged_sentences(str(path), text_column, span_column, fine=fine):
        for one in sentences:
            has_fine = has_fine or any(tag not in (None, OUTSIDE) for tag in one.tags)
            yield Row(place, one.words, one.tags, text=one.text, places=one.places)

    if fine and not has_fine:
        raise MissingColumnError(
            f"{path}: no entity in the column {span_column} has a fine_label",
            reason="column-missing",
            file=str(path),
            column="fine_label",
        )


def _read_columns(there: Sequence[str], words_column: str, tag_column: str) -> list[str]:
    """Return the columns to read: words, tags, and those of the optional ones that exist."""
    return [words_column, tag_column, *(name for name in _OPTIONAL if name in there)]


def _table_rows(source: str, columns: Mapping[str, Sequence[Any]]) -> Iterator[Row]:
    """Yield the rows of a table. :param columns: words and tags, then optional columns"""
    optional = {name: values for name, values in columns.items() if name in _OPTIONAL}
    words, tags = list(columns.values())[:2]
    for i, row in enumerate(zip(words, tags, strict=True)):
        yield Row(f"{source}, row {i}", *row, **{name: values[i] for name, values in optional.items()})


def _class_label_names(features: Any, tag_column: str) -> tuple[str, ...] | None:
    """Return the names of a ``Sequence(ClassLabel)`` column; None for a column of strings."""
    # Integers without names are possible in both formats; --label-names gives names then.
    feature = getattr(features[tag_column], "feature", None)
    names = getattr(feature, "names", None)
    return tuple(names) if names else None


def _json_rows(path: Path, tag_column: str, words_column: str) -> Iterator[Row]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(_decoded(path, lines), 1):
            if not line.strip():
                continue

            where = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as err:
                raise TrainingDataError(
                    f"{where}: not JSON: {err.msg} at character {err.colno}",
                    reason="not-json",
                    file=str(path),
                    row=number,
                    character=err.colno,
                ) from err

            if not isinstance(record, dict):
                raise TrainingDataError(
                    f"{where}: expected an object with {words_column!r} and {tag_column!r}",
                    reason="not-object",
                    file=str(path),
                    row=number,
                )

            _require_columns(where, list(record), words_column, tag_column, file=str(path), row=number)
            optional = {name: record.get(name) for name in _OPTIONAL}
            yield Row(where, record[words_column], record[tag_column], **optional)


def _conll_rows(path: Path) -> Iterator[Row]:
    """
    Yield the sentences of a CoNLL file: first column word, last column tag; a blank line ends a sentence.

    Lines that begin with ``#`` before a sentence are comments, unless they have the columns of a word.
    """
    tokens: list[str] = []
    tags: list[str] = []
    first_line = 0
    columns = 0

    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(_decoded(path, lines), 1):
            # Tabs come first: where they separate columns, a word may contain a space.
            fields = line.rstrip("\r\n").split("\t") if "\t" in line.strip() else line.split()

            if not tokens and _is_comment(fields, line, columns):
                continue
            # -DOCSTART- begins a document in the files of CoNLL-2003, and is no word.
            if fields and fields[0].strip() not in ("", "-DOCSTART-"):
                columns = columns or len(fields)
                _check_columns(path, number, fields, columns)
                first_line = first_line or number
                tokens.append(fields[0])
                tags.append(fields[-1])
            elif tokens:
                yield Row(f"{path}, line {first_line}", tokens, tags)
                tokens, tags, first_line = [], [], 0

    if tokens:
        yield Row(f"{path}, line {first_line}", tokens, tags)


def _is_comment(fields: Sequence[str], line: str, columns: int) -> bool:
    """
    Whether a line before a sentence is a comment, such as ``# sent_id = 2``.

    :param columns: number of columns of the words so far; 0 before the first word
    """
    if not line.startswith("#"):
        return False
    if columns:
        return len(fields) != columns
    # Before the first word a comment may have as many columns as the words will have, so its form decides.
    return len(fields) != _SHORTEST or _COMMENT.match(line) is not None


def _check_columns(path: Path, number: int, fields: Sequence[str], columns: int) -> None:
    """
    Check that a line has a word, a tag, and as many columns as the first word of the file.

    :raises TrainingDataError: with the line
    """
    if len(fields) < _SHORTEST:
        raise TrainingDataError(
            f"{path}, line {number}: {' '.join(fields)!r} has one column; expected word and tag",
            reason="tag-missing",
            file=str(path),
            row=number,
        )

    if len(fields) != columns:
        raise TrainingDataError(
            f"{path}, line {number}: {len(fields)} columns; expected {columns}, as in the first line with a word. The "
            "last column is the tag, so a missing or further one gives a wrong tag",
            reason="columns-differ",
            file=str(path),
            row=number,
            found=len(fields),
            expected=columns,
        )


def _decoded(path: Path, lines: Iterator[str]) -> Iterator[str]:
    # Lines are decoded when they are read, so the error comes from the iteration and not from opening the file.
    try:
        yield from lines
    except UnicodeDecodeError as err:
        raise TrainingDataError(
            f"{path}: is not UTF-8 ({err.reason}); convert the file first", reason="not-utf8", file=str(path)
        ) from err


def _require_columns(where: str, columns: Sequence[str], words_column: str, tag_column: str, **place: Field) -> None:
    missing = [name for name in (words_column, tag_column) if name not in columns]
    if missing:
        raise MissingColumnError(
            f"{where}: no column {' and '.join(missing)}; the columns are: {', '.join(columns)}",
            reason="column-missing",
            column=missing[0],
            found=", ".join(columns),
            **place,
        )
