"""Scores that are fitted on several labelled files together, also on files that have some of the types only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nerd_export.conversion.export import ExportRequest, export_bundle, without_folders
from nerd_export.conversion.gate_data import labelled_splits
from nerd_onnx.errors import OptionError
from nerd_onnx.inference.bundle import Bundle
from tests.support.bundles import TEXTS, WIDE, silent


def rows_of(data: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.read_text("utf-8").splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def persons_in_bio(row: dict[str, Any], split: str) -> dict[str, Any]:
    """Return a sentence as another data set writes it: coarse BIO tags of persons, nothing else."""
    tags, before = [], False
    for tag in row["fine_ner_tags"]:
        is_person = tag.startswith("person")
        tags.append(("I-person" if before else "B-person") if is_person else "O")
        before = is_person
    return {"tokens": row["tokens"], "ner_tags": tags, "known_types": ["person"], "split": split}


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    """Write a folder with two files that are labelled for persons; half of each is another split."""
    place = tmp_path / "domains"
    place.mkdir()
    rows = rows_of(data)
    for name, part in (("mails", rows[::2]), ("tweets", rows[1::2])):
        kept = [persons_in_bio(row, "validation") for row in part]
        write(place / f"{name}.jsonl", kept + [persons_in_bio(row, "train") for row in part])
    return place


@pytest.mark.slow
def test_each_file_is_a_split_with_its_own_types_and_scheme(bundle: Path, data: Path, folder: Path) -> None:
    labels = Bundle.load(bundle).labels
    splits = labelled_splits(str(data), {"again": data}, labels, silent, calibrate_on=[folder])
    assert list(splits) == ["validation", "again", "mails", "tweets"]
    assert {name: (split.gated, split.fits) for name, split in splits.items()} == {
        "validation": (True, True),
        "again": (False, False),
        "mails": (False, True),
        "tweets": (False, True),
    }
    mails = splits["mails"].labelled
    assert (mails.scheme, mails.fine, sorted(mails.types)) == ("IOB2", False, ["person"])
    # The rows of the other split are not read.
    assert 2 * len(mails.sentences) == len((folder / "mails.jsonl").read_text("utf-8").splitlines())


def test_two_files_of_one_name_are_refused(bundle: Path, data: Path, folder: Path) -> None:
    labels = Bundle.load(bundle).labels
    with pytest.raises(OptionError) as caught:
        labelled_splits(None, {"mails": data}, labels, silent, calibrate_on=[folder])
    assert (caught.value.reason, caught.value.fields["found"]) == ("same-name", "mails")


@pytest.mark.slow
def test_scores_are_fitted_on_all_files_and_the_card_shows_each(
    checkpoint: Callable[..., Path], data: Path, folder: Path, tmp_path: Path
) -> None:
    request = ExportRequest(
        str(checkpoint("bert")),
        tmp_path / "mixed",
        level="fine",
        dataset=str(data),
        calibrate_on=[folder],
        texts=TEXTS,
        limits=WIDE,
    )
    export_bundle(request, silent)
    described = json.loads((tmp_path / "mixed" / "nerd.json").read_text("utf-8"))
    fitted_on = described["calibration"]["fitted_on"]
    assert fitted_on["splits"] == ["validation", "mails", "tweets"]
    assert set(described["calibration"]["expected_calibration_error"]) == {
        "validation, 5-fold",
        "mails, 5-fold",
        "tweets, 5-fold",
    }
    alone = json.loads((tmp_path / "mixed" / "nerd.json").read_text("utf-8"))["metrics"]
    assert alone["mails"]["bundle"]["sentences"] > 10

    card = (tmp_path / "mixed" / "README.md").read_text("utf-8")
    section = card.split("## By kind of text")[1].split("\n## ")[0]
    for name in ("mails", "tweets"):
        f1 = described["metrics"][name]["bundle"]["raw"]["f1"]
        assert f"| {name} | " in section
        assert f"{f1:.4f}" in section
        # Not in the table of the gate, and not among the results that the hub shows.
        assert f"F1, {name}" not in card
    assert {row["split"] for row in described["verification"]["f1"]} == {"validation", "mails", "tweets"}


def test_a_record_of_training_names_files_and_not_folders() -> None:
    record = {
        "command": "nerd-train --train-file /home/me/a/x.parquet=0.5 --train-file sets/y.parquet --level fine",
        "data": {"train": "/home/me/x.parquet, sets/y.parquet", "train_sentences": 3},
        "files": ["/data/z.conll"],
    }
    assert without_folders(record) == {
        "command": "nerd-train --train-file x.parquet=0.5 --train-file sets/y.parquet --level fine",
        "data": {"train": "x.parquet, sets/y.parquet", "train_sentences": 3},
        "files": ["z.conll"],
    }
