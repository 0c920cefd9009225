"""
Ray Data: ``tag(dataset)`` maps batches on a pool of actors, each with one model.

Comes with ``pip install 'nerd-onnx[ray]'``; every node needs nerd-onnx in its Python.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from nerd_onnx.engines.choice import EngineChoice
from nerd_onnx.engines.model import WorkerModel, for_workers
from nerd_onnx.engines.worker import BATCH_ROWS, FileTasks, Outcome, process_tagger, tag_table
from nerd_onnx.errors import EngineError, MissingExtraError, first_line
from nerd_onnx.tagger import Tagger, TagOptions

_REACH_S = 10.0


def tag(
    dataset: Any,
    *,
    model: str | None = None,
    ship_model: bool = True,
    workers: int | None = None,
    cpus_per_worker: int = 1,
    batch_rows: int = BATCH_ROWS,
    replace_column: bool = False,
    **options: Any,
) -> Any:
    """
    Add the entities column to a Ray data set: the rows, bit for bit, that the local run gives, in their order.

    :param dataset: a ``ray.data.Dataset`` with the text column; all its columns are kept
    :param model: as :meth:`Tagger.load` takes it; None for the model inside
    :param ship_model: send the model along; without, every node reads it under its path here, from shared storage
    :param workers: most actors at the same time; None for what the cluster has room for beside reading and writing
    :param cpus_per_worker: processors that each actor reserves, and threads that it runs
    :param batch_rows: most rows in a call
    :param replace_column: an existing column of the new name is replaced
    :param options: ``text_column``, ``column``, ``labels``, ``min_score`` and the like, as :class:`TagOptions` has them
    :return: the lazy data set; an actor that dies is replaced by Ray, and its blocks are tagged again
    :raises MissingExtraError: when Ray is not installed
    :raises NerdError: when model or options are wrong
    """
    ray = _ray()
    tagger = Tagger.load(model, **{**options, "threads": cpus_per_worker})  # finds mistakes before any actor starts
    worker_model, archive = for_workers(tagger.bundle, ship=ship_model)
    cpus = int(ray.cluster_resources().get("CPU", 1))
    tagged = dataset.map_batches(
        _TagRows,
        batch_format="pyarrow",
        batch_size=batch_rows,
        fn_constructor_args=(worker_model, tagger.options, _sent(ray, archive), replace_column),
        num_cpus=cpus_per_worker,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers or max(1, cpus // cpus_per_worker)),
    )
    tagged.context.execution_options.preserve_order = True
    return tagged


def run_files(tasks: FileTasks, archive: bytes, choice: EngineChoice) -> Iterator[Outcome]:
    """
    Tag files on a pool of actors, and yield what came of each.

    :param archive: the model to send along
    :raises EngineError: when Ray gives up
    """
    ray = _ray()
    _start(ray, choice.engine_address)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        workers, threads = choice.sizes(len(tasks.jobs), sum(nodes), max(nodes), tasks.options.threads)
        outcomes = ray.data.from_items(list(range(len(tasks.jobs))), override_num_blocks=len(tasks.jobs)).map_batches(
            _TagFiles,
            batch_format="pyarrow",
            batch_size=1,
            fn_constructor_args=(tasks.with_threads(threads), _sent(ray, archive)),
            num_cpus=threads,
            # An actor that holds more than one file would keep it from the others.
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=1
            ),
        )
        for row in outcomes.iter_rows():
            yield pickle.loads(row["outcome"])  # noqa: S301 - made by our own workers
    except ray.exceptions.RayError as err:
        raise EngineError(f"Ray: {first_line(err)}") from err


class _TagRows:
    """A worker for rows: loads the model once, tags batch after batch."""

    def __init__(self, model: WorkerModel, options: TagOptions, archive: Any, replace_column: bool) -> None:  # noqa: FBT001
        self._tagger = process_tagger(model, options, _fetch(archive))
        self._replace_column = replace_column

    def __call__(self, table: pa.Table) -> pa.Table:
        return tag_table(self._tagger, table, replace_column=self._replace_column)


class _TagFiles:
    """A worker for files."""

    def __init__(self, tasks: FileTasks, archive: Any) -> None:
        self._tasks = tasks
        self._archive = archive

    def __call__(self, numbers: pa.Table) -> pa.Table:
        found = [self._tasks.run(number, _fetch(self._archive)) for number in numbers["item"].to_pylist()]
        return pa.table({"outcome": pa.array([pickle.dumps(outcome) for outcome in found], pa.binary())})


def _start(ray: Any, address: str | None) -> None:
    """
    Join a cluster, or start one here, quietly.

    :raises EngineError: when it cannot be done
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it warns, in the driver's terminal, of its own habits
    if ray.is_initialized():
        return
    try:
        if address is not None:
            _check_reachable(address)  # Ray itself tries for minutes
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as err:
        raise EngineError(f"Ray cannot be started or reached: {first_line(err)}") from err


def _check_reachable(address: str) -> None:
    """
    Check that something listens at a ``host:port``.

    :raises OSError: when nothing does
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_REACH_S).close()


def _sent(ray: Any, archive: bytes) -> Any:
    """Put the model where every worker can fetch it; None where nothing is sent."""
    return ray.put(archive) if archive else None


def _fetch(archive: Any) -> Callable[[], bytes]:
    """Give the function that fetches the model that was sent along."""

    def fetch() -> bytes:
        import ray

        content: bytes = ray.get(archive)
        return content

    return fetch


def _ray() -> Any:
    """
    Import Ray.

    :raises MissingExtraError: when it is not installed
    """
    try:
        import ray.data
    except ImportError as err:
        raise MissingExtraError("Ray Data is not installed: pip install 'nerd-onnx[ray]'") from err
    return ray
