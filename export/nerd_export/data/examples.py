"""
Write sentences as training texts: with the given words, or in the forms in which users write.

Labelled data has treebank words and whole sentences, and nearly every sentence has a name in it. Users send plain
text, headlines, paragraphs, lower case, and much text without any name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nerd_export.config import TrainConfig
from nerd_export.data.checks import Sentence
from nerd_export.data.partial_tags import Tag
from nerd_export.data.plain_text import CURLY, STRAIGHT, joins_what_is_before, plain_text
from nerd_onnx.inference.encoding import word_ranges
from nerd_onnx.inference.labels import OUTSIDE

_LEAST_WORDS = 3  # minimum length of a fragment
_NAMELESS_WORDS = 6  # minimum length of an added text without an entity


@dataclass(frozen=True)
class Example:
    """
    A training text.

    :param spans: character range of each word
    :param tags: tag of each word, perhaps a partial one; None where it is not known
    :param weight: weight of its words in the loss
    """

    text: str
    spans: Sequence[tuple[int, int]]
    tags: Sequence[Tag | None]
    weight: float = 1.0

    @classmethod
    def of_words(cls, sentence: Sentence) -> Example:
        """Join given words by spaces; a sentence that was cut from a text stays as it was written."""
        if sentence.text is not None:
            return cls(sentence.text, sentence.places, sentence.targets(), sentence.weight)
        spans = [(int(start), int(end)) for start, end in word_ranges(sentence.tokens)]
        return cls(" ".join(sentence.tokens), spans, sentence.targets(), sentence.weight)

    @classmethod
    def of_plain_text(cls, sentence: Sentence, quotes: str) -> Example:
        """Join words as a person would have written them; a sentence that was cut from a text is written so."""
        if sentence.text is not None:
            return cls.of_words(sentence)
        text, spans = plain_text(sentence.tokens, quotes)
        return cls(text, spans, sentence.targets(), sentence.weight)

    @classmethod
    def of_unlabelled(cls, text: str) -> Example:
        """Return an example whose tags are all unknown. The whole text counts as one word here."""
        return cls(text, [(0, len(text))], [None])


def write_examples(sentences: Sequence[Sentence], config: TrainConfig) -> list[Example]:
    """
    Write each sentence ``config.forms`` times, in forms drawn by the shares of ``config``, and add texts without
    names.

    The same sentences and seed give the same examples; the first form does not depend on how many there are.
    """
    # The numbers behind the seed give each kind of draw random numbers of its own: 1 for capitals, 2 for forms, 3 for
    # shares.
    seeds = [[config.seed], *([config.seed, 2, form] for form in range(1, config.forms))]
    return [example for seed in seeds for example in _written(_drawn(sentences, seed), config, seed)]


def _drawn(sentences: Sequence[Sentence], seed: list[int]) -> Sequence[Sentence]:
    """Return each sentence as often as its share says; the fraction of a share is drawn."""
    shares = np.array([sentence.share for sentence in sentences])
    if (shares == 1).all():
        return sentences  # without a draw, so that the other draws stay as they were before this option

    times = np.floor(shares + np.random.default_rng([*seed, 3]).random(len(shares))).astype(int)
    return [sentence for sentence, count in zip(sentences, times.tolist(), strict=True) for _ in range(count)]


def _written(sentences: Sequence[Sentence], config: TrainConfig, seed: list[int]) -> list[Example]:
    """Write each sentence once. :param seed: of the draws."""
    random = np.random.default_rng(seed)
    shares = (config.cut_share, config.join_share, config.lower_share, config.plain_share)
    draws = random.random((len(sentences), len(shares))) < np.array(shares)

    # The last sentence is joined with the first.
    followers = [*sentences[1:], *sentences[:1]]

    examples = []
    capitals = _capitals(len(sentences), config, seed)

    for sentence, follower, (cut, join, lower, plain), capital in zip(
        sentences, followers, draws.tolist(), capitals, strict=True
    ):
        written = _cut(sentence, random) if cut else sentence
        written = _joined(written, follower) if join else written
        written = _recased(written, str.lower if lower else capital)
        examples.append(_example(written, random) if plain else Example.of_words(written))

    # Texts without a name teach where nothing is to be found; most sentences of a labelled corpus have one.
    wanted = round(config.nameless_share * len(sentences))
    pool = [part for sentence in sentences for part in _nameless(sentence)] if wanted else []
    picked = random.permutation(len(pool))[:wanted]

    return examples + [_example(pool[i], random) for i in picked]


def _example(sentence: Sentence, random: np.random.Generator) -> Example:
    """Write a sentence as plain text, with typographic quotes in half of the cases."""
    return Example.of_plain_text(sentence, STRAIGHT if random.random() < 0.5 else CURLY)  # noqa: PLR2004


def _cut(sentence: Sentence, random: np.random.Generator) -> Sentence:
    """Return a fragment of a sentence. No entity is divided: one side of each cut is a word outside entities."""
    tags = sentence.known_tags()
    borders = [i for i in range(1, len(tags)) if OUTSIDE in (tags[i - 1], tags[i])]
    # Two borders may be equal or close: a sentence without a real fragment stays whole.
    begin, end = sorted(random.choice([0, *borders, len(tags)], size=2).tolist())
    return _part(sentence, begin, end) if end - begin >= _LEAST_WORDS else sentence


def _joined(first: Sentence, second: Sentence) -> Sentence:
    """Join two sentences to one text with the lower weight of both; only if they are labelled for the same types."""
    if (first.known, first.is_coarse) != (second.known, second.is_coarse):
        return first

    unknown = first.unknown | {i + len(first.tokens) for i in second.unknown}
    weight = min(first.weight, second.weight)
    return replace(
        first,
        tokens=first.tokens + second.tokens,
        tags=first.tags + second.tags,
        unknown=unknown,
        weight=weight,
        **_both_texts(first, second),
    )


def _both_texts(first: Sentence, second: Sentence) -> dict[str, Any]:
    """Return text and places of two sentences with a space between them; without a text if one has none."""
    if first.text is None or second.text is None:
        return {"text": None, "places": ()}

    shift = len(first.text) + 1
    moved = [(start + shift, end + shift) for start, end in second.places]
    return {"text": f"{first.text} {second.text}", "places": (*first.places, *moved)}


def _capitals(count: int, config: TrainConfig, seed: list[int]) -> list[Callable[[str], str]]:
    """Draw the letter case of each sentence: capitals, headline, or unchanged."""
    # A generator of its own keeps the draws of the other forms as they were before this option.
    draws = np.random.default_rng([*seed, 1]).random(count)
    borders = (config.upper_share, config.upper_share + config.title_share)
    ways: tuple[Callable[[str], str], ...] = (str.upper, _title, str)
    return [ways[place] for place in np.searchsorted(borders, draws, side="right")]


def _title(word: str) -> str:
    # str.title() would write McDonald as Mcdonald.
    return word if joins_what_is_before(word) else word[:1].upper() + word[1:]


def _recased(sentence: Sentence, write: Callable[[str], str]) -> Sentence:
    tokens = tuple(map(write, sentence.tokens))
    if sentence.text is None or tokens == sentence.tokens:
        return replace(sentence, tokens=tokens)

    # Word by word, because the case of some letters changes their number.
    parts: list[str] = []
    places = []
    length = end = 0
    for token, (start, stop) in zip(tokens, sentence.places, strict=True):
        parts += [sentence.text[end:start], token]
        length += start - end + len(token)
        places.append((length - len(token), length))
        end = stop
    return replace(sentence, tokens=tokens, text="".join([*parts, sentence.text[end:]]), places=tuple(places))


def _nameless(sentence: Sentence) -> Iterator[Sentence]:
    """Yield the longest sequences of words without an entity, if they are long enough to read as text."""
    begin = 0
    for end, tag in enumerate((*sentence.known_tags(), None)):
        if tag != OUTSIDE:
            if end - begin >= _NAMELESS_WORDS:
                yield _part(sentence, begin, end)
            begin = end + 1


def _part(sentence: Sentence, begin: int, end: int) -> Sentence:
    unknown = frozenset(i - begin for i in sentence.unknown if begin <= i < end)
    part = replace(sentence, tokens=sentence.tokens[begin:end], tags=sentence.tags[begin:end], unknown=unknown)
    if sentence.text is None:
        return part

    first, last = sentence.places[begin][0], sentence.places[end - 1][1]
    places = tuple((start - first, stop - first) for start, stop in sentence.places[begin:end])
    return replace(part, text=sentence.text[first:last], places=places)
