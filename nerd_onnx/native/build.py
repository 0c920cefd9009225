"""
Compile the native encoder: ``python -m nerd_onnx.native.build [FOLDER]``.

The sources are compiled once per instruction set, and one library has all of them. The compiler is ``CXX``, or the
system's g++ or clang++, or the one of the package ziglang. This module needs the standard library only, because the
build of the package loads it before anything is installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "src"
_SUFFIXES = {"win32": ".dll", "darwin": ".dylib"}

# Contraction would join products and sums where the source does not ask for it, and change the last bit.
FLAGS = ("-xc++", "-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-fno-exceptions")
_AVX512 = ("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
_X86_PATHS: dict[str, tuple[str, ...]] = {
    "portable": (),
    "avx2": ("-mavx2", "-mfma"),
    "avxvnni": ("-mavx2", "-mfma", "-mavxvnni"),
    "avx512vnni": (*_AVX512, "-mavx512vnni"),
    "amx": (*_AVX512, "-mamx-tile", "-mamx-int8"),
}
_ARM_PATHS: dict[str, tuple[str, ...]] = {"portable": (), "neon": ("-march=armv8.2-a+dotprod",)}
# Left out where the compiler does not know them, such as g++ before 11.
_YOUNG = ("avxvnni", "avx512vnni", "amx")
_ARM_MACHINES, _X86_MACHINES = ("arm64", "aarch64"), ("x86_64", "amd64")
_ZIG = "ziglang>=0.13"
_ZIG_SYSTEMS, _ZIG_MACHINES = ("linux", "darwin", "win32"), (*_X86_MACHINES, *_ARM_MACHINES)  # it has wheels for these


def library_name(system: str) -> str:
    """Return the file name of the library on a system, which is named as in ``sys.platform``."""
    return f"libnerd_encoder{_SUFFIXES.get(system, '.so')}"


LIBRARY = library_name(sys.platform)


class BuildError(Exception):
    """The library cannot be compiled here: there is no compiler, or it fails."""


def compilers() -> list[tuple[str, ...]]:
    """List the commands of the C++ compilers that are here, the preferred one first."""
    found = [tuple(shlex.split(os.environ["CXX"]))] if os.environ.get("CXX") else []
    found += [(path,) for name in ("g++", "clang++") if (path := shutil.which(name))]

    if importlib.util.find_spec("ziglang") is not None:
        # Not as c++, which would compile a standard library first.
        found.append((sys.executable, "-m", "ziglang", "cc"))
    return found


def requirements() -> list[str]:
    """
    Return the packages with a compiler that must be installed before :func:`build`; empty where a compiler is here.

    pip fails where such a package is not in its index. So none is asked for with ``NERD_BUILD_NATIVE=0``, and with
    ``PIP_NO_INDEX`` or on a system for which it has no wheel only with ``NERD_BUILD_NATIVE=1``.
    """
    asked = os.environ.get("NERD_BUILD_NATIVE")
    if asked == "0" or compilers():
        return []

    has_wheel = sys.platform in _ZIG_SYSTEMS and platform.machine().lower() in _ZIG_MACHINES
    return [_ZIG] if asked == "1" or (has_wheel and not os.environ.get("PIP_NO_INDEX")) else []


def build(
    target: Path,
    compiler: Sequence[str] | None = None,
    *,
    machine: str | None = None,
    flags: Sequence[str] = (),
) -> None:
    """
    Compile the library. A file that is there is replaced, and not written over: a process may have it in use.

    :param target: the file to write
    :param compiler: command of the compiler; None for the first of :func:`compilers`
    :param machine: processor to compile for, as ``platform.machine()`` names it; None for this one
    :param flags: more flags for compiler and linker
    :raises BuildError: when there is no compiler, or it fails
    """
    command = tuple(compiler or next(iter(compilers()), ()))
    if not command:
        raise BuildError("no C++ compiler was found; install g++ or clang, or the package ziglang")

    with (
        tempfile.TemporaryDirectory() as scratch,
        tempfile.TemporaryDirectory(prefix=".nerd-", dir=target.parent) as beside,
    ):
        objects = compile_sources(Path(scratch), command, machine=machine, flags=flags)
        made = Path(beside, target.name)
        run([*command, "-shared", *flags, *objects, "-o", str(made)])
        made.replace(target)


def sources_digest() -> str:
    """Return a digest of the sources: a library that was compiled from others is not used."""
    digest = hashlib.sha256()
    for file in sorted(SOURCES.iterdir()):
        # With names and sizes, so that text that moves from one file to the next changes the digest.
        digest.update(f"{file.name} {file.stat().st_size} ".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def compile_sources(
    folder: Path, command: Sequence[str], *, machine: str | None = None, flags: Sequence[str] = ()
) -> list[str]:
    """
    Compile the sources, ``path.cpp`` once per instruction set, and return the object files.

    :param folder: where the object files are written
    :raises BuildError: when the compiler fails
    """
    paths = _paths_of((machine or platform.machine()).lower())
    known = {name: own for name, own in paths.items() if name not in _YOUNG or _knows(command, (*flags, *own), folder)}

    shared = () if sys.platform == "win32" else ("-fPIC",)
    here = (f'-DNERD_SOURCES="{sources_digest()}"', *(f"-DNERD_WITH_{name.upper()}" for name in known))

    jobs = [("library", "library.cpp", here)]
    jobs += [(name, "path.cpp", (f"-DNERD_{name.upper()}", *own)) for name, own in known.items()]
    objects = [str(folder / f"{name}.o") for name, _, _ in jobs]

    def compile_one(name: str, source: str, own: Sequence[str]) -> None:
        # The clang of ziglang names processors its own way.
        own = ["-mcpu=generic+v8_2a+dotprod" if "ziglang" in command and f.startswith("-march") else f for f in own]
        output = str(folder / f"{name}.o")
        run([*command, *FLAGS, *shared, *flags, *own, "-c", str(SOURCES / source), "-o", output])

    with ThreadPoolExecutor() as pool:
        compilations = [pool.submit(compile_one, *job) for job in jobs]
    for compilation in compilations:
        compilation.result()  # raises what went wrong
    return objects


def _paths_of(machine: str) -> dict[str, tuple[str, ...]]:
    """Return the instruction sets to compile for a processor, with their flags."""
    if machine in _X86_MACHINES:
        return _X86_PATHS
    return _ARM_PATHS if machine in _ARM_MACHINES else {"portable": ()}


def _knows(command: Sequence[str], flags: Sequence[str], folder: Path) -> bool:
    """Return whether a compiler knows flags: it compiles an empty file with them."""
    source = folder / "empty.cpp"
    source.touch()
    try:
        run([*command, "-xc++", *flags, "-c", str(source), "-o", str(folder / "empty.o")])
    except BuildError:
        return False
    return True


def run(command: Sequence[str]) -> None:
    """
    Run a compiler.

    :raises BuildError: when it cannot be started or fails
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the user's compiler
    except OSError as err:
        raise BuildError(f"{command[0]}: cannot be started: {err.strerror}") from err
    if done.returncode:
        raise BuildError(f"{shlex.join(command)}: {done.stderr.strip() or done.returncode}")


def main() -> None:
    """Compile the library into the folder of this module, or into the one named on the command line."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    try:
        build(folder / LIBRARY)
    except BuildError as err:
        sys.exit(str(err))


if __name__ == "__main__":
    main()
