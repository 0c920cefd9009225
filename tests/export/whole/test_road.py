"""All steps of a user: train, be killed, resume, export, tag; each command in a process of its own."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nerd_export.cli import export as conversion
from nerd_export.cli import train as training
from tests.support.commands import runner
from tests.support.models import SAMPLE, make_checkpoint

TRAIN = "from nerd_export.cli.train import main; main()"
EXPORT = "from nerd_export.cli.export import main; main()"
NAMES = {"person-other": ["Ada", "Grant", "Reagan", "Carol"], "location-GPE": ["America", "Paris", "London", "Union"]}
FRAMES = ["the army of {} was in {} .", "{} and {} were the people of the state", "in the war {} said : {} !"]


def write_corpus(path: Path, sentences: int, seed: int) -> None:
    """Write seeded sentences in Few-NERD's columns."""
    rng = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(sentences):
            kinds = [rng.choice(list(NAMES)) for _ in range(2)]
            picks = iter([(rng.choice(NAMES[kind]), kind) for kind in kinds])
            pairs = [next(picks) if word == "{}" else (word, "O") for word in rng.choice(FRAMES).split()]
            row = {"tokens": [w for w, _ in pairs], "fine_ner_tags": [t for _, t in pairs]}
            file.write(json.dumps(row) + "\n")


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_train_killed_resumed_exported_tagged(family: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "base", family, None)
    (tmp_path / "data").mkdir()
    write_corpus(tmp_path / "data" / "train.jsonl", 400, seed=1)
    write_corpus(tmp_path / "data" / "validation.jsonl", 40, seed=2)
    train = ["--model", tmp_path / "base", "--dataset", tmp_path / "data", "--level", "fine", "--epochs", 3]
    train += ["--learning-rate", 3e-3, "--save-steps", 4, "--output", tmp_path / "run"]

    victim = subprocess.Popen([sys.executable, "-c", TRAIN, *map(str, train)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "run" / "checkpoints").glob("checkpoint-*/trainer_state.json")):
        assert victim.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    assert not (tmp_path / "run" / "config.json").exists()

    refused = run(TRAIN, *train)
    assert refused.returncode == 1
    assert "--resume" in refused.stderr
    assert "Traceback" not in refused.stderr
    other = run(TRAIN, *train, "--resume", "--seed", 7)
    assert other.returncode == 1
    assert "seed" in other.stderr
    resumed = run(TRAIN, *train, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    record = json.loads((tmp_path / "run" / "training.json").read_text("utf-8"))
    assert [row["epoch"] for row in record["table"]] == [1.0, 2.0, 3.0]
    assert record["table"][-1]["step"] == 75
    assert record["best"]["f1"] == max(row["f1"] for row in record["table"])
    assert record["best"]["f1"] > 0.9
    assert "| Training loss | Epoch | Step |" in resumed.stdout
    assert "base_model" in (tmp_path / "run" / "README.md").read_text("utf-8")

    labelled = f"validation={tmp_path / 'data' / 'validation.jsonl'}"
    limits = ["--min-agreement", 0.9, "--max-labels-changed", 0.05]
    exported = run(
        EXPORT, "--model", tmp_path / "run", "--output", tmp_path / "bundle", "--evaluate", labelled, *limits
    )
    assert exported.returncode == 0, exported.stderr
    metrics = json.loads((tmp_path / "bundle" / "nerd.json").read_text("utf-8"))["metrics"]["validation"]
    assert metrics["original"]["fine_words"]["f1"] == pytest.approx(record["best"]["f1"], abs=0.02)
    assert metrics["bundle"]["fine_words"]["f1"] > 0.9

    tagged = run(
        "from nerd_onnx.cli.tag import main; main()", SAMPLE, tmp_path / "out.parquet", "--model", tmp_path / "bundle"
    )
    assert tagged.returncode == 0, tagged.stderr
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.num_rows == len(SAMPLE.read_text("utf-8").splitlines())
    entities = [e for row in table["entities"].to_pylist() for e in row]
    assert {e["label"] for e in entities} <= {"person", "location"}
    assert {e["fine_label"] for e in entities} <= set(NAMES)
    assert len(entities) > 50


def test_without_the_extra_each_command_names_it(tmp_path: Path) -> None:
    hide = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'optimum'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    for code, arguments in ((TRAIN, ()), (EXPORT, ("--model", "x"))):
        done = run(hide + code, *arguments, "--output", tmp_path / "x")
        assert done.returncode == 1
        assert done.stderr.strip().count("\n") == 0
        assert "pip install 'nerd-onnx[export]'" in done.stderr


def test_mistakes_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    nerd_train = runner("nerd-train", training.main, monkeypatch, capfd)
    nerd_export = runner("nerd-export", conversion.main, monkeypatch, capfd)
    for command, arguments, message in (
        (nerd_train, ["--model", tmp_path, "--dataset", tmp_path, "--output", tmp_path / "o"], f"{tmp_path}: "),
        (
            nerd_export,
            ["--model", tmp_path / "gone", "--output", tmp_path / "o"],
            f"{tmp_path / 'gone'}: ",
        ),
        (nerd_export, ["--model", tmp_path, "--output", tmp_path / "o", "--evaluate", "x"], "NAME=FILE"),
    ):
        code, _, err = command(*arguments)
        assert code in (1, 2)
        assert message in err
        assert "Traceback" not in err
    assert not (tmp_path / "o").exists()
