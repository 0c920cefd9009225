"""Facts about the memory of this process."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

from nerd_onnx.machine import system

_KIB = 1024
_STATM, _STATUS = Path("/proc/self/statm"), Path("/proc/self/status")


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes; 0 if the system does not report it."""
    # The second number of this file is the resident size in pages.
    try:
        return int(_STATM.read_text().split()[1]) * mmap.PAGESIZE
    except (OSError, ValueError):
        return 0


def peak_rss_bytes() -> int:
    """Return the maximum resident size of this process so far, in bytes; 0 if the system does not report it."""
    # On Linux, getrusage() would include the memory of the process that started this one.
    if _STATUS.is_file():
        found = re.search(r"^VmHWM:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        return int(found[1]) * _KIB if found else 0

    return system.peak_bytes()
