"""Write errors.md from the raise sites of the program: ``python docs/make_errors.py``."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from nerd_onnx import errors

PACKAGES = ("nerd_onnx", "nerd_export")
_PASSED_ON = "reason"  # `reason=err.reason`: the error says what another one said
_HEAD = """# Errors

A command that fails prints one line and ends with the exit code below. With `--json`, `nerd-tag` prints one JSON
object with `"status": "failed"`, the category as `error`, the `reason`, the `message`, and the known fields, such as
`file`, `row`, `column` and `option`. In Python, an error has the attributes `code` (the category), `reason` and
`fields`.

- Category, exit code, reason and fields are stable. The message is for people and may change.
- The field `row` is the number that the message shows. In JSON Lines, CSV and plain text, it is the line, from 1. In
  Parquet and Arrow, it is the row, from 0.
- A wrong value in the command line has the category `usage`, exit code 2, and a reason such as `no-such-option`,
  `missing-parameter` or `bad-parameter`.
- Other exceptions, such as missing memory, are one line too. Their category and reason are `unexpected`, and the field
  `exception` has the type.
- With the environment variable `NERD_DEBUG=1`, every error also prints its traceback.
- If a message or field has more than 2,000 characters, its middle is left out.
- If standard error is closed, full or without a reader, the message is dropped. The exit code stays the same.

The headings below are the classes of errors in Python. `…` stands for a value. This page is written by
`python docs/make_errors.py`; the tests compare it with the program.

"""


@dataclass(frozen=True)
class RaiseSite:
    """
    A place where an error is made.

    :param kind: name of its class
    :param module: where
    :param line: the line
    :param reasons: those it may have; empty where it has none of its own
    :param passes_on: its reason is that of another error
    :param message: its text, with … for values
    :param fields: names of its fields
    """

    kind: str
    module: str
    line: int
    reasons: tuple[str, ...]
    passes_on: bool
    message: str
    fields: tuple[str, ...]


def error_classes() -> dict[str, type[errors.NerdError]]:
    """Return all classes of errors of the packages, by name."""
    found = {name: value for name, value in vars(errors).items() if _is_error(value)}
    for module, tree in _sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") in found for base in node.bases):
                found[node.name] = getattr(import_module(module), node.name)
    return found


def raise_sites() -> list[RaiseSite]:
    """Return all places of the packages where an error is made, in the order of the files."""
    classes = error_classes()
    return [site for module, tree in _sources() for site in _sites_in(module, tree, classes)]


def errors_page() -> str:
    """Return the page: each class with its reasons."""
    sites = [site for site in raise_sites() if site.reasons]
    sections = [_section(kind, [site for site in sites if site.kind == name]) for name, kind in error_classes().items()]
    return _HEAD + "\n".join(section for section in sections if section)


def _is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, errors.NerdError)


def _sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        root = _folder(import_module(package))

        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root.parent).with_suffix("").parts
            yield ".".join(parts).removesuffix(".__init__"), ast.parse(path.read_text("utf-8"))


def _folder(package: ModuleType) -> Path:
    return Path(next(iter(package.__path__))).resolve()


def _sites_in(module: str, tree: ast.Module, classes: dict[str, Any]) -> Iterator[RaiseSite]:
    for owner in ast.walk(tree):
        if isinstance(owner, ast.ClassDef) and owner.name in classes:
            # A class with a reason of its own gives it to its base.
            yield from (_site(owner.name, module, call) for call in _calls(owner) if _is_constructor_of_base(call))
        elif isinstance(owner, ast.FunctionDef):
            yield from _sites_of_given_classes(owner, module, classes)

    for call in _calls(tree):
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        if name in classes and "reason" in inspect.signature(classes[name].__init__).parameters:
            yield _site(name, module, call)


def _sites_of_given_classes(owner: ast.FunctionDef, module: str, classes: dict[str, Any]) -> Iterator[RaiseSite]:
    """Yield the places of a function that raises a class that it was given: its docstring names the classes."""
    given = [name for name in classes if f":raises {name}:" in (ast.get_docstring(owner) or "")]

    for node in ast.walk(owner):
        call = node.exc if isinstance(node, ast.Raise) else None
        # The name of a parameter is in lower case, that of a class is not.
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id.islower():
            yield from (_site(name, module, call) for name in given if _keyword(call, "reason") is not None)


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (child for child in ast.walk(node) if isinstance(child, ast.Call))


def _is_constructor_of_base(call: ast.Call) -> bool:
    return ast.unparse(call.func) == "super().__init__" and isinstance(_keyword(call, "reason"), ast.Constant)


def _site(kind: str, module: str, call: ast.Call) -> RaiseSite:
    reason = _keyword(call, "reason")
    options = (reason.body, reason.orelse) if isinstance(reason, ast.IfExp) else (reason,)
    reasons = tuple(str(option.value) for option in options if isinstance(option, ast.Constant))

    passes_on = isinstance(reason, ast.Attribute) and reason.attr == _PASSED_ON
    texts = [text for text in map(_text, call.args) if text]
    fields = [name for word in call.keywords for name in _field_names(word)]

    return RaiseSite(kind, module, call.lineno, reasons, passes_on, " ".join(texts), tuple(fields))


def _field_names(word: ast.keyword) -> tuple[str, ...]:
    # ``**row.where`` stands for the file and the row.
    if word.arg is None:
        return ("file", "row") if ast.unparse(word.value).endswith(".where") else ()
    return () if word.arg == "reason" else (word.arg,)


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((word.value for word in call.keywords if word.arg == name), None)


def _text(node: ast.expr) -> str:
    """Return a text literal, with … for each value in it."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


def _section(kind: type[errors.NerdError], sites: list[RaiseSite]) -> str:
    if not sites:
        return ""
    lines = [f"## {kind.__name__}", "", " ".join(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].split()), ""]

    code = "128 and the number of the signal" if kind is errors.InterruptedRunError else str(kind.exit_code)
    lines += [f"Category `{kind.code}`, exit code {code}.", "", "| Reason | Message | Fields | Raised in |"]
    lines += ["|---|---|---|---|"]

    reasons = {reason for site in sites for reason in site.reasons}
    lines += [_row(reason, [site for site in sites if reason in site.reasons]) for reason in sorted(reasons)]
    return "\n".join(lines) + "\n"


def _row(reason: str, sites: list[RaiseSite]) -> str:
    """Return a reason with the first message, and with the fields and modules of all places that have it."""
    message = next((site.message for site in sites if site.message), "").replace("|", "\\|")
    fields = ", ".join(f"`{name}`" for name in dict.fromkeys(name for site in sites for name in site.fields))
    modules = ", ".join(f"`{name}`" for name in sorted({site.module for site in sites}))
    return f"| `{reason}` | {message} | {fields} | {modules} |"


if __name__ == "__main__":
    Path(__file__).with_name("errors.md").write_text(errors_page(), "utf-8")
