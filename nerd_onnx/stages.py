"""
A hook for measurements: a function that is called around each stage of tagging.

The stages are ``read``, ``tokenize``, ``model``, ``decode`` and ``write``. A stage can call another one. Without an
observer, a stage costs one comparison per batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Observer = Callable[[str, Callable[[], Any]], Any]
_observers: list[Observer] = []


def observe(observer: Observer | None) -> None:
    """
    Set the observer of this process.

    :param observer: called with the name of a stage and an action; it runs the action and returns its result, also on
        worker threads. None for no observer
    """
    _observers[:] = [observer] if observer is not None else []


def in_stage(name: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function as part of a stage, and return its result."""
    if not _observers:
        return function(*args, **kwargs)

    result: R = _observers[0](name, partial(function, *args, **kwargs))
    return result


def stage(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator: every call of the function is part of a stage."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return in_stage(name, function, *args, **kwargs)

        return call

    return decorate


def iterate(name: str, items: Iterator[R]) -> Iterator[R]:
    """Return an iterator over the same items; the time until each item is part of a stage."""
    return _iterated(name, items) if _observers else items


def _iterated(name: str, items: Iterator[R]) -> Iterator[R]:
    end = object()
    while (item := in_stage(name, next, items, end)) is not end:
        yield item  # type: ignore[misc]
        del item  # or it would be kept while the next one is read
