"""
Measure F1 on text as people have it: ``python -m benchmarks.scripts.everyday_text``.

Sets are made by program from labelled sentences, so their entities are known: lists with one name per line, sentences
without a space between them, names with a symbol behind them, and text as programs extract it from PDF files. Each set
stands beside its *plain* form, which has the same entities without the difficulty. "Kept" is the share of the entities
found in the plain form that are also found, with the same label, in the other one.
"""

from __future__ import annotations

import random
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click

from benchmarks.paths import SHARED
from benchmarks.scripts.segment_length import Paragraph, coarse_entities, join_sentences
from nerd_export.data.checks import Findings, check_split
from nerd_export.data.corpus import TAG_COLUMNS, read_file
from nerd_export.scoring.f1 import Span, span_scores
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.tagger import Tagger

_LIST_NAMES = 12
_PAGE_SENTENCES, _COLUMNS = 6, 70
_SYMBOLS = ("\U0001f600", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "\u2122", "\u2192", "\u00b9")
_LIGATURES = {"ffi": "\ufb03", "ffl": "\ufb04", "ff": "\ufb00", "fi": "\ufb01", "fl": "\ufb02"}


@dataclass(frozen=True)
class Pair:
    """The same texts in their plain form and as people have them. Equal entities have equal places in both lists."""

    plain: list[Paragraph]
    everyday: list[Paragraph]


def lists(sentences: Sequence[Paragraph]) -> Pair:
    """Return lists of names, one per line; in the plain form each name is a text of its own."""
    names = [(s.text[begin:end], label) for s in sentences for begin, end, label in s.spans]
    plain = [Paragraph(name, [(0, len(name), label)]) for name, label in names]
    return Pair(plain, [joined(plain[i : i + _LIST_NAMES], "\n") for i in range(0, len(plain), _LIST_NAMES)])


def glued(sentences: Sequence[Paragraph]) -> Pair:
    """Return pairs of sentences, the first of which ends with a full stop; the plain form has a space after it."""
    chosen = [
        (one, two)
        for one, two in pairwise(sentences)
        if one.text.endswith(".") and one.text[-2].islower() and two.text[:1].isupper() and two.text[1:2].islower()
    ]
    return Pair([joined(pair, " ") for pair in chosen], [joined(pair, "") for pair in chosen])


def symbols(sentences: Sequence[Paragraph]) -> Pair:
    """Return sentences with a symbol behind each name; the plain form has a space before it."""
    chosen = random.Random(1)  # noqa: S311 - a choice that must repeat
    plain, everyday = [], []
    for sentence in sentences:
        behind = [chosen.choice(_SYMBOLS) for _ in sentence.spans]
        plain.append(_with_symbols(sentence, [f" {symbol}" for symbol in behind]))
        everyday.append(_with_symbols(sentence, behind))

    return Pair(plain, everyday)


def pages(sentences: Sequence[Paragraph]) -> Pair:
    """Return documents with wrapped lines, ligatures, and a form feed between pages; the plain form has none."""
    plain, everyday = [], []
    for i in range(0, len(sentences), 2 * _PAGE_SENTENCES):
        group = sentences[i : i + 2 * _PAGE_SENTENCES]
        parts = [joined(part, " ") for part in (group[:_PAGE_SENTENCES], group[_PAGE_SENTENCES:]) if part]
        plain.append(joined(parts, "\n\n"))
        everyday.append(joined([_with_ligatures(_wrapped(part)) for part in parts], "\f"))

    return Pair(plain, everyday)


def joined(parts: Sequence[Paragraph], between: str) -> Paragraph:
    """Return texts as one, with ``between`` between them."""
    spans, base = list[Span](), 0
    for part in parts:
        spans += [(base + begin, base + end, label) for begin, end, label in part.spans]
        base += len(part.text) + len(between)

    return Paragraph(between.join(part.text for part in parts), spans)


def _with_symbols(sentence: Paragraph, behind: Sequence[str]) -> Paragraph:
    text, spans = sentence.text, list[Span]()
    # From the last entity to the first, so that the places of those that are still to come stay.
    for (begin, end, label), symbol in reversed(list(zip(sentence.spans, behind, strict=True))):
        text = f"{text[:end]}{symbol}{text[end:]}"
        spans = [(begin, end, label), *((b + len(symbol), e + len(symbol), name) for b, e, name in spans)]

    return Paragraph(text, spans)


def _wrapped(part: Paragraph) -> Paragraph:
    """Return the text with some of its spaces replaced by line breaks. Its length stays the same."""
    lines = textwrap.wrap(part.text, _COLUMNS, break_long_words=False, break_on_hyphens=False)
    text = "\n".join(lines)
    # textwrap drops spaces at the ends of lines. Where it dropped one, the entities would no longer be in their places.
    return Paragraph(text, part.spans) if len(text) == len(part.text) else part


def _with_ligatures(part: Paragraph) -> Paragraph:
    text, places = "", []  # the new place of each character

    i = 0
    while i < len(part.text):
        # The longest ligature comes first in the table, so that ffi is not taken for ff.
        found = next((letters for letters in _LIGATURES if part.text.startswith(letters, i)), part.text[i])
        places += [len(text)] * len(found)
        text += _LIGATURES.get(found, found)
        i += len(found)

    places.append(len(text))
    return Paragraph(text, [(places[begin], places[end], label) for begin, end, label in part.spans])


SETS: dict[str, Callable[[Sequence[Paragraph]], Pair]] = {
    "lists, one name per line": lists,
    "sentences without a space between them": glued,
    "a symbol behind each name": symbols,
    "pages of PDF files": pages,
}


def _kept(pair: Pair, plain: list[list[Span]], everyday: list[list[Span]]) -> float:
    """Return the share of correct entities of the plain form that are found in the other form."""
    # The texts of a set are joined differently, but their entities have one order.
    hits: list[list[bool]] = []
    for texts, found in ((pair.plain, plain), (pair.everyday, everyday)):
        hits.append([span in set(row) for text, row in zip(texts, found, strict=True) for span in text.spans])

    both = sum(a and b for a, b in zip(hits[0], hits[1], strict=True))
    return both / max(1, sum(hits[0]))


@click.command()
@click.option("--model", type=click.Path(path_type=Path), help="Bundle.  [default: the default model]")
@click.option("--file", type=click.Path(path_type=Path), default=SHARED / "few_nerd" / "validation.parquet")
def main(model: Path | None, file: Path) -> None:
    """Print entity F1 on each set and on its plain form, and the share of entities that are kept."""
    tagger = Tagger(Bundle.load(model))
    column = TAG_COLUMNS["fine" if tagger.labels.has_fine_level else "coarse"]
    sentences = join_sentences(check_split(read_file(file, column), None, Findings()), tagger.labels, 1)

    click.echo("| text | entities | F1, plain form | F1 | kept |\n|---|---|---|---|---|")
    for name, make in SETS.items():
        pair = make(sentences)
        plain, everyday = (
            coarse_entities(tagger.tag_arrays([text.text for text in texts]).spans, tagger.labels, len(texts))
            for texts in (pair.plain, pair.everyday)
        )
        scores = [
            span_scores([text.spans for text in texts], found).f1
            for texts, found in ((pair.plain, plain), (pair.everyday, everyday))
        ]
        entities = sum(len(text.spans) for text in pair.everyday)
        click.echo(
            f"| {name} | {entities:,} | {scores[0]:.4f} | {scores[1]:.4f} | {_kept(pair, plain, everyday):.1%} |"
        )


if __name__ == "__main__":
    main()
