"""The sections of a report, in the order of reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.measurements.ratios import rounds_note
from benchmarks.report.drawings import accuracy_against_speed
from benchmarks.report.goals import judged
from benchmarks.report.growth_sections import growth_section, start_section
from benchmarks.report.shape_sections import shape_sections
from nerd_export.conversion.gate import VIEWS
from nerd_export.reporting.report_parts import Code, Section, Table

_SHOWN_DIGITS = 12  # of a SHA-256


def title(report: Mapping[str, Any]) -> str:
    """Return the title of a report."""
    return f"nerd-onnx benchmarks, {report['form']} form"


def sections(report: Mapping[str, Any]) -> Iterator[Section]:
    """Yield the sections, without the parts that were not measured."""
    yield _head(report)
    for part in (_checks, _goals, _notes, _compared):
        yield from part(report)

    for shape in report["shapes"]:
        yield from shape_sections(report, shape)

    for part in (_bundle, _neighbours, start_section, growth_section, _versions, _commands):
        yield from part(report)


def _head(report: Mapping[str, Any]) -> Section:
    measured = {shape: facts["model"] for shape, facts in report["shapes"].items()}
    models = [_model(shape, model) for shape, model in measured.items()]
    models += [_other_model(shape, model["other"]) for shape, model in measured.items() if model.get("other")]
    when = f"{report['started']}, commit {report['commit'] or 'unknown'}."

    # What most readers came for is first: on which machine, and accuracy against speed with a point per engine.
    plots = [accuracy_against_speed(report, shape) for shape in report["shapes"]]
    pictures = [plot for plot in plots if plot is not None]
    lists = [tuple(models)] if models else []
    return Section("", [_machine(report), *pictures, f"`{report['command']}`", when, *lists])


def _model(shape: str, model: Mapping[str, Any]) -> str:
    """Return what was measured as one line."""
    weights = "random" if model["random_weights"] else f"`{model['checkpoint']}`"
    return (
        f"{shape}: `{model['bundle']}`, {model['quantization']}, {model['size_bytes'] / 1e6:.1f} MB, "
        f"{model['labels']} labels, segments of {model['segment_tokens']} tokens; PyTorch weights {weights}."
    )


def _other_model(shape: str, other: Mapping[str, Any]) -> str:
    """Return the bundle of ``--other-model`` as one line."""
    return (
        f"{shape}, other bundle: `{other['bundle']}`, {other['quantization']}, {other['size_bytes'] / 1e6:.1f} MB, "
        f"SHA-256 {other['sha256'][:_SHOWN_DIGITS]}."
    )


def _checks(report: Mapping[str, Any]) -> Iterator[Section]:
    if report.get("checks"):
        rows = [(c["name"], "passed" if c["passed"] else "**failed**", c["detail"]) for c in report["checks"]]
        yield Section("Checks", [Table(("check", "result", "measured"), rows)])


def _goals(report: Mapping[str, Any]) -> Iterator[Section]:
    found = judged(report)
    if found:
        rows = [(g["name"], g["goal"], g["measured"], "met" if g["met"] else "missed") for g in found]
        yield Section("Goals", [Table(("figure (on two cores)", "goal", "measured", "result"), rows)])


def _notes(report: Mapping[str, Any]) -> Iterator[Section]:
    # What did not run belongs to the report: a table without a peer would look complete.
    notes = list(report["notes"])
    for shape, facts in report["shapes"].items():
        notes += [f"{shape}: {peer} did not run: {reason}." for peer, reason in facts["skipped_peers"].items()]
        for workload, left_out in facts["left_out"].items():
            notes += [f"{shape}, {workload}: no figures for {peer}: {reason}." for peer, reason in left_out.items()]

    if notes:
        yield Section("Notes", [tuple(dict.fromkeys(notes))])


def _compared(report: Mapping[str, Any]) -> Iterator[Section]:
    compared = report.get("compared")
    if compared:
        machine = "the same processor model" if compared["same_machine"] else "another processor"
        about = f"`{compared['with']}`, commit {compared['commit']}, {compared['started']}, on {machine}."
        rows = [
            (
                row["what"] + (f" ({rounds_note({'rounds': row['rounds']})})" if row.get("rounds") is not None else ""),
                f"{row['before']:,.4g}",
                f"{row['now']:,.4g}",
                f"{row['quotient']:.2f}" if row["quotient"] else "",
            )
            for row in compared["rows"]
        ]

        yield Section(
            "Comparison with an older report", [about, Table(("figure", "before", "now", "now / before"), rows)]
        )


def _bundle(report: Mapping[str, Any]) -> Iterator[Section]:
    for split, scores in (report.get("accuracy") or {}).items():
        recorded = scores["recorded"] or {}
        models = {
            "measured": scores["bundle"],
            "recorded": recorded.get("bundle"),
            "PyTorch, recorded": recorded.get("original"),
        }
        columns = {name: model for name, model in models.items() if model}
        rows = [
            (name, *(f"{model[level]['f1']:.4f}" if level in model else "" for model in columns.values()))
            for level, name in VIEWS.items()
            if level in scores["bundle"]
        ]

        about = (
            f"{scores['sentences']:,} sentences of `{scores['file']}`. The recorded scores were stored in the bundle "
            "at its export."
        )
        yield Section(f"F1 of the small bundle: {split}", [about, Table(("input and labels", *columns), rows)])


def _neighbours(report: Mapping[str, Any]) -> Iterator[Section]:
    neighbours = report.get("neighbours")
    if neighbours:
        about = (
            f"{neighbours['texts']:,} texts of `{neighbours['source']}` with {neighbours['entities']:,} entities. A "
            "text counts as changed if any bit of an entity or score differs from a run over all texts together."
        )
        rows = [(way, str(n)) for way, n in neighbours["changed"].items()]
        yield Section("Results do not depend on other texts", [about, Table(("tagged", "texts changed"), rows)])


def _machine(report: Mapping[str, Any]) -> str:
    """Return the machine in one sentence."""
    machine = report["machine"]
    memory = f", {machine['memory_bytes'] / 2**30:.1f} GiB memory" if machine["memory_bytes"] else ""
    return (
        f"Machine: {machine['cpu']} ({', '.join(machine['cpu_flags']) or 'no int8 features'}), {machine['cores']} "
        f"cores{memory}, {machine['system']}; load average at the start {machine['load_average']}."
    )


def _versions(report: Mapping[str, Any]) -> Iterator[Section]:
    numbers = ", ".join(f"{name} {number or 'not installed'}" for name, number in report["versions"].items())
    yield Section("Versions", [f"{numbers}."])


def _commands(report: Mapping[str, Any]) -> Iterator[Section]:
    """Yield the section with the command of each peer, for the first workload of each shape."""
    commands = [
        facts["command"]
        for shape in report["shapes"].values()
        for peers in list(shape["speed"].values())[:1]
        for facts in peers.values()
    ]
    if commands:
        about = (
            "Run them at the root of the repository, after the benchmark has written its files. For other workloads "
            "only files and setup differ."
        )
        yield Section("Commands", [about, Code(commands)])
