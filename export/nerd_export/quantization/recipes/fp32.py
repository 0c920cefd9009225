"""``--quantize none``: every linear layer stays fp32."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from nerd_export.quantization.recipes.base import Context

if TYPE_CHECKING:
    import onnx_ir as ir


class Fp32:
    """Nothing is rewritten."""

    name = "none"
    integer_products = False
    safer: str | None = None
    record: Mapping[str, str] = {}

    def build(self, model: ir.Model, keep_fp32: Collection[str], context: Context) -> list[str]:  # noqa: ARG002
        """Rewrite the linear layers; see :class:`Recipe`."""
        return []
