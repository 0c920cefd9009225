"""Plots as SVG without a library or scripts; the colours come from the style sheet of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 40
_LINE = 13  # height of a line of text
_MARK = 6  # half the width of a point
_LETTER = 5.7  # width of a letter, about


@dataclass(frozen=True)
class Axis:
    """
    The axis of a chart.

    :param show: returns the label of a value
    :param ticks: values with a label
    """

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    show: Callable[[float], str]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Return the position of a value: 0 at the start of the axis, 1 at its end."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, 1e-12))
        return (value - low) / (high - low) if high > low else 0.5


@dataclass(frozen=True)
class Point:
    """A labelled point; ``style`` is a class of the page's style sheet."""

    x: float
    y: float
    label: str
    style: str


def number(value: float) -> str:
    """Return a number in few characters."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def linear_axis(title: str, low: float, high: float, show: Callable[[float], str] = number) -> Axis:
    """Return an axis with round ticks around the values."""
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)  # noqa: PLR2004

    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [i * step for i in range(first, last + 1)]
    return Axis(title, ticks[0], ticks[-1], ticks, show)


def logarithmic_axis(title: str, low: float, high: float, show: Callable[[float], str] = number) -> Axis:
    """Return an axis of powers of ten around the values."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    ticks = [10.0**i for i in range(first, max(last, first + 1) + 1)]
    return Axis(title, ticks[0], ticks[-1], ticks, show, logarithmic=True)


class Chart:
    """
    A chart with two axes.

    :param height: height of the drawing; its width is fixed
    """

    def __init__(self, x: Axis, y: Axis, height: int = 300) -> None:
        self._x, self._y, self._height = x, y, height
        self._parts: list[str] = []
        self._axes()

    def points(self, points: Sequence[Point]) -> None:
        """Draw points, each with its label beside it; labels do not overlap."""
        for point, (text_x, text_y, anchor) in zip(points, self.label_places(points), strict=True):
            x, y = self._at(point.x, point.y)
            self._parts.append(f'<circle class="{point.style}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')

            if abs(text_y - y) > _LINE / 2:
                self._parts.append(
                    f'<line class="leader" x1="{x:.1f}" y1="{y:.1f}" x2="{text_x:.1f}" y2="{text_y:.1f}"/>'
                )
            self._parts.append(
                f'<text class="label {point.style}-text" x="{text_x:.1f}" y="{text_y + 4:.1f}" '
                f'text-anchor="{anchor}">{escape(point.label)}</text>'
            )

    def line(self, values: Sequence[tuple[float, float]], style: str, labels: Sequence[str]) -> None:
        """Draw a line through points, each with a label above it."""
        places = [self._at(*value) for value in values]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        self._parts.append(f'<polyline class="{style}-line" points="{path}"/>')

        for number_, ((x, y), label) in enumerate(zip(places, labels, strict=True)):
            anchor = "start" if number_ == 0 else "end" if number_ == len(places) - 1 else "middle"
            self._parts.append(f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
            self._parts.append(
                f'<text class="label" x="{x:.1f}" y="{y - 9:.1f}" text-anchor="{anchor}">{escape(label)}</text>'
            )

    def svg(self, description: str) -> str:
        """Return the drawing as an SVG element."""
        return drawing(self._parts, self._height, description)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        width, height = WIDTH - _LEFT - _RIGHT, self._height - _TOP - _BOTTOM
        return _LEFT + width * self._x.share(x), _TOP + height * (1 - self._y.share(y))

    def _axes(self) -> None:
        bottom, right = self._height - _BOTTOM, WIDTH - _RIGHT
        for tick in self._y.ticks:
            y = self._at(self._x.low, tick)[1]
            self._parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
            self._parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{self._y.show(tick)}</text>')

        for tick in self._x.ticks:
            x = self._at(tick, self._y.low)[0]
            self._parts.append(f'<line class="grid" x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 4}"/>')
            self._parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{self._x.show(tick)}</text>')

        middle = (_LEFT + right) / 2
        self._parts.append(
            f'<text class="axis" x="{middle}" y="{self._height - 6}" text-anchor="middle">'
            f"{escape(self._x.title)}</text>"
        )
        self._parts.append(f'<text class="axis" x="{_LEFT}" y="{_TOP - 4}">{escape(self._y.title)}</text>')

    def label_places(self, points: Sequence[Point]) -> list[tuple[float, float, str]]:
        """Return places of labels beside their points; a label that would overlap moves to the next free line."""
        marks = [self._at(point.x, point.y) for point in points]
        # A label must not cover any point, not only its own.
        taken = [(y, x - _MARK, x + _MARK) for x, y in marks]
        places: dict[int, tuple[float, float, str]] = {}

        for i in sorted(range(len(points)), key=lambda i: marks[i][1]):
            x, y = marks[i]
            width = _LETTER * len(points[i].label)
            right = x + 9 + width <= WIDTH - 2
            begin = x + 9 if right else x - 9 - width

            place = self._free_line(y, begin, begin + width, taken)
            taken.append((place, begin, begin + width))
            places[i] = (begin if right else begin + width, place, "start" if right else "end")

        return [places[i] for i in range(len(points))]

    def _free_line(self, y: float, begin: float, end: float, taken: Sequence[tuple[float, float, float]]) -> float:
        """
        Return the height nearest to ``y`` at which a label is free; ``y`` if there is none.

        :param taken: height, begin and end of each label and point
        """
        for line in sorted(range(-8, 9), key=abs):
            at = y + line * _LINE / 2
            is_inside = _TOP - 4 <= at <= self._height - _BOTTOM - 2
            if is_inside and all(abs(at - other) >= _LINE or end < low or begin > high for other, low, high in taken):
                return at
        return y


def bars(rows: Sequence[tuple[str, Sequence[tuple[float, str, str]]]], most: float, description: str) -> str:
    """
    Draw horizontal bars.

    :param rows: name of each row and its bars, one below the other: length, style, label
    :param most: length of a full bar
    """
    parts: list[str] = []
    left = round(8 + _LETTER * max((len(name) for name, _ in rows), default=0))
    y = 6.0
    width = WIDTH - left - 44

    for name, of_row in rows:
        height = 15 if len(of_row) == 1 else 9
        middle = y + height * len(of_row) / 2 + 4
        parts.append(f'<text x="{left - 6}" y="{middle:.1f}" text-anchor="end">{escape(name)}</text>')

        for length, style, label in of_row:
            size = max(0.0, width * length / most) if most else 0.0
            parts.append(
                f'<rect class="{style}" x="{left}" y="{y:.1f}" width="{size:.1f}" height="{height - 1.5}" rx="1.5"/>'
            )
            parts.append(
                f'<text class="small" x="{left + size + 4:.1f}" y="{y + height - 2:.1f}">{escape(label)}</text>'
            )
            y += height

        y += 6

    return drawing(parts, round(y), description)


def stacked(rows: Sequence[tuple[str, Sequence[tuple[float, str]]]], description: str) -> str:
    """
    Draw rows that are divided into parts.

    :param rows: name of each row and its parts: share of the whole, style
    """
    parts: list[str] = []
    left = 64
    width = WIDTH - left - 4

    for number_, (name, shares) in enumerate(rows):
        y, x = 4 + number_ * 30, float(left)
        parts.append(f'<text x="{left - 6}" y="{y + 16}" text-anchor="end">{escape(name)}</text>')
        for share, style in shares:
            size = width * share
            parts.append(f'<rect class="{style}" x="{x:.1f}" y="{y}" width="{max(0, size - 1):.1f}" height="22"/>')
            if share >= 0.08:  # noqa: PLR2004 - room for a label
                parts.append(
                    f'<text class="inside" x="{x + size / 2:.1f}" y="{y + 15}" text-anchor="middle">{share:.0%}</text>'
                )
            x += size

    return drawing(parts, 8 + 30 * len(rows), description)


def drawing(parts: Sequence[str], height: int, description: str) -> str:
    """Return parts as one SVG element that fills the available width."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(description, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )
