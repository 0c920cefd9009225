"""
``nerd-tag`` that stops itself when so many chunks are in its journal: ``python -m tests.support.stopping CHUNKS SYSTEM
ARGUMENTS``. SYSTEM is one of :mod:`other_system`, or ``this``.

A test that looks at the journal until it has so many comes too late where the machine is busy: the run has ended.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


def stop_before_chunk(number: int) -> None:
    """Send this process SIGSTOP when it gives a chunk its name, which the journal records later."""
    kill, name = os.kill, f"chunk-{number:06}.arrow"

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.rename", "os.link") and os.fspath(arguments[1]).endswith(name):
            kill(os.getpid(), signal.SIGSTOP)

    sys.addaudithook(look)


if __name__ == "__main__":
    stop_before_chunk(int(sys.argv[1]))
    if sys.argv[2] != "this":
        from tests.support.other_system import become

        become(sys.argv[2])
    from nerd_onnx.cli.tag import main

    sys.argv[:3] = ["nerd-tag"]
    main()
