"""nerd-eval: a bundle and its PyTorch original on labelled files, their levels, types and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nerd_export.cli.eval import eval_command
from nerd_export.data.labelled import read_labelled
from nerd_export.evaluation.result import score
from nerd_export.evaluation.subject import open_subject
from nerd_export.scoring.f1 import span_scores
from nerd_onnx.errors import NerdError, OptionError, OutputError, TrainingDataError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.tagger import Tagger
from tests.support.bundles import silent
from tests.support.failures import fails


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluated(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(eval_command, [str(argument) for argument in arguments], standalone_mode=False)
    if isinstance(done.exception, NerdError):
        raise done.exception
    assert done.exception is None, done.output
    return done.exit_code, done.stdout


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences with entities that the default model finds, tagged by hand on both levels."""
    rows = [
        ("Angela Merkel met Barack Obama in Berlin .", "PPOPPOGO"),
        ("The BBC is based in London , England .", "OBOOOGOGO"),
        ("Nothing is named here at all .", "OOOOOOO"),
        ("`` Hamlet '' was written by William Shakespeare .", "OAOOOOWWO"),
    ]
    fine = {"P": "person-politician", "G": "location-GPE", "B": "organization-media/newspaper", "O": "O"}
    fine |= {"A": "art-writtenart", "W": "person-artist/author"}
    data = []
    for text, marks in rows:
        tags = [fine[mark] for mark in marks]
        coarse = [tag.split("-")[0] for tag in tags]
        data.append({"tokens": text.split(), "ner_tags": coarse, "fine_ner_tags": tags})
    return lines(tmp_path_factory.mktemp("real") / "real.jsonl", data)


def test_the_model_inside_is_scored_both_ways_on_both_levels(real: Path, tmp_path: Path) -> None:
    code, text = evaluated(real, "--output", tmp_path / "report", "--errors", 3)
    assert code == 0
    found = json.loads((tmp_path / "report" / "eval.json").read_text())["model"]
    of_file = found["files"][0]
    assert set(of_file["views"]) == {"words", "raw", "fine_words", "fine_raw"}
    assert of_file["views"]["raw"]["expected"] == 8
    assert of_file["views"]["raw"]["f1"] > 0.6
    assert of_file["without_entities"] == {"sentences": 1, "alarmed": 0, "entities": 0}
    assert "Without any entity: 1 sentence; 0 of them got one or more (0 in all; raw text)." in text
    with closing(Tagger.load()) as tagger:
        labelled = read_labelled(real, tagger.labels, None, silent)
        raw = score(tagger, labelled).evaluation.views["raw"]
        expected = [entity.label for entity in tagger.tag(["Angela Merkel met Barack Obama in Berlin."])[0] or []]
    assert [span[2] for span in raw.found[0]] == expected
    assert span_scores(raw.gold, raw.found).f1 == pytest.approx(of_file["views"]["raw"]["f1"], abs=1e-5)
    for name in ("eval.md", "eval.html"):
        page = (tmp_path / "report" / name).read_text()
        assert "Calibration" in page
        assert "real.jsonl" in page
    assert (tmp_path / "report" / "eval.md").read_text() == text.removesuffix("\n")


def test_the_threshold_of_the_model_is_said_and_may_be_another(real: Path) -> None:
    recalls = []
    for options, said in (
        ((), f"calibrated, entities with a score of {Tagger.load().min_score:g} or more"),
        (("--min-score", "0"), "calibrated, all entities"),
        (("--min-score", "0.9"), "calibrated, entities with a score of 0.9 or more"),
    ):
        code, text = evaluated(real, *options, "--errors", "0")
        assert code == 0
        assert f"`default` (per-token int8, {said})" in text
        row = next(line for line in text.splitlines() if line.startswith("| raw text, coarse"))
        recalls.append(float(row.split("|")[3]))
    own, of_all, of_sure = recalls
    assert of_sure < own <= of_all


def test_predictions_of_types_that_a_file_does_not_label_are_dropped(tmp_path: Path) -> None:
    tokens = ["Angela", "Merkel", "met", "Barack", "Obama", "in", "Berlin", "."]
    bio = ["B-person", "I-person", "O", "B-person", "I-person", "O", "O", "O"]
    people = lines(tmp_path / "people.jsonl", [{"tokens": tokens, "ner_tags": bio}])
    with open_subject(None, None, None, silent) as tagger:
        labelled = read_labelled(people, tagger.labels, None, silent)
        assert (labelled.scheme, labelled.fine) == ("IOB2", False)
        assert labelled.types == frozenset({"person"})
        result = score(tagger, labelled)
        assert set(result.evaluation.views) == {"words", "raw"}
        assert result.evaluation.views["raw"].scores.precision == 1.0
        assert result.others == 1  # Berlin
        wider = score(tagger, read_labelled(people, tagger.labels, ["person", "location"], silent))
        assert wider.others == 0
        assert wider.evaluation.views["raw"].scores.precision == pytest.approx(2 / 3)
        with fails(OptionError, "unknown-label", found="animal"):
            read_labelled(people, tagger.labels, ["animal"], silent)
        strange = lines(tmp_path / "strange.jsonl", [{"tokens": ["x"], "ner_tags": ["gene"]}])
        with fails(TrainingDataError, "other-labels", found="gene"):
            read_labelled(strange, tagger.labels, None, silent)


@pytest.mark.slow
def test_a_checkpoint_and_its_bundle_are_compared(
    bundle: Path, checkpoint: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    original = checkpoint("bert")
    code, text = evaluated(
        data, "--model", bundle, "--against", original, "--level", "fine", "--output", tmp_path / "report"
    )
    assert code == 0
    assert "PyTorch fp32" in text
    report = json.loads((tmp_path / "report" / "eval.json").read_text())
    recorded = json.loads((bundle / "nerd.json").read_text())["metrics"]["validation"]
    for view, recorded_view in (("words", "words"), ("fine_raw", "fine_raw")):
        assert report["model"]["files"][0]["views"][view]["f1"] == recorded["bundle"][recorded_view]["f1"]
    difference = report["difference"][0]["raw"]
    assert difference["low"] <= difference["value"] <= difference["high"]
    alone = ["--uncalibrated", "--level", "fine", "--output", tmp_path / "alone"]
    assert evaluated(data, "--model", original, "--against", bundle, *alone)[0] == 0
    networks = json.loads((tmp_path / "alone" / "eval.json").read_text())
    assert networks["model"]["files"] == report["against"]["files"]  # a checkpoint has no calibration
    with closing(Tagger(Bundle.load(bundle).uncalibrated())) as tagger:
        expected = score(tagger, read_labelled(data, tagger.labels, None, silent)).summary["views"]["raw"]["f1"]
    assert report["model"]["files"][0]["views"]["raw"]["f1"] != expected
    assert networks["against"]["files"][0]["views"]["raw"]["f1"] == expected
    assert (networks["against"]["min_score"], networks["against"]["calibrated"]) == (0, False)
    assert (report["model"]["calibrated"], report["against"]["calibrated"]) == (True, False)
    assert "each word decided for itself, all entities" in (tmp_path / "alone" / "eval.md").read_text()


@pytest.mark.slow
def test_calibration_may_be_fitted_for_the_evaluation(
    bundle: Path, checkpoint: Callable[..., Path], data: Path, real: Path, tmp_path: Path
) -> None:
    """On the file of the export, a bundle gets the calibration that it has; a checkpoint gets one of its own."""
    arguments = ["--against", checkpoint("bert"), "--level", "fine", "--output", tmp_path / "fitted"]
    code, text = evaluated(data, "--model", bundle, "--calibrate-on", data, *arguments)
    assert code == 0
    assert f"calibrated on {data.name}, entities with a score of" in text
    assert evaluated(data, "--model", bundle, "--output", tmp_path / "own")[0] == 0
    fitted, own = (json.loads((tmp_path / name / "eval.json").read_text()) for name in ("fitted", "own"))
    assert fitted["model"]["files"] == own["model"]["files"]
    assert fitted["model"]["min_score"] == own["model"]["min_score"]
    assert (fitted["model"]["calibrated_on"], own["model"]["calibrated_on"]) == (data.name, None)
    assert fitted["against"]["calibrated"]
    assert fitted["against"]["min_score"] > 0
    with fails(TrainingDataError, "too-few-entities", file=real):
        evaluated(data, "--model", bundle, "--calibrate-on", real)
    with fails(OptionError, "two-calibrations"):
        evaluated(data, "--uncalibrated", "--calibrate-on", data)


def test_a_report_that_is_there_is_kept_unless_told(real: Path, tmp_path: Path) -> None:
    (tmp_path / "eval.md").write_text("mine")
    with fails(OutputError, "output-exists", file=tmp_path / "eval.md"):
        evaluated(real, "--output", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["eval.md"]
    assert evaluated(real, "--output", tmp_path, "--overwrite")[0] == 0
    assert (tmp_path / "eval.md").read_text() != "mine"


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    tokens = ["<script>alert(1)</script>", "Angela", "Merkel", "`[x](javascript:y)`"]
    hostile = lines(tmp_path / "h.jsonl", [{"tokens": tokens, "ner_tags": ["person", "O", "O", "person"]}])
    evaluated(hostile, "--output", tmp_path / "report")
    for name in ("eval.html", "eval.md"):
        page = (tmp_path / "report" / name).read_text()
        assert "<script" not in page
        assert "&lt;script" in page
        assert not re.search(r"(?<!\\)\[x\]", page) or name.endswith("html")


def test_mistakes_are_one_line(tmp_path: Path, real: Path) -> None:
    with fails(TrainingDataError, "missing-file", file=tmp_path / "none.parquet"):
        evaluated(tmp_path / "none.parquet")
    with fails(NerdError, "missing-model"):
        evaluated(real, "--model", tmp_path / "nothing")
    with fails(OptionError, "no-label", option="--types"):
        evaluated(real, "--types", ", ")
    broken = lines(tmp_path / "b.jsonl", [{"tokens": ["a", "b"], "ner_tags": ["O"]}])
    with fails(TrainingDataError, "faulty-rows", problem="lengths-differ"):
        evaluated(broken)


def test_a_file_of_one_tag_column_is_read_at_the_level_of_its_tags(tmp_path: Path) -> None:
    coarse = tmp_path / "coarse.conll"
    coarse.write_text("Angela B-person\nMerkel I-person\nspoke O\n\nBerlin B-location\n")
    fine = tmp_path / "fine.conll"
    fine.write_text("Angela person-politician\nMerkel person-politician\nspoke O\n\nBerlin location-GPE\n")
    with closing(Tagger.load()) as tagger:
        for path, level in ((coarse, False), (fine, True)):
            labelled = read_labelled(path, tagger.labels, None, silent)
            assert labelled.fine == level
            assert labelled.types == frozenset({"person", "location"})
            assert score(tagger, labelled).evaluation.views["raw"].scores.recall > 0.4
