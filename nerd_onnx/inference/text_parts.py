"""
Texts in parts of limited size.

The tokens of a text take about a hundred times its bytes. So the paragraphs of the texts are gathered into parts of at
most a million characters, and only the parts that are in progress are encoded: memory does not grow with the length of
a text. Equal paragraphs of a part are tagged once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np

from nerd_onnx.inference.arrays import Ints
from nerd_onnx.inference.decoding import Spans, WordDecisions
from nerd_onnx.inference.encoding import EncodedTexts
from nerd_onnx.interruption import waiting

LONG_PART_CHARACTERS = 1 << 18  # of texts that have several parts anyway
# Encoded at once, which takes about a hundred times as many bytes. Most batches have fewer characters.
PART_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Part:
    """
    Paragraphs that the network is working on. Equal paragraphs are tagged once.

    :param row: index of each paragraph's text. *Shape:* (paragraphs,)
    :param base: character offset of each paragraph in its text. *Shape:* (paragraphs,)
    :param place: index of each paragraph among the distinct ones. *Shape:* (paragraphs,)
    :param encoded: tokens and words of the distinct paragraphs
    :param decisions: results of the batches, which the threads compute
    """

    row: Ints
    base: Ints
    place: Ints
    encoded: EncodedTexts
    decisions: list[Future[WordDecisions]]

    @property
    def tokens(self) -> Ints:
        """Number of tokens of each paragraph. *Shape:* (paragraphs,)."""
        return np.diff(self.encoded.text_tokens)[self.place]

    def decided(self) -> list[WordDecisions]:
        """
        Wait for all batches and return their results.

        When one batch fails, the batches that have not started are cancelled.

        :raises ModelError: when the network fails on a batch
        :raises InterruptedRunError: when a signal arrives
        """
        try:
            with waiting():
                return [future.result() for future in self.decisions]
        finally:
            self.cancel()  # after an error or a signal nobody will ask for the other batches

    def cancel(self) -> None:
        """Cancel the batches that have not started."""
        for future in self.decisions:
            future.cancel()

    def placed(self, spans: Spans) -> Spans:
        """Turn entities of the distinct paragraphs into entities of the texts."""
        spans = spans.of_rows(self.place)
        base = self.base[spans.row]
        return replace(spans, row=self.row[spans.row], start=spans.start + base, end=spans.end + base)


@dataclass(frozen=True)
class Pending:
    """
    Texts that are being tagged, one part after the other.

    :param texts: the texts; None stays without entities
    :param part: the first part, which the network is working on
    :param rest: paragraphs of the other parts: index of the text, begin and end of each
    :param reasons: why texts could not be tagged, by index
    """

    texts: Sequence[str | None]
    part: Part
    rest: Iterator[list[tuple[int, int, int]]]
    reasons: dict[int, str] = field(default_factory=dict)

    @property
    def is_long(self) -> bool:
        """Whether one of the texts has more than one part."""
        return any(len(text) > PART_CHARACTERS for text in self.texts if text)


def part_characters(texts: Sequence[str | None]) -> int:
    """Return the size of parts: smaller ones if there is a long text, which may take memory itself."""
    return LONG_PART_CHARACTERS if any(len(text) > PART_CHARACTERS for text in texts if text) else PART_CHARACTERS


def gathered(
    ranges: Iterable[tuple[int, int, int]], characters: int = PART_CHARACTERS
) -> Iterator[list[tuple[int, int, int]]]:
    """
    Gather paragraphs into parts of limited size; a longer paragraph is its own part.

    :param ranges: index of the text, begin and end of each paragraph
    :param characters: maximum size of a part
    """
    part: list[tuple[int, int, int]] = []
    size = 0

    for paragraph in ranges:
        length = paragraph[2] - paragraph[1]
        if part and size + length > characters:
            yield part
            part, size = [], 0

        part.append(paragraph)
        size += length

    if part:
        yield part
