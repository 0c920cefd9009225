"""What all commands share: settings, common options, and an error printed in one line with an exit code."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from nerd_onnx.cli.streams import finish_output, is_of_output, message, safe_streams
from nerd_onnx.errors import Field, NerdError, OutputError, UnexpectedError, first_line, shortened
from nerd_onnx.formats.registry import readable_formats
from nerd_onnx.interruption import requested, state

_YES = ("1", "true", "t", "yes", "y", "on")
# What to do about an exception that no part of the program expects; the first that fits.
_ADVICE: tuple[tuple[Callable[[BaseException], bool], str], ...] = (
    (
        lambda err: isinstance(err, MemoryError) or "failed to map segment" in str(err),
        "give the process more memory (ulimit -v), or use less with --max-memory, fewer --threads or a smaller file",
    ),
    (
        lambda err: "can't start new thread" in str(err) or "Resource temporarily unavailable" in str(err),
        "allow the process more threads (ulimit -u), or use fewer --threads",
    ),
    (
        lambda err: isinstance(err, OSError) and err.errno == errno.EMFILE,
        "allow the process more open files (ulimit -n)",
    ),
)
_REPORT_IT = "please report this command and its traceback"


class _WholeNumber(click.IntRange):
    """A whole number from a minimum to the greatest that lists and files can have; the help names the minimum only."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number > sys.maxsize:
            self.fail(f"{value} is greater than {sys.maxsize}.", param, ctx)
        return number


class _ColumnName(click.types.StringParamType):
    """Text that UTF-8 can represent. An argument may have other bytes, and a column or field may not."""

    # Between several names in an environment variable. A name may have spaces, at which click would split.
    envvar_list_splitter = "\n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = super().convert(value, param, ctx)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"{value!a} is not valid UTF-8.", param, ctx)
        return text


class FilePath(click.Path):
    """
    The path of a file or folder that exists or not, as :class:`pathlib.Path`.

    A name that the system refuses is an error of usage, such as one that is too long, or in a folder without
    permission. So later code need not expect it.
    """

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, after a check that the system accepts it."""
        path: Any = super().convert(value, param, ctx)
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as err:
            self.fail(f"{value!r}: {err.strerror or first_line(err)}.", param, ctx)
        return path


COLUMN_NAME = _ColumnName()
FILE_PATH = FilePath()
_TAGGED_FILE_OPTIONS = (
    click.option(
        "--text-column",
        type=COLUMN_NAME,
        default="text",
        help="Column of INPUT with the texts; with [] after its name if it has lists of texts.",
    ),
    click.option("--column", type=COLUMN_NAME, default="entities", help="Column of INPUT with the entities."),
    click.option(
        "--format",
        "input_format",
        type=click.Choice([known.name for known in readable_formats()]),
        help="Format of INPUT.  [default: by its name or its first bytes]",
    ),
    click.option(
        "--offset-unit",
        type=click.Choice(["codepoint", "utf8", "utf16"]),
        help="Unit of the offsets in INPUT.  [default: as recorded in the file, else codepoint]",
    ),
)


def settings(prefix: str) -> dict[str, Any]:
    """
    Return the click settings that all commands have in common.

    :param prefix: prefix of the environment variables that set options
    """
    return {"auto_envvar_prefix": prefix, "show_default": True, "help_option_names": ["-h", "--help"]}


def complete_folders(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Return a shell completion of folders, for an option that also takes other names."""
    return [CompletionItem(typed, type="dir")]


def tagged_file_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for reading a tagged file to a command."""
    return reduce(lambda wrapped, option: option(wrapped), reversed(_TAGGED_FILE_OPTIONS), function)


def reading(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options for reading as keyword arguments of :class:`~nerd_onnx.formats.tagged_file.TaggedFile`."""
    return {
        "format": options["input_format"],
        "text_column": options["text_column"],
        "column": options["column"],
        "unit": options["offset_unit"],
    }


def _complete_parameters(command: click.Command) -> None:
    """
    Complete the parameters of a command by what all of them have in common.

    The environment variable of an option has the name of the option, even if its parameter has another name. A whole
    number without a maximum gets one.
    """
    prefix = command.context_settings["auto_envvar_prefix"]
    for option in command.params:
        if type(option.type) is click.IntRange and option.type.max is None:
            option.type = _WholeNumber(min=option.type.min)

        if isinstance(option, click.Option) and option.allow_from_autoenv:
            longest = max(option.opts, key=len)
            option.envvar = f"{prefix}_{longest.lstrip('-').replace('-', '_').upper()}"


@dataclass(frozen=True)
class Failure:
    """
    Why a command failed.

    :param code: category of the error
    :param message: one line for people
    :param reason: what went wrong, in kebab-case
    :param fields: values that the message names, see :class:`~nerd_onnx.errors.NerdError`
    """

    code: str
    message: str
    reason: str
    fields: Mapping[str, Field]

    @classmethod
    def of(cls, err: NerdError) -> Failure:
        """Return the failure for an error of this project."""
        return cls(err.code, str(err), err.reason, err.fields)

    @classmethod
    def of_usage(cls, name: str, err: click.ClickException) -> Failure:
        """Return the failure for an error of click; its class gives the reason, such as ``missing-parameter``."""
        said = shortened(" ".join(err.format_message().split()))  # click lists choices on several lines
        reason = re.sub("(?<=[a-z])(?=[A-Z])", "-", type(err).__name__).lower()

        option = getattr(err, "option_name", None) or _name_of(getattr(err, "param", None))
        fields = {"option": shortened(option)} if option else {}
        return cls("usage", f"{said} ({name} --help lists the options)", reason, fields)

    @property
    def facts(self) -> dict[str, Field]:
        """Members of the JSON object that describes the failure."""
        return {**self.fields, "error": self.code, "reason": self.reason, "message": self.message}


def _name_of(parameter: click.Parameter | None) -> str | None:
    """Return the name of an option as it is written, or of an argument as the help shows it."""
    if parameter is None:
        return None
    return max(parameter.opts, key=len) if isinstance(parameter, click.Option) else parameter.human_readable_name


def run_command(
    command: click.Command,
    show: Callable[[Failure], None] | None = None,
    *,
    when_interrupted: str = "No output was written.",
) -> NoReturn:
    """
    Run a command of either package and exit the process with the exit code of the result.

    Each exception becomes one line. The environment variable NERD_DEBUG=1 prints its traceback before it.

    :param show: prints an error; None for one line on standard error
    :param when_interrupted: end of the message after Ctrl-C
    """
    name = str(command.name)
    _complete_parameters(command)
    with safe_streams():
        sys.exit(_exit_code(command, show or (lambda failure: _show(name, failure)), when_interrupted))


def _show(name: str, failure: Failure) -> None:
    message(f"{name}: error: {failure.message}")


def _exit_code(command: click.Command, show: Callable[[Failure], None], when_interrupted: str) -> int:
    """Run a command, print its error, and return its exit code."""
    name = str(command.name)
    try:
        command.main(prog_name=name, standalone_mode=False)
        finish_output()
    except click.ClickException as err:
        show(Failure.of_usage(name, err))
        return err.exit_code
    except SystemExit as err:  # no code is success and a text is a failure, as Python has it
        return err.code if isinstance(err.code, int) else int(err.code is not None)
    except BrokenPipeError:  # the reader of the output wants no more
        return 1
    except BaseException as err:  # noqa: BLE001 - some libraries raise exceptions that are not an Exception
        if _is_interruption(err):
            message(f"{name}: interrupted. {when_interrupted}")
            return 128 + (requested() or signal.SIGINT)

        if is_set("NERD_DEBUG"):
            traceback.print_exception(err)

        error = _expected(err)
        show(Failure.of(error))
        return error.exit_code

    return 0


def _is_interruption(err: BaseException) -> bool:
    """Whether a command ended because of a signal."""
    # click raises Abort for Ctrl-C, and for an EOFError as if it were one.
    if isinstance(err, KeyboardInterrupt) or (_is_abort(err) and not isinstance(err.__cause__, EOFError)):
        return True
    # A library that the signal met, for example while it was imported, may raise an error of its own instead.
    return state.raised and not isinstance(err, NerdError)


def _is_abort(err: BaseException) -> bool:
    return isinstance(err, click.exceptions.Abort)


def _expected(err: BaseException) -> NerdError:
    """Return an exception that ended a command as an error with one line."""
    if isinstance(err, NerdError):
        return err

    if is_of_output(err):
        return OutputError(
            f"standard output: cannot be written: {getattr(err, 'strerror', None) or first_line(err)}",
            reason="cannot-write",
            file="standard output",
        )

    # An Abort of click says nothing; its cause does.
    cause = err.__cause__ if _is_abort(err) and err.__cause__ is not None else err
    kind = type(cause).__name__
    advice = next((advice for found, advice in _ADVICE if found(cause)), _REPORT_IT)
    return UnexpectedError(
        f"unexpected {kind}: {first_line(cause).rstrip('.')}; {advice} (NERD_DEBUG=1 shows the traceback)",
        reason="unexpected",
        exception=kind,
    )


def is_set(variable: str) -> bool:
    """Whether an environment variable has a value with which click sets a flag."""
    return os.environ.get(variable, "").lower() in _YES
