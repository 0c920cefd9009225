"""
Average the weights of several fine-tunes of one model.

Checkpoints that were trained from a common one are close in weight space; their mean is often better than each,
and is as fast as one of them ("model soups"; Wortsman et al., 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nerd_export.models.onnx_export import Checkpoint, load_checkpoint
from nerd_onnx.errors import ModelError

# Settings that may differ: the origin of a configuration, and its labels, which are compared separately.
_NAMES = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "id2label", "label2id")


def with_average_weights(checkpoint: Checkpoint, others: Sequence[str], note: Callable[[str], None]) -> Checkpoint:
    """
    Replace the weights of a checkpoint by the mean with those of others.

    The weights of a bundle are read from its graph (:mod:`nerd_export.models.restoring`). Some biases were moved to
    the next layer; for fine-tunes of one model, whose weights are similar, the mean is nearly the same.

    :param checkpoint: its model is changed
    :param others: hub ids or folders of checkpoints or bundles of the same architecture, labels and vocabulary
    :raises ModelError: when one cannot be loaded or does not match
    """
    import torch

    if not others:
        return checkpoint

    # Summed in double precision: the mean then does not depend on the order of the checkpoints.
    sums = {name: weight.double() for name, weight in checkpoint.model.state_dict().items()}
    for other in others:
        loaded = load_checkpoint(other, note)
        # Before its weights are added: a sum of different shapes would fail without naming the reason.
        _require_alike(checkpoint, loaded)
        for name, weight in loaded.model.state_dict().items():
            sums[name] += weight.double()

    # The values of state_dict() are the weights of the model, so this changes the model.
    with torch.no_grad():
        for name, weight in checkpoint.model.state_dict().items():
            weight.copy_(sums[name] / (1 + len(others)))

    return checkpoint


def _require_alike(one: Checkpoint, other: Checkpoint) -> None:
    """Check that two checkpoints have the same labels, weights and vocabulary."""
    # All differences in one message: the user should not find them one export at a time.
    shapes = [{name: tuple(w.shape) for name, w in c.model.state_dict().items()} for c in (one, other)]
    configs = [{k: v for k, v in c.model.config.to_dict().items() if k not in _NAMES} for c in (one, other)]

    differing = [
        what
        for what, differs in (
            ("label names", one.names != other.names),
            ("shapes of weights", shapes[0] != shapes[1]),
            ("configurations", configs[0] != configs[1]),
            ("vocabulary", one.tokenizer.get_vocab() != other.tokenizer.get_vocab()),
        )
        if differs
    ]
    if differing:
        raise ModelError(
            f"--average-with {other.folder}: its {' and '.join(differing)} differ from those of {one.folder}; average "
            "checkpoints that were trained from the same checkpoint",
            reason="checkpoints-differ",
            option="--average-with",
            file=str(other.folder),
            found=", ".join(differing),
        )
