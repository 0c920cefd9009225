"""
Measure F1 and speed by segment length: ``python -m benchmarks.scripts.segment_length``.

Labelled sentences are joined into paragraphs, tagged as raw text with several segment lengths, and scored. The runs of
the lengths are interleaved, so that their speeds can be compared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from benchmarks.paths import SHARED
from nerd_export.data.checks import Findings, Sentence, check_split
from nerd_export.data.corpus import TAG_COLUMNS, read_file
from nerd_export.data.plain_text import plain_text
from nerd_export.scoring.evaluation import gold_spans
from nerd_export.scoring.f1 import Span, span_scores
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.decoding import Spans
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.tagger import Tagger

LENGTHS = (32, 48, 64, 96, 128, 192, 256, 384, 512)


@dataclass(frozen=True)
class Paragraph:
    """Several sentences as one text, with their entities; offsets count characters."""

    text: str
    spans: list[Span]


def join_sentences(sentences: Sequence[Sentence], labels: LabelSet, per_paragraph: int) -> list[Paragraph]:
    """Return paragraphs of ``per_paragraph`` sentences each, with their coarse entities."""
    paragraphs = []

    for first in range(0, len(sentences), per_paragraph):
        text, spans = "", list[Span]()
        for sentence in sentences[first : first + per_paragraph]:
            # One more for the space before a sentence that is not the first.
            base = len(text) + bool(text)
            plain, places = plain_text(sentence.tokens)

            text = f"{text} {plain}" if text else plain
            found = gold_spans(sentence, labels, fine=False)
            spans += [(base + places[b][0], base + places[e - 1][1], name) for b, e, name in found]
        paragraphs.append(Paragraph(text, spans))

    return paragraphs


def coarse_entities(spans: Spans, labels: LabelSet, texts: int) -> list[list[Span]]:
    """
    Return found entities as one list per text, with their coarse labels.

    :param texts: number of texts that were tagged
    """
    found: list[list[Span]] = [[] for _ in range(texts)]
    for row, start, end, label in zip(spans.row, spans.start, spans.end, spans.label, strict=True):
        found[row].append((int(start), int(end), labels.types[label]))
    return found


@click.command()
@click.option("--model", type=click.Path(path_type=Path), help="Bundle.  [default: the default model]")
@click.option("--file", type=click.Path(path_type=Path), default=SHARED / "few_nerd" / "validation.parquet")
@click.option("--per-paragraph", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
def main(model: Path | None, file: Path, per_paragraph: int, repeats: int) -> None:
    """Print entity F1 and speed for each segment length."""
    bundle = Bundle.load(model)
    column = TAG_COLUMNS["fine" if bundle.labels.has_fine_level else "coarse"]
    paragraphs = join_sentences(check_split(read_file(file, column), None, Findings()), bundle.labels, per_paragraph)
    texts = [paragraph.text for paragraph in paragraphs]

    taggers = {length: Tagger(replace(bundle, segment_tokens=length)) for length in LENGTHS}
    rates: dict[int, list[float]] = {length: [] for length in LENGTHS}
    f1: dict[int, float] = {}

    # Interleaved, so that a slow phase of the machine affects all lengths.
    for _ in range(repeats):
        for length, tagger in taggers.items():
            begin = time.perf_counter()
            tagged = tagger.tag_arrays(texts)
            rates[length].append(tagged.tokens / (time.perf_counter() - begin))

            found = coarse_entities(tagged.spans, bundle.labels, len(texts))
            f1[length] = span_scores([paragraph.spans for paragraph in paragraphs], found).f1

    click.echo(f"{len(texts)} paragraphs of {per_paragraph} sentences, coarse F1 on raw text\n")
    click.echo("| segment tokens | F1 | tokens/s |\n|---|---|---|")

    for length in LENGTHS:
        click.echo(f"| {length} | {f1[length]:.4f} | {statistics.median(rates[length]):,.0f} |")


if __name__ == "__main__":
    main()
