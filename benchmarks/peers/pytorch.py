"""The PyTorch original in this project's tagger, in fp32 and in bf16."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.peer import Engine, Peer, Setup, Sources

if TYPE_CHECKING:
    from nerd_onnx.inference.session import Network


class PyTorch(Peer):
    """PyTorch in fp32: either all threads in one call, or one call per thread, whichever is faster."""

    name = "pytorch_fp32"
    title = "PyTorch fp32, our batches"
    packages = ("torch", "transformers")
    needs = ("checkpoint",)
    dtype = "float32"

    def load(self, sources: Sources, folder: Path) -> Engine:  # noqa: ARG002 - has no files of its own
        """Load the weights."""
        import torch
        from transformers import AutoModelForTokenClassification

        from benchmarks.peers.networks import NetworkEngine, size_of
        from nerd_export.models.networks import TorchNetwork

        checkpoint = Path(sources.checkpoint or "")
        model = AutoModelForTokenClassification.from_pretrained(checkpoint, dtype=getattr(torch, self.dtype))
        network = TorchNetwork(model)

        def make(setup: Setup) -> Network:
            torch.set_num_threads(setup["threads_a_call"])
            return network

        setups = [
            {"calls": calls, "threads_a_call": sources.threads // calls, "batch_tokens": budget}
            for calls in sorted({1, sources.threads})
            for budget in (512, 2048)
        ]
        # The files have fp32 weights, which need twice the space of bf16.
        size = size_of(*checkpoint.glob("*.safetensors"))
        return NetworkEngine(sources.bundle, make, setups, size // (2 if self.dtype == "bfloat16" else 1))


class PyTorchHalf(PyTorch):
    """PyTorch in bf16."""

    name = "pytorch_bf16"
    title = "PyTorch bf16, our batches"
    dtype = "bfloat16"
