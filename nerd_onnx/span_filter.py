"""Changes to found entities: where they end, and which of them are kept."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nerd_onnx.errors import OptionError
from nerd_onnx.inference.arrays import Bools, Ints
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.decoding import Spans
from nerd_onnx.options import TagOptions


class SpanFilter:
    """
    Keeps the entities that the options ask for.

    :param bundle: has the labels, and the thresholds of its calibration
    :param options: ``labels``, ``precision`` and ``min_score`` are used
    :ivar min_score: minimum score: as asked for; else the bundle's own threshold, unless a precision is asked for
    :raises OptionError: if the bundle lacks a label to keep, or thresholds for a precision
    """

    def __init__(self, bundle: Bundle, options: TagOptions) -> None:
        self._bundle = bundle
        self._kept = None if options.labels is None else _kept_labels(bundle, options.labels)
        self._thresholds = None if options.precision is None else _thresholds(bundle, options.precision)

        self.min_score = _min_score(bundle, options)

    def __call__(self, spans: Spans) -> Spans:
        """Return the entities that are kept, in the same order."""
        if self._kept is not None:
            coarse, fine = self._kept
            spans = spans.select(coarse[spans.label] | fine[spans.fine])

        if self._thresholds is not None:
            spans = spans.select(spans.score >= self._thresholds[spans.label])

        # Scores have 32 bits. A minimum with 64 bits would drop an entity whose score is printed as exactly this value.
        if self.min_score > 0:
            spans = spans.select(spans.score >= np.float32(self.min_score))
        return spans

    @property
    def labels(self) -> tuple[str, ...]:
        """The coarse labels that entities may have: also those whose fine labels are kept."""
        known = self._bundle.labels
        if self._kept is None:
            return known.types

        coarse, fine = self._kept
        kept_fine = fine[:-1]  # without the one for "no fine label"
        of_fine = set(known.type_of_fine_type[kept_fine].tolist())

        return tuple(name for i, name in enumerate(known.types) if coarse[i] or i in of_fine)


def _min_score(bundle: Bundle, options: TagOptions) -> float:
    if options.min_score is not None:
        return options.min_score

    # A precision has thresholds of its own, which take the place of the model's.
    if bundle.calibration is None or options.precision is not None:
        return 0.0
    return bundle.calibration.f1_threshold


def _kept_labels(bundle: Bundle, names: Sequence[str]) -> tuple[Bools, Bools]:
    """Return which coarse and which fine labels to keep; the fine ones end with one for "no fine label", index -1."""
    known = bundle.labels
    known.check_known(names)

    fine = [known.has_fine_level and name in names for name in known.fine_types]
    return np.array([name in names for name in known.types]), np.array([*fine, False])


def _thresholds(bundle: Bundle, precision: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the minimum score of each coarse label."""
    if bundle.calibration is None:
        raise OptionError(
            f"--precision: {bundle.name} has no thresholds; export it with nerd-export --dataset, or use --min-score",
            reason="no-thresholds",
            option="--precision",
            file=bundle.name,
        )
    return bundle.calibration.least_scores(precision)


def with_combining_marks(texts: Sequence[str | None], spans: Spans) -> Spans:
    """
    Move the ends of entities after the combining marks of their last letter, which tokenizers drop.

    :param texts: the texts that the rows of the spans refer to
    """
    end = spans.end.copy()
    for i in range(len(spans)):
        text = texts[spans.row[i]] or ""
        # Most texts are ASCII, which has no combining marks.
        if text.isascii():
            continue

        next_in_row = i + 1 < len(spans) and spans.row[i + 1] == spans.row[i]
        limit = int(spans.start[i + 1]) if next_in_row else None
        end[i] = _end_of_character(text, int(end[i]), limit)

    return replace(spans, end=end)


def ends_with_combining_marks(texts: Sequence[str], row: Ints, end: Ints) -> Ints:
    """
    Return the ends of candidates after the combining marks of their last letter. *Shape:* (candidates,).

    Unlike entities, candidates may overlap, so the next one does not limit them.
    """
    moved = [_end_of_character(texts[i], to) for i, to in zip(row.tolist(), end.tolist(), strict=True)]
    return np.array(moved, dtype=np.int64)


def _end_of_character(text: str, end: int, limit: int | None = None) -> int:
    last = len(text) if limit is None else limit
    while end < last and unicodedata.category(text[end]).startswith("M"):
        end += 1
    return end
