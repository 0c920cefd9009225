"""A folder is there with all of its files or as it was before, also after a kill at any step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nerd_onnx.storage.atomic_folder import AtomicFolder
from tests.conftest import ROOT

# Writes the folder given as its argument and dies by kill -9 at a step: before a rename, or before anything is removed.
_KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from nerd_onnx.storage.atomic_folder import AtomicFolder

steps = int(sys.argv[2])

def dying(function):
    def call(*args, **kwargs):
        global steps
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        steps -= 1
        return function(*args, **kwargs)
    return call

Path.rename, Path.replace, shutil.rmtree = map(dying, (Path.rename, Path.replace, shutil.rmtree))
with AtomicFolder(Path(sys.argv[1])) as made:
    (made.path / "one").write_text("new")
    (made.path / "two").write_text("new")
    made.commit(replace=True)
"""


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def filled(target: Path, text: str) -> None:
    with AtomicFolder(target) as made:
        (made.path / "file").write_text(text)
        made.commit(replace=True)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the final name of a folder whose parent does not exist yet."""
    return tmp_path / "new" / "target"


def test_the_name_comes_with_the_commit(target: Path) -> None:
    with AtomicFolder(target) as made:
        (made.path / "file").write_text("1")
        assert not target.exists()
        made.commit(replace=False)
        assert content(target) == {"file": "1"}

    assert list(target.parent.iterdir()) == [target]
    beside = target.with_name("beside")
    beside.mkdir()
    assert target.stat().st_mode == beside.stat().st_mode


def test_an_error_leaves_what_was_there(target: Path) -> None:
    filled(target, "old")
    failure = RuntimeError("no")
    made = AtomicFolder(target)
    (made.path / "file").write_text("new")
    with pytest.raises(RuntimeError) as caught, made:
        raise failure

    assert caught.value is failure
    assert content(target) == {"file": "old"}
    assert list(target.parent.iterdir()) == [target]


def test_only_an_empty_folder_is_replaced_unless_asked(target: Path) -> None:
    target.mkdir(parents=True)
    with AtomicFolder(target) as made:
        (made.path / "file").write_text("1")
        made.commit(replace=False)

    with pytest.raises(OSError, match="not empty"), AtomicFolder(target) as made:
        made.commit(replace=False)
    assert content(target) == {"file": "1"}


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("step", range(5))
def test_a_kill_at_any_step_leaves_one_complete_folder(target: Path, step: int, *, existed: bool) -> None:
    if existed:
        filled(target, "old")
    done = subprocess.run([sys.executable, "-c", _KILLED, str(target), str(step)], check=False)
    # A first folder is moved in one step. Where one exists, that fails, and two more follow. Then something is removed.
    assert (done.returncode == -signal.SIGKILL) == (step < (5 if existed else 2))

    AtomicFolder(target).close()  # the next folder of this name cleans up
    new, old = {"one": "new", "two": "new"}, {"file": "old"}
    if existed:
        assert content(target) == (old if step < 3 else new)
    else:
        assert (content(target) if target.exists() else None) == (None if step < 1 else new)
    assert [path for path in target.parent.iterdir() if path != target] == []


def test_two_processes_do_not_disturb_each_other(target: Path) -> None:
    with AtomicFolder(target) as first:
        filled(target, "second")
        (first.path / "file").write_text("first")
        first.commit(replace=True)
    assert content(target) == {"file": "first"}


@pytest.mark.parametrize("name", ["x" * 250, "é" * 120, os.fsdecode(b"\xff" * 9)], ids=["long", "wide", "no-utf8"])
def test_any_name_that_the_file_system_takes(tmp_path: Path, name: str) -> None:
    filled(tmp_path / name, "1")
    filled(tmp_path / name, "2")
    assert content(tmp_path / name) == {"file": "2"}


def test_an_empty_folder_is_replaced_on_a_system_that_replaces_no_folder(target: Path) -> None:
    target.mkdir(parents=True)
    script = """
import sys
from pathlib import Path
from tests.support.other_system import become
become("windows")
from nerd_onnx.storage.atomic_folder import AtomicFolder
with AtomicFolder(Path(sys.argv[1])) as made:
    (made.path / "file").write_text("1")
    made.commit(replace=False)
"""
    subprocess.run([sys.executable, "-c", script, target], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert content(target) == {"file": "1"}
    assert list(target.parent.iterdir()) == [target]
