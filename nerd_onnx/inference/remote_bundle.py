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
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.remote import cache_folder, files_below, version

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

    place = Location.of(model)
    if not place.is_remote:
        return Bundle.load(place.text)

    # Messages name the model as the user did, but never show a password in its URI.
    return replace(Bundle.load(_fetched(place)), name=place.without_secrets)


def _fetched(remote: Location) -> Path:
    """
    Return the local copy of a remote folder. It is copied when a remote file has a new size or version.

    :param remote: the folder
    :raises ModelError: when the URI has no model, or it cannot be read, or the copy cannot be written
    """
    name = remote.without_secrets
    try:
        sizes = {file: remote.join(file).info().size for file in _model_files(remote)}
        if not {DESCRIPTION, "config.json"} & sizes.keys():
            raise ModelError(
                f"{name}: no such model folder; expected a folder with ONNX, tokenizer.json and config.json",
                reason="missing-model",
                file=name,
            )

        facts = [remote.identity, sizes, {file: version(remote.join(file).text) for file in sizes}]
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

        folder = Path(cache_folder("models")) / key[:32]
        if not _is_complete(folder, sizes):
            _copy(remote, sizes, folder)
    except (InputError, StoreError) as err:
        raise ModelError(f"the model cannot be fetched: {err}", reason="cannot-fetch", file=name) from err
    except OSError as err:
        raise ModelError(
            f"{name}: cannot be fetched: {err.strerror or first_line(err)}", reason="cannot-fetch", file=name
        ) from err

    return folder


def _model_files(remote: Location) -> list[str]:
    """Return the files of a model folder and of its ``onnx`` folder, without those that only other programs need."""
    found = files_below(remote.text, deep=False)
    inner = [f"{_INNER}/{file}" for file in files_below(remote.join(_INNER).text, deep=False)]
    return [file for file in (*found, *inner) if not file.endswith(_OTHER_WEIGHTS) and _is_plain(file)]


def _is_plain(file: str) -> bool:
    """Whether a file's name stays inside the folder it is copied to; anybody may have chosen the name."""
    name = file.rpartition("/")[2]
    return Path(name).name == name and not name.startswith(".")


def _is_complete(folder: Path, sizes: dict[str, int]) -> bool:
    """Whether a copy has all files in their sizes; users may delete files from their cache."""
    return all((folder / file).is_file() and (folder / file).stat().st_size == size for file, size in sizes.items())


def _copy(remote: Location, sizes: dict[str, int], folder: Path) -> None:
    """Copy all files of a folder; the copy is written atomically."""
    with AtomicFolder(folder) as made:
        for file, size in sizes.items():
            copy = made.path / file
            copy.parent.mkdir(exist_ok=True)
            with open_bytes(remote.join(file)) as source, copy.open("xb") as target:
                shutil.copyfileobj(source, target, _COPY_BYTES)

            if copy.stat().st_size != size:
                raise OSError(None, f"{file} changed while it was read")

        # An incomplete copy may be there, or one that another process has just made.
        made.commit(replace=True)
