"""How figures and peers are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def rate(figures: Mapping[str, float]) -> str:
    """Show a median with its least and greatest value."""
    digits = 0 if figures["median"] >= 100 else 1  # noqa: PLR2004
    return f"{figures['median']:,.{digits}f} ({figures['min']:,.{digits}f} to {figures['max']:,.{digits}f})"


def title_of(report: Mapping[str, Any], shape: str, peer: str) -> str:
    """Name a peer as readers know it."""
    return str(report["shapes"][shape]["peers"].get(peer, {}).get("title", peer))
