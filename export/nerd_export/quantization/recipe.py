"""From an exported fp32 graph to the one that is asked for: recipe, and layers to keep."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx_ir as ir

from nerd_export.config import INTEGER_RECIPES, Embeddings, Quantization
from nerd_export.graph.centering import centered_norms, channel_means
from nerd_export.graph.linear import quantizable_layers
from nerd_export.quantization.layers import (
    ActivationRange,
    quantize_embeddings,
    quantize_products,
    quantize_weights,
)
from nerd_export.quantization.ranges import calibrated_ranges
from nerd_export.quantization.rounding import WeightRounding, input_moments
from nerd_onnx.inference.arrays import Doubles
from nerd_onnx.inference.encoding import EncodedBatch

EMBEDDINGS = "embeddings"  # the word embeddings, where the layers to keep are named
_PRODUCT_WEIGHTS = (
    "signed 8 bits, one scale per output channel, neighbours of one sign at most 128 together, so that no sum of two "
    "products saturates; GPTQ on real text"
)
_METHODS = {
    "int8": {
        "method": "per-token int8",
        "activations": "unsigned 8 bits, one scale per token, computed at run time",
        "weights": _PRODUCT_WEIGHTS,
    },
    "int8-static": {
        "method": "static int8",
        "activations": "unsigned 8 bits, one scale and zero point per tensor, chosen on real text",
        "weights": _PRODUCT_WEIGHTS,
    },
    "int8-weights": {
        "method": "int8 weights",
        "activations": "fp32",
        "weights": "signed 8 bits, one scale per output channel; converted to fp32 when loaded",
    },
}


@dataclass(frozen=True)
class Plan:
    """
    How to quantize.

    :param recipe: what becomes 8 bits
    :param embeddings: form of the word embeddings
    :param keep_fp32: names of linear layers to leave as they are
    """

    recipe: Quantization = "int8"
    embeddings: Embeddings = "int8"
    keep_fp32: tuple[str, ...] = ()

    def keeping(self, names: Collection[str]) -> Plan:
        """Keep more in fp32: layers, and the word embeddings under the name :data:`EMBEDDINGS`."""
        layers = tuple(dict.fromkeys([*self.keep_fp32, *(name for name in names if name != EMBEDDINGS)]))
        return replace(self, keep_fp32=layers, embeddings="fp32" if EMBEDDINGS in names else self.embeddings)


class Workshop:
    """
    Makes graphs from one fp32 graph, which stays as it is.

    :param fp32: the prepared graph
    :param with_means: makes it anew with what is taken off its layer norms, for products of integers
    :param batches: real segments, which channels' means and fixed ranges are found on
    """

    def __init__(
        self,
        fp32: ir.Model,
        with_means: Callable[[Mapping[str, Doubles]], ir.Model],
        batches: Sequence[EncodedBatch],
    ) -> None:
        self._fp32, self._with_means = fp32, with_means
        self._batches = batches
        self._ranges: Mapping[str, ActivationRange] | None = None

    def build(self, plan: Plan) -> tuple[ir.Model, dict[str, Any]]:
        """
        Make the graph of a plan.

        :return: the graph, and the record of how it was quantized
        :raises OptionError: when a layer to keep is not one of the model's
        """
        model = (self._centered if plan.recipe in INTEGER_RECIPES else self._fp32).clone()
        centered = centered_norms(model.graph)
        layers = self._quantize(model, plan)
        tables = quantize_embeddings(model) if plan.embeddings == "int8" else []
        return model, _record(plan, layers, tables, len(centered))

    def names(self, plan: Plan) -> list[str]:
        """Name what a plan quantizes: its linear layers, and the word embeddings as :data:`EMBEDDINGS`."""
        layers = [] if plan.recipe == "none" else quantizable_layers(self._fp32.graph, plan.keep_fp32)
        return [*(layer.name for layer in layers), *([EMBEDDINGS] if plan.embeddings == "int8" else [])]

    def _quantize(self, model: ir.Model, plan: Plan) -> list[str]:
        if plan.recipe in INTEGER_RECIPES:
            ranges = self._static_ranges() if plan.recipe == "int8-static" else {}
            return quantize_products(model, ranges, plan.keep_fp32, self._rounding)
        if plan.recipe == "int8-weights":
            return quantize_weights(model, plan.keep_fp32)
        return []

    @cached_property
    def _centered(self) -> ir.Model:
        """The graph with its activations in the middle of their 8 bits."""
        with tempfile.TemporaryDirectory() as scratch:
            return self._with_means(channel_means(self._fp32, self._batches, Path(scratch)))

    @cached_property
    def _rounding(self) -> WeightRounding:
        """What rounds the weights of all plans; each matrix is rounded once."""
        layers = quantizable_layers(self._centered.graph)
        with tempfile.TemporaryDirectory() as scratch:
            return WeightRounding(input_moments(self._centered, layers, self._batches, Path(scratch)))

    def _static_ranges(self) -> Mapping[str, ActivationRange]:
        if self._ranges is None:
            names = [layer.source_name for layer in quantizable_layers(self._centered.graph)]
            with tempfile.TemporaryDirectory() as scratch:
                self._ranges = calibrated_ranges(self._centered, names, self._batches, Path(scratch))
        return self._ranges


def _record(plan: Plan, layers: Sequence[str], tables: Sequence[str], centered: int) -> dict[str, Any]:
    """Describe what was done, as ``nerd.json`` and the card say it."""
    record: dict[str, Any] = {"method": "int8 embeddings" if tables else "none"}
    if plan.recipe != "none":
        record = dict(_METHODS[plan.recipe])
        record |= {"layers": len(layers), "fp32": "attention products, layer norms, classifier"}
        record |= {"centered_layer_norms": centered} if plan.recipe in INTEGER_RECIPES else {}
        record |= {"kept_fp32": list(plan.keep_fp32)} if plan.keep_fp32 else {}

    record["embeddings"] = f"signed 8 bits, one scale per row: {', '.join(tables)}" if tables else "fp32"
    record["integer_products"] = plan.recipe in INTEGER_RECIPES and bool(layers)
    return record
