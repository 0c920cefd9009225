"""Interleaved rounds and their figures, with invented times."""

from __future__ import annotations

import pytest

from benchmarks.inputs.workloads import Workload
from benchmarks.measurements.measure import fastest, figures, has_run_enough, measure, summary_of
from benchmarks.paths import shown
from tests.benchmarks.helpers import FakeWorker, member, run


def test_figures_are_median_least_greatest_and_their_distance() -> None:
    assert figures([4.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 4.0, "spread": 1.5}
    assert figures([5.0]) == {"median": 5.0, "min": 5.0, "max": 5.0, "spread": 0.0}
    assert figures([0, 0])["spread"] == 0.0


def test_rates_leave_out_the_start() -> None:
    summary = summary_of([run(tagging_s=4.0)], rows=100, tokens=3000)
    assert summary["rows_per_s"]["median"] == 25
    assert summary["tokens_per_s"]["median"] == 750
    assert summary["start_s"]["median"] == 0.5


def test_fastest_setup_wins() -> None:
    assert fastest([{"seconds": 2.0, "setup": 1}, {"seconds": 1.0, "setup": 8}])["setup"] == 8


def test_peers_take_turns_with_their_fastest_setup(workload: Workload) -> None:
    one, two = FakeWorker({1: 2.0, 8: 1.0}), FakeWorker({4: 1.0})
    answer: list[str] = []
    result, left_out = measure(
        [member("one", one), member("two", two)], workload, 2, probe_tokens=1, max_seconds=60, tell=answer.append
    )
    probes = [f"tag short.probe.parquet {size}" for size in (1, 1, 8, 8)]

    assert one.jobs == [*probes, "tag short.parquet 8", "tag short.parquet 8"]
    assert left_out == {}
    assert [line.split()[1] for line in answer if "round" in line] == ["one,", "two,", "one,", "two,"]
    assert [facts["round"] for facts in result["two"]["runs"]] == [0, 1]
    assert result["one"]["setup"] == {"size": 8}
    assert result["one"]["command"] == f"python one {shown(workload.path)} " + shown(
        workload.path.with_name("short.one.parquet")
    )


def test_setups_chosen_before_are_taken_over(workload: Workload) -> None:
    worker = FakeWorker({1: 2.0, 8: 1.0})
    setups = {"one": {"size": 1}}
    result, _ = measure(
        [member("one", worker)], workload, 1, probe_tokens=1, max_seconds=60, setups=setups, tell=lambda _: None
    )
    assert result["one"]["setup"] == {"size": 1}


def test_slow_peers_sit_out_after_three_rounds(workload: Workload) -> None:
    slow, quick = FakeWorker({1: 7.0}), FakeWorker({1: 1.0})
    team = [member("slow", slow), member("quick", quick)]
    result, _ = measure(team, workload, 5, probe_tokens=1, max_seconds=10, tell=lambda _: None)
    assert len(result["slow"]["runs"]) == 3
    assert len(result["quick"]["runs"]) == 5


def test_a_peer_has_run_enough_after_three_rounds_and_its_time() -> None:
    assert not has_run_enough([7.0, 7.0], 10)  # a ratio needs three rounds
    assert not has_run_enough([1.0, 1.0, 1.0], 10)
    assert has_run_enough([1.0, 1.0, 8.0], 10)


def test_peers_that_would_take_far_too_long_are_named(workload: Workload) -> None:
    team = [member("endless", FakeWorker({1: 1000.0}))]
    result, left_out = measure(team, workload, 2, probe_tokens=1, max_seconds=10, tell=lambda _: None)
    assert result == {}
    assert left_out == {"endless": "would take about 2,000 s a run, more than 40 s"}


def test_a_failing_peer_is_named_and_the_others_go_on(workload: Workload) -> None:
    broken, good = FakeWorker({1: 1.0}), FakeWorker({1: 1.0})
    broken.broken = True
    team = [member("broken", broken), member("good", good)]
    result, left_out = measure(team, workload, 2, probe_tokens=1, max_seconds=10, tell=lambda _: None)
    assert list(result) == ["good"]
    assert left_out == {"broken": "worker: no luck"}


def test_output_with_other_rows_is_refused(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = FakeWorker({1: 1.0})
    monkeypatch.setattr(
        "benchmarks.measurements.measure.output_of", lambda w, _: w.path.with_suffix(".probe.fixed.parquet")
    )
    monkeypatch.setattr("tests.benchmarks.helpers.pq.write_table", lambda _table, path: path.write_bytes(SHORT))
    _, left_out = measure([member("one", worker)], workload, 1, probe_tokens=1, max_seconds=10, tell=lambda _: None)
    assert left_out == {"one": "one wrote 1 rows of short, which has 2"}


def _short() -> bytes:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"]}), file)
    return file.getvalue()


SHORT = _short()
