"""Render a report as one HTML page: without scripts or requests, for small and large screens, print and dark mode."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from nerd_export.reporting.report_parts import Code, Passages, Plot, Section, Table

_STYLE = Path(__file__).with_name("style.css")
_CODE = re.compile(r"`([^`]+)`")
_STRONG = re.compile(r"\*\*([^*]+)\*\*")
_COLUMNS_OF_A_PHONE = 4
_MARKS = {"passed": "good", "met": "good", "failed": "bad", "missed": "bad"}


def page(title: str, sections: Iterable[Section]) -> str:
    """Render a report."""
    name = escape(title)
    body = "\n".join(line for section in sections for line in _section(section))
    # The icon is empty, because browsers ask the server for one that is not named.
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{name}</title>\n<style>\n{_STYLE.read_text('utf-8')}</style>\n</head>\n<body>\n<main>\n<h1>{name}</h1>\n{body}\n"
        "</main>\n</body>\n</html>\n"
    )


def _section(section: Section) -> Iterator[str]:
    yield "<section>"
    if section.title:
        yield f"<h{section.level}>{inline(section.title)}</h{section.level}>"

    for block in section.blocks:
        if isinstance(block, Plot):
            yield f"<figure>{block.svg}<figcaption>{inline(block.caption)}</figcaption></figure>"
        elif isinstance(block, Table):
            yield from _table(block)
        elif isinstance(block, Passages):
            yield from _passages(block)
        elif isinstance(block, Code):
            yield f"<pre>{escape(chr(10).join(block.lines))}</pre>"
        elif isinstance(block, tuple):
            yield f"<ul>{''.join(f'<li>{inline(item)}</li>' for item in block)}</ul>"
        else:
            yield f"<p>{inline(block)}</p>"

    yield "</section>"


def _table(table: Table) -> Iterator[str]:
    # Too wide for a phone: there each row becomes a list, and each cell begins with the head of its column.
    has_many = len(table.head) > _COLUMNS_OF_A_PHONE
    # The table scrolls where it is too wide, and only what can have the focus is scrolled by keys.
    yield f'<div class="wide" tabindex="0"><table{" class=many" if has_many else ""}>'

    # Above figures, which are aligned at the right, the head is too.
    columns = [[row[i] for row in table.rows if i < len(row) and row[i]] for i in range(len(table.head))]
    figures = [i > 0 and bool(cells) and all(map(_is_figure, cells)) for i, cells in enumerate(columns)]
    head = "".join(
        f'<th scope="col"{" class=number" if is_figure else ""}>{inline(cell)}</th>'
        for cell, is_figure in zip(table.head, figures, strict=True)
    )
    yield f"<thead><tr>{head}</tr></thead><tbody>"

    for number, row in enumerate(table.rows):
        strong = ' class="strong"' if number in table.strong else ""

        first, *others = row
        names = table.head[1:] if has_many else [""] * len(others)

        cells = "".join(_cell(text, name) for text, name in zip(others, names, strict=False))
        yield f'<tr{strong}><th scope="row">{inline(first)}</th>{cells}</tr>'

    yield "</tbody></table></div>"


def _cell(text: str, name: str) -> str:
    kind = _MARKS.get(text.strip("*")) or ("number" if _is_figure(text) else None)
    style = f' class="{kind}"' if kind else ""
    head = f' data-head="{escape(name)}"' if name else ""
    return f"<td{style}{head}>{inline(text)}</td>"


def _is_figure(text: str) -> bool:
    return re.match(r"[*+\-]*[\d.]", text) is not None


def inline(text: str) -> str:
    """Return a text as HTML, with its code and its strong parts."""
    # Escaped first: texts of reports come from data, which may contain markup.
    return _STRONG.sub(r"<strong>\1</strong>", _CODE.sub(r"<code>\1</code>", escape(text)))


def _passages(block: Passages) -> Iterator[str]:
    """Yield texts with their marks, each mark with its name below."""
    yield '<ol class="passages">'
    for text, marks in block.passages:
        # Marks may overlap, elements may not: the second begins where the first ends.
        at, parts = 0, []
        for mark in sorted(marks, key=lambda mark: (mark.start, mark.end)):
            begin = max(at, mark.start)
            parts.append(escape(text[at:begin]))
            parts.append(
                f'<mark class="{escape(mark.style, quote=True)}">{escape(text[begin : mark.end])}'
                f"<small>{escape(mark.name)}</small></mark>"
            )
            at = max(at, mark.end)
        parts.append(escape(text[at:]))
        yield f'<li dir="auto">{"".join(parts)}</li>'

    yield "</ol>"
