"""displaCy: documents for spaCy's ``displacy.render(..., style="ent", manual=True)``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from nerd_onnx.formats.tagged_file import TaggedRow


def displacy(rows: Iterable[TaggedRow]) -> Iterator[dict[str, Any]]:
    """Yield one document per row; its title is the number of the row."""
    for row in rows:
        ents = [{"start": entity.start, "end": entity.end, "label": entity.label} for entity in row.entities or ()]
        yield {"text": row.text, "ents": ents, "title": f"row {row.number}"}


def displacy_html(rows: Iterable[TaggedRow]) -> Iterator[bytes]:
    """Yield an HTML page in the style of ``displacy.render(..., page=True)``; it needs no spaCy and loads nothing."""
    yield _PAGE_BEGIN.encode()
    for row in rows:
        yield f"<h2>row {row.number}</h2>\n<div class=entities>{''.join(_marked(row))}</div>\n".encode(errors="replace")
    yield b"</body>\n</html>\n"


def _marked(row: TaggedRow) -> Iterator[str]:
    """Yield a text as HTML with its entities marked; an entity that overlaps the one before it is left out."""
    text, at = row.text or "", 0
    for entity in row.entities or ():
        if entity.start < at:
            continue

        yield escape(text[at : entity.start])
        # By the label alone, so that it has the same colour on each page.
        hue = sum(entity.label.encode()) * 47 % 360
        yield (
            f'<mark style="--hue: {hue}">{escape(text[entity.start : entity.end])}'
            f"<span>{escape(entity.label)}</span></mark>"
        )
        at = entity.end

    yield escape(text[at:])


_PAGE_BEGIN = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Entities</title>
<style>
body { font: 16px/2.2 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 0.8rem; font-weight: 400; opacity: 0.7; margin: 1.5rem 0 0; line-height: 1.2; }
.entities { white-space: pre-wrap; overflow-wrap: anywhere; }
mark { background: hsl(var(--hue) 70% 85%); color: #1c2330; padding: 0.3em 0.45em; border-radius: 0.35em; }
mark span { font-size: 0.65em; font-weight: 700; margin-left: 0.5em; }
</style>
</head>
<body>
"""
