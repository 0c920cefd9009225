"""A bundle on the machine that runs it: one graph for every processor, the check, and other programs."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from nerd_export.cli.export import export_command
from nerd_export.conversion.check_on_machine import described, kernels
from nerd_export.conversion.export import ExportRequest, export_bundle
from nerd_export.quantization.rounding import PAIR_LIMIT
from nerd_onnx.errors import ModelError, OptionError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.machine import cpu
from nerd_onnx.tagger import Tagger, TagOptions
from tests.export.quantization.test_rounding import pair_sums
from tests.support.bundles import TEXTS, WIDE, silent
from tests.support.failures import fails
from tests.support.models import BIO_LABELS, sample_texts


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["avx2 avx512_vnni", "avx2"])
def test_one_graph_runs_on_every_processor(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str
) -> None:
    processor(monkeypatch, tmp_path, flags)
    loaded = Bundle.load(bundle)
    assert loaded.optimized
    assert "exact" not in kernels(loaded.kernels)
    weights = [t for t in onnx.load(bundle / "model.onnx").graph.initializer if t.name.endswith("weight_int8")]
    assert len(weights) == 12
    for tensor in weights:
        assert pair_sums(onnx.numpy_helper.to_array(tensor)).max() <= PAIR_LIMIT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "bits", "optimized"),
    [("avx2 avx512_vnni", 8, True), ("avx2", 8, False), ("avx2", 7, True), ("avx2", None, True)],
)
def test_a_bundle_of_format_4_is_run_exactly(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, bits: int | None, *, optimized: bool
) -> None:
    """The 8-bit weights can saturate on x86 without VNNI; there onnxruntime replaces the products by exact ones."""
    processor(monkeypatch, tmp_path, flags)
    older = Path(shutil.copytree(bundle, tmp_path / "older"))
    description = json.loads((older / "nerd.json").read_text("utf-8"))
    del description["quantization"]["integer_products"]
    description |= {"format_version": 4, "variants": [{"file": "model.onnx", "targets": [], "weight_bits": bits}]}
    (older / "nerd.json").write_text(json.dumps(description), "utf-8")
    loaded = Bundle.load(older)
    assert loaded.optimized == optimized
    assert (loaded.kernels == "fp32") == (bits is None)
    assert ("exact" in kernels(loaded.kernels)) != optimized
    found, expected = (Tagger(one).tag(TEXTS) for one in (loaded, Bundle.load(bundle)))
    same = sum(one == other for one, other in zip(found, expected, strict=True))
    assert same > 0.9 * len(TEXTS)  # the replaced graph rounds its fp32 parts otherwise, so near ties may fall


def processor(monkeypatch: pytest.MonkeyPatch, folder: Path, flags: str) -> None:
    """Simulate an x86 processor with these features."""
    (folder / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(cpu, "CPUINFO", folder / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


@pytest.mark.slow
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
    with (altered / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with fails(ModelError, "altered", file=altered / "model.onnx"):
        described(str(altered))
    plain = tmp_path / "plain"
    shutil.copytree(bundle, plain)
    (plain / "nerd.json").unlink()
    with fails(ModelError, "not-bundle", file=plain):
        described(str(plain))
    both = CliRunner().invoke(export_command, [*arguments, "--model", "x"])
    assert isinstance(both.exception, OptionError)


@pytest.mark.slow
def test_check_needs_no_torch(bundle: Path) -> None:
    hide = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'optimum', 'transformers', 'onnx', 'onnx_ir', 'onnxscript',\n"
        "            'datasets', 'seqeval', 'huggingface_hub'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "from nerd_export.cli.export import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide, "--check", bundle, "--min-agreement", "0.75"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("passed")


@pytest.mark.slow
def test_optimum_and_transformers_run_the_bundle_with_the_same_spans(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    import transformers
    from optimum.onnxruntime import ORTModelForTokenClassification

    request = ExportRequest(str(checkpoint("bert", BIO_LABELS)), tmp_path / "b", texts=TEXTS[:10], limits=WIDE)
    export_bundle(request, silent)
    model = ORTModelForTokenClassification.from_pretrained(tmp_path / "b", file_name="model.onnx")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    texts = [text for text in sample_texts() if len(tokenizer(text)["input_ids"]) < 60][:50]
    pipeline = transformers.pipeline(
        "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first"
    )
    found = Tagger(Bundle.load(tmp_path / "b"), TagOptions(join="scheme")).tag(texts)
    expected = [[(e.start, e.end, e.label) for e in row or []] for row in found]
    assert sum(map(len, expected)) > 100
    for batch_size in (1, 8):  # padded batches too
        rows = pipeline(texts, batch_size=batch_size)
        assert [[(e["start"], e["end"], e["entity_group"]) for e in row] for row in rows] == expected
