"""What can be said of --engine without one: who works, what is refused, how the model travels."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nerd_onnx.durability.work_folder import WorkFolder
from nerd_onnx.engines import worker
from nerd_onnx.engines.choice import EngineChoice
from nerd_onnx.engines.model_archive import WorkerModel, for_workers
from nerd_onnx.errors import BusyError, InterruptedRunError, ModelError, NerdError, OptionError
from nerd_onnx.inference.bundle import DEFAULT_FOLDER, Bundle
from nerd_onnx.storage.location import Location
from nerd_onnx.tagger import TagOptions
from nerd_onnx.tagging.job import TagJob, TagReport
from tests.support.commands import Run
from tests.support.failures import assert_failure, fails, failure_of
from tests.support.models import SAMPLE
from tests.support.processes import work_folder
from tests.support.runs import texts, write_lines


@pytest.mark.parametrize(
    ("arguments", "reason", "option"),
    [
        (["-", "-"], "engine-needs-files", "--engine"),
        ([SAMPLE, "out.parquet", "--on-error", "null", "--rejects", "r.jsonl"], "needs-local-engine", "--rejects"),
        ([SAMPLE, "out.parquet", "--on-error", "null", "--max-errors", 3], "needs-local-engine", "--max-errors"),
        ([SAMPLE, "out.parquet", "--retry-rejects", "r.jsonl"], "needs-local-engine", "--retry-rejects"),
    ],
)
def test_what_an_engine_cannot_honour_is_refused(
    arguments: list[Any], reason: str, option: str, nerd_tag: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = nerd_tag("--engine", "ray", "--json", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    failure = failure_of(err)
    assert (failure["reason"], failure["option"]) == (reason, option)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [["--workers", "2"], ["--engine-address", "here"], ["--no-ship-model"]])
def test_options_of_engines_need_one(option: list[str], nerd_tag: Run, tmp_path: Path) -> None:
    code, _, err = nerd_tag(SAMPLE, tmp_path / "out.parquet", "--json", *option)
    assert code == 2
    assert failure_of(err)["reason"] == "needs-engine"


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("spark", "pyspark")])
def test_a_missing_engine_is_one_line(
    engine: str, package: str, nerd_tag: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = nerd_tag("--engine", engine, SAMPLE, tmp_path / "out.parquet")
    assert (code, err.count("\n")) == (1, 1)
    assert f"pip install 'nerd-onnx[{engine}]'" in err


@pytest.mark.parametrize(
    ("asked", "files", "cpus", "node_cpus", "threads", "expected"),
    [
        (None, 100, 8, 4, None, (8, 1)),  # a processor each
        (None, 3, 8, 4, None, (3, 2)),  # fewer files: more processors each
        (None, 1, 8, 4, None, (1, 4)),  # but not more than one machine has
        (2, 100, 8, 8, None, (2, 4)),
        (None, 100, 8, 4, 3, (2, 3)),
        (None, 100, 2, 2, 16, (1, 16)),  # the engine will say that it has no such machine
        (9, 2, 8, 8, 1, (2, 1)),
    ],
)
def test_workers_and_their_processors(
    asked: int | None, files: int, cpus: int, node_cpus: int, threads: int | None, expected: tuple[int, int]
) -> None:
    assert EngineChoice("ray", asked).sizes(files, cpus, node_cpus, threads) == expected


def test_a_packed_model_is_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for name in ("one", "other"):
        shutil.copytree(DEFAULT_FOLDER, tmp_path / name)
        (tmp_path / name / f"{name}.txt").write_text("not of the model")
    (one, archive), (other, _) = (for_workers(Bundle.load(tmp_path / name), ship=True) for name in ("one", "other"))
    assert one == other  # what is in a folder counts, not its name
    shutil.rmtree(tmp_path / "one")
    folder = one.folder(lambda: archive)
    assert Bundle.load(folder).model_sha256 == Bundle.load().model_sha256

    assert one.folder(pytest.fail) == folder  # it is there
    (Path(str(folder)) / "tokenizer.json").write_text("cut")  # a worker was killed while it unpacked
    assert Bundle.load(one.folder(lambda: archive)).labels == Bundle.load().labels


def test_plain_folders_travel_with_their_outside_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plain = tmp_path / "plain"
    (plain / "onnx").mkdir(parents=True)
    (plain / "config.json").write_text(json.dumps({"id2label": {"0": "O", "1": "B-x"}}))
    for name in ("tokenizer.json", "onnx/model.onnx", "onnx/model.onnx_data", "model.safetensors", "README.md"):
        (plain / name).write_text(name)
    model, archive = for_workers(Bundle.load(plain), ship=True)
    assert [name for name, _ in model.files] == [
        *("config.json", "tokenizer.json", "onnx/model.onnx", "onnx/model.onnx_data")
    ]
    folder = Path(str(model.folder(lambda: archive)))
    assert Bundle.load(folder).model_sha256 == Bundle.load(plain).model_sha256


def test_the_model_inside_and_one_on_shared_storage_stay_where_they_are(tmp_path: Path) -> None:
    own = Bundle.load()
    assert for_workers(own, ship=True) == (WorkerModel(fingerprint=own.fingerprint), b"")
    place = str(shutil.copytree(DEFAULT_FOLDER, tmp_path / "model"))
    copy = Bundle.load(place)
    assert for_workers(copy, ship=False) == (WorkerModel(place, fingerprint=own.fingerprint), b"")


def test_a_worker_with_another_model_refuses_to_tag(tiny_bundle: Path) -> None:
    model, _ = for_workers(Bundle.load(), ship=False)
    with fails(ModelError, "other-model-on-worker", expected=model.fingerprint):
        worker.process_tagger(replace(model, place=str(tiny_bundle)), TagOptions(threads=1), pytest.fail)


def test_a_process_loads_a_model_once() -> None:
    options = TagOptions(threads=1)
    tagger = worker.process_tagger(WorkerModel(), options, pytest.fail)
    assert worker.process_tagger(WorkerModel(), TagOptions(threads=1), pytest.fail) is tagger
    assert worker.process_tagger(WorkerModel(), TagOptions(threads=1, min_score=0.5), pytest.fail) is not tagger


def _hold(output: str, held: Any, seconds: float) -> None:
    with WorkFolder(Location(output), many=False):
        held.set()
        time.sleep(seconds)
        os._exit(0)


@pytest.mark.slow
def test_a_worker_waits_for_an_attempt_that_is_still_dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = str(tmp_path / "out.jsonl")
    tasks = worker.FileTasks(WorkerModel(), TagOptions(threads=1), [TagJob([str(SAMPLE)], output, resume=True)])
    spawn = multiprocessing.get_context("spawn")
    held = spawn.Event()
    other = spawn.Process(target=_hold, args=(output, held, 2))
    other.start()
    assert held.wait(30)
    monkeypatch.setattr(worker, "_BUSY_S", 0)
    assert isinstance(tasks.run(0, pytest.fail).error, BusyError)
    monkeypatch.setattr(worker, "_BUSY_S", 60)
    outcome = tasks.run(0, pytest.fail)
    other.join()
    assert outcome.error is None
    assert outcome.report.files == 1
    assert Path(output).is_file()


def _tag_and_tell(tasks: worker.FileTasks, told: str) -> None:
    Path(f"{told}.part").write_text(tasks.run(0, pytest.fail).to_json())
    Path(f"{told}.part").rename(told)


def _abandon(tasks: worker.FileTasks, told: str, journal: Path) -> None:
    multiprocessing.get_context("spawn").Process(target=_tag_and_tell, args=(tasks, told)).start()
    while not journal.is_file() or b'"chunk"' not in journal.read_bytes():
        time.sleep(0.01)
    os._exit(0)


@pytest.mark.slow
def test_a_worker_whose_engine_died_stops_and_another_goes_on(tmp_path: Path) -> None:
    source, output = write_lines(tmp_path / "in.jsonl", texts(600)), tmp_path / "out.jsonl"
    job = TagJob([str(source)], str(output), resume=True, chunk_rows=50)
    tasks = worker.FileTasks(WorkerModel(), TagOptions(threads=1), [job])
    told = tmp_path / "told.json"
    journal = work_folder(output) / "journal.jsonl"
    engine = multiprocessing.get_context("spawn").Process(target=_abandon, args=(tasks, str(told), journal))
    engine.start()
    engine.join()
    outcome = tasks.run(0, pytest.fail)  # waits for it
    while not told.is_file():
        time.sleep(0.01)
    assert isinstance(worker.Outcome.from_json(told.read_text()).error, InterruptedRunError)
    assert outcome.error is None
    assert 50 <= outcome.report.resumed_rows < outcome.report.rows == 600


def test_mistakes_of_a_file_are_told_and_not_raised(tmp_path: Path) -> None:
    """An engine would try again what can only fail again."""
    tasks = worker.FileTasks(
        WorkerModel(), TagOptions(threads=1), [TagJob([str(tmp_path / "no")], str(tmp_path / "o"))]
    )
    error = tasks.run(0, pytest.fail).error
    assert isinstance(error, NerdError)
    assert_failure(error, "missing-file", file=tmp_path / "no")
    with pytest.raises(OptionError):
        EngineChoice("local", workers=2)


@pytest.mark.parametrize(
    "error", [None, BusyError("a: is busy\nsecond line", reason="busy", file="a", row=3), OptionError("x", reason="y")]
)
def test_what_came_of_a_file_travels_as_text(error: NerdError | None) -> None:
    outcome = worker.Outcome(TagReport(rows=3, written=2, rejected=1, seconds=0.5), error, 7)
    back = worker.Outcome.from_json(outcome.to_json())
    assert (back.report, back.peak_rss_bytes) == (outcome.report, 7)
    assert type(back.error) is type(error)
    assert str(back.error) == str(error)
    assert getattr(back.error, "reason", None) == getattr(error, "reason", None)
    assert getattr(back.error, "fields", None) == getattr(error, "fields", None)
    assert getattr(back.error, "exit_code", 0) == getattr(error, "exit_code", 0)
