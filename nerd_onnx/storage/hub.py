"""Names that are a folder here or an id on the hub: told apart in one place, before anything is fetched."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

from nerd_onnx.errors import ModelError, NerdError, TrainingDataError

Kind = Literal["model", "dataset"]

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_ID = re.compile(rf"(?:{_PART}/)?{_PART}")
_ASK_S = 10.0
_NAMES: dict[Kind, tuple[str, type[NerdError]]] = {
    "model": ("model", ModelError),
    "dataset": ("data set", TrainingDataError),
}


def is_hub_id(name: str) -> bool:
    """Tell whether a name can be that of something on the hub: ``owner/name``, or a name alone."""
    return _ID.fullmatch(name) is not None


class _NotThereError(LookupError):
    """The hub knows no such model or data set."""


def require_place(name: str, kind: Kind, option: str = "") -> None:
    """
    Check that a name is that of a folder or file here, or of something on the hub, which is asked once and shortly.

    What the hub's cache holds is not asked for: it can be used without a network.

    :param option: that gave the name, for the message
    :raises ModelError: when a model is in neither place; it says both readings
    :raises TrainingDataError: when a data set is
    """
    if Path(name).exists():
        return
    what, error = _NAMES[kind]
    shown = f"{option} {name}".lstrip()
    if not is_hub_id(name):
        raise error(
            f"{shown}: no such folder; give an existing folder, or a hub id (owner/name)",
            reason="missing-folder",
            file=name,
        )
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
    """Tell whether a model's name is no folder here but ``owner/name``, which only the hub can have."""
    return not Path(name).exists() and "/" in name and is_hub_id(name)


def has_file(name: str, file: str) -> bool:
    """
    Tell whether a model's folder, here or on the hub, has a file. A model of which the hub's cache has something is not
    asked for: it has what is there.

    :param file: its name in that folder
    :raises ModelError: when the hub has to be asked and cannot be
    """
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
    """Tell whether an earlier use left something of it here."""
    from huggingface_hub import constants

    if (Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}").is_dir():
        return True
    home = Path(os.environ.get("HF_DATASETS_CACHE", Path(constants.HF_HOME, "datasets")))
    return kind == "dataset" and home.is_dir() and _plain(name) in {_plain(place.name) for place in home.iterdir()}


def _plain(name: str) -> str:
    """Leave out what the datasets package puts into names of its cache: ``us/FewNERD`` is ``us___few_nerd`` there."""
    return re.sub("[/_]", "", name).lower()


def _looked_up(name: str, kind: Kind) -> Any:
    """
    Ask the hub for what it knows of a model or data set, once and shortly.

    :raises LookupError: with the reason, for a message
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return HfApi().repo_info(name, repo_type=kind, timeout=_ASK_S)
    except RepositoryNotFoundError:
        raise _NotThereError("it does not exist, or is private (HF_TOKEN)") from None
    except Exception as err:  # huggingface_hub and what it sends with raise many kinds
        raise LookupError(f"it cannot be looked up ({type(err).__name__})") from err
