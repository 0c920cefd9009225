"""transformers' token-classification pipeline on PyTorch in fp32, with all processors."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.peer import Engine, Peer, Sources


class TransformersPipeline(Peer):
    """What most people run."""

    name = "transformers_pipeline"
    title = "transformers pipeline, PyTorch fp32"
    packages = ("torch", "transformers")
    asks = ("checkpoint",)
    is_network = False

    def load(self, sources: Sources, folder: Path) -> Engine:  # noqa: ARG002 - it makes no files
        """Load the pipeline."""
        import torch
        from transformers import AutoModelForTokenClassification

        from benchmarks.peers.networks import size_of
        from benchmarks.peers.pipelines import PipelineEngine

        torch.set_num_threads(sources.threads)
        checkpoint = Path(sources.checkpoint or "")
        model = AutoModelForTokenClassification.from_pretrained(checkpoint, dtype=torch.float32)
        return PipelineEngine(model, checkpoint, size_of(*checkpoint.glob("*.safetensors")))
