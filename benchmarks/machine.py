"""Facts about the machine and the software that the figures were measured on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nerd_onnx
from benchmarks.paths import ROOT
from benchmarks.peers import PEERS
from benchmarks.peers.peer import interpreter_of
from nerd_onnx.inference.session import available_cpus

PACKAGES = ("onnxruntime", "tokenizers", "numpy", "pyarrow", "torch", "transformers", "optimum", "optimum-onnx")
_REPORTED_FLAGS = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16",
    "sve",
)  # fmt: skip


def machine_facts() -> dict[str, Any]:
    """Return processor, memory and system. ``load_average`` is that of the last minute before this call."""
    cpuinfo = _read("/proc/cpuinfo")
    # x86 and Arm use different names for the features.
    flags = set((_field(cpuinfo, "flags") or _field(cpuinfo, "Features")).split())
    memory_kib = _field(_read("/proc/meminfo"), "MemTotal").split()

    return {
        "cpu": _field(cpuinfo, "model name") or platform.processor() or platform.machine(),
        "cpu_flags": [flag for flag in _REPORTED_FLAGS if flag in flags],
        "cores": available_cpus(),
        "memory_bytes": int(memory_kib[0]) * 1024 if memory_kib else None,
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


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
        done = subprocess.run([python, "-I", "-c", code, *packages], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return dict.fromkeys(packages)

    found: dict[str, str | None] = json.loads(done.stdout)
    return found


def commit() -> str | None:
    """Return the measured commit, with ``+`` if files have changed since; None outside a checkout."""
    name = _git("rev-parse", "--short", "HEAD")
    return name and name + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    """Return the value of the first line ``name : value``; empty if there is none."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
