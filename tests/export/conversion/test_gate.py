"""The gate: broken bundles are refused, repairable ones repaired, and every figure is reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from nerd_export.cli.export import export_command
from nerd_export.conversion.check_on_machine import check_bundle
from nerd_export.conversion.export import ExportRequest, GateRefusalError, export_bundle
from nerd_export.conversion.gate import Gate
from nerd_export.models.networks import TorchNetwork
from nerd_export.models.onnx_export import load_checkpoint
from nerd_onnx.inference.bundle import Bundle
from tests.support.bundles import LIMITS, TEXTS, WIDE, edited, silent
from tests.support.models import FINE_LABELS, make_checkpoint


def break_one_layer(model: onnx.ModelProto) -> None:
    """Multiply the scale of every third output channel of one layer by 30."""
    broken = next(t for t in model.graph.initializer if t.name.endswith("intermediate/dense/MatMul.weight_scale"))
    scale = onnx.numpy_helper.to_array(broken).copy()
    scale[::3] *= 30
    broken.CopyFrom(onnx.numpy_helper.from_array(scale, broken.name))


def test_a_planted_bad_quantization_is_refused(
    bundle: Path, fp32: Path, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    original = TorchNetwork(load_checkpoint(str(checkpoint("bert"))).model)
    gate = Gate(original, Bundle.load(fp32), original_bytes=1, texts=TEXTS, splits={})
    assert gate.judge(Bundle.load(bundle)).faults(LIMITS) == []
    broken = Bundle.load(edited(bundle, tmp_path / "broken", break_one_layer))
    faults = " ".join(gate.judge(broken).faults(LIMITS))
    assert "of labels changed, at most 8.00% may" in faults
    assert "entity agreement is 0." in faults
    # The same broken graph is found on another machine, without PyTorch, by what the original found.
    report = check_bundle(broken, {}, LIMITS)
    assert "entity agreement with the original is 0." in " ".join(report.faults)


def test_logits_that_are_not_finite_are_refused(
    bundle: Path, fp32: Path, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    def poison(model: onnx.ModelProto) -> None:
        scale = next(t for t in model.graph.initializer if t.name.endswith("MatMul.weight_scale"))
        scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * np.nan, scale.name))

    original = TorchNetwork(load_checkpoint(str(checkpoint("bert"))).model)
    gate = Gate(original, Bundle.load(fp32), original_bytes=1, texts=TEXTS, splits={})
    verdict = gate.judge(Bundle.load(edited(bundle, tmp_path / "poisoned", poison)))
    assert "its logits are not finite" in verdict.faults(WIDE)


def with_outlier_layer(folder: Path) -> Path:
    """
    Make a checkpoint with one layer that 8 bits cannot hold.

    One of its inputs is always zero and has huge weights: in fp32 they do nothing, in 8 bits they take the whole scale
    of every output channel, and nothing of the other weights is left.
    """
    import torch
    import transformers

    make_checkpoint(folder, "bert", FINE_LABELS)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder)
    with torch.no_grad():
        layer = model.bert.encoder.layer[1]
        layer.attention.output.LayerNorm.weight[7] = 0
        layer.attention.output.LayerNorm.bias[7] = 0
        layer.intermediate.dense.weight[:, 7] = 1e4
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_an_outlier_layer_is_found_and_kept_in_fp32(tmp_path: Path) -> None:
    source = with_outlier_layer(tmp_path / "outlier")
    told: list[str] = []
    request = ExportRequest(str(source), tmp_path / "b", level="fine", texts=TEXTS, limits=LIMITS)
    result = export_bundle(request, told.append)
    assert result.repair is not None
    assert result.repair.kept == ["/bert/encoder/layer.1/intermediate/dense/MatMul"]
    assert result.repair.costs[0].error > 10 * result.repair.costs[1].error
    assert result.verdict.faults(LIMITS) == []
    assert result.repair.faults
    assert any("Measuring what each layer costs" in text for text in told)
    described = json.loads((tmp_path / "b" / "nerd.json").read_text("utf-8"))
    assert described["quantization"]["kept_fp32"] == result.repair.kept
    assert described["verification"]["repair"]["texts_per_s_before"]["bundle"] > 0
    card = (tmp_path / "b" / "README.md").read_text("utf-8")
    assert "## Kept in fp32" in card
    assert "| bert/encoder/layer.1/intermediate/dense |" in card


@pytest.mark.slow
def test_what_cannot_be_repaired_is_refused_with_its_table_and_report(
    checkpoint: Callable[..., Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Too little to fit on: the original decides word by word, as it labelled the data, and is never wrong.
    monkeypatch.setattr("nerd_export.scoring.score_calibration._FEWEST", 10**9)
    arguments = ["--model", checkpoint("bert"), "--output", tmp_path / "b", "--level", "fine", "--dataset", data]
    arguments += ["--min-agreement", 1, "--max-labels-changed", 0, "--max-f1-drop", 0, "--report", tmp_path / "r.json"]
    result = CliRunner().invoke(export_command, [str(a) for a in arguments])
    assert isinstance(result.exception, GateRefusalError)
    message = str(result.exception)
    assert "keeping layers in fp32 did not help" in message
    assert "No bundle was written. Export with --quantize int8-weights" in message
    assert "F1 on validation (given words, fine) fell by 0." in message
    assert "| F1, validation, given words, fine | 1.0000 | 1.0000 | 0." in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]
    report = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert report["refused"] == message
    assert len(report["repair"]["layer_costs"]) == 13  # 12 layers and the embeddings


def test_the_bundle_and_its_card_hold_every_figure(bundle: Path) -> None:
    description = json.loads((bundle / "nerd.json").read_text("utf-8"))
    found = description["verification"]
    assert {row["view"] for row in found["f1"]} == {"words", "fine_words", "raw", "fine_raw"}
    for row in found["f1"]:
        assert row["gated"] == (row["split"] == "validation")
        assert row["original"] == pytest.approx(row["fp32"], abs=0.01)
        assert row["difference"]["low"] <= row["difference"]["value"] <= row["difference"]["high"]
        assert row["difference"]["value"] == pytest.approx(row["bundle"] - row["original"], abs=1e-9)
    assert set(found["changed_by_neighbours"].values()) == {0}
    assert found["fp32"]["max_logit_difference"] < 1e-3 < found["max_logit_difference"]
    assert 0 < found["size_bytes"]["bundle"] < found["size_bytes"]["fp32"]
    card = huggingface_hub.ModelCard.load(bundle / "README.md")
    assert card.data.license == "apache-2.0"
    results = {(r.dataset_split, r.metric_name): r.metric_value for r in card.data.eval_results}
    assert (
        results["validation", "f1, given words, fine"]
        == description["metrics"]["validation"]["bundle"]["fine_words"]["f1"]
    )
    (fine,) = [row for row in found["f1"] if (row["split"], row["view"]) == ("validation", "fine_words")]
    assert {"location-GPE", "person-actor"} <= fine["labels"].keys()
    for name, (before, after) in fine["labels"].items():
        assert f"| {name} | {before:.4f} | {after:.4f} |" in card.content


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["int8-static", "int8-weights"])
def test_the_other_recipes_pass_the_gate(recipe: Any, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    request = ExportRequest(
        str(checkpoint("mpnet")), tmp_path / "b", quantize=recipe, level="fine", texts=TEXTS, limits=LIMITS
    )
    result = export_bundle(request, silent)
    assert result.verdict.faults(LIMITS) == []
    assert (
        Bundle.load(tmp_path / "b").quantization
        == {"int8-static": "static int8", "int8-weights": "int8 weights"}[recipe]
    )
