"""The ``native`` section of a bundle: written only where the native encoder computes what onnxruntime computes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from nerd_export.graph.native import native_layout
from nerd_onnx.errors import NotFiniteError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.encoding import EncodedBatch
from nerd_onnx.inference.native_layout import NativeLayout
from nerd_onnx.inference.native_network import NativeNetwork
from nerd_onnx.inference.session import Network, Session
from nerd_onnx.native.library import Library, installed

# The last digits differ, and where a value lies between two integers, that changes later values. Measured with the
# default model: a mean difference of 0.3% of the logits' standard deviation, and 0.06% of the labels.
_LARGEST_DIFFERENCE = 0.01
_FEWEST_EQUAL_LABELS = 0.98


def native_section(
    bundle: Bundle, batches: Iterable[EncodedBatch], library: Library | None = None
) -> NativeLayout | None:
    """
    Return where the native encoder finds its weights in the graph of a bundle.

    :param batches: real segments, on which its logits are compared with those of onnxruntime
    :param library: the native library; None for the installed one
    :return: None where the native encoder is not installed or cannot compute the graph
    """
    library = library or installed()
    layout = native_layout(ir.load(bundle.model_file).graph) if library is not None else None
    if library is None or layout is None:
        return None

    try:
        native = NativeNetwork(bundle.model_file, layout, library)
        reference = Session(bundle.model_file, optimized=bundle.optimized)
        return layout if agrees(native, reference, batches) else None
    except NotFiniteError:  # the gate refuses such a network, and says why
        return None


def agrees(native: Network, reference: Network, batches: Iterable[EncodedBatch]) -> bool:
    """Return whether the logits of two networks differ by no more than rounding; at least one batch is needed."""
    pairs = [(native.logits(batch), reference.logits(batch)) for batch in batches]
    if not pairs:
        return False

    found, expected = (
        np.concatenate([each.reshape(-1, each.shape[-1]) for each in side]) for side in zip(*pairs, strict=True)
    )
    # The same logit everywhere has no spread to divide by.
    difference = np.abs(found - expected).mean() / max(expected.std(), np.finfo(np.float32).tiny)
    equal = (found.argmax(-1) == expected.argmax(-1)).mean()
    return bool(difference <= _LARGEST_DIFFERENCE and equal >= _FEWEST_EQUAL_LABELS)
