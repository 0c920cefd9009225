"""The sections of one model shape: speed, networks alone, accuracy, stages and operators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.measurements.ratios import Ratio, rounds_note, shown_ratio
from benchmarks.measurements.stages import STAGES
from benchmarks.report import drawings
from benchmarks.report.names import rate, title_of
from nerd_export.conversion.gate import VIEWS
from nerd_export.reporting.report_parts import Section, Table

_SPEED_HEAD = ("peer", "tokens/s", "rows/s", "nerd-tag is faster", "start", "peak memory", "entities", "runs", "setup")
_SPEED_ABOUT = (
    "Each run reads a file and writes a file. The figures are medians of interleaved rounds, with minimum and maximum "
    "in brackets. The rates do not include the start (interpreter, imports and model). nerd-tag starts a new process "
    "for each run. Every other peer runs in one process for all workloads, so it is warm. "
)
_FASTER_ABOUT = (
    '"nerd-tag is faster" shows median, minimum and maximum of one ratio per round that both ran; it is bold if there '
    "are at least three rounds."
)


def shape_sections(report: Mapping[str, Any], shape: str) -> Iterator[Section]:
    """Yield the sections of a shape, without the parts that were not measured."""
    facts = report["shapes"][shape]
    architecture = ", ".join(f"{key} {value}" for key, value in facts["model"]["architecture"].items())
    yield Section(f"The {shape} model", [architecture, *_overview(report, shape)])

    for workload in facts["speed"]:
        yield from _speed(report, shape, workload)
    yield from _alone(report, shape)
    yield from _accuracy(report, shape)
    yield from _stages(report, shape)
    yield from _operators(report, shape)


def _overview(report: Mapping[str, Any], shape: str) -> Iterator[Table]:
    """Yield a table with the speed on all workloads."""
    facts = report["shapes"][shape]
    workloads = list(facts["speed"])
    if workloads:
        rows = []
        for peer, of_peer in facts["peers"].items():
            found = [facts["speed"][workload].get(peer) for workload in workloads]
            # A peer without a figure on any workload would be an empty line; the notes say why it did not run.
            if any(found):
                rates = [f"{one['tokens_per_s']['median']:,.0f}" if one else "" for one in found]
                rows.append((title_of(report, shape, peer), *rates, f"{of_peer['size_bytes'] / 1e6:.1f} MB"))

        yield Table(("tokens/s, file to file", *workloads, "size on disk"), rows, frozenset({0}))


def _speed(report: Mapping[str, Any], shape: str, workload: str) -> Iterator[Section]:
    facts = report["shapes"][shape]
    about = facts["workloads"][workload]
    counts = (
        f"{about['rows']:,} rows, {about['tokens']:,} tokens, {about['characters']:,} characters ({about['source']}). "
    )

    ratios = facts["ratios"].get(workload, {})
    rows = [
        (
            title_of(report, shape, peer),
            rate(found["tokens_per_s"]),
            rate(found["rows_per_s"]),
            shown_ratio(ratios[peer]) if peer in ratios else "",
            f"{found['start_s']['median']:.2f} s",
            f"{found['peak_rss_bytes']['median'] / 1e6:,.0f} MB",
            f"{found['entities']:,}",
            str(len(found["runs"])),
            _setup(found["setup"]),
        )
        for peer, found in facts["speed"][workload].items()
    ]

    yield Section(f"{shape}: {workload}", [counts + _SPEED_ABOUT + _FASTER_ABOUT, Table(_SPEED_HEAD, rows)], level=3)


def _setup(setup: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in setup.items()) or "defaults"


def _alone(report: Mapping[str, Any], shape: str) -> Iterator[Section]:
    found = {name: one for name, one in report["shapes"][shape]["alone"].items() if one and one["peers"]}
    if not found:
        return

    peak = next(iter(found.values()))["peak"]
    paired = all("runs" in peer for one in found.values() for peer in one["peers"].values())
    about = (
        "Speed of the networks on their batches, without reading, tokenizing, decoding and writing. The int8 peak of "
        f"the machine, measured in the same rounds on {peak['threads']} threads, is "
        f"{peak['operations_per_s']['median'] / 1e9:,.0f} ({peak['operations_per_s']['min'] / 1e9:,.0f} to "
        f"{peak['operations_per_s']['max'] / 1e9:,.0f}) billion operations per second ({peak['product']}). The share "
        "counts all matrix products of encoder and classifier at any precision, and includes special tokens. "
    )
    about += (
        f"It is the median over the rounds. {_FASTER_ABOUT}"
        if paired
        else "It divides two medians, and there are no other ratios, because this report did not keep the rounds."
    )

    columns = ("tokens/s", "share of int8 peak", *(("nerd-tag is faster",) if paired else ()))
    head = ["peer", *(f"{workload}: {what}" for workload in found for what in columns)]
    rows = []
    for peer in report["shapes"][shape]["peers"]:
        cells = [cell for one in found.values() for cell in _alone_cells(one, peer)[: len(columns)]]
        if any(cells):
            rows.append([title_of(report, shape, peer), *cells])

    yield Section(f"{shape}: the networks alone", [about, Table(head, rows)], level=3)


def _alone_cells(alone: Mapping[str, Any], peer: str) -> tuple[str, str, str]:
    """Return rate, share of the peak and ratio of one peer as text; empty if it did not run."""
    found = alone["peers"].get(peer)
    if not found:
        return "", "", ""

    ratio = alone["ratios"].get(peer)
    return rate(found["tokens_per_s"]), _peak_share(found.get("peak_share")), shown_ratio(ratio) if ratio else ""


def _peak_share(share: Ratio | None) -> str:
    if not share:
        return ""
    return f"{share['median']:.0%}" + (f" ({rounds_note(share)})" if share["rounds"] else "")


def _accuracy(report: Mapping[str, Any], shape: str) -> Iterator[Section]:
    scores = report["shapes"][shape].get("accuracy")
    if not scores:
        return

    about = (
        f"F1 on {scores['sentences']:,} sentences of `{scores['file']}` with {scores['entities']:,} entities. In "
        "brackets: 95% interval of the difference to PyTorch in points of F1, by a paired bootstrap over sentences. "
        "Labels changed: share of the words in raw text whose label differs from PyTorch. Changed by order: number of "
        f"the first {scores['shuffled_texts']:,} texts whose entities change if the texts are shuffled. All networks "
        "in this project's tagger, also nerd-tag's, decode each word by itself, without a calibration. Pipelines and "
        "spaCy decode in their own way, and pipelines do not give the letter case of a text to a model."
    )

    levels = [level for level in VIEWS if any(level in one["f1"] for one in scores["peers"].values())]
    rows = [
        (
            title_of(report, shape, peer),
            *(_f1(one, level) for level in levels),
            f"{one['labels_changed']:.2%}" if "labels_changed" in one else "",
            str(one["texts_changed_by_order"]),
        )
        for peer, one in scores["peers"].items()
    ]

    table = Table(("peer", *(VIEWS[level] for level in levels), "labels changed", "changed by order"), rows)
    failed = tuple(f"{peer}: {reason}" for peer, reason in scores["failed"].items())
    plots = [plot for plot in (drawings.f1_by_label(report, shape),) if plot]
    yield Section(f"{shape}: accuracy", [about, table, *plots, *([failed] if failed else [])], level=3)


def _f1(scores: Mapping[str, Any], level: str) -> str:
    if level not in scores["f1"]:
        return ""

    difference = scores.get("against_pytorch", {}).get(level)
    interval = f" ({100 * difference['low']:+.2f} to {100 * difference['high']:+.2f})" if difference else ""
    return f"{scores['f1'][level]:.4f}{interval}"


def _stages(report: Mapping[str, Any], shape: str) -> Iterator[Section]:
    stages = {name: one for name, one in report["shapes"][shape]["stages"].items() if one}
    if not stages:
        return

    about = (
        "Share of the processor time of nerd-tag by stage, from a separate run with a clock around each stage. Other: "
        "for example closing the output and starting threads."
    )
    rows = []
    for workload, found in stages.items():
        shares = [f"{found['stages_s'][stage] / found['cpu_s']:.1%}" for stage in STAGES]
        # Below 100%, threads waited: for the disk, for the input, or for each other.
        busy = found["cpu_s"] / found["wall_s"] / found["threads"]
        rows.append((workload, *shares, f"{busy:.0%}"))

    plot = drawings.time_by_stage(report, shape)
    table = Table(("workload", *STAGES, "processors in use"), rows)
    yield Section(f"{shape}: processor time by stage", [about, *([plot] if plot else []), table], level=3)


def _operators(report: Mapping[str, Any], shape: str) -> Iterator[Section]:
    found = {name: one for name, one in report["shapes"][shape].get("operators", {}).items() if one}
    if not found:
        return

    about = (
        "Share of the time of the int8 graph by operator, by the profiler of onnxruntime: one call at a time, after a "
        "warm-up. The number of nodes is in brackets."
    )

    totals = {name: sum(kind["seconds"] for kind in one["operators"].values()) for name, one in found.items()}
    kinds = list(dict.fromkeys(kind for one in found.values() for kind in one["operators"] if kind != "others"))
    rows = [
        (kind, *(_share(one["operators"].get(kind), totals[name]) for name, one in found.items()))
        # "others" of one workload may hold operators that have a row because of another workload.
        for kind in [*kinds, "others"]
    ]

    yield Section(f"{shape}: network time by operator", [about, Table(("operator", *found), rows)], level=3)


def _share(found: Mapping[str, Any] | None, total: float) -> str:
    return f"{found['seconds'] / total:.1%} ({found['nodes']})" if found else ""
