"""Workloads, neighbours, accuracy and a whole small run, on the tiny bundle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.accuracy import neighbour_texts, recorded_scores, score_splits
from benchmarks.paths import ROOT
from benchmarks.workloads import LONGEST_ROW_TOKENS, SHAPES, Workload, build_workload
from nerd_export.conversion.neighbours import neighbour_check
from nerd_export.conversion.verify import sample_texts
from nerd_onnx.inference.arrays import Floats, Ints
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.encoding import TextEncoder
from nerd_onnx.inference.session import Session
from tests.benchmarks.helpers import failed, scores


def built(name: str, folder: Path, bundle: Bundle, *, rows: int, seed: int = 1, shared: Path | None = None) -> Workload:
    folder.mkdir(exist_ok=True)
    return build_workload(
        SHAPES[name],
        rows,
        shared=shared or folder / "missing",
        folder=folder,
        tokenizer_file=bundle.tokenizer_file,
        seed=seed,
    )


@pytest.mark.parametrize("name", SHAPES)
def test_stand_ins_fit_and_never_repeat(name: str, tmp_path: Path, tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    made = built(name, tmp_path / "a", bundle, rows=30)
    texts = pq.read_table(made.path)["text"].to_pylist()
    lengths = np.diff(TextEncoder(bundle.tokenizer_file).encode(texts).text_tokens)
    fewest, most = SHAPES[name].characters
    assert made.stand_in
    assert len(set(texts)) == made.rows == 30
    assert all(fewest <= len(text) <= most for text in texts)
    assert lengths.max() <= LONGEST_ROW_TOKENS
    assert made.tokens == lengths.sum()
    assert made.characters == sum(map(len, texts))
    assert str(ROOT) not in json.dumps(made.summary())


def test_same_seed_gives_the_same_rows(tmp_path: Path, tiny_bundle: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    files = [built("short", tmp_path / str(i), bundle, rows=9, seed=seed).path for i, seed in enumerate((1, 1, 2))]
    texts = [pq.read_table(file)["text"].to_pylist() for file in files]
    assert texts[0] == texts[1] != texts[2]


def test_real_corpus_is_sampled_by_length_and_without_repeats(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "corpora").mkdir()
    fitting = [f"{text} " * (900 // len(text) + 1) for text in sample_texts()[:20] if len(text) < 800]
    corpus = [*fitting, *fitting, "too short", "x" * 2001, None, ""]
    pq.write_table(pa.table({"text": corpus}), tmp_path / "corpora" / SHAPES["long"].file)
    made = built("long", tmp_path / "out", Bundle.load(tiny_bundle), rows=1000, shared=tmp_path)
    texts = pq.read_table(made.path)["text"].to_pylist()
    assert not made.stand_in
    assert 0 < made.rows == len(set(texts))
    assert set(texts) <= set(fitting)


# --- what is measured of the model -----------------------------------------------------------------------------------


class BatchScaled:
    """A network like stock dynamic int8: what it says of a text depends on the batch that the text stands in."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def logits(self, ids: Ints) -> Floats:
        """Round to steps of one scale for the whole batch."""
        logits = self._session.logits(ids)
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
    texts, source = neighbour_texts(tmp_path, Bundle.load(tiny_bundle), 5)
    assert texts == sample_texts()[:5]
    assert source == "nerd_onnx/sample.jsonl"


def test_recorded_scores_count_only_for_as_many_sentences(tiny_bundle: Path) -> None:
    metrics = {"test": {"source": "test.parquet", "bundle": scores(0.7), "original": scores(0.71)}}
    bundle = replace(Bundle.load(tiny_bundle), description={"metrics": metrics})
    assert recorded_scores(bundle, "test", 10) == {"bundle": scores(0.7), "original": scores(0.71)}
    assert recorded_scores(bundle, "test", 11) is None
    assert recorded_scores(bundle, "validation", 10) is None
    assert recorded_scores(Bundle.load(tiny_bundle), "test", 10) is None


def test_bundle_and_checkpoint_are_scored_and_a_planted_f1_is_refused(
    tmp_path: Path, tiny_bundle: Path, checkpoint: Any
) -> None:
    (tmp_path / "few_nerd").mkdir()
    words = [text.split() for text in sample_texts()[:20]]
    tags = [["person-actor" if word[0].isupper() else "O" for word in sentence] for sentence in words]
    table = pa.table({"tokens": words, "ner_tags": tags, "fine_ner_tags": tags})
    pq.write_table(table, tmp_path / "few_nerd" / "validation.parquet")
    bundle = Bundle.load(tiny_bundle)
    first = score_splits(bundle, checkpoint("bert"), tmp_path, lambda _: None)["validation"]
    assert first["sentences"] == 20
    assert first["bundle"]["words"]["f1"] > 0
    assert first["pytorch"]["words"]["f1"] > 0
    assert first["recorded"] is None
    honest = {"bundle": first["bundle"], "original": first["pytorch"]}
    planted = {"bundle": first["bundle"] | {"words": {"f1": first["bundle"]["words"]["f1"] + 0.01}}}
    for record, refused in ((honest, False), (honest | planted, True)):
        described = replace(bundle, description={"metrics": {"validation": record}})
        again = {"accuracy": score_splits(described, None, tmp_path, lambda _: None)}
        assert ("validation: F1 as recorded in the bundle" in failed(again)) == refused


def test_suite_runs_without_shared_data_and_names_no_path(tmp_path: Path, tiny_bundle: Path) -> None:
    options = ["--short", "--rows", "3", "--repeats", "1", "--workload", "short", "--shared", str(tmp_path / "none")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, "--model", str(tiny_bundle), "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'export'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert set(report["speed"]["short"]) == {"nerd_tag", "transformers_pipeline"}
    assert report["speed"]["short"]["transformers_pipeline"]["entities"] == 0
    assert report["workloads"]["short"]["stand_in"]
    assert not any(report["neighbours"]["changed"].values())
    assert report["accuracy"] == {}
    for word in ("speed alone", "stand-ins", "Accuracy was not measured"):
        assert any(word in note for note in report["notes"])
    assert done.stdout.startswith("# nerd-onnx benchmarks, short form")
    for path in (str(tmp_path), str(ROOT), sys.executable):
        assert path not in json.dumps(report) + done.stdout
