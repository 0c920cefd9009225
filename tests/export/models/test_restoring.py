"""A bundle restored as a PyTorch checkpoint: the same network to the last weight, or an error that says why not."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from nerd_export.config import Quantization
from nerd_export.conversion.export import ExportRequest, export_bundle
from nerd_export.data.checks import Sentence
from nerd_export.data.examples import Example
from nerd_export.models.averaging import with_average_weights
from nerd_export.models.names import as_checkpoint
from nerd_export.models.onnx_export import load_checkpoint
from nerd_export.training.features import encode
from nerd_export.training.teacher import fingerprint, soft_labels
from nerd_export.training.trainer import load_base
from nerd_onnx.errors import ModelError
from nerd_onnx.inference.bundle import DEFAULT_FOLDER, Bundle
from nerd_onnx.inference.description import Description
from nerd_onnx.inference.labels import LabelSet
from tests.support.bundles import TEXTS, WIDE, edited, labelled, plain_folder, silent
from tests.support.failures import fails
from tests.support.marks import slow_but
from tests.support.models import FINE_LABELS

Exporter = Callable[[str, Quantization], Path]
FAMILIES = ("bert", "electra", "mpnet", "distilbert", "roberta", "xlm-roberta")


def logits(folder: str) -> torch.Tensor:
    one = load_checkpoint(folder)
    inputs = one.tokenizer(TEXTS[:8], truncation=True, max_length=64, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found: torch.Tensor = one.model(**inputs).logits
    return found[inputs["attention_mask"].bool()]


@pytest.mark.slow
@pytest.mark.parametrize("family", slow_but(["bert"], FAMILIES))
def test_an_fp32_bundle_gives_the_network_back(
    family: str, checkpoint: Callable[..., Path], exported_bundle: Exporter
) -> None:
    source = checkpoint(family)
    with as_checkpoint(str(exported_bundle(family, "none"))) as place:
        torch.testing.assert_close(logits(place), logits(str(source)), rtol=1e-4, atol=1e-4)
        assert load_checkpoint(place).names == load_checkpoint(str(source)).names
    assert not Path(place).exists()


@pytest.mark.slow
@pytest.mark.parametrize("quantize", slow_but(["int8"], ["int8", "int8-weights", "int8-static"]))
def test_weights_of_8_bits_come_back_rounded(
    quantize: Quantization, checkpoint: Callable[..., Path], exported_bundle: Exporter
) -> None:
    source = checkpoint("bert")
    with as_checkpoint(str(exported_bundle("bert", quantize))) as place:
        found, original = (load_checkpoint(folder).model.state_dict() for folder in (place, str(source)))
        similar = (logits(place) - logits(str(source))).abs().mean() / logits(str(source)).std()
    assert found.keys() == original.keys()
    assert similar < 0.04  # as far as rounding goes; the biases, which centering moves, are compared by this
    carried = "bias" if quantize != "int8-weights" else ("key.bias", "value.bias", "attention.output.dense.bias")
    compared = {name: weight for name, weight in original.items() if not name.endswith(carried)}
    for name, weight in compared.items():
        if name.endswith("token_type_embeddings.weight"):
            torch.testing.assert_close(found[name][0], weight[0], msg=name)  # the row that texts use
            continue
        assert (found[name] - weight).norm() <= 0.015 * weight.norm(), name
    rounded = [name for name, weight in compared.items() if (found[name] != weight).any()]
    assert "bert.encoder.layer.1.output.dense.weight" in rounded


@pytest.mark.slow
@pytest.mark.parametrize("family", slow_but(["mpnet"], ["albert", "mpnet", "roberta"]))
def test_centered_bundles_come_back(family: str, checkpoint: Callable[..., Path], exported_bundle: Exporter) -> None:
    """ALBERT's layers share their weights, so no single one may be moved."""
    source = checkpoint(family)
    with as_checkpoint(str(exported_bundle(family, "int8"))) as place:
        assert (logits(place) - logits(str(source))).abs().mean() / logits(str(source)).std() < 0.04


@pytest.mark.slow
@pytest.mark.parametrize("quantize", slow_but(["none"], ["none", "int8-weights"]))
def test_a_bundle_that_was_never_centered_is_centered_as_its_checkpoint_would_be(
    quantize: Quantization, exported_bundle: Exporter, tmp_path: Path
) -> None:
    """The biases of its keys, which change nothing and are left out, come back as zeros that all layers share."""
    again = tmp_path / "again"
    request = ExportRequest(
        str(exported_bundle("bert", quantize)), again, level="fine", texts=TEXTS[:20], limits=WIDE, word_rule="treebank"
    )
    export_bundle(request, silent)
    counts = [
        Description.read(folder).quantization["centered_layer_norms"]
        for folder in (exported_bundle("bert", "int8"), again)
    ]
    assert counts == [5, 5]


@pytest.mark.slow
def test_a_graph_that_is_read_wrongly_is_refused(exported_bundle: Exporter, tmp_path: Path) -> None:
    def unmarked(model: onnx.ModelProto) -> None:
        """Remove the mark of the scale, so that the restored queries are a few times too small."""
        for node in model.graph.node:
            node.input[:] = [name.replace(".scaled", ".turned") for name in node.input]
        for tensor in model.graph.initializer:
            tensor.name = tensor.name.replace(".scaled", ".turned")

    def renamed(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.name = node.name.replace("/intermediate/", "/between/")

    bundle = exported_bundle("bert", "none")
    for source, change, reason in (
        (DEFAULT_FOLDER, unmarked, "restored-differs"),
        (bundle, renamed, "weights-missing"),
    ):
        other = edited(source, tmp_path / change.__name__, change)
        with fails(ModelError, reason, file=other), as_checkpoint(str(other)):
            pass


@pytest.mark.slow
def test_training_and_averages_take_bundles(checkpoint: Callable[..., Path], exported_bundle: Exporter) -> None:
    source = checkpoint("bert")
    bundle = str(exported_bundle("bert", "int8"))
    with as_checkpoint(bundle) as place:
        state = load_checkpoint(place).model.state_dict()
    _, same = load_base(bundle, LabelSet(FINE_LABELS))
    _, other = load_base(bundle, LabelSet(("O", "gene")))
    assert all((same.state_dict()[name] == weight).all() for name, weight in state.items())
    assert other.classifier.weight.shape[0] == 2
    assert all((other.state_dict()[n] == w).all() for n, w in state.items() if not n.startswith("classifier"))
    mean = with_average_weights(load_checkpoint(str(source)), [bundle], silent)
    original = load_checkpoint(str(source)).model.state_dict()
    for name, weight in mean.model.state_dict().items():
        torch.testing.assert_close(weight, (state[name] + original[name]) / 2, msg=name)


@pytest.mark.slow
def test_a_bundle_is_exported_again_as_what_it_is(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """For example with new labelled data: levels, word rule, segments and licence stay, and so does every weight."""
    first = tmp_path / "first"
    given: dict[str, Any] = {"texts": TEXTS[:20], "limits": WIDE}
    source = str(checkpoint("bert"))
    options: dict[str, Any] = {
        "level": "fine",
        "word_rule": "treebank",
        "segment_tokens": 48,
        "licence": "cc-by-sa-4.0",
    }
    export_bundle(ExportRequest(source, first, **given, **options), silent)
    again = tmp_path / "again"
    labelled_file = str(labelled(tmp_path / "own.jsonl", first))
    export_bundle(ExportRequest(str(first), again, dataset=labelled_file, **given), silent)
    one, two = map(Bundle.load, (first, again))
    assert (two.labels, two.word_rule, two.segment_tokens) == (one.labels, "treebank", 48)
    assert (one.calibration, two.calibration is not None) == (None, True)
    assert Description.read(again).lineage["licence"] == "cc-by-sa-4.0"
    assert Description.read(again).lineage["bundle"]["sha256"] == one.model_sha256
    assert (
        f"Exported again from the bundle `first` (graph {one.model_sha256[:12]})" in (again / "README.md").read_text()
    )
    without = tmp_path / "without"
    said: list[str] = []
    export_bundle(ExportRequest(str(again), without, overwrite=True, **given), said.append)
    assert Description.read(without).calibration == Description.read(again).calibration
    assert any("scores and thresholds stay those of" in line for line in said)
    changed = ExportRequest(str(again), tmp_path / "words", word_rule="pretokens", **given)
    export_bundle(changed, silent)
    assert Bundle.load(tmp_path / "words").calibration is None
    weights = [
        sorted(
            numpy_helper.to_array(tensor).tobytes()
            for tensor in onnx.load(bundle.model_file).graph.initializer
            if tensor.data_type == onnx.TensorProto.INT8
        )
        for bundle in (one, two)
    ]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_bundle_may_be_exported_over_itself_and_faults_are_said_in_a_line(
    checkpoint: Callable[..., Path], exported_bundle: Exporter, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(exported_bundle("bert", "int8"), tmp_path / "bundle"))
    before = Bundle.load(bundle).labels
    request = ExportRequest(str(bundle), bundle, texts=TEXTS[:20], limits=WIDE, overwrite=True)
    export_bundle(request, silent)
    assert Bundle.load(bundle).labels == before
    description = json.loads((bundle / "nerd.json").read_text())
    faulty: tuple[tuple[object, str], ...] = (
        ("x", "bad-description"),
        ({"training": "x"}, "bad-lineage"),
        ({"training": {"recipe": {"model": 3}}}, "bad-lineage"),
        (None, "bad-description"),
    )
    for lineage, reason in faulty:
        (bundle / "nerd.json").write_text(json.dumps({**description, "lineage": lineage}))
        with fails(ModelError, reason):
            export_bundle(request, silent)
    plain = plain_folder(checkpoint("bert"), tmp_path / "plain")
    with fails(ModelError, "foreign-onnx", file=plain):
        export_bundle(ExportRequest(str(plain), tmp_path / "no"), silent)


@pytest.mark.slow
def test_a_teacher_may_be_a_bundle_and_is_known_by_its_files(
    checkpoint: Callable[..., Path], exported_bundle: Exporter, tmp_path: Path
) -> None:
    source, labels = checkpoint("bert"), LabelSet(FINE_LABELS)
    bundle = Path(shutil.copytree(exported_bundle("bert", "none"), tmp_path / "bundle"))
    texts = [Example.of_words(Sentence(tuple(text.split()), ("O",) * len(text.split()))) for text in TEXTS[:4]]
    tokenizer, _ = load_base(str(source), labels)
    ids = {name: i for i, name in enumerate(FINE_LABELS)}
    features = encode(texts, tokenizer, ids, 64, every_pretoken=True)
    tables = []
    for number, teacher in enumerate((source, bundle)):
        (tmp_path / str(number)).mkdir()
        asked = soft_labels(
            [str(teacher)], texts, features, labels, temperature=1, folder=tmp_path / str(number), note=silent
        )
        tables.append(np.asarray(asked.table))
    np.testing.assert_allclose(tables[0], tables[1], atol=2e-3)
    before = fingerprint(str(bundle))
    description = json.loads((bundle / "nerd.json").read_text())
    (bundle / "nerd.json").write_text(json.dumps(description))
    assert fingerprint(str(bundle)) == before  # written in another way
    description["lineage"]["checkpoint_sha256"] = "another"
    (bundle / "nerd.json").write_text(json.dumps(description))
    assert fingerprint(str(bundle)) != before
    assert fingerprint("default") != hashlib.sha256(b"default").hexdigest()


def test_checkpoints_and_hub_ids_stay_what_they_are(checkpoint: Callable[..., Path]) -> None:
    """Ids with an owner are looked up on the hub, see ``test_hub.py``."""
    for name in (str(checkpoint("bert")), "bert-base-uncased"):
        with as_checkpoint(name) as place:
            assert place == name


@pytest.mark.slow
def test_the_model_inside_has_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with as_checkpoint("default") as place:
        found = load_checkpoint(place)
    assert found.names == Bundle.load().labels.names
    stored = onnx.load(DEFAULT_FOLDER / "model.onnx").graph.initializer
    (bias,) = [numpy_helper.to_array(tensor) for tensor in stored if tensor.name.startswith("classifier.bias")]
    np.testing.assert_array_equal(found.model.classifier.bias.detach().numpy(), bias)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").mkdir()
    with as_checkpoint("default") as place:  # a folder of the user's comes first
        assert place == "default"
