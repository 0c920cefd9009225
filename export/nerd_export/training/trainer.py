"""The fine-tune: transformers' Trainer over ``datasets``, with checkpoints that a kill leaves usable."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_export.config import TrainConfig
from nerd_export.training.checks import Sentence
from nerd_export.training.features import IGNORED, encode
from nerd_export.training.scoring import Scores, to_bio, word_scores
from nerd_onnx.errors import NerdError, OutputError
from nerd_onnx.inference.labels import LabelSet

CHECKPOINTS = "checkpoints"
BEST = "best"
STATE_FILE = "training.json"


@dataclass(frozen=True)
class TrainingData:
    """
    Checked sentences and the labels they use.

    :param train_source: where the training split came from, for the card
    """

    train: Sequence[Sentence]
    validation: Sequence[Sentence]
    labels: LabelSet
    train_source: str
    validation_source: str


@dataclass(frozen=True)
class EpochRow:
    """One line of the published table, as measured on the validation split at the end of an epoch."""

    training_loss: float | None
    epoch: float
    step: int
    validation_loss: float
    precision: float
    recall: float
    f1: float
    accuracy: float
    coarse_f1: float | None = None


def train(config: TrainConfig, data: TrainingData, output: Path, *, resume: bool) -> list[EpochRow]:
    """
    Fine-tune and leave the best epoch's checkpoint in ``output``.

    :param resume: go on from the newest whole checkpoint under ``output``; start anew when there is none
    :return: the table, a row an epoch
    :raises NerdError: when the base model cannot be loaded or a resumed run's recipe has changed
    """
    import transformers

    work = output / CHECKPOINTS
    _claim_work_folder(work, config, resume=resume)
    transformers.set_seed(config.seed)
    tokenizer, model = load_base(config.model, data.labels)
    ids = model.config.label2id
    train_set, lost = encode(data.train, tokenizer, ids, config.max_tokens, every_pretoken=True)
    validation_set, _ = encode(data.validation, tokenizer, ids, config.max_tokens, every_pretoken=False)
    if lost:
        print_note(f"{lost} training word(s) stand beyond {config.max_tokens} tokens or have no piece; left out")
    trainer = transformers.Trainer(
        model=model,
        args=_arguments(config, work),
        train_dataset=train_set,
        eval_dataset=validation_set,
        data_collator=transformers.DataCollatorForTokenClassification(tokenizer, pad_to_multiple_of=8),
        processing_class=tokenizer,
        compute_metrics=_Metrics(data.labels),
        preprocess_logits_for_metrics=_Decisions(data.labels),
        callbacks=[_keep_best(work / BEST)],
    )
    trainer.train(resume_from_checkpoint=newest_checkpoint(work) if resume else None)
    table = epoch_table(trainer.state.log_history)
    _publish(work / BEST, output)
    return table


def load_base(name: str, labels: LabelSet) -> tuple[Any, Any]:
    """
    Load tokenizer and encoder with a new token-classification head.

    :raises NerdError: when the model cannot be loaded or has no fast tokenizer
    """
    import transformers

    names = dict(enumerate(labels.names))
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        model = transformers.AutoModelForTokenClassification.from_pretrained(
            name, id2label=names, label2id={v: k for k, v in names.items()}
        )
    except (OSError, ValueError) as err:
        reason = (str(err).splitlines() or [""])[0]
        raise NerdError(f"model {name!r} cannot be loaded: {reason} Give a hub id or a folder with --model") from err
    if not tokenizer.is_fast:
        raise NerdError(f"model {name!r} has no fast tokenizer (tokenizer.json), which exact character offsets need")
    return tokenizer, model


def newest_checkpoint(work: Path) -> str | None:
    """Find the newest whole checkpoint: its trainer_state.json, which is written last, can be read."""
    found = []
    for state in work.glob("checkpoint-*/trainer_state.json"):
        try:
            found.append((int(json.loads(state.read_text("utf-8"))["global_step"]), str(state.parent)))
        except (ValueError, KeyError, OSError):
            continue
    return max(found)[1] if found else None


def epoch_table(log_history: Sequence[dict[str, Any]]) -> list[EpochRow]:
    """Pair each evaluation in the Trainer's log with the last training loss before it."""
    rows: list[EpochRow] = []
    loss: float | None = None
    for entry in log_history:
        loss = entry.get("loss", loss)
        if "eval_loss" in entry:
            scores = {k: entry[f"eval_{k}"] for k in ("precision", "recall", "f1", "accuracy")}
            rows.append(
                EpochRow(
                    loss,
                    entry["epoch"],
                    entry["step"],
                    entry["eval_loss"],
                    **scores,
                    coarse_f1=entry.get("eval_coarse_f1"),
                )
            )
    return rows


def print_note(text: str) -> None:
    """Tell the user something on stderr that is no error."""
    import click

    click.echo(f"note: {text}", err=True)


def _arguments(config: TrainConfig, work: Path) -> Any:
    import torch
    import transformers

    return transformers.TrainingArguments(
        output_dir=str(work),
        learning_rate=config.learning_rate,
        per_device_train_batch_size=config.train_batch_size,
        per_device_eval_batch_size=config.eval_batch_size,
        num_train_epochs=config.epochs,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        adam_epsilon=config.adam_epsilon,
        optim="adamw_torch_fused",
        lr_scheduler_type="linear",
        warmup_ratio=config.warmup_ratio,
        seed=config.seed,
        bf16=config.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        group_by_length=config.group_by_length,
        length_column_name="length",
        eval_strategy="epoch",
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=min(config.save_steps, 100),
        report_to="none",
        dataloader_pin_memory=False,
        disable_tqdm=not os.isatty(2),
    )


def _claim_work_folder(work: Path, config: TrainConfig, *, resume: bool) -> None:
    """Record the recipe beside its checkpoints, or refuse to resume another recipe's run."""
    recipe = work / "recipe.json"
    wanted = json.loads(json.dumps(asdict(config)))
    if resume and recipe.is_file():
        found = json.loads(recipe.read_text("utf-8"))
        differing = [key for key in wanted if wanted[key] != found.get(key)]
        if differing:
            raise OutputError(
                f"{work}: the run to resume used another {', '.join(differing)}; give the same options, "
                "or start anew with --overwrite"
            )
        return
    if work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True)
    recipe.write_text(json.dumps(wanted, indent=2) + "\n", "utf-8")


def _publish(best: Path, output: Path) -> None:
    """Copy the best epoch into the output folder, where export and other tools expect a checkpoint."""
    for path in sorted(best.iterdir()):
        shutil.copy2(path, output / path.name)


def _keep_best(folder: Path) -> Any:
    """Make the callback that saves the model whenever validation F1 is the highest so far."""
    import transformers

    class KeepBest(transformers.TrainerCallback):  # type: ignore[misc]
        """Save the model of the best epoch apart from the checkpoints that rotate away."""

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
            rows = epoch_table(state.log_history)
            if rows and rows[-1].f1 >= max(row.f1 for row in rows):
                pending = folder.with_name(f"{folder.name}.writing")
                shutil.rmtree(pending, ignore_errors=True)
                kwargs["model"].save_pretrained(pending)
                kwargs["processing_class"].save_pretrained(pending)
                shutil.rmtree(folder, ignore_errors=True)
                pending.rename(folder)

    return KeepBest()


class _Decisions:
    """Reduce logits to decided ids, so that evaluation does not hold every logit."""

    def __init__(self, labels: LabelSet) -> None:
        self._labels = labels

    def __call__(self, logits: Any, labels: Any) -> Any:  # noqa: ARG002
        """
        Decide the label, and the class once fine probabilities are summed.

        :return: *Shape:* (batch, tokens, 2): label id, class id
        """
        import torch

        class_of_label = torch.from_numpy(self._labels.class_of_label).to(logits.device)
        probabilities = logits.float().softmax(-1)
        summed = torch.zeros(*logits.shape[:-1], len(self._labels.type_of_class), device=logits.device)
        summed.index_add_(-1, class_of_label, probabilities)
        return torch.stack([logits.argmax(-1), summed.argmax(-1)], dim=-1)


class _Metrics:
    """Entity scores over the given words of the validation split."""

    def __init__(self, labels: LabelSet) -> None:
        self._labels = labels

    def __call__(self, prediction: Any) -> dict[str, float]:
        """Score a ``transformers.EvalPrediction`` whose predictions :class:`_Decisions` made."""
        names = self._labels.names
        gold_ids: npt.NDArray[np.int64] = prediction.label_ids
        kept = [row != IGNORED for row in gold_ids]
        gold = [[names[i] for i in row[k]] for row, k in zip(gold_ids, kept, strict=True)]
        guess = [[names[i] for i in row[k][:, 0]] for row, k in zip(prediction.predictions, kept, strict=True)]
        scheme = self._labels.scheme
        scores = word_scores([to_bio(t, scheme) for t in gold], [to_bio(t, scheme) for t in guess])
        metrics = {
            "precision": scores.precision,
            "recall": scores.recall,
            "f1": scores.f1,
            "accuracy": scores.accuracy or 0.0,
        }
        if self._labels.has_fine_level:
            metrics |= {f"coarse_{k}": v for k, v in self._coarse(gold, prediction.predictions, kept).items()}
        return metrics

    def _coarse(self, gold: list[list[str]], predictions: npt.NDArray[np.int64], kept: list[Any]) -> dict[str, float]:
        """Score the classes that summed fine probabilities decide."""
        labels, scheme = self._labels, self._labels.scheme
        first = [int(np.flatnonzero(labels.class_of_label == c)[0]) for c in range(len(labels.type_of_class))]
        names = [labels.names[i] for i in first]  # any fine label of a class names its coarse type
        guess = [[names[c] for c in row[k][:, 1]] for row, k in zip(predictions, kept, strict=True)]
        expected = [to_bio(tags, scheme, coarse=True) for tags in gold]
        scores: Scores = word_scores(expected, [to_bio(tags, scheme, coarse=True) for tags in guess])
        return {"precision": scores.precision, "recall": scores.recall, "f1": scores.f1}
