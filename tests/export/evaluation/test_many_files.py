"""nerd-eval on folders, on files that are labelled for some types, and on files without entities."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nerd_export.cli.eval import eval_command
from nerd_export.data.checks import Sentence
from nerd_export.scoring.evaluation import evaluate
from nerd_onnx.errors import NerdError, TrainingDataError
from nerd_onnx.tagger import Tagger
from tests.support.failures import fails

MERKEL = {
    "tokens": ["Angela", "Merkel", "met", "Barack", "Obama", "in", "Berlin", "."],
    "ner_tags": ["B-person", "I-person", "O", "B-person", "I-person", "O", "B-location", "O"],
}
NOTHING = {"tokens": ["Nothing", "is", "named", "here", "at", "all", "."], "ner_tags": ["O"] * 7}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def report(*arguments: object) -> tuple[dict[str, Any], str]:
    """Run nerd-eval, and return its JSON and its text."""
    output = Path(str(arguments[0])).parent / "report"
    done = CliRunner().invoke(eval_command, [*map(str, arguments), "--output", str(output)], standalone_mode=False)
    if isinstance(done.exception, NerdError):
        raise done.exception
    assert done.exception is None, done.output
    found: dict[str, Any] = json.loads((output / "eval.json").read_text("utf-8"))["model"]
    return found, done.output


def test_a_folder_is_scored_by_file_and_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    folder.mkdir()
    write(folder / "b.jsonl", MERKEL)
    write(folder / "a.jsonl", {**MERKEL, "ner_tags": ["B-person", "I-person", *["O"] * 6]})
    write(folder / "none.jsonl", NOTHING)
    (folder / "notes.md").write_text("not data")
    found, text = report(folder)
    assert [one["file"] for one in found["files"]] == ["a.jsonl", "b.jsonl", "none.jsonl"]
    assert "1 other file(s) left out: notes.md" in text

    counts = {one["file"]: one["views"]["raw"] for one in found["files"]}
    right = {name: view["recall"] * view["expected"] for name, view in counts.items()}
    micro, macro = (found["all_files"]["raw"][kind] for kind in ("micro", "macro"))
    assert micro["recall"] == pytest.approx(sum(right.values()) / 4, abs=1e-4)
    assert macro["f1"] == pytest.approx((counts["a.jsonl"]["f1"] + counts["b.jsonl"]["f1"]) / 2, abs=1e-4)


def test_a_file_without_entities_shows_false_alarms(tmp_path: Path) -> None:
    file = write(tmp_path / "none.jsonl", NOTHING, {"tokens": ["Angela", "Merkel", "spoke"], "ner_tags": ["O"] * 3})
    found, _ = report(file)
    assert found["files"][0]["without_entities"] == {"sentences": 2, "alarmed": 1, "entities": 1}


def test_a_split_can_be_chosen(tmp_path: Path) -> None:
    rows = [{**MERKEL, "split": "train"}, {**MERKEL, "split": "validation"}, {**NOTHING, "split": "validation"}]
    found, _ = report(write(tmp_path / "all.jsonl", *rows), "--split", "validation")
    assert found["files"][0]["sentences"] == 2


def test_a_folder_without_labelled_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with fails(TrainingDataError, "no-labelled-file"):
        report(tmp_path / "empty")


def test_only_known_types_and_known_words_are_scored() -> None:
    words, tags = tuple(MERKEL["tokens"]), ("person", "person", "O", "O", "O", "O", "O", "O")
    whole = Sentence(words, tags)
    with closing(Tagger.load()) as tagger:

        def found(sentence: Sentence) -> list[list[str]]:
            views = evaluate(tagger, [sentence], scheme="IO", fine=False).views
            assert views["words"].found[0] == [] or views["words"].found[0][0][0] == 0
            return [[span[2] for span in views[name].found[0]] for name in ("words", "raw")]

        assert found(whole) == [["person", "person", "location"]] * 2
        assert found(Sentence(words, tags, known=frozenset({"person"}))) == [["person", "person"]] * 2
        # A word of Obama is unknown: nothing that contains it is scored, and the location is.
        assert found(Sentence(words, tags, frozenset({4}))) == [["person", "location"]] * 2
