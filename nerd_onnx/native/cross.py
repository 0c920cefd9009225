"""
Compile the native encoder for another system: ``python -m nerd_onnx.native.cross PLATFORM FOLDER``.

``make wheels`` calls this. The compiler is the package ziglang of the interpreter ``ZIG``, or of this one.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from nerd_onnx.native.build import BuildError, build, library_name


@dataclass(frozen=True)
class Target:
    """
    A system to compile for.

    :param zig: its name for zig, with the lowest version of glibc or macOS that the library needs
    :param machine: processor, as ``platform.machine()`` names it
    :param system: as ``sys.platform`` names it
    """

    zig: str
    machine: str
    system: str


# By the platform tag of the wheel.
TARGETS = {
    "manylinux_2_17_x86_64": Target("x86_64-linux-gnu.2.17", "x86_64", "linux"),
    "manylinux_2_17_aarch64": Target("aarch64-linux-gnu.2.17", "aarch64", "linux"),
    "macosx_11_0_arm64": Target("aarch64-macos.11.0", "arm64", "darwin"),
    "win_amd64": Target("x86_64-windows-gnu", "x86_64", "win32"),
}


def cross_build(platform: str, folder: Path, zig: str = sys.executable) -> Path:
    """
    Compile the library for a platform, and return its path.

    :param platform: one of :data:`TARGETS`
    :param folder: where the library is written; created if it is missing
    :param zig: an interpreter that has the package ziglang
    :raises BuildError: when the compiler is missing or fails
    """
    target = TARGETS[platform]
    folder.mkdir(parents=True, exist_ok=True)

    library = folder / library_name(target.system)
    build(library, (zig, "-m", "ziglang", "cc"), machine=target.machine, flags=("-target", target.zig, "-s"))
    return library


def main() -> None:
    """Compile the library for the platform and into the folder that the command line names; print its path."""
    try:
        found = cross_build(sys.argv[1], Path(sys.argv[2]), os.environ.get("ZIG") or sys.executable)
    except KeyError:
        sys.exit(f"{sys.argv[1]}: is not one of {', '.join(TARGETS)}")
    except BuildError as err:
        sys.exit(str(err))
    sys.stdout.write(f"{found}\n")


if __name__ == "__main__":
    main()
