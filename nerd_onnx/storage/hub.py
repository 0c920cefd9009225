"""Decide whether a name is a local folder or an id on the Hugging Face hub, before anything is downloaded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from nerd_onnx.errors import ModelError, NerdError, TrainingDataError, first_line

Kind = Literal["model", "dataset"]

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_ID = re.compile(rf"(?:{_PART}/)?{_PART}")
_MAX_ID = 96  # characters, by the rules of the hub
_ASK_S = 10.0
_NAMES: dict[Kind, tuple[str, type[NerdError]]] = {
    "model": ("model", ModelError),
    "dataset": ("data set", TrainingDataError),
}


def is_hub_id(name: str) -> bool:
    """Whether a name has the syntax of a hub id: ``owner/name``, or a name without owner."""
    return len(name) <= _MAX_ID and _ID.fullmatch(name) is not None


@contextmanager
def readable_place(shown: str, error: type[NerdError]) -> Iterator[None]:
    """
    Turn what the system says about the name of a folder or its files into one line.

    A name may be too long, be behind a folder that may not be searched, or contain a character that no name can have;
    the home folder of a user and the working folder may be missing.

    :param shown: the name, for messages
    :param error: class of the error
    :raises ModelError: instead of an error of the system, for a model
    :raises TrainingDataError: instead of an error of the system, for a data set
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as err:
        reason = (isinstance(err, OSError) and err.strerror) or first_line(err)
        raise error(f"{shown}: cannot be read: {reason}", reason="cannot-read", file=shown) from err


class _NotThereError(LookupError):
    """The hub has no such model or data set."""


def require_place(name: str, kind: Kind, option: str = "") -> None:
    """
    Check that a local file or folder has this name, or a model or data set on the hub.

    The hub is asked once, with a short timeout. If the local cache of the hub has the id, the hub is not asked, so
    that it works without a network.

    :param option: the option with the name, for the message
    :raises ModelError: if a model is in neither place; the message names both
    :raises TrainingDataError: if a data set is in neither place
    """
    what, error = _NAMES[kind]
    shown = f"{option} {name}".lstrip()
    with readable_place(shown, error):
        if Path(name).exists():
            return

    if not is_hub_id(name):
        raise error(
            f"{shown}: no such folder; give an existing folder, or a hub id (owner/name)",
            reason="missing-folder",
            file=name,
        )

    # The package of the hub is an extra, and may be missing.
    try:
        if not _is_cached(name, kind):
            _looked_up(name, kind)
    except ImportError:
        raise error(
            f"{shown}: no such folder; to fetch it from the hub, install: pip install 'nerd-onnx[hub]'",
            reason="hub-missing",
            file=name,
        ) from None
    except LookupError as err:
        raise error(
            f"{shown}: no such folder, and as a {what} of the hub, {err}; give an existing folder",
            reason="not-on-hub" if isinstance(err, _NotThereError) else "hub-failed",
            file=name,
        ) from None


def is_elsewhere(name: str) -> bool:
    """Whether the name of a model is ``owner/name`` and no local folder has it, so that only the hub can have it."""
    return "/" in name and is_hub_id(name) and not Path(name).exists()


def has_file(name: str, file: str) -> bool:
    """
    Whether the folder of a model, local or on the hub, has a file.

    If the local cache of the hub has the model, only the cache is checked.

    :param file: name of the file in that folder
    :raises ModelError: if the hub has to be asked and cannot be reached
    """
    with readable_place(name, ModelError):
        if not is_elsewhere(name):
            return (Path(name) / file).is_file()

    from huggingface_hub import constants, try_to_load_from_cache

    if _is_cached(name, "model"):
        return isinstance(try_to_load_from_cache(name, file, cache_dir=constants.HF_HUB_CACHE), str)

    try:
        found = _looked_up(name, "model")
    except LookupError as err:
        raise ModelError(f"{name}: as a model of the hub, {err}", reason="hub-failed", file=name) from err

    return any(sibling.rfilename == file for sibling in found.siblings or ())


def _is_cached(name: str, kind: Kind) -> bool:
    """Whether the local cache of the hub or of the datasets package has the model or data set."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    # By the hub's own package: a folder alone may be what a download left that was cut off at once.
    try:
        snapshot_download(name, repo_type=kind, cache_dir=constants.HF_HUB_CACHE, local_files_only=True)
    except (HFValidationError, LocalEntryNotFoundError):
        pass
    else:
        return True

    if kind != "dataset":
        return False

    # The datasets package keeps prepared data in a cache of its own, and has no function that looks a name up there.
    home = Path(os.environ.get("HF_DATASETS_CACHE", Path(constants.HF_HOME, "datasets")))
    return home.is_dir() and _plain(name) in {_plain(place.name) for place in home.iterdir()}


def _plain(name: str) -> str:
    """Return a name for comparison with the cache of the datasets package, which writes us/FewNERD as us___few_nerd."""
    return re.sub("[/_]", "", name).lower()


def _looked_up(name: str, kind: Kind) -> Any:
    """
    Return what the hub knows about a model or data set; one request with a short timeout.

    :raises LookupError: with the reason, for a message
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return HfApi().repo_info(name, repo_type=kind, timeout=_ASK_S)
    except RepositoryNotFoundError:
        raise _NotThereError("it does not exist, or is private (HF_TOKEN)") from None
    except Exception as err:  # huggingface_hub and its HTTP client raise errors of many classes
        raise LookupError(f"it cannot be looked up ({type(err).__name__})") from err
