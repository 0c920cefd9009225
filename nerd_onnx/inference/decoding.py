"""Logits to entities: per word, vectorised, and row by row, so that no text's result depends on another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nerd_onnx.inference.arrays import Bools, Floats, Ints, ragged_arange
from nerd_onnx.inference.encoding import EncodedTexts
from nerd_onnx.inference.labels import LabelSet


@dataclass(frozen=True)
class WordDecisions:
    """
    What the network says of some words.

    :param word: index of each word. *Shape:* (words,)
    :param cls: class it decided for (see :class:`LabelSet`). *Shape:* (words,)
    :param probability: probability of that class: the sum over its labels. *Shape:* (words,)
    :param of_others: probability of each type that it did not decide for, 0 for its own: a word beside of the same type
        is an entity of its own. *Shape:* (words, types)
    :param inside: positions in ``word`` of those that belong to an entity. *Shape:* (entity words,)
    :param fine: probability of each fine type, for the entity words. *Shape:* (entity words, fine types), or
        (entity words, 0) without a fine level
    """

    word: Ints
    cls: Ints
    probability: Floats
    of_others: Floats
    inside: Ints
    fine: Floats


_COLUMNS = ("row", "start", "end", "label", "fine", "score", "border")


@dataclass(frozen=True)
class Spans:
    """
    Entities of many texts as arrays, sorted by text and place.

    :param row: index of the text. *Shape:* (entities,)
    :param start: offset of the first character, in code points. *Shape:* (entities,)
    :param end: one past the last character. *Shape:* (entities,)
    :param label: index into ``LabelSet.types``. *Shape:* (entities,)
    :param fine: index into ``LabelSet.fine_types``; all -1 without a fine level. *Shape:* (entities,)
    :param score: mean probability of the entity's words for its label, 0 to 1. *Shape:* (entities,)
    :param border: probability that the words beside it are not of its label, 0 to 1. *Shape:* (entities,)
    """

    row: Ints
    start: Ints
    end: Ints
    label: Ints
    fine: Ints
    score: Floats
    border: Floats

    def __len__(self) -> int:
        return len(self.row)

    def select(self, kept: Bools | Ints) -> Spans:
        """Give only the entities at ``kept``."""
        return Spans(*(getattr(self, name)[kept] for name in _COLUMNS))

    def of_rows(self, rows: Ints) -> Spans:
        """
        Give the entities of some texts, which are then numbered by their place here.

        :param rows: indices of texts, in any order and as often as wanted. *Shape:* (rows,)
        """
        first, last = (np.searchsorted(self.row, rows, side=side) for side in ("left", "right"))
        return replace(self.select(ragged_arange(first, last)), row=np.repeat(np.arange(len(rows)), last - first))

    @staticmethod
    def concatenate(parts: Sequence[Spans]) -> Spans:
        """Put spans one after the other; no parts make no spans."""
        parts = parts or [Spans.empty()]
        return Spans(*(np.concatenate([getattr(p, name) for p in parts]) for name in _COLUMNS))

    @staticmethod
    def empty() -> Spans:
        """No entities."""
        none, nothing = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        return Spans(none, none, none, none, none, nothing, nothing)


class Decoder:
    """
    Decide words and join them into entities, by the labels' scheme.

    An entity opens at a word whose class says so (``B-``, ``U-``), and wherever the type changes or the word
    before is outside; it closes at ``L-`` and ``U-``. This is how conlleval and transformers' pipeline read
    tags; no step is illegal, so IOB1, IOB2, BILOU and plain IO are read by one rule.
    """

    def __init__(self, labels: LabelSet) -> None:
        self.labels = labels
        self._by_class = _Grouping(labels.class_of_label, len(labels.type_of_class))
        self._by_type = _Grouping(labels.type_of_class, len(labels.types))
        self._by_fine_type = _Grouping(labels.fine_type_of_label, len(labels.fine_types))

    def decide(self, words: Ints, logits: Floats) -> WordDecisions:
        """
        Decide each word's class from the logits of its first token.

        :param words: index of each word. *Shape:* (words,)
        :param logits: *Shape:* (words, labels)
        """
        probabilities = softmax(logits)
        of_class = self._by_class.sums(probabilities)
        cls = of_class.argmax(axis=1)
        probability = np.take_along_axis(of_class, cls[:, None], axis=1)[:, 0]
        decided = self.labels.type_of_class[cls]
        inside = np.flatnonzero(decided >= 0)
        of_others = self._by_type.sums(of_class)
        of_others[inside, decided[inside]] = 0
        if self.labels.has_fine_level:
            fine = self._by_fine_type.sums(probabilities[inside])
        else:
            fine = np.empty((len(inside), 0), dtype=np.float32)
        return WordDecisions(words, cls, probability, of_others, inside, fine)

    def spans(self, encoded: EncodedTexts, decisions: Sequence[WordDecisions]) -> Spans:
        """
        Join decided words into entities; an entity never crosses from one text to the next.

        :param encoded: the texts whose words were decided
        :param decisions: every word exactly once, in any order
        """
        words = len(encoded.word_token)
        cls, probability = np.zeros(words, dtype=np.int64), np.zeros(words, dtype=np.float32)
        of_others = np.zeros((words, len(self.labels.types)), dtype=np.float32)
        for part in decisions:
            cls[part.word], probability[part.word], of_others[part.word] = part.cls, part.probability, part.of_others
        first_of_text = np.zeros(words + 1, dtype=np.bool_)
        first_of_text[encoded.text_words] = True
        inside, opens = self._borders(cls, first_of_text[:words])
        word = np.flatnonzero(inside)
        if not len(word):
            return Spans.empty()
        begin = np.flatnonzero(opens[word])
        first = word[begin]
        last = np.append(word[begin[1:] - 1], word[-1])
        label = self.labels.type_of_class[cls[first]]
        length = np.diff(np.append(begin, len(word)))
        score = np.add.reduceat(probability[word].astype(np.float64), begin) / length
        before = _beside(label, first - 1, ~first_of_text[first], of_others)
        after = _beside(label, last + 1, ~first_of_text[last + 1], of_others)
        return Spans(
            row=np.searchsorted(encoded.text_words, first, side="right") - 1,
            start=encoded.word_start[first],
            end=encoded.word_end[last],
            label=label,
            fine=self._fine(decisions, words, word, begin, label),
            score=np.minimum(score, 1.0).astype(np.float32),
            border=(1 - before) * (1 - after),
        )

    def _borders(self, cls: Ints, first_of_text: Bools) -> tuple[Bools, Bools]:
        """Tell which words are inside an entity, and which of them open one. *Shape:* (words,) both."""
        types = self.labels.type_of_class[cls]
        inside = types >= 0
        before = np.concatenate(([-1], types[:-1]))
        closed_before = np.concatenate(([False], self.labels.class_ends[cls][:-1]))
        opens = first_of_text | self.labels.class_starts[cls] | closed_before | (before != types)
        return inside, opens & inside

    def _fine(self, decisions: Sequence[WordDecisions], words: int, word: Ints, begin: Ints, label: Ints) -> Ints:
        """Choose each entity's fine type: the likeliest over its words among those of its coarse type."""
        if not self.labels.has_fine_level:
            return np.full(len(begin), -1, dtype=np.int64)
        place = np.empty(words, dtype=np.int64)
        stacked = np.concatenate([part.fine for part in decisions])
        place[np.concatenate([part.word[part.inside] for part in decisions])] = np.arange(len(stacked))
        sums = np.add.reduceat(stacked[place[word]], begin, axis=0)
        allowed = self.labels.type_of_fine_type[None, :] == label[:, None]
        best: Ints = np.where(allowed, sums, -1.0).argmax(axis=1)
        return best


def _beside(label: Ints, word: Ints, is_there: Bools, of_others: Floats) -> Floats:
    """
    Give the probability that the words beside entities are of their labels, 0 where there is none.

    :param word: the words. *Shape:* (entities,)
    :param is_there: whether there is such a word in the same text. *Shape:* (entities,)
    :param of_others: see :class:`WordDecisions`. *Shape:* (words, types)
    """
    return np.where(is_there, of_others[np.where(is_there, word, 0), label], np.float32(0))


def softmax(logits: Floats) -> Floats:
    """Turn each row of logits into probabilities. *Shape:* (words, labels), as given."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


class _Grouping:
    """
    Sum columns that belong to one group, always in the same order: unlike a matrix product, whose rounding may
    change with the number of rows.

    :param group_of_column: group of each column, below 0 for none. *Shape:* (columns,)
    """

    def __init__(self, group_of_column: Ints, groups: int) -> None:
        order = np.argsort(group_of_column, kind="stable")
        self._columns = order[group_of_column[order] >= 0]
        sizes = np.bincount(group_of_column[self._columns], minlength=groups)
        self._begins = np.concatenate(([0], np.cumsum(sizes)[:-1]))
        self._one_to_one = bool((sizes == 1).all())

    def sums(self, values: Floats) -> Floats:
        """Sum each row's columns by group, into a new array. *Shape:* (rows, columns) to (rows, groups)."""
        sorted_values = values[:, self._columns]
        if self._one_to_one or not len(values):
            return sorted_values[:, : len(self._begins)]
        return np.add.reduceat(sorted_values, self._begins, axis=1)
