"""Load what is evaluated: a bundle, or a PyTorch checkpoint with the runtime's tokenizing, batching and decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from nerd_export.config import SEGMENT_TOKENS, Level
from nerd_export.data.labelled import read_labelled
from nerd_onnx.errors import ModelError, TrainingDataError
from nerd_onnx.inference.bundle import Bundle, longest_input, sees_case
from nerd_onnx.inference.remote_bundle import load_bundle
from nerd_onnx.inference.session import Network
from nerd_onnx.storage.hub import readable_place
from nerd_onnx.tagger import Tagger, TagOptions, open_network

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


@contextmanager
def open_subject(
    model: str | None,
    level: Level | None,
    min_score: float | None,
    note: Callable[[str], None],
    *,
    calibrate: bool = True,
    calibrate_on: Path | None = None,
) -> Iterator[Tagger]:
    """
    Load a bundle or a checkpoint as a tagger.

    :param model: a bundle, a folder with ONNX, a folder with PyTorch weights, or a hub id; None for the default model
    :param level: whether a checkpoint's labels have two levels; None for what nerd-train recorded
    :param min_score: see :class:`TagOptions`
    :param calibrate: False to decide each word on its own, as checkpoints do
    :param calibrate_on: labelled file on which calibration, thresholds and weights of fine labels are fitted, as in an
        export; they replace those of the bundle
    :param note: receives what the user should know
    :raises ModelError: when it cannot be loaded
    :raises TrainingDataError: when the file has too few entities to fit
    """
    with TemporaryDirectory() as scratch:
        network, threads = None, None
        if model is not None and _is_checkpoint(model):
            bundle, network = _checkpoint(model, level, Path(scratch), note)
            threads = 1  # one call at a time: PyTorch uses all processors for it
        else:
            bundle = load_bundle(model)

        if calibrate_on is not None:
            network = network or open_network(bundle)
            bundle = _calibrated_on(calibrate_on, bundle.uncalibrated(), network, threads, note)
        elif not calibrate:
            bundle = bundle.uncalibrated()

        with closing(Tagger(bundle, TagOptions(threads=threads, min_score=min_score), network)) as tagger:
            yield tagger


def _calibrated_on(
    file: Path, bundle: Bundle, network: Network, threads: int | None, note: Callable[[str], None]
) -> Bundle:
    """Fit a calibration on a labelled file. Its text is tagged more than once, so the logits are cached."""
    from nerd_export.models.networks import Remembered
    from nerd_export.scoring.score_calibration import calibrated, calibration_of_tagger

    labelled = read_labelled(file, bundle.labels, None, note)

    with closing(Tagger(bundle, TagOptions(threads=threads), Remembered(network))) as tagger:
        record = calibration_of_tagger(tagger, {file.stem: labelled}, [file.stem])

    if record is None:
        raise TrainingDataError(
            f"{file}: too few entities to fit a calibration; give more labelled text",
            reason="too-few-entities",
            file=str(file),
        )

    return calibrated(bundle, record)


def _is_checkpoint(model: str) -> bool:
    """Whether a name is that of a folder that holds PyTorch weights and no bundle."""
    folder = Path(model)
    with readable_place(model, ModelError):
        return not (folder / "nerd.json").is_file() and any((folder / name).is_file() for name in _WEIGHTS)


def _checkpoint(model: str, level: Level | None, scratch: Path, note: Callable[[str], None]) -> tuple[Bundle, Network]:
    from nerd_export.models.lineage import Origin
    from nerd_export.models.networks import TorchNetwork
    from nerd_export.models.onnx_export import load_checkpoint

    checkpoint = load_checkpoint(model, note)
    # The runtime reads tokenizer.json, which not every checkpoint folder has.
    checkpoint.tokenizer.save_pretrained(scratch)

    config = checkpoint.model.config.to_dict()
    origin = Origin.of(model)
    weights = next(Path(model) / name for name in _WEIGHTS if (Path(model) / name).is_file())

    bundle = Bundle(
        name=model,
        folder=Path(model).absolute(),
        model_file=weights,
        tokenizer_file=scratch / "tokenizer.json",
        labels=origin.labels(checkpoint.names, level),
        word_rule=origin.word_rule,
        letter_case=sees_case(config),
        segment_tokens=min(SEGMENT_TOKENS, longest_input(config, scratch)),
        model_sha256="",
        tokenizer_sha256="",
        quantization="PyTorch fp32",
    )

    return bundle, TorchNetwork(checkpoint.model)
