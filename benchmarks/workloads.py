"""The files that are tagged: seeded samples of real corpora, or stand-ins made of the program's sample texts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.paths import shown
from nerd_export.conversion.verify import sample_texts
from nerd_onnx.inference.encoding import TextEncoder
from nerd_onnx.inference.segments import sentence_ends

LONGEST_ROW_TOKENS = 500  # pipelines cut at 512 with the special ones: with longer rows, peers would do less work


@dataclass(frozen=True)
class Shape:
    """
    A kind of corpus.

    :param file: the real corpus, under ``corpora/``
    :param characters: fewest and most characters of a row
    :param full_rows: rows of the full form
    :param short_rows: rows of the short form
    """

    name: str
    file: str
    characters: tuple[int, int]
    full_rows: int
    short_rows: int


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("short", "wikipedia_sentences.parquet", (1, 1_000), 4_000, 400),
        Shape("long", "novels_paragraphs.parquet", (800, 2_000), 400, 40),
    )
}


@dataclass(frozen=True)
class Workload:
    """
    A Parquet file with a ``text`` column, and what is in it.

    :param tokens: tokens of the model's tokenizer, special ones not counted; the same for every peer
    :param source: where the texts come from
    :param stand_in: made up because the real corpus is not here
    """

    name: str
    path: Path
    rows: int
    characters: int
    tokens: int
    source: str
    stand_in: bool

    def summary(self) -> dict[str, Any]:
        """Give the facts as plain data."""
        return {**asdict(self), "path": shown(self.path)}


def build_workload(shape: Shape, rows: int, *, shared: Path, folder: Path, tokenizer_file: Path, seed: int) -> Workload:
    """
    Write a workload's file. The same seed, tokenizer and corpus give the same file; no text stands in it twice.

    :param rows: rows wanted; fewer where the corpus has fewer fitting ones
    :param shared: folder that holds ``corpora/``; stand-ins are made when it is missing
    :param folder: receives the file
    """
    rng = random.Random(f"{seed} {shape.name}")  # noqa: S311  # a sample, not a secret
    corpus = shared / "corpora" / shape.file
    wanted = 2 * rows  # some may have too many tokens
    texts = _sampled(corpus, shape, wanted, rng) if corpus.is_file() else _stand_ins(shape, wanted, rng)
    lengths = np.diff(TextEncoder(tokenizer_file).encode(texts).text_tokens)
    kept = np.flatnonzero((lengths > 0) & (lengths <= LONGEST_ROW_TOKENS))[:rows]
    texts = [texts[i] for i in kept]
    path = folder / f"{shape.name}.parquet"
    pq.write_table(
        pa.table({"id": pa.array(range(len(texts)), pa.int64()), "text": pa.array(texts, pa.string())}), path
    )
    return Workload(
        name=shape.name,
        path=path,
        rows=len(texts),
        characters=sum(map(len, texts)),
        tokens=int(lengths[kept].sum()),
        source=shown(corpus) if corpus.is_file() else "stand-ins made of nerd_onnx/sample.jsonl",
        stand_in=not corpus.is_file(),
    )


def _sampled(corpus: Path, shape: Shape, rows: int, rng: random.Random) -> list[str]:
    """Draw rows of fitting length, in random order, each text once."""
    column = pq.read_table(corpus, columns=["text"])["text"].combine_chunks()
    length = pc.utf8_length(column)
    fewest, most = shape.characters
    fitting = pc.and_(pc.greater_equal(length, fewest), pc.less_equal(length, most))
    texts: list[str] = pc.unique(column.filter(fitting)).to_pylist()
    return rng.sample(texts, min(rows, len(texts)))


def _stand_ins(shape: Shape, rows: int, rng: random.Random) -> list[str]:
    """Make rows of fitting length out of real sentences, recombined so that none repeats."""
    sentences = [sentence for text in sample_texts() for sentence in _sentences(text)]
    fewest, most = shape.characters
    made: dict[str, None] = {}
    while len(made) < rows:
        text = _recombined(sentences, rng)
        wanted = rng.randint(fewest, most) if fewest > 1 else 0
        while len(text) < wanted:
            text = f"{text} {_recombined(sentences, rng)}"
        if fewest <= len(text) <= most:
            made[text] = None
    return list(made)


def _recombined(sentences: Sequence[str], rng: random.Random) -> str:
    """Join the first half of one sentence and the second half of another."""
    one, other = rng.choice(sentences).split(), rng.choice(sentences).split()
    return " ".join(one[: (len(one) + 1) // 2] + other[len(other) // 2 :])


def _sentences(text: str) -> list[str]:
    """Cut a text into sentences of four words or more."""
    ends = [0, *sentence_ends(text).tolist(), len(text)]
    parts = [text[begin:end].strip() for begin, end in itertools.pairwise(ends)]
    return [part for part in parts if len(part.split()) >= 4]  # noqa: PLR2004
