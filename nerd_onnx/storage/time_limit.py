"""A time limit for calls of remote storage, by whatever library: a server may accept a request and be silent."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar, cast

from nerd_onnx.errors import OptionError, StoreError
from nerd_onnx.interruption import state, waiting
from nerd_onnx.storage.uri import without_secrets

VARIABLE = "NERD_STORE_TIMEOUT"
_DEFAULT_S = 120.0
UPLOAD_FACTOR = 10  # an upload waits for up to 64 MiB at once, a read for 8 MiB
Result = TypeVar("Result")


def time_limit() -> float:
    """
    Return the time in seconds within which remote storage must answer a request.

    :raises OptionError: if the environment variable is not a number greater than 0
    """
    text = os.environ.get(VARIABLE, "")
    try:
        limit = float(text) if text else _DEFAULT_S
    except ValueError:
        limit = math.nan

    # NaN fails every comparison. A wait for longer than TIMEOUT_MAX would raise an OverflowError.
    if not 0 < limit <= threading.TIMEOUT_MAX:
        raise OptionError(
            f"{VARIABLE} is {text!r}; expected a number of seconds greater than 0",
            reason="bad-value",
            option=VARIABLE,
            found=text,
        )

    return limit


def within_limit(uri: str, call: Callable[[], Result], *, factor: int = 1) -> Result:
    """
    Return the result of a call of remote storage; a signal ends the wait for it.

    The call runs in a thread of its own, because the libraries can neither be told to stop nor be trusted to end. After
    the limit the thread is left alone: the call must not write into memory of the caller.

    :param uri: URI that is called, for the message
    :param factor: number of time limits that the call may take
    :raises StoreError: if there is no result in time
    :raises InterruptedRunError: if a signal arrives
    """
    limit = min(time_limit() * factor, threading.TIMEOUT_MAX)
    task = _Task(call)
    _worker().tasks.put(task)

    try:
        with waiting():
            in_time = task.done.wait(limit)
    finally:
        if not task.done.is_set():
            state.abandoned = True
            _workers.pop(_key(), None)  # the next call gets a worker of its own

    if not in_time:
        raise StoreError(
            f"{without_secrets(uri)}: the remote storage does not answer; waited {limit:g} seconds. Try again, or "
            f"allow more time with {VARIABLE}",
            reason="no-answer",
            file=without_secrets(uri),
            seconds=limit,
            option=VARIABLE,
        )

    if task.error is not None:
        raise task.error
    return cast("Result", task.result)


class _Task:
    """A call, and its outcome when it is done."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as err:  # noqa: BLE001 - it is raised again in the thread of the caller
            self.error = err
        finally:
            self.done.set()


class _Worker:
    """
    A thread for one call after the other. fsspec keeps its connections for the thread that opened them.

    :ivar tasks: the calls to come
    """

    def __init__(self) -> None:
        self.tasks: SimpleQueue[_Task] = SimpleQueue()
        # A daemon: at its end Python would wait for a call that never returns.
        threading.Thread(target=self._run, name="nerd-store", daemon=True).start()

    def _run(self) -> None:
        while True:
            self.tasks.get().run()


# By process and calling thread: a fork copies no threads, and the calls of one thread do not wait for those of another.
_workers: dict[tuple[int, int], _Worker] = {}


def _worker() -> _Worker:
    if _key() not in _workers:
        _workers[_key()] = _Worker()
    return _workers[_key()]


def _key() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()
