"""The report as Markdown: everything but the drawings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.report.parts import Code, Plot, Section, Table
from benchmarks.report.sections import sections, title


def markdown(report: Mapping[str, Any]) -> str:
    """Render a report; parts that were not measured are left out."""
    lines = [f"# {title(report)}"]
    for section in sections(report):
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
