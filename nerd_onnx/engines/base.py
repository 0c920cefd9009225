"""The interface of an engine, and the list of engines that ``--engine`` offers."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:  # --help must not wait for these imports
    from nerd_onnx.engines.choice import EngineChoice
    from nerd_onnx.engines.worker import FileTasks, Outcome

ENGINES = ("ray", "spark")  # each is the name of a module in this package


class Engine(Protocol):
    """What the module of an engine must offer to run the files of a job."""

    def run_files(self, tasks: FileTasks, archive: bytes, choice: EngineChoice) -> Iterator[Outcome]:
        """
        Start or join the engine, tag each file with ``tasks.run``, yield the outcomes, and leave the engine.

        :param tasks: the files; an engine sends them to its workers
        :param archive: archive of the model to send; empty if nothing is sent
        :param choice: settings of the engine
        :raises EngineError: when the engine cannot be started or reached, or aborts the job
        :raises OptionError: when the engine cannot use an option
        """


def engine_named(name: str) -> Engine:
    """
    Return the engine with a name from :data:`ENGINES`.

    Its module is imported here and not earlier, because Ray and Spark are optional.
    """
    return cast("Engine", import_module(f"nerd_onnx.engines.{name}"))
