"""The card of a bundle: what it is, where it comes from, and every figure that was measured on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nerd_export.conversion.verify import Comparison
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.labels import LabelSet

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
    return f"""---
{_front_matter(bundle, lineage)}
---

# {name}

Named-entity tagger for [nerd-onnx](https://pypi.org/project/nerd-onnx/): {_levels(bundle.labels)}, quantization
**{bundle.quantization}**, {bundle.model_file.stat().st_size / 1e6:.1f} MB.

```
nerd-tag --model {name} input.parquet output.parquet
```

{_compared(comparison)}{"".join(_score_sections(metrics))}
## Where it comes from

Checkpoint `{lineage["checkpoint"]}`{_base(lineage)}.
`nerd.json` holds the recipe, the versions and a fingerprint of every file.
"""


def _front_matter(bundle: Bundle, lineage: Mapping[str, Any]) -> str:
    head = {
        "library_name": "nerd-onnx",
        "pipeline_tag": "token-classification",
        "tags": ["named-entity-recognition", "onnx", bundle.quantization.replace(" ", "-")],
        "base_model": lineage.get("base_model"),
        "license": lineage.get("licence"),
    }
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items() if value)


def _levels(labels: LabelSet) -> str:
    if labels.has_fine_level:
        return f"{len(labels.fine_types)} fine types in {len(labels.types)} coarse ones"
    return f"{len(labels.types)} types"


def _compared(found: Comparison) -> str:
    """Write the section on the comparison with the original."""
    note = f"\nNote: {found.note}.\n" if found.note else ""
    return f"""## Against its PyTorch original

On {found.texts:,} texts ({found.tokens:,} tokens, {found.entities:,} entities), through the same
runtime: largest logit difference {found.max_logit_difference:.4g}, labels changed
{found.labels_changed:.3%}, entity agreement (F1) {found.entity_agreement:.4f}.
{note}"""


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
