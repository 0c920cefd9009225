"""Goals of the project on two cores, and whether a report reaches them. A missed goal does not fail a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.measurements.ratios import Ratio, rounds_note
from benchmarks.peers import BASELINE, SUBJECT

_FLAT_FROM_ROWS = 10_000


class Figure(NamedTuple):
    """
    A measured figure.

    :param note: for a ratio, the number of its rounds
    """

    value: float
    note: str = ""


Reader = Callable[[Mapping[str, Any]], Figure | None]


@dataclass(frozen=True)
class Goal:
    """
    A limit for one figure of a report.

    :param read: returns the figure of a report; None if it was not measured
    :param limit: minimum value; maximum value if ``at_most``
    :param form: format of the figure as text
    """

    name: str
    read: Reader
    limit: float
    at_most: bool = False
    form: str = "{:.2f}x"


def judged(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return ``name``, ``goal``, ``measured`` and ``met`` of each goal whose figure was measured."""
    result = []

    for goal in _goals():
        figure = goal.read(report)
        # A part that was not measured is neither met nor missed.
        if figure is None:
            continue

        value, note = figure
        result.append(
            {
                "name": goal.name,
                "goal": f"at {'most' if goal.at_most else 'least'} {goal.form.format(goal.limit)}",
                "measured": goal.form.format(value) + (f" ({note})" if note else ""),
                "met": value <= goal.limit if goal.at_most else value >= goal.limit,
            }
        )

    return result


def _goals() -> Iterator[Goal]:
    """Yield the goals."""
    places = (("small", "short"), ("small", "long"), ("base", "short"))

    for peer, title, limits in (
        (BASELINE, "transformers pipeline", (8, 6, 6)),
        ("optimum_int8", "optimum pipeline, its int8", (3, 3, 2)),
    ):
        for (shape, workload), limit in zip(places, limits, strict=True):
            yield Goal(f"{shape}, {workload}: file to file against the {title}", _ratio(shape, workload, peer), limit)

    for shape, workload in places:
        yield Goal(f"{shape}, {workload}: network alone against OpenVINO int8", _alone(shape, workload), 1.0)
    for (shape, workload), limit in zip(places, (65, 55, 75), strict=True):
        yield Goal(
            f"{shape}, {workload}: share of the int8 peak, network alone", _peak(shape, workload), limit, form="{:.0f}%"
        )

    for (shape, workload), limit in zip(places, (10, 10, 5), strict=True):
        name = f"{shape}, {workload}: share of processor time outside the model"
        yield Goal(name, _outside_model(shape, workload), limit, at_most=True, form="{:.1f}%")
    for shape, limit in (("small", 400), ("base", 700)):
        yield Goal(f"{shape}: peak memory", _memory(shape), limit, at_most=True, form="{:.0f} MB")
    yield Goal("small: memory for the largest file against 10,000 rows", _flatness, 1.1, at_most=True)
    for name, what, limit_s in (
        ("nerd-tag --help", "help_s", 0.3),
        ("first entity, warm start", "first_entity_s", 1.5),
    ):
        yield Goal(name, _start(what), limit_s, at_most=True, form="{:.2f} s")


def _ratio(shape: str, workload: str, peer: str) -> Reader:
    return lambda report: _figure(_at(report, "shapes", shape, "ratios", workload, peer))


def _alone(shape: str, workload: str) -> Reader:
    return lambda report: _figure(_at(report, "shapes", shape, "alone", workload, "ratios", "openvino_int8"))


def _peak(shape: str, workload: str) -> Reader:
    place = ("shapes", shape, "alone", workload, "peers", SUBJECT, "peak_share")
    return lambda report: _figure(_at(report, *place), 100)


def _figure(ratio: Ratio | None, scale: float = 1) -> Figure | None:
    return Figure(scale * ratio["median"], rounds_note(ratio)) if ratio else None


def _outside_model(shape: str, workload: str) -> Reader:
    def read(report: Mapping[str, Any]) -> Figure | None:
        found = _at(report, "shapes", shape, "stages", workload)
        # From processor time, because stages of several threads overlap in wall time.
        return Figure(100 * (1 - found["stages_s"]["model"] / found["cpu_s"])) if found else None

    return read


def _memory(shape: str) -> Reader:
    def read(report: Mapping[str, Any]) -> Figure | None:
        peers_by_workload = (_at(report, "shapes", shape, "speed") or {}).values()
        peaks = [_at(peers, SUBJECT, "peak_rss_bytes", "max") for peers in peers_by_workload]
        # The maximum of only some workloads would look better than it is.
        return Figure(max(peaks) / 1e6) if peaks and None not in peaks else None

    return read


def _start(what: str) -> Reader:
    def read(report: Mapping[str, Any]) -> Figure | None:
        seconds = _at(report, "start", what, "median")
        return None if seconds is None else Figure(seconds)

    return read


def _flatness(report: Mapping[str, Any]) -> Figure | None:
    """Return the memory of the largest file divided by that of 10,000 rows; None without a larger file."""
    points = {point["rows"]: point["peak_rss_bytes"] for point in _at(report, "growth", "rows") or ()}
    base = points.get(_FLAT_FROM_ROWS)
    if not base or max(points) == _FLAT_FROM_ROWS:
        return None

    return Figure(points[max(points)] / base)


def _at(data: Any, *keys: str) -> Any:
    """Return the value at a path of keys; None if the report does not have it, for example after a failed step."""
    for key in keys:
        if not isinstance(data, Mapping) or key not in data:
            return None
        data = data[key]
    return data
