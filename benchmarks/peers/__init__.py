"""
The peers: nerd-tag, and other programs that a user could choose.

The order of ``PEERS`` is the order of reports. A new peer is one module in this folder and one line in ``PEERS``.
"""

from __future__ import annotations

from benchmarks.peers.ctranslate2_int8 import CTranslate2
from benchmarks.peers.nerd_tag import NerdTag, NerdTagOnnxruntime, NerdTagOther, NerdTagPlain
from benchmarks.peers.onnxruntime_stock import StockDynamic, StockStatic
from benchmarks.peers.openvino_int8 import OpenVino
from benchmarks.peers.optimum_pipeline import OptimumDynamic, OptimumPipeline
from benchmarks.peers.peer import Peer
from benchmarks.peers.pytorch import PyTorch, PyTorchHalf
from benchmarks.peers.spacy_small import Spacy
from benchmarks.peers.transformers_pipeline import TransformersPipeline

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        NerdTag(),
        NerdTagOnnxruntime(),
        NerdTagPlain(),
        NerdTagOther(),
        TransformersPipeline(),
        PyTorch(),
        PyTorchHalf(),
        OptimumPipeline(),
        OptimumDynamic(),
        StockDynamic(),
        StockStatic(),
        OpenVino(),
        CTranslate2(),
        Spacy(),
    )
}
# The peer that is measured, the original whose accuracy it must keep, and the usual way, which it must outrun.
SUBJECT, REFERENCE, BASELINE = NerdTag.name, PyTorch.name, TransformersPipeline.name
