"""Versions of the packages that affect the figures, also in the interpreters of peers."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

import nerd_onnx
from benchmarks.peers import PEERS
from benchmarks.peers.peer import interpreter_of

PACKAGES = ("onnxruntime", "tokenizers", "numpy", "pyarrow", "torch", "transformers", "optimum", "optimum-onnx")


def versions(pythons: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """
    Return the version of each package that affects the figures; None if it is not installed.

    :param pythons: by environment, the interpreter of its peers
    """
    own: dict[str, str | None] = {"python": platform.python_version(), "nerd-onnx": nerd_onnx.__version__}
    own |= {name: _version(name) for name in PACKAGES}

    for peer in PEERS.values():
        packages = [name for name in peer.packages if name.partition(".")[0] not in PACKAGES]
        if peer.environment is None:
            own |= {name: _version(name) for name in packages}
        elif python := interpreter_of(peer, pythons or {}):
            own |= _versions_elsewhere(python, packages)

    return own


def _versions_elsewhere(python: str, packages: Sequence[str]) -> dict[str, str | None]:
    """Return the versions of packages that another interpreter has."""
    code = (
        "import importlib.metadata as m, json, sys\n"
        "have = {d.metadata['Name']: d.version for d in m.distributions()}\n"
        "print(json.dumps({n: have.get(n) for n in sys.argv[1:]}))"
    )
    try:
        # -I ignores PYTHONPATH, whose packages are not those of the other interpreter.
        done = subprocess.run([python, "-I", "-c", code, *packages], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return dict.fromkeys(packages)

    found: dict[str, str | None] = json.loads(done.stdout)
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
