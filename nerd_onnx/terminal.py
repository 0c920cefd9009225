"""Text that is safe to print on a terminal."""

from __future__ import annotations

import unicodedata

# Unicode categories: control and format characters (bidi overrides too), line and paragraph ends, lone surrogates.
_CONTROL = ("Cc", "Cf", "Zl", "Zp", "Cs")


def printable(text: str) -> str:
    """Return a text with escapes in place of all characters that a terminal could interpret as commands."""
    return "".join(_escaped(c) if unicodedata.category(c) in _CONTROL else c for c in text)


def _escaped(character: str) -> str:
    if character == "\n":
        return "\\n"
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004
