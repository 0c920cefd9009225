"""Entity precision, recall and F1: by seqeval on given words, by character spans on raw text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nerd_onnx.inference.arrays import Ints
from nerd_onnx.inference.labels import OUTSIDE, Scheme, coarse_type, scheme_of, split_tag

Span = tuple[int, int, str]
Rows = Sequence[Sequence[Span]]  # the entities of each text


@dataclass(frozen=True)
class Scores:
    """
    Micro-averaged entity scores, each 0 to 1.

    :param accuracy: share of words with the right tag; None where words are not given
    """

    precision: float
    recall: float
    f1: float
    accuracy: float | None = None

    @classmethod
    def from_counts(cls, correct: int, predicted: int, expected: int) -> Scores:
        """Return scores from numbers of entities; a denominator of 0 gives 0."""
        precision = correct / predicted if predicted else 0.0
        recall = correct / expected if expected else 0.0
        f1 = 2 * correct / (predicted + expected) if predicted + expected else 0.0
        return cls(precision, recall, f1)


def spans_of(tags: Sequence[str], scheme: Scheme | None = None) -> list[Span]:
    """
    Return the entities of one sentence's tags, in any scheme.

    :return: (first word, one past the last word, entity type), in order
    """
    scheme = scheme or scheme_of(tags)
    spans: list[Span] = []
    begin, current = 0, ""

    # The O after the last tag ends an entity at the end of the sentence.
    for i, tag in enumerate((*tags, OUTSIDE)):
        prefix, entity_type = split_tag(tag, scheme)
        # BIO, BIOES and BILOU differ only in letters: B, U and S begin an entity, L, E, U and S end one.
        if current and (entity_type != current or prefix in "BUS"):
            spans.append((begin, i, current))
            current = ""
        if entity_type and not current:
            begin, current = i, entity_type
        if current and prefix in "LEUS":
            spans.append((begin, i + 1, current))
            current = ""

    return spans


def to_bio(tags: Sequence[str], scheme: Scheme | None = None, *, coarse: bool = False) -> list[str]:
    """
    Rewrite tags as BIO, because seqeval misreads plain IO names: it drops their first letter.

    :param coarse: merge fine types like ``person-actor`` into ``person`` first
    """
    scheme = scheme or scheme_of(tags)
    if coarse:
        tags = [coarse_tag(tag, scheme) for tag in tags]

    return bio_tags(spans_of(tags, scheme), len(tags))


def bio_tags(spans: Iterable[Span], length: int) -> list[str]:
    """
    Return entities of one sentence as BIO tags.

    :param spans: their offsets count words
    :param length: number of words
    """
    tags = [OUTSIDE] * length
    for begin, end, entity_type in spans:
        tags[begin:end] = [f"B-{entity_type}", *[f"I-{entity_type}"] * (end - begin - 1)]
    return tags


def coarse_tag(tag: str, scheme: Scheme) -> str:
    """Return the coarse tag of a fine one: ``B-person`` for ``B-person-actor``."""
    prefix, entity_type = split_tag(tag, scheme)
    if not entity_type:
        return OUTSIDE
    # IO has no prefix that a coarse tag could keep.
    name = coarse_type(entity_type)
    return name if scheme == "IO" else f"{prefix}-{name}"


def word_scores(expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Scores:
    """
    Score BIO tags of sentences with seqeval, strict IOB2: an entity counts when borders and type agree.

    :param expected: BIO tags of each sentence
    :param predicted: the same shape
    """
    from seqeval.metrics import accuracy_score

    # v1 holds seqeval's strict mode.
    from seqeval.metrics.v1 import precision_recall_fscore_support
    from seqeval.scheme import IOB2

    gold, guess = [list(tags) for tags in expected], [list(tags) for tags in predicted]
    if all(tag == OUTSIDE for tags in (*gold, *guess) for tag in tags):
        return Scores(0.0, 0.0, 0.0, 1.0)  # seqeval cannot work on no entities at all

    precision, recall, f1, _ = precision_recall_fscore_support(
        gold, guess, average="micro", scheme=IOB2, zero_division=0
    )

    return Scores(float(precision), float(recall), float(f1), float(accuracy_score(gold, guess)))


def span_counts(expected: Rows, predicted: Rows) -> Ints:
    """
    Count right, predicted and expected entities of each text; borders and type must agree.

    :return: *Shape:* (texts, 3)
    """
    sets = [(set(gold), set(guess)) for gold, guess in zip(expected, predicted, strict=True)]
    return np.array([[len(gold & guess), len(guess), len(gold)] for gold, guess in sets], dtype=np.int64).reshape(-1, 3)


def counts_by_type(expected: Rows, predicted: Rows) -> dict[str, Ints]:
    """
    Count right, predicted and expected entities of each type over all texts.

    :return: by type, in alphabetical order. *Shape:* (3,) each
    """
    totals: dict[str, Ints] = defaultdict(lambda: np.zeros(3, dtype=np.int64))
    for gold, guess in zip(map(set, expected), map(set, predicted), strict=True):
        for place, spans in enumerate((gold & guess, guess, gold)):
            for span in spans:
                totals[span[2]][place] += 1
    return dict(sorted(totals.items()))


def span_scores(expected: Rows, predicted: Rows) -> Scores:
    """Score entities as spans (start, end, type) of a text each; all three must agree."""
    return Scores.from_counts(*map(int, span_counts(expected, predicted).sum(axis=0)))
