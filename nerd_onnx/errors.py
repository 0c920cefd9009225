"""Errors named by what the user must fix. Each has an exit code and a stable short code for ``--json``."""

from __future__ import annotations

from typing import ClassVar


class NerdError(Exception):
    """Something a user can put right. Its text says what was met, where, what was expected and what to do."""

    exit_code: int = 1
    code: ClassVar[str] = "error"

    def __str__(self) -> str:
        """Give the message in one line, whatever names from files stand in it."""
        return super().__str__().replace("\r", "\\r").replace("\n", "\\n")


class InputError(NerdError):
    """The input cannot be read as asked: missing, damaged, of another kind, or without the text column."""

    code = "input"


class UnreadableFileError(InputError):
    """An input that cannot be opened, or not be read to its end; the other files of a run may be fine."""


class StoreError(NerdError):
    """A store cannot be used: its name, the keys or the network. No fault of one file, so no run goes on without it."""

    code = "store"


class OutputError(NerdError):
    """The output cannot be written as asked: it exists, it is the input, or the disk refuses."""

    code = "output"


class BusyError(OutputError):
    """Another run is at the output."""


class ExistsError(OutputError):
    """A file stands already where the output is to go."""


class ModelError(NerdError):
    """The model folder is missing, incomplete, altered, or of a kind the runtime cannot run."""

    code = "model"


class NotFiniteError(ModelError):
    """The network gives logits that are not numbers: its file is damaged, or its quantization broken."""


class OptionError(NerdError):
    """An option's value does not fit the model or the other options."""

    exit_code = 2
    code = "usage"


class InterruptedRunError(NerdError):
    """
    The run was asked to stop, and did so with its finished work safe.

    :param number: the signal that asked
    :param safe_rows: rows that need not be tagged again
    """

    code = "interrupted"

    def __init__(self, number: int, safe_rows: int = 0) -> None:
        self.exit_code = 128 + number
        self.number = number
        self.safe_rows = safe_rows
        super().__init__(
            f"interrupted; {safe_rows} rows are safe" if safe_rows else "interrupted; no output was written"
        )


class EngineError(NerdError):
    """Ray or Spark cannot be started or reached, or gave a job up."""

    code = "engine"


class TrainingDataError(NerdError):
    """The labelled data is not fit to train or to evaluate on."""

    code = "training-data"


class VerificationError(NerdError):
    """An exported model differs from its original by more than the limits allow."""

    code = "verification"


class MissingExtraError(NerdError):
    """The command needs packages that come with an optional extra."""

    code = "missing-extra"


def first_line(err: BaseException) -> str:
    """Give the first line of another library's message, or its kind where it says nothing."""
    return next(iter(str(err).splitlines()), "") or type(err).__name__
