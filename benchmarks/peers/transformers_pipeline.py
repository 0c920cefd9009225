"""transformers' token-classification pipeline on PyTorch in fp32, with all processors."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.peer import Engine, Peer, Sources


class TransformersPipeline(Peer):
    """The most common way to run a token classifier; the baseline of reports."""

    name = "transformers_pipeline"
    title = "transformers pipeline, PyTorch fp32"
    packages = ("torch", "transformers")
    needs = ("checkpoint",)
    is_network = False

    def load(self, sources: Sources, folder: Path) -> Engine:  # noqa: ARG002 - has no files of its own
        """Load the pipeline."""
        import torch
        from transformers import AutoModelForTokenClassification

        from benchmarks.peers.networks import size_of
        from benchmarks.peers.pipelines import PipelineEngine

        torch.set_num_threads(sources.threads)
        checkpoint = Path(sources.checkpoint or "")
        model = AutoModelForTokenClassification.from_pretrained(checkpoint, dtype=torch.float32)
        return PipelineEngine(model, checkpoint, size_of(*checkpoint.glob("*.safetensors")))
