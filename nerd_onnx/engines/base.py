"""The interface of an engine, and the list of engines that ``--engine`` offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # --help must not wait for these imports
    from nerd_onnx.engines.choice import EngineChoice
    from nerd_onnx.engines.worker import FileTasks, Outcome


class Engine(Protocol):
    """
    What the module of an engine must offer to run the files of a job.

    One function is enough, because an engine only distributes work: how a file is tagged, stored and resumed is in
    ``tasks.run``. A module may also offer ``tag(data)`` for the engine's own data sets. That function is not part of
    the protocol, because each engine has other data.
    """

    def run_files(self, tasks: FileTasks, archive: bytes, choice: EngineChoice) -> Iterator[Outcome]:
        """
        Start or join the engine, tag each file with ``tasks.run``, yield the outcomes, and leave the engine.

        The outcomes may come in any order. If a worker dies, the engine must run its task again on another worker,
        which resumes the file.

        :param tasks: the files; an engine sends them to its workers
        :param archive: archive of the model to send; empty if nothing is sent
        :param choice: settings of the engine
        :raises EngineError: when the engine cannot be started or reached, or aborts the job
        :raises MissingExtraError: when the engine's library is not installed
        :raises OptionError: when the engine cannot use an option
        """


def _ray() -> Engine:
    from nerd_onnx.engines import ray

    return ray


def _spark() -> Engine:
    from nerd_onnx.engines import spark

    return spark


# By the value of --engine. A module is imported only when its engine is used, because Ray and Spark are optional.
ENGINES: dict[str, Callable[[], Engine]] = {"ray": _ray, "spark": _spark}


def engine_named(name: str) -> Engine:
    """Return the engine with a name from :data:`ENGINES`."""
    return ENGINES[name]()
