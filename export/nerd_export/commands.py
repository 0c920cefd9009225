"""What the commands of this package share: the extra they need, notes, and one line for a mistake."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NoReturn

import click

from nerd_onnx.commands import run_to_its_end
from nerd_onnx.errors import MissingExtraError

_EXTRA_PACKAGES = ("torch", "transformers", "optimum", "datasets", "seqeval", "onnx", "onnx_ir", "onnxscript")


def require_extra(command: str) -> None:
    """
    Check once that the export packages are installed.

    :raises MissingExtraError: naming the extra and the first missing package
    """
    for name in _EXTRA_PACKAGES:
        try:
            found = find_spec(name) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise MissingExtraError(f"{command} needs {name}, which comes with: pip install 'nerd-onnx[export]'")


def note(text: str) -> None:
    """Tell the user what does not stop the command."""
    click.echo(f"note: {text}", err=True)


def run_command(command: click.Command, when_interrupted: str = "nothing was written") -> NoReturn:
    """
    Run a command; a user's mistake ends in one line and an exit code, never in a traceback.

    :param when_interrupted: what Ctrl-C leaves, or what goes on
    """
    run_to_its_end(
        command,
        interrupted=f"interrupted; {when_interrupted}",
        tell_usage=lambda err: err.show(),
        tell_mistake=lambda err: click.echo(f"error: {err}", err=True),
    )
