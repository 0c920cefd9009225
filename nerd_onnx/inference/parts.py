"""Texts on their way through the network, one part of them at a time, so that memory does not grow with a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np

from nerd_onnx.inference.arrays import Ints
from nerd_onnx.inference.decoding import Spans, WordDecisions
from nerd_onnx.inference.encoding import EncodedTexts

PART_CHARACTERS = 1 << 20  # encoded at once: a hundred times as many bytes, and more than a usual batch has


@dataclass(frozen=True)
class Part:
    """
    Paragraphs on their way through the network. Those that are there several times are tagged once.

    :param row: text of each paragraph. *Shape:* (paragraphs,)
    :param base: offset of each paragraph in its text. *Shape:* (paragraphs,)
    :param place: where each stands among the different ones. *Shape:* (paragraphs,)
    :param encoded: the different ones
    """

    row: Ints
    base: Ints
    place: Ints
    encoded: EncodedTexts
    decisions: list[Future[WordDecisions]]

    @property
    def tokens(self) -> Ints:
        """Tokens of each paragraph. *Shape:* (paragraphs,)."""
        return np.diff(self.encoded.text_tokens)[self.place]

    def decided(self) -> list[WordDecisions]:
        """Wait for the network; when it fails on one batch, those not begun are left."""
        try:
            return [future.result() for future in self.decisions]
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Leave the batches that are not begun."""
        for future in self.decisions:
            future.cancel()

    def placed(self, spans: Spans) -> Spans:
        """Turn the entities of the different paragraphs into those of the texts."""
        spans = spans.of_rows(self.place)
        base = self.base[spans.row]
        return replace(spans, row=self.row[spans.row], start=spans.start + base, end=spans.end + base)


@dataclass(frozen=True)
class Pending:
    """
    Texts on their way through the network: one part of them at a time, so that memory does not grow with a text.

    :param part: the first part, under way
    :param rest: the paragraphs of the others: text, begin and end of each
    """

    texts: Sequence[str | None]
    part: Part
    rest: Iterator[list[tuple[int, int, int]]]
    reasons: dict[int, str] = field(default_factory=dict)

    @property
    def is_long(self) -> bool:
        """Whether one of the texts is of several parts."""
        return any(len(text) > PART_CHARACTERS for text in self.texts if text)


def gathered(ranges: Iterable[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    """Gather paragraphs up to the characters of a part."""
    part: list[tuple[int, int, int]] = []
    size = 0
    for paragraph in ranges:
        length = paragraph[2] - paragraph[1]
        if part and size + length > PART_CHARACTERS:
            yield part
            part, size = [], 0
        part.append(paragraph)
        size += length
    if part:
        yield part
