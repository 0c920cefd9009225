"""Sentences in the forms in which users write: no word, tag or entity is lost or divided."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_export.config import TrainConfig
from nerd_export.data.checks import Sentence
from nerd_export.data.examples import Example, write_examples
from nerd_export.scoring.f1 import spans_of
from tests.support.profiles import example_count

WORDS = st.sampled_from(["Ada", "Lovelace", "of", "the", "''", "``", "n't", "-LRB-", ",", "U.S.", "東京", "🙂", "'s"])
TAGS = st.sampled_from(["O", "O", "O", "person", "location"])


@st.composite
def sentences(draw: st.DrawFn) -> Sentence:
    pairs = draw(st.lists(st.tuples(WORDS, TAGS), min_size=1, max_size=20))
    unknown = draw(st.frozensets(st.integers(0, len(pairs) - 1), max_size=3))
    tags = ["O" if i in unknown else tag for i, (_, tag) in enumerate(pairs)]
    return Sentence(tuple(word for word, _ in pairs), tuple(tags), unknown, draw(st.sampled_from([1.0, 0.5])))


def bare(text: str) -> str:
    """Drop what plain text writes differently: quotes and brackets."""
    kept = {"``": "", "''": "", "-LRB-": "("}.get(text, text)
    return "".join(c for c in kept if c not in "\"'\u2019\u201c\u201d")


@given(st.lists(sentences(), min_size=1, max_size=8))
def test_nothing_asked_gives_the_words_as_they_are(given: list[Sentence]) -> None:
    for sentence, example in zip(given, write_examples(given, TrainConfig()), strict=True):
        assert example.text == " ".join(sentence.tokens)
        assert [example.text[a:b] for a, b in example.spans] == list(sentence.tokens)
        assert example.tags == sentence.known_tags()
        assert example.weight == sentence.weight


@given(st.lists(sentences(), min_size=1, max_size=8), st.booleans())
def test_joined_plain_text_keeps_every_word_tag_and_doubt(given: list[Sentence], plain: bool) -> None:  # noqa: FBT001
    examples = write_examples(given, TrainConfig(join_share=1.0, plain_share=float(plain)))
    for i, example in enumerate(examples):
        second = given[(i + 1) % len(given)]
        assert list(example.tags) == given[i].known_tags() + second.known_tags()
        words = given[i].tokens + second.tokens
        assert [bare(example.text[a:b]) for a, b in example.spans] == [bare(word) for word in words]
        assert example.weight == min(given[i].weight, second.weight)


@settings(max_examples=example_count(200))
@given(st.lists(sentences(), min_size=1, max_size=8), st.integers(0, 5))
def test_a_fragment_parts_no_entity(given: list[Sentence], seed: int) -> None:
    for sentence, example in zip(given, write_examples(given, TrainConfig(cut_share=1.0, seed=seed)), strict=True):
        words = [example.text[a:b] for a, b in example.spans]
        length = len(words)
        places = [i for i in range(len(sentence.tokens)) if list(sentence.tokens[i : i + length]) == words]
        whole = {(a, b, kind) for a, b, kind in spans_of(sentence.tags, "IO")}
        found = spans_of([tag if isinstance(tag, str) else "O" for tag in example.tags], "IO")
        assert any(all((a + at, b + at, kind) in whole for a, b, kind in found) for at in places)


def test_stretches_without_names_are_added_and_hold_none() -> None:
    tags = ("person", *("O",) * 7, "location", *("O",) * 3)
    sentence = Sentence(tuple(f"w{i}" for i in range(12)), tags)
    doubtful = replace(sentence, unknown=frozenset({4}))  # its only long stretch has a word that may be a name
    examples = write_examples([sentence] * 4 + [doubtful] * 4, TrainConfig(nameless_share=0.5))
    added = examples[8:]
    assert [e.text for e in added] == ["w1 w2 w3 w4 w5 w6 w7"] * 4
    assert all(set(e.tags) == {"O"} for e in added)


def test_lower_case_moves_no_tag() -> None:
    sentence = Sentence(
        ("İstanbul", "AND", "Rome"), ("location", "O", "location")
    )  # İ has two characters in lower case
    (example,) = write_examples([sentence], TrainConfig(lower_share=1.0))
    assert [example.text[a:b] for a, b in example.spans] == ["i\u0307stanbul", "and", "rome"]
    assert example.tags == ["location", "O", "location"]


def test_capitals_and_headlines_are_written_by_their_shares() -> None:
    sentence = Sentence(("the", "iPhone", "of", "straße"), ("O", "product", "O", "location"))
    config = TrainConfig(upper_share=0.3, title_share=0.2, lower_share=0.1)
    examples = write_examples([sentence] * 1000, config)
    forms = Counter(example.text for example in examples)
    assert set(forms) == {
        "the iPhone of straße",
        "THE IPHONE OF STRASSE",
        "The IPhone Of Straße",
        "the iphone of straße",
    }
    assert 0.22 < forms["THE IPHONE OF STRASSE"] / 1000 < 0.32  # a tenth of its share is in lower case
    assert 0.14 < forms["The IPhone Of Straße"] / 1000 < 0.22
    assert all([e.text[a:b] for a, b in e.spans] == e.text.split() for e in examples)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        ("lower_share", "they don't say it's (a well-known) play"),
        ("upper_share", "THEY DON'T SAY IT'S (A WELL-KNOWN) PLAY"),
        ("title_share", "They Don't Say It's (A Well-known) Play"),
    ],
)
def test_plain_text_in_another_case_is_joined_as_people_write(share: str, text: str) -> None:
    words = ("They", "do", "n't", "say", "it", "'s", "-LRB-", "a", "well", "-known", "-RRB-", "play")
    config = TrainConfig(plain_share=1.0, **{share: 1.0})  # type: ignore[arg-type]
    examples = write_examples([Sentence(words, ("O",) * 12)] * 20, config)
    assert {example.text.replace("\u2019", "'") for example in examples} == {text}


@given(st.lists(sentences(), min_size=1, max_size=8))
def test_the_seed_decides(given: list[Sentence]) -> None:
    config = TrainConfig(plain_share=0.5, cut_share=0.3, join_share=0.3, lower_share=0.3, nameless_share=0.5)
    assert write_examples(given, config) == write_examples(given, config)


def test_another_seed_decides_otherwise() -> None:
    given = [Sentence(("Ada", "n't", f"w{i}"), ("person", "O", "O")) for i in range(40)]
    one, other = (write_examples(given, TrainConfig(plain_share=0.5, seed=seed)) for seed in (1, 2))
    assert [e.text for e in one] != [e.text for e in other]


def test_each_form_is_drawn_anew_and_the_first_stays_as_it_is() -> None:
    given = [Sentence(("Ada", "n't", f"w{i}", "in", "Rome"), ("person", "O", "O", "O", "location")) for i in range(60)]
    config = TrainConfig(plain_share=0.5, cut_share=0.2, join_share=0.2, upper_share=0.3, nameless_share=0.1)
    alone = write_examples(given, config)
    thrice = write_examples(given, replace(config, forms=3))
    assert thrice[: len(alone)] == alone
    size = len(alone)
    assert len(thrice) == 3 * size
    forms = [[example.text for example in thrice[i * size : (i + 1) * size]] for i in range(3)]
    assert all(0.2 < sum(a != b for a, b in zip(*two, strict=True)) / size < 1 for two in combinations(forms, 2))


@pytest.mark.parametrize("text", ["", " ", "One text. Two sentences 🙂"])
def test_a_text_without_tags_is_one_doubtful_word(text: str) -> None:
    example = Example.of_unlabelled(text)
    assert (example.text, example.spans, example.tags) == (text, [(0, len(text))], [None])
