"""
What operating systems do in different ways, in functions that work on each of them.

Only this module calls functions that Windows or macOS lack: ``make platforms`` checks the others against the functions
that these systems have. Each function is looked up when it is needed, so that a test can take it away.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from typing import Any

_KIB = 1024
_posix: Any = os  # with the functions that this system may lack
_HIGH_BYTE = 1 << 30  # Windows refuses to read locked bytes, so the locked one is behind all content
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # some network file systems and systems
_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)

# 0 where the system has no such flag. O_BINARY: without it, Windows changes the ends of lines.
NO_FOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT: int = getattr(os, "O_NONBLOCK", 0)
NAMELESS: int = getattr(os, "O_TMPFILE", 0)
BINARY: int = getattr(os, "O_BINARY", 0)


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """
    Return bytes of an open file from an offset; its position stays.

    :param count: maximum number of bytes
    :raises OSError: if the file cannot be read
    """
    if hasattr(os, "pread"):
        return bytes(_posix.pread(descriptor, count, offset))

    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, offset, os.SEEK_SET)
    try:
        return os.read(descriptor, count)
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)


def set_permissions(descriptor: int, mode: int) -> None:
    """
    Set the permission bits of an open file. Does nothing on systems where files have none.

    :raises OSError: if the user may not change them
    """
    if hasattr(os, "fchmod"):
        os.fchmod(descriptor, mode)


def user() -> int | None:
    """Return the number of the user whose rights this process has; None on systems without such numbers."""
    return _posix.geteuid() if hasattr(os, "geteuid") else None


def lock(descriptor: int, *, wait: bool) -> None:
    """
    Lock an open file, until it is closed or the process dies.

    Does nothing where this system or the file system has no locks.

    :param wait: wait while another process has the lock
    :raises BlockingIOError: if another process has the lock and ``wait`` is false
    :raises OSError: if the file cannot be locked for another reason
    """
    try:
        _lock(descriptor, wait=wait)
    except OSError as err:
        if err.errno not in _NO_LOCKS:
            raise


def _lock(descriptor: int, *, wait: bool) -> None:
    try:
        import fcntl
    except ImportError:
        _lock_byte(descriptor, wait=wait)
        return

    # Not lockf(): such a lock is lost as soon as this process closes the file anywhere else.
    posix: Any = fcntl
    posix.flock(descriptor, posix.LOCK_EX if wait else posix.LOCK_EX | posix.LOCK_NB)


def _lock_byte(descriptor: int, *, wait: bool) -> None:
    """Lock one byte far behind the end of a file, as Windows can."""
    try:
        import msvcrt
    except ImportError as err:
        raise OSError(errno.ENOSYS, "this system has no locks") from err

    windows: Any = msvcrt
    before = os.lseek(descriptor, 0, os.SEEK_CUR)

    try:
        while True:
            os.lseek(descriptor, _HIGH_BYTE, os.SEEK_SET)
            try:
                # LK_LOCK itself waits ten seconds at most, and then raises EDEADLK.
                windows.locking(descriptor, windows.LK_LOCK if wait else windows.LK_NBLCK, 1)
            except OSError as err:
                if err.errno not in _BUSY:
                    raise
                if not wait:
                    raise BlockingIOError(errno.EAGAIN, "another process has locked the file") from err
            else:
                return
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)


def open_files_can_be_removed() -> bool:
    """Whether a file that is open can be removed and renamed: on Windows it cannot."""
    return os.name != "nt"


def release_pages(mapped: mmap.mmap) -> None:
    """Let the system take back the memory of a mapped file, where it can be told to; pages are read again."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return

    options: Any = mmap
    release: Any = getattr(mapped, "madvise")  # noqa: B009 - Windows has none
    release(options.MADV_DONTNEED)


def usable_cpus() -> int | None:
    """Return the number of CPUs that this process may use; None where the system does not report it."""
    return len(_posix.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def peak_bytes() -> int:
    """Return the maximum resident size of this process so far, in bytes; 0 where the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return 0

    posix: Any = resource
    peak = int(posix.getrusage(posix.RUSAGE_SELF).ru_maxrss)
    # macOS reports bytes, other systems report KiB.
    return peak if sys.platform == "darwin" else peak * _KIB
