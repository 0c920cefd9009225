"""The step of the reusable action, run as GitHub runs it, with the real commands: it reports, and fails on accuracy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.support.bundles import labelled

BASH = shutil.which("bash")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BASH is None, reason="GitHub runs the step with bash, which is missing here"),
]
MODEL = ROOT / "tests" / "data" / "models" / "int8"
ACTION = yaml.safe_load((ROOT / ".github" / "actions" / "gate" / "action.yml").read_text("utf-8"))


def run_step(folder: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run the step in ``folder``; ``inputs`` replace the defaults of the action."""
    step = next(found for found in ACTION["runs"]["steps"] if found.get("id") == "gate")
    values = {name: str(found.get("default", "")) for name, found in ACTION["inputs"].items()} | inputs
    names = {
        name: values[expression.split("inputs.")[1].removesuffix(" }}")] for name, expression in step["env"].items()
    }

    commands = folder / "bin"
    commands.mkdir()
    for command in ("export", "eval"):
        code = f"from nerd_export.cli.{command} import main; main()"
        (commands / f"nerd-{command}").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n', "utf-8")
        (commands / f"nerd-{command}").chmod(0o755)

    return subprocess.run(
        [str(BASH), "-c", step["run"]],
        cwd=folder,
        env={
            **os.environ,
            **names,
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "GITHUB_OUTPUT": str(folder / "outputs"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_model_that_passes_is_reported(tmp_path: Path) -> None:
    dataset = labelled(tmp_path / "validation.jsonl", MODEL)
    inputs = {"model": str(MODEL), "dataset": str(dataset), "max-f1-drop": "1", "min-agreement": "0.5"}

    done = run_step(tmp_path, **inputs)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "nerd-gate" / "bundle" / "nerd.json").is_file()
    assert (tmp_path / "nerd-gate" / "report" / "eval.html").is_file()
    assert json.loads((tmp_path / "nerd-gate" / "gate.json").read_text("utf-8"))
    assert (tmp_path / "outputs").read_text("utf-8") == "bundle=nerd-gate/bundle\n"
    assert "# Evaluation" in (tmp_path / "summary.md").read_text("utf-8")


def test_a_model_below_the_gate_fails_the_job(tmp_path: Path) -> None:
    dataset = labelled(tmp_path / "validation.jsonl", MODEL)
    inputs = {"model": str(MODEL), "dataset": str(dataset), "max-f1-drop": "0", "min-agreement": "1"}

    done = run_step(tmp_path, **inputs)

    assert done.returncode == 1
    assert (tmp_path / "nerd-gate" / "gate.json").is_file()
    assert not (tmp_path / "nerd-gate" / "bundle").exists()
    assert not (tmp_path / "summary.md").exists()
