"""Letter case in PyTorch models, as token types; see :mod:`nerd_onnx.inference.letter_case`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from nerd_onnx.errors import NerdError
from nerd_onnx.inference.bundle import sees_case
from nerd_onnx.inference.letter_case import LETTER_CASES, token_cases

_OF_PAIRS = 2  # token types of a model that reads pairs of texts


def with_letter_case(model: Any, name: str) -> None:
    """
    Add letter case to the inputs of a model: its table of token types gets one row per case.

    Words without capitals keep the row that all words had. The other rows are copies with noise of the size with which
    the model's weights were initialised, so that a fine-tune at its usual learning rate can separate them.

    :param model: a transformers model; one that has letter case already is not changed
    :param name: the name that the user gave
    :raises NerdError: when it has no table of token types
    """
    import torch

    # A base model with letter case has learned its rows; new ones would throw that away.
    if sees_case(model.config.to_dict()):
        return

    tables = [m for n, m in model.named_modules() if n.rsplit(".", 1)[-1] == "token_type_embeddings"]
    # RoBERTa and its relatives have a table of one row, which no input selects.
    if len(tables) != 1 or not isinstance(tables[0], torch.nn.Embedding) or tables[0].num_embeddings < _OF_PAIRS:
        raise NerdError(
            f"--letter-case: model {name!r} has no table of token types, which letter case needs; BERT, ELECTRA and "
            "ALBERT have one. Leave the option out: a cased vocabulary does not need it",
            reason="no-token-types",
            option="--letter-case",
            file=name,
        )

    table = tables[0]
    rows = table.weight.detach()[:1].repeat(LETTER_CASES, 1)
    rows[1:] += torch.randn_like(rows[1:]) * getattr(model.config, "initializer_range", 0.02)
    table.weight = torch.nn.Parameter(rows)
    # In the configuration too, or transformers could not load the checkpoint again.
    table.num_embeddings = model.config.type_vocab_size = LETTER_CASES
    model.config.letter_case = True


def token_types(texts: Sequence[str], encoded: Any, tokenizer: Any) -> list[list[int]]:
    """
    Return the token types that encode letter case. A truncated word has the case of the whole word.

    :param encoded: output of the tokenizer for ``texts``, without padding; texts may be truncated
    :param tokenizer: a fast Hugging Face tokenizer
    :return: token types of each text; special tokens have 0
    """
    whole = encoded
    if any(one.overflowing for one in encoded.encodings):
        # A truncated word must have the case of the whole word, as in the runtime, so the full text is needed.
        whole = tokenizer(texts, truncation=False, return_offsets_mapping=True, verbose=False)

    ends = np.cumsum([0, *map(len, whole["input_ids"])])
    words = chain.from_iterable(whole.word_ids(i) for i in range(len(texts)))
    cases = token_cases(
        texts,
        np.array([-1 if word is None else word for word in words], dtype=np.int64),
        np.array(list(chain.from_iterable(whole["offset_mapping"])), dtype=np.int64).reshape(-1, 2),
        ends,
    )
    kept = [encoded.word_ids(i) for i in range(len(texts))]
    parts = zip(np.split(cases, ends[1:-1]), kept, strict=True)

    # A truncated text has fewer tokens than the whole one, and they are its first; the special token at its end has no
    # case.
    return [
        [0 if word is None else case for case, word in zip(part.tolist(), words, strict=False)] for part, words in parts
    ]
