"""Letter case in PyTorch models: token types that tell it, and tables that hold it; see the runtime's module."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from nerd_onnx.errors import NerdError
from nerd_onnx.inference.bundle import sees_case
from nerd_onnx.inference.letter_case import LETTER_CASES, token_cases

_OF_PAIRS = 2  # types of a model that reads pairs of texts


def with_letter_case(model: Any, name: str) -> None:
    """
    Let a model see letter case: its table of token types gets a row a case.

    Words without capitals keep the row that all words had. The others' rows are that one with noise, of the size that
    the model's weights began with, which a fine-tune at its usual rate learns from.

    :param model: a transformers model; one that sees it already stays as it is
    :param name: how the user named it
    :raises NerdError: when it has no table of token types
    """
    import torch

    if sees_case(model.config.to_dict()):
        return

    tables = [m for n, m in model.named_modules() if n.rsplit(".", 1)[-1] == "token_type_embeddings"]
    # RoBERTa and its kin have a table of one row, which no input chooses from.
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
    table.num_embeddings = model.config.type_vocab_size = LETTER_CASES
    model.config.letter_case = True


def token_types(texts: Sequence[str], encoded: Any, tokenizer: Any) -> list[list[int]]:
    """
    Return the token types that encode letter case. A truncated word has the case of the whole word.

    :param encoded: what the tokenizer made of ``texts``, without padding; texts may be cut behind
    :param tokenizer: a fast Hugging Face tokenizer
    :return: of each text's tokens; special ones have 0
    """
    whole = encoded
    if any(one.overflowing for one in encoded.encodings):
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

    return [
        [0 if word is None else case for case, word in zip(part.tolist(), words, strict=False)] for part, words in parts
    ]
