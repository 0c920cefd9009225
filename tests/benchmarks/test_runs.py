"""Workloads, neighbours, accuracy and small complete runs, with the tiny bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.inputs.workloads import KINDS, MAX_ROW_TOKENS, Workload, build_workload, first_rows
from benchmarks.measurements.accuracy import neighbour_texts, score_bundle
from benchmarks.measurements.peak import Int8Peak
from benchmarks.measurements.ratios import paired
from benchmarks.paths import ROOT, shown
from benchmarks.settings import FORMS, Settings
from nerd_export.conversion.batch_independence import neighbour_check
from nerd_export.conversion.check_on_machine import recorded_scores
from nerd_export.data.sample import sample_texts
from nerd_onnx.errors import ModelError
from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.encoding import EncodedBatch, TextEncoder
from nerd_onnx.inference.session import Session
from tests.benchmarks.helpers import failed, scores
from tests.support.failures import fails


def built(
    name: str, folder: Path, bundle: Bundle, *, tokens: int, seed: int = 1, shared: Path | None = None
) -> Workload:
    folder.mkdir(exist_ok=True)
    return build_workload(
        KINDS[name],
        tokens,
        shared=shared or folder / "missing",
        folder=folder,
        tokenizer_file=bundle.tokenizer_file,
        seed=seed,
    )


@pytest.mark.parametrize("name", KINDS)
def test_stand_ins_fit_and_repeat_as_they_should(name: str, tmp_path: Path, tiny_bundle: Path) -> None:
    bundle, kind = Bundle.load(tiny_bundle), KINDS[name]
    made = built(name, tmp_path / "a", bundle, tokens=3000)
    texts = pq.read_table(made.path)["text"].to_pylist()
    lengths = np.diff(TextEncoder(bundle.tokenizer_file).encode(texts).text_tokens)
    minimum, maximum = kind.characters

    assert made.stand_in
    assert made.rows == len(texts) == kind.copies * len(set(texts))
    assert all(minimum <= len(text) <= maximum for text in texts)
    assert kind.whole or lengths.max() <= MAX_ROW_TOKENS
    assert made.tokens == lengths.sum() >= 3000
    assert made.characters == sum(map(len, texts))
    assert str(ROOT) not in json.dumps(made.summary())


def test_same_seed_gives_the_same_rows(tmp_path: Path, tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    files = [built("short", tmp_path / str(i), bundle, tokens=300, seed=seed).path for i, seed in enumerate((1, 1, 2))]
    texts = [pq.read_table(file)["text"].to_pylist() for file in files]
    assert texts[0] == texts[1] != texts[2]


def test_real_corpus_is_sampled_by_length_and_without_repeats(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "corpora").mkdir()
    fitting = [f"{text} " * (900 // len(text) + 1) for text in sample_texts()[:20] if len(text) < 800]
    corpus = [*fitting, *fitting, "too short", "x" * 2001, None, ""]
    pq.write_table(pa.table({"text": corpus}), tmp_path / "corpora" / KINDS["long"].file)
    made = built("long", tmp_path / "out", Bundle.load(tiny_bundle), tokens=10**6, shared=tmp_path)
    texts = pq.read_table(made.path)["text"].to_pylist()

    assert not made.stand_in
    assert 0 < made.rows == len(set(texts))
    assert set(texts) <= set(fitting)


def test_whole_documents_come_the_shortest_first(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "corpora").mkdir()
    novels = [" ".join(sample_texts()) * times for times in (3, 1, 2)]
    pq.write_table(pa.table({"text": novels}), tmp_path / "corpora" / KINDS["novels"].file)
    made = built("novels", tmp_path / "out", Bundle.load(tiny_bundle), tokens=1, shared=tmp_path)
    assert pq.read_table(made.path)["text"].to_pylist() == [novels[1]]


def test_first_rows_have_about_the_tokens_asked_for(tmp_path: Path, tiny_bundle: Path) -> None:
    made = built("short", tmp_path, Bundle.load(tiny_bundle), tokens=2000)
    part = pq.read_table(first_rows(made, 500, tmp_path / "part.parquet"))
    assert part["text"].to_pylist() == pq.read_table(made.path)["text"].to_pylist()[: part.num_rows]
    assert made.rows / 6 < part.num_rows < made.rows / 3
    assert pq.read_metadata(first_rows(made, 0, tmp_path / "part.parquet")).num_rows == 1


# --- figures of the bundle -------------------------------------------------------------------------------------------


class BatchScaled:
    """A network like ONNX Runtime's dynamic int8: the result of a text depends on the other texts of its batch."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def logits(self, batch: EncodedBatch) -> Floats:
        """Round to one scale for the whole batch."""
        logits = self._session.logits(batch)
        step = np.abs(logits).max() / 127
        rounded: Floats = (np.round(logits / step) * step).astype(np.float32)
        return rounded


def test_neighbours_change_nothing(tiny_bundle: Path) -> None:
    found = neighbour_check(Bundle.load(tiny_bundle), sample_texts()[:40], seed=1)
    assert found["entities"] > 0
    assert set(found["changed"]) >= {"alone", "shuffled", "--threads 1"}
    assert not any(found["changed"].values())


def test_neighbour_check_catches_batch_scales(tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    network = BatchScaled(Session(bundle.model_file, optimized=True))
    found = neighbour_check(bundle, sample_texts()[:40], seed=1, network=network)
    assert found["changed"]["alone"] > 0


def test_without_labelled_data_the_sample_texts_serve(tmp_path: Path, tiny_bundle: Path) -> None:
    texts, source = neighbour_texts(tmp_path, Bundle.load(tiny_bundle).labels, 5)
    assert texts == sample_texts()[:5]
    assert source == "nerd_onnx/sample.jsonl"


def with_metrics(bundle: Bundle, metrics: dict[str, Any]) -> Bundle:
    assert bundle.description is not None
    return replace(bundle, description=replace(bundle.description, metrics=metrics))


def test_recorded_scores_count_only_for_as_many_sentences(tiny_bundle: Path) -> None:
    metrics = {"test": {"source": "test.parquet", "bundle": scores(0.7), "original": scores(0.71)}}
    bundle = with_metrics(Bundle.load(tiny_bundle), metrics)
    assert recorded_scores(bundle, "test", 10) == {"bundle": scores(0.7), "original": scores(0.71)}
    assert recorded_scores(bundle, "test", 11) is None
    assert recorded_scores(bundle, "validation", 10) is None
    assert recorded_scores(Bundle.load(tiny_bundle), "test", 10) is None


@pytest.mark.parametrize("scores_of", [[], 7, {}, {"bundle": []}, {"bundle": {"sentences": "10"}}])
def test_malformed_recorded_scores_are_named(tiny_bundle: Path, scores_of: object) -> None:
    bundle = with_metrics(Bundle.load(tiny_bundle), {"test": scores_of})
    with fails(ModelError, "bad-description", file=tiny_bundle / "nerd.json"):
        recorded_scores(bundle, "test", 10)


def labelled_folder(folder: Path) -> Path:
    """Write labelled sentences of both splits."""
    (folder / "few_nerd").mkdir()
    words = [text.split() for text in sample_texts()[:20]]
    tags = [["person-actor" if word[0].isupper() else "O" for word in sentence] for sentence in words]
    for split in ("validation", "test"):
        table = pa.table({"tokens": words, "ner_tags": tags, "fine_ner_tags": tags})
        pq.write_table(table, folder / "few_nerd" / f"{split}.parquet")

    return folder


def test_the_bundle_is_scored_and_a_planted_f1_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    shared, bundle = labelled_folder(tmp_path), Bundle.load(tiny_bundle)
    first = score_bundle(bundle, shared, lambda _: None)["validation"]

    assert first["sentences"] == 20
    assert first["bundle"]["words"]["f1"] > 0
    assert first["recorded"] is None

    honest = {"bundle": first["bundle"], "original": first["bundle"]}
    planted = {"bundle": first["bundle"] | {"words": {"f1": first["bundle"]["words"]["f1"] + 0.01}}}
    for record, refused in ((honest, False), (honest | planted, True)):
        described = with_metrics(bundle, {"validation": record})
        again = {"accuracy": score_bundle(described, shared, lambda _: None)}
        assert ("validation: F1 as recorded in the bundle" in failed(again)) == refused


def test_the_peak_is_a_rate_that_this_machine_can_have() -> None:
    assert 1e8 < Int8Peak(1).operations_per_s(0.1) < 1e15


# --- complete runs ---------------------------------------------------------------------------------------------------


def run_suite(folder: Path, bundle: Path, *options: str) -> tuple[dict[str, Any], str]:
    """Run the suite from the command line, and check that the report has no path of this machine."""
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks", "--short", "--tokens", "60", "--rounds", "1", "--workload", "short",
            "--model", str(bundle), "--out", str(folder / "out"), *options,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'export'}"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr

    text = (folder / "out" / "report.json").read_text("utf-8")
    for path in (str(folder), str(ROOT), sys.executable):
        for written in (text, done.stdout, (folder / "out" / "report.html").read_text("utf-8")):
            assert path not in written

    report: dict[str, Any] = json.loads(text)

    assert report["failed_steps"] == {}

    return report, done.stdout


@pytest.mark.slow
def test_suite_runs_without_shared_data(tmp_path: Path, tiny_bundle: Path) -> None:
    options = ["--shared", str(tmp_path / "none"), "--peer", "nerd_tag", "--peer", "transformers_pipeline"]
    report, text = run_suite(tmp_path, tiny_bundle, *options, "--growth-rows", "5")
    small = report["shapes"]["small"]

    assert set(small["speed"]["short"]) == {"nerd_tag", "transformers_pipeline"}
    assert small["speed"]["short"]["transformers_pipeline"]["entities"] == 0
    assert small["workloads"]["short"]["stand_in"]
    assert small["alone"]["short"]["peers"]["nerd_tag"]["operations_per_s"]["median"] > 0
    assert report["growth"]["rows"][0]["rows"] == 5
    assert report["start"]["help_s"]["median"] > 0
    assert not any(report["neighbours"]["changed"].values())
    assert report["accuracy"] == {}

    for word in ("measure only speed", "stand-ins", "Accuracy was not measured"):
        assert any(word in note for note in report["notes"])

    assert text.startswith("# nerd-onnx benchmarks, short form")


@pytest.mark.slow
def test_suite_measures_another_bundle_in_the_same_rounds(tmp_path: Path, tiny_bundle: Path) -> None:
    other = tmp_path / "old-bundle"
    shutil.copytree(tiny_bundle, other)
    options = ["--shared", str(tmp_path / "none"), "--peer", "nerd_tag", "--part", "speed", "--part", "model"]
    report, text = run_suite(tmp_path, tiny_bundle, *options, "--other-model", str(other), "--rounds", "3")
    small = report["shapes"]["small"]
    speed, alone = small["speed"]["short"], small["alone"]["short"]

    assert set(speed) == set(alone["peers"]) == {"nerd_tag", "nerd_tag_other"}
    assert small["model"]["random_weights"] is False  # no peer needs PyTorch weights, so none were made
    assert small["model"]["other"]["bundle"] == shown(other)
    assert f"--model {shown(other)}" in speed["nerd_tag_other"]["command"]
    assert speed["nerd_tag_other"]["entities"] == speed["nerd_tag"]["entities"]

    for found in (small["ratios"]["short"], alone["ratios"]):
        assert set(found) == {"nerd_tag_other"}
        assert found["nerd_tag_other"]["rounds"] == 3

    seconds = [{run["round"]: run["seconds"] for run in peer["runs"]} for peer in alone["peers"].values()]

    assert alone["ratios"]["nerd_tag_other"] == paired(seconds[1], seconds[0])
    assert alone["peers"]["nerd_tag"]["peak_share"]["rounds"] == 3
    assert f"small, other bundle: `{shown(other)}`" in text


def test_another_bundle_runs_only_where_one_is_given(tmp_path: Path) -> None:
    plain = Settings(tmp_path)
    assert "nerd_tag_other" not in plain.peer_names
    assert "nerd_tag_other" in replace(plain, other_model=tmp_path).peer_names
    for form in FORMS:
        asked = Settings(tmp_path, form=form, peers=("nerd_tag",), other_model=tmp_path)
        assert asked.peer_names == ("nerd_tag", "nerd_tag_other")
    assert replace(plain, other_model=tmp_path).about() != plain.about()


@pytest.mark.slow
def test_suite_scores_peers_on_labelled_text_and_goes_on_where_it_ended(
    tmp_path: Path, tiny_bundle: Path, checkpoint: Callable[[str], Path]
) -> None:
    options = ["--shared", str(labelled_folder(tmp_path)), "--checkpoint", str(checkpoint("bert"))]
    options += ["--peer", "nerd_tag", "--peer", "pytorch_fp32", "--peer", "transformers_pipeline", "--part", "accuracy"]
    report, _ = run_suite(tmp_path, tiny_bundle, *options)
    scored = report["shapes"]["small"]["accuracy"]["peers"]

    assert set(scored) == {"nerd_tag", "pytorch_fp32", "transformers_pipeline"}
    assert set(scored["nerd_tag"]["f1"]) == {"raw", "fine_raw", "words", "fine_words"}
    assert set(scored["transformers_pipeline"]["f1"]) == {"raw", "fine_raw"}
    assert scored["nerd_tag"]["texts_changed_by_order"] == 0
    assert 0 <= scored["nerd_tag"]["labels_changed"] < 0.2
    assert scored["pytorch_fp32"]["f1"]["raw"] > 0

    again, _ = run_suite(tmp_path, tiny_bundle, *options, "--resume")

    assert again["step_seconds"] == report["step_seconds"]
