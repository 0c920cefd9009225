"""The interface of a quantization recipe. This module loads no heavy package, so that ``--help`` stays fast."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import onnx_ir as ir

    from nerd_export.quantization.layers import ActivationRange
    from nerd_export.quantization.rounding import WeightRounding

# What the records of the recipes with integer products say about their weights.
PRODUCT_WEIGHTS = (
    "signed 8 bits, one scale per output channel, neighbours of one sign at most 128 together, so that no sum of two "
    "products saturates; GPTQ on real text"
)


class Context(Protocol):
    """What was measured on real text; each part is measured when a recipe first asks for it."""

    @property
    def rounding(self) -> WeightRounding:
        """Rounds the weights of integer products."""
        ...

    @property
    def static_ranges(self) -> Mapping[str, ActivationRange]:
        """The 8-bit range of the input of each linear layer, by the name of that input."""
        ...


class Recipe(Protocol):
    """A way to quantize the linear layers of a graph."""

    @property
    def name(self) -> str:
        """The value of ``--quantize``."""
        ...

    @property
    def record(self) -> Mapping[str, str]:
        """What ``nerd.json`` and the card say: ``method``, ``activations``, ``weights``; empty to quantize nothing."""
        ...

    @property
    def integer_products(self) -> bool:
        """Whether linear layers multiply integers. Such a recipe gets a graph with centered activations."""
        ...

    @property
    def safer(self) -> str | None:
        """Name of the recipe to try when the gate refuses this one; None if there is none."""
        ...

    def build(self, model: ir.Model, keep_fp32: Collection[str], context: Context) -> list[str]:
        """
        Rewrite the linear layers of a graph, in place.

        :param model: the fp32 graph
        :param keep_fp32: names of layers to leave as they are
        :return: names of the layers rewritten
        :raises OptionError: when a name in ``keep_fp32`` is not the name of a layer
        """
        ...
