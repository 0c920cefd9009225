"""How a command ends: a mistake is one line and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

import click

from nerd_onnx.errors import NerdError
from nerd_onnx.messages import printable


def run_command(command: click.Command, tell: Callable[[str, str], None] | None = None) -> NoReturn:
    """
    Run a command of the runtime and leave the process.

    :param tell: reports a mistake, by its short code and its message; None for one line on standard error
    """
    name = command.name
    tell = tell or (lambda _, message: click.echo(f"{name}: error: {printable(message)}", err=True))
    try:
        command.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo(f"{name}: interrupted; no output was written", err=True)
        sys.exit(130)
    except click.ClickException as err:
        tell("usage", f"{err.format_message()} ({name} --help lists the options)")
        sys.exit(err.exit_code)
    except NerdError as err:
        tell(err.code, str(err))
        sys.exit(err.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader went away: no complaint at exit
        sys.exit(1)
    sys.exit(0)
