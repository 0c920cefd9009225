"""
What a signal does to the work: it ends a wait at once, and everything else after the current step.

The command line reports signals here. Without a command line, nothing is ever reported, and the contexts do nothing.
Python handles signals in the main thread, so only the waits of that thread can be ended.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nerd_onnx.errors import InterruptedRunError


@dataclass
class _State:
    """
    The state of this process.

    :param number: number of the signal that was received; None before one arrives
    :param waits: number of contexts of :func:`waiting` that the main thread is in
    :param runs: number of contexts of :func:`deferring` that the main thread is in
    :param noticed: whether the work has reacted to the signal
    :param raised: whether an exception was raised in the middle of whatever the main thread did
    :param abandoned: whether a call was given up whose thread still waits, so that the process cannot end in good order
    """

    number: int | None = None
    waits: int = 0
    runs: int = 0
    noticed: bool = False
    raised: bool = False
    abandoned: bool = False


state = _State()


def begin() -> None:
    """Forget what earlier commands of this process left behind: a command answers only for its own waits."""
    state.number, state.noticed, state.raised, state.abandoned = None, False, False, False


def requested() -> int | None:
    """Return the number of the signal that asks the run to end; None before one arrives."""
    if state.number is not None:
        state.noticed = True
    return state.number


def signalled(number: int) -> None:
    """
    Report a signal. Called by the handler of the signal, so in the main thread.

    :raises InterruptedRunError: in the middle of a wait
    :raises KeyboardInterrupt: outside of a run, where no work can be lost
    """
    state.number = number
    if state.waits:
        state.noticed = state.raised = True
        raise InterruptedRunError(number)

    if not state.runs:
        state.noticed = state.raised = True
        raise KeyboardInterrupt


def stop_if_asked() -> None:
    """
    Look for a signal between two steps of something that may take long and whose result the run does not need.

    :raises InterruptedRunError: if one has arrived
    """
    with waiting():
        pass


@contextmanager
def deferring() -> Iterator[None]:
    """Record signals while the context is active: the run asks for them with :func:`requested` between two steps."""
    state.runs += 1
    try:
        yield
    finally:
        state.runs -= 1


@contextmanager
def waiting() -> Iterator[None]:
    """
    Mark a wait, whose result is not needed when the run ends: a signal ends it at once.

    :raises InterruptedRunError: when a signal arrives, or has arrived before
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    # Counted before the look for a signal: one that arrives between the two ends the wait by signalled().
    state.waits += 1
    try:
        if (number := requested()) is not None:
            raise InterruptedRunError(number)
        yield
    finally:
        state.waits -= 1
