"""A bundle where it will run: the graph chosen, the check, and other programs."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from nerd_export.conversion.check import described, kernels
from nerd_export.conversion.cli import export_command
from nerd_export.conversion.export import ExportRequest, export_bundle
from nerd_onnx.errors import ModelError, OptionError
from nerd_onnx.inference import session
from nerd_onnx.inference.bundle import Bundle, sha256_of
from nerd_onnx.tagger import Tagger
from tests.export.bundles import TEXTS, WIDE, edited, silent
from tests.failures import fails
from tests.models import BIO_LABELS, sample_texts


def test_the_processor_gets_its_variant(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = None
    for flags, file, bits in (("avx2 avx512_vnni", "model.onnx", 8), ("avx2", "model_7bit.onnx", 7)):
        (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
        monkeypatch.setattr(session, "_CPUINFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        chosen = Bundle.load(bundle)
        assert chosen.model_file.name == file
        assert chosen.weight_bits == bits
        assert chosen.model_sha256 == sha256_of(bundle / file)
        assert f"signed {bits}-bit weights" in kernels(chosen)
        found = Tagger(chosen).tag(TEXTS)
        assert sum(len(row or ()) for row in found) > 50
        assert found != expected
        expected = found
    weights = onnx.load(bundle / "model_7bit.onnx").graph.initializer
    widest = [
        np.abs(onnx.numpy_helper.to_array(t).astype(int)).max() for t in weights if t.name.endswith("weight_int8")
    ]
    assert max(widest) == 63
    with fails(ModelError, "no-graph", found="model_4bit.onnx"):
        chosen.running("model_4bit.onnx")
    (tmp_path / "cpuinfo").write_text("flags : avx2\n")
    single = edited(bundle, tmp_path / "single", lambda _: None)
    description = json.loads((single / "nerd.json").read_text("utf-8"))
    description["variants"] = description["variants"][:1]
    (single / "nerd.json").write_text(json.dumps(description), "utf-8")
    assert "could saturate without VNNI, so onnxruntime's exact and slower kernel runs" in kernels(Bundle.load(single))


def test_check_passes_what_was_exported_and_names_what_was_altered(bundle: Path, data: Path, tmp_path: Path) -> None:
    arguments = ["--check", str(bundle), "--dataset", str(data), "--min-agreement", "0.75", "--max-f1-drop", "0.2"]
    result = CliRunner().invoke(
        export_command, [*arguments, "--report", str(tmp_path / "r.json")], catch_exceptions=False
    )
    assert result.output.strip().endswith("passed")
    assert "kernels: " in result.output
    assert "; at export " in result.output
    assert json.loads((tmp_path / "r.json").read_text("utf-8"))["entity_agreement"] > 0.75
    altered = tmp_path / "altered"
    shutil.copytree(bundle, altered)
    with (altered / "model_7bit.onnx").open("ab") as file:
        file.write(b"\0")
    with fails(ModelError, "altered", file=altered / "model_7bit.onnx"):
        described(str(altered))
    plain = tmp_path / "plain"
    shutil.copytree(bundle, plain)
    (plain / "nerd.json").unlink()
    with fails(ModelError, "not-bundle", file=plain):
        described(str(plain))
    both = CliRunner().invoke(export_command, [*arguments, "--model", "x"])
    assert isinstance(both.exception, OptionError)


def test_check_needs_no_torch(bundle: Path) -> None:
    hide = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'optimum', 'transformers', 'onnx', 'onnx_ir', 'onnxscript',\n"
        "            'datasets', 'seqeval', 'huggingface_hub'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "from nerd_export.conversion.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide, "--check", bundle, "--min-agreement", "0.75"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("passed")


def test_optimum_and_transformers_run_the_bundle_with_the_same_spans(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    import transformers
    from optimum.onnxruntime import ORTModelForTokenClassification

    request = ExportRequest(
        str(checkpoint("bert", BIO_LABELS)), tmp_path / "b", targets=("x86-vnni", "x86"), texts=TEXTS, limits=WIDE
    )
    export_bundle(request, silent)
    model = ORTModelForTokenClassification.from_pretrained(tmp_path / "b", file_name="model.onnx")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    texts = [text for text in sample_texts() if len(tokenizer(text)["input_ids"]) < 60][:50]
    pipeline = transformers.pipeline(
        "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first"
    )
    found = Tagger(Bundle.load(tmp_path / "b").running("model.onnx")).tag(texts)
    expected = [[(e.start, e.end, e.label) for e in row or []] for row in found]
    assert sum(map(len, expected)) > 100
    for batch_size in (1, 8):  # padded batches too
        rows = pipeline(texts, batch_size=batch_size)
        assert [[(e["start"], e["end"], e["entity_group"]) for e in row] for row in rows] == expected
