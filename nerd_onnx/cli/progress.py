"""Progress of a run: a bar on a terminal, and a line every 30 seconds elsewhere, such as in a log."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from nerd_onnx.cli.streams import message

if TYPE_CHECKING:  # --help and --version must not wait for these imports
    from nerd_onnx.formats.base import Reader
    from nerd_onnx.tagging.job import TagReport

EVERY_S = 30.0


def progress_on_stderr() -> Bar | Lines:
    """Return a bar if standard error is a terminal, else lines."""
    return Bar() if sys.stderr.isatty() else Lines()


class Bar:
    """A progress bar with rows, rows/s and the time left."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(unit="row", unit_scale=True, file=sys.stderr, leave=False, dynamic_ncols=True)

    def __call__(self, report: TagReport, source: Reader) -> None:
        """Update the bar; the total is the known number of rows, or an estimate from the share of bytes read."""
        share = source.progress()
        done = report.rows - source.rows_read
        self._bar.total = done + (source.num_rows or round(source.rows_read / share)) if share else None
        self._bar.update(report.rows - self._bar.n)

    def close(self) -> None:
        """Remove the bar from the terminal."""
        self._bar.close()


class Lines:
    """One plain line every 30 seconds; none if the run is shorter."""

    def __init__(self) -> None:
        self._begin = self._last = time.monotonic()

    def __call__(self, report: TagReport, source: Reader) -> None:
        """Print rows, tokens/s and, if it is known, the finished share of the current file."""
        now = time.monotonic()
        if now - self._last < EVERY_S:
            return
        self._last = now

        # Rows of an earlier run would make the rate look too high.
        rate = (report.tokens - report.resumed_tokens) / max(now - self._begin, 1e-9)
        share = source.progress()
        part = "" if share is None else f", {share:.0%} of {source.path.name}"
        message(f"nerd-tag: {report.rows:,} rows, {rate:,.0f} tokens/s{part}")

    def close(self) -> None:
        """Do nothing: lines need no cleaning up."""
