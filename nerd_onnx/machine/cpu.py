"""
Facts about the processor: how many CPUs this process may use, and how it multiplies 8-bit integers.

The number of threads follows from the affinity of the process and from the CPU quota of its container, not from the
size of the machine. The int8 kernels depend on instruction sets: with VNNI on x86, or the dot product on ARM, products
of 8-bit integers are exact and fast. On x86 without VNNI the usual products of 8-bit weights can saturate.
"""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

from nerd_onnx.machine import system

# Control groups limit the CPU time of containers; version 2 has one file, version 1 a folder of files.
_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu")
CPUINFO = Path("/proc/cpuinfo")
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")  # int8 kernels check these


def available_cpus() -> int:
    """Return the number of CPUs this process may use, by its affinity and by the quota of its container."""
    return _allowed_cpus()[0]


def thread_plan(threads: int | None) -> str:
    """
    Describe how many calls run at the same time, and what determines that number.

    :param threads: threads that the user asked for; None for one per CPU
    """
    return f"{threads}, as asked" if threads else "{}, {}".format(*_allowed_cpus())


def cpu_features() -> tuple[str, ...]:
    """Return the CPU features that decide which int8 kernels run; empty where the system does not report them."""
    try:
        words = set(CPUINFO.read_text().split())
    except OSError:
        return ()

    return tuple(name for name in _FEATURES if name in words)


def processor_kind() -> str:
    """Return the kind of this processor: ``x86-vnni``, ``x86`` (without VNNI, or features unknown) or ``arm64``."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    return "x86-vnni" if {"avx512_vnni", "avx_vnni"} & set(cpu_features()) else "x86"


def integer_kernels() -> str:
    """Return the name of the instructions with which this processor multiplies 8-bit integers."""
    features = set(cpu_features())
    kind = processor_kind()

    if kind == "arm64":
        return "int8, dot product" if {"asimddp", "i8mm"} & features else "int8, no dot product"
    if kind == "x86-vnni":
        return "int8, VNNI"
    return "int8, AVX-512" if "avx512f" in features else "int8, AVX2"


def _allowed_cpus() -> tuple[int, str]:
    """Return the number of CPUs this process may use, and what limits it."""
    usable = system.usable_cpus()
    cpus = usable or os.cpu_count() or 1

    quota = _cgroup_quota()
    # A part of a CPU is worth a thread: rounded down, a quota of 0.5 would leave none.
    if quota and math.ceil(quota) < cpus:
        return math.ceil(quota), f"the container's quota of {quota:g} processors"

    return cpus, f"the processors {'this process may use' if usable else 'of this machine'}"


def _cgroup_quota() -> float | None:
    """Return the CPU quota of the container, in CPUs; None without a quota."""
    try:
        if _CGROUP_V2.is_file():
            quota, period = _CGROUP_V2.read_text().split()
            return None if quota == "max" else int(quota) / int(period)

        # -1 stands for no quota.
        quota_us = int((_CGROUP_V1 / "cpu.cfs_quota_us").read_text())
        period_us = int((_CGROUP_V1 / "cpu.cfs_period_us").read_text())
        return quota_us / period_us if quota_us > 0 else None
    except (OSError, ValueError):
        return None
