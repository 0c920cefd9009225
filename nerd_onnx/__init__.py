"""Add named entities to large text corpora on ordinary CPUs: the same text always gets the same entities."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from nerd_onnx.errors import NerdError

if TYPE_CHECKING:
    from nerd_onnx.tagger import Entity, Tagger, TagOptions

__version__ = "0.1.0"
# Since 1.29 onnxruntime reports models and hashes to its maker unless this is set before it is first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
__all__ = ["Entity", "NerdError", "TagOptions", "Tagger", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the tagger when it is first used: ``nerd-tag --help`` need not wait for onnxruntime."""
    if name in ("Entity", "TagOptions", "Tagger"):
        from nerd_onnx import tagger

        return getattr(tagger, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, also those that are not imported yet."""
    return sorted(__all__)
