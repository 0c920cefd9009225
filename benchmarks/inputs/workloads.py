"""Workloads: seeded samples of real corpora, or made-up texts where a corpus is missing."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.paths import shown
from nerd_export.data.sample import sample_texts
from nerd_onnx.inference.encoding import TextEncoder
from nerd_onnx.inference.segments import sentence_ends

MAX_ROW_TOKENS = 500  # pipelines truncate at 512: with longer rows they would do less work than nerd-tag
_BATCH_TEXTS = 256  # texts that are tokenized together


@dataclass(frozen=True)
class Kind:
    """
    A kind of corpus.

    :param about: description for the report
    :param file: the real corpus, in ``corpora/``
    :param characters: minimum and maximum characters of a row
    :param copies: number of times that each text occurs
    :param whole: rows are whole documents of any number of tokens, the shortest first
    """

    name: str
    about: str
    file: str
    characters: tuple[int, int]
    copies: int = 1
    whole: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        Kind("short", "sentences of an encyclopedia", "wikipedia_sentences.parquet", (1, 1_000)),
        Kind("long", "paragraphs of novels, 800 to 2,000 characters", "novels_paragraphs.parquet", (800, 2_000)),
        Kind("ragged", "paragraphs of novels of any length", "novels_paragraphs.parquet", (1, 2_000)),
        Kind("novels", "whole novels", "novels_documents.parquet", (5_000, 2_500_000), whole=True),
        Kind("repeats", "sentences, each eight times", "wikipedia_sentences.parquet", (1, 1_000), copies=8),
    )
}


@dataclass(frozen=True)
class Workload:
    """
    A Parquet file with a ``text`` column, and facts about it.

    :param tokens: tokens by the model's tokenizer, without special tokens; the same number for every peer
    :param source: origin of the texts
    :param stand_in: the texts are made up, because the real corpus is missing
    """

    name: str
    path: Path
    rows: int
    characters: int
    tokens: int
    source: str
    stand_in: bool

    def summary(self) -> dict[str, Any]:
        """Return the facts as plain data."""
        return {**asdict(self), "path": shown(self.path)}


def build_workload(kind: Kind, tokens: int, *, shared: Path, folder: Path, tokenizer_file: Path, seed: int) -> Workload:
    """
    Write the file of a workload. The same seed, tokenizer and corpus give the same file.

    :param tokens: minimum number of tokens
    :param shared: folder that contains ``corpora/``; without it, texts are made up
    :param folder: folder for the file
    :param tokenizer_file: tokenizer that counts the tokens
    """
    # The name in the seed gives every workload its own sample.
    rng = random.Random(f"{seed} {kind.name}")  # noqa: S311  # a sample, not a secret
    corpus = shared / "corpora" / kind.file
    candidates = _documents(corpus) if corpus.is_file() and kind.whole else _candidates(corpus, kind, rng)

    # Rounded up, because the copies multiply the tokens.
    texts, lengths = _take(candidates, -(-tokens // kind.copies), kind, TextEncoder(tokenizer_file))

    texts, lengths = texts * kind.copies, lengths * kind.copies
    order = list(range(len(texts)))
    # Spreads the copies of a text over the file.
    rng.shuffle(order)

    path = folder / f"{kind.name}.parquet"
    column = pa.array([texts[i] for i in order], pa.string())
    pq.write_table(pa.table({"id": pa.array(range(len(texts)), pa.int64()), "text": column}), path)

    return Workload(
        name=kind.name,
        path=path,
        rows=len(texts),
        characters=sum(map(len, texts)),
        tokens=sum(lengths),
        source=shown(corpus) if corpus.is_file() else "stand-ins made of nerd_onnx/sample.jsonl",
        stand_in=not corpus.is_file(),
    )


def first_rows(workload: Workload, tokens: int, path: Path) -> Path:
    """Write the first rows of a workload, with about the given number of tokens; at least one row."""
    rows = max(1, round(workload.rows * tokens / max(1, workload.tokens)))
    pq.write_table(pq.read_table(workload.path).slice(0, rows), path)
    return path


def _take(
    candidates: Iterator[list[str]], tokens: int, kind: Kind, encoder: TextEncoder
) -> tuple[list[str], list[int]]:
    """Return different texts with enough tokens in total, and the number of tokens of each."""
    taken: dict[str, int] = {}
    total = 0

    for texts in candidates:
        for text, length in zip(texts, np.diff(encoder.encode(texts).text_tokens).tolist(), strict=True):
            if total >= tokens:
                return list(taken), list(taken.values())
            # Different texts, or a peer with a cache would do less work than the others.
            if length > 0 and (kind.whole or length <= MAX_ROW_TOKENS) and text not in taken:
                taken[text] = length
                total += length

    # A corpus may be too small; the report then shows how many tokens the workload has.
    return list(taken), list(taken.values())


def _documents(corpus: Path) -> Iterator[list[str]]:
    """Yield whole documents, the shortest first, so that slow peers finish."""
    texts: list[str] = pq.read_table(corpus, columns=["text"])["text"].to_pylist()
    yield from ([text] for text in sorted(texts, key=len))


def _candidates(corpus: Path, kind: Kind, rng: random.Random) -> Iterator[list[str]]:
    """Yield texts of a suitable length in random order, from the corpus or, if it is missing, made up."""
    if not corpus.is_file():
        # Endless, because _take() stops when it has enough tokens.
        while True:
            yield _stand_ins(kind, _BATCH_TEXTS, rng)

    column = pq.read_table(corpus, columns=["text"])["text"].combine_chunks()
    length = pc.utf8_length(column)
    minimum, maximum = kind.characters
    fitting = pc.and_(pc.greater_equal(length, minimum), pc.less_equal(length, maximum))

    # The corpora repeat sentences, and only the workload "repeats" should do so.
    texts: list[str] = pc.unique(column.filter(fitting)).to_pylist()
    rng.shuffle(texts)
    yield from _chunks(texts, _BATCH_TEXTS)


def _chunks(texts: Sequence[str], size: int) -> Iterator[list[str]]:
    """Yield consecutive parts of a list."""
    for first in range(0, len(texts), size):
        yield list(texts[first : first + size])


def _stand_ins(kind: Kind, rows: int, rng: random.Random) -> list[str]:
    """Return different rows of a suitable length, made up of halves of the sample sentences."""
    sentences = [sentence for text in sample_texts() for sentence in _sentences(text)]
    minimum, maximum = kind.characters
    made: dict[str, None] = {}

    # Halves of real sentences keep the lengths and words of real text, without a corpus.
    while len(made) < (1 if kind.whole else rows):
        parts = [_recombined(sentences, rng)]
        wanted = rng.randint(minimum, min(maximum, 4 * minimum)) if minimum > 1 else 0
        while sum(map(len, parts)) + len(parts) - 1 < wanted:
            parts.append(_recombined(sentences, rng))

        text = " ".join(parts)
        if minimum <= len(text) <= maximum:
            made[text] = None

    return list(made)


def _recombined(sentences: Sequence[str], rng: random.Random) -> str:
    """Return the first half of a random sentence and the second half of another."""
    one, other = rng.choice(sentences).split(), rng.choice(sentences).split()
    return " ".join(one[: (len(one) + 1) // 2] + other[len(other) // 2 :])


def _sentences(text: str) -> list[str]:
    """Return the sentences of a text that have at least four words."""
    ends = [0, *sentence_ends(text).tolist(), len(text)]
    parts = [text[begin:end].strip() for begin, end in itertools.pairwise(ends)]
    return [part for part in parts if len(part.split()) >= 4]  # noqa: PLR2004
