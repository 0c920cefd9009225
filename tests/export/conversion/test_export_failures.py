"""Errors and notes of an export: one line each, and never an incomplete bundle."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nerd_export.config import TESTED_VERSIONS
from nerd_export.conversion.export import ExportRequest, export_bundle
from nerd_export.models.onnx_export import load_checkpoint
from nerd_onnx.errors import ModelError, OutputError, TrainingDataError
from tests.conftest import ROOT
from tests.support.bundles import TEXTS, WIDE, silent
from tests.support.failures import fails
from tests.support.models import FINE_LABELS, make_checkpoint


@pytest.mark.slow
def test_data_whose_labels_do_not_fit_is_refused_or_told(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    other = {"tokens": ["Ada", "left"], "fine_ner_tags": ["B-PER", "O"]}
    (tmp_path / "other.jsonl").write_text(json.dumps(other) + "\n")
    request = ExportRequest(
        str(checkpoint("bert")), tmp_path / "b", level="fine", dataset=str(tmp_path / "other.jsonl")
    )
    with fails(TrainingDataError, "other-labels", file=tmp_path / "other.jsonl"):
        export_bundle(request, silent)
    some = {"tokens": ["Ada", "left", "Mars"], "fine_ner_tags": ["person-other", "O", "location-planet"]}
    (tmp_path / "some.jsonl").write_text(json.dumps(some) + "\n")
    told: list[str] = []
    request = ExportRequest(
        str(checkpoint("bert")),
        tmp_path / "b",
        level="fine",
        texts=TEXTS,
        limits=WIDE,
        evaluations={"some": tmp_path / "some.jsonl"},
    )
    export_bundle(request, told.append)
    assert any("no label for location-planet" in text for text in told)


def test_an_untrained_head_is_told(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    make_checkpoint(tmp_path / "c", "bert", FINE_LABELS)
    weights = load_file(tmp_path / "c" / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "classifier" not in name}
    save_file(kept, tmp_path / "c" / "model.safetensors", metadata={"format": "pt"})
    told: list[str] = []
    load_checkpoint(str(tmp_path / "c"), told.append)
    assert any("its classifier was never trained" in text for text in told)


@pytest.mark.slow
def test_a_tokenizer_without_a_fast_version_is_named(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "c", "bert", FINE_LABELS)
    (tmp_path / "c" / "tokenizer.json").unlink()
    (tmp_path / "c" / "vocab.json").write_text("{}")
    config = {"tokenizer_class": "CanineTokenizer", "model_max_length": 128}
    (tmp_path / "c" / "tokenizer_config.json").write_text(json.dumps(config))
    with fails(ModelError, "no-fast-tokenizer", found="CanineTokenizer"):
        load_checkpoint(str(tmp_path / "c"))


def test_an_architecture_that_optimum_cannot_export_is_named(tmp_path: Path) -> None:
    import transformers

    make_checkpoint(tmp_path / "c", "bert", FINE_LABELS)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {"id2label": dict(enumerate(FINE_LABELS)), "label2id": {n: i for i, n in enumerate(FINE_LABELS)}}
    config = transformers.LukeConfig(vocab_size=1500, entity_vocab_size=10, **sizes, **labels)
    transformers.LukeForTokenClassification(config).save_pretrained(tmp_path / "c")
    with pytest.raises(ModelError) as caught:
        export_bundle(ExportRequest(str(tmp_path / "c"), tmp_path / "b", level="fine"), silent)
    assert caught.value.reason in ("unsupported-architecture", "cannot-load")  # as the versions of the packages have it
    assert not (tmp_path / "b").exists()


def test_versions_that_do_not_fit_are_named_with_those_that_do(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", None)
    with fails(ModelError, "package-versions") as caught:
        export_bundle(ExportRequest(str(checkpoint("bert")), tmp_path / "b", level="fine"), silent)
    assert str(caught.value.fields["expected"]).startswith("optimum==2.1.0 optimum-onnx==0.1.0 ")
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert {name: pins[name] for name in TESTED_VERSIONS} == TESTED_VERSIONS


def test_too_little_disk_is_said_before_the_work(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with fails(OutputError, "too-little-space", found=1000):
        export_bundle(ExportRequest(str(checkpoint("bert")), tmp_path / "b", level="fine"), silent)


@pytest.mark.slow
def test_killed_in_the_middle_leaves_no_bundle_and_the_next_run_cleans_up(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    arguments = ["--model", checkpoint("bert"), "--output", tmp_path / "b", "--level", "fine", "--min-agreement", "0"]
    arguments += ["--max-labels-changed", "1", "--quantize", "int8"]
    command = [sys.executable, "-c", "from nerd_export.cli.export import main; main()", *map(str, arguments)]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob(".b.*/model.onnx")):
        assert victim.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not (tmp_path / "b").exists()
    assert list(tmp_path.glob(".b.*"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
