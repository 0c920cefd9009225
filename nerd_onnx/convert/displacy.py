"""displaCy: what spaCy's ``displacy.render(..., style="ent", manual=True)`` takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from nerd_onnx.formats.tagged_file import TaggedRow


def displacy(rows: Iterable[TaggedRow]) -> Iterator[dict[str, Any]]:
    """Yield a document a row; its title is the row's number."""
    for row in rows:
        ents = [{"start": entity.start, "end": entity.end, "label": entity.label} for entity in row.entities or ()]
        yield {"text": row.text, "ents": ents, "title": f"row {row.number}"}
