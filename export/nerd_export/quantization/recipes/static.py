"""``--quantize int8-static``: the scale of each activation is fixed beforehand, on real text."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from nerd_export.quantization.recipes.base import PRODUCT_WEIGHTS, Context

if TYPE_CHECKING:
    import onnx_ir as ir


class Static:
    """Products of 8-bit integers with one scale and zero point per activation tensor."""

    name = "int8-static"
    integer_products = True
    safer: str | None = "int8"
    record: Mapping[str, str] = {
        "method": "static int8",
        "activations": "unsigned 8 bits, one scale and zero point per tensor, chosen on real text",
        "weights": PRODUCT_WEIGHTS,
    }

    def build(self, model: ir.Model, keep_fp32: Collection[str], context: Context) -> list[str]:
        """Rewrite the linear layers; see :class:`Recipe`."""
        # The command line lists the recipes before it needs the graph library, so that is imported here.
        from nerd_export.quantization.layers import quantize_products

        return quantize_products(model, context.static_ranges, keep_fp32, context.rounding)
