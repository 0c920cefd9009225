"""CoNLL: one token per line with its tag, and an empty line after each row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from nerd_onnx.convert.tokens import check_entities, tokens_of
from nerd_onnx.formats.tagged_file import TaggedRow

_SPACE = re.compile(r"\s+")


def conll(rows: Iterable[TaggedRow]) -> Iterator[bytes]:
    """
    Yield each row as lines ``token<tab>tag``, with BIO tags: ``B-`` starts an entity, ``I-`` continues it.

    A row without tokens has no lines.

    :raises InputError: if entities of a row overlap, or one is only white space
    """
    for row in rows:
        lines = [f"{token}\t{tag}\n" for token, tag in tagged_tokens(row)]
        if lines:
            yield "".join([*lines, "\n"]).encode()


def tagged_tokens(row: TaggedRow) -> Iterator[tuple[str, str]]:
    """Yield the tokens of a row with their tags."""
    check_entities(row, "CoNLL")
    text = row.text or ""

    # The last one is the next: both tokens and entities are in order, so one pass is enough.
    waiting = list(reversed(row.entities or ()))
    for start, end in tokens_of(text, row.entities or ()):
        while waiting and waiting[-1].end <= start:
            waiting.pop()

        tag = "O"
        if waiting and waiting[-1].start <= start:
            # The first token of an entity has nothing but white space between itself and the start.
            prefix = "I" if text[waiting[-1].start : start].strip() else "B"
            # White space in a label would be another column to some readers.
            tag = f"{prefix}-{_SPACE.sub('_', waiting[-1].label)}"

        yield text[start:end], tag
