"""How many examples hypothesis tries: few on a developer's machine, more in CI."""

from __future__ import annotations

import os

from hypothesis import settings

_MINIMUM = 5


def name() -> str:
    """Return the profile of the environment variable ``NERD_TEST_PROFILE``; without it CI has its own."""
    return os.environ.get("NERD_TEST_PROFILE") or ("ci" if os.environ.get("CI") else "fast")


def load() -> None:
    """Register the profiles and choose one. Shared machines are slow at times, so no example has a deadline."""
    settings.register_profile("fast", max_examples=10, deadline=None)
    settings.register_profile("ci", max_examples=100, deadline=None)
    settings.load_profile(name())


def example_count(in_ci: int) -> int:
    """Return how many examples a test takes that needs another number of them than most: a tenth of it outside CI."""
    return in_ci if name() == "ci" else max(in_ci // 10, _MINIMUM)
