"""The benchmarks: what is drawn from runs, what is refused, what is written. Nothing here is judged by time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.__main__ import typed_command
from benchmarks.accuracy import neighbour_texts, recorded_scores, score_splits
from benchmarks.checks import run_checks
from benchmarks.machine import machine_facts, versions
from benchmarks.measure import figures, interleaved, measure, ratios, summary_of
from benchmarks.neighbours import neighbour_check
from benchmarks.paths import ROOT, shown, shown_command
from benchmarks.peers.nerd_tag import NerdTag
from benchmarks.peers.peer import Peer, PeerError, PeerRun, check_output, output_of
from benchmarks.peers.process import last_json_object, run_process
from benchmarks.peers.transformers_pipeline import TransformersPipeline, fastest
from benchmarks.report import markdown, write_report
from benchmarks.workloads import LONGEST_ROW_TOKENS, SHAPES, Workload, build_workload
from nerd_export.conversion.verify import sample_texts
from nerd_onnx.inference.arrays import Floats, Ints
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.encoding import TextEncoder
from nerd_onnx.inference.session import Session

LEVELS = ("words", "fine_words", "raw", "fine_raw")


def scores(f1: float, **others: float) -> dict[str, Any]:
    return {"sentences": 10} | {level: {"f1": others.get(level, f1)} for level in LEVELS}


def accuracy(bundle: dict[str, Any], recorded: float | None = 0.7, pytorch: float | None = None) -> dict[str, Any]:
    split = {
        "file": "../shared/data/few_nerd/test.parquet",
        "sentences": 10,
        "bundle": bundle,
        "pytorch": None if pytorch is None else scores(pytorch),
        "recorded": None if recorded is None else {"bundle": scores(recorded), "original": scores(0.701)},
    }
    return {"accuracy": {"test": split}}


def run(tagging_s: float, wall_s: float = 10.0) -> PeerRun:
    return PeerRun(wall_s, tagging_s, load_s=0.5, cpu_s=3.0, peak_rss_bytes=200_000_000, entities=7)


def failed(report: dict[str, Any]) -> list[str]:
    return [check.name for check in run_checks(report) if not check.passed]


def full_report() -> dict[str, Any]:
    speed = {
        "nerd_tag": {"command": "python -m nerd_onnx.cli", "setup": {}, **summary_of([run(1.0), run(2.0)], 100, 3000)},
        "transformers_pipeline": {
            "command": "python benchmarks/scripts/transformers_pipeline.py",
            "setup": {"batch_size": 8, "probe_rows": 9, "probe_rows_per_s": {"1": 8.0, "8": 9.0}},
            **summary_of([run(8.0, 20.0), run(10.0, 20.0)], 100, 3000),
        },
    }
    report = {
        "form": "short",
        "command": "python -m benchmarks --short",
        "started": "2026-01-01T00:00:00+00:00",
        "commit": "abc1234",
        "machine": machine_facts(),
        "versions": versions(),
        "model": {"bundle": "b", "quantization": "none", "size_bytes": 5_000_000, "labels": 9, "checkpoint": "c"},
        "notes": ["something to know."],
        "skipped_peers": {"other": "not installed"},
        "workloads": {"short": {"rows": 100, "tokens": 3000, "characters": 9000, "source": "a corpus"}},
        "speed": {"short": speed},
        "ratios": {"short": ratios(speed, "nerd_tag")},
        "neighbours": {"source": "a file", "texts": 300, "entities": 400, "changed": {"alone": 0, "shuffled": 0}},
        **accuracy(scores(0.7001), pytorch=0.702),
    }
    return report | {"checks": [vars(check) for check in run_checks(report)]}


class Echo:
    """A peer that only remembers when it was called."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self._calls = name, calls

    def available(self) -> str | None:
        """Can always run."""
        return None

    def prepare(self, workload: Workload) -> dict[str, Any]:
        """Remember the call."""
        self._calls.append(f"prepare {self.name} for {workload.name}")
        return {"size": 3}

    def command(self, workload: Workload) -> list[str | Path]:
        """Give a command that nobody runs."""
        return [sys.executable, self.name, workload.path]

    def run(self, workload: Workload) -> PeerRun:
        """Remember the call; each takes longer than the one before."""
        self._calls.append(f"{self.name} {workload.name}")
        return run(float(len(self._calls)))


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    path = tmp_path / "short.parquet"
    pq.write_table(pa.table({"text": ["a", "b"]}), path)
    return Workload("short", path, rows=2, characters=2, tokens=2, source="here", stand_in=True)


# --- measuring -----------------------------------------------------------------------------------------------------


def test_figures_are_median_least_greatest_and_their_distance() -> None:
    assert figures([4.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 4.0, "spread": 1.5}
    assert figures([5.0]) == {"median": 5.0, "min": 5.0, "max": 5.0, "spread": 0.0}
    assert figures([0, 0])["spread"] == 0.0


def test_peers_take_turns() -> None:
    peers: list[Peer] = [NerdTag(None), TransformersPipeline(None, threads=1, probe_tokens=1)]
    order = [(repeat, peer.name) for repeat, peer in interleaved(peers, 2)]
    assert order == [
        (0, "nerd_tag"),
        (0, "transformers_pipeline"),
        (1, "nerd_tag"),
        (1, "transformers_pipeline"),
    ]


def test_measure_prepares_every_peer_before_the_first_run(workload: Workload) -> None:
    calls: list[str] = []
    said: list[str] = []
    result = measure([Echo("a", calls), Echo("b", calls)], workload, 2, said.append)
    assert calls == ["prepare a for short", "prepare b for short", "a short", "b short", "a short", "b short"]
    assert [facts["tagging_s"] for facts in result["a"]["runs"]] == [3.0, 5.0]
    assert result["a"]["rows_per_s"]["max"] == pytest.approx(2 / 3)
    assert result["b"]["command"] == f"python b {shown(workload.path)}"
    assert result["b"]["setup"] == {"size": 3}
    assert len(said) == 6


def test_rates_leave_out_the_start() -> None:
    summary = summary_of([run(tagging_s=4.0, wall_s=10.0)], rows=100, tokens=3000)
    assert summary["rows_per_s"]["median"] == 25
    assert summary["tokens_per_s"]["median"] == 750
    assert summary["start_s"]["median"] == 6.0


def test_ratios_compare_medians_and_neighbouring_runs() -> None:
    speed = {"own": summary_of([run(1.0), run(2.0)], 1, 1), "peer": summary_of([run(8.0, 30.0), run(10.0, 30.0)], 1, 1)}
    assert ratios(speed, "own") == {"peer": {"tagging": 6.0, "tagging_min": 5.0, "tagging_max": 8.0, "whole": 3.0}}


def test_fastest_batch_size_wins() -> None:
    assert fastest({1: 10.0, 8: 30.0, 32: 20.0}) == 8


def test_pipeline_without_weights_is_skipped_with_a_word() -> None:
    reason = TransformersPipeline(None, threads=1, probe_tokens=1).available()
    assert reason is not None
    assert "--checkpoint" in reason


# --- processes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}\nnoise', {"a": 1}),
        ('{"a": 1}\n{"a": 2}\n', {"a": 2}),
        ('{"a": 1}\n{broken', {"a": 1}),
        ("no object\n[1]", None),
        ("", None),
    ],
)
def test_last_json_object(text: str, expected: dict[str, Any] | None) -> None:
    assert last_json_object(text) == expected


def test_process_is_measured_without_the_memory_of_this_one(tmp_path: Path) -> None:
    ballast = os.urandom(1) * (300 << 20)
    done = run_process([sys.executable, "-c", "print('{\"entities\": 3}')"], tmp_path)
    assert done.message == {"entities": 3}
    assert 0 < done.peak_rss_bytes < len(ballast)
    assert done.wall_s > 0
    assert done.cpu_s > 0


def test_failing_process_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"exit code 3\nbad luck"):
        run_process([sys.executable, "-c", "import sys; print('bad luck', file=sys.stderr); sys.exit(3)"], tmp_path)
    with pytest.raises(PeerError, match="no JSON object"):
        run_process([sys.executable, "-c", "print('hello')"], tmp_path)


def test_output_with_other_rows_is_refused(workload: Workload) -> None:
    pq.write_table(pa.table({"text": ["a"]}), output_of(workload, "peer"))
    with pytest.raises(PeerError, match="wrote 1 rows of short, which has 2"):
        check_output(workload, "peer")


# --- names without this machine's paths ------------------------------------------------------------------------------


def test_paths_are_shown_from_the_repository() -> None:
    assert shown(ROOT / "benchmarks" / "out") == "benchmarks/out"
    assert shown(ROOT.parent / "shared" / "data") == "../shared/data"
    assert shown("/somewhere/else/model") == "model"


def test_commands_are_shown_as_typed() -> None:
    assert shown_command([sys.executable, "-m", "x", ROOT / "a.parquet"]) == "python -m x a.parquet"
    assert (
        typed_command(["--model", "/x/m", "--out=/x/o", "--short"]) == "python -m benchmarks --model m --out=o --short"
    )


# --- checks ----------------------------------------------------------------------------------------------------------


def test_good_figures_pass() -> None:
    report = full_report()
    assert len(report["checks"]) == 5
    assert failed(report) == []


def test_what_was_not_measured_is_not_judged() -> None:
    assert run_checks({}) == []
    assert run_checks(accuracy(scores(0.7), recorded=None)) == []


@pytest.mark.parametrize("level", LEVELS)
def test_f1_other_than_recorded_is_refused_on_every_level(level: str) -> None:
    wrong = accuracy(scores(0.7, **{level: 0.7031}))
    assert failed(wrong) == ["test: F1 as recorded in the bundle"]
    assert failed(accuracy(scores(0.7, **{level: 0.703}))) == []


def test_f1_that_is_no_number_is_refused() -> None:
    assert failed(accuracy(scores(float("nan"))))


def test_loss_against_pytorch_is_refused() -> None:
    assert failed(accuracy(scores(0.7), pytorch=0.7031)) == ["test: F1 against PyTorch"]
    assert failed(accuracy(scores(0.6979))) == ["test: F1 against PyTorch"]  # recorded: 0.701
    assert failed(accuracy(scores(0.7), recorded=None, pytorch=0.65)) == []


def test_checkpoint_other_than_the_recorded_original_is_refused() -> None:
    assert failed(accuracy(scores(0.7), pytorch=0.65)) == ["test: F1 of PyTorch as recorded"]


def test_text_changed_by_its_neighbours_is_refused() -> None:
    neighbours = {"texts": 300, "changed": {"alone": 0, "shuffled": 1}}
    (check,) = run_checks({"neighbours": neighbours})
    assert not check.passed
    assert check.detail == "300 texts, changed shuffled: 1"


@pytest.mark.parametrize(("ratio", "passed"), [(1.99, False), (2.0, True), (9.0, True)])
def test_gross_fall_in_speed_is_refused(ratio: float, *, passed: bool) -> None:
    report = {"ratios": {"short": {"transformers_pipeline": {"tagging": ratio}}}}
    assert [check.passed for check in run_checks(report)] == [passed]


# --- the report ------------------------------------------------------------------------------------------------------


def test_markdown_holds_every_figure() -> None:
    text = markdown(full_report())
    for part in (
        "| nerd_tag | 75.0 (50.0 to 100.0) | 2,250 (1,500 to 3,000) | 67% |",
        "| transformers_pipeline, batch size 8 | 11.2 (10.0 to 12.5) |",
        "**6.00x** (5.00 to 8.00), whole process 2.00x",
        "| given words, coarse | 0.7001 | 0.7000 | 0.7020 | 0.7010 |",
        "| shuffled | 0 |",
        "| one text, one answer | passed |",
        "Batch sizes of transformers_pipeline, on the first 9 rows: 1: 8.0 rows/s, 8: 9.0 rows/s.",
        "- something to know.",
        "- other did not run: not installed.",
        "python -m nerd_onnx.cli\n",
    ):
        assert part in text


def test_markdown_tables_are_even() -> None:
    lines = markdown(full_report()).splitlines()
    for before, line in pairwise(lines):
        if before.startswith("|") and line.startswith("|"):
            assert before.count("|") == line.count("|")


def test_failed_check_stands_out() -> None:
    report = full_report() | accuracy(scores(0.5))
    report["checks"] = [vars(check) for check in run_checks(report)]
    assert "| test: F1 as recorded in the bundle | **failed** | 0.5000, recorded 0.7000" in markdown(report)


def test_parts_not_measured_are_left_out() -> None:
    report = {k: v for k, v in full_report().items() if k not in ("speed", "ratios", "neighbours", "accuracy")}
    text = markdown(report)
    assert "## Speed" not in text
    assert "## Entity F1" not in text
    assert "## Machine" in text


def test_report_is_written_as_data_and_as_text(tmp_path: Path) -> None:
    report = full_report()
    text = write_report(report, tmp_path / "new" / "folder")
    assert json.loads((tmp_path / "new/folder/report.json").read_text("utf-8")) == report
    assert (tmp_path / "new/folder/report.md").read_text("utf-8") == text


def test_machine_facts_hold_no_path() -> None:
    assert str(ROOT) not in json.dumps([machine_facts(), versions()])


# --- workloads -------------------------------------------------------------------------------------------------------


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
