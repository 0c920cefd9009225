"""What was kept in fp32 so that an export passes the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nerd_export.conversion.gate import Speed
from nerd_export.conversion.sensitivity import LayerCost


@dataclass(frozen=True)
class Repair:
    """
    The result of the sensitivity pass.

    :param costs: cost of quantizing each layer alone, the highest first
    :param kept: layers and embeddings that stay fp32
    :param faults: the limits exceeded before the repair
    :param speed_before: speed with everything quantized
    """

    costs: Sequence[LayerCost]
    kept: Sequence[str]
    faults: Sequence[str]
    speed_before: Speed

    def summary(self) -> dict[str, Any]:
        """Return the repair as plain data."""
        costs = [{"layer": cost.name, "error": round(cost.error, 8)} for cost in self.costs]
        return {
            "because": list(self.faults),
            "kept_fp32": list(self.kept),
            "layer_costs": costs,
            "texts_per_s_before": asdict(self.speed_before),
        }
