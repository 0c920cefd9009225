"""Commands run in this process, as their entry points run them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

import pytest

Run = Callable[..., tuple[int, str, str]]


def runner(
    name: str, main: Callable[[], NoReturn], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """
    Return a function that runs a command to its end and returns exit code, stdout and stderr.

    :param name: of the command
    :param main: its entry point
    """

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()

        out, err = capfd.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, out, err

    return run
