"""
Write interface.json, the snapshot of the public interface: ``python docs/make_interface.py "LINE OF CHANGELOG.md"``.

A test compares the snapshot with the program. So nobody changes the interface unnoticed, and nobody records a change
that CHANGELOG.md does not mention.
"""

from __future__ import annotations

import inspect
import json
import sys
import tomllib
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import click

import nerd_onnx
from nerd_onnx import errors
from nerd_onnx.formats.columns import OffsetUnit, entities_type
from nerd_onnx.formats.layouts import ROW_COLUMN, LayoutName
from nerd_onnx.formats.registry import FORMATS
from nerd_onnx.inference.bundle import DEFAULT_FOLDER
from nerd_onnx.inference.description import FORMAT_VERSION
from nerd_onnx.integrations import datasets, duckdb, pandas, polars

ROOT = Path(__file__).resolve().parent.parent
SNAPSHOT = Path(__file__).with_name("interface.json")
CHANGES = ROOT / "CHANGELOG.md"
_INTEGRATIONS = (datasets.map_function, duckdb.register, pandas.entities, polars.entities)
_OPTIONAL_KEYS = frozenset({"native"})  # of bundles whose network the native encoder can compute


class UnrecordedChangeError(Exception):
    """The interface changed, and CHANGELOG.md has no line about it."""


def interface() -> dict[str, Any]:
    """Return the public interface of the installed program, as values of JSON."""
    return {
        "commands": _commands(),
        "exit_codes": _exit_codes(),
        "schema": _schema(),
        "bundle": _bundle(),
        "python": _python(),
    }


def snapshot(line: str, recorded: dict[str, Any]) -> dict[str, Any]:
    """
    Return the content of the snapshot.

    :param line: text of the current section of CHANGELOG.md that describes the change
    :param recorded: the snapshot before the change; empty if there is none
    :raises UnrecordedChangeError: if that section lacks the text, or the text describes an earlier change
    """
    now = interface()
    if now == recorded.get("interface"):
        return recorded

    if not line.strip() or " ".join(line.split()) not in " ".join(_current_section().split()):
        raise UnrecordedChangeError(
            f"{CHANGES.name}: its first section lacks the text {line!r}; describe the change there and quote its line"
        )

    if line == recorded.get("changelog"):
        raise UnrecordedChangeError(f"{line!r} describes the previous change of the interface; quote another line")

    return {"changelog": line, "interface": now}


def _current_section() -> str:
    """Return the section of CHANGELOG.md about the next version, which is the first one."""
    return CHANGES.read_text("utf-8").split("\n## ")[1]


def _commands() -> dict[str, Any]:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    return {name: _command(name, target) for name, target in sorted(scripts.items())}


def _command(name: str, target: str) -> dict[str, Any]:
    module = import_module(target.partition(":")[0])

    command = next(value for value in vars(module).values() if isinstance(value, click.Command) and value.name == name)

    context = click.Context(command, info_name=name, **command.context_settings)
    parameters = [_parameter(parameter, context) for parameter in command.get_params(context)]

    return {
        "environment": command.context_settings.get("auto_envvar_prefix"),
        "parameters": sorted(parameters, key=lambda found: str(found["names"])),
    }


def _parameter(parameter: click.Parameter, context: click.Context) -> dict[str, Any]:
    """Return what a command line can rely on. Values that click represents in its own way are left out."""
    found: dict[str, Any] = {"names": [*parameter.opts, *parameter.secondary_opts]}
    if parameter.required:
        found["required"] = True

    if isinstance(parameter, click.Option):
        found["value"] = not (parameter.is_flag or parameter.count)
        found["repeatable"] = parameter.multiple

    if isinstance(parameter.type, click.Choice):
        found["choices"] = sorted(str(choice) for choice in parameter.type.choices)

    default = parameter.get_default(context)
    # A bool is an int here; False is what click gives to flags that are not set.
    if isinstance(default, (int, float, str)) and default is not False:
        found["default"] = default

    return found


def _exit_codes() -> dict[str, int]:
    """Return the exit code of each category of errors. Those of signals are 128 and the number of the signal."""
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, errors.NerdError)]

    codes = {kind.code: kind.exit_code for kind in kinds if kind is not errors.InterruptedRunError}
    return {
        **{code: codes[code] for code in sorted(codes)},
        "done": 0,
        "done with rejected rows": 3,
        "SIGINT": errors.InterruptedRunError(2).exit_code,
        "SIGTERM": errors.InterruptedRunError(15).exit_code,
    }


def _errors() -> dict[str, type[errors.NerdError]]:
    """Return the classes of errors by name."""
    return {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.NerdError)
    }


def _schema() -> dict[str, Any]:
    return {
        "nested": str(entities_type(with_fine=False)),
        "nested, two levels of labels": str(entities_type(with_fine=True)),
        "layouts": list(get_args(LayoutName)),
        "long, key without --key": ROW_COLUMN,
        "offset units": list(get_args(OffsetUnit)),
        "file formats": {found.name: list(found.suffixes) for found in FORMATS},
    }


def _bundle() -> dict[str, Any]:
    described = json.loads((DEFAULT_FOLDER / "nerd.json").read_text("utf-8"))
    return {
        "format version": FORMAT_VERSION,
        "keys": sorted(described.keys() - _OPTIONAL_KEYS),
    }


def _python() -> dict[str, Any]:
    exported = {f"nerd_onnx.{name}": getattr(nerd_onnx, name) for name in nerd_onnx.__all__ if name != "__version__"}
    raised = {f"nerd_onnx.errors.{name}": kind for name, kind in _errors().items()}

    functions = {f"{function.__module__}.{function.__name__}": function for function in _INTEGRATIONS}
    return {
        **{name: _members(kind) for name, kind in sorted(exported.items())},
        **{name: [base.__name__ for base in kind.__bases__] for name, kind in sorted(raised.items())},
        **{name: str(inspect.signature(function)) for name, function in sorted(functions.items())},
    }


def _members(kind: type) -> dict[str, str]:
    """Return the public methods and fields of a class, each with its signature or type."""
    # Under no name: the call of the class itself.
    found = {"": str(inspect.signature(kind))}
    if is_dataclass(kind):
        found |= {field.name: str(field.type) for field in fields(kind)}

    for name, value in vars(kind).items():
        function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if inspect.isfunction(function) and not name.startswith("_"):
            found[name] = str(inspect.signature(function))
        elif isinstance(value, property) and not name.startswith("_"):
            found[name] = "property"

    return dict(sorted(found.items()))


def main(arguments: list[str]) -> None:
    """Write the snapshot; end with a message where CHANGELOG.md lacks the change."""
    recorded = json.loads(SNAPSHOT.read_text("utf-8")) if SNAPSHOT.exists() else {}

    try:
        content = snapshot(" ".join(arguments), recorded)
    except UnrecordedChangeError as err:
        sys.exit(str(err))

    SNAPSHOT.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
