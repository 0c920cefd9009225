"""Write a bundle folder atomically."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from nerd_export.outputs import require_folder, writing
from nerd_onnx.errors import ModelError, OutputError, first_line
from nerd_onnx.inference.description import DESCRIPTION
from nerd_onnx.storage.atomic_folder import AtomicFolder

CARD = "README.md"  # of the bundle, for people and the hub
_COPIED = ("config.json", "tokenizer_config.json", "special_tokens_map.json")


@contextlib.contextmanager
def new_bundle_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """
    Yield a hidden folder beside ``target``. It becomes ``target`` when the block ends, and is removed on any error.

    :raises OutputError: when ``target`` exists and may not be replaced, or its parent cannot be written
    """
    if target.exists() and not overwrite:
        raise OutputError(
            f"{target}: already exists; replace it with --overwrite", reason="output-exists", file=str(target)
        )

    # An empty folder may be filled. Anything else may be somebody's work.
    if target.exists() and not (target / DESCRIPTION).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(
            f"{target}: is not a bundle, so it is not replaced; choose another --output",
            reason="not-bundle",
            file=str(target),
        )

    # Before the work of minutes, and without creating anything.
    require_folder(target)

    with writing(target):
        made = AtomicFolder(target)
    with made:
        yield made.path
        with writing(target):
            made.commit(replace=True)


def write_model(folder: Path, model: ir.Model, exported: Path, file: str = "model.onnx") -> None:
    """
    Write graph, tokenizer and configuration.

    :param exported: folder of optimum's export, whose configuration and tokenizer files are copied
    :param file: name of the graph's file
    :raises ModelError: when the graph is not valid ONNX, or the checkpoint has no fast tokenizer
    """
    ir.save(model, folder / file)
    # The file and not the model in memory: what was written is what users load.
    _check(folder / file)

    for name in _COPIED:
        if (exported / name).is_file():
            shutil.copyfile(exported / name, folder / name)

    tokenizer_file = exported / "tokenizer.json"
    if not tokenizer_file.is_file():
        raise ModelError(
            "the checkpoint has no fast tokenizer (tokenizer.json), and exact character offsets need one",
            reason="no-fast-tokenizer",
        )

    tokenizer = json.loads(tokenizer_file.read_text("utf-8"))
    tokenizer["truncation"] = tokenizer["padding"] = None  # left over from training; the runtime segments texts itself
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), "utf-8")


def _check(model_file: Path) -> None:
    """Check operators, types and shapes of a graph file with the onnx checker."""
    import onnx

    try:
        onnx.checker.check_model(str(model_file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as err:
        raise ModelError(
            f"the rewritten graph is not valid ONNX: {first_line(err)}; please report this", reason="invalid-graph"
        ) from err
