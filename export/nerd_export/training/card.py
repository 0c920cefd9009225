"""The files that a training run writes beside its checkpoint: table, recipe and model card."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from nerd_export.config import TrainConfig
from nerd_export.data.training_data import TrainingData
from nerd_export.models.lineage import STATE_FILE
from nerd_export.models.names import is_default_model
from nerd_export.training.trainer import EpochRow
from nerd_onnx.inference.bundle import sees_case
from nerd_onnx.storage.atomic_file import write_whole

_HEAD = "| Training loss | Epoch | Step | Validation loss | Precision | Recall | F1 | Accuracy |"
_RULE = "|---|---|---|---|---|---|---|---|"
_VERSIONS = ("torch", "transformers", "datasets", "tokenizers")


def markdown_table(rows: Sequence[EpochRow]) -> str:
    """Return the table of epochs in the layout of the published card, one line per epoch."""
    has_coarse = any(row.coarse_f1 is not None for row in rows)
    lines = [_HEAD + (" Coarse F1 |" if has_coarse else ""), _RULE + ("---|" if has_coarse else "")]

    for row in rows:
        line = (
            f"| {_loss(row.training_loss)} | {row.epoch:.2f} | {row.step} | {row.validation_loss:.4f} "
            f"| {row.precision:.4f} | {row.recall:.4f} | {row.f1:.4f} | {row.accuracy:.4f} |"
        )
        lines.append(line + (f" {row.coarse_f1 or 0.0:.4f} |" if has_coarse else ""))

    return "\n".join([*lines, *_set_table(rows)])


def _set_table(rows: Sequence[EpochRow]) -> list[str]:
    """Return the lines of a table of F1 by validation set, one column per epoch; none for one set."""
    names = list(rows[0].f1_by_set) if rows else []
    if not names:
        return []

    head = ["", f"| F1 by validation set | {' | '.join(f'epoch {row.epoch:.2f}' for row in rows)} |"]
    rule = "|---" * (len(rows) + 1) + "|"
    return [*head, rule, *(f"| {n} | {' | '.join(f'{row.f1_by_set[n]:.4f}' for row in rows)} |" for n in names)]


def write_card(output: Path, config: TrainConfig, data: TrainingData, table: Sequence[EpochRow], command: str) -> None:
    """Write ``training.json`` (all facts, for the export) and ``README.md`` (the same, for people)."""
    # Of equal epochs the first, as the saved model is.
    best = max(table, key=lambda row: row.f1)
    found = json.loads((output / "config.json").read_text("utf-8"))
    config = replace(config, letter_case=sees_case(found))  # from the option, or from the base model

    record = {
        "recipe": asdict(config),
        "command": command,
        "data": {
            "train": data.train_source,
            "train_sentences": len(data.train),
            "validation": data.validation_source,
            "validation_sentences": len(data.validation),
            "unlabelled": data.unlabelled_source,
            "unlabelled_texts": len(data.unlabelled),
        },
        "labels": list(data.labels.names),
        "coarse": dict(data.labels.coarse),
        "table": [asdict(row) for row in table],
        "best": asdict(best),
        "versions": {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()},
    }

    facts = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_whole(str(output / STATE_FILE), facts.encode(), overwrite=True)
    write_whole(str(output / "README.md"), _card(config, data, table, best, command).encode(), overwrite=True)


def _card(config: TrainConfig, data: TrainingData, table: Sequence[EpochRow], best: EpochRow, command: str) -> str:
    level = f"{config.level} level, {len(data.labels.fine_types)} entity types"
    is_default = is_default_model(config.model)
    base = f"the default model of nerd-onnx {version('nerd-onnx')}" if is_default else f"`{config.model}`"
    front = "" if is_default else f"base_model: {json.dumps(config.model)}\n"

    return f"""---
{front}library_name: transformers
pipeline_tag: token-classification
tags: [named-entity-recognition]
---

# {Path(config.model).name} fine-tuned for named entities ({level})

Fine-tuned with `nerd-train` from {base} on {len(data.train):,} sentences ({data.train_source}).
Best epoch by validation F1: **{best.f1:.4f}** at epoch {best.epoch:.2f}, on {len(data.validation):,} sentences
({data.validation_source}). Scores are seqeval's, strict, on BIO made from the data's tags, on given words.

{markdown_table(table)}

## Recipe

Learning rate {config.learning_rate:g}, train batch {config.train_batch_size}, eval batch {config.eval_batch_size},
{config.epochs:g} epochs, Adam betas {config.adam_beta1:g}/{config.adam_beta2:g} epsilon {config.adam_epsilon:g}, linear
schedule, warmup ratio {config.warmup_ratio:g}, seed {config.seed}, {config.precision}, at most
{config.max_tokens} tokens.{_case_note(config)}

```
{command}
```

## Labels

{", ".join(f"`{name}`" for name in data.labels.names)}
"""


def _case_note(config: TrainConfig) -> str:
    if not config.letter_case:
        return ""
    return (
        " Letter case is an input: `token_type_ids` are 0 for words without a capital, 1 for a capital in front,\n"
        "2 for capitals only, 3 for others."
    )


def _loss(value: float | None) -> str:
    return "no log" if value is None else f"{value:.4f}"
