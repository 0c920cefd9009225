"""``nerd-convert``: write a tagged file in the format of another program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import click

from nerd_onnx import __version__
from nerd_onnx.cli.common import COLUMN_NAME, reading, settings, tagged_file_options
from nerd_onnx.cli.signals import run_stoppable
from nerd_onnx.cli.streams import message
from nerd_onnx.errors import OptionError
from nerd_onnx.terminal import counted

if TYPE_CHECKING:  # --help must not wait for these imports
    from nerd_onnx.formats.interfaces import Format
    from nerd_onnx.formats.tagged_file import TaggedRow
    from nerd_onnx.storage.location import Location

_FORMATS = ("conll", "brat", "label-studio", "displacy", "spacy", "long")


@click.command("nerd-convert", context_settings=settings("NERD_CONVERT"))
@click.argument("source", metavar="INPUT", type=click.Path())
@click.argument("target", metavar="OUTPUT", type=click.Path())
@click.option("--to", "kind", type=click.Choice(_FORMATS), required=True, help="Format of OUTPUT.")
@click.option(
    "--level",
    type=click.Choice(["coarse", "fine"]),
    default="coarse",
    help="Which label of an entity to write. The format long has both.",
)
@click.option(
    "--key",
    type=COLUMN_NAME,
    help="Column with the key of a row, for the format long.  [default: row, the row number, from 0]",
)
@click.option("--limit", type=click.IntRange(min=0), help="Convert only the first rows, up to this number.")
@tagged_file_options
@click.option("--overwrite", is_flag=True, help="Replace an existing OUTPUT.")
@click.version_option(__version__, package_name="nerd-onnx")
def command(source: str, target: str, kind: str, *, level: str, overwrite: bool, **options: Any) -> None:
    """
    Write INPUT, a file that nerd-tag wrote, for another program.

    conll: one token and its BIO tag per line. brat: a folder with one .txt and one .ann file per row. label-studio:
    tasks with predictions. displacy: input of displacy.render with manual=True, or a page if OUTPUT ends in .html.
    spacy: a DocBin; needs spaCy. long: one row per entity, as Parquet, Arrow, JSON Lines, CSV or TSV, by the name of
    OUTPUT.

    INPUT is Parquet, Arrow, JSON Lines, CSV or TSV. Rows that were not tagged are left out and counted. OUTPUT is
    written atomically.

    Every option can also be set by an environment variable: NERD_CONVERT_ and the option's name, such as
    NERD_CONVERT_TO.

    \b
    Examples:
      nerd-convert tagged.parquet tagged.conll --to conll --level fine
      nerd-convert tagged.jsonl tasks.json --to label-studio --limit 500
      nerd-convert tagged.parquet entities.parquet --to long --key id
    """  # noqa: D301 - the backspace tells click to keep the lines
    from nerd_onnx.convert.long import write_long
    from nerd_onnx.formats.registry import format_named
    from nerd_onnx.formats.tagged_file import TaggedFile
    from nerd_onnx.storage.location import Location
    from nerd_onnx.storage.output_place import output_name

    if options["key"] is not None and kind != "long":
        raise OptionError("--key needs --to long", reason="key-needs-long", option="--key")

    read, written = Location.of(source), Location.of(target)
    _check(kind, read, written, overwrite=overwrite)
    long_format = _long_format(read, written, options["input_format"]) if kind == "long" else None

    count = _Count()
    typed = long_format is not None and format_named(long_format).has_types

    with TaggedFile(read, limit=options["limit"], typed=typed, **reading(options)) as file:
        if long_format is not None:
            write_long(file, written, long_format, options["key"], overwrite=overwrite, on_row=count.add)
        else:
            rows = (row for _, rows in file.batches() for row in rows)
            _write(kind, count.tagged(rows, fine=level == "fine"), written, overwrite=overwrite)

    message(f"{output_name(written)}: {count}")


@dataclass
class _Count:
    """Numbers of rows and entities that were written, and of rows that were left out."""

    rows: int = 0
    entities: int = 0
    left_out: int = 0

    def tagged(self, rows: Iterable[TaggedRow], *, fine: bool) -> Iterator[TaggedRow]:
        """Yield the tagged rows, with fine labels if ``fine``, and count all rows."""
        for row in rows:
            if self.add(row) and row.entities is not None:
                named = [replace(e, label=e.fine_label or e.label) for e in row.entities] if fine else row.entities
                yield replace(row, entities=named)

    def add(self, row: TaggedRow) -> bool:
        """Count a row and return whether it was tagged."""
        tagged = row.text is not None and row.entities is not None
        self.rows += tagged
        self.left_out += not tagged
        self.entities += len(row.entities or ())
        return tagged

    def __str__(self) -> str:
        left = f"; left out: {counted(self.left_out, 'row')} without text or entities" if self.left_out else ""
        return f"{counted(self.rows, 'row')}, {counted(self.entities, 'entity', 'entities')}{left}"


def _check(kind: str, source: Location, target: Location, *, overwrite: bool) -> None:
    """Check requirements and output before any work."""
    from nerd_onnx.storage.output_place import check_output

    if kind == "spacy":
        from nerd_onnx.convert.spacy import require_spacy

        require_spacy()
    if kind != "brat":
        check_output(source, target, overwrite=overwrite)


def _write(kind: str, rows: Iterator[TaggedRow], target: Location, *, overwrite: bool) -> None:
    from nerd_onnx.convert.brat import write_brat
    from nerd_onnx.convert.conll import conll
    from nerd_onnx.convert.displacy import displacy, displacy_html
    from nerd_onnx.convert.label_studio import label_studio
    from nerd_onnx.convert.output import is_page, json_pieces, whole_folder, write_pieces
    from nerd_onnx.convert.spacy import doc_bin

    if kind == "brat":
        with whole_folder(target) as folder:
            write_brat(rows, folder)
        return

    # Lambdas, so that only the chosen format consumes the rows.
    pieces: dict[str, Callable[[], Iterator[bytes]]] = {
        "conll": lambda: conll(rows),
        "label-studio": lambda: json_pieces(label_studio(rows), target),
        "displacy": lambda: displacy_html(rows) if is_page(target) else json_pieces(displacy(rows), target),
        "spacy": lambda: doc_bin(rows),
    }
    write_pieces(target, pieces[kind](), overwrite=overwrite)


def _long_format(source: Location, target: Location, asked: Format | None) -> Format:
    """Return the format of the long rows: by the name of the output, else the format of the input."""
    from nerd_onnx.formats.open_input import detect_format
    from nerd_onnx.formats.open_output import output_format

    return output_format(target, None, lambda: detect_format(source, asked), "end it in .parquet or .jsonl")


def main() -> NoReturn:
    """Entry point of ``nerd-convert``."""
    run_stoppable(command)


if __name__ == "__main__":
    main()
