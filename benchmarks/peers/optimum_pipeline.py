"""transformers' pipeline with optimum's models on ONNX Runtime: the fp32 export, and its dynamic int8."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.peer import Engine, Peer, Sources


class OptimumPipeline(Peer):
    """The fp32 export."""

    name = "optimum_fp32"
    title = "optimum pipeline, ONNX Runtime fp32"
    packages = ("torch", "transformers", "optimum.onnxruntime")
    needs = ("exported",)
    is_network = False

    def load(self, sources: Sources, folder: Path) -> Engine:  # noqa: ARG002 - has no files of its own
        """Load the export."""
        return _engine(Path(sources.exported or ""), "model.onnx", sources.threads)


class OptimumDynamic(OptimumPipeline):
    """Dynamic int8 by ORTQuantizer for this processor, as optimum's guide recommends."""

    name = "optimum_int8"
    title = "optimum pipeline, dynamic int8"

    def prepare(self, sources: Sources, folder: Path) -> None:
        """Quantize the exported graph."""
        from optimum.onnxruntime import ORTQuantizer

        ORTQuantizer.from_pretrained(Path(sources.exported or ""), file_name="model.onnx").quantize(
            save_dir=folder, quantization_config=quantization_config()
        )

    def load(self, sources: Sources, folder: Path) -> Engine:
        """Load the quantized model, with configuration and tokenizer of the export."""
        exported = Path(sources.exported or "")
        # The pipeline loads its tokenizer from the folder of the model.
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            if (exported / name).is_file() and not (folder / name).exists():
                (folder / name).write_bytes((exported / name).read_bytes())

        return _engine(folder, "model_quantized.onnx", sources.threads)


def quantization_config() -> object:
    """Return optimum's preset for this processor: dynamic, with weights per channel."""
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    from nerd_onnx.machine.cpu import cpu_features

    features = cpu_features()
    if "avx512_vnni" in features:
        return AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    if "asimddp" in features:
        return AutoQuantizationConfig.arm64(is_static=False, per_channel=True)

    return AutoQuantizationConfig.avx2(is_static=False, per_channel=True)


def _engine(folder: Path, file_name: str, threads: int) -> Engine:
    """Return the pipeline with one of optimum's models."""
    import onnxruntime
    from optimum.onnxruntime import ORTModelForTokenClassification

    from benchmarks.peers.networks import size_of
    from benchmarks.peers.pipelines import PipelineEngine

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads

    model = ORTModelForTokenClassification.from_pretrained(folder, file_name=file_name, session_options=options)
    return PipelineEngine(model, folder, size_of(folder / file_name))
