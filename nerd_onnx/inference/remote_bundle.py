"""
Model folders in remote storage.

A folder is copied once into the user's cache, then read and checked like any local folder. The name of the copy depends
on the sizes and versions of the remote files, so that a changed model is copied again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

from nerd_onnx.errors import InputError, ModelError, StoreError, first_line
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.description import DESCRIPTION
from nerd_onnx.storage.atomic_folder import AtomicFolder
from nerd_onnx.storage.input_stream import open_bytes
from nerd_onnx.storage.location import is_uri, join, local_path, place_name, without_secrets
from nerd_onnx.storage.remote import cache_folder, files_below, find, version

_INNER = "onnx"  # the subfolder in which optimum puts graphs
_OTHER_WEIGHTS = (".bin", ".safetensors", ".h5", ".msgpack", ".pt", ".ot")  # large, and onnxruntime needs none of them
_COPY_BYTES = 8 << 20


def load_bundle(model: str | Path | None = None) -> Bundle:
    """
    Read a bundle, or another model folder, from a local folder, the hub or remote storage.

    :param model: a folder, a hub id or a URI; None for the default model
    :raises ModelError: when a file is missing, changed or not usable
    """
    if model is None:
        return Bundle.load()

    path = local_path(str(model))
    if not is_uri(path):
        return Bundle.load(path)

    # Messages name the model as the user did, but never show a password in its URI.
    return replace(Bundle.load(_fetched(path)), name=without_secrets(path))


def _fetched(uri: str) -> Path:
    """
    Return the local copy of a remote folder. It is copied when a remote file has a new size or version.

    :param uri: of the folder
    :raises ModelError: when the URI has no model, or it cannot be read, or the copy cannot be written
    """
    name = without_secrets(uri)
    try:
        sizes = {file: find(join(uri, file)).size for file in _model_files(uri)}
        if not {DESCRIPTION, "config.json"} & sizes.keys():
            raise ModelError(
                f"{name}: no such model folder; expected a folder with ONNX, tokenizer.json and config.json",
                reason="missing-model",
                file=name,
            )

        facts = [place_name(uri), sizes, {file: version(join(uri, file)) for file in sizes}]
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        folder = Path(cache_folder("models")) / key[:32]
        if not _is_complete(folder, sizes):
            _copy(uri, sizes, folder)
    except (InputError, StoreError) as err:
        raise ModelError(f"the model cannot be fetched: {err}", reason="cannot-fetch", file=name) from err
    except OSError as err:
        raise ModelError(
            f"{name}: cannot be fetched: {err.strerror or first_line(err)}", reason="cannot-fetch", file=name
        ) from err
    return folder


def _model_files(uri: str) -> list[str]:
    """Return the files of a model folder and of its ``onnx`` folder, without those that only other programs need."""
    found = files_below(uri, deep=False)
    inner = [f"{_INNER}/{file}" for file in files_below(join(uri, _INNER), deep=False)]
    return [file for file in (*found, *inner) if not file.endswith(_OTHER_WEIGHTS) and _is_plain(file)]


def _is_plain(file: str) -> bool:
    """Whether a file's name stays inside the folder it is copied to; anybody may have chosen the name."""
    name = file.rpartition("/")[2]
    return Path(name).name == name and not name.startswith(".")


def _is_complete(folder: Path, sizes: dict[str, int]) -> bool:
    """Whether a copy has all files in their sizes; users may delete files from their cache."""
    return all((folder / file).is_file() and (folder / file).stat().st_size == size for file, size in sizes.items())


def _copy(uri: str, sizes: dict[str, int], folder: Path) -> None:
    """Copy all files of a folder; the copy is written atomically."""
    with AtomicFolder(folder) as made:
        for file, size in sizes.items():
            copy = made.path / file
            copy.parent.mkdir(exist_ok=True)
            with open_bytes(join(uri, file)) as source, copy.open("xb") as target:
                shutil.copyfileobj(source, target, _COPY_BYTES)
            if copy.stat().st_size != size:
                raise OSError(None, f"{file} changed while it was read")

        made.commit(replace=True)
