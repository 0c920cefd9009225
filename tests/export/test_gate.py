"""The gate: what is broken is refused, what can be repaired is, and every figure is there."""

from __future__ import annotations

import json
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nerd_export.cli import export_command
from nerd_export.config import TESTED_VERSIONS, VerifyLimits
from nerd_export.conversion.calibrate import Histogram
from nerd_export.conversion.check import check_bundle, kernels
from nerd_export.conversion.export import ExportRequest, GateRefusalError, export_bundle
from nerd_export.conversion.gate import Gate
from nerd_export.conversion.networks import Remembered, TorchNetwork, segment_batches
from nerd_export.conversion.onnx_export import load_checkpoint
from nerd_export.conversion.sensitivity import LayerCost, fewest_kept
from nerd_export.training.bootstrap import micro_f1, paired_difference
from nerd_onnx.errors import ModelError, OptionError, OutputError, TrainingDataError
from nerd_onnx.inference import session
from nerd_onnx.inference.bundle import Bundle, sha256_of
from nerd_onnx.tagger import Tagger
from tests.conftest import ROOT
from tests.models import BIO_LABELS, FINE_LABELS, make_checkpoint, sample_texts

TEXTS = sample_texts()[:60]
LIMITS = VerifyLimits(min_entity_agreement=0.75, max_labels_changed=0.08, max_f1_drop=0.2)  # random weights: near ties
WIDE = VerifyLimits(min_entity_agreement=0, max_labels_changed=1, max_f1_drop=1)


def silent(_: str) -> None:
    pass


def labelled(path: Path, model: Path) -> Path:
    """Label sentences with what the original itself finds, so that every change of it costs F1."""
    bundle = Bundle.load(model)
    tagger = Tagger(bundle)
    sentences = [text.split() for text in TEXTS]
    spans = tagger.tag_words(sentences)
    tags = [["O"] * len(words) for words in sentences]
    for row, start, end, fine in zip(spans.row, spans.start, spans.end, spans.fine, strict=True):
        tags[row][start:end] = [bundle.labels.fine_types[fine]] * int(end - start)
    lines = (json.dumps({"tokens": w, "fine_ner_tags": t}) + "\n" for w, t in zip(sentences, tags, strict=True))
    path.write_text("".join(lines), "utf-8")
    return path


@pytest.fixture(scope="module")
def fp32(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("fp32") / "bundle"
    export_bundle(ExportRequest(str(checkpoint("bert")), output, quantize="none", level="fine", texts=TEXTS), silent)
    return output


@pytest.fixture(scope="module")
def data(fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(tmp_path_factory.mktemp("data") / "validation.jsonl", fp32)


@pytest.fixture(scope="module")
def bundle(checkpoint: Callable[..., Path], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 bundle with weights for two kinds of processors, judged on labelled data."""
    output = tmp_path_factory.mktemp("int8") / "bundle"
    request = ExportRequest(
        str(checkpoint("bert")),
        output,
        level="fine",
        targets=("x86-vnni", "x86"),
        dataset=str(data),
        evaluations={"again": data},
        texts=TEXTS,
        limits=LIMITS,
        licence="apache-2.0",
    )
    assert export_bundle(request, silent).repair is None
    return output


def edited(bundle: Path, folder: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    """Copy a bundle and change its graph, fingerprints and all, as a broken exporter would have written it."""
    shutil.copytree(bundle, folder)
    model = onnx.load(folder / "model.onnx")
    change(model)
    onnx.save(model, folder / "model.onnx")
    description = json.loads((folder / "nerd.json").read_text("utf-8"))
    description["files"]["model.onnx"]["sha256"] = sha256_of(folder / "model.onnx")
    (folder / "nerd.json").write_text(json.dumps(description), "utf-8")
    return folder


def break_one_layer(model: onnx.ModelProto) -> None:
    """Give every third output channel of one layer a scale 30 times too large."""
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
    report = check_bundle(str(tmp_path / "broken"), {}, LIMITS)
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
    described = Bundle.load(tmp_path / "b").description
    assert described["quantization"]["kept_fp32"] == result.repair.kept
    assert described["verification"]["repair"]["texts_per_s_before"]["bundle"] > 0
    card = (tmp_path / "b" / "README.md").read_text("utf-8")
    assert "## Kept in fp32" in card
    assert "| bert/encoder/layer.1/intermediate/dense |" in card


def test_what_cannot_be_repaired_is_refused_with_its_table_and_report(
    checkpoint: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
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
    for name in ("location-GPE", "person-actor"):
        assert f"| {name} | 1.0000 | " in card.content


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
    with pytest.raises(ModelError, match=r"has no graph 'model_4bit.onnx'"):
        chosen.running("model_4bit.onnx")
    (tmp_path / "cpuinfo").write_text("flags : avx2\n")
    single = edited(bundle, tmp_path / "single", lambda _: None)
    description = json.loads((single / "nerd.json").read_text("utf-8"))
    description["variants"] = description["variants"][:1]
    (single / "nerd.json").write_text(json.dumps(description), "utf-8")
    assert "could saturate without VNNI, so onnxruntime's exact and slower kernel runs" in kernels(Bundle.load(single))


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
    with pytest.raises(ModelError, match=r"model_7bit\.onnx: altered since export"):
        check_bundle(str(altered), {}, LIMITS)
    plain = tmp_path / "plain"
    shutil.copytree(bundle, plain)
    (plain / "nerd.json").unlink()
    with pytest.raises(ModelError, match=r"holds no nerd\.json"):
        check_bundle(str(plain), {}, LIMITS)
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
        "from nerd_export.cli import export_main; export_main()"
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


def test_data_whose_labels_do_not_fit_is_refused_or_told(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    other = {"tokens": ["Ada", "left"], "fine_ner_tags": ["B-PER", "O"]}
    (tmp_path / "other.jsonl").write_text(json.dumps(other) + "\n")
    request = ExportRequest(
        str(checkpoint("bert")), tmp_path / "b", level="fine", dataset=str(tmp_path / "other.jsonl")
    )
    with pytest.raises(TrainingDataError, match=r"its entity types \(.*\) are none of the model's \(location-GPE, "):
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


def test_a_tokenizer_without_a_fast_version_is_named(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "c", "bert", FINE_LABELS)
    (tmp_path / "c" / "tokenizer.json").unlink()
    (tmp_path / "c" / "vocab.json").write_text("{}")
    config = {"tokenizer_class": "CanineTokenizer", "model_max_length": 128}
    (tmp_path / "c" / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"has no fast tokenizer \(CanineTokenizer\)"):
        load_checkpoint(str(tmp_path / "c"))


def test_an_architecture_that_optimum_cannot_export_is_named(tmp_path: Path) -> None:
    import transformers

    make_checkpoint(tmp_path / "c", "bert", FINE_LABELS)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {"id2label": dict(enumerate(FINE_LABELS)), "label2id": {n: i for i, n in enumerate(FINE_LABELS)}}
    config = transformers.LukeConfig(vocab_size=1500, entity_vocab_size=10, **sizes, **labels)
    transformers.LukeForTokenClassification(config).save_pretrained(tmp_path / "c")
    with pytest.raises(ModelError, match=r"optimum cannot export this architecture \(luke\)|cannot be loaded as a"):
        export_bundle(ExportRequest(str(tmp_path / "c"), tmp_path / "b", level="fine"), silent)
    assert not (tmp_path / "b").exists()


def test_versions_that_do_not_fit_are_named_with_those_that_do(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", None)
    with pytest.raises(
        ModelError, match=r"do not fit each other .* pip install optimum==2\.1\.0 optimum-onnx==0\.1\.0"
    ):
        export_bundle(ExportRequest(str(checkpoint("bert")), tmp_path / "b", level="fine"), silent)
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert {name: pins[name] for name in TESTED_VERSIONS} == TESTED_VERSIONS


def test_too_little_disk_is_said_before_the_work(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OutputError, match=r"0 MB are free, and the export needs about \d+ MB"):
        export_bundle(ExportRequest(str(checkpoint("bert")), tmp_path / "b", level="fine"), silent)


def test_killed_in_the_middle_leaves_no_bundle_and_the_next_run_cleans_up(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    arguments = ["--model", checkpoint("bert"), "--output", tmp_path / "b", "--level", "fine", "--min-agreement", "0"]
    arguments += ["--max-labels-changed", "1", "--quantize", "int8"]
    command = [sys.executable, "-c", "from nerd_export.cli import export_main; export_main()", *map(str, arguments)]
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


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30),
)
def test_a_system_does_not_differ_from_itself(rows: Sequence[tuple[int, int, int]]) -> None:
    counts = np.array([(min(a, b, c), b, c) for a, b, c in rows])
    same = paired_difference(counts, counts, resamples=50)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    nothing = paired_difference(counts * [0, 0, 1], counts, resamples=50)
    assert nothing.low <= nothing.high <= 0
    assert nothing.value == -micro_f1(counts.sum(axis=0))


def test_the_bootstrap_interval_covers_what_it_says() -> None:
    """Two systems of equal quality: of 200 worlds, about 95% of the intervals hold the true difference, 0."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        expected = rng.integers(1, 5, 300)
        one, two = (np.stack([rng.binomial(expected, 0.7), expected, expected], axis=1) for _ in range(2))
        found = paired_difference(one, two, resamples=300)
        covered += found.low <= 0 <= found.high
    assert 180 <= covered <= 199


def test_fewest_layers_are_kept() -> None:
    costs = [LayerCost(f"l{i}", 1 / (i + 1)) for i in range(24)]
    for needed in (1, 2, 3, 5, 8, 12):
        tried: list[int] = []

        def passes(names: Sequence[str], needed: int = needed, tried: list[int] = tried) -> bool:
            tried.append(len(names))
            return len(names) >= needed

        assert fewest_kept(costs, passes) == [f"l{i}" for i in range(needed)]
        assert len(tried) <= 8
    assert fewest_kept(costs, lambda names: len(names) > 12) is None


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=200), st.integers(1, 5))
def test_a_histogram_counts_everything_whatever_the_order(values: list[float], parts: int) -> None:
    histogram = Histogram()
    for part in np.array_split(np.array(values, dtype=np.float32), parts):
        histogram.add(part)
    if any(values):
        assert histogram.counts.sum() >= np.count_nonzero(values)
        assert histogram.limit >= np.abs(values).max() * 0.999
    found = histogram.best_range()
    assert 0 <= found.zero_point <= 255
    assert found.scale > 0


def test_the_best_range_clips_a_lone_outlier_and_keeps_the_rest() -> None:
    rng = np.random.default_rng(5)
    histogram = Histogram()
    values = rng.normal(size=200_000).astype(np.float32)
    values[0] = 60
    histogram.add(values)
    found = histogram.best_range()
    rounded = (np.clip(np.rint(values / found.scale) + found.zero_point, 0, 255) - found.zero_point) * found.scale
    plain = np.rint(values / (65 / 255)) * (65 / 255)
    assert ((rounded - values)[1:] ** 2).mean() < 0.7 * ((plain - values)[1:] ** 2).mean()


def test_batches_are_the_runtimes_own_and_remembered_logits_are_the_networks(fp32: Path) -> None:
    batches = segment_batches(Bundle.load(fp32), TEXTS)
    assert len({ids.shape[1] for ids in batches}) > 5
    assert segment_batches(Bundle.load(fp32), TEXTS)[3].tolist() == batches[3].tolist()

    class Counting:
        calls = 0

        def logits(self, ids: Any) -> Any:
            self.calls += 1
            return np.full((*ids.shape, 2), ids.sum(), dtype=np.float32)

    network = Counting()
    remembered = Remembered(network, limit_bytes=batches[0].size * 8)
    for _ in range(2):
        for ids in batches[:2]:
            assert (remembered.logits(ids) == ids.sum()).all()
    assert network.calls == 3  # the second batch found no room
