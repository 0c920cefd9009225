"""The report: plain data to ``report.json``, the same as Markdown to ``report.md``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.checks import LEVELS

_SPEED_HEAD = (
    "", "rows/s", "tokens/s", "spread", "nerd_tag is faster", "whole process", "start", "peak memory", "entities"
)  # fmt: skip


def write_report(report: Mapping[str, Any], folder: Path) -> str:
    """
    Write both files.

    :param folder: is made where it is missing
    :return: the Markdown
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(report)
    (folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (folder / "report.md").write_text(text, "utf-8")
    return text


def markdown(report: Mapping[str, Any]) -> str:
    """Render a report; parts that were not measured are left out."""
    sections = (_head, _checks, _notes, _speed, _accuracy, _neighbours, _machine, _commands)
    return "\n".join(line for section in sections for line in section(report)) + "\n"


def _head(report: Mapping[str, Any]) -> Iterator[str]:
    model = report["model"]
    checkpoint = f", PyTorch weights `{model['checkpoint']}`" if model["checkpoint"] else ""
    yield f"# nerd-onnx benchmarks, {report['form']} form"
    yield ""
    yield f"`{report['command']}`"
    yield ""
    yield (
        f"{report['started']}, commit {report['commit'] or 'unknown'}. Model `{model['bundle']}`, "
        f"{model['quantization']}, {model['size_bytes'] / 1e6:.1f} MB, {model['labels']} labels{checkpoint}."
    )


def _checks(report: Mapping[str, Any]) -> Iterator[str]:
    if report["checks"]:
        yield from ("", "## Checks", "")
        rows = (
            (check["name"], "passed" if check["passed"] else "**failed**", check["detail"])
            for check in report["checks"]
        )
        yield from _table(("check", "", "measured"), rows)


def _notes(report: Mapping[str, Any]) -> Iterator[str]:
    if report["notes"]:
        yield ""
        yield from (f"- {note}" for note in report["notes"])


def _speed(report: Mapping[str, Any]) -> Iterator[str]:
    for name, peers in report.get("speed", {}).items():
        workload = report["workloads"][name]
        repeats = len(next(iter(peers.values()))["runs"])
        yield from ("", f"## Speed: {name}", "")
        yield (
            f"{workload['rows']:,} rows, {workload['tokens']:,} tokens, {workload['characters']:,} characters "
            f"({workload['source']}). File to file; medians of {repeats} interleaved runs, least to most in brackets. "
            "Rates leave out interpreter, imports and model load, which stand under start."
        )
        yield ""
        yield from _table(
            _SPEED_HEAD,
            (_speed_row(peer, facts, report["ratios"][name].get(peer)) for peer, facts in peers.items()),
        )
        yield from _batch_sizes(peers)
    if report.get("skipped_peers"):
        yield ""
        yield from (f"- {peer} did not run: {reason}." for peer, reason in report["skipped_peers"].items())


def _batch_sizes(peers: Mapping[str, Any]) -> Iterator[str]:
    """Tell which batch sizes were tried."""
    for peer, facts in peers.items():
        tried = facts["setup"].get("probe_rows_per_s")
        if tried:
            rates = ", ".join(f"{size}: {rate:,.1f} rows/s" for size, rate in tried.items())
            yield from ("", f"Batch sizes of {peer}, on the first {facts['setup']['probe_rows']} rows: {rates}.")


def _speed_row(peer: str, facts: Mapping[str, Any], ratio: Mapping[str, float] | None) -> Sequence[str]:
    faster = "" if ratio is None else (
        f"**{ratio['tagging']:.2f}x** ({ratio['tagging_min']:.2f} to {ratio['tagging_max']:.2f}), "
        f"whole process {ratio['whole']:.2f}x"
    )  # fmt: skip
    size = facts["setup"].get("batch_size")
    return (
        peer if size is None else f"{peer}, batch size {size}",
        _rate(facts["rows_per_s"]),
        _rate(facts["tokens_per_s"]),
        f"{facts['tokens_per_s']['spread']:.0%}",
        faster,
        f"{facts['wall_s']['median']:.2f} s",
        f"{facts['start_s']['median']:.2f} s",
        f"{facts['peak_rss_bytes']['median'] / 1e6:,.0f} MB",
        f"{facts['entities']:,}",
    )


def _rate(figures: Mapping[str, float]) -> str:
    digits = 0 if figures["median"] >= 100 else 1  # noqa: PLR2004
    return " ".join(
        (f"{figures['median']:,.{digits}f}", f"({figures['min']:,.{digits}f} to {figures['max']:,.{digits}f})")
    )


def _accuracy(report: Mapping[str, Any]) -> Iterator[str]:
    for split, scores in (report.get("accuracy") or {}).items():
        recorded = scores["recorded"] or {}
        models = {
            "bundle": scores["bundle"],
            "recorded": recorded.get("bundle"),
            "PyTorch": scores["pytorch"],
            "PyTorch, recorded": recorded.get("original"),
        }
        columns = {name: model for name, model in models.items() if model}
        yield from ("", f"## Entity F1: {split}", "", f"{scores['sentences']:,} sentences of `{scores['file']}`.", "")
        yield from _table(
            ("", *columns),
            (
                (title, *(f"{model[level]['f1']:.4f}" if level in model else "" for model in columns.values()))
                for level, title in LEVELS.items()
                if level in scores["bundle"]
            ),
        )


def _neighbours(report: Mapping[str, Any]) -> Iterator[str]:
    neighbours = report.get("neighbours")
    if neighbours:
        yield from ("", "## One text, one answer", "")
        yield (
            f"{neighbours['texts']:,} texts of `{neighbours['source']}`, {neighbours['entities']:,} entities: how many "
            "texts get an entity or a score that differs in any bit from when all are tagged together."
        )
        yield ""
        yield from _table(("tagged", "texts changed"), ((way, str(n)) for way, n in neighbours["changed"].items()))


def _machine(report: Mapping[str, Any]) -> Iterator[str]:
    machine = report["machine"]
    memory = f", {machine['memory_bytes'] / 2**30:.1f} GiB memory" if machine["memory_bytes"] else ""
    yield from ("", "## Machine and versions", "")
    yield (
        f"{machine['cpu']} ({', '.join(machine['cpu_flags']) or 'no telling features'}), {machine['cores']} "
        f"cores{memory}, {machine['system']}; load average at the start {machine['load_average']}."
    )
    yield ""
    yield ", ".join(f"{name} {number or 'not installed'}" for name, number in report["versions"].items()) + "."


def _commands(report: Mapping[str, Any]) -> Iterator[str]:
    commands = [facts["command"] for peers in report.get("speed", {}).values() for facts in peers.values()]
    if commands:
        yield from ("", "## Commands", "", "```", *commands, "```")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
