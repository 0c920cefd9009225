"""The fingerprint of a run: the model, programs and options that its outputs depend on besides their inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime
import tokenizers

from nerd_onnx import __version__
from nerd_onnx.durability.fingerprints import content_sha256
from nerd_onnx.inference.decoding import RULES_VERSION
from nerd_onnx.options import TagOptions
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.job import TagJob


def options_of(tagger: Tagger, job: TagJob) -> dict[str, Any]:
    """Return the options that decide the content of an output, as plain data."""
    options = tagger.options
    return {
        "--text-column": plain_names(options),
        "--column": options.column,
        "--layout": job.layout,
        "--key": job.key,
        # Neither their order nor repeats change the output.
        "--labels": sorted(set(options.labels)) if options.labels is not None else None,
        # As it was resolved: to give the model's own value is the same as to give none. So is --join.
        "--min-score": tagger.min_score,
        "--precision": options.precision,
        "--join": tagger.join,
        "--offset-unit": options.offset_unit,
        "--limit": job.limit,
        "--mixed": job.mixed,
        "--csv-types": job.csv_types.plain,
        "--overwrite-column": job.overwrite_column,
        # By its content, because a copy of the file names the same rows.
        "--retry-rejects": job.retried_place and content_sha256(job.retried_place),
    }


def plain_names(options: TagOptions) -> str | list[str]:
    """Return the text column, or the list of several, as JSON holds it."""
    return options.text_column if isinstance(options.text_column, str) else list(options.text_column)


def facts_of(tagger: Tagger, job: TagJob, options: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the fingerprint of a run, as plain data.

    Threads and batch sizes are not in it, because no text's entities depend on them.

    :param options: see :func:`options_of`
    """
    bundle = tagger.bundle
    return {
        "model": bundle.model_sha256,
        "tokenizer": bundle.tokenizer_sha256,
        "model labels": list(bundle.labels.names),
        "scheme of the labels": bundle.labels.scheme,
        "coarse types": dict(bundle.labels.coarse),
        "segment length": bundle.segment_tokens,
        "word rule": bundle.word_rule,
        "letter case": bundle.letter_case,
        "rules of words and entities": RULES_VERSION,
        "bits of --kernel": tagger.kernels,
        "version of nerd-onnx": __version__,
        "version of onnxruntime": onnxruntime.__version__,
        "version of tokenizers": tokenizers.__version__,
        "calibration of scores": bundle.calibration_digest,
        **options,
        "--format": job.input_format,
        "--output-format": job.output_format,
        # These two decide how rows are batched, and stored results are read back batch by batch.
        "--chunk-rows": job.chunk_rows,
        "--max-memory": job.max_memory,
        "tables": sorted({pair.table for pair in job.pairs if pair.table}),
    }
