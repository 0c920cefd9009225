"""``nerd-export``: export a checkpoint as a bundle. Heavy imports are inside the functions, so --help is fast."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, get_args

import click

from nerd_export.cli.common import note, require_extra
from nerd_export.config import SEGMENT_TOKENS, Embeddings, Level, VerifyLimits
from nerd_export.outputs import require_file
from nerd_export.quantization.recipes import recipe_names
from nerd_onnx import __version__
from nerd_onnx.cli.common import FILE_PATH, complete_folders, run_command, settings
from nerd_onnx.cli.grouped_help import GroupedCommand
from nerd_onnx.cli.streams import about_output
from nerd_onnx.errors import InputError, OptionError, VerificationError
from nerd_onnx.inference.word_joints import Join
from nerd_onnx.inference.words import WordRule
from nerd_onnx.storage.atomic_file import write_whole
from nerd_onnx.storage.hub import require_place

_LIMITS = VerifyLimits()
_HEADINGS = {
    "--model": "Model and output",
    "--quantize": "Quantization and labels",
    "--dataset": "Comparison with the original",
    "--check": "Check of an existing bundle",
    "--version": "Other",
}


@click.command("nerd-export", cls=GroupedCommand, headings=_HEADINGS, context_settings=settings("NERD_EXPORT"))
@click.option(
    "--model",
    shell_complete=complete_folders,
    help="Fine-tuned token classifier to export: a folder with a checkpoint, a bundle, or the name of a model on the "
    "Hugging Face Hub; 'default' is the default model.",
)
@click.option(
    "--average-with",
    shell_complete=complete_folders,
    multiple=True,
    metavar="MODEL",
    help="Export the mean of the weights of --model and of this checkpoint or bundle; may be repeated. All must have "
    "the same labels and be fine-tuned from the same start, for example with different seeds.",
)
@click.option("--output", type=FILE_PATH, help="Folder for the bundle.")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
@click.option("--license", "licence", help="Licence to name in the model card, as an SPDX id such as Apache-2.0.")
@click.option(
    "--notes",
    type=FILE_PATH,
    help="Markdown file for the end of the model card, for example on data and limits.",
)
@click.option("--report", type=FILE_PATH, help="Write all results to this file as JSON.")
@click.option(
    "--quantize",
    type=click.Choice(recipe_names()),
    default="int8",
    help="Data type of weights and activations. int8: 8 bits, activations with one scale per token. int8-static: 8 "
    "bits, activations with one scale per tensor, measured on --texts. int8-weights: weights in 8 bits, activations in "
    "fp32. none: all in fp32.",
)
@click.option(
    "--embeddings",
    type=click.Choice(get_args(Embeddings)),
    help="Data type of the word embeddings, which are half of a small model's size.  [default: int8, or "
    "fp32 with --quantize none]",
)
@click.option(
    "--keep-fp32",
    multiple=True,
    metavar="NAME",
    help="Linear layer to keep in fp32, because it loses too much in 8 bits; may be repeated. The error for an unknown "
    "name lists all names.",
)
@click.option(
    "--level",
    type=click.Choice(get_args(Level)),
    help="coarse: labels have one level. fine: labels like person-actor also have a coarse label, person.  [default: "
    "what nerd-train or the bundle recorded, else coarse]",
)
@click.option(
    "--segment-tokens",
    type=click.IntRange(min=16),
    help="Maximum number of tokens in a segment, the part of a text that the network reads at once.  "
    f"[default: {SEGMENT_TOKENS}, or the value of the bundle]",
)
@click.option(
    "--word-rule",
    type=click.Choice(get_args(WordRule)),
    help="What a word is. treebank: Saint-Pierre, No.1 and U.S. are one word each. pretokens: the pieces that the "
    "tokenizer splits text into first.  [default: as recorded in --model; else treebank for models of nerd-train, and "
    "pretokens for others]",
)
@click.option(
    "--join",
    type=click.Choice(get_args(Join)),
    help="touching: entities with the same label inside one written word, such as an e-mail address, are joined. "
    "scheme: only the tags of the model decide where an entity ends.  [default: as recorded in --model; else scheme "
    "for the word rule treebank, and touching for pretokens]",
)
@click.option(
    "--dataset",
    shell_complete=complete_folders,
    help="Labelled data, on which scores are calibrated and F1 is compared: a file, a folder with a "
    "validation file, or the name of a data set on the Hugging Face Hub. Calibrated scores agree with the share of "
    "right entities.",
)
@click.option(
    "--calibrate-on",
    multiple=True,
    type=FILE_PATH,
    metavar="FILE|FOLDER",
    help="Calibrate scores on this labelled file, or on all files in this folder, besides --dataset; may be repeated. "
    "If a file was labelled for some labels only, its column known_types lists them. If it has a column split, only "
    "its validation rows are used.",
)
@click.option(
    "--evaluate",
    "evaluations",
    multiple=True,
    metavar="NAME=FILE",
    help="Report the F1 on a further labelled file; may be repeated.",
)
@click.option(
    "--texts",
    type=FILE_PATH,
    help="Text file with one text per line. Bundle and original are compared on these texts, and quantization measures "
    "activations on them.  [default: the built-in sample]",
)
@click.option(
    "--min-agreement",
    "min_entity_agreement",
    type=click.FloatRange(0, 1),
    default=_LIMITS.min_entity_agreement,
    help="Minimum F1 of the bundle's entities against those of the original, on --texts.",
)
@click.option(
    "--max-labels-changed",
    type=click.FloatRange(0, 1),
    default=_LIMITS.max_labels_changed,
    help="Maximum share of tokens whose label differs from the original's, on --texts.",
)
@click.option(
    "--max-f1-drop",
    type=click.FloatRange(0, 1),
    default=_LIMITS.max_f1_drop,
    help="Maximum decrease of the F1 on --dataset.",
)
@click.option(
    "--check",
    shell_complete=complete_folders,
    metavar="BUNDLE",
    help="Instead of exporting, check a bundle on this machine: fingerprints of its files, the entities that its "
    "export recorded, whether other texts change the entities of a text, and F1 with --dataset or --evaluate. Needs "
    "no torch.",
)
@click.version_option(__version__, package_name="nerd-onnx")
def export_command(
    *,
    model: str | None,
    output: Path | None,
    check: str | None,
    evaluations: tuple[str, ...],
    report: Path | None,
    dataset: str | None,
    **options: Any,
) -> None:
    """
    Export a checkpoint as a bundle for nerd-tag. The bundle is compared with the PyTorch original, and kept only if it
    does not exceed the limits.

    A checkpoint is a folder with PyTorch weights, tokenizer and configuration. A bundle is the folder that nerd-tag
    --model reads: the network as an ONNX file, the tokenizer, a description (nerd.json) and a model card.

    Every option can also be set by an environment variable: NERD_EXPORT_ and the option's name, such as
    NERD_EXPORT_MODEL.

    \b
    Examples:
      nerd-export --model my-model --output my-bundle --dataset my-data
      nerd-export --model owner/name --output my-bundle
      nerd-export --check my-bundle
    """  # noqa: D301 - the backspace tells click to keep the lines
    # The options have the names of the fields.
    limits = VerifyLimits(**{limit.name: options.pop(limit.name) for limit in fields(VerifyLimits)})
    files = dict(map(_name_and_file, evaluations))

    if report is not None:
        require_file(report)
    if dataset is not None:
        require_place(dataset, "dataset", "--dataset")

    if check is not None:
        if model is not None or output is not None:
            raise OptionError(
                "--check compares an existing bundle; leave --model and --output out",
                reason="check-with-export",
                option="--check",
            )
        _check(check, dataset, files, limits, report)
        return

    if model is None or output is None:
        raise OptionError(
            f"{'--output' if model else '--model'} is missing: nerd-export --model FOLDER --output FOLDER",
            reason="missing-option",
            option="--output" if model else "--model",
        )

    _export(model, output, report, {**options, "dataset": dataset, "evaluations": files, "limits": limits})


def _export(model: str, output: Path, report: Path | None, options: dict[str, Any]) -> None:
    """Export, then print the results and write the report, also if the gate refuses the bundle."""
    require_extra("nerd-export")
    from nerd_export.models.names import require_model

    # Before torch and optimum are imported, which takes seconds.
    require_model(model, "--model")
    for other in options["average_with"]:
        require_model(other, "--average-with")

    from nerd_export.conversion.export import ExportRequest, GateRefusalError, export_bundle
    from nerd_export.conversion.model_card import verdict_table

    texts, notes = options.pop("texts"), options.pop("notes")
    request = ExportRequest(
        model=model,
        output=output,
        texts=None if texts is None else _lines(texts),
        notes="" if notes is None else "\n".join(_lines(notes, blank=True)),
        **options,
    )
    try:
        result = export_bundle(request, note)
    except GateRefusalError as refusal:
        about_output(verdict_table(refusal.result.verdict))
        _write_report(report, {"refused": str(refusal), **refusal.result.summary()})
        raise

    about_output(verdict_table(result.verdict))
    _write_report(report, result.summary())
    if result.repair and result.verdict.speed:
        about_output(
            f"kept in fp32: {len(result.repair.kept)} of {len(result.repair.costs)} layers; "
            f"{result.verdict.speed.ratio:.2f} times the speed of PyTorch; everything in 8 bits, which was refused, "
            f"had {result.repair.speed_before.ratio:.2f} times"
        )

    about_output(f"bundle: {output} ({result.size_bytes / 1e6:.1f} MB)")


def _check(
    bundle: str, dataset: str | None, evaluations: Mapping[str, Path], limits: VerifyLimits, report: Path | None
) -> None:
    """Check a bundle and print the results."""
    from nerd_export.conversion.check_on_machine import check_bundle, described
    from nerd_export.conversion.gate_data import labelled_splits

    # datasets reads labelled data and seqeval scores it; the rest of the check needs the runtime alone.
    if labelled := dataset is not None or bool(evaluations):
        require_extra("nerd-export --check with labelled data")

    loaded = described(bundle)
    splits = labelled_splits(dataset, evaluations, loaded.labels, note) if labelled else {}
    found = check_bundle(loaded, splits, limits)

    _write_report(report, found.summary())
    agreed = "not recorded" if found.entity_agreement is None else f"{found.entity_agreement:.4f}"
    click.echo(f"files: {found.files}, each as it was exported\nkernels: {found.kernels}")
    click.echo(f"entity agreement with the original on the sample: {agreed}")

    if found.entities_changed is not None:
        click.echo(f"entities of the sample that differ from those at export: {found.entities_changed}")
    click.echo(f"texts changed by batch, order or threads: {sum(found.neighbours.values())}")
    for row in found.f1:
        recorded = "" if row.recorded is None else f"; at export {row.recorded:.4f}, original {row.original:.4f}"
        click.echo(f"F1, {row.split}, {row.view}: {row.here:.4f}{recorded}")

    if found.faults:
        raise VerificationError(
            f"{bundle}: {'; '.join(found.faults)}. Do not use it on this machine; export it here",
            reason="check-failed",
            file=bundle,
            found=len(found.faults),
        )

    click.echo("passed")


def _write_report(report: Path | None, figures: Mapping[str, Any]) -> None:
    if report is not None:
        content = json.dumps(figures, indent=2, ensure_ascii=False) + "\n"
        write_whole(str(report), content.encode(), overwrite=True)


def _name_and_file(value: str) -> tuple[str, Path]:
    name, separator, path = value.partition("=")
    if not (name and separator and path):
        raise click.BadParameter(f"{value!r}: expected NAME=FILE, such as test=test.parquet", param_hint="--evaluate")
    return name, Path(path)


def _lines(path: Path, *, blank: bool = False) -> list[str]:
    """Read the lines of a text file; blank ones only when asked for."""
    try:
        texts = [line for line in path.read_text("utf-8").splitlines() if blank or line.strip()]
    except (OSError, UnicodeDecodeError) as err:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {err}", reason="cannot-read", file=str(path)) from err
    if not texts:
        raise InputError(f"{path}: contains no text; expected one text per line", reason="no-text", file=str(path))
    return texts


def main() -> NoReturn:
    """Entry point of ``nerd-export``."""
    run_command(export_command)
