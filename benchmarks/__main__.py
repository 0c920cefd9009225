"""The command line ``python -m benchmarks``. Only this module prints the report and sets the exit code."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks.inputs.workloads import KINDS
from benchmarks.models.shapes import SHAPES
from benchmarks.paths import OUT, SHARED, shown
from benchmarks.peers import PEERS
from benchmarks.peers.peer import PeerError
from benchmarks.report import REPORT, write_report
from benchmarks.report.checks import run_checks
from benchmarks.report.compare import compare
from benchmarks.report.saved import load_report
from benchmarks.settings import PARTS, Settings
from benchmarks.suite import run_suite
from nerd_onnx.errors import NerdError

_ENVIRONMENTS = sorted({peer.environment for peer in PEERS.values() if peer.environment})
_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
_MANY: dict[str, Any] = {"multiple": True, "help": "Can be repeated.  [default: set by the form]"}


@click.command("benchmarks", context_settings={"show_default": True})
@click.option(
    "--full", "form", flag_value="full", default="full", help="Measure everything: about half an hour on two cores."
)
@click.option(
    "--short", "form", flag_value="short", help="Few rows, rounds and peers, for CI: a few minutes on two cores."
)
@click.option("--check", is_flag=True, help="Exit with 1 if a check of accuracy, neighbours or speed fails.")
@click.option("--compare", "old", type=_FILE, help="report.json of an earlier run to compare with.")
@click.option(
    "--render", "rendered", type=_FILE, help="Only write this report.json again, with its Markdown and HTML page."
)
@click.option("--model", type=_FOLDER, help="Bundle to measure.  [default: the default model]")
@click.option(
    "--checkpoint",
    type=_FOLDER,
    help="PyTorch original of --model.  [default: random weights, which measure only speed]",
)
@click.option(
    "--other-model",
    type=_FOLDER,
    help="Another bundle to compare with --model, as the peer nerd_tag_other; small shape only.",
)
@click.option(
    "--base-model", type=_FOLDER, help="Bundle of BERT-base size.  [default: exported from --base-checkpoint]"
)
@click.option(
    "--base-checkpoint",
    type=_FOLDER,
    help="PyTorch original of --base-model.  [default: random weights, which measure only speed]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=OUT,
    show_default="benchmarks/out",
    help="Folder for the report.",
)
@click.option(
    "--shared",
    type=click.Path(path_type=Path),
    default=SHARED,
    show_default="../shared/data",
    help="Folder with corpora and labelled sentences.",
)
@click.option("--shape", "shapes", type=click.Choice(SHAPES), **_MANY)
@click.option("--workload", "workloads", type=click.Choice(list(KINDS)), **_MANY)
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, help="Can be repeated.  [default: all]")
@click.option("--peer", "peers", type=click.Choice(list(PEERS)), **_MANY)
@click.option(
    "--without", type=click.Choice(list(PEERS)), multiple=True, help="Peer that does not run; can be repeated."
)
@click.option(
    "--python",
    "pythons",
    metavar="NAME=PATH",
    multiple=True,
    help=f"Python interpreter with a peer's packages; NAME is {' or '.join(_ENVIRONMENTS)}. The environment variable "
    "NERD_BENCH_NAME, for example NERD_BENCH_SPACY, does the same.",
)
@click.option("--tokens", type=click.IntRange(min=1), help="Tokens of each workload.  [default: set by the form]")
@click.option("--rounds", type=click.IntRange(min=1), help="Runs of each peer.  [default: 4; 3 in the short form]")
@click.option(
    "--sentences", type=click.IntRange(min=1), help="Labelled sentences for each peer.  [default: set by the form]"
)
@click.option("--growth-rows", type=click.IntRange(min=1), **_MANY)
@click.option("--resume", is_flag=True, help="Resume an interrupted run that had the same settings.")
@click.option("--seed", type=int, default=42, help="Seed of samples, shuffles and random weights.")
def command(
    *,
    check: bool,
    old: Path | None,
    rendered: Path | None,
    parts: tuple[str, ...],
    pythons: tuple[str, ...],
    **options: Any,
) -> None:
    """Measure speed and accuracy of nerd-tag and its peers, and write report.json, report.md and report.html."""
    settings = Settings(**options, parts=parts or PARTS, pythons=_interpreters(pythons))
    folder, name = (rendered.parent, rendered.stem) if rendered else (settings.out, REPORT)

    try:
        # Read first: an old report that cannot be read must not be noticed after half an hour.
        before = load_report(old) if old else None
        report = load_report(rendered) if rendered else run_suite(settings, typed_command(sys.argv[1:]), _tell)
        if old and before:
            report["compared"] = compare(report, before, old.name)
            # The checks against the older report come on top of the others.
            report["checks"] = [asdict(found) for found in run_checks(report, before)]

        text = write_report(report, folder, name)
    except (NerdError, PeerError, OSError, ValueError) as err:
        raise click.ClickException(str(err)) from err

    click.echo(text)
    _tell(f"report: {name}.json, {name}.md and {name}.html in {shown(folder)}")

    failed = [found["name"] for found in report["checks"] if not found["passed"]]
    # Only now, because the report is useful in any case.
    if check and failed:
        _tell(f"failed: {'; '.join(failed)}")
        sys.exit(1)


def _interpreters(words: Sequence[str]) -> dict[str, str]:
    """Return the interpreters of ``NAME=PATH`` options, by name."""
    found = dict(word.partition("=")[::2] for word in words)

    if wrong := [name for name, path in found.items() if name not in _ENVIRONMENTS or not path]:
        raise click.UsageError(f"--python takes NAME=PATH with NAME one of {', '.join(_ENVIRONMENTS)}; not {wrong[0]}")

    return found


def typed_command(words: Sequence[str]) -> str:
    """Return the command of this run without paths of this machine."""
    return shlex.join(["python", "-m", "benchmarks", *map(_without_folder, words)])


def _without_folder(word: str) -> str:
    """Shorten the path in ``/a/path``, ``--option=/a/path`` or ``name=/a/path``."""
    # The part behind an equals sign may be a path; a word without one is all value, because rpartition() leaves option
    # empty.
    option, equals, value = word.rpartition("=")
    # Relative paths name no folder of this machine.
    return option + equals + (shown(value) if value.startswith("/") else value)


def _tell(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    command()
