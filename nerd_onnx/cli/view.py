"""``nerd-view``: write a tagged file as an HTML page."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import click

from nerd_onnx import __version__
from nerd_onnx.cli.common import reading, settings, tagged_file_options
from nerd_onnx.cli.signals import run_stoppable
from nerd_onnx.cli.streams import message
from nerd_onnx.terminal import counted, printable

if TYPE_CHECKING:  # --help must not wait for this import
    from nerd_onnx.formats.tagged_file import TaggedRow


@click.command("nerd-view", context_settings=settings("NERD_VIEW"))
@click.argument("source", metavar="INPUT", type=click.Path())
@click.argument("target", metavar="[OUTPUT]", required=False, type=click.Path())
@click.option("--rows", type=click.IntRange(min=1), default=2000, help="Maximum number of rows to show.")
@click.option("--sample", is_flag=True, help="Show a random sample of the file instead of its first rows.")
@click.option("--seed", type=int, default=42, help="Seed of the random sample.")
@tagged_file_options
@click.option("--overwrite", is_flag=True, help="Replace an existing OUTPUT.")
@click.version_option(__version__, package_name="nerd-onnx")
def command(source: str, target: str | None, **options: Any) -> None:
    """
    Write INPUT, a file that nerd-tag wrote, as one HTML page. OUTPUT is by default the name of INPUT with .html added.

    INPUT is Parquet, Arrow, JSON Lines, CSV or TSV. The page is self-contained and loads nothing from the network. It
    has filters by label, score and text, counts, and the most frequent entities.

    Every option can also be set by an environment variable: NERD_VIEW_ and the option's name, such as NERD_VIEW_ROWS.

    \b
    Examples:
      nerd-view tagged.parquet
      nerd-view tagged.jsonl.gz look.html --sample --rows 5000
    """  # noqa: D301 - the backspace tells click to keep the lines
    from nerd_onnx.formats.tagged_file import sampled, tagged_rows
    from nerd_onnx.storage.atomic_file import write_whole
    from nerd_onnx.storage.input_stream import input_name
    from nerd_onnx.storage.location import Location
    from nerd_onnx.storage.output_place import check_output, output_name
    from nerd_onnx.view.page import view_page

    read = Location.of(source)
    beside = read if read.is_standard_stream else Location(f"{read.bare}.html{read.query}")
    written = Location.of(target) if target else beside
    check_output(read, written, overwrite=options["overwrite"])

    name = input_name(read) if read.is_standard_stream else read.name

    found = tagged_rows(read, **reading(options))
    total: int | None
    if options["sample"]:
        all_rows = _Counted(found)
        rows = sampled(iter(all_rows), options["rows"], options["seed"])
        total = all_rows.count
    else:
        rows = list(itertools.islice(found, options["rows"]))
        total = None if next(found, None) else len(rows)

    entities = counted(sum(len(row.entities or ()) for row in rows), "entity", "entities")
    about = f"{_which(len(rows), total)} of {printable(name)}, {entities}."

    write_whole(written, view_page(rows, name, about).encode(), overwrite=options["overwrite"])
    message(f"{output_name(written)}: {about}")


class _Counted:
    """
    Rows, counted as they are read.

    :ivar count: number of rows so far
    """

    def __init__(self, rows: Iterator[TaggedRow]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[TaggedRow]:
        for row in self._rows:
            self.count += 1
            yield row


def _which(shown: int, total: int | None) -> str:
    """
    Return which rows are shown.

    :param total: number of rows of the file; None if there are more and nobody counted them
    """
    if total is None:
        return "The first row" if shown == 1 else f"The first {shown:,} rows"
    if shown == total:
        return "The only row" if total == 1 else f"All {total:,} rows"
    return f"A random sample of {counted(shown, 'row')} out of {total:,}"


def main() -> NoReturn:
    """Entry point of ``nerd-view``."""
    run_stoppable(command)
