"""
Labelled words to model features.

A sentence is joined by spaces and tokenized as plain text, so that training sees the same words the runtime
decides on: the pre-tokenizer's, which are smaller than given ones (``U.S.`` is four). In training the first
piece of each of those carries the tag of the given word around it; in evaluation the first piece of each
*given* word does, as published figures count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_export.training.checks import Sentence
from nerd_onnx.inference.encoding import word_ranges

IGNORED = -100  # torch's cross entropy leaves this target out


def piece_targets(
    offsets: Sequence[tuple[int, int]],
    pretokens: Sequence[int | None],
    spans: npt.NDArray[np.int64],
    *,
    every_pretoken: bool,
) -> list[int]:
    """
    Tell for each piece the given word whose tag it must learn, or -1.

    :param offsets: character span of each piece
    :param pretokens: pre-token of each piece, None for special tokens
    :param spans: character span of each given word. *Shape:* (words, 2)
    :param every_pretoken: True marks the first piece of each pre-token, False of each given word only
    """
    targets: list[int] = []
    previous_pretoken: int | None = None
    previous_word = -1
    for (start, end), pretoken in zip(offsets, pretokens, strict=True):
        target = -1
        if pretoken is not None and end > start and pretoken != previous_pretoken:
            word = int(np.searchsorted(spans[:, 0], end - 1, side="right")) - 1
            inside = word >= 0 and end - 1 < spans[word, 1]
            if inside and (every_pretoken or word != previous_word):
                target = previous_word = word
            previous_pretoken = pretoken
        targets.append(target)
    return targets


def encode(
    sentences: Sequence[Sentence], tokenizer: Any, ids: Mapping[str, int], max_tokens: int, *, every_pretoken: bool
) -> tuple[Any, int]:
    """
    Encode sentences for the Trainer.

    :param tokenizer: a fast Hugging Face tokenizer
    :param ids: label id of each tag
    :return: a ``datasets.Dataset`` of input_ids, attention_mask, labels, length; and the number of given
        words that got no piece because their sentence is longer than ``max_tokens``
    """
    import datasets

    encoded = tokenizer(
        [" ".join(s.tokens) for s in sentences],
        truncation=True,
        max_length=max_tokens,
        return_offsets_mapping=True,
        return_token_type_ids=False,
    )
    labels: list[list[int]] = []
    lost = 0
    for i, sentence in enumerate(sentences):
        targets = piece_targets(
            encoded["offset_mapping"][i],
            encoded.word_ids(i),
            word_ranges(sentence.tokens),
            every_pretoken=every_pretoken,
        )
        labels.append([ids[sentence.tags[t]] if t >= 0 else IGNORED for t in targets])
        lost += len(sentence.tokens) - len(set(targets) - {-1})
    columns = {
        "input_ids": encoded["input_ids"],
        "attention_mask": encoded["attention_mask"],
        "labels": labels,
        "length": [len(row) for row in labels],
    }
    return datasets.Dataset.from_dict(columns), lost
