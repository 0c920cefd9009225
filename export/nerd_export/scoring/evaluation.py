"""Score a tagger on labelled sentences: on the given words, as papers do, and on plain text, as users send it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from nerd_export.data.checks import Sentence
from nerd_export.data.labelled import Labelled
from nerd_export.data.plain_text import plain_text
from nerd_export.scoring.bootstrap import micro_f1
from nerd_export.scoring.f1 import (
    Rows,
    Scores,
    Span,
    bio_tags,
    coarse_tag,
    counts_by_type,
    span_counts,
    span_scores,
    spans_of,
    word_scores,
)
from nerd_onnx.inference.arrays import Bools, Floats, Ints
from nerd_onnx.inference.candidates import Candidates
from nerd_onnx.inference.decoding import Spans
from nerd_onnx.inference.labels import LabelSet, Scheme, coarse_type
from nerd_onnx.tagger import Tagger

Places = Sequence[tuple[int, int]]  # the character range of each word in the plain text


@dataclass(frozen=True)
class View:
    """
    Expected and found entities of the same sentences, in one way of tagging and at one level.

    :param scores: micro-averaged over all of them
    :param gold: expected entities of each sentence
    :param found: found entities of each sentence; offsets count words or characters, as in ``gold``
    :param certainty: score of each found entity, 0 to 1, in the same order
    :param others: number of found entities with labels that were not requested; the other fields exclude them
    """

    scores: Scores
    gold: Rows
    found: Rows
    certainty: Sequence[Sequence[float]]
    others: int = 0

    def counts(self) -> Ints:
        """Count right, predicted and expected entities of each sentence. *Shape:* (sentences, 3)."""
        return span_counts(self.gold, self.found)

    def f1_by_type(self) -> dict[str, float]:
        """Return F1 of each expected label, in alphabetical order."""
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
        """Return all scores as plain data, rounded to five digits."""
        rounded = {
            key: {k: round(v, 5) for k, v in asdict(view.scores).items() if v is not None}
            for key, view in self.views.items()
        }
        return {"sentences": self.sentences, **rounded}


def evaluate(
    tagger: Tagger,
    sentences: Sequence[Sentence],
    *,
    scheme: Scheme | None = None,
    fine: bool | None = None,
    types: Collection[str] | None = None,
) -> Evaluation:
    """
    Tag sentences as given words and as plain text, and score both against their tags.

    :param sentences: tagged at the level the model was trained on, or at the coarse one
    :param scheme: tag scheme of the data; None for the model's
    :param fine: whether the tags have the fine level; None for the level of the model
    :param types: coarse labels of the data; expected and found entities of others are dropped; None for all

    Of a sentence with known types, entities of other types are dropped, and so is every entity that contains a word
    with an unknown tag.
    """
    scheme = scheme or tagger.labels.scheme or "IO"
    has_fine = tagger.labels.has_fine_level if fine is None else fine

    words = [s.tokens for s in sentences]
    given = tagger.tag_words(words)
    texts = [text_of(sentence) for sentence in sentences]
    # Once per way of tagging: both levels are read from the same entities.
    raw = tagger.tag_arrays([text for text, _ in texts]).spans

    lengths = [len(tokens) for tokens in words]
    of_words: dict[str, View] = {}
    of_text: dict[str, View] = {}

    for level in (False, True) if has_fine else (False,):
        prefix = "fine_" if level else ""
        scored = [_Scored.of(sentence, types) for sentence in sentences]

        gold = [
            one.kept(tag_spans(s.tags, scheme, coarse=has_fine and not level))
            for one, s in zip(scored, sentences, strict=True)
        ]

        found, certainty = _by_row(given, tagger.labels, scored, fine=level)
        # Through seqeval, although spans could be compared: published scores are from it.
        scores = word_scores(
            [bio_tags(spans, length) for spans, length in zip(gold, lengths, strict=True)],
            [bio_tags(spans, length) for spans, length in zip(found, lengths, strict=True)],
        )
        of_words[f"{prefix}words"] = View(scores, gold, found, certainty)

        placed = _placed(gold, texts)
        scored = [one.in_text(places) for one, (_, places) in zip(scored, texts, strict=True)]
        found, certainty = _by_row(raw, tagger.labels, scored, fine=level)
        of_text[f"{prefix}raw"] = View(
            span_scores(placed, found), placed, found, certainty, len(raw) - sum(map(len, found))
        )

    return Evaluation(len(sentences), of_words | of_text)


def evaluate_labelled(tagger: Tagger, labelled: Labelled) -> Evaluation:
    """Tag the sentences of a file as :func:`evaluate` does, and score them for the labels that the file has."""
    return evaluate(tagger, labelled.sentences, scheme=labelled.scheme, fine=labelled.fine, types=labelled.types)


def text_of(sentence: Sentence) -> tuple[str, Places]:
    """Return the text of a sentence and the characters of each word: as it was written, or joined from its words."""
    return plain_text(sentence.tokens) if sentence.text is None else (sentence.text, sentence.places)


@dataclass(frozen=True)
class Judged:
    """
    All candidates in the plain text of labelled sentences, and whether they are entities.

    :param candidates: the features of the candidates
    :param row: index of the sentence of each. *Shape:* (candidates,)
    :param right: whether borders and label are right. *Shape:* (candidates,)
    :param expected: number of entities in the data
    :param fine: sum of each fine type's probability over its words. *Shape:* (candidates, fine types), or
        (candidates, 0) without a fine level
    :param fine_type: index of the fine label; negative if the candidate is wrong or has none. *Shape:* (candidates,)
    """

    candidates: Candidates
    row: Ints
    right: Bools
    expected: int
    fine: Floats
    fine_type: Ints

    def select(self, kept: Bools | Ints) -> Judged:
        """Return only the candidates at ``kept``."""
        return replace(
            self,
            candidates=self.candidates.select(kept),
            row=self.row[kept],
            right=self.right[kept],
            fine=self.fine[kept],
            fine_type=self.fine_type[kept],
        )


def judged_candidates(
    tagger: Tagger,
    sentences: Sequence[Sentence],
    *,
    scheme: Scheme | None = None,
    fine: bool | None = None,
    types: Collection[str] | None = None,
) -> Judged:
    """
    Find all candidates in plain text, at the level of the tagger's labels.

    Candidates that the sentences say nothing about are left out: those of a type outside of their known types, and
    those that contain a word with an unknown tag.

    :param sentences: tagged at the level the model was trained on, or at the coarse one
    :param scheme: tag scheme of the data; None for the model's
    :param fine: whether the tags have the fine level; None for the level of the model
    :param types: coarse labels of the data; None for all
    """
    labels = tagger.labels
    scheme = scheme or labels.scheme or "IO"
    has_fine = labels.has_fine_level if fine is None else fine
    texts = [text_of(sentence) for sentence in sentences]
    candidates, spans, probabilities = tagger.candidates([text for text, _ in texts])

    scored = [_Scored.of(s, types).in_text(places) for s, (_, places) in zip(sentences, texts, strict=True)]
    gold = _by_place([tag_spans(s.tags, scheme, coarse=has_fine) for s in sentences], texts, scored)
    # A file with coarse tags says nothing about fine labels.
    fine_gold = _by_place(
        [tag_spans(s.tags, scheme, coarse=False) if has_fine else [] for s in sentences], texts, scored
    )
    number = {name: i for i, name in enumerate(labels.fine_types)} if labels.has_fine_level else {}

    columns = (spans.row.tolist(), spans.start.tolist(), spans.end.tolist(), spans.label.tolist())
    told, right, fine_type = [], [], []

    for row, start, end, label in zip(*columns, strict=True):
        told.append(scored[row].has(start, end, labels.types[label]))
        is_right = gold[row].get((start, end)) == labels.types[label]
        right.append(is_right)
        # The fine label of a wrong candidate has no right answer.
        fine_type.append(number.get(fine_gold[row].get((start, end), ""), -1) if is_right else -1)

    found = Judged(
        candidates,
        spans.row,
        np.array(right, dtype=np.bool_),
        sum(map(len, gold)),
        probabilities,
        np.array(fine_type, dtype=np.int64),
    )
    return found.select(np.array(told, dtype=np.bool_))


def joined(parts: Sequence[Judged]) -> Judged:
    """Return the candidates of several files as those of one, in the order of the files."""
    found: list[Judged] = []
    rows = words = 0

    for part in parts:
        # Places are counted on, so that candidates of two files never overlap.
        moved = replace(part.candidates, first=part.candidates.first + words, last=part.candidates.last + words)
        found.append(replace(part, candidates=moved, row=part.row + rows))
        rows += int(part.row.max(initial=-1)) + 1
        words += int(part.candidates.last.max(initial=-1)) + 1

    candidates = Candidates(
        *(
            np.concatenate([getattr(part.candidates, name) for part in found])
            for name in ("first", "last", "label", "evidence")
        )
    )
    return Judged(
        candidates,
        np.concatenate([part.row for part in found]),
        np.concatenate([part.right for part in found]),
        sum(part.expected for part in found),
        np.concatenate([part.fine for part in found]),
        np.concatenate([part.fine_type for part in found]),
    )


def _by_place(
    spans: Rows, texts: Sequence[tuple[str, Places]], scored: Sequence[_Scored]
) -> list[dict[tuple[int, int], str]]:
    """Return the expected entities of each plain text that are scored, by their offsets."""
    return [
        {(start, end): kind for start, end, kind in one.kept(row)}
        for row, one in zip(_placed(spans, texts), scored, strict=True)
    ]


def gold_spans(sentence: Sentence, labels: LabelSet, *, fine: bool) -> list[Span]:
    """Return the expected entities of a sentence at one level. Offsets count words."""
    return tag_spans(sentence.tags, labels.scheme or "IO", coarse=labels.has_fine_level and not fine)


def tag_spans(tags: Sequence[str], scheme: Scheme, *, coarse: bool) -> list[Span]:
    """
    Return the entities of one sentence's tags. Offsets count words.

    :param coarse: merge fine types like ``person-actor`` into ``person`` first
    """
    return spans_of([coarse_tag(tag, scheme) for tag in tags] if coarse else tags, scheme)


@dataclass(frozen=True)
class _Scored:
    """
    What of a sentence is scored.

    :param types: coarse labels; None for all
    :param unknown: the ranges (start, end) about which nothing is known, in words or in characters
    """

    types: Collection[str] | None
    unknown: Places

    @classmethod
    def of(cls, sentence: Sentence, types: Collection[str] | None) -> _Scored:
        """Return what is scored of the words of a sentence."""
        known = sentence.known
        both = known if types is None else types if known is None else known & set(types)
        return cls(both, [(i, i + 1) for i in sorted(sentence.unknown)])

    def in_text(self, places: Places) -> _Scored:
        """Return the same for the text of the sentence. :param places: the characters of each word"""
        return replace(self, unknown=[places[word] for word, _ in self.unknown])

    def has(self, start: int, end: int, label: str) -> bool:
        """Whether an entity is scored. :param label: coarse or fine"""
        known = self.types is None or coarse_type(label) in self.types
        return known and not any(start < last and first < end for first, last in self.unknown)

    def kept(self, spans: Sequence[Span]) -> list[Span]:
        """Return the entities that are scored."""
        return [span for span in spans if self.has(*span)]


def _placed(spans: Rows, texts: Sequence[tuple[str, Places]]) -> list[list[Span]]:
    """Convert word indices to character offsets in plain text."""
    return [
        [(places[begin][0], places[end - 1][1], kind) for begin, end, kind in row]
        for row, (_, places) in zip(spans, texts, strict=True)
    ]


def _by_row(
    spans: Spans, labels: LabelSet, scored: Sequence[_Scored], *, fine: bool
) -> tuple[list[list[Span]], list[list[float]]]:
    """Return the entities that are scored as one list per text, named at one level, and their scores."""
    names, index = (labels.fine_types, spans.fine) if fine else (labels.types, spans.label)
    found: list[list[Span]] = [[] for _ in scored]
    scores: list[list[float]] = [[] for _ in scored]
    columns = (spans.row, spans.start, spans.end, index, spans.label, spans.score)

    for row, start, end, name, label, score in zip(*columns, strict=True):
        if scored[row].has(int(start), int(end), labels.types[label]):
            found[row].append((int(start), int(end), names[name]))
            scores[row].append(float(score))

    return found, scores
