"""What the project wants to reach on two cores, beside what a report measured. A goal missed fails nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.measurements.ratios import Ratio, rounds_note

SUBJECT = "nerd_tag"
_FLAT_FROM_ROWS = 10_000


class Figure(NamedTuple):
    """
    What was measured.

    :param note: of a ratio: how many rounds it rests on
    """

    value: float
    note: str = ""


@dataclass(frozen=True)
class Goal:
    """
    One goal.

    :param measured: reads its figure off a report; KeyError, TypeError or IndexError where it was not measured
    :param limit: least value, or largest where ``at_most``
    :param form: how the figure is shown
    """

    name: str
    measured: Callable[[Mapping[str, Any]], Figure]
    limit: float
    at_most: bool = False
    form: str = "{:.2f}x"


def judged(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give each goal that was measured: ``name``, ``goal``, ``measured`` and ``met``."""
    result = []

    for goal in _goals():
        try:
            value, note = goal.measured(report)
        except (KeyError, TypeError, IndexError, ZeroDivisionError, ValueError):
            continue
        result.append(
            {
                "name": goal.name,
                "goal": f"at {'most' if goal.at_most else 'least'} {goal.form.format(goal.limit)}",
                "measured": goal.form.format(value) + (f" ({note})" if note else ""),
                "met": value <= goal.limit if goal.at_most else value >= goal.limit,
            }
        )

    return result


def around_share(report: Mapping[str, Any], shape: str, workload: str) -> float:
    """Tell which share of the processor time everything around the model takes, 0 to 1."""
    found = report["shapes"][shape]["stages"][workload]
    return float(1 - found["stages_s"]["model"] / found["cpu_s"])


def _goals() -> Iterator[Goal]:
    """List the goals, with the places of the report they are read from."""
    places = (("small", "short"), ("small", "long"), ("base", "short"))

    for peer, title, limits in (
        ("transformers_pipeline", "transformers pipeline", (8, 6, 6)),
        ("optimum_int8", "optimum pipeline, its int8", (3, 3, 2)),
    ):
        for (shape, workload), limit in zip(places, limits, strict=True):
            yield Goal(f"{shape}, {workload}: file to file against the {title}", _ratio(shape, workload, peer), limit)
    for shape, workload in places:
        yield Goal(f"{shape}, {workload}: model alone against OpenVINO int8", _alone(shape, workload), 1.0)
    for (shape, workload), limit in zip(places, (65, 55, 75), strict=True):
        yield Goal(
            f"{shape}, {workload}: share of the int8 peak, model alone", _peak(shape, workload), limit, form="{:.0f}%"
        )
    for (shape, workload), limit in zip(places, (10, 10, 5), strict=True):
        name = f"{shape}, {workload}: all but the model, share of processor time"
        yield Goal(name, _around(shape, workload), limit, at_most=True, form="{:.1f}%")
    for shape, limit in (("small", 400), ("base", 700)):
        yield Goal(f"{shape}: peak memory", _memory(shape), limit, at_most=True, form="{:.0f} MB")
    yield Goal("small: memory of most rows against that of 10,000", _flatness, 1.1, at_most=True)
    for name, what, most_s in (("nerd-tag --help", "help_s", 0.3), ("first entity, warm start", "first_entity_s", 1.5)):
        yield Goal(name, _start(what), most_s, at_most=True, form="{:.2f} s")


def _ratio(shape: str, workload: str, peer: str) -> Callable[[Mapping[str, Any]], Figure]:
    return lambda report: _figure(report["shapes"][shape]["ratios"][workload][peer])


def _alone(shape: str, workload: str) -> Callable[[Mapping[str, Any]], Figure]:
    return lambda report: _figure(report["shapes"][shape]["alone"][workload]["ratios"]["openvino_int8"])


def _peak(shape: str, workload: str) -> Callable[[Mapping[str, Any]], Figure]:
    return lambda report: _figure(report["shapes"][shape]["alone"][workload]["peers"][SUBJECT]["peak_share"], 100)


def _figure(ratio: Ratio, scale: float = 1) -> Figure:
    return Figure(scale * ratio["median"], rounds_note(ratio))


def _around(shape: str, workload: str) -> Callable[[Mapping[str, Any]], Figure]:
    return lambda report: Figure(100 * around_share(report, shape, workload))


def _memory(shape: str) -> Callable[[Mapping[str, Any]], Figure]:
    def measured(report: Mapping[str, Any]) -> Figure:
        speed = report["shapes"][shape]["speed"]
        return Figure(max(float(peers[SUBJECT]["peak_rss_bytes"]["max"]) for peers in speed.values()) / 1e6)

    return measured


def _start(what: str) -> Callable[[Mapping[str, Any]], Figure]:
    return lambda report: Figure(float(report["start"][what]["median"]))


def _flatness(report: Mapping[str, Any]) -> Figure:
    points = {point["rows"]: float(point["peak_rss_bytes"]) for point in report["growth"]["rows"]}
    most = max(points)
    if most <= _FLAT_FROM_ROWS:
        raise ValueError
    return Figure(points[most] / points[_FLAT_FROM_ROWS])
