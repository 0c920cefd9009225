"""spaCy: a ``DocBin`` with one ``Doc`` per row, for ``spacy train`` and for reading back with any vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from nerd_onnx.convert.tokens import check_entities, tokens_of
from nerd_onnx.errors import InputError, MissingExtraError
from nerd_onnx.formats.tagged_file import TaggedRow


def require_spacy() -> None:
    """
    Check that spaCy is installed.

    :raises MissingExtraError: if it is not
    """
    try:
        import spacy.tokens  # noqa: F401
    except ImportError as err:
        raise MissingExtraError(
            "--to spacy needs spaCy; install it with: pip install 'nerd-onnx[spacy]'",
            reason="spacy-missing",
            extra="spacy",
        ) from err


def doc_bin(rows: Iterable[TaggedRow]) -> Iterator[bytes]:
    """
    Yield the complete DocBin at the end, because spaCy builds it in memory.

    :raises InputError: if entities of a row overlap, or one begins or ends in white space
    """
    from spacy.tokens import DocBin
    from spacy.vocab import Vocab

    # Only what was found here: other attributes would be stored as empty and would replace those of a pipeline.
    docs, vocab = DocBin(attrs=["ENT_IOB", "ENT_TYPE"]), Vocab()
    for row in rows:
        docs.add(doc_of(row, vocab))

    yield docs.to_bytes()


def doc_of(row: TaggedRow, vocab: Any) -> Any:
    """Return a Doc with exactly the text of the row, and tokens split where entities begin and end."""
    from spacy.tokens import Doc

    check_entities(row, "spaCy's doc.ents")
    text = row.text or ""
    doc = Doc(vocab, *_words_and_spaces(text, tokens_of(text, row.entities or ())))

    spans = [doc.char_span(entity.start, entity.end, entity.label) for entity in row.entities or ()]
    for span, entity in zip(spans, row.entities or (), strict=True):
        # spaCy gives no span that begins or ends inside of a token. Tokens end at entities, but have no white space.
        if span is None:
            raise InputError(
                f"{row.place}: entity {entity.start}:{entity.end} begins or ends with white space, which spaCy cannot "
                "represent",
                reason="entity-has-space",
                **row.where,
                start=entity.start,
                end=entity.end,
            )

    doc.ents = spans
    return doc


def _words_and_spaces(text: str, tokens: list[tuple[int, int]]) -> tuple[list[str], list[bool]]:
    """Return words, and whether a space follows each; other white space is a word of its own, as in spaCy."""
    words: list[str] = []
    spaces: list[bool] = []
    at = 0

    for start, end in [*tokens, (len(text), len(text))]:
        gap = text[at:start]
        # spaCy keeps one space as a flag of the word before it; only further white space is a word.
        if gap.startswith(" ") and words:
            spaces[-1] = True
            gap = gap[1:]

        for word in (gap, text[start:end]):
            if word:
                words.append(word)
                spaces.append(False)

        at = end

    return words, spaces
