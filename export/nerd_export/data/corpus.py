"""Read labelled sentences from the hub, Parquet, JSON Lines or CoNLL columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nerd_onnx.errors import Field, TrainingDataError, first_line

TOKENS_COLUMN = "tokens"
TIER_COLUMN = "tier"
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
    """

    where: str
    tokens: Sequence[str | None] | None
    tags: Sequence[str | int | None] | None
    tier: object = None


@dataclass(frozen=True)
class Split:
    """
    The rows of one split.

    :param source: where it was read from
    :param rows: its sentences in file order
    :param tag_names: names of integer tags, if the source stores them
    """

    source: str
    rows: tuple[Row, ...]
    tag_names: tuple[str, ...] | None = None


def find_split_file(folder: Path, split: str) -> Path | None:
    """Return the file of a split in a folder, such as ``train.parquet`` or ``dev.conll``; None without one."""
    # Data sets name their validation file in several ways; the usual name comes first.
    for stem in SPLIT_FILES[split]:
        for suffix in SUFFIXES:
            path = folder / f"{stem}{suffix}"
            if path.is_file():
                return path
    return None


def read_file(path: Path, tag_column: str) -> Split:
    """
    Read one labelled file; its suffix determines the format.

    :raises TrainingDataError: when it is missing, of an unknown format, damaged, or lacks a column
    """
    if not path.is_file():
        raise TrainingDataError(
            f"{path}: no such file; give a .parquet, .jsonl or .conll file of labelled sentences",
            reason="missing-file",
            file=str(path),
        )

    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path, tag_column)
    if suffix in (".jsonl", ".json"):
        return Split(str(path), tuple(_json_rows(path, tag_column)))
    if suffix in (".conll", ".txt", ".tsv"):
        return Split(str(path), tuple(_conll_rows(path)))

    raise TrainingDataError(
        f"{path}: unknown file format {suffix!r}; expected one of {', '.join(SUFFIXES)}",
        reason="unknown-format",
        file=str(path),
        found=suffix,
    )


def read_hub(dataset: str, config: str, split: str, tag_column: str) -> Split:
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

    _require_columns(source, data.column_names, tag_column, file=source)
    columns = [TOKENS_COLUMN, tag_column, *({TIER_COLUMN} & set(data.column_names))]
    rows = zip(*(data[name] for name in columns), strict=True)

    return Split(
        source,
        tuple(Row(f"{source}, row {i}", *row) for i, row in enumerate(rows)),
        _class_label_names(data.features, tag_column),
    )


def _read_parquet(path: Path, tag_column: str) -> Split:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        _require_columns(str(path), schema.names, tag_column, file=str(path))
        # Only these: other columns of a data set may be large or of types that fail to convert.
        columns = [TOKENS_COLUMN, tag_column, *({TIER_COLUMN} & set(schema.names))]
        table = pq.read_table(path, columns=columns)
    except (pa.ArrowInvalid, OSError) as err:
        raise TrainingDataError(
            f"{path}: is not a Parquet file, or is damaged: {first_line(err)}", reason="not-parquet", file=str(path)
        ) from err

    names = _class_label_names(datasets.Features.from_arrow_schema(schema), tag_column)
    rows = zip(*(table[name].to_pylist() for name in columns), strict=True)

    return Split(str(path), tuple(Row(f"{path}, row {i}", *row) for i, row in enumerate(rows)), names)


def _class_label_names(features: Any, tag_column: str) -> tuple[str, ...] | None:
    """Return the names of a ``Sequence(ClassLabel)`` column; None for a column of strings."""
    # Integers without names are possible in both formats; --label-names gives names then.
    feature = getattr(features[tag_column], "feature", None)
    names = getattr(feature, "names", None)
    return tuple(names) if names else None


def _json_rows(path: Path, tag_column: str) -> Iterator[Row]:
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
                    f"{where}: expected an object with {TOKENS_COLUMN!r} and {tag_column!r}",
                    reason="not-object",
                    file=str(path),
                    row=number,
                )
            _require_columns(where, list(record), tag_column, file=str(path), row=number)
            yield Row(where, record[TOKENS_COLUMN], record[tag_column], record.get(TIER_COLUMN))


def _conll_rows(path: Path) -> Iterator[Row]:
    """Yield the sentences of a CoNLL file: first column word, last column tag; a blank line ends a sentence."""
    tokens: list[str] = []
    tags: list[str] = []
    first_line = 0

    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(_decoded(path, lines), 1):
            fields = line.split()
            if fields and fields[0] != "-DOCSTART-":
                if len(fields) == 1:
                    raise TrainingDataError(
                        f"{path}, line {number}: {line.strip()!r} has one column; expected word and tag",
                        reason="tag-missing",
                        file=str(path),
                        row=number,
                    )
                first_line = first_line or number
                tokens.append(fields[0])
                tags.append(fields[-1])
            elif tokens:
                yield Row(f"{path}, line {first_line}", tokens, tags)
                tokens, tags, first_line = [], [], 0

    if tokens:
        yield Row(f"{path}, line {first_line}", tokens, tags)


def _decoded(path: Path, lines: Iterator[str]) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as err:
        raise TrainingDataError(
            f"{path}: is not UTF-8 ({err.reason}); convert the file first", reason="not-utf8", file=str(path)
        ) from err


def _require_columns(where: str, columns: Sequence[str], tag_column: str, **place: Field) -> None:
    missing = [name for name in (TOKENS_COLUMN, tag_column) if name not in columns]
    if missing:
        raise MissingColumnError(
            f"{where}: no column {' and '.join(missing)}; the columns are: {', '.join(columns)}",
            reason="column-missing",
            column=missing[0],
            found=", ".join(columns),
            **place,
        )
