"""``python -m benchmarks``: options to report. The only place that prints and exits."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.paths import OUT, SHARED, shown
from benchmarks.peers.peer import PeerError
from benchmarks.report import write_report
from benchmarks.suite import PARTS, Settings, run_suite
from benchmarks.workloads import SHAPES
from nerd_onnx.errors import NerdError

_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
_MANY: dict[str, Any] = {"multiple": True, "help": "Repeat for several.  [default: all]"}


@click.command("benchmarks", context_settings={"show_default": True})
@click.option("--short", is_flag=True, help="Few rows and repeats, for CI: minutes on two cores.")
@click.option("--check", is_flag=True, help="Exit 1 when a check fails: accuracy, neighbours, a gross fall in speed.")
@click.option("--model", type=_FOLDER, help="Bundle to measure.  [default: the one inside]")
@click.option("--checkpoint", type=_FOLDER, help="Its PyTorch original.  [default: a random twin, for speed alone]")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=OUT, show_default="benchmarks/out")
@click.option("--shared", type=click.Path(path_type=Path), default=SHARED, show_default="../shared/data")
@click.option("--workload", "workloads", type=click.Choice(list(SHAPES)), **_MANY)
@click.option("--part", "parts", type=click.Choice(PARTS), **_MANY)
@click.option("--rows", type=click.IntRange(min=1), help="Rows of each workload.  [default: what the form says]")
@click.option("--repeats", type=click.IntRange(min=1), help="Runs of each peer.  [default: 5, in the short form 3]")
@click.option("--seed", type=int, default=42, help="Of samples, shuffles and the twin.")
def command(*, check: bool, workloads: tuple[str, ...], parts: tuple[str, ...], **options: Any) -> None:
    """Measure nerd-tag's speed and accuracy against its peers, and write report.json and report.md."""
    settings = Settings(**options, workloads=workloads or tuple(SHAPES), parts=parts or PARTS)
    try:
        report = run_suite(settings, typed_command(sys.argv[1:]), _tell)
        text = write_report(report, settings.out)
    except (NerdError, PeerError, OSError) as err:
        raise click.ClickException(str(err)) from err
    click.echo(text)
    _tell(f"report: {shown(settings.out)}/report.json and report.md")
    failed = [found["name"] for found in report["checks"] if not found["passed"]]
    if check and failed:
        _tell(f"failed: {'; '.join(failed)}")
        sys.exit(1)


def typed_command(words: Sequence[str]) -> str:
    """Write down how this run was called, without paths of this machine."""
    return shlex.join(["python", "-m", "benchmarks", *map(_shortened, words)])


def _shortened(word: str) -> str:
    """Shorten ``/a/path`` and ``--option=/a/path``."""
    option, equals, value = word.rpartition("=")
    return option + equals + (shown(value) if value.startswith("/") else value)


def _tell(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    command()
