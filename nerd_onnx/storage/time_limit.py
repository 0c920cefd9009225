"""A time limit for calls of remote storage, by whatever library: a server may accept a request and be silent."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from nerd_onnx.errors import OptionError, StoreError
from nerd_onnx.interruption import state, waiting
from nerd_onnx.storage.location import without_secrets

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
    outcome: dict[str, Any] = {}
    done = threading.Event()

    def run() -> None:
        try:
            outcome["result"] = call()
        except BaseException as err:  # noqa: BLE001 - it is raised again in the thread of the caller
            outcome["error"] = err
        finally:
            done.set()

    threading.Thread(target=run, name="nerd-store", daemon=True).start()
    try:
        with waiting():
            in_time = done.wait(limit)
    finally:
        state.abandoned |= not done.is_set()

    if not in_time:
        raise StoreError(
            f"{without_secrets(uri)}: the remote storage does not answer; waited {limit:g} seconds. Try again, or "
            f"allow more time with {VARIABLE}",
            reason="no-answer",
            file=without_secrets(uri),
            seconds=limit,
            option=VARIABLE,
        )
    if "error" in outcome:
        raise outcome.pop("error")
    result: Result = outcome.pop("result")
    return result
