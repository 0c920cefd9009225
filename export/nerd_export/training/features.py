"""
Turn examples into model features.

An example is tokenized as plain text, so that training uses the same words as the runtime:
the pre-tokenizer's, which are smaller than given ones (``U.S.`` is four). In training, the first piece of each of them
has the tag of the given word around it. In evaluation, only the first piece of each *given* word has one, as published
scores require.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_export.data.examples import Example
from nerd_export.models.letter_case import token_types

IGNORED = -100  # torch's cross entropy leaves this target out


def piece_targets(
    offsets: Sequence[tuple[int, int]],
    pretokens: Sequence[int | None],
    spans: npt.NDArray[np.int64],
    *,
    every_pretoken: bool,
) -> list[int]:
    """
    Return, for each piece, the index of the given word whose tag it must learn, or -1.

    :param offsets: character span of each piece
    :param pretokens: pre-token of each piece, None for special tokens
    :param spans: character span of each given word. *Shape:* (words, 2)
    :param every_pretoken: True for the first piece of each pre-token, False for that of each given word only
    """
    targets: list[int] = []
    previous_pretoken: int | None = None
    previous_word = -1

    for (start, end), pretoken in zip(offsets, pretokens, strict=True):
        target = -1
        # A piece belongs to the word that contains its last character: its first may be the space before the word.
        if pretoken is not None and end > start and pretoken != previous_pretoken:
            word = int(np.searchsorted(spans[:, 0], end - 1, side="right")) - 1
            inside = word >= 0 and end - 1 < spans[word, 1]
            if inside and (every_pretoken or word != previous_word):
                target = previous_word = word
            previous_pretoken = pretoken
        targets.append(target)

    return targets


def _first_letter(text: str, start: int, end: int) -> int:
    """Return the first character of a piece that is no white space: some tokenizers include the space before a word."""
    return end - len(text[start:end].lstrip()) if text[start:end].strip() else start


@dataclass(frozen=True)
class Features:
    """
    The training input of the Trainer.

    :param dataset: a ``datasets.Dataset`` of input_ids, attention_mask, labels and length, and token_type_ids for a
        model with letter case; one row per example
    :param places: indices of the decided tokens of each row: the first pieces of words
    :param starts: index of the first character of each of those in the text, without white space
    :param lost: number of words without a piece, because they have none or were truncated
    """

    dataset: Any
    places: Sequence[Sequence[int]]
    starts: Sequence[Sequence[int]]
    lost: int


def encode(
    examples: Sequence[Example],
    tokenizer: Any,
    ids: Mapping[Any, int],
    max_tokens: int,
    *,
    every_pretoken: bool,
    letter_case: bool = False,
) -> Features:
    """
    Encode examples for the Trainer. Words with an unknown tag are decided, but have no label.

    :param tokenizer: a fast Hugging Face tokenizer
    :param ids: number of each tag: of its label, or of a partial tag
    :param max_tokens: maximum length of an example in tokens; longer ones are truncated
    :param letter_case: whether the model takes the case of each word as token types
    """
    import datasets

    texts = [example.text for example in examples]
    encoded = tokenizer(
        texts,
        truncation=True,
        max_length=max_tokens,
        return_offsets_mapping=True,
        return_token_type_ids=False,
    )

    labels: list[list[int]] = []
    places: list[list[int]] = []
    starts: list[list[int]] = []
    lost = 0

    for i, example in enumerate(examples):
        offsets = encoded["offset_mapping"][i]
        spans = np.asarray(example.spans, dtype=np.int64).reshape(-1, 2)
        targets = piece_targets(offsets, encoded.word_ids(i), spans, every_pretoken=every_pretoken)
        tags = [None if t < 0 else example.tags[t] for t in targets]

        # A word of unknown tag teaches nothing, but a teacher may still label it: it keeps its place.
        labels.append([IGNORED if tag is None else ids[tag] for tag in tags])
        places.append([place for place, t in enumerate(targets) if t >= 0])
        starts.append([_first_letter(example.text, *offsets[place]) for place in places[-1]])
        lost += len(example.tags) - len(set(targets) - {-1})

    columns = {
        "input_ids": encoded["input_ids"],
        "attention_mask": encoded["attention_mask"],
        "labels": labels,
        "length": [len(row) for row in labels],
    }
    if letter_case:
        columns["token_type_ids"] = token_types(texts, encoded, tokenizer)

    return Features(datasets.Dataset.from_dict(columns), places, starts, lost)
