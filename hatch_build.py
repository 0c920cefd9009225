"""
Build hook: compile the native encoder, with the system's C++ compiler or the one of the package ziglang.

ziglang is a build requirement only where the system has no compiler. Where the encoder cannot be compiled, the package
is built without it. ``NERD_BUILD_NATIVE=0`` asks for that; with ``NERD_BUILD_NATIVE=1`` it is an error.
The wheel then has a library of one platform and no module of one Python, so its tag is ``py3-none-PLATFORM``.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDER = "nerd_onnx/native"


class NativeEncoder(BuildHookInterface):
    """Adds the compiled library to a wheel. An editable installation has it in the source folder."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return the packages that the build needs beside those of ``pyproject.toml``: perhaps a compiler."""
        if os.environ.get("NERD_BUILD_LIBRARY"):
            return []
        found: list[str] = _compiling(self.root).requirements()
        return found

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's call
        """
        Compile the library, unless ``NERD_BUILD_NATIVE`` is 0.

        ``make wheels`` names one that was compiled for another system in ``NERD_BUILD_LIBRARY``, and the platform tag
        of its wheel in ``NERD_BUILD_PLATFORM``.
        """
        if os.environ.get("NERD_BUILD_NATIVE") == "0":
            return

        if library := os.environ.get("NERD_BUILD_LIBRARY"):
            build_data["force_include"][library] = f"{_FOLDER}/{Path(library).name}"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{os.environ['NERD_BUILD_PLATFORM']}"
            return

        compiling = _compiling(self.root)
        target = Path(self.root, _FOLDER, compiling.LIBRARY)
        try:
            compiling.build(target)
        except compiling.BuildError as err:
            target.unlink(missing_ok=True)  # one of earlier sources, in an editable installation
            if os.environ.get("NERD_BUILD_NATIVE") == "1":
                raise
            self.app.display_warning(f"the native encoder was not compiled: {err}")
            return

        build_data["artifacts"].append(f"{_FOLDER}/{compiling.LIBRARY}")
        # Without a tag of its own, hatchling would call a wheel with a library one for every platform.
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"


def _compiling(root: str) -> ModuleType:
    """Load the module that compiles by its file: the package itself needs libraries that a build does not have."""
    file = Path(root, _FOLDER, "build.py")
    spec = importlib.util.spec_from_file_location("nerd_native_build", file)
    if spec is None or spec.loader is None:
        raise ImportError(str(file))

    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _platform() -> str:
    """Return the platform tag of wheels for this system."""
    from packaging.tags import platform_tags

    return next(platform_tags())
