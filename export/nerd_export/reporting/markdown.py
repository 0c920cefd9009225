"""Render a report as Markdown, without drawings; the marks of a text follow it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from nerd_export.reporting.report_parts import Code, Mark, Passages, Plot, Section, Table


def markdown(title: str, sections: Iterable[Section]) -> str:
    """Render a report."""
    lines = [f"# {title}"]
    for section in sections:
        lines += _section(section)
    return "\n".join(lines) + "\n"


def _section(section: Section) -> Iterator[str]:
    if section.title:
        yield from ("", f"{'#' * section.level} {section.title}")

    for block in section.blocks:
        if isinstance(block, Plot):
            continue
        yield ""
        if isinstance(block, Table):
            yield from _table(block)
        elif isinstance(block, Passages):
            yield from map(_passage, block.passages)
        elif isinstance(block, Code):
            yield from ("```", *block.lines, "```")
        elif isinstance(block, tuple):
            yield from (f"- {item}" for item in block)
        else:
            yield block


def _table(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(table.head)} |"
    yield f"|{'---|' * len(table.head)}"
    for number, row in enumerate(table.rows):
        cells = [f"**{cell}**" if cell and number in table.strong else cell for cell in row]
        yield f"| {' | '.join(cells)} |"


def _passage(passage: tuple[str, Sequence[Mark]]) -> str:
    text, marks = passage
    said = "; ".join(f"{mark.style}: {text[mark.start : mark.end]} ({mark.name})" for mark in marks)
    return f"- {_one_line(text)}" + (f" [{_one_line(said)}]" if said else "")


def _one_line(text: str) -> str:
    """Put a text on one line and escape it, so that its content is not read as markup."""
    return escape(" ".join(text.split()), quote=False).replace("[", "\\[").replace("`", "\\`")
