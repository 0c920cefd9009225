"""Facts about the machine, and the commit, that the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.paths import ROOT
from nerd_onnx.machine.cpu import available_cpus

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
        # A reader sees by it whether other work disturbed the figures.
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


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
