"""What all commands share, and how they end: a mistake is one line and an exit code, never a traceback."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from nerd_onnx.errors import Field, NerdError
from nerd_onnx.formats.registry import readable_formats
from nerd_onnx.terminal import printable

_TAGGED_FILE_OPTIONS = (
    click.option("--text-column", default="text", help="Column with the texts."),
    click.option("--column", default="entities", help="Column with their entities."),
    click.option(
        "--format",
        "input_format",
        type=click.Choice([known.name for known in readable_formats()]),
        help="Where INPUT's name does not tell.",
    ),
    click.option(
        "--offset-unit",
        type=click.Choice(["codepoint", "utf8", "utf16"]),
        help="Of the offsets.  [default: what the file says, else codepoint]",
    ),
)


def settings(prefix: str) -> dict[str, Any]:
    """
    Give what all commands have in common.

    :param prefix: of the options' twins in the environment
    """
    return {"auto_envvar_prefix": prefix, "show_default": True, "help_option_names": ["-h", "--help"]}


def complete_folders(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Let the shell complete the folders of an option that takes other names too."""
    return [CompletionItem(typed, type="dir")]


def tagged_file_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say how a tagged file is read."""
    return reduce(lambda wrapped, option: option(wrapped), reversed(_TAGGED_FILE_OPTIONS), function)


def reading(options: dict[str, Any]) -> dict[str, Any]:
    """Take these options out of a command's, as :class:`~nerd_onnx.formats.tagged_file.TaggedFile` names them."""
    return {
        "format": options["input_format"],
        "text_column": options["text_column"],
        "column": options["column"],
        "unit": options["offset_unit"],
    }


def _name_twins(command: click.Command) -> None:
    """Name each option's twin in the environment like the option, also where the parameter has another name."""
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
    :param fields: what the message names, see :class:`~nerd_onnx.errors.NerdError`
    """

    code: str
    message: str
    reason: str
    fields: Mapping[str, Field]

    @classmethod
    def of_usage(cls, name: str, err: click.ClickException) -> Failure:
        """Describe options that click refused, by the class of click's error: ``missing-parameter``."""
        message = " ".join(err.format_message().split())  # click puts the choices of a missing option in lines
        reason = re.sub("(?<=[a-z])(?=[A-Z])", "-", type(err).__name__).lower()
        option = getattr(err, "option_name", None) or _name_of(getattr(err, "param", None))
        return cls(
            "usage", f"{message} ({name} --help lists the options)", reason, {"option": option} if option else {}
        )

    @property
    def facts(self) -> dict[str, Field]:
        """The failure as the members of a JSON object."""
        return {**self.fields, "error": self.code, "reason": self.reason, "message": self.message}


def _name_of(parameter: click.Parameter | None) -> str | None:
    """Return the name of an option as it is written, or of an argument as the help shows it."""
    if parameter is None:
        return None
    return max(parameter.opts, key=len) if isinstance(parameter, click.Option) else parameter.human_readable_name


def run_command(
    command: click.Command,
    tell: Callable[[Failure], None] | None = None,
    *,
    when_interrupted: str = "no output was written",
) -> NoReturn:
    """
    Run a command of either package and leave the process with the exit code of how it ended.

    :param tell: reports an error; None for one line on standard error
    :param when_interrupted: what Ctrl-C leaves, or what goes on
    """
    name = command.name
    _name_twins(command)
    say = tell or (lambda failure: click.echo(f"{name}: error: {printable(failure.message)}", err=True))
    try:
        command.main(prog_name=name, standalone_mode=False)
    except click.exceptions.Abort:
        click.echo(f"{name}: interrupted; {when_interrupted}", err=True)
        sys.exit(130)
    except click.ClickException as err:
        say(Failure.of_usage(str(name), err))
        sys.exit(err.exit_code)
    except NerdError as err:
        say(Failure(err.code, str(err), err.reason, err.fields))
        sys.exit(err.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader went away: no complaint at exit
        sys.exit(1)
    sys.exit(0)
