"""Text that is safe for a terminal."""

from __future__ import annotations

import unicodedata

_STEERING = ("Cc", "Cf", "Zl", "Zp", "Cs")  # control and format characters (bidi overrides), line ends, lone surrogates


def printable(text: str) -> str:
    """Write characters that could steer a terminal as escapes: no file name or label reaches it as it is."""
    return "".join(_escaped(c) if unicodedata.category(c) in _STEERING else c for c in text)


def _escaped(character: str) -> str:
    if character == "\n":
        return "\\n"
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004
