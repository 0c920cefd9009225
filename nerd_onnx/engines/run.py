"""A run on an engine: one task per file; a worker tags a file in the same way as a local run."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from types import FrameType
from typing import Any

from nerd_onnx.engines.base import engine_named
from nerd_onnx.engines.choice import EngineChoice
from nerd_onnx.engines.model_archive import for_workers
from nerd_onnx.engines.worker import FileTasks, Outcome
from nerd_onnx.errors import EngineError, InterruptedRunError, NerdError
from nerd_onnx.storage.location import Location
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob, TagReport

_HOW_TO_RESUME = "Finished files and saved rows of other files are kept. Resume with --resume"


def tag_on_engine(choice: EngineChoice, tagger: Tagger, job: TagJob) -> dict[str, Any]:
    """
    Tag files on the workers of an engine. The output files are byte-identical to those of a local run.

    The engine replaces a worker that dies, and the new worker resumes its file. If a file cannot be tagged, all other
    files still are.

    :param job: the job, checked before
    :return: the summary
    :raises NerdError: the error of the first file that failed, after all other files are done
    :raises EngineError: when the engine aborts the job
    :raises InterruptedRunError: when a signal stopped the run
    """
    begin = time.perf_counter()
    model, archive = for_workers(tagger.bundle, ship=choice.ship_model, uri=tagger.model_uri)
    tasks = FileTasks(model, tagger.options, jobs_of(job))

    with _stopping():
        # All of them, so that one bad file does not keep the others from being tagged.
        outcomes = list(engine_named(choice.engine).run_files(tasks, archive, choice))

    failures = [outcome.error for outcome in outcomes if outcome.error is not None]
    if failures:
        raise _first(failures)

    report = _sum(outcomes)
    report.seconds = time.perf_counter() - begin

    # The largest and not the sum: it is what one worker must be given.
    peak = max(outcome.peak_rss_bytes for outcome in outcomes)
    return {**report.summary(), "peak_rss_bytes": peak, "engine": choice.engine}


def jobs_of(job: TagJob) -> list[TagJob]:
    """
    Return one job per file, the largest file first.

    A large file that starts last would keep one worker busy after all others are done. A worker may take over a file
    from one that died, so each job resumes what is there of the same model and options, unless outputs are overwritten.
    """
    pairs = sorted(job.pairs, key=lambda pair: -_size(pair.input))
    paths = [(_absolute(pair.input), _absolute(pair.output)) for pair in pairs]

    work_dir = job.work_dir and os.path.abspath(job.work_dir)  # noqa: PTH100 - paths are text
    alone = replace(job, resume=not job.overwrite, work_dir=work_dir)
    return [replace(alone, inputs=[path], output=output) for path, output in paths]


def _size(path: Location) -> int:
    """Return the size of an input in bytes, or 0 if it is gone; its worker will report the error."""
    try:
        return path.info().size
    except OSError:
        return 0


def _absolute(path: Location) -> str:
    """Return a path that a worker in another working directory finds."""
    return path.text if path.is_remote else os.path.abspath(path)  # noqa: PTH100 - paths are text


def _sum(outcomes: list[Outcome]) -> TagReport:
    total = TagReport()
    for outcome in outcomes:
        for part in fields(TagReport):
            setattr(total, part.name, getattr(total, part.name) + getattr(outcome.report, part.name))
    return total


def _first(failures: list[NerdError]) -> NerdError:
    """Return the first failure, with the number of other failures in its message."""
    first, more = failures[0], len(failures) - 1
    if more:
        first.args = (f"{first} (and {more} more {'files' if more > 1 else 'file'} failed)",)
        first.fields["other_failures"] = more
    return first


@contextmanager
def _stopping() -> Iterator[None]:
    """
    Raise an error for SIGINT and SIGTERM while the context is active.

    :raises InterruptedRunError: when one of the signals arrives
    """
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        logging.disable()  # engines log their interruption at length
        raise KeyboardInterrupt

    # Python lets only the main thread set signal handlers.
    in_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)} if in_main else {}

    try:
        yield
    except (KeyboardInterrupt, EngineError) as err:
        if isinstance(err, EngineError) and not received:
            raise

        # After a signal, an error of the engine is a result of the signal: its processes received it too.
        interrupted = InterruptedRunError(received[0] if received else signal.SIGINT)
        interrupted.args = (f"Interrupted. {_HOW_TO_RESUME}",)
        raise interrupted from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
