"""Types of the columns of CSV and TSV, as a user names them: ``auto,zip=text``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nerd_onnx.errors import OptionError

OPTION = "--csv-types"
_PLAIN_NAME = re.compile(r"[\w. -]+")
_SEPARATOR = re.compile(r",(?![^()]*\))")  # decimal(10,2) has a comma


@dataclass(frozen=True)
class ColumnTypes:
    """
    Which types columns of text get.

    :param is_auto: whether a column that is not named gets the type that all its values have; else it stays text
    :param named: columns and the names of their types, see :mod:`nerd_onnx.formats.typed_text`, sorted
    """

    is_auto: bool = False
    named: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> ColumnTypes:
        """
        Return the types that an option names: ``text``, ``auto``, ``NAME=TYPE`` and ``FILE.json``, between commas.

        :raises OptionError: if it cannot be understood, or a file in it cannot be read
        """
        is_auto = False
        named: dict[str, str] = {}
        for item in map(str.strip, _SEPARATOR.split(text)):
            # At the last sign: a name may have one, and no type has one.
            name, equals, kind = item.rpartition("=")
            if equals:
                _add(named, name.strip(), kind.strip())
            elif item.endswith(".json"):
                for key, value in _content_of(item).items():
                    _add(named, key, value)
            elif item in ("auto", "text"):
                is_auto = item == "auto"
            else:
                raise _error(f"{item!r} is not auto, text, NAME=TYPE or FILE.json", item)

        # Sorted, so that the order in which they were given does not change the fingerprint of a run.
        return cls(is_auto, tuple(sorted(named.items())))

    @property
    def without_search(self) -> ColumnTypes:
        """The same types, with text for all columns that are not named."""
        return ColumnTypes(named=self.named)

    @property
    def plain(self) -> str:
        """The types as text, the same for each way to write them."""
        # In quotes where a name has a comma or the like: different types must not have one text.
        names = ((name if _PLAIN_NAME.fullmatch(name) else json.dumps(name), kind) for name, kind in self.named)
        return ",".join(["auto" if self.is_auto else "text", *(f"{name}={kind}" for name, kind in names)])


ALL_TEXT = ColumnTypes()


def _add(named: dict[str, str], name: str, kind: object) -> None:
    """Add a column; raises an OptionError if it is there, or the type is not known."""
    from nerd_onnx.formats.typed_text import KIND_NAMES, kind_named  # pyarrow, which --help does not wait for

    kind = kind.lower().replace(" ", "") if isinstance(kind, str) else kind
    try:
        kind_named(str(kind))
    except KeyError:
        raise _error(
            f"the type of column {name!r} is {kind!r}; expected one of {', '.join(KIND_NAMES)}", str(kind)
        ) from None

    if name in named:
        raise _error(f"column {name!r} is named twice", name)
    named[name] = str(kind)


def _content_of(name: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(name).read_text("utf-8"))
    except OSError as err:
        raise _error(f"{name} cannot be read: {err.strerror}", name) from err
    except (ValueError, RecursionError) as err:
        raise _error(f"{name} is not JSON: {err}", name) from err

    if not isinstance(content, dict):
        raise _error(f'{name} is not an object such as {{"id": "int64"}}', name)
    return content


def _error(problem: str, found: str) -> OptionError:
    return OptionError(f"{OPTION}: {problem}", reason="bad-csv-types", option=OPTION, found=found)
