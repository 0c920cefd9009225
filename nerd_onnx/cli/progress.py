"""Progress of a run: a bar on a terminal, and a line every 30 seconds elsewhere, such as in a log."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from nerd_onnx.cli.streams import message
from nerd_onnx.terminal import counted

if TYPE_CHECKING:  # --help and --version must not wait for these imports
    from nerd_onnx.tagging.run_meter import RunMeter

BAR_EVERY_S = 0.2
LINES_EVERY_S = 30.0
_CLOSING_S = 0.5  # the reader of standard error may be one that does not read
_MAXIMUM = 0.99  # a run that is not finished is never shown as 100%
_MINUTE_S, _HOUR_S = 60, 3600


class Display:
    """
    Shows the progress of a run until it is closed.

    A thread of its own does it, because the thread of the run waits for the network for minutes if a text is long.

    :param meter: the progress
    """

    def __init__(self, meter: RunMeter) -> None:
        self._meter = meter
        self._bar = _bar() if sys.stderr.isatty() else None
        self._closed = threading.Event()

        # A daemon: standard error may have a reader that does not read, and the process must end.
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name="nerd-progress", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            # The system allows no more threads: the run goes on without a display.
            self._thread = None

    def close(self) -> None:
        """Stop, and remove the bar from the terminal."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(_CLOSING_S)
        if self._bar is not None and (self._thread is None or not self._thread.is_alive()):
            self._bar.close()

    def _run(self) -> None:
        every_s = LINES_EVERY_S if self._bar is None else BAR_EVERY_S
        while not self._closed.wait(every_s):
            with suppress(OSError):
                self._show()

    def _show(self) -> None:
        share = self._meter.share
        if self._bar is None:
            part = "" if share is None else f", {percentage(share)}"
            message(f"nerd-tag: {state_of(self._meter)}{part}")
            return

        self._bar.bar_format = "{desc}" if share is None else "{percentage:3.0f}%|{bar}| {desc}"
        self._bar.n = min(share or 0.0, _MAXIMUM)
        self._bar.set_description_str(state_of(self._meter))


def acknowledge_stop() -> None:
    """Print above the bar that a signal was received, if standard error is a terminal."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write("nerd-tag: stopping and saving the work that is done; Ctrl-C again stops at once", file=sys.stderr)


def state_of(meter: RunMeter) -> str:
    """Return rows, tokens per second and the time left, as far as they are known."""
    parts = [counted(meter.rows, "row"), f"{meter.tokens_per_s:,.0f} tokens/s"]
    left = meter.seconds_left
    if left is not None:
        parts.append(f"{duration(left)} left")

    return ", ".join(parts)


def percentage(share: float) -> str:
    """Return a share as a percentage; 100% stands for nothing that is not finished."""
    return f"{min(share, _MAXIMUM):.0%}"


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes and seconds, or hours and minutes: ``42s``, ``3m05s``, ``2h07m``."""
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole}s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S}m{whole % _MINUTE_S:02d}s"
    return f"{whole // _HOUR_S:,}h{whole % _HOUR_S // _MINUTE_S:02d}m"


def _bar() -> Any:
    from tqdm import tqdm

    # Without an iterable, tqdm draws when it is told to; its own rate would count the rows of an earlier run.
    return tqdm(total=1.0, file=sys.stderr, leave=False, dynamic_ncols=True, bar_format="{desc}")
