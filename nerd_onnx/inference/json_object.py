"""
Typed reading of the JSON files of a model: ``nerd.json``, ``config.json``, ``tokenizer_config.json``.

Anybody may have written these files. Each value that the runtime uses is read by a method of :class:`JsonObject`, which
checks its type and range; every error names the file and the field.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from nerd_onnx.errors import ModelError, first_line
from nerd_onnx.inference.model_files import open_regular_file

_MAX_BYTES = 16 << 20
_MAX_DEPTH = 100
_Text = TypeVar("_Text", bound=str)


class JsonObject:
    """
    A JSON object whose fields are read one by one.

    :param file: the file, for messages
    :param content: the object
    :param place: path of the object in the file, for messages; empty for the whole file
    """

    def __init__(self, file: Path | str, content: Mapping[str, Any], place: str = "") -> None:
        self.file = str(file)
        self.content = content
        self._place = place

    def error(self, key: str, problem: str, **facts: str | float) -> ModelError:
        """Return the error about a field."""
        field = f"{self._place}.{key}" if self._place else key
        return ModelError(
            f"{self.file}: incomplete or malformed: {field} {problem}; copy the folder again, or export it again",
            reason="bad-description",
            file=self.file,
            field=field,
            **facts,
        )

    def has(self, key: str) -> bool:
        """Whether a field is there and not null."""
        return self.content.get(key) is not None

    def text(self, key: str) -> str:
        """
        Return a field that must be text, possibly empty.

        :raises ModelError: when it is missing or something else
        """
        return self._checked_text(key, self._value(key))

    def choice(self, key: str, values: Collection[_Text]) -> _Text:
        """
        Return a field that must have one of some values.

        :raises ModelError: when it is missing or something else
        """
        found = self._value(key)
        # Not ``in``: a list or an object cannot be looked up in a set.
        for value in values:
            if found == value:
                return value
        raise self._unexpected(key, found, f"one of {', '.join(values)}")

    def texts(self, key: str) -> tuple[str, ...]:
        """
        Return a field that must be a list of texts, none of them empty.

        :raises ModelError: when it is missing or something else
        """
        found = self._value(key)
        if not isinstance(found, list):
            raise self._unexpected(key, found, "a list")
        return tuple(self._name(f"{key}[{i}]", value) for i, value in enumerate(found))

    def names(self) -> dict[str, str]:
        """
        Return all fields, which must be texts and not empty.

        :raises ModelError: when one is something else
        """
        return {key: self._name(key, value) for key, value in self.content.items()}

    def flag(self, key: str) -> bool:
        """
        Return a field that must be true or false.

        :raises ModelError: when it is missing or something else
        """
        found = self._value(key)
        if not isinstance(found, bool):
            raise self._unexpected(key, found, "true or false")
        return found

    def integer(self, key: str, minimum: int, maximum: int) -> int:
        """
        Return a field that must be a whole number in a range.

        :raises ModelError: when it is missing, something else, or outside of the range
        """
        found = self._value(key)
        if isinstance(found, bool) or not isinstance(found, int) or not minimum <= found <= maximum:
            raise self._unexpected(key, found, f"a whole number from {minimum} to {maximum}")
        return found

    def number(self, key: str, minimum: float = -math.inf, maximum: float = math.inf) -> float:
        """
        Return a field that must be a finite number in a range.

        :raises ModelError: when it is missing, something else, or outside of the range
        """
        found = self._value(key)
        value = _double(found)
        if value is None or not minimum <= value <= maximum:
            limits = "" if minimum == -math.inf else f" from {minimum:g} to {maximum:g}"
            raise self._unexpected(key, found, f"a finite number{limits}")
        return value

    def section(self, key: str) -> JsonObject:
        """
        Return a field that must be an object.

        :raises ModelError: when it is missing or something else
        """
        found = self._value(key)
        if not isinstance(found, dict):
            raise self._unexpected(key, found, "an object")
        return JsonObject(self.file, found, f"{self._place}.{key}" if self._place else key)

    def optional_section(self, key: str) -> JsonObject | None:
        """
        Return a field that must be an object, or None where it is missing or null.

        :raises ModelError: when it is something else
        """
        return self.section(key) if self.has(key) else None

    def sections(self) -> Iterator[tuple[str, JsonObject]]:
        """
        Yield the names and values of all fields, which must be objects.

        :raises ModelError: when one is something else
        """
        for key in self.content:
            yield key, self.section(key)

    def _value(self, key: str) -> Any:
        if key not in self.content:
            raise self.error(key, "is missing")
        return self.content[key]

    def _name(self, key: str, value: object) -> str:
        text = self._checked_text(key, value)
        if not text:
            raise self._unexpected(key, text, "a name")
        return text

    def _checked_text(self, key: str, value: object) -> str:
        if not isinstance(value, str):
            raise self._unexpected(key, value, "text")
        if not _is_encodable(value):
            raise self._unexpected(key, value, "text without lone surrogates")
        return value

    def _unexpected(self, key: str, found: object, expected: str) -> ModelError:
        shown = ascii(found)
        return self.error(key, f"is {shown}; expected {expected}", found=shown, expected=expected)


def read_json(path: Path, *, strict: bool = False) -> JsonObject:
    """
    Read a file that contains one JSON object. No name may occur twice in an object.

    :param strict: refuse numbers that are not finite, which JSON does not have, also in fields that are not used
    :raises ModelError: when the file is missing, too large, nested too deeply, or not a JSON object
    """
    try:
        with open_regular_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MAX_BYTES:
                raise ModelError(
                    f"{path}: has {size / 1e6:.0f} MB; expected a description of some KB",
                    reason="too-large",
                    file=str(path),
                    found=size,
                    maximum=_MAX_BYTES,
                )

            content = file.read()

        value = json.loads(content.decode(), object_pairs_hook=lambda pairs: _object(path, pairs))
    except FileNotFoundError as err:
        raise ModelError(
            f"{path}: is missing; a model folder has config.json, tokenizer.json and an ONNX file",
            reason="missing-file",
            file=str(path),
        ) from err
    except (OSError, ValueError, RecursionError) as err:
        raise ModelError(f"{path}: not readable as JSON: {first_line(err)}", reason="not-json", file=str(path)) from err

    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object", reason="not-object", file=str(path))

    found = JsonObject(path, value)
    _check_values(found, strict=strict)
    return found


def _object(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object from its fields; a name must not occur twice, because programs differ in which one they use."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found

    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise JsonObject(path, found).error(ascii(key), "occurs twice in one object")
        seen.add(key)
    raise AssertionError("some name occurs twice")


def _check_values(content: JsonObject, *, strict: bool) -> None:
    """
    Check the values at all depths, in the order of the file.

    :raises ModelError: when objects and lists are nested too deeply, or (if strict) a number is not finite
    """
    # A list of what is left, not recursion: Python's own limit on depth would depend on the caller.
    waiting: list[tuple[str, Any, int]] = [("", content.content, 0)]
    while waiting:
        place, value, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise content.error(place, f"is nested more than {_MAX_DEPTH} levels deep", maximum=_MAX_DEPTH)
        if strict and isinstance(value, float) and not math.isfinite(value):
            raise content.error(place, f"is {value}; expected a finite number", found=str(value))

        inner: list[tuple[str, Any]] = []
        if isinstance(value, dict):
            inner = [(f"{place}.{key}" if place else key, member) for key, member in value.items()]
        elif isinstance(value, list):
            inner = [(f"{place}[{i}]", member) for i, member in enumerate(value)]
        # Taken from the end, so reversed: the first fault in the file is the one that is reported.
        waiting += [(name, member, depth + 1) for name, member in reversed(inner)]


def _double(value: object) -> float | None:
    """Return a JSON number as a finite double; None if it is none."""
    # In Python, true is an integer, and integers have no largest value.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _is_encodable(text: str) -> bool:
    # JSON can spell half a character, such as \ud800, which no output in UTF-8 can hold.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
