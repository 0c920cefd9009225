"""``python -m benchmarks``: options to report. The only place that prints and exits."""

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

_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
_MANY: dict[str, Any] = {"multiple": True, "help": "Repeat for several.  [default: what the form says]"}


@click.command("benchmarks", context_settings={"show_default": True})
@click.option("--full", "form", flag_value="full", default="full", help="Everything: half an hour on two cores.")
@click.option("--short", "form", flag_value="short", help="Few rows, rounds and peers, for CI: minutes on two cores.")
@click.option("--check", is_flag=True, help="Exit 1 when a check fails: accuracy, neighbours, a gross fall in speed.")
@click.option("--compare", "old", type=_FILE, help="Report of another run; what changed is told and checked.")
@click.option(
    "--render", "rendered", type=_FILE, help="Measure nothing: write this report.json, its Markdown and its page again."
)
@click.option("--model", type=_FOLDER, help="Bundle to measure.  [default: the default model]")
@click.option("--checkpoint", type=_FOLDER, help="Its PyTorch original.  [default: a random twin, for speed alone]")
@click.option(
    "--other-model",
    type=_FOLDER,
    help="Another bundle to measure beside it, as the peer nerd_tag_other; small shape only.",
)
@click.option("--base-model", type=_FOLDER, help="Bundle of BERT-base shape.  [default: exported from its checkpoint]")
@click.option(
    "--base-checkpoint", type=_FOLDER, help="Its PyTorch original.  [default: random weights, for speed alone]"
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=OUT, show_default="benchmarks/out")
@click.option("--shared", type=click.Path(path_type=Path), default=SHARED, show_default="../shared/data")
@click.option("--shape", "shapes", type=click.Choice(SHAPES), **_MANY)
@click.option("--workload", "workloads", type=click.Choice(list(KINDS)), **_MANY)
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, help="Repeat for several.  [default: all]")
@click.option("--peer", "peers", type=click.Choice(list(PEERS)), **_MANY)
@click.option("--without", type=click.Choice(list(PEERS)), multiple=True, help="Leave a peer out; repeat for several.")
@click.option(
    "--python",
    "pythons",
    metavar="NAME=PATH",
    multiple=True,
    help="Interpreter of the peers that ask for their own: openvino, ctranslate2, spacy; or NERD_BENCH_OPENVINO etc.",
)
@click.option("--tokens", type=click.IntRange(min=1), help="Tokens of each workload.  [default: what the form says]")
@click.option("--rounds", type=click.IntRange(min=1), help="Runs of each peer.  [default: 4, in the short form 3]")
@click.option(
    "--sentences", type=click.IntRange(min=1), help="Labelled sentences a peer.  [default: what the form says]"
)
@click.option("--growth-rows", type=click.IntRange(min=1), **_MANY)
@click.option("--resume", is_flag=True, help="Go on with a run of the same settings that ended early.")
@click.option("--seed", type=int, default=42, help="Of samples, shuffles and random weights.")
def command(
    *,
    check: bool,
    old: Path | None,
    rendered: Path | None,
    parts: tuple[str, ...],
    pythons: tuple[str, ...],
    **options: Any,
) -> None:
    """Measure nerd-tag's speed and accuracy against its peers, and write report.json, report.md and report.html."""
    settings = Settings(**options, parts=parts or PARTS, pythons=_interpreters(pythons))
    folder, name = (rendered.parent, rendered.stem) if rendered else (settings.out, REPORT)

    try:
        before = load_report(old) if old else None
        report = load_report(rendered) if rendered else run_suite(settings, typed_command(sys.argv[1:]), _tell)
        if old and before:
            report["compared"] = compare(report, before, old.name)
            report["checks"] = [asdict(found) for found in run_checks(report, before)]
        text = write_report(report, folder, name)
    except (NerdError, PeerError, OSError, ValueError) as err:
        raise click.ClickException(str(err)) from err

    click.echo(text)
    _tell(f"report: {name}.json, {name}.md and {name}.html in {shown(folder)}")
    failed = [found["name"] for found in report["checks"] if not found["passed"]]
    if check and failed:
        _tell(f"failed: {'; '.join(failed)}")
        sys.exit(1)


def _interpreters(words: Sequence[str]) -> dict[str, str]:
    """Read ``NAME=PATH`` options."""
    known = {peer.environment for peer in PEERS.values() if peer.environment}
    found = dict(word.partition("=")[::2] for word in words)
    if wrong := [name for name, path in found.items() if name not in known or not path]:
        raise click.UsageError(f"--python takes NAME=PATH with NAME one of {', '.join(sorted(known))}; not {wrong[0]}")
    return found


def typed_command(words: Sequence[str]) -> str:
    """Write down how this run was called, without paths of this machine."""
    return shlex.join(["python", "-m", "benchmarks", *map(_shortened, words)])


def _shortened(word: str) -> str:
    """Shorten ``/a/path``, ``--option=/a/path`` and ``name=/a/path``."""
    option, equals, value = word.rpartition("=")
    return option + equals + (shown(value) if value.startswith("/") else value)


def _tell(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    command()
