"""Characters that hide words are read as something plainer, and offsets stay those of the text as given."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerd_onnx.inference.encoding import TextEncoder
from nerd_onnx.inference.tokenizer_input import read
from tests.support.models import train_tokenizer
from tests.support.profiles import example_count

SYMBOLS = ["😀", "👍🏽", "🇩🇪", "👩‍👩‍👧", "❤️", "1️⃣", "™", "®", "→", "¹", "²", "│", "■", "•️☕", "\ue000", "①", "\u00d7"]
WHITE_SPACE = [
    "\f",
    "\v",
    "\x85",
    "\x1c",
    "\x1d",
    "\x1e",
    "\x1f",
    "\u200b",
    "\ufeff",
    "\u2028",
    "\u2029",
    "\x00",
    "\x92",
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder, "bert")
    return TextEncoder(folder / "tokenizer.json", "treebank")


def words_of(encoder: TextEncoder, text: str) -> list[str]:
    encoded = encoder.encode([text])
    return [text[s:e] for s, e in zip(encoded.word_start, encoded.word_end, strict=True)]


@pytest.mark.parametrize("char", WHITE_SPACE)
def test_what_normalizers_delete_is_white_space(encoder: TextEncoder, char: str) -> None:
    assert words_of(encoder, f"Angela{char}Merkel") == ["Angela", "Merkel"]
    plain, given_text = encoder.encode(["Angela Merkel"]), encoder.encode([f"Angela{char}Merkel"])
    assert given_text.ids.tolist() == plain.ids.tolist()


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_symbols_are_words_of_their_own(encoder: TextEncoder, symbol: str) -> None:
    """A word beside a symbol has the tokens that it has with a space between them."""
    text = f"in Paris{symbol} and {symbol}London"
    words = words_of(encoder, text)
    assert words[:2] + words[-1:] == ["in", "Paris", "London"]
    spaced = encoder.encode([f"in Paris {symbol} and {symbol} London"])
    found = encoder.encode([text])
    assert found.ids.tolist() == spaced.ids.tolist()
    assert found.borders is not None
    symbols = [word for word, is_symbol in zip(words, found.borders.symbols, strict=True) if is_symbol]
    assert "".join(symbols) in symbol * 2 or len(symbols) == 2


@pytest.mark.parametrize(
    ("text", "plain", "words"),
    [
        ("the o\ufb03ce in She\ufb03eld", "the office in Sheffield", ["the", "o\ufb03ce", "in", "She\ufb03eld"]),
        ("\uff22\uff25\uff32\uff2c\uff29\uff2e", "BERLIN", ["\uff22\uff25\uff32\uff2c\uff29\uff2e"]),
        ("\U0001d401\U0001d41e\U0001d42b", "Ber", ["\U0001d401\U0001d41e\U0001d42b"]),
        ("Henry \u2167, Ma\u017f\u017fachusetts", "Henry VIII, Massachusetts", None),
        ("\u210b\u2102", "HC", None),
        ("x\u00b2 \u2122", "x \u00b2   \u2122", None),  # not x2 and TM
        ("Maria&nbsp;Schmidt", "Maria Schmidt", ["Maria", "Schmidt"]),
        ("AT&amp;T &lt;b&gt;", "AT&T <b>", ["AT&amp;T", "&lt;", "b", "&gt;"]),
        ("M&uuml;ller O&#39;Brien &#x41;", "Müller O'Brien A", None),
        ("Maria&unknown;Schmidt, R&D; &#0; &;", "Maria&unknown;Schmidt, R&D; \ufffd &;", None),
        ("Paris&trade;", "Paris \u2122 ", ["Paris", "&trade;"]),
        ("a\ud800b", "a\ufffdb", None),
        ("a\vb", "a\nb", ["a", "b"]),
    ],
)
def test_plain_forms(encoder: TextEncoder, text: str, plain: str, words: list[str] | None) -> None:
    assert read(text, str).text.strip() == plain.strip()
    if words is not None:
        assert words_of(encoder, text) == words


@pytest.mark.parametrize("token", ["[MASK]", "[SEP]", "[UNK]", "[PAD]", "[CLS]"])
def test_a_text_that_spells_a_special_token_is_plain_text(encoder: TextEncoder, token: str) -> None:
    assert words_of(encoder, f"in {token} x") == ["in", "[", token[1:-1], "]", "x"]


def test_ordinary_texts_are_read_as_they_are() -> None:
    for text in [
        "",
        'It\'s "Time" (1983), 50% & more; R&D.\n\ttab\r\n',
        "Zürich \u2013 東京 \u201cx\u201d 5\u00a0€ שלום",
    ]:
        reading = read(text, str)
        assert (reading.text, reading.begin, reading.end) == (text, None, None)


PIECES = st.sampled_from(
    [
        "a",
        "B",
        " ",
        "é",
        "東",
        *SYMBOLS,
        *WHITE_SPACE,
        "ﬃ",
        "\uff21",
        "\U0001d400",
        "ŉ",
        "&amp;",
        "&nbsp;",
        "&x",
        "\ud800",
    ]
)


@given(st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=20).map("".join)), st.booleans())
@settings(max_examples=example_count(300), deadline=None)
def test_each_character_stands_for_characters_of_the_text(text: str, symbols_apart: bool) -> None:  # noqa: FBT001
    reading = read(text, (lambda symbol: symbol[:1]) if symbols_apart else None)
    reading.text.encode()  # no surrogates are left
    if reading.begin is None or reading.end is None:
        assert len(reading.text) == len(text)
        return

    assert len(reading.begin) == len(reading.end) == len(reading.text)
    assert (reading.begin[1:] >= reading.begin[:-1]).all()
    assert (reading.end[1:] >= reading.end[:-1]).all()
    stands_for = [set(range(b, e)) for b, e in zip(reading.begin, reading.end, strict=True)]
    assert set().union(*stands_for) == set(range(len(text)))
    for char, places in zip(reading.text, stands_for, strict=True):
        assert places or char == " "


@given(st.lists(st.one_of(st.text(max_size=20), st.lists(PIECES, max_size=20).map("".join)), max_size=4))
@settings(max_examples=example_count(300), deadline=None)
def test_words_keep_their_places_and_texts_do_not_change_each_other(encoder: TextEncoder, texts: list[str]) -> None:
    together = encoder.encode(texts)
    for i, text in enumerate(texts):
        first, last = together.text_words[i : i + 2]
        places = list(
            zip(together.word_start[first:last].tolist(), together.word_end[first:last].tolist(), strict=True)
        )
        assert all(0 <= start < end <= len(text) for start, end in places)
        assert all(one[1] <= two[0] for one, two in pairwise(places))
        assert not any(unicodedata.category(char) == "Cc" for start, end in places for char in text[start:end])
        tokens = together.token_end[together.text_tokens[i] : together.text_tokens[i + 1]]
        assert tokens.tolist() == sorted(tokens.tolist())
        alone = encoder.encode([text])
        assert places == list(zip(alone.word_start.tolist(), alone.word_end.tolist(), strict=True))


def test_symbols_of_other_tokenizers_stay_where_they_are() -> None:
    """A tokenizer that splits words further reads a symbol as a token, and needs no space."""
    assert read("Paris\u2122😀", None).text == "Paris\u2122😀"
