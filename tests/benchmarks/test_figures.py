"""Figures, ratios, checks and the report: pure parts, on planted numbers."""

from __future__ import annotations

import json
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.peers.process import last_json_object, run_process

from benchmarks.__main__ import typed_command
from benchmarks.checks import run_checks
from benchmarks.machine import machine_facts, versions
from benchmarks.measure import figures, interleaved, measure, ratios, summary_of
from benchmarks.paths import ROOT, shown, shown_command
from benchmarks.peers.nerd_tag import NerdTag
from benchmarks.peers.peer import Peer, PeerError, check_output, output_of
from benchmarks.peers.transformers_pipeline import TransformersPipeline, fastest
from benchmarks.report import markdown, write_report
from benchmarks.workloads import Workload
from tests.benchmarks.helpers import LEVELS, Echo, accuracy, failed, full_report, run, scores


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
