"""A quantization recipe is one class and one entry of the registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from nerd_export.conversion.export import ExportRequest, GateRefusalError, export_bundle
from nerd_export.graph.linear import quantizable_layers
from nerd_export.quantization import recipes
from nerd_export.quantization.graph_builder import GraphBuilder, Plan
from nerd_export.quantization.layers import quantize_products
from nerd_export.quantization.recipes.base import Context
from nerd_onnx.inference.bundle import Bundle
from tests.support.bundles import TEXTS, WIDE, silent
from tests.support.failures import fails


class FirstLayerOnly:
    """Products of integers in the first linear layer; the others stay fp32."""

    name = "int8-first"
    integer_products = True
    safer: str | None = "none"
    record: Mapping[str, str] = {"method": "first layer int8", "activations": "as int8", "weights": "as int8"}

    def build(self, model: ir.Model, keep_fp32: Collection[str], context: Context) -> list[str]:
        """Quantize the first layer by token."""
        others = [layer.name for layer in quantizable_layers(model.graph)[1:]]
        return quantize_products(model, {}, [*keep_fp32, *others], context.rounding)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "RECIPES", (*recipes.RECIPES, FirstLayerOnly()))


@pytest.mark.slow
def test_a_recipe_of_ones_own_exports(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    request = ExportRequest(
        str(checkpoint("bert")), tmp_path / "b", quantize="int8-first", level="fine", texts=TEXTS, limits=WIDE
    )
    export_bundle(request, silent)

    products = [node for node in onnx.load(tmp_path / "b" / "model.onnx").graph.node if "Integer" in node.op_type]
    assert len(products) == 1
    record = json.loads((tmp_path / "b" / "nerd.json").read_text("utf-8"))["quantization"]
    assert (record["method"], record["layers"], record["integer_products"]) == ("first layer int8", 1, True)
    assert record["centered_layer_norms"] > 0
    assert Bundle.load(tmp_path / "b").quantization == "first layer int8"


@pytest.mark.slow
def test_a_refused_export_names_the_safer_recipe(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nerd_export.conversion.gate.Verdict.faults", lambda *_: ["too far"])
    request = ExportRequest(
        str(checkpoint("bert")), tmp_path / "b", quantize="int8-first", level="fine", texts=TEXTS[:10], limits=WIDE
    )
    with fails(GateRefusalError, "gate-refused") as refusal:
        export_bundle(request, silent)
    assert "--quantize none" in str(refusal.value)


def test_each_safer_recipe_is_registered_and_the_chain_ends() -> None:
    for recipe in recipes.RECIPES:
        seen = [recipe.name]
        while (name := recipes.recipe_named(seen[-1]).safer) is not None:
            assert name not in seen
            seen.append(name)
        assert seen[-1] == "none"


def test_an_unknown_recipe_is_refused() -> None:
    builder = GraphBuilder(ir.Model(ir.Graph([], [], nodes=[]), ir_version=10), lambda _: pytest.fail("unused"), [])
    with pytest.raises(ValueError, match=r"'int3'.*int8, int8-static"):
        builder.build(Plan("int3"))
