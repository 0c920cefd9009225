"""What the project wants to reach on two cores, beside what a report measured. A goal missed fails nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SUBJECT = "nerd_tag"
_FLAT_FROM_ROWS = 10_000


@dataclass(frozen=True)
class Goal:
    """
    One goal.

    :param measured: reads its figure off a report; KeyError, TypeError or IndexError where it was not measured
    :param limit: least value, or largest where ``at_most``
    :param form: how the figure is shown
    """

    name: str
    measured: Callable[[Mapping[str, Any]], float]
    limit: float
    at_most: bool = False
    form: str = "{:.2f}x"


def judged(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give each goal that was measured: ``name``, ``goal``, ``measured`` and ``met``."""
    result = []
    for goal in _goals():
        try:
            value = goal.measured(report)
        except (KeyError, TypeError, IndexError, ZeroDivisionError, ValueError):
            continue
        result.append(
            {
                "name": goal.name,
                "goal": f"at {'most' if goal.at_most else 'least'} {goal.form.format(goal.limit)}",
                "measured": goal.form.format(value),
                "met": value <= goal.limit if goal.at_most else value >= goal.limit,
            }
        )
    return result


def peak_share(report: Mapping[str, Any], shape: str, workload: str, peer: str = SUBJECT) -> float:
    """Tell which share of the machine's int8 peak a network reaches alone, 0 to 1."""
    alone = report["shapes"][shape]["alone"][workload]
    operations = alone["peers"][peer]["operations_per_s"]["median"]
    return float(operations / alone["peak"]["operations_per_s"]["median"])


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
    yield Goal("nerd-tag --help", lambda r: float(r["start"]["help_s"]["median"]), 0.3, at_most=True, form="{:.2f} s")
    yield Goal(
        "first entity, warm start",
        lambda r: float(r["start"]["first_entity_s"]["median"]),
        1.5,
        at_most=True,
        form="{:.2f} s",
    )


def _ratio(shape: str, workload: str, peer: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda report: float(report["shapes"][shape]["ratios"][workload][peer]["tagging"])


def _alone(shape: str, workload: str) -> Callable[[Mapping[str, Any]], float]:
    def measured(report: Mapping[str, Any]) -> float:
        peers = report["shapes"][shape]["alone"][workload]["peers"]
        rates = [float(peers[name]["tokens_per_s"]["median"]) for name in (SUBJECT, "openvino_int8")]
        return rates[0] / rates[1]

    return measured


def _peak(shape: str, workload: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda report: 100 * peak_share(report, shape, workload)


def _around(shape: str, workload: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda report: 100 * around_share(report, shape, workload)


def _memory(shape: str) -> Callable[[Mapping[str, Any]], float]:
    def measured(report: Mapping[str, Any]) -> float:
        speed = report["shapes"][shape]["speed"]
        return max(float(peers[SUBJECT]["peak_rss_bytes"]["max"]) for peers in speed.values()) / 1e6

    return measured


def _flatness(report: Mapping[str, Any]) -> float:
    points = {point["rows"]: float(point["peak_rss_bytes"]) for point in report["growth"]["rows"]}
    most = max(points)
    if most <= _FLAT_FROM_ROWS:
        raise ValueError
    return points[most] / points[_FLAT_FROM_ROWS]
