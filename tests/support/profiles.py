"""How many examples tests try: few in the README's command, ten times as many in ``make test-slow``."""

from __future__ import annotations

import os

from hypothesis import settings

_MINIMUM = 5


def name() -> str:
    """Return the profile of the environment variable ``NERD_TEST_PROFILE``: ``ci``, or ``fast`` without it."""
    return os.environ.get("NERD_TEST_PROFILE") or "fast"


def load() -> None:
    """Register the profiles and choose one. Shared machines are slow at times, so no example has a deadline."""
    settings.register_profile("fast", max_examples=10, deadline=None)
    settings.register_profile("ci", max_examples=100, deadline=None)
    settings.load_profile(name())


def example_count(in_ci: int) -> int:
    """Return how many examples a test takes that needs another number than most: a tenth in the profile ``fast``."""
    return in_ci if name() == "ci" else max(in_ci // 10, _MINIMUM)
