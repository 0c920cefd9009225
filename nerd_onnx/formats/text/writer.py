"""Write rows as text for people: ``Angela Merkel [person] visited Paris [location]``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa

from nerd_onnx.errors import OptionError
from nerd_onnx.formats.atomic_writer import AtomicWriter
from nerd_onnx.formats.columns import METADATA_PREFIX, CodePointOffsets, OffsetUnit
from nerd_onnx.formats.interfaces import RowBatch, WriteOptions
from nerd_onnx.formats.layouts import lists_of
from nerd_onnx.storage.atomic_file import open_target
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import is_terminal, output_errors
from nerd_onnx.terminal import printable

# ANSI codes of foreground colours. Black, white and grey are left out: on some terminals they cannot be seen.
_COLOURS = (36, 33, 32, 35, 34, 31, 96, 93, 92, 95, 94, 91)
_RESET = "\x1b[0m"


class TextWriter(AtomicWriter):
    """
    Rows as text with marked entities, one paragraph per row. Scores and fine labels are not shown. Several text columns
    have a line each, after their name.

    Control characters in texts and labels are escaped. On a terminal each label has its own colour, unless the
    environment variable NO_COLOR is set.

    :param path: a file, or ``-``
    :raises OptionError: if the layout is not the nested one
    :raises OutputError: if the output cannot be written
    """

    def __init__(self, path: Location, options: WriteOptions) -> None:
        layout = options.layout
        if layout.name != "nested":
            raise OptionError(
                f"--output-format text cannot be combined with --layout {layout.name}: it shows the entities inside of "
                "their texts; leave out --layout, or choose another output format",
                reason="text-needs-nested",
                option="--output-format",
            )

        unit = options.entities_metadata.get(f"{METADATA_PREFIX}.{layout.fields[0].name}.offset_unit", "codepoint")
        names = layout.text_columns
        self._begins = [f"{printable(name)}: " for name in names] if len(names) > 1 else [""]

        self._path = path
        self._unit = cast("OffsetUnit", unit)
        self._is_terminal = is_terminal(path)
        self._has_colours = self._is_terminal and not os.environ.get("NO_COLOR")
        self._colours: dict[str, int] = {}
        self._rows = 0
        self._target = open_target(path, overwrite=options.overwrite, spooled=False, scratch=options.scratch)

    def write(self, rows: RowBatch, entities: pa.Array, reasons: pa.Array | None = None) -> None:  # noqa: ARG002
        """
        Write rows with their entities. Reasons are not shown.

        :raises OutputError: if the output cannot be written
        :raises BrokenPipeError: if the reader of standard output closed the pipe
        """
        with output_errors(self._path):
            texts = zip(*(column.to_pylist() for column in rows.all_texts), strict=True)
            lists = zip(*(column.to_pylist() for column in lists_of(entities)), strict=True)
            for row, found in zip(texts, lists, strict=True):
                lines = map(self._line, self._begins, row, found)
                self._target.file.write("".join([*lines, "\n"]).encode())

            if self._is_terminal:  # somebody is waiting for it
                self._target.file.flush()

        self._rows += rows.num_rows

    def _complete(self) -> int:
        return self._rows

    def _line(self, begin: str, text: str | list[str | None] | None, entities: list[dict[str, Any]] | None) -> str:
        """Return what is shown of one text column of a row; of a list, each element on a line of its own."""
        found = entities or []
        if not isinstance(text, list):
            return f"{begin}{self._paragraph(text, found)}\n"

        elements = (
            self._paragraph(element, [one for one in found if one["element"] == i]) for i, element in enumerate(text)
        )
        return "".join(f"{begin}{shown}\n" for shown in elements)

    def _paragraph(self, text: str | None, entities: list[dict[str, Any]]) -> str:
        return "(null)" if text is None else "".join(self._pieces(text, entities))

    def _pieces(self, text: str, entities: list[dict[str, Any]]) -> Iterator[str]:
        offsets = CodePointOffsets(text, self._unit)
        at = 0
        # The entities of a text never overlap, so one pass is enough.
        for entity in entities:
            start, end = offsets.of(entity["start"]), offsets.of(entity["end"])
            yield printable(text[at:start])
            yield self._marked(printable(text[start:end]), entity["label"])
            at = end

        yield printable(text[at:])

    def _marked(self, text: str, label: str) -> str:
        marked = f"{text} [{printable(label)}]"
        if not self._has_colours:
            return marked

        # By first appearance, not by a hash of the label: the first twelve labels never share a colour.
        colour = self._colours.setdefault(label, _COLOURS[len(self._colours) % len(_COLOURS)])
        return f"\x1b[{colour}m{marked}{_RESET}"
