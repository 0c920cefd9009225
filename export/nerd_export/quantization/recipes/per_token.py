"""``--quantize int8``: the activations of each token have a scale of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from nerd_export.quantization.recipes.base import PRODUCT_WEIGHTS, Context

if TYPE_CHECKING:
    import onnx_ir as ir


class PerToken:
    """Products of 8-bit integers; the scale of a token is computed at run time from that token alone."""

    name = "int8"
    integer_products = True
    safer: str | None = "int8-weights"
    record: Mapping[str, str] = {
        "method": "per-token int8",
        "activations": "unsigned 8 bits, one scale per token, computed at run time",
        "weights": PRODUCT_WEIGHTS,
    }

    def build(self, model: ir.Model, keep_fp32: Collection[str], context: Context) -> list[str]:
        """Rewrite the linear layers; see :class:`Recipe`."""
        # The command line lists the recipes before it needs the graph library, so that is imported here.
        from nerd_export.quantization.layers import quantize_products

        return quantize_products(model, {}, keep_fp32, context.rounding)
