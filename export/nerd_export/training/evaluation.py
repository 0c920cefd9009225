"""Score a tagger on labelled sentences: on the given words, as papers do, and on plain text, as users have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nerd_export.training.checks import Sentence
from nerd_export.training.plain_text import plain_text
from nerd_export.training.scoring import Scores, Span, coarse_tag, span_scores, spans_of, word_scores
from nerd_onnx.inference.decoding import Spans
from nerd_onnx.inference.labels import OUTSIDE, LabelSet
from nerd_onnx.tagger import Tagger


@dataclass(frozen=True)
class Evaluation:
    """
    Entity scores on one labelled split.

    :param words: coarse (or only) level, given words; seqeval, strict
    :param fine_words: fine level, given words; None where the model has one level
    :param raw: coarse level on plain text, by character spans
    :param fine_raw: fine level on plain text
    """

    sentences: int
    words: Scores
    fine_words: Scores | None
    raw: Scores
    fine_raw: Scores | None

    def summary(self) -> dict[str, Any]:
        """Give all scores as plain data, rounded to the fifth digit."""
        rounded = {
            key: {k: round(v, 5) for k, v in value.items() if v is not None}
            for key, value in asdict(self).items()
            if isinstance(value, dict)
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
    levels = (False, True) if tagger.labels.has_fine_level else (False,)
    of_words, of_text = [], []
    for fine in levels:
        gold = [gold_spans(s, tagger.labels, fine=fine) for s in sentences]
        predicted = _by_row(given, tagger.labels, len(sentences), fine=fine)
        lengths = [len(tokens) for tokens in words]
        of_words.append(word_scores(_bio(gold, lengths), _bio(predicted, lengths)))
        placed = [[(t[1][b][0], t[1][e - 1][1], y) for b, e, y in spans] for spans, t in zip(gold, texts, strict=True)]
        of_text.append(span_scores(placed, _by_row(raw, tagger.labels, len(sentences), fine=fine)))
    return Evaluation(
        sentences=len(sentences),
        words=of_words[0],
        fine_words=of_words[1] if len(levels) > 1 else None,
        raw=of_text[0],
        fine_raw=of_text[1] if len(levels) > 1 else None,
    )


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


def _bio(sentences: Sequence[Sequence[Span]], lengths: Sequence[int]) -> list[list[str]]:
    """Write spans of words as BIO tags, a list a sentence."""
    result = []
    for spans, length in zip(sentences, lengths, strict=True):
        tags = [OUTSIDE] * length
        for begin, end, name in spans:
            tags[begin:end] = [f"B-{name}", *[f"I-{name}"] * (end - begin - 1)]
        result.append(tags)
    return result
