"""Score a tagger on labelled sentences: on the given words, as papers do, and on plain text, as users have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nerd_export.training.bootstrap import micro_f1
from nerd_export.training.checks import Sentence
from nerd_export.training.plain_text import plain_text
from nerd_export.training.scoring import (
    Rows,
    Scores,
    Span,
    coarse_tag,
    counts_by_type,
    span_counts,
    span_scores,
    spans_of,
    word_scores,
)
from nerd_onnx.inference.arrays import Ints
from nerd_onnx.inference.decoding import Spans
from nerd_onnx.inference.labels import OUTSIDE, LabelSet
from nerd_onnx.tagger import Tagger


@dataclass(frozen=True)
class View:
    """
    Expected and found entities of the same sentences, seen one way.

    :param scores: micro-averaged over all of them
    :param gold: expected entities of each sentence
    :param found: found entities of each sentence; offsets count words or characters, as in ``gold``
    """

    scores: Scores
    gold: Rows
    found: Rows

    def counts(self) -> Ints:
        """Count right, predicted and expected entities of each sentence. *Shape:* (sentences, 3)."""
        return span_counts(self.gold, self.found)

    def f1_by_type(self) -> dict[str, float]:
        """Give F1 of each entity type that is expected, in alphabetical order."""
        counts = counts_by_type(self.gold, self.found)
        return {name: float(micro_f1(found)) for name, found in counts.items() if found[2]}


@dataclass(frozen=True)
class Evaluation:
    """
    Entity scores on one labelled split.

    :param sentences: sentences scored
    :param views: ``words`` (coarse or only level, given words; seqeval, strict) and ``raw`` (the same level on plain
        text, by character spans), and where the model has two levels ``fine_words`` and ``fine_raw``
    """

    sentences: int
    views: Mapping[str, View]

    def summary(self) -> dict[str, Any]:
        """Give all scores as plain data, rounded to the fifth digit."""
        rounded = {
            key: {k: round(v, 5) for k, v in asdict(view.scores).items() if v is not None}
            for key, view in self.views.items()
        }
        return {"sentences": self.sentences, **rounded}


def evaluate(tagger: Tagger, sentences: Sequence[Sentence]) -> Evaluation:
    """
    Tag sentences both ways and score them against their tags.

    :param sentences: tagged at the level the model was trained on
    """
    words = [s.tokens for s in sentences]
    given = tagger.tag_words(words)
    texts = [plain_text(tokens) for tokens in words]
    raw = tagger.tag_arrays([text for text, _ in texts]).spans
    lengths = [len(tokens) for tokens in words]
    of_words: dict[str, View] = {}
    of_text: dict[str, View] = {}
    for fine in (False, True) if tagger.labels.has_fine_level else (False,):
        prefix = "fine_" if fine else ""
        gold = [gold_spans(s, tagger.labels, fine=fine) for s in sentences]
        found = _by_row(given, tagger.labels, len(sentences), fine=fine)
        of_words[f"{prefix}words"] = View(word_scores(_bio(gold, lengths), _bio(found, lengths)), gold, found)
        placed = [[(t[1][b][0], t[1][e - 1][1], y) for b, e, y in spans] for spans, t in zip(gold, texts, strict=True)]
        found = _by_row(raw, tagger.labels, len(sentences), fine=fine)
        of_text[f"{prefix}raw"] = View(span_scores(placed, found), placed, found)
    return Evaluation(len(sentences), of_words | of_text)


def gold_spans(sentence: Sentence, labels: LabelSet, *, fine: bool) -> list[Span]:
    """Read the expected entities off a sentence's tags, at the level asked for. Offsets count words."""
    scheme = labels.scheme or "IO"
    tags = sentence.tags
    if labels.has_fine_level and not fine:
        tags = tuple(coarse_tag(tag, scheme) for tag in tags)
    return spans_of(tags, scheme)


def _by_row(spans: Spans, labels: LabelSet, rows: int, *, fine: bool) -> list[list[Span]]:
    """Sort entities into one list a text, named at one level."""
    names, index = (labels.fine_types, spans.fine) if fine else (labels.types, spans.label)
    found: list[list[Span]] = [[] for _ in range(rows)]
    for row, start, end, name in zip(spans.row, spans.start, spans.end, index, strict=True):
        found[row].append((int(start), int(end), names[name]))
    return found


def _bio(sentences: Rows, lengths: Sequence[int]) -> list[list[str]]:
    """Write spans of words as BIO tags, a list a sentence."""
    result = []
    for spans, length in zip(sentences, lengths, strict=True):
        tags = [OUTSIDE] * length
        for begin, end, name in spans:
            tags[begin:end] = [f"B-{name}", *[f"I-{name}"] * (end - begin - 1)]
        result.append(tags)
    return result
