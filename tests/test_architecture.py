"""The house keeps its order: the runtime needs no training library, and its two wings do not know each other."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

RUNTIME = ROOT / "nerd_onnx"
HEAVY = {"torch", "transformers", "optimum", "datasets", "nerd_export", "onnx", "onnx_ir", "seqeval"}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", sorted(RUNTIME.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_runtime_imports_no_training_library(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & HEAVY


@pytest.mark.parametrize(("wing", "other"), [("inference", "formats"), ("formats", "inference")])
def test_the_wings_do_not_know_each_other(wing: str, other: str) -> None:
    for path in (RUNTIME / wing).rglob("*.py"):
        known = imports(path)
        above = {"nerd_onnx.tagger", "nerd_onnx.tagging.pipeline", "nerd_onnx.cli.tag", f"nerd_onnx.{other}"}
        assert not [name for name in known if any(name == a or name.startswith(f"{a}.") for a in above)], path


def test_tagging_loads_no_training_library() -> None:
    code = "import sys; from nerd_onnx import Tagger; Tagger.load(); "
    code += f"print(sorted(set({sorted(HEAVY)!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_reported_to_anybody(tmp_path: Path) -> None:
    code = "from nerd_onnx import Tagger; Tagger.load().tag(['Paris'])"
    environment = {key: value for key, value in os.environ.items() if key not in ("ORT_DISABLE_TELEMETRY", "CI")}
    subprocess.run([sys.executable, "-c", code], check=True, env={**environment, "HOME": str(tmp_path)})
    assert [path for path in tmp_path.rglob("*") if "onnxruntime" in path.name] == []


def test_help_is_light() -> None:
    code = "import sys; import nerd_onnx.cli.tag; "
    code += "print(sorted({'onnxruntime', 'pyarrow', 'numpy', 'tokenizers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
