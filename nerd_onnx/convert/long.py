"""Convert a tagged file from the nested to the long layout, one row per entity, without tagging it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from nerd_onnx.formats.columns import entities_type, schema_metadata
from nerd_onnx.formats.interfaces import Format
from nerd_onnx.formats.layouts import Layout
from nerd_onnx.formats.open_output import open_writer
from nerd_onnx.formats.tagged_file import TaggedFile, TaggedRow
from nerd_onnx.storage.location import Location

_TYPE = entities_type(with_fine=True)


def write_long(
    file: TaggedFile,
    path: Location,
    format: Format,  # noqa: A002 - the option's name
    key: str | None,
    *,
    overwrite: bool,
    on_row: Callable[[TaggedRow], object],
) -> None:
    """
    Write the entities of a file, each with the key of its row; offsets are in code points.

    :param path: the output
    :param key: column used as the key; None for the number of the row
    :param on_row: called for each row that was read
    :raises NerdError: if there is no such key column, or the output cannot be written
    """
    layout = Layout(pa.field(file.column, _TYPE), "long", key=key, text_columns=(file.text_column,))
    kind = layout.results.type

    # Checked before the first row is read, because conversions of large files take long.
    layout.check_names()
    layout.check_key(file.source)
    metadata = schema_metadata(file.column, offset_unit="codepoint", **layout.facts)

    with open_writer(
        path,
        format=format,
        source=file.source,
        layout=layout,
        entities_metadata=metadata,
        replace=False,
        overwrite=overwrite,
    ) as writer:
        for batch, found in file.batches():
            rows = list(found)

            # By number, because a row with a list of texts comes as several: one for each element.
            entities: dict[int, list[dict[str, Any]]] = {batch.number(i): [] for i in range(batch.num_rows)}
            for row in rows:
                entities[row.number] += _values(row)

            writer.write(batch, pa.array(list(entities.values()), kind))
            for row in rows:
                on_row(row)


def _values(row: TaggedRow) -> Iterator[dict[str, Any]]:
    for entity in row.entities or ():
        text = (row.text or "")[entity.start : entity.end]
        yield {
            "element": row.element,
            "start": entity.start,
            "end": entity.end,
            "label": entity.label,
            "fine_label": entity.fine_label,
            "score": entity.score,
            "text": text,
        }
