"""
Write engines.md and engines.svg, nerd-tag beside other programs: ``python docs/make_engines.py``.

Every figure is from the reports in ``benchmarks/results``. Of each kind of processor, the newest report counts that
compared at least ``FEWEST_PROGRAMS`` other programs on short rows; of F1, the newest report that compared so many,
wherever it ran. So a new report needs no change here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MODEL = ROOT / "nerd_onnx" / "default_model" / "model.onnx"
PAGE = Path(__file__).with_name("engines.md")
PICTURE = Path(__file__).with_name("engines.svg")

FORMAT = 3  # of reports
FEWEST_PROGRAMS = 3
ROUNDS = 3  # of a ratio that is a firm claim
SHAPE = "small"  # that of the default model
SUBJECT = "nerd_tag"
OTHER_MODEL = "nerd_tag_other"  # nerd-tag with another bundle; the page is about programs, and leaves it out
VARIANTS = {OTHER_MODEL, "nerd_tag_fp32", "nerd_tag_onnxruntime"}  # nerd-tag, too
KINDS = ("with VNNI", "without VNNI", "ARM")
WORKLOADS = {
    "short": "short rows",
    "long": "paragraphs",
    "ragged": "texts of mixed lengths",
    "novels": "whole novels",
    "repeats": "rows that occur eight times",
}

_HEAD = """# Programs compared

This page compares nerd-tag with other programs, on processors with and without VNNI (instructions for 8-bit integers).
All programs run the same weights, except for spaCy. For each kind of processor, the page shows the newest report that
compared at least three other programs. [Measurements](measurements.md) explains the reports, and
[alternatives](alternatives.md) says when to choose another program.

![Tokens per second of each program, for each kind of processor](engines.svg)

How to read the tables:

- A speed is in tokens per second, from file to file, without loading the model. The programs ran in turns, in several
  rounds; the speed is the median.
- "1.37 times" means that nerd-tag is 1.37 times as fast as the program. Each round gives one ratio of the two speeds.
  The table shows the median ratio, with minimum and maximum in brackets. So it is not exactly the quotient of the two
  speeds, unless the cell says so. Below 1, the other program is faster. Ratios of fewer than three rounds are marked:
  they are uncertain.
- "Our batches" means that the program runs the network, and nerd-tag's code does the tokenization and batching.
- Compare only within a table: the reports are from different machines, days and default models.

The page is written by `python docs/make_engines.py` from the reports in `benchmarks/results`.
"""

_WIDTH = 640
_BAR, _GAP = 18, 8
_NAMES, _BARS = 310, 260  # widths in the picture
_OURS, _VARIANT, _THEIRS = "#1c7ed6", "#a5d8ff", "#ced4da"


@dataclass(frozen=True)
class Report:
    """
    A report of the benchmarks.

    :param file: its name
    :param content: its JSON
    """

    file: str
    content: Mapping[str, Any]

    @property
    def shape(self) -> Mapping[str, Any]:
        """The figures of models with the shape of the default model."""
        found: Mapping[str, Any] = self.content["shapes"].get(SHAPE, {})
        return found

    @property
    def kind(self) -> str:
        """The kind of its processor, one of ``KINDS``."""
        machine = self.content["machine"]
        if "x86_64" not in machine["system"] and "AMD64" not in machine["system"]:
            return "ARM"
        return "with VNNI" if any("vnni" in flag for flag in machine["cpu_flags"]) else "without VNNI"

    @property
    def place(self) -> str:
        """Processor, number of cores and date, as text."""
        machine = self.content["machine"]
        features = ", ".join(machine["cpu_flags"]) or "no features recorded"
        return f"{machine['cores']} cores of {machine['cpu']} ({features}), {self.content['started'][:10]}"

    def title(self, peer: str) -> str:
        """Return the title of a program."""
        return str(self.shape["peers"].get(peer, {}).get("title", peer))


def reports() -> list[Report]:
    """Return the reports of the suite in the current format, newest first."""
    read = [Report(file.name, json.loads(file.read_text("utf-8"))) for file in sorted(RESULTS.glob("*.json"))]
    found = [report for report in read if report.content.get("format_version") == FORMAT]
    return sorted(found, key=lambda report: str(report.content["started"]), reverse=True)


def of_speed(found: Iterable[Report]) -> dict[str, Report]:
    """Return the report that counts for each kind of processor that has one. :param found: newest first"""
    chosen: dict[str, Report] = {}
    for report in found:
        if _others(report.shape.get("speed", {}).get("short", {})) >= FEWEST_PROGRAMS:
            chosen.setdefault(report.kind, report)
    return {kind: chosen[kind] for kind in KINDS if kind in chosen}


def of_accuracy(found: Iterable[Report]) -> Report | None:
    """Return the report whose F1 counts; None if no report compared enough programs. :param found: newest first"""
    for report in found:
        if _others((report.shape.get("accuracy") or {}).get("peers", {})) >= FEWEST_PROGRAMS:
            return report
    return None


def _others(peers: Iterable[str]) -> int:
    """Return the number of programs that are not nerd-tag."""
    return len(set(peers) - VARIANTS - {SUBJECT})


def page(found: Sequence[Report]) -> str:
    """Return engines.md. :param found: newest first"""
    model = sha256(MODEL.read_bytes()).hexdigest()
    sections = [section for kind, report in of_speed(found).items() for section in _speed(kind, report, model)]
    accuracy = of_accuracy(found)
    return "\n".join([_HEAD, *sections, *(_accuracy(accuracy, model) if accuracy else ())])


def _speed(kind: str, report: Report, model: str) -> Iterator[str]:
    """Yield the lines about one kind of processor."""
    shape = report.shape
    yield f"## {kind[0].upper()}{kind[1:]}\n"
    yield f"{report.place}. {_model_of(report, model)} Report: `benchmarks/results/{report.file}`.\n"

    workloads = [name for name in WORKLOADS if name in shape["speed"]]
    yield from _table(
        ["tokens per second", *(f"{WORKLOADS[name]} ({_tokens(shape, name)} tokens)" for name in workloads)],
        [
            [_name(report, peer), *(_cell(shape["speed"], shape["ratios"], name, peer) for name in workloads)]
            for peer in shape["speed"]["short"]
            if peer != OTHER_MODEL
        ],
    )
    yield from _network(report)
    yield from _faster(report, workloads)


def _model_of(report: Report, model: str) -> str:
    """Return which model the report is about. :param model: SHA-256 of today's graph"""
    measured = report.shape["model"]
    which = "The default model" if measured["sha256"] == model else "An earlier default model"

    weights = "with random weights of its shape for the other programs" if measured["random_weights"] else ""
    kernel = (
        "nerd-tag ran its native encoder."
        if "nerd_tag_onnxruntime" in report.shape["speed"]["short"]
        else "The report does not compare nerd-tag with the native encoder and with onnxruntime."
    )

    return f"{which}{' ' + weights if weights else ''}, {measured['quantization']}. {kernel}"


def _tokens(shape: Mapping[str, Any], workload: str) -> str:
    """Return the mean number of tokens in a row."""
    facts = shape["workloads"][workload]
    return f"{facts['tokens'] / facts['rows']:,.0f}"


def _name(report: Report, peer: str) -> str:
    title = report.title(peer)
    return f"**{title}**" if peer == SUBJECT else title


def _cell(speed: Mapping[str, Any], ratios: Mapping[str, Any], workload: str, peer: str) -> str:
    """Return the speed of a program, and the speed of nerd-tag as a multiple of it."""
    figures = speed[workload].get(peer)
    if figures is None:
        return ""
    rate = f"{figures['tokens_per_s']['median']:,.0f}"
    if peer == SUBJECT:
        return f"**{rate}**"

    ratio = ratios[workload].get(peer)
    return f"{rate}: {_ratio(ratio)}" if ratio else rate


def _ratio(ratio: Mapping[str, Any]) -> str:
    if not ratio["rounds"]:  # a report of an earlier format, which did not keep the rounds
        return f"{ratio['median']:.2f} times, quotient of the speeds"

    few = "" if ratio["rounds"] >= ROUNDS else f"; {ratio['rounds']} rounds"
    return f"{ratio['median']:.2f} times ({ratio['min']:.2f} to {ratio['max']:.2f}{few})"


def _network(report: Report) -> Iterator[str]:
    """Yield a table of the networks alone, without reading, tokenizing and decoding."""
    alone = {name: found for name, found in (report.shape.get("alone") or {}).items() if found and name in WORKLOADS}
    if not alone:
        return

    yield "The network alone, without reading, tokenizing and decoding:\n"

    speed = {name: found["peers"] for name, found in alone.items()}
    ratios = {name: found["ratios"] for name, found in alone.items()}
    peers = [peer for peer in next(iter(speed.values())) if peer != OTHER_MODEL]
    yield from _table(
        ["tokens per second", *(WORKLOADS[name] for name in alone)],
        [[_name(report, peer), *(_cell(speed, ratios, name, peer) for name in alone)] for peer in peers],
    )


def _faster(report: Report, workloads: Sequence[str]) -> Iterator[str]:
    """Yield a list of what is faster than nerd-tag."""
    lines = [
        f"- {report.title(peer)}, {WORKLOADS[name]}: {_ratio(ratio)}"
        for name in workloads
        for peer, ratio in report.shape["ratios"][name].items()
        if peer not in VARIANTS and ratio["median"] < 1
    ]

    if lines:
        yield "\n".join(["Faster than nerd-tag here:", "", *lines, ""])


def _accuracy(report: Report, model: str) -> Iterator[str]:
    """Yield the section about F1."""
    facts = report.shape["accuracy"]
    which = "default model" if report.shape["model"]["sha256"] == model else "default model of that day"

    yield "## F1\n"
    yield (
        f"{facts['sentences']:,} sentences with {facts['entities']:,} entities of Few-NERD's dev split, written as "
        f"normal text, and the {which}. {report.place}. Report: `benchmarks/results/{report.file}`.\n"
    )
    yield from _table(
        ["program", "8 coarse labels", "66 fine labels", "texts that changed with the order"],
        [
            [
                _name(report, peer),
                *(f"{found['f1'][level]:.4f}" if level in found["f1"] else "" for level in ("raw", "fine_raw")),
                str(found.get("texts_changed_by_order", "")),
            ]
            for peer, found in facts["peers"].items()
            if peer != OTHER_MODEL
        ],
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    yield "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines, ""])


def picture(found: Sequence[Report]) -> str:
    """Return engines.svg: a bar plot for each kind of processor. :param found: newest first"""
    top = 14
    parts: list[str] = []
    for kind, report in of_speed(found).items():
        drawn = list(_bars(kind, report, top))
        parts += drawn
        # A name, a bar and a speed for each program; the heading is one more.
        top += 34 + (_BAR + _GAP) * (len(drawn) // 3) + 14
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" role="img"',
            ' font-family="sans-serif">',
            "<title>Tokens per second on short rows</title>",
            f'<rect width="{_WIDTH}" height="{top}" rx="8" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _bars(kind: str, report: Report, top: int) -> Iterator[str]:
    """Yield a heading, and name, bar and speed of each program, fastest first."""
    speed = report.shape["speed"]["short"]
    rates = {peer: figures["tokens_per_s"]["median"] for peer, figures in speed.items() if peer != OTHER_MODEL}

    heading = f"Tokens per second, short rows, {kind} ({report.content['machine']['cores']} cores)"
    yield f'<text x="20" y="{top + 16}" font-size="14" font-weight="bold" fill="#212529">{escape(heading)}</text>'

    for number, (peer, rate) in enumerate(sorted(rates.items(), key=lambda item: -item[1])):
        y = top + 30 + number * (_BAR + _GAP)
        length = _BARS * rate / max(rates.values())
        colour = _OURS if peer == SUBJECT else _VARIANT if peer in VARIANTS else _THEIRS

        text = f'y="{y + 14}" font-size="12" fill="#343a40"'
        yield f'<text x="20" {text}>{escape(report.title(peer))}</text>'
        yield f'<rect x="{_NAMES}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="3" fill="{colour}"/>'
        yield f'<text x="{_NAMES + length + 6:.1f}" {text}>{rate:,.0f}</text>'


if __name__ == "__main__":
    _found = reports()
    PAGE.write_text(page(_found), "utf-8")
    PICTURE.write_text(picture(_found), "utf-8")
