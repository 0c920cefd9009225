"""
``nerd-tag`` as on another system: ``python -m tests.support.other_system SYSTEM ARGUMENTS``.

Functions that the other system lacks are taken from ``os``, and modules cannot be imported, before anything else is
imported. ``windows`` also refuses what Windows refuses: to remove or rename a file that is open, and to open a folder.
"""

from __future__ import annotations

import errno
import os
import subprocess  # noqa: F401 - now: later it would take the stand-in of msvcrt for a sign of Windows
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

# What macOS lacks of Linux's, and Windows of both, that a program for files may need.
_LINUX = ("O_TMPFILE", "memfd_create", "sched_getaffinity", "posix_fadvise", "splice", "copy_file_range")
_POSIX = (
    *("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "O_SYNC", "O_DSYNC"),
    *("pread", "pwrite", "preadv", "pwritev", "fchmod", "chown", "fchown", "lchown", "mkfifo", "mknod"),
    *("geteuid", "getuid", "getgid", "getegid", "getpgid", "setsid", "sysconf", "statvfs", "fstatvfs"),
    *("set_blocking", "get_blocking", "posix_fallocate", "lockf", "sync", "nice", "killpg", "wait3", "wait4"),
)
_MODULES = ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp")


def _take_away(names: tuple[str, ...], modules: tuple[str, ...]) -> None:
    for name in names:
        if hasattr(os, name):
            delattr(os, name)

    for module in modules:
        sys.modules[module] = None  # type: ignore[assignment]  # an import of it then raises ImportError


class _Locking:
    """The module ``msvcrt`` of Windows, by the locks of bytes that POSIX has too. Both are of a process."""

    LK_LOCK, LK_NBLCK = 1, 2

    def __init__(self) -> None:
        import fcntl

        self._fcntl = fcntl

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        """Lock bytes from the position of the file."""
        wait = 0 if mode == self.LK_LOCK else self._fcntl.LOCK_NB
        self._fcntl.lockf(descriptor, self._fcntl.LOCK_EX | wait, count, 0, os.SEEK_CUR)


def _refuse_what_windows_refuses() -> None:
    """Let the functions that remove and rename files, and that open folders, fail as they fail on Windows."""
    for name in ("unlink", "remove"):
        setattr(os, name, _for_closed_files(getattr(os, name)))
    for name in ("rename", "replace"):
        setattr(os, name, _for_closed_files(_for_no_folder(getattr(os, name)), names=2))

    opening = os.open

    def open_file(path: Any, flags: int, mode: int = 0o777) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "is a folder", path)
        return opening(path, flags, mode)

    os.open = open_file  # type: ignore[assignment]


def _for_closed_files(call: Callable[..., Any], *, names: int = 1) -> Callable[..., Any]:
    def calling(*arguments: Any, **options: Any) -> Any:
        # On Windows, tempfile removes its files in another way.
        if sys._getframe(1).f_globals["__name__"] != "tempfile":  # noqa: SLF001
            for name in (os.path.realpath(argument) for argument in arguments[:names]):
                if name in _open_files():
                    raise PermissionError(errno.EACCES, "is open", name)
        return call(*arguments, **options)

    return calling


def _for_no_folder(call: Callable[..., Any]) -> Callable[..., Any]:
    def calling(source: Any, target: Any, **options: Any) -> Any:
        if Path(target).is_dir():
            raise PermissionError(errno.EACCES, "a folder cannot be replaced", target)
        return call(source, target, **options)

    return calling


def _open_files() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the folder of this very list
            found.add(str(link.readlink()))
    return found


def become(system: str) -> None:
    """Take away what a system lacks: ``macos``, ``windows``, or ``bare``, which has no locks either."""
    if system == "macos":
        _take_away(_LINUX, ())
        return

    locking = _Locking()
    _take_away((*_LINUX, *_POSIX), _MODULES)
    if system == "windows":
        sys.modules["msvcrt"] = locking  # type: ignore[assignment]
        _refuse_what_windows_refuses()

        from nerd_onnx.machine import system as of_program

        of_program.open_files_can_be_removed = lambda: False


if __name__ == "__main__":
    become(sys.argv[1])
    from nerd_onnx.cli.tag import main

    sys.argv[:2] = ["nerd-tag"]
    main()
