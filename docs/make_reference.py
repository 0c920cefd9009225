"""Write reference.md from the commands themselves: ``python docs/make_reference.py``."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
_WIDTH = 100
_HEAD = """# Reference

This page shows the `--help` of each command. Every option can also be set by an environment variable. Its name is the
prefix that is shown under the name of the command, then the option in capitals with `_` instead of `-`. Example:
`NERD_MIN_SCORE=0.8` sets `--min-score` of `nerd-tag`.

The page is written by `python docs/make_reference.py`; the tests compare it with the program.

"""


def reference() -> str:
    """Return the page: each command of the package with its help."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    return _HEAD + "\n".join(_section(name, target) for name, target in scripts.items())


def _section(name: str, target: str) -> str:
    module = import_module(target.partition(":")[0])
    command = next(value for value in vars(module).values() if isinstance(value, click.Command) and value.name == name)

    # A fixed width, or the page would depend on the terminal in which it is written.
    settings = {**command.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    text = command.get_help(click.Context(command, info_name=name, **settings))

    prefix = command.context_settings.get("auto_envvar_prefix", "none")
    return f"## {name}\n\nEnvironment: `{prefix}_...`\n\n```\n{text}\n```\n"


if __name__ == "__main__":
    Path(__file__).with_name("reference.md").write_text(reference(), "utf-8")
