"""How far a run is: a bar on a terminal; elsewhere, as in the log of a job, a line now and then."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from nerd_onnx.terminal import printable

if TYPE_CHECKING:  # loading them takes time that --help and --version have not
    from nerd_onnx.formats.base import Source
    from nerd_onnx.tagging.job import TagReport

EVERY_S = 30.0


def progress_on_stderr() -> Bar | Lines:
    """Give what fits standard error."""
    return Bar() if sys.stderr.isatty() else Lines()


class Bar:
    """The progress bar: rows, rows/s and time left, on a terminal."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(unit="row", unit_scale=True, file=sys.stderr, leave=False, dynamic_ncols=True)

    def __call__(self, report: TagReport, source: Source) -> None:
        """Show how far the run is; the end is known by rows, or guessed from the share of bytes read."""
        share = source.progress()
        done = report.rows - source.rows_read
        self._bar.total = done + (source.num_rows or round(source.rows_read / share)) if share else None
        self._bar.update(report.rows - self._bar.n)

    def close(self) -> None:
        """Take the bar off the terminal."""
        self._bar.close()


class Lines:
    """A plain line every half a minute; none where the run is shorter."""

    def __init__(self) -> None:
        self._begin = self._last = time.monotonic()

    def __call__(self, report: TagReport, source: Source) -> None:
        """Tell rows, tokens/s, and how much of the file that is under way is done, where that is known."""
        from nerd_onnx.storage.location import base_name

        now = time.monotonic()
        if now - self._last < EVERY_S:
            return
        self._last = now
        rate = (report.tokens - report.resumed_tokens) / max(now - self._begin, 1e-9)
        share = source.progress()
        part = "" if share is None else f", {share:.0%} of {base_name(source.path)}"
        click.echo(printable(f"nerd-tag: {report.rows:,} rows, {rate:,.0f} tokens/s{part}"), err=True)

    def close(self) -> None:
        """Say no more."""
