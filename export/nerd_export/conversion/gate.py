"""The gate: the measurements on an exported bundle, and the limits that decide whether it is refused."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from nerd_export.config import VerifyLimits
from nerd_export.conversion.batch_independence import changed_by_neighbours, neighbour_faults
from nerd_export.conversion.compare_with_original import Comparison, compare, first_of
from nerd_export.data.labelled import Labelled
from nerd_export.models.networks import Remembered
from nerd_export.scoring.bootstrap import Difference, paired_difference
from nerd_export.scoring.evaluation import Evaluation, evaluate_labelled
from nerd_export.scoring.score_calibration import calibrated, calibration_of_tagger
from nerd_onnx.errors import NotFiniteError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.kernels import kernels_of
from nerd_onnx.inference.session import Network
from nerd_onnx.tagger import Tagger, TagOptions, open_network

VIEWS = {
    "words": "given words, coarse",
    "fine_words": "given words, fine",
    "raw": "raw text, coarse",
    "fine_raw": "raw text, fine",
}
_TIMED_CHARACTERS = 8_000  # about 2,000 tokens: seconds for the original, enough for a ratio
_TIMED_ROUNDS = 5


@dataclass(frozen=True)
class LabelledSplit:
    """
    Labelled sentences and their part in an export.

    :param gated: whether a fall of F1 on it refuses the bundle; others are only reported
    :param fits: whether scores and thresholds are fitted on it
    """

    labelled: Labelled
    gated: bool = False
    fits: bool = False

    @property
    def source(self) -> str:
        """Name of the file or data set."""
        return self.labelled.source


@dataclass(frozen=True)
class F1Row:
    """
    Entity F1 of the original, the fp32 graph and the bundle on one split, in one view.

    :param view: a key of :data:`VIEWS`
    :param fits: whether scores were fitted on the split
    :param difference: bundle minus original, with its 95% interval
    :param labels: F1 of each entity type before and after
    """

    split: str
    view: str
    gated: bool
    fits: bool
    original: float
    fp32: float
    bundle: float
    difference: Difference
    labels: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Speed:
    """
    Texts per second through the runtime, from text to entities; medians of one interleaved run on this machine.

    :param original: with the PyTorch model
    :param fp32: with the fp32 ONNX graph
    :param bundle: with the bundle's own
    :param ratio: how many times faster the bundle is than the original: the median of the ratios of the rounds
    """

    texts: int
    original: float
    fp32: float
    bundle: float
    ratio: float


@dataclass(frozen=True)
class Verdict:
    """
    Everything the gate measured on one bundle.

    :param comparison: bundle against original, on texts
    :param fp32: fp32 ONNX against original, on the same texts
    :param neighbours: number of texts with other entities, by the way of tagging
    :param sizes: bytes of the original's weights, the fp32 graph, and the bundle's
    :param kernels: what computed the bundle's logits, see :func:`kernels_of`
    :param calibration: calibration of scores and weights of fine labels, as ``nerd.json`` records it; None
        if nothing was fitted
    """

    comparison: Comparison
    fp32: Comparison
    rows: tuple[F1Row, ...]
    neighbours: Mapping[str, int]
    sizes: Mapping[str, int]
    speed: Speed | None = None
    kernels: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None

    def faults(self, limits: VerifyLimits) -> list[str]:
        """Return a message for each limit that the bundle exceeds; empty for a bundle that passes."""
        found = self.comparison
        faults = [] if found.max_logit_difference < float("inf") else ["its logits are not finite"]
        if found.labels_changed > limits.max_labels_changed:
            faults.append(f"{found.labels_changed:.2%} of labels changed, at most {limits.max_labels_changed:.2%} may")

        if found.entity_agreement < limits.min_entity_agreement:
            faults.append(
                f"entity agreement is {found.entity_agreement:.4f}, at least {limits.min_entity_agreement:.4f} is "
                "required"
            )

        dropped = [row for row in self.rows if row.gated and -row.difference.value > limits.max_f1_drop]
        faults += [
            f"F1 on {row.split} ({VIEWS[row.view]}) fell by {-row.difference.value:.4f}, "
            f"at most {limits.max_f1_drop:.4f} may"
            for row in dropped
        ]

        return faults + neighbour_faults(self.neighbours)

    def summary(self) -> dict[str, Any]:
        """Return every figure as plain data."""
        return {
            **self.comparison.summary(),
            "kernels": self.kernels,
            "fp32": self.fp32.summary(),
            "f1": [asdict(row) for row in self.rows],
            "changed_by_neighbours": dict(self.neighbours),
            "size_bytes": dict(self.sizes),
            "texts_per_s": asdict(self.speed) if self.speed else None,
        }


class Gate:
    """
    Compares exported bundles with one original. What does not change from bundle to bundle is measured once.

    :param original: the PyTorch model
    :param fp32: the exported model as a bundle in fp32
    :param original_bytes: size of the original's weights
    :param texts: texts to compare on
    :param splits: labelled data by name
    :param calibration: recorded calibration to use if none can be fitted; None to decide word by word
    """

    def __init__(
        self,
        original: Network,
        fp32: Bundle,
        *,
        original_bytes: int,
        texts: Sequence[str],
        splits: Mapping[str, LabelledSplit],
        calibration: Mapping[str, Any] | None = None,
    ) -> None:
        # Both: the cache for comparisons, and the network itself for times.
        self._original, self._remembered = original, Remembered(original)
        self._fp32, self._texts, self._splits = fp32, texts, splits
        self._original_bytes, self._kept_calibration = original_bytes, calibration
        self._fp32_network = Remembered(open_network(fp32))

    def judge(self, bundle: Bundle) -> Verdict:
        """Measure a bundle as it is on disk."""
        sizes = {
            "original": self._original_bytes,
            "fp32": self._fp32.model_file.stat().st_size,
            "bundle": bundle.model_file.stat().st_size,
        }

        # Comparison, neighbours and F1 run the same texts, so the logits of the bundle are kept too.
        opened = open_network(bundle)
        network, kernels = Remembered(opened), kernels_of(bundle, opened)
        try:
            calibration = self._calibration(bundle, network)
            decided = calibrated(bundle, calibration)
            comparison = compare(decided, self._remembered, self._texts, network)
        except NotFiniteError:
            # NaN logits are a refusal like any other, with its table and report, and not a crash.
            fp32_comparison = self._compared_fp32(self._fp32)
            nothing = Comparison(len(self._texts), 0, float("inf"), 1.0, 0.0, fp32_comparison.entities)
            return Verdict(nothing, fp32_comparison, (), {}, sizes, kernels=kernels)

        # The calibration of the bundle decides for all, so that differences come from the networks alone.
        fp32_comparison = self._compared_fp32(replace(self._fp32, calibration=decided.calibration))

        neighbours = changed_by_neighbours(decided, self._texts)
        rows: list[F1Row] = []
        metrics: dict[str, Any] = {}

        for name, split in self._splits.items():
            # PyTorch uses all processors in one call; several calls at a time would only compete.
            original = _evaluated(decided, split, self._remembered, threads=1)
            fp32 = _evaluated(decided, split, self._fp32_network)
            found = _evaluated(decided, split, network)
            rows += _rows(name, split, original, fp32, found)
            metrics[name] = {
                "source": split.source,
                "original": original.summary(),
                "fp32": fp32.summary(),
                "bundle": found.summary(),
            }

        return Verdict(
            comparison,
            fp32_comparison,
            tuple(rows),
            neighbours,
            sizes,
            kernels=kernels,
            metrics=metrics,
            calibration=calibration,
        )

    def _compared_fp32(self, fp32: Bundle) -> Comparison:
        return compare(fp32, self._remembered, self._texts, self._fp32_network)

    def _calibration(self, bundle: Bundle, network: Network) -> Mapping[str, Any] | None:
        """Fit the calibration; original, fp32 graph and bundle are all decided by it."""
        fitted_on = [name for name, split in self._splits.items() if split.fits]
        if not fitted_on:
            return self._kept_calibration

        # Fitted on the bundle, because its scores are the ones that users will see.
        tagger = Tagger(bundle, network=network)
        try:
            splits = {name: split.labelled for name, split in self._splits.items()}
            return calibration_of_tagger(tagger, splits, fitted_on) or self._kept_calibration
        finally:
            tagger.close()

    def speed(self, candidate: Bundle) -> Speed:
        """
        Time original, fp32 graph and bundle on the first texts. Each round runs all three: load affects all alike.

        :param candidate: the bundle with its calibration, which decides for all three
        """
        texts = first_of(self._texts, len, _TIMED_CHARACTERS)
        taggers = {
            "original": Tagger(candidate, TagOptions(threads=1), network=self._original),
            "fp32": Tagger(replace(self._fp32, calibration=candidate.calibration)),
            "bundle": Tagger(candidate),
        }
        seconds: dict[str, list[float]] = {name: [] for name in taggers}

        for _ in range(_TIMED_ROUNDS):
            for name, tagger in taggers.items():
                begin = time.perf_counter()
                tagger.tag_arrays(texts)
                seconds[name].append(time.perf_counter() - begin)

        # Threads that wait would still be there while the next bundle is timed.
        for tagger in taggers.values():
            tagger.close()

        rates = {name: round(len(texts) / statistics.median(values), 1) for name, values in seconds.items()}
        # The median of ratios within rounds: other load on the machine hits both sides of a ratio.
        ratios = [before / after for before, after in zip(seconds["original"], seconds["bundle"], strict=True)]

        return Speed(len(texts), **rates, ratio=round(statistics.median(ratios), 3))


def _evaluated(bundle: Bundle, split: LabelledSplit, network: Network, threads: int | None = None) -> Evaluation:
    tagger = Tagger(bundle, TagOptions(threads=threads), network=network)
    try:
        return evaluate_labelled(tagger, split.labelled)
    finally:
        tagger.close()


def _rows(name: str, split: LabelledSplit, original: Evaluation, fp32: Evaluation, found: Evaluation) -> list[F1Row]:
    """Return one row of F1 per view of a split."""
    rows = []
    for view in original.views:
        before, after = original.views[view], found.views[view]
        then, now = before.f1_by_type(), after.f1_by_type()
        rows.append(
            F1Row(
                split=name,
                view=view,
                gated=split.gated,
                fits=split.fits,
                original=before.scores.f1,
                fp32=fp32.views[view].scores.f1,
                bundle=after.scores.f1,
                difference=paired_difference(after.counts(), before.counts()),
                labels={name: (then[name], now[name]) for name in then},
            )
        )

    return rows
