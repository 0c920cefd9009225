"""The card of a bundle: what it is, where it comes from, and every figure that was measured on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nerd_export.conversion.verify import Comparison
from nerd_onnx.inference.bundle import Bundle

_ROWS = (
    ("words", "given words, coarse"),
    ("fine_words", "given words, fine"),
    ("raw", "raw text, coarse"),
    ("fine_raw", "raw text, fine"),
)


def bundle_card(
    name: str,
    bundle: Bundle,
    *,
    lineage: Mapping[str, Any],
    comparison: Comparison,
    metrics: Mapping[str, Any],
) -> str:
    """Write the bundle's ``README.md``."""
    labels = bundle.labels
    levels = (
        f"{len(labels.fine_types)} fine types in {len(labels.types)} coarse ones"
        if labels.has_fine_level
        else f"{len(labels.types)} types"
    )
    size_bytes = bundle.model_file.stat().st_size
    head = {
        "library_name": "nerd-onnx",
        "pipeline_tag": "token-classification",
        "tags": ["named-entity-recognition", "onnx", bundle.quantization.replace(" ", "-")],
        "base_model": lineage.get("base_model"),
        "license": lineage.get("licence"),
    }
    front = "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items() if value)
    return f"""---
{front}
---

# {name}

Named-entity tagger for [nerd-onnx](https://pypi.org/project/nerd-onnx/): {levels}, quantization
**{bundle.quantization}**, {size_bytes / 1e6:.1f} MB.

```
nerd-tag --model {name} input.parquet output.parquet
```

## Against its PyTorch original

On {comparison.texts:,} texts ({comparison.tokens:,} tokens, {comparison.entities:,} entities), through the same
runtime: largest logit difference {comparison.max_logit_difference:.4g}, labels changed
{comparison.labels_changed:.3%}, entity agreement (F1) {comparison.entity_agreement:.4f}.
{"".join(_score_sections(metrics))}
## Where it comes from

Checkpoint `{lineage["checkpoint"]}`{_base(lineage)}.
`nerd.json` holds the recipe, the versions and a fingerprint of every file.
"""


def _base(lineage: Mapping[str, Any]) -> str:
    training = lineage.get("training") or {}
    data = training.get("data") or {}
    text = f", fine-tuned from `{lineage['base_model']}`" if lineage.get("base_model") else ""
    if data:
        text += f" on {data['train_sentences']:,} sentences (`{data['train'].rsplit('/', 1)[-1]}`)"
    return text


def _score_sections(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of entity F1 for each labelled split."""
    for split, scores in metrics.items():
        yield f"\n## Entity F1 on {split} (`{scores['source']}`, {scores['bundle']['sentences']:,} sentences)\n\n"
        yield "| | PyTorch original | this bundle |\n|---|---|---|\n"
        for key, title in _ROWS:
            if key in scores["bundle"]:
                yield f"| {title} | {scores['original'][key]['f1']:.4f} | {scores['bundle'][key]['f1']:.4f} |\n"
