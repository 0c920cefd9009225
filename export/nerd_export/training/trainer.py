"""The fine-tune: transformers' Trainer over ``datasets``, with checkpoints that a kill leaves usable."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nerd_export.config import TrainConfig
from nerd_export.outputs import writing
from nerd_export.training.checks import Sentence
from nerd_export.training.features import IGNORED, encode
from nerd_export.training.scoring import Scores, to_bio, word_scores
from nerd_onnx.errors import NerdError, OutputError, first_line
from nerd_onnx.inference.labels import LabelSet

CHECKPOINTS = "checkpoints"
BEST = "best"
RECIPE = "recipe.json"
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

    def facts(self) -> dict[str, Any]:
        """Say which sentences and labels these are, so that a resumed run notices others."""
        return {
            "train_source": self.train_source,
            "train_sentences": len(self.train),
            "train_sha256": _sha256_of(self.train),
            "validation_source": self.validation_source,
            "validation_sentences": len(self.validation),
            "validation_sha256": _sha256_of(self.validation),
            "labels": list(self.labels.names),
        }


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


def train(
    config: TrainConfig,
    data: TrainingData,
    output: Path,
    *,
    resume: bool,
    overwrite: bool,
    note: Callable[[str], None],
) -> list[EpochRow]:
    """
    Fine-tune and leave the best epoch's checkpoint in ``output``.

    :param resume: go on from the newest whole checkpoint under ``output``; start when there is none
    :param overwrite: delete the checkpoints of an earlier run and start anew
    :param note: receives what the user should know but does not stop the training
    :return: the table, a row an epoch
    :raises NerdError: when the base model cannot be loaded
    :raises OutputError: when ``output`` holds a run of another recipe or other data, or cannot be written
    """
    import transformers

    work = output / CHECKPOINTS
    _claim_work_folder(work, asdict(config) | data.facts(), resume=resume, overwrite=overwrite)
    transformers.set_seed(config.seed)
    tokenizer, model = load_base(config.model, data.labels)
    train_set, validation_set = _features(config, data, tokenizer, note)
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
    with writing(output):
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
        raise NerdError(
            f"model {name!r} cannot be loaded: {first_line(err)} Give a hub id or a folder with --model"
        ) from err
    if not tokenizer.is_fast:
        raise NerdError(f"model {name!r} has no fast tokenizer (tokenizer.json), which exact character offsets need")
    return tokenizer, model


def _features(config: TrainConfig, data: TrainingData, tokenizer: Any, note: Callable[[str], None]) -> tuple[Any, Any]:
    """Encode both splits, and tell how many of their words could not be."""
    ids = {name: i for i, name in enumerate(data.labels.names)}
    train_set, lost = encode(data.train, tokenizer, ids, config.max_tokens, every_pretoken=True)
    validation_set, unseen = encode(data.validation, tokenizer, ids, config.max_tokens, every_pretoken=False)
    beyond = f"stand beyond {config.max_tokens} tokens or have no piece"
    if lost:
        note(f"{lost} training word(s) {beyond}; left out")
    if unseen:
        note(f"{unseen} validation word(s) {beyond}; scores leave them out")
    return train_set, validation_set


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


def _claim_work_folder(work: Path, recipe: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Record recipe and data beside the checkpoints; refuse to resume another run. Only ``overwrite`` deletes."""
    wanted = json.loads(json.dumps(recipe))
    if overwrite:
        with writing(work):
            if work.exists():
                shutil.rmtree(work)
    elif resume and (found := _recorded(work / RECIPE)) is not None:
        differing = [key for key in wanted if wanted[key] != found.get(key)]
        if differing:
            raise OutputError(
                f"{work}: the run to resume used another {', '.join(differing)}; give the same options and data, "
                "or start anew with --overwrite"
            )
        return
    else:
        _require_no_run(work, resume=resume)
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
        (work / RECIPE).write_text(json.dumps(wanted, indent=2) + "\n", "utf-8")


def _recorded(recipe: Path) -> dict[str, Any] | None:
    """Read the recipe of the run to resume, or None when there is none that can be read."""
    try:
        found = json.loads(recipe.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _require_no_run(work: Path, *, resume: bool) -> None:
    """Refuse a folder that holds anything a start would mix with, beyond an unfinished recipe."""
    folder = work if work.exists() else work.parent
    held = sorted(path.name for path in folder.iterdir() if path.name != RECIPE) if folder.is_dir() else []
    if held and resume:
        raise OutputError(
            f"{folder}: holds {held[0]}, but no {RECIPE} that can be read and says what run to resume; "
            "start anew with --overwrite, or choose another --output"
        )
    if held:
        raise OutputError(f"{folder}: is not empty; go on with --resume, or start anew with --overwrite")


def _sha256_of(sentences: Sequence[Sentence]) -> str:
    """Fingerprint sentences: their words and tags, in order."""
    digest = hashlib.sha256()
    for sentence in sentences:
        digest.update(json.dumps([sentence.tokens, sentence.tags]).encode() + b"\n")
    return digest.hexdigest()


def _publish(best: Path, output: Path) -> None:
    """Copy the best epoch into the output folder, where export and other tools expect a checkpoint."""
    for path in sorted(best.iterdir()):
        shutil.copy2(path, output / path.name)


def _keep_best(folder: Path) -> Any:
    """Make the callback that saves the model when validation F1 is higher than ever; of equals the first stays."""
    import transformers

    class KeepBest(transformers.TrainerCallback):  # type: ignore[misc]
        """Save the model of the best epoch apart from the checkpoints that rotate away."""

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
            rows = epoch_table(state.log_history)
            if rows and all(rows[-1].f1 > row.f1 for row in rows[:-1]):
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
