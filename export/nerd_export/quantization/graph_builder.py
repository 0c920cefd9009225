"""Build quantized graphs from an exported fp32 graph, by a recipe and the layers to keep in fp32."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx_ir as ir

from nerd_export.config import Embeddings, Quantization
from nerd_export.graph.centering import centered_norms, channel_means
from nerd_export.graph.linear import quantizable_layers
from nerd_export.quantization.layers import ActivationRange, quantize_embeddings
from nerd_export.quantization.ranges import calibrated_ranges
from nerd_export.quantization.recipes import recipe_named
from nerd_export.quantization.recipes.base import Recipe
from nerd_export.quantization.rounding import WeightRounding, input_moments
from nerd_onnx.inference.arrays import Doubles
from nerd_onnx.inference.encoding import EncodedBatch

EMBEDDINGS = "embeddings"  # the word embeddings, where the layers to keep are named


@dataclass(frozen=True)
class Plan:
    """
    How to quantize.

    :param recipe: name of the recipe
    :param embeddings: form of the word embeddings
    :param keep_fp32: names of linear layers that stay fp32
    """

    recipe: Quantization = "int8"
    embeddings: Embeddings = "int8"
    keep_fp32: tuple[str, ...] = ()

    def keeping(self, names: Collection[str]) -> Plan:
        """Return a plan that keeps more in fp32: layers, and the word embeddings under the name :data:`EMBEDDINGS`."""
        layers = tuple(dict.fromkeys([*self.keep_fp32, *(name for name in names if name != EMBEDDINGS)]))
        return replace(self, keep_fp32=layers, embeddings="fp32" if EMBEDDINGS in names else self.embeddings)


class GraphBuilder:
    """
    Builds quantized graphs from one fp32 graph, which is not changed. It is the :class:`Context` of the recipes.

    :param fp32: the prepared graph
    :param with_means: prepares that graph again with the given means subtracted after its layer norms, for recipes
        with integer products
    :param batches: real segments, on which means, moments and fixed ranges are measured
    """

    def __init__(
        self,
        fp32: ir.Model,
        with_means: Callable[[Mapping[str, Doubles]], ir.Model],
        batches: Sequence[EncodedBatch],
    ) -> None:
        self._fp32, self._with_means = fp32, with_means
        self._batches = batches

    def build(self, plan: Plan) -> tuple[ir.Model, dict[str, Any]]:
        """
        Build the graph of a plan.

        :return: the graph, and the record of how it was quantized
        :raises OptionError: when a layer to keep is not one of the model's
        """
        recipe = recipe_named(plan.recipe)
        # Centering helps only where activations are rounded; elsewhere it would change the graph for nothing.
        model = (self._centered if recipe.integer_products else self._fp32).clone()
        centered = centered_norms(model.graph)  # counted before the rewrite: the marks are in names

        layers = recipe.build(model, plan.keep_fp32, self)
        tables = quantize_embeddings(model) if plan.embeddings == "int8" else []

        return model, _record(plan, recipe, layers, tables, len(centered))

    def names(self, plan: Plan) -> list[str]:
        """Return the names of what a plan quantizes: linear layers, and the word embeddings as :data:`EMBEDDINGS`."""
        quantizes = bool(recipe_named(plan.recipe).record)
        layers = quantizable_layers(self._fp32.graph, plan.keep_fp32) if quantizes else []
        return [*(layer.name for layer in layers), *([EMBEDDINGS] if plan.embeddings == "int8" else [])]

    @cached_property
    def rounding(self) -> WeightRounding:
        """Rounds the weights for all plans; each matrix is rounded once."""
        # On all layers, whatever the plan keeps in fp32: the sensitivity pass builds many plans, and the moments are
        # the same.
        layers = quantizable_layers(self._centered.graph)
        with tempfile.TemporaryDirectory() as scratch:
            return WeightRounding(input_moments(self._centered, layers, self._batches, Path(scratch)))

    @cached_property
    def static_ranges(self) -> Mapping[str, ActivationRange]:
        """The fixed range of the input of each linear layer, by the name of that input."""
        names = [layer.source_name for layer in quantizable_layers(self._centered.graph)]
        with tempfile.TemporaryDirectory() as scratch:
            return calibrated_ranges(self._centered, names, self._batches, Path(scratch))

    @cached_property
    def _centered(self) -> ir.Model:
        """The graph whose activations are centered in the range of their 8 bits."""
        with tempfile.TemporaryDirectory() as scratch:
            # Prepared again from the beginning, because centering has to come before the rewrite of attention.
            return self._with_means(channel_means(self._fp32, self._batches, Path(scratch)))


def _record(plan: Plan, recipe: Recipe, layers: Sequence[str], tables: Sequence[str], centered: int) -> dict[str, Any]:
    """Return the record of what was done, as ``nerd.json`` and the card show it."""
    record: dict[str, Any] = {"method": "int8 embeddings" if tables else "none"}
    if recipe.record:
        record = dict(recipe.record)
        record |= {"layers": len(layers), "fp32": "attention products, layer norms, classifier"}
        record |= {"centered_layer_norms": centered} if recipe.integer_products else {}
        record |= {"kept_fp32": list(plan.keep_fp32)} if plan.keep_fp32 else {}

    record["embeddings"] = f"signed 8 bits, one scale per row: {', '.join(tables)}" if tables else "fp32"
    record["integer_products"] = recipe.integer_products and bool(layers)
    return record
