"""``--quantize int8-weights``: only the stored weights have 8 bits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from nerd_export.quantization.recipes.base import Context

if TYPE_CHECKING:
    import onnx_ir as ir


class WeightsOnly:
    """Weights in 8 bits, which onnxruntime converts to fp32 when it loads the graph."""

    name = "int8-weights"
    integer_products = False
    safer: str | None = "none"
    record: Mapping[str, str] = {
        "method": "int8 weights",
        "activations": "fp32",
        "weights": "signed 8 bits, one scale per output channel; converted to fp32 when loaded",
    }

    def build(self, model: ir.Model, keep_fp32: Collection[str], context: Context) -> list[str]:  # noqa: ARG002
        """Rewrite the linear layers; see :class:`Recipe`."""
        # The command line lists the recipes before it needs the graph library, so that is imported here.
        from nerd_export.quantization.layers import quantize_weights

        return quantize_weights(model, keep_fp32)
