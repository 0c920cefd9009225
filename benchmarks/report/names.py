"""Texts for figures and peers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def rate(figures: Mapping[str, float]) -> str:
    """Return a median with minimum and maximum as text."""
    digits = 0 if figures["median"] >= 100 else 1  # noqa: PLR2004
    return f"{figures['median']:,.{digits}f} ({figures['min']:,.{digits}f} to {figures['max']:,.{digits}f})"


def title_of(report: Mapping[str, Any], shape: str, peer: str) -> str:
    """Return the title of a peer; its name if the report has no title."""
    return str(report["shapes"][shape]["peers"].get(peer, {}).get("title", peer))
