"""displaCy: documents for spaCy's ``displacy.render(..., style="ent", manual=True)``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from nerd_onnx.formats.tagged_file import TaggedRow


def displacy(rows: Iterable[TaggedRow]) -> Iterator[dict[str, Any]]:
    """Yield one document per row; its title is the number of the row."""
    for row in rows:
        ents = [{"start": entity.start, "end": entity.end, "label": entity.label} for entity in row.entities or ()]
        yield {"text": row.text, "ents": ents, "title": f"row {row.number}"}
