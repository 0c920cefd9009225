"""Facts about the memory of this process."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

_KIB = 1024
_STATM, _STATUS = Path("/proc/self/statm"), Path("/proc/self/status")


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes; 0 if the system does not report it."""
    # The second number of this file is the resident size in pages.
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def peak_rss_bytes() -> int:
    """Return the maximum resident size of this process so far, in bytes; 0 if the system does not report it."""
    # On Linux, getrusage() would include the memory of the process that started this one.
    if _STATUS.is_file():
        found = re.search(r"^VmHWM:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        return int(found[1]) * _KIB if found else 0

    try:
        import resource
    except ImportError:  # Windows
        return 0

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KIB
