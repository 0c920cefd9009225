"""What all commands share: settings, common options, and an error printed in one line with an exit code."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from nerd_onnx.errors import Field, NerdError
from nerd_onnx.formats.registry import readable_formats
from nerd_onnx.interruption import requested
from nerd_onnx.terminal import printable

_TAGGED_FILE_OPTIONS = (
    click.option("--text-column", default="text", help="Column with the texts of INPUT."),
    click.option("--column", default="entities", help="Column with the entities of INPUT."),
    click.option(
        "--format",
        "input_format",
        type=click.Choice([known.name for known in readable_formats()]),
        help="Format of INPUT.  [default: by its name]",
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


def _set_environment_variables(command: click.Command) -> None:
    """Name the environment variable of each option like the option, even if its parameter has another name."""
    prefix = command.context_settings["auto_envvar_prefix"]
    for option in command.params:
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
    def of_usage(cls, name: str, err: click.ClickException) -> Failure:
        """Return the failure for an error of click; its class gives the reason, such as ``missing-parameter``."""
        message = " ".join(err.format_message().split())  # click lists choices on several lines
        reason = re.sub("(?<=[a-z])(?=[A-Z])", "-", type(err).__name__).lower()
        option = getattr(err, "option_name", None) or _name_of(getattr(err, "param", None))
        return cls(
            "usage", f"{message} ({name} --help lists the options)", reason, {"option": option} if option else {}
        )

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
    report: Callable[[Failure], None] | None = None,
    *,
    when_interrupted: str = "No output was written.",
) -> NoReturn:
    """
    Run a command of either package and exit the process with the exit code of the result.

    :param report: prints an error; None for one line on standard error
    :param when_interrupted: end of the message after Ctrl-C
    """
    name = command.name
    _set_environment_variables(command)
    show = report or (lambda failure: click.echo(f"{name}: error: {printable(failure.message)}", err=True))

    try:
        command.main(prog_name=name, standalone_mode=False)
    except click.exceptions.Abort:
        click.echo(f"{name}: interrupted. {when_interrupted}", err=True)
        sys.exit(128 + (requested() or signal.SIGINT))
    except click.ClickException as err:
        show(Failure.of_usage(str(name), err))
        sys.exit(err.exit_code)
    except NerdError as err:
        show(Failure(err.code, str(err), err.reason, err.fields))
        sys.exit(err.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python prints an error at exit
        sys.exit(1)
    sys.exit(0)
