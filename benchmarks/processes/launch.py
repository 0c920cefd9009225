"""
Run a command and write its wall time, processor time and peak memory: ``launch.py REPORT COMMAND...``.

This is a process of its own because on Linux the peak of a program includes the memory of the process that starts it.
This process loads almost nothing, so the peak is that of the program.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> int:
    """Run the command, write the report, and return the exit code of the command."""
    report, *command = sys.argv[1:]
    begin = time.perf_counter()
    process = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    wall_s = time.perf_counter() - begin

    # ru_maxrss is in bytes on macOS, and in KiB on Linux.
    unit = 1 if sys.platform == "darwin" else 1024
    facts = {
        "wall_s": wall_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_rss_bytes": usage.ru_maxrss * unit,
    }

    with open(report, "w", encoding="utf-8") as file:  # noqa: PTH123  # pathlib would need memory
        json.dump(facts, file)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
