"""Fine-tuning with transformers' Trainer and ``datasets``, with checkpoints that survive an interrupted run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nerd_export.config import TrainConfig
from nerd_export.data.examples import Example, write_examples
from nerd_export.data.training_data import TrainingData
from nerd_export.models.letter_case import with_letter_case
from nerd_export.models.names import as_checkpoint
from nerd_export.outputs import writing
from nerd_export.training.features import encode
from nerd_export.training.loss import SET_COLUMN, Collator, Mix, mixing_trainer, with_extras
from nerd_export.training.metrics import SET_F1, Decisions, Metrics
from nerd_export.training.teacher import SoftLabels, fingerprint, soft_labels
from nerd_onnx.errors import NerdError, OutputError, first_line
from nerd_onnx.inference.bundle import sees_case
from nerd_onnx.inference.labels import LabelSet
from nerd_onnx.storage.atomic_file import write_whole
from nerd_onnx.storage.atomic_folder import AtomicFolder

CHECKPOINTS = "checkpoints"
BEST = "best"
RECIPE = "recipe.json"
_SET_F1 = f"eval_{SET_F1}"


@dataclass(frozen=True)
class EpochRow:
    """
    One row of the published table: measurements on the validation split at the end of an epoch.

    :param f1_by_set: F1 of each validation set; the other scores are the means over the sets. Empty for one set
    """

    training_loss: float | None
    epoch: float
    step: int
    validation_loss: float
    precision: float
    recall: float
    f1: float
    accuracy: float
    coarse_f1: float | None = None
    f1_by_set: Mapping[str, float] = field(default_factory=dict)


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
    Fine-tune a model and write the checkpoint of the best epoch to ``output``.

    :param resume: continue from the newest complete checkpoint under ``output``; start anew if there is none
    :param overwrite: delete the checkpoints of an earlier run and start anew
    :param note: receives messages that do not stop the training
    :return: the table, one row per epoch
    :raises NerdError: when the base model cannot be loaded
    :raises OutputError: when ``output`` holds a run of another recipe or other data, or cannot be written
    """
    import transformers

    work = output / CHECKPOINTS
    recipe = asdict(config) | data.facts()
    if config.teachers:
        # A teacher of the same name may have been trained on since the run was interrupted.
        recipe["teachers_sha256"] = [fingerprint(name) for name in config.teachers]

    # Before the model is made: the new head has random weights.
    transformers.set_seed(config.seed)
    tokenizer, model = load_base(config.model, data.labels)
    if config.letter_case:
        with_letter_case(model, config.model)

    # After the base model was loaded, so that a mistyped name leaves no folder behind and deletes none.
    claim_work_folder(work, recipe, resume=resume, overwrite=overwrite)
    train_set, validation_set, soft = _features(
        config, data, tokenizer, work, note, letter_case=sees_case(model.config.to_dict())
    )

    # The published recipe runs on the plain Trainer, so that its results can be compared with published ones.
    make = transformers.Trainer
    mixes = config.mixes_losses or data.is_mixed
    if mixes:
        classes = data.labels.class_of_label.tolist()
        allowed = data.targets.allowed if data.targets.partial else None
        mix = Mix(config.soft_share, config.temperature, config.coarse_share, classes, allowed)
        make = partial(mixing_trainer, mix)

    trainer = make(
        model=model,
        args=_arguments(config, work, mixes=mixes, label_names=["labels", SET_COLUMN] if data.is_mixed else None),
        train_dataset=train_set,
        eval_dataset=validation_set,
        data_collator=Collator(tokenizer, soft),
        processing_class=tokenizer,
        compute_metrics=Metrics(data.labels, data.targets, [name for name, _ in data.validation_sets]),
        preprocess_logits_for_metrics=Decisions(data.labels),
        callbacks=[keep_best(work / BEST)],
    )

    trainer.train(resume_from_checkpoint=newest_checkpoint(work) if resume else None)
    table = epoch_table(trainer.state.log_history)

    with writing(output):
        _publish(work / BEST, output)

    return table


def load_base(name: str, labels: LabelSet) -> tuple[Any, Any]:
    """
    Load tokenizer and encoder. The token-classification head is new, unless the model has one of this size.

    :param name: hub id or folder of a checkpoint or bundle, or ``default`` for the default model
    :raises NerdError: when the model cannot be loaded or has no fast tokenizer
    """
    import transformers

    names = dict(enumerate(labels.names))
    try:
        with as_checkpoint(name) as place:
            tokenizer = transformers.AutoTokenizer.from_pretrained(place)
            model = transformers.AutoModelForTokenClassification.from_pretrained(
                # A head for other labels is replaced by a new one instead of being an error.
                place,
                id2label=names,
                label2id={v: k for k, v in names.items()},
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError) as err:
        raise NerdError(
            f"model {name!r} cannot be loaded: {first_line(err)} Give a hub id or a folder with --model",
            reason="cannot-load",
            option="--model",
            file=name,
        ) from err

    if not tokenizer.is_fast:
        raise NerdError(
            f"model {name!r} has no fast tokenizer (tokenizer.json), and exact character offsets need one",
            reason="no-fast-tokenizer",
            option="--model",
            file=name,
        )

    return tokenizer, model


def _features(
    config: TrainConfig,
    data: TrainingData,
    tokenizer: Any,
    work: Path,
    note: Callable[[str], None],
    *,
    letter_case: bool,
) -> tuple[Any, Any, SoftLabels | None]:
    """Encode both splits, report words that cannot be encoded, and compute the soft labels of teachers."""
    examples = write_examples(data.train, config) + [Example.of_unlabelled(text) for text in data.unlabelled]
    known = [Example.of_words(sentence) for sentence in data.validation]
    encoded = partial(
        encode, tokenizer=tokenizer, ids=data.targets.ids, max_tokens=config.max_tokens, letter_case=letter_case
    )

    # Training decides every pre-token, as the runtime does; validation only given words, as published scores do.
    train = encoded(examples, every_pretoken=True)
    validation = encoded(known, every_pretoken=False)
    beyond = f"are after the first {config.max_tokens} tokens or have no piece"

    if train.lost:
        note(f"{train.lost} training word(s) {beyond}; left out")

    if validation.lost:
        note(f"{validation.lost} validation word(s) {beyond}; scores leave them out")

    soft = None
    if config.teachers:
        soft = soft_labels(
            config.teachers,
            examples,
            train,
            data.labels,
            temperature=config.temperature,
            precision=config.precision,
            folder=work,
            note=note,
        )

    train_set, validation_set = train.dataset, validation.dataset
    if config.mixes_losses or data.is_mixed:
        train_set = with_extras(train, [example.weight for example in examples], soft)
    if data.is_mixed:
        counts = [count for _, count in data.validation_sets] or [len(data.validation)]
        validation_set = validation_set.add_column(SET_COLUMN, np.repeat(np.arange(len(counts)), counts).tolist())

    return train_set, validation_set, soft


def newest_checkpoint(work: Path) -> str | None:
    """Return the newest complete checkpoint: one with a readable trainer_state.json, which is written last."""
    found = []
    # A run may have been killed while it wrote the newest one.
    for state in work.glob("checkpoint-*/trainer_state.json"):
        try:
            found.append((int(json.loads(state.read_text("utf-8"))["global_step"]), str(state.parent)))
        except (ValueError, KeyError, OSError):
            continue
    return max(found)[1] if found else None


def epoch_table(log_history: Sequence[dict[str, Any]]) -> list[EpochRow]:
    """Return the table of epochs: each evaluation in the Trainer's log, with the last training loss before it."""
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
                    f1_by_set={k.removeprefix(_SET_F1): v for k, v in entry.items() if k.startswith(_SET_F1)},
                )
            )

    return rows


def _arguments(config: TrainConfig, work: Path, *, mixes: bool, label_names: list[str] | None) -> Any:
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
        # Named here, because the default of transformers depends on the version of torch.
        optim="adamw_torch_fused",
        lr_scheduler_type="linear",
        warmup_ratio=config.warmup_ratio,
        seed=config.seed,
        gradient_accumulation_steps=config.gradient_accumulation,
        # The Trainer drops columns that the model does not read; the mixed loss needs them.
        remove_unused_columns=not mixes,
        label_names=label_names,
        bf16=config.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        group_by_length=config.group_by_length,
        length_column_name="length",
        eval_strategy="epoch",
        save_strategy="steps",
        save_steps=config.save_steps,
        # Two: if the run is killed while it writes the newest, the one before is complete.
        save_total_limit=2,
        logging_strategy="steps",
        # The table of epochs shows the last loss that was logged, so that it is at most 100 steps old.
        logging_steps=min(config.save_steps, 100),
        report_to="none",
        # Pinned memory speeds up copies to a GPU, and warns where there is none.
        dataloader_pin_memory=False,
        # In a file, the lines of a progress bar would be one long line.
        disable_tqdm=not os.isatty(2),
    )


def claim_work_folder(work: Path, recipe: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
    """
    Record recipe and data beside the checkpoints. Only ``overwrite`` deletes anything.

    :raises OutputError: when the folder holds another run
    """
    # Through JSON, because the recorded recipe was: tuples are lists there.
    wanted = json.loads(json.dumps(recipe))
    defaults = json.loads(json.dumps(asdict(TrainConfig())))  # of options that an older version did not record

    if overwrite:
        with writing(work):
            if work.exists():
                shutil.rmtree(work)
    elif resume and (found := _recorded(work / RECIPE)) is not None:
        differing = [
            key
            for key in wanted | found  # both ways: an older version may have recorded other keys
            if wanted.get(key) != found.get(key, defaults.get(key))
        ]
        if differing:
            raise OutputError(
                f"{work}: the run to resume used another {', '.join(differing)}; give the same options and data, or "
                "start again with --overwrite",
                reason="run-changed",
                file=str(work),
                changed=", ".join(differing),
            )
        return
    else:
        _require_no_run(work, resume=resume)

    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
    write_whole(str(work / RECIPE), (json.dumps(wanted, indent=2) + "\n").encode(), overwrite=True)


def _recorded(recipe: Path) -> dict[str, Any] | None:
    """Return the recipe of the run to resume; None if there is no readable one."""
    try:
        found = json.loads(recipe.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _require_no_run(work: Path, *, resume: bool) -> None:
    """Refuse a folder with any file of another run, except for an unfinished recipe."""
    folder = work if work.exists() else work.parent
    held = sorted(path.name for path in folder.iterdir() if path.name != RECIPE) if folder.is_dir() else []
    if held and resume:
        raise OutputError(
            f"{folder}: contains {held[0]}, but no readable {RECIPE} that describes the run to resume; start again "
            "with --overwrite, or choose another --output",
            reason="no-recipe",
            file=str(folder),
            found=held[0],
        )

    if held:
        raise OutputError(
            f"{folder}: the folder is not empty; continue its run with --resume, or start again with --overwrite",
            reason="folder-not-empty",
            file=str(folder),
        )


def _publish(best: Path, output: Path) -> None:
    """Copy the best epoch to the output folder, where export and other tools expect a checkpoint."""
    for path in sorted(best.iterdir()):
        shutil.copy2(path, output / path.name)


def keep_best(folder: Path) -> Any:
    """Return the callback that saves the model at a new highest validation F1; of equal epochs the first is kept."""
    import transformers

    class KeepBest(transformers.TrainerCallback):  # type: ignore[misc]
        """Saves the model of the best epoch outside the checkpoints, which are deleted one after the other."""

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
            rows = epoch_table(state.log_history)
            if rows and all(rows[-1].f1 > row.f1 for row in rows[:-1]):
                # Atomic, so that an interrupted run never leaves half a model as the best one.
                with AtomicFolder(folder) as made:
                    kwargs["model"].save_pretrained(made.path)
                    kwargs["processing_class"].save_pretrained(made.path)
                    made.commit(replace=True)

    return KeepBest()
