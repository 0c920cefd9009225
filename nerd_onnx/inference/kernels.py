"""The choice of what computes a network: onnxruntime, or the native encoder."""

from __future__ import annotations

from platform import node
from typing import Literal

from nerd_onnx.errors import ModelError, OptionError
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.native_layout import NativeLayout
from nerd_onnx.inference.native_network import NATIVE_BITS, NativeNetwork
from nerd_onnx.inference.session import Network, Session
from nerd_onnx.native.library import PORTABLE, installed, missing_because

Kernel = Literal["auto", "native", "portable", "onnxruntime"]


def chosen_kernel(bundle: Bundle, kernel: Kernel) -> Kernel:
    """
    Return the kernel that ``auto`` stands for here, and any other one unchanged.

    That is the native encoder where it is installed, the processor has instructions for it and the bundle has a native
    section; else onnxruntime. In plain C++ the encoder has the same bits, but is many times slower than onnxruntime.
    """
    if kernel != "auto":
        return kernel

    library = installed()
    is_native = library is not None and library.is_fast and _layout_of(bundle) is not None
    return "native" if is_native else "onnxruntime"


def open_network(bundle: Bundle, kernel: Kernel = "auto") -> Network:
    """
    Open the bundle's network.

    :param kernel: what computes it, see :func:`chosen_kernel`
    :raises ModelError: if it cannot be run, or its outputs or inputs do not fit the bundle
    :raises OptionError: if the native encoder is asked for, and is not installed or cannot compute this network
    """
    kernel = chosen_kernel(bundle, kernel)
    network = _session(bundle) if kernel == "onnxruntime" else _native(bundle, kernel)

    # With another number of tags, every word would get a wrong label and nothing would fail.
    if network.labels is not None and network.labels != len(bundle.labels.names):
        raise ModelError(
            f"{bundle.model_file}: the network has {network.labels} outputs per token, but the folder names "
            f"{len(bundle.labels.names)} tags",
            reason="label-count",
            file=str(bundle.model_file),
            found=network.labels,
            expected=len(bundle.labels.names),
        )
    return network


def kernels_of(bundle: Bundle, network: Network) -> str:
    """
    Return the name of what decides the last bits of the logits.

    For onnxruntime these are the instructions of the processor. The native encoder has the same bits everywhere.
    """
    return f"int8, {NATIVE_BITS}" if isinstance(network, NativeNetwork) else bundle.kernels


def instructions_of(network: Network) -> str:
    """Return what computes the network, with the instruction set that the native encoder uses."""
    return f"native, {network.instructions}" if isinstance(network, NativeNetwork) else "onnxruntime"


def native_support() -> str:
    """Return the instruction sets of the native encoder that this processor has, and what computes without them."""
    library = installed()
    if library is None:
        return f"{missing_because()}, onnxruntime computes"
    return ", ".join(library.paths) + ("" if library.is_fast else " (slow, so onnxruntime computes)")


def _native(bundle: Bundle, kernel: str) -> NativeNetwork:
    """Open the network in the native encoder."""
    library = installed()
    if library is None:
        raise OptionError(
            f"--kernel {kernel}: the native encoder is {missing_because()} (on {node()}); install the package there "
            "with a C++ compiler, or use --kernel onnxruntime on all machines",
            reason="no-native-library",
            option="--kernel",
            host=node(),
        )

    layout = _layout_of(bundle)
    if layout is None:
        raise OptionError(
            f"--kernel {kernel}: the native encoder cannot compute the model {bundle.name}: its nerd.json has no "
            "native section, which nerd-export writes for int8 encoders of BERT, DistilBERT, RoBERTa, ELECTRA and "
            "MPNet; use --kernel onnxruntime",
            reason="no-native-model",
            option="--kernel",
            file=str(bundle.model_file),
        )

    return NativeNetwork(bundle.model_file, layout, library, PORTABLE if kernel == PORTABLE else "")


def _layout_of(bundle: Bundle) -> NativeLayout | None:
    """Return the native section of a bundle; None where it has none."""
    return None if bundle.description is None else bundle.description.native


def _session(bundle: Bundle) -> Session:
    """Open the network in onnxruntime."""
    session = Session(bundle.model_file, optimized=bundle.optimized, graph=bundle.graph)
    if bundle.letter_case and "token_type_ids" not in session.inputs:
        raise ModelError(
            f"{bundle.model_file}: the model was trained with letter case in token_type_ids, but the graph has no such "
            "input; export it again with nerd-export",
            reason="no-letter-case-input",
            file=str(bundle.model_file),
        )
    return session
