"""A run on an engine: a file a task, each done by one worker as a local run does it."""

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

from nerd_onnx.engines.choice import EngineChoice
from nerd_onnx.engines.model import for_workers
from nerd_onnx.engines.worker import FileTasks, Outcome
from nerd_onnx.errors import EngineError, InterruptedRunError, NerdError
from nerd_onnx.storage.location import is_uri
from nerd_onnx.storage.remote import find
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob, TagReport

_GO_ON = "finished files and the safe rows of other files are kept: continue with --resume"


def tag_on_engine(choice: EngineChoice, tagger: Tagger, job: TagJob) -> dict[str, Any]:
    """
    Tag files on the workers of Ray or Spark: the bytes, file by file, that a local run writes.

    A worker that dies is replaced by the engine, and its file gone on with. A file with a fault keeps no other from
    being tagged.

    :param job: checked already
    :return: the summary
    :raises NerdError: the first file's, when all others are done
    :raises EngineError: when the engine gives up
    :raises InterruptedRunError: when it was asked to stop
    """
    begin = time.perf_counter()
    model, archive = for_workers(tagger.bundle, ship=choice.ship_model, uri=tagger.model_uri)
    tasks = FileTasks(model, tagger.options, jobs_of(job))
    with _stopping():
        outcomes = list(_run_files(choice, tasks, archive))
    failures = [outcome.error for outcome in outcomes if outcome.error is not None]
    if failures:
        raise _first(failures)
    report = _sum(outcomes)
    report.seconds = time.perf_counter() - begin
    peak = max(outcome.peak_rss_bytes for outcome in outcomes)
    return {**report.summary(), "peak_rss_bytes": peak, "engine": choice.engine}


def _run_files(choice: EngineChoice, tasks: FileTasks, archive: bytes) -> Iterator[Outcome]:
    if choice.engine == "ray":
        from nerd_onnx.engines.ray import run_files
    else:
        from nerd_onnx.engines.spark import run_files
    return run_files(tasks, archive, choice)


def jobs_of(job: TagJob) -> list[TagJob]:
    """
    Make a job of each file, the largest first: it would be waited for at the end.

    A worker may take a file over from one that died. So it goes on with what it finds of the same model and options;
    with leave to replace outputs it begins anew.
    """
    pairs = sorted(job.pairs, key=lambda pair: -_size(pair.input))
    paths = [(_absolute(pair.input), _absolute(pair.output)) for pair in pairs]
    work_dir = job.work_dir and os.path.abspath(job.work_dir)  # noqa: PTH100 - paths are text
    alone = replace(job, resume=not job.overwrite, work_dir=work_dir)
    return [replace(alone, inputs=[path], output=output) for path, output in paths]


def _size(path: str) -> int:
    """Tell how large an input is; of one that is gone meanwhile its worker will tell."""
    try:
        return find(path).size
    except OSError:
        return 0


def _absolute(path: str) -> str:
    """Name a file so that a worker in another folder finds it."""
    return path if is_uri(path) else os.path.abspath(path)  # noqa: PTH100 - paths are text


def _sum(outcomes: list[Outcome]) -> TagReport:
    total = TagReport()
    for part in fields(TagReport):
        setattr(total, part.name, sum(getattr(outcome.report, part.name) for outcome in outcomes))
    return total


def _first(failures: list[NerdError]) -> NerdError:
    """Give the first failure, and say of how many others."""
    first, more = failures[0], len(failures) - 1
    if more:
        first.args = (f"{first} (and {more} more {'files' if more > 1 else 'file'} failed)",)
        first.fields["other_failures"] = more
    return first


@contextmanager
def _stopping() -> Iterator[None]:
    """
    Turn SIGINT and SIGTERM into the error that says so.

    :raises InterruptedRunError: when one comes
    """
    came: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        came.append(number)
        logging.disable()  # what the engines say of being stopped is no news
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)} if in_main else {}
    try:
        yield
    except (KeyboardInterrupt, EngineError) as err:
        if isinstance(err, EngineError) and not came:
            raise  # else the signal broke the engine's own conversation
        interrupted = InterruptedRunError(came[0] if came else signal.SIGINT)
        interrupted.args = (f"interrupted; {_GO_ON}",)
        raise interrupted from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
