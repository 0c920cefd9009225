"""Write tagged rows as one self-contained HTML page. It loads nothing, and text in it is never markup."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from nerd_onnx.formats.tagged_file import TaggedRow
from nerd_onnx.terminal import printable

MAX_CHARACTERS = 20_000  # per row; the text of a novel would make the page unusable


def view_page(rows: Sequence[TaggedRow], title: str, about: str) -> str:
    """
    Return the page as HTML.

    :param title: title of the page, such as the name of the file
    :param about: a sentence that says where the rows come from
    """
    labels = sorted({entity.label for row in rows for entity in row.entities or ()})
    fine = sorted({entity.fine_label for row in rows for entity in row.entities or () if entity.fine_label})
    # Numbers and not names in the rows: a page of many entities becomes much smaller.
    places = {name: i for i, name in enumerate(labels)}, {name: i for i, name in enumerate(fine)}

    data = {
        "about": about,
        "labels": labels,
        "fine_labels": fine,
        "rows": [_row(row, *places) for row in rows],
    }

    # The page allows only the script with this hash to run, so that no text in it can become one.
    script = _file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

    return Template(_file("page.html")).substitute(
        TITLE=escape(printable(title)),
        STYLE=_file("page.css"),
        SCRIPT=script,
        SCRIPT_HASH=f"sha256-{digest}",
        DATA=_embedded(data),
    )


def _row(row: TaggedRow, labels: dict[str, int], fine: dict[str, int]) -> dict[str, Any]:
    """
    Return a text as parts: strings between entities, and lists [text, label, fine label, score] for entities.

    A value that is no score is text; the page shows it, and keeps the entity whatever the minimum score is.
    """
    text = row.text or ""
    parts: list[Any] = []
    at, limit = 0, min(len(text), MAX_CHARACTERS)

    for entity in row.entities or ():
        # Overlapping entities cannot be shown, nor entities beyond the cut.
        if entity.start < at or entity.end > limit:
            continue

        if entity.start > at:
            parts.append(text[at : entity.start])
        place = None if entity.fine_label is None else fine[entity.fine_label]
        parts.append([text[entity.start : entity.end], labels[entity.label], place, _score(entity.score)])
        at = entity.end

    if at < limit:
        parts.append(text[at:limit])

    element = {} if row.element is None else {"element": row.element}
    cut = {"cut": len(text) - limit} if len(text) > limit else {}
    return {"number": row.number, **element, "parts": parts, **cut}


def _score(score: float | None) -> float | str | None:
    """Return a score as a number; text for a value that is no score, which the page shows as such."""
    if score is None:
        return None

    # NaN compares as false. JSON Lines may contain NaN, Infinity and 1e400, and the data of the page may not.
    return round(score, 4) if 0 <= score <= 1 else f"bad score {score:g}"


def _embedded(data: dict[str, Any]) -> str:
    """Return data as JSON in which no text can end the script element or start another."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")
