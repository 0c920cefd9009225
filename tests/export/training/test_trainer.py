"""What a training run keeps, resumes, refuses and reports."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nerd_export.config import TrainConfig
from nerd_export.data.checks import Sentence
from nerd_export.data.training_data import TrainingData
from nerd_export.training.card import write_card
from nerd_export.training.trainer import claim_work_folder, epoch_table, keep_best, train
from nerd_onnx import __version__
from nerd_onnx.errors import OutputError
from nerd_onnx.inference.labels import LabelSet
from tests.support.failures import fails
from tests.support.models import make_checkpoint

SENTENCES = (Sentence(("Ada", "met", "Bob"), ("person", "O", "person")), Sentence(("Rome",), ("O",)))
DATA = TrainingData(SENTENCES, SENTENCES[:1], LabelSet(("O", "person")), "a.jsonl", "b.jsonl")
RECIPE = asdict(TrainConfig()) | DATA.facts()


def evaluations(*f1: float) -> list[dict[str, Any]]:
    same = {"eval_loss": 1.0, "eval_precision": 0.5, "eval_recall": 0.5, "eval_accuracy": 0.5}
    return [{**same, "eval_f1": value, "epoch": float(i), "step": i} for i, value in enumerate(f1, 1)]


@pytest.mark.parametrize(
    ("f1", "expected"), [((0.5, 0.5), 1), ((0.5, 0.6, 0.6, 0.4), 2), ((0.0, 0.0), 1), ((0.1, 0.2), 2)]
)
def test_the_card_names_the_epoch_whose_weights_are_kept(tmp_path: Path, f1: tuple[float, ...], expected: int) -> None:
    callback = keep_best(tmp_path / "best")
    log: list[dict[str, Any]] = []

    def save(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "step").write_text(str(len(log)))

    saver = SimpleNamespace(save_pretrained=save)
    for entry in evaluations(*f1):
        log.append(entry)
        callback.on_evaluate(None, SimpleNamespace(log_history=log), None, model=saver, processing_class=saver)
    (tmp_path / "config.json").write_text("{}")
    write_card(tmp_path, TrainConfig(), DATA, epoch_table(log), "nerd-train")
    named = json.loads((tmp_path / "training.json").read_text("utf-8"))["best"]["step"]
    assert named == int((tmp_path / "best" / "step").read_text()) == expected


def test_the_card_says_when_it_began_with_the_model_inside(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for model, front, base in (
        ("default", "---\nlibrary_name", f"from the default model of nerd-onnx {__version__} on"),
        ("owner/bert", '---\nbase_model: "owner/bert"\nlibrary_name', "from `owner/bert` on"),
    ):
        write_card(tmp_path, TrainConfig(model=model), DATA, epoch_table(evaluations(0.5)), "nerd-train")
        card = (tmp_path / "README.md").read_text("utf-8")
        assert card.startswith(front)
        assert base in card


@pytest.mark.parametrize(
    ("other", "changed"),
    [
        (replace(DATA, train_source="c.jsonl"), "train_source"),
        (replace(DATA, validation=SENTENCES), "validation_sentences, validation_sha256"),
        (replace(DATA, train=(SENTENCES[0], Sentence(("Oslo",), ("O",)))), "train_sha256"),
        (replace(DATA, train=(SENTENCES[0], Sentence(("Rome",), ("person",)))), "train_sha256"),
        (replace(DATA, labels=LabelSet(("O", "person", "x"))), "labels"),
        (replace(DATA, unlabelled=("Rome fell.",)), "unlabelled_sha256"),
        (replace(DATA, unlabelled_source="u.jsonl"), "unlabelled_source"),
    ],
)
def test_a_run_is_not_resumed_with_other_data(tmp_path: Path, other: TrainingData, changed: str) -> None:
    work = tmp_path / "checkpoints"
    claim_work_folder(work, RECIPE, resume=False, overwrite=False)
    (work / "checkpoint-5").mkdir()
    claim_work_folder(work, RECIPE, resume=True, overwrite=False)
    with fails(OutputError, "run-changed", file=work, changed=changed):
        claim_work_folder(work, asdict(TrainConfig()) | other.facts(), resume=True, overwrite=False)
    with fails(OutputError, "run-changed", changed="seed"):
        claim_work_folder(work, RECIPE | {"seed": 7}, resume=True, overwrite=False)
    former = {key: value for key, value in RECIPE.items() if key not in ("letter_case", "upper_share")}
    (work / "recipe.json").write_text(json.dumps(former))  # begun before there were these options
    claim_work_folder(work, RECIPE, resume=True, overwrite=False)
    with fails(OutputError, "run-changed", changed="letter_case"):
        claim_work_folder(work, RECIPE | {"letter_case": True}, resume=True, overwrite=False)
    (work / "recipe.json").write_text(json.dumps(RECIPE | {"teacher": None}))  # an option that there no longer is
    claim_work_folder(work, RECIPE, resume=True, overwrite=False)
    (work / "recipe.json").write_text(json.dumps(RECIPE | {"teacher": "x"}))
    with fails(OutputError, "run-changed", changed="teacher"):
        claim_work_folder(work, RECIPE, resume=True, overwrite=False)
    assert (work / "checkpoint-5").is_dir()


def test_a_run_is_not_resumed_with_another_teacher(tmp_path: Path) -> None:
    """The teacher's folder has the same name, but one of its files is another one."""
    make_checkpoint(tmp_path / "base", "bert", None)
    teacher = make_checkpoint(tmp_path / "teacher", "bert", ("O", "person"))
    config = TrainConfig(model=str(tmp_path / "base"), teachers=(str(teacher),), max_tokens=22, epochs=1)
    work = tmp_path / "run" / "checkpoints"
    train(config, DATA, tmp_path / "run", resume=False, overwrite=False, note=lambda _: None)
    before = json.loads((work / "recipe.json").read_text())["teachers_sha256"]
    make_checkpoint(teacher, "bert", ("O", "person"), seed=7)
    with fails(OutputError, "run-changed", changed="teachers_sha256"):
        train(config, DATA, tmp_path / "run", resume=True, overwrite=False, note=lambda _: None)
    assert json.loads((work / "recipe.json").read_text())["teachers_sha256"] == before


@pytest.mark.parametrize("recipe", [None, "", '{"seed": ', "[1]"])
def test_only_overwrite_deletes(tmp_path: Path, recipe: str | None) -> None:
    work = tmp_path / "checkpoints"
    (work / "checkpoint-5").mkdir(parents=True)
    if recipe is not None:
        (work / "recipe.json").write_text(recipe)
    with fails(OutputError, "no-recipe", file=work, found="checkpoint-5"):
        claim_work_folder(work, RECIPE, resume=True, overwrite=False)
    with fails(OutputError, "folder-not-empty", file=work):
        claim_work_folder(work, RECIPE, resume=False, overwrite=False)
    assert (work / "checkpoint-5").is_dir()
    claim_work_folder(work, RECIPE, resume=False, overwrite=True)
    assert [path.name for path in work.iterdir()] == ["recipe.json"]


@pytest.mark.parametrize("before", ["nothing", "an empty folder", "a recipe cut off"])
def test_resume_just_starts_where_nothing_is(tmp_path: Path, before: str) -> None:
    work = tmp_path / "run" / "checkpoints"
    if before != "nothing":
        work.mkdir(parents=True)
    if before == "a recipe cut off":
        (work / "recipe.json").write_text('{"se')
    claim_work_folder(work, RECIPE, resume=True, overwrite=False)
    assert json.loads((work / "recipe.json").read_text("utf-8"))["labels"] == ["O", "person"]


def test_resume_leaves_a_folder_alone_that_holds_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with fails(OutputError, "no-recipe", found="thesis.txt"):
        claim_work_folder(tmp_path / "checkpoints", RECIPE, resume=True, overwrite=False)


def test_words_that_no_score_counts_are_told(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "base", "bert", None)
    long = Sentence(("the",) * 30, ("O",) * 30)
    data = replace(DATA, validation=(*SENTENCES, long))
    config = TrainConfig(model=str(tmp_path / "base"), max_tokens=22, epochs=1)
    notes: list[str] = []
    train(config, data, tmp_path / "run", resume=False, overwrite=False, note=notes.append)
    assert notes == ["10 validation word(s) are after the first 22 tokens or have no piece; scores leave them out"]
