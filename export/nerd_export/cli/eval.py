"""``nerd-eval``: score a model on labelled files and write a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

import click

from nerd_export.cli.common import note, require_extra
from nerd_export.config import Level
from nerd_export.outputs import require_folder, writing
from nerd_onnx import __version__
from nerd_onnx.cli.common import FILE_PATH, complete_folders, run_command, settings
from nerd_onnx.cli.streams import about_output
from nerd_onnx.errors import ExistsError, OptionError
from nerd_onnx.storage.atomic_file import write_whole

if TYPE_CHECKING:
    from nerd_onnx.tagger import Tagger

_REPORT = ("eval.json", "eval.md", "eval.html")


@click.command("nerd-eval", context_settings=settings("NERD_EVAL"))
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE_PATH)
@click.option(
    "--model",
    shell_complete=complete_folders,
    help="Model to score: a bundle, a folder with ONNX or PyTorch weights, or the name of a model on the Hugging Face "
    "Hub.  [default: the default model]",
)
@click.option("--against", shell_complete=complete_folders, help="Another model to compare with on the same sentences.")
@click.option(
    "--types",
    help="Coarse labels that the files have, separated by commas. Entities with other labels are not scored.  "
    "[default: those that occur]",
)
@click.option(
    "--level",
    type=click.Choice(get_args(Level)),
    help="For a checkpoint. coarse: its labels have one level. fine: labels like person-actor also have a coarse "
    "label.  [default: as nerd-train recorded]",
)
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    help="Score only entities with at least this score.  [default: each model's own threshold]",
)
@click.option(
    "--uncalibrated",
    is_flag=True,
    help="Decide word by word, without the calibration of a bundle. This compares only the networks.",
)
@click.option(
    "--calibrate-on",
    type=FILE_PATH,
    metavar="FILE",
    help="Fit calibration and thresholds of every model, checkpoints too, on this labelled file, as nerd-export does.",
)
@click.option("--split", help="Score only the rows whose column split has this value, such as validation.")
@click.option("--words-column", default="tokens", help="Column of the words of each sentence.")
@click.option("--tags-column", help="Column of the tags of each sentence.  [default: fine_ner_tags or ner_tags]")
@click.option(
    "--errors",
    type=click.IntRange(min=0),
    default=50,
    help="Number of sentences with errors to show per file.",
)
@click.option("--output", type=FILE_PATH, help="Folder for eval.json, eval.md and eval.html.")
@click.option("--overwrite", is_flag=True, help="Replace an existing report.")
@click.version_option(__version__, package_name="nerd-onnx")
def eval_command(
    *,
    files: Sequence[Path],
    model: str | None,
    against: str | None,
    types: str | None,
    level: Level | None,
    min_score: float | None,
    uncalibrated: bool,
    calibrate_on: Path | None,
    split: str | None,
    words_column: str,
    tags_column: str | None,
    errors: int,
    output: Path | None,
    overwrite: bool,
) -> None:
    """
    Score a model on labelled FILEs: Parquet or JSON Lines with tokens and ner_tags (fine_ner_tags), or CoNLL columns.
    A folder stands for all such files in it.

    A file may have only some of the model's labels: entities with other labels are not scored. The column known_types
    of a file lists the labels that were annotated in each row. A null tag is an unknown tag. In a file without any
    entity, each entity that the model finds counts as a false alarm.

    The report goes to standard output as Markdown. With --output it is also written to files, one of them an HTML page
    with plots and marked errors.

    Every option can also be set by an environment variable: NERD_EVAL_ and the option's name, such as NERD_EVAL_MODEL.

    \b
    Examples:
      nerd-eval test.parquet
      nerd-eval test.parquet --model my-bundle --against my-bert --output report
      nerd-eval wikigold.parquet --types person,location,organization
      nerd-eval test_sets/ --model my-bundle --output report
      nerd-eval test.parquet --model my-bert --calibrate-on validation.parquet
    """  # noqa: D301 - the backspace tells click to keep the lines
    require_extra("nerd-eval")
    from nerd_export.data.labelled import Columns, labelled_files, read_labelled
    from nerd_export.evaluation.result import over_all, score
    from nerd_export.evaluation.sections import sections
    from nerd_export.evaluation.subject import open_subject
    from nerd_export.reporting.html import page
    from nerd_export.reporting.markdown import markdown

    if output is not None:
        _check_output(output, overwrite=overwrite)

    if uncalibrated and calibrate_on is not None:
        raise OptionError(
            "--uncalibrated and --calibrate-on exclude each other; give one of them",
            reason="two-calibrations",
            option="--calibrate-on",
        )

    wanted = None if types is None else [name.strip() for name in types.split(",") if name.strip()]
    if wanted == []:
        raise OptionError("--types: no label is named", reason="no-label", option="--types")

    paths = labelled_files(files, note)
    columns = Columns(words_column, tags_column)

    facts: dict[str, Any] = {}
    results: dict[str, list[Any]] = {"model": [], "against": []}
    for role, name in (("model", model), ("against", against)):
        if role == "against" and name is None:
            continue
        with open_subject(
            name, level, min_score, note, calibrate=not uncalibrated, calibrate_on=calibrate_on
        ) as tagger:
            # Read once per model, because the labels of a model decide which entities are scored.
            labelled = [
                read_labelled(path, tagger.labels, wanted, note, columns=columns, split=split) for path in paths
            ]
            results[role] = [score(tagger, one) for one in labelled]
            facts[role] = _facts(tagger, name, calibrate_on)

    others = results["against"]
    differences = [one.against(others[i]) if others else {} for i, one in enumerate(results["model"])]
    parts = sections(facts, results["model"], differences, errors)
    text = markdown("Evaluation", parts)

    if output is None:
        click.echo(text)
        return

    data: dict[str, Any] = {
        role: {**of_model, **over_all(results[role]), "files": [one.summary for one in results[role]]}
        for role, of_model in facts.items()
    }
    if others:
        data["difference"] = [{view: vars(found) for view, found in one.items()} for one in differences]

    figures = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    _write(output, dict(zip(_REPORT, (figures, text, page("Evaluation", parts)), strict=True)))
    about_output(text)


def _facts(tagger: Tagger, name: str | None, calibrate_on: Path | None) -> dict[str, Any]:
    """Return what the report says about a model."""
    return {
        "name": name or "default",
        "quantization": tagger.bundle.quantization,
        "min_score": tagger.min_score,
        "calibrated": tagger.bundle.calibration is not None,
        "calibrated_on": None if calibrate_on is None else calibrate_on.name,
    }


def _write(output: Path, report: Mapping[str, str]) -> None:
    """Write the files of a report, each of them atomically."""
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    for name, content in report.items():
        write_whole(str(output / name), content.encode(), overwrite=True)


def _check_output(output: Path, *, overwrite: bool) -> None:
    """Check before any work that the folder can be written and has no report, or may be overwritten."""
    require_folder(output)
    for name in _REPORT:
        if (output / name).exists() and not overwrite:
            raise ExistsError(
                f"{output / name}: already exists; give another folder, or replace it with --overwrite",
                reason="output-exists",
                file=str(output / name),
            )


def main() -> NoReturn:
    """Entry point of ``nerd-eval``."""
    run_command(eval_command)
