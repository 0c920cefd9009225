"""What the commands of this package share: the check for the export extra, and notes."""

from __future__ import annotations

from importlib.util import find_spec

from nerd_onnx.cli.streams import message
from nerd_onnx.errors import MissingExtraError

_EXTRA_PACKAGES = (
    "torch",
    "transformers",
    "optimum",
    "datasets",
    "seqeval",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "sklearn",
    "scipy",
)


def require_extra(command: str) -> None:
    """
    Check once that the export packages are installed.

    :raises MissingExtraError: naming the extra and the first missing package
    """
    for name in _EXTRA_PACKAGES:
        # Looked up and not imported, because importing them takes seconds.
        try:
            found = find_spec(name) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise MissingExtraError(
                f"{command} needs the package {name}; install it with: pip install 'nerd-onnx[export]'",
                reason="export-missing",
                extra="export",
                package=name,
            )


def note(text: str) -> None:
    """Print a note to the user; the command continues."""
    message(f"note: {text}")
