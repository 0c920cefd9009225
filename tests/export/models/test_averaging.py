"""Several checkpoints exported as one: the mean of their weights, or an error that says why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from nerd_export.conversion.export import ExportRequest, export_bundle
from nerd_export.models.averaging import with_average_weights
from nerd_export.models.onnx_export import load_checkpoint
from nerd_onnx.errors import ModelError
from tests.support.bundles import silent
from tests.support.failures import fails
from tests.support.models import FINE_LABELS, make_checkpoint


def sibling(folder: Path, original: Path, seed: int, labels: tuple[str, ...] = FINE_LABELS) -> Path:
    """Write a checkpoint with other weights and the tokenizer of another checkpoint."""
    made = make_checkpoint(folder, "bert", labels, seed=seed)
    for path in original.glob("*token*"):
        shutil.copy(path, made / path.name)
    return made


def test_every_weight_is_the_mean(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folders = [checkpoint("bert"), *(sibling(tmp_path / str(i), checkpoint("bert"), seed=i) for i in (7, 8))]
    states = [load_checkpoint(str(folder)).model.state_dict() for folder in folders]
    mean = with_average_weights(load_checkpoint(str(folders[0])), list(map(str, folders[1:])), silent)
    for name, weight in mean.model.state_dict().items():
        expected = sum(state[name].double() for state in states) / 3
        torch.testing.assert_close(weight, expected.to(weight.dtype), msg=name)
    assert any((mean.model.state_dict()[name] != states[0][name]).any() for name in states[0])


@pytest.mark.slow
def test_the_mean_is_what_is_exported_and_named(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    one = checkpoint("bert")
    other = sibling(tmp_path / "other", one, seed=7)
    output = tmp_path / "bundle"
    request = ExportRequest(
        str(one), output, average_with=[str(other)], quantize="none", level="fine", texts=["The army."]
    )
    export_bundle(request, silent)
    assert json.loads((output / "nerd.json").read_text())["lineage"]["averaged_with"] == ["other"]
    assert "the mean of its own and those of `other`" in (output / "README.md").read_text()
    graph = onnx.load(output / "model.onnx").graph
    (bias,) = [numpy_helper.to_array(t) for t in graph.initializer if t.name == "classifier.bias"]
    both = [load_checkpoint(str(folder)).model.classifier.bias.detach().numpy() for folder in (one, other)]
    np.testing.assert_allclose(bias, np.mean(both, axis=0), atol=1e-7)


def test_what_does_not_mean_the_same_is_refused(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    one = checkpoint("bert")
    told = json.loads((sibling(tmp_path / "heads", one, 7) / "config.json").read_text())
    (tmp_path / "heads" / "config.json").write_text(json.dumps(told | {"layer_norm_eps": 1e-3}))
    for other, differs in (
        (tmp_path / "heads", "configurations"),
        (sibling(tmp_path / "labels", one, 7, tuple(reversed(FINE_LABELS))), "label names"),
        (
            make_checkpoint(tmp_path / "family", "mpnet", FINE_LABELS),
            "shapes of weights and configurations and vocabulary",
        ),
    ):
        with fails(ModelError, "checkpoints-differ", file=other, found=differs.replace(" and ", ", ")):
            with_average_weights(load_checkpoint(str(one)), [str(other)], silent)
