"""
Errors, named by what the user must fix.

Programs can rely on the class, its code and exit code, the reason and the fields. The message is for people and may
change in any version. ``docs/errors.md`` lists all reasons.
"""

from __future__ import annotations

from typing import Any, ClassVar

Field = str | int | float
# Of a message and of a field: names and lists in them may come from a hostile file.
_MAX_CHARACTERS = 2000
_END_CHARACTERS = 500  # the end of a message says what to do


class NerdError(Exception):
    """
    An error that the user can fix. The message says what was found, where, what was expected and what to do.

    :param message: one line for people
    :param reason: what went wrong, in kebab-case; unique within the class
    :param fields: values that the message names, as far as they are known: ``file`` as the message shows it, ``row``
        (the line, from 1, of JSON Lines; the row, from 0, of Parquet), ``column``, ``option``, ``expected``, ``found``
        and others
    :ivar exit_code: exit code of a command that ends with the error
    :ivar code: category of the error
    """

    exit_code: int = 1
    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, reason: str = "unknown", **fields: Field) -> None:
        # Polars makes an error again from its message alone, so the reason has a default. A test checks that all places
        # of ours give one.
        super().__init__(message)
        self.reason = reason
        self.fields: dict[str, Field] = {name: _short_field(value) for name, value in fields.items()}

    def __str__(self) -> str:
        """Return the message in one line of bounded length, whatever the names from a file are that it contains."""
        return shortened(super().__str__().replace("\r", "\\r").replace("\n", "\\n"))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how copies are made: without a constructor call, as the constructors of the classes differ."""
        return restored, (type(self), self.args, self.__dict__)


class InputError(NerdError):
    """The input cannot be read as asked: missing, damaged, in another format, or without the text column."""

    code = "input"


class UnreadableFileError(InputError):
    """An input that cannot be opened, or cannot be read to its end. The other files of a run may be fine."""

    @classmethod
    def of(cls, err: InputError) -> UnreadableFileError:
        """Return the error of this class that says the same as another one."""
        return cls(str(err.args[0]), reason=err.reason, **err.fields)


class StoreError(NerdError):
    """
    Remote storage cannot be used: the URI, the credentials or the network is wrong.

    The cause is not one file, so a run stops and does not skip the file.
    """

    code = "store"


class OutputError(NerdError):
    """The output cannot be written as asked: it exists, it is the input, or the system refuses."""

    code = "output"


class BusyError(OutputError):
    """Another run is writing the output."""


class ExistsError(OutputError):
    """A file already exists at the place of the output."""


class ModelError(NerdError):
    """The model folder is missing, incomplete or changed, or the runtime cannot run its network."""

    code = "model"


class NotFiniteError(ModelError):
    """The network computes logits that are not finite numbers: its file or its quantization is damaged."""


class OptionError(NerdError):
    """An option's value does not fit the model or the other options."""

    exit_code = 2
    code = "usage"


class InterruptedRunError(NerdError):
    """
    A signal stopped the run. The finished work is safe.

    :param number: number of the signal
    :param safe_rows: number of rows that are saved and need not be tagged again
    :param is_lost: somebody removed or moved the folder with the saved rows
    """

    code = "interrupted"

    def __init__(self, number: int, safe_rows: int = 0, *, is_lost: bool = False) -> None:
        self.exit_code = 128 + number
        self.number = number
        self.safe_rows = safe_rows

        saved = (
            f"{safe_rows:,} {'row is' if safe_rows == 1 else 'rows are'} saved"
            if safe_rows
            else "No output was written"
        )
        super().__init__(
            f"Interrupted. {'Nothing is saved: the work folder was removed or moved' if is_lost else saved}",
            reason="interrupted",
            signal=number,
            safe_rows=safe_rows,
        )


class EngineError(NerdError):
    """Ray or Spark cannot be started or reached, or it aborted the job."""

    code = "engine"


class TrainingDataError(NerdError):
    """The labelled data cannot be used for training or evaluation."""

    code = "training-data"


class VerificationError(NerdError):
    """An exported model differs from its original by more than the limits allow."""

    code = "verification"


class MissingExtraError(NerdError):
    """The command needs packages that come with an optional extra."""

    code = "missing-extra"


class UnexpectedError(NerdError):
    """An exception that no part of the program expects: no memory, no threads, or an error in the program itself."""

    code = "unexpected"


def restored(kind: type[NerdError], args: tuple[Any, ...], state: dict[str, Any]) -> NerdError:
    """Return an error with the given arguments and attributes, without a call of its constructor."""
    # Constructors differ between classes, and the state is complete: unpickling skips them too.
    err = kind.__new__(kind, *args)
    err.__dict__.update(state)
    return err


def shortened(text: str) -> str:
    """Return a text of at most about 2,000 characters: of a longer one the begin, what is left out, and the end."""
    left_out = len(text) - _MAX_CHARACTERS
    if left_out <= 0:
        return text

    begin = text[: _MAX_CHARACTERS - _END_CHARACTERS]
    return f"{begin} [... {left_out:,} characters left out ...] {text[-_END_CHARACTERS:]}"


def _short_field(value: Field) -> Field:
    return shortened(value) if isinstance(value, str) else value


def first_line(err: BaseException) -> str:
    """Return the first line of another library's message, or the name of its class where it has no message."""
    return next(iter(str(err).splitlines()), "") or type(err).__name__
