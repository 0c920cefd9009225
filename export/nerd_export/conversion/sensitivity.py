"""Find the layers on which int8 has the largest effect, and keep as few of them in fp32 as the gate requires."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from nerd_export.conversion.compare_with_original import first_of
from nerd_export.graph.linear import plain_name
from nerd_export.quantization.graph_builder import EMBEDDINGS, GraphBuilder, Plan
from nerd_onnx.errors import NotFiniteError
from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.session import Session

_TOKENS = 2_000  # enough to rank layers by


@dataclass(frozen=True)
class LayerCost:
    """
    The effect of quantizing one layer alone.

    :param name: the linear layer, or ``embeddings``
    :param error: mean square difference of the logits from fp32's, in units of their variance
    """

    name: str
    error: float


def layer_costs(builder: GraphBuilder, plan: Plan, batches: Sequence[EncodedBatch], scratch: Path) -> list[LayerCost]:
    """
    Quantize each layer alone and measure the effect on the logits; the highest cost comes first.

    :param plan: the recipe and the layers to quantize
    :param batches: real segments
    :param scratch: folder for temporary graphs
    """
    sample = first_of(batches, lambda batch: batch.ids.size, _TOKENS)
    expected = _logits(builder.build(Plan("none", "fp32"))[0], sample, scratch)
    # Equal logits have no spread to divide by.
    spread = float(np.concatenate([found.ravel() for found in expected]).var()) or 1.0

    names = builder.names(plan)
    costs = []

    for name in names:
        # Alone and not cumulative: the order of the layers then does not change what each costs.
        alone = plan.keeping([other for other in names if other != name])

        found = _logits(builder.build(alone)[0], sample, scratch)
        # Relative to the variance of the logits, so that costs of different models can be compared.
        squares = [((one - other) ** 2).ravel() for one, other in zip(found, expected, strict=True)]
        error = float(np.concatenate(squares).mean()) / spread

        # A layer that overflows in 8 bits is the first to keep, so its cost must sort before all numbers.
        costs.append(LayerCost(name, error if np.isfinite(error) else float("inf")))

    return sorted(costs, key=lambda cost: -cost.error)


def fewest_kept(costs: Sequence[LayerCost], passes: Callable[[Sequence[str]], bool]) -> list[str] | None:
    """
    Find how many of the costliest layers must stay fp32: double the number until the gate passes, then bisect.

    :param passes: whether the bundle that keeps these layers passes the gate
    :return: the layers to keep, or None if half of them is not enough: then quantization saves next to nothing
    """
    names = [cost.name for cost in costs]
    failed, count = 0, 1
    while not passes(names[:count]):
        # Each try costs an export and a comparison: doubling needs few of them where few layers are to blame, which is
        # usual.
        failed, count = count, min(2 * count, len(names) // 2)
        if count <= failed:
            return None

    while count - failed > 1:
        middle = (failed + count) // 2
        if passes(names[:middle]):
            count = middle
        else:
            failed = middle

    return names[:count]


def title(name: str) -> str:
    """Name a layer, or the word embeddings, for people."""
    return "word embeddings" if name == EMBEDDINGS else plain_name(name)


def _logits(model: ir.Model, batches: Sequence[EncodedBatch], scratch: Path) -> list[Floats]:
    ir.save(model, scratch / "layer.onnx")
    session = Session(scratch / "layer.onnx", optimized=True)
    try:
        return [session.logits(batch) for batch in batches]
    except NotFiniteError:
        return [np.full((*batch.ids.shape, 1), np.nan, dtype=np.float32) for batch in batches]
