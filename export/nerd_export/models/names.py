"""The names that users may give for a checkpoint: hub ids, folders, bundles, and ``default``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nerd_export.outputs import writing
from nerd_onnx.errors import ModelError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.description import DESCRIPTION
from nerd_onnx.storage.hub import has_file, require_place

DEFAULT_MODEL = "default"


def require_model(name: str, option: str, *, may_be_default: bool = False) -> None:
    """
    Check that a name is ``default``, a folder, or a model on the hub.

    :param option: the option that gave the name, for the message
    :param may_be_default: whether the message advises the default model, which needs no network
    :raises ModelError: when it is none of these
    """
    if is_default_model(name):
        return
    try:
        require_place(name, "model", option)
    except ModelError as err:
        if may_be_default and err.reason in ("not-on-hub", "hub-failed", "hub-missing"):
            err.args = (f"{err}, or {option} default: the model of this package, which needs no network",)
        raise


@contextmanager
def as_checkpoint(name: str) -> Iterator[str]:
    """
    Yield the hub id or folder of a checkpoint; for a bundle, a temporary checkpoint is written.

    :param name: hub id, folder, or ``default`` for the default model
    :raises ModelError: when the bundle is invalid, or PyTorch weights cannot be read from its graph
    :raises OutputError: when the disk has no room
    """
    bundle = bundle_named(name)
    if bundle is None:
        yield name
        return

    from nerd_export.models.restoring import restored  # which nerd-export --check does without

    # transformers loads only from folders or the hub, so the restored model is written to a temporary folder.
    model, tokenizer = restored(bundle)
    with tempfile.TemporaryDirectory() as folder:
        with writing(Path(folder)):
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        yield folder


def bundle_named(name: str) -> Bundle | None:
    """
    Return the bundle of a name; None if it is the name of a checkpoint.

    :param name: hub id, folder, or ``default`` for the default model
    :raises ModelError: when the bundle is invalid or cannot be fetched
    """
    if is_default_model(name):
        return Bundle.load(None)

    # nerd.json is what makes a folder a bundle: an ONNX file alone may be from any program.
    return Bundle.load(name) if has_file(name, DESCRIPTION) else None


def is_default_model(name: str) -> bool:
    """Whether a name means the default model; a folder of that name has precedence."""
    return name == DEFAULT_MODEL and not Path(name).exists()
