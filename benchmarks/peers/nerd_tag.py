"""
The command ``nerd-tag``, as users call it.

It runs with the int8 bundle, also with its network in onnxruntime, with the fp32 bundle of the same weights, or with
another bundle to compare two graphs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from benchmarks.peers.peer import Engine, Peer, Sources

if TYPE_CHECKING:  # peers are listed in environments without onnxruntime, too
    from nerd_onnx.inference.kernels import Kernel


class NerdTag(Peer):
    """The command with its default options, on the int8 bundle."""

    name = "nerd_tag"
    title = "nerd-tag, int8"
    bundle: ClassVar[str] = "bundle"  # field of Sources
    kernel: ClassVar[Kernel] = "auto"

    def bundle_of(self, sources: Sources) -> Path:
        """Return the bundle that the command uses."""
        folder: Path = getattr(sources, self.bundle)
        return folder

    def command(self, sources: Sources, source: Path, target: Path) -> list[str | Path] | None:
        """Return the command line of a run."""
        # No option that makes it faster: users get the defaults.
        options: list[str | Path] = ["--model", self.bundle_of(sources), "--overwrite", "--quiet", "--json"]
        if self.kernel != "auto":
            options += ["--kernel", self.kernel]
        return [sys.executable, "-m", "nerd_onnx.cli", source, target, *options]

    def load(self, sources: Sources, folder: Path) -> Engine:  # noqa: ARG002 - has no files of its own
        """Load the network as the command does, for the measurements that the command does not offer."""
        from benchmarks.peers.networks import NetworkEngine, size_of
        from nerd_onnx.inference.bundle import Bundle
        from nerd_onnx.tagger import TagOptions, open_network

        bundle = Bundle.load(self.bundle_of(sources))
        network = open_network(bundle, self.kernel)
        setup = {"calls": sources.threads, "batch_tokens": TagOptions().batch_tokens}
        return NetworkEngine(bundle.model_file.parent, lambda _: network, [setup], size_of(bundle.model_file))


class NerdTagPlain(NerdTag):
    """The command on the fp32 bundle."""

    name = "nerd_tag_fp32"
    title = "nerd-tag, fp32"
    needs = ("plain_bundle",)
    bundle = "plain_bundle"


class NerdTagOnnxruntime(NerdTag):
    """The command on the same int8 bundle, with the network in onnxruntime."""

    name = "nerd_tag_onnxruntime"
    title = "nerd-tag, int8, onnxruntime"
    kernel = "onnxruntime"


class NerdTagOther(NerdTag):
    """The command on the bundle of ``--other-model``, for example an earlier default model."""

    name = "nerd_tag_other"
    title = "nerd-tag, other bundle"
    needs = ("other_bundle",)
    bundle = "other_bundle"
    by_default = False  # runs only with --other-model
