"""Names that are a folder here or an id on the hub: told apart in one place, before anything is fetched."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

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
        raise error(f"{shown}: no such folder; give one that is there, or a hub id (owner/name)")
    try:
        reason = None if _is_cached(name, kind) else _refusal(name, kind)
    except ImportError:
        raise error(f"{shown}: no such folder; to fetch it from the hub: pip install 'nerd-onnx[hub]'") from None
    if reason is not None:
        raise error(f"{shown}: no such folder here, and as a {what} of the hub {reason}; give a folder that is there")


def has_file(name: str, file: str) -> bool:
    """
    Tell whether a model's folder, here or on the hub, has a file. What the hub's cache knows is not asked for.

    A hub that cannot be asked has none: who then loads the model is told why.

    :param file: its name in that folder
    """
    if Path(name).exists() or "/" not in name or not is_hub_id(name):
        return (Path(name) / file).is_file()
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    known = try_to_load_from_cache(name, file, cache_dir=constants.HF_HUB_CACHE)
    if known is not None:
        return isinstance(known, str)
    try:
        found = HfApi().repo_info(name, timeout=_ASK_S)
    except Exception:  # noqa: BLE001 - huggingface_hub and what it sends with raise many kinds
        return False
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


def _refusal(name: str, kind: Kind) -> str | None:
    """Ask the hub whether it has it; None where it has, else why it cannot be taken from there."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        HfApi().repo_info(name, repo_type=kind, timeout=_ASK_S)
    except RepositoryNotFoundError:
        return "it is not there, or private (HF_TOKEN)"
    except Exception as err:  # noqa: BLE001 - huggingface_hub and what it sends with raise many kinds
        return f"it cannot be looked up ({type(err).__name__})"
    return None
