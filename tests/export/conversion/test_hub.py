"""The Hugging Face hub, and programs that load from it, accept a bundle. Nothing here asks the hub."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from nerd_export.conversion.model_card import name_on_hub
from nerd_onnx.inference.bundle import DEFAULT_FOLDER
from tests.support.models import sample_texts

# The folder that has node_modules/@huggingface/transformers: `make transformers-js`.
JS = os.environ.get("NERD_TRANSFORMERS_JS", "")
NODE = shutil.which("node")
NAMES = ("config.json", "tokenizer.json", "tokenizer_config.json")
SCRIPT = """
import { readFileSync } from "node:fs";
import { env, pipeline } from "@huggingface/transformers";
env.allowRemoteModels = false;
const [folder, name, options, texts] = JSON.parse(readFileSync(0, "utf-8"));
env.localModelPath = folder;
const tag = await pipeline("token-classification", name, options);
const found = [];
for (const text of texts) found.push(await tag(text, { ignore_labels: [] }));
console.log(JSON.stringify(found));
"""


def token_labels(folder: Path, texts: list[str]) -> list[list[tuple[int, str]]]:
    """Return index and label of each token, by optimum and transformers, loaded as the card says."""
    import transformers
    from optimum.onnxruntime import ORTModelForTokenClassification

    model = ORTModelForTokenClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tag = transformers.pipeline("token-classification", model=model, tokenizer=tokenizer, ignore_labels=[])
    return [[(token["index"], token["entity"]) for token in row] for row in tag(texts)]


def options_of_the_card(folder: Path) -> dict[str, Any]:
    """Return the options with which the card loads the bundle in transformers.js."""
    found = re.search(r"const options = (\{.*\});", (folder / "README.md").read_text("utf-8"))
    assert found
    options: dict[str, Any] = json.loads(re.sub(r"(\w+):", r'"\1":', found[1]))
    return options


@pytest.fixture(params=["exported", "default"])
def folder(request: pytest.FixtureRequest, tiny_bundle: Path) -> Path:
    """Return a bundle that this version exported, and the default model."""
    return tiny_bundle if request.param == "exported" else DEFAULT_FOLDER


def test_the_hub_reads_the_card(folder: Path) -> None:
    data = huggingface_hub.ModelCard.load(folder / "README.md", ignore_metadata_errors=False).data

    assert data.library_name == "nerd-onnx"
    assert data.pipeline_tag == "token-classification"
    assert len(data.widget) == 2
    assert all(example["text"] for example in data.widget)
    if data.base_model:
        huggingface_hub.utils.validate_repo_id(data.base_model)


def test_the_results_of_the_default_model_are_ones_of_the_hub() -> None:
    data = huggingface_hub.ModelCard.load(DEFAULT_FOLDER / "README.md").data
    index = eval_results_to_model_index(data.model_name, data.eval_results)
    assert model_index_to_eval_results(index) == (data.model_name, data.eval_results)
    assert {result.metric_type for result in data.eval_results} == {"precision", "recall", "f1"}
    assert data.license == "cc-by-sa-4.0"


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (None, None),
        ("default", "sentence-transformers/all-MiniLM-L6-v2"),
        ("google-bert/bert-base-cased", "google-bert/bert-base-cased"),
        ("runs/2026/my-bert", None),
        ("./my-bert", None),
        ("existing", None),
    ],
)
def test_a_base_model_is_named_if_the_hub_has_it(
    base: str | None, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "existing").mkdir()
    monkeypatch.chdir(tmp_path)
    assert name_on_hub(base) == expected


def test_optimum_finds_the_graph_as_the_card_says(folder: Path) -> None:
    (labels,) = token_labels(folder, ["Angela Merkel met Barack Obama in Berlin."])
    assert len(labels) > 5
    if folder == DEFAULT_FOLDER:
        assert "location-GPE" in {label for _, label in labels}


def test_the_files_that_transformers_js_asks_for_are_there(folder: Path) -> None:
    options = options_of_the_card(folder)
    assert options["dtype"] == "fp32"  # another one adds a suffix to the name
    graph = folder / options["subfolder"] / f"{options['model_file_name']}.onnx"
    assert [file.is_file() for file in (graph, *(folder / name for name in NAMES))] == [True] * 4


@pytest.mark.skipif(not (JS and NODE), reason="needs Node and transformers.js: make transformers-js")
def test_transformers_js_gives_the_labels_of_transformers(folder: Path) -> None:
    texts = [text[:200] for text in sample_texts()][:40]
    script = Path(JS) / "tag.mjs"
    script.write_text(SCRIPT, "utf-8")
    asked = [str(folder.parent), folder.name, options_of_the_card(folder), texts]

    done = subprocess.run([str(NODE), script], input=json.dumps(asked), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]

    found = [[(token["index"], token["entity"]) for token in row] for row in json.loads(done.stdout)]
    expected = token_labels(folder, texts)
    assert [len(row) for row in found] == [len(row) for row in expected]
    pairs = [pair for one, other in zip(found, expected, strict=True) for pair in zip(one, other, strict=True)]
    assert sum(one == other for one, other in pairs) >= 0.99 * len(pairs)  # another release of onnxruntime
