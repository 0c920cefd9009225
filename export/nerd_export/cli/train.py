"""``nerd-train``: fine-tune an encoder. Heavy imports are inside the command, so --help is fast."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

import click

from nerd_export.cli.common import note, require_extra
from nerd_export.config import Level, NullTags, Precision, TrainConfig
from nerd_export.outputs import require_folder, writing
from nerd_onnx import __version__
from nerd_onnx.cli.common import FILE_PATH, complete_folders, run_command, settings
from nerd_onnx.cli.grouped_help import GroupedCommand
from nerd_onnx.cli.streams import about_output
from nerd_onnx.errors import OptionError, OutputError
from nerd_onnx.storage.hub import require_place

if TYPE_CHECKING:
    from nerd_export.data.prepare import LabelledFile

_DEFAULTS = TrainConfig()
_ABOVE_ZERO = click.FloatRange(min=0, min_open=True)
_SHARE = click.FloatRange(0, 1)
_HEADINGS = {
    "--model": "Model and output",
    "--dataset": "Data",
    "--epochs": "Training",
    "--forms": "Variants of the sentences",
    "--teacher": "Teachers",
    "--version": "Other",
}


class FileWithShare(click.ParamType):  # type: ignore[type-arg]
    """A file, perhaps with ``=`` and a share behind its name: the path, and the share, which is 1 without one."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Path, float]:
        """Return path and share of a value; see :meth:`click.ParamType.convert`."""
        whole: Path = FILE_PATH.convert(value, param, ctx)
        # From the right, because a path may contain an equals sign, too.
        name, separator, text = str(value).rpartition("=")

        # A file may have a name that ends like a share.
        if not separator or whole.is_file():
            return whole, 1.0
        try:
            share = float(text)
        except ValueError:
            return whole, 1.0  # a missing file: its reader says so

        if not 0 < share < float("inf"):
            self.fail(f"{value!r}: the share must be above 0, such as 0.5 or 2", param, ctx)
        return FILE_PATH.convert(name, param, ctx), share


@click.command("nerd-train", cls=GroupedCommand, headings=_HEADINGS, context_settings=settings("NERD_TRAIN"))
@click.option(
    "--model",
    shell_complete=complete_folders,
    default=_DEFAULTS.model,
    help="Encoder to start from: the name of a model on the Hugging Face Hub, a folder with a checkpoint, or a bundle "
    "of nerd-export; 'default' is the default model.",
)
@click.option(
    "--level",
    type=click.Choice(get_args(Level)),
    default=_DEFAULTS.level,
    help="Which labels to learn. coarse: person. fine: person-actor, from which the coarse one follows.",
)
@click.option(
    "--letter-case",
    is_flag=True,
    help="Give the model the letter case of each word, as its input token_type_ids. For models like uncased BERT, "
    "whose tokenizer writes everything in lower case.",
)
@click.option(
    "--output",
    type=FILE_PATH,
    required=True,
    help="Folder for the checkpoint, a table with the F1 of each epoch, and the model card.",
)
@click.option(
    "--save-steps",
    type=click.IntRange(min=1),
    default=_DEFAULTS.save_steps,
    help="Training steps between two saved checkpoints. A crash loses at most these steps.",
)
@click.option("--resume", is_flag=True, help="Resume from the newest checkpoint in --output.")
@click.option("--overwrite", is_flag=True, help="Start again in an --output folder that is not empty.")
@click.option(
    "--dataset",
    shell_complete=complete_folders,
    default=_DEFAULTS.dataset,
    help="Labelled data: the name of a data set on the Hugging Face Hub, or a folder with train and validation files.",
)
@click.option("--dataset-config", default=_DEFAULTS.dataset_config, help="Configuration of the data set on the hub.")
@click.option(
    "--train-file",
    "train_files",
    type=FileWithShare(),
    multiple=True,
    metavar="FILE[=SHARE]",
    help="Labelled file to train on, instead of the data set's; may be repeated. tweets.jsonl=0.5 "
    "takes about half of its sentences in each epoch, news.parquet=2 takes each of them twice.",
)
@click.option(
    "--validation-file",
    "validation_files",
    multiple=True,
    type=FILE_PATH,
    help="Labelled file to choose the best epoch on; may be repeated. With several, the epoch with the highest mean F1 "
    "is the best.",
)
@click.option(
    "--known-types",
    "known_types",
    multiple=True,
    metavar="FILE=TYPES",
    help="Coarse labels that were annotated in a training or validation file, separated by commas, such as "
    "tweets.jsonl=person,location. A word with the tag O may still be part of an entity with another label. A "
    "column known_types in the file states the same for each row.",
)
@click.option("--words-column", default=_DEFAULTS.words_column, help="Column of the words of each sentence.")
@click.option(
    "--tags-column",
    help="Column of the tags of each sentence.  [default: ner_tags, or fine_ner_tags with --level fine]",
)
@click.option("--label-names", help="Names of integer tags, separated by commas, for files that store no names.")
@click.option(
    "--keep-labels",
    is_flag=True,
    help="Keep the labels of --model, a fine-tuned model or bundle; the files may have only some of them.",
)
@click.option(
    "--max-train-samples",
    type=click.IntRange(min=1),
    help="Train only on the first rows, up to this number. The model still gets the labels of all rows.",
)
@click.option(
    "--null-tags",
    type=click.Choice(get_args(NullTags)),
    default=_DEFAULTS.null_tags,
    help="What a null tag in a training sentence means. refuse: an error. unknown: the tag of that word is not known, "
    "and the word is left out of the loss.",
)
@click.option("--drop-bad-rows", is_flag=True, help="Leave rejected rows out instead of stopping.")
@click.option("--drop-shared", is_flag=True, help="Leave sentences out of training that are also in validation.")
@click.option(
    "--epochs", type=_ABOVE_ZERO, default=_DEFAULTS.epochs, help="Number of passes over the training sentences."
)
@click.option(
    "--learning-rate",
    type=_ABOVE_ZERO,
    default=_DEFAULTS.learning_rate,
    help="Highest learning rate. It rises to this value, then falls to 0 in a straight line.",
)
@click.option(
    "--warmup-ratio",
    type=_SHARE,
    default=_DEFAULTS.warmup_ratio,
    help="Share of the training steps in which the learning rate rises.",
)
@click.option(
    "--train-batch-size",
    type=click.IntRange(min=1),
    default=_DEFAULTS.train_batch_size,
    help="Number of training sentences in one batch.",
)
@click.option(
    "--gradient-accumulation",
    type=click.IntRange(min=1),
    default=_DEFAULTS.gradient_accumulation,
    help="Number of batches per training step: their gradients are added.",
)
@click.option(
    "--eval-batch-size",
    type=click.IntRange(min=1),
    default=_DEFAULTS.eval_batch_size,
    help="Number of validation sentences in one batch. It changes speed and memory only.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(min=8),
    default=_DEFAULTS.max_tokens,
    help="Maximum number of tokens of a training sentence. Longer ones are cut.",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default=_DEFAULTS.precision,
    help="Number format of matrix products: 32-bit floats, or bfloat16, which some processors compute faster.",
)
@click.option(
    "--group-by-length", is_flag=True, help="Put sentences of similar length into one batch: less padding, faster."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=_DEFAULTS.seed, help="Seed of everything random.")
@click.option(
    "--tier-weight",
    "tier_weights",
    multiple=True,
    metavar="TIER=WEIGHT",
    help="Weight in the loss of the sentences that have TIER in their column tier, for data of mixed quality: "
    "--tier-weight gold=1 --tier-weight guessed=0.3. May be repeated; all other sentences have the weight 1.",
)
@click.option(
    "--coarse-share",
    type=_SHARE,
    default=_DEFAULTS.coarse_share,
    help="With --level fine: share of the loss on coarse labels. The rest is on fine labels.",
)
@click.option(
    "--forms",
    type=click.IntRange(min=1),
    default=_DEFAULTS.forms,
    help="Number of variants of each sentence in one epoch. The shares below say how often each change is made.",
)
@click.option(
    "--plain-share",
    type=_SHARE,
    default=_DEFAULTS.plain_share,
    help="Share of sentences written as people write, without spaces around punctuation.",
)
@click.option(
    "--lower-share",
    type=_SHARE,
    default=_DEFAULTS.lower_share,
    help="Share of sentences in lower case. The two shares below apply to the others.",
)
@click.option("--upper-share", type=_SHARE, default=_DEFAULTS.upper_share, help="Share of sentences in capitals.")
@click.option(
    "--title-share",
    type=_SHARE,
    default=_DEFAULTS.title_share,
    help="Share of sentences in which each word begins with a capital, as in headlines.",
)
@click.option(
    "--cut-share", type=_SHARE, default=_DEFAULTS.cut_share, help="Share of sentences that are cut to a fragment."
)
@click.option(
    "--join-share",
    type=_SHARE,
    default=_DEFAULTS.join_share,
    help="Share of sentences that are joined with the next one.",
)
@click.option(
    "--nameless-share",
    type=_SHARE,
    default=_DEFAULTS.nameless_share,
    help="Number of pieces of text without an entity to add, as a share of the number of sentences.",
)
@click.option(
    "--teacher",
    "teachers",
    shell_complete=complete_folders,
    multiple=True,
    help="A fine-tuned model with the same labels, whose probabilities the new model learns besides the labels: a "
    "folder, bundle or name on the Hugging Face Hub. May be repeated: then the mean of the probabilities is learned.",
)
@click.option(
    "--unlabelled",
    type=FILE_PATH,
    help="Parquet or JSON Lines file with further text, which only the teachers label.",
)
@click.option(
    "--soft-share",
    type=_SHARE,
    default=_DEFAULTS.soft_share,
    help="Share of the loss on the teachers' probabilities. The rest is on the labels.",
)
@click.option(
    "--temperature",
    type=_ABOVE_ZERO,
    default=_DEFAULTS.temperature,
    help="Temperature of the teachers' probabilities. A value above 1 makes the probabilities more even.",
)
@click.version_option(__version__, package_name="nerd-onnx")
def train_command(
    *,
    output: Path,
    train_files: tuple[tuple[Path, float], ...],
    validation_files: tuple[Path, ...],
    known_types: tuple[str, ...],
    tier_weights: tuple[str, ...],
    unlabelled: Path | None,
    label_names: str | None,
    keep_labels: bool,
    drop_bad_rows: bool,
    drop_shared: bool,
    resume: bool,
    overwrite: bool,
    **recipe: Any,
) -> None:
    """
    Fine-tune an encoder to tag named entities, and write a checkpoint. The defaults are the published settings for BERT
    on Few-NERD.

    An encoder is a pretrained network such as BERT. A tag is the label of one word; O means that the word belongs to no
    entity. The loss is the error that training reduces. A share is a number from 0 to 1, unless another range is named.

    Every option can also be set by an environment variable: NERD_TRAIN_ and the option's name, such as
    NERD_TRAIN_EPOCHS.

    \b
    Examples:
      nerd-train --dataset my-data --output my-model
      nerd-train --dataset my-data --model default --output my-model
      nerd-train --train-file train.jsonl --validation-file validation.jsonl --output my-model
      nerd-train --dataset my-data --output my-model --resume
    """  # noqa: D301 - the backspace tells click to keep the lines
    require_extra("nerd-train")
    from nerd_export.data.prepare import prepare
    from nerd_export.models.lineage import labels_of
    from nerd_export.models.names import require_model
    from nerd_export.training.card import markdown_table, write_card
    from nerd_export.training.trainer import train

    config = TrainConfig(**recipe, tier_weights=_weights(tier_weights))
    _check_recipe(config, unlabelled)

    # All that can be seen without reading data or loading a model comes first: both take minutes.
    labelled = _labelled_files(train_files, validation_files, known_types)
    _check_output(output, resume=resume, overwrite=overwrite)
    require_model(config.model, "--model", may_be_default=True)
    for name in config.teachers:
        require_model(name, "--teacher")
    if not train_files or not validation_files:
        require_place(config.dataset, "dataset", "--dataset")

    data = prepare(
        config,
        *labelled,
        [name.strip() for name in label_names.split(",")] if label_names else None,
        unlabelled=unlabelled,
        labels=labels_of(config.model, config.level) if keep_labels else None,
        drop_bad_rows=drop_bad_rows,
        drop_shared=drop_shared,
        note=note,
    )

    table = train(config, data, output, resume=resume, overwrite=overwrite, note=note)
    with writing(output):
        write_card(output, config, data, table, shlex.join(["nerd-train", *sys.argv[1:]]))
    about_output(markdown_table(table))
    about_output(f"checkpoint, table and card: {output}")


def _check_recipe(config: TrainConfig, unlabelled: Path | None) -> None:
    """
    Check that the options fit each other.

    :raises OptionError: when they do not
    """
    if config.upper_share + config.title_share > 1:
        raise OptionError(
            "--upper-share and --title-share add up to more than 1; give shares that add up to at most 1",
            reason="shares-over-one",
            option="--upper-share",
        )

    if config.forms > 1 and not config.draws_forms:
        raise OptionError(
            "--forms repeats the same text unless a share, such as --plain-share, changes it",
            reason="forms-need-share",
            option="--forms",
        )

    if config.coarse_share and config.level != "fine":
        raise OptionError(
            "--coarse-share needs --level fine, which has coarse labels besides the fine ones",
            reason="needs-fine-level",
            option="--coarse-share",
        )

    if unlabelled is not None and not config.teachers:
        raise OptionError(
            "--unlabelled needs a teacher that labels the text; name one with --teacher",
            reason="needs-teacher",
            option="--unlabelled",
        )


def _labelled_files(
    train_files: Sequence[tuple[Path, float]], validation_files: Sequence[Path], known_types: Sequence[str]
) -> tuple[list[LabelledFile], list[LabelledFile]]:
    """Return the files with their shares and known types."""
    from nerd_export.data.prepare import LabelledFile

    known: dict[str, frozenset[str]] = {}
    for value in known_types:
        name, _, types = value.rpartition("=")
        known[name] = frozenset(filter(None, (kind.strip() for kind in types.split(","))))
        if not name or not known[name]:
            raise click.BadParameter(
                f"{value!r}: expected FILE=TYPE,TYPE, such as tweets.jsonl=person,location", param_hint="--known-types"
            )

    train = [LabelledFile(path, share, known.get(str(path))) for path, share in train_files]
    validation = [LabelledFile(path, known=known.get(str(path))) for path in validation_files]
    if unused := sorted(set(known) - {str(file.path) for file in (*train, *validation)}):
        raise OptionError(
            f"--known-types: {unused[0]} is no --train-file and no --validation-file; write it as it is written there",
            reason="unknown-file",
            option="--known-types",
            found=unused[0],
        )

    return train, validation


def _weights(values: Sequence[str]) -> dict[str, float]:
    """Return the weights given as ``TIER=WEIGHT``."""
    weights = {}
    for value in values:
        tier, _, weight = value.partition("=")
        try:
            weights[tier] = float(weight)
        except ValueError:
            # Refused below, like a negative weight.
            weights[tier] = -1.0

        if not tier or not 0 <= weights[tier] < float("inf"):
            raise click.BadParameter(f"{value!r}: expected TIER=WEIGHT, such as B0=0.8", param_hint="--tier-weight")
    return weights


def _check_output(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Check before any work that the output folder can be written, and is empty unless resumed or overwritten."""
    if resume and overwrite:
        raise OptionError(
            "--resume and --overwrite exclude each other; give one of them",
            reason="resume-and-overwrite",
            option="--resume",
        )

    require_folder(output)
    if output.is_dir() and any(output.iterdir()) and not (resume or overwrite):
        raise OutputError(
            f"{output}: the folder is not empty; continue its run with --resume, or start again with --overwrite",
            reason="folder-not-empty",
            file=str(output),
        )


def main() -> NoReturn:
    """Entry point of ``nerd-train``."""
    run_command(train_command, when_interrupted="Resume with the same command and --resume.")
