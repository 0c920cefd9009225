"""Tag a Parquet file with transformers' token-classification pipeline, PyTorch in fp32."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

WARM_UP_TEXTS = 8
ENTITY = pa.struct(
    [("start", pa.int32()), ("end", pa.int32()), ("label", pa.string()), ("score", pa.float32()), ("text", pa.string())]
)


def main() -> None:
    """Tag INPUT and write it with an ``entities`` column to OUTPUT, or compare batch sizes on its first rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input")
    parser.add_argument("output", nargs="?")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--probe", help="batch sizes to compare, comma-separated; nothing is written")
    parser.add_argument("--rows", type=int, help="rows to compare them on")
    options = parser.parse_args()
    begin = time.perf_counter()
    tagger = load(options.checkpoint, options.threads)
    load_s = time.perf_counter() - begin
    if options.probe:
        sizes = [int(size) for size in options.probe.split(",")]
        facts = probe(tagger, options.input, sizes, options.rows)
    else:
        facts = tag(tagger, options.input, options.output, options.batch_size)
    print(json.dumps({"load_seconds": load_s, **facts}))


def load(checkpoint: str, threads: int) -> Any:
    """Load the pipeline; whatever the checkpoint says of lengths, texts are cut at what the model takes."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    model = transformers.AutoModelForTokenClassification.from_pretrained(checkpoint, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.model_max_length = model.config.max_position_embeddings - 2  # some families count from 2
    return transformers.pipeline(
        "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first", device="cpu"
    )


def tag(tagger: Any, source: str, target: str, batch_size: int) -> dict[str, Any]:
    """Tag a file. :return: how long it took, in seconds, and the number of entities"""
    begin = time.perf_counter()
    table = pq.read_table(source)
    found = tagger(table["text"].to_pylist(), batch_size=batch_size)
    column = pa.array([[plain(entity) for entity in entities] for entities in found], pa.list_(ENTITY))
    pq.write_table(table.append_column("entities", column), target, compression="zstd")
    return {"seconds": time.perf_counter() - begin, "entities": sum(map(len, found))}


def probe(tagger: Any, source: str, sizes: list[int], rows: int) -> dict[str, Any]:
    """Tag the first rows with each batch size, after a short warm-up. :return: rows and rows/s by size"""
    texts = pq.read_table(source, columns=["text"])["text"].to_pylist()[:rows]
    tagger(texts[:WARM_UP_TEXTS])
    rates = {}
    for size in sizes:
        begin = time.perf_counter()
        tagger(texts, batch_size=size)
        rates[size] = len(texts) / (time.perf_counter() - begin)
    return {"rows": len(texts), "rows_per_s": rates}


def plain(entity: dict[str, Any]) -> dict[str, Any]:
    """Give an entity as the column holds it."""
    return {
        "start": entity["start"],
        "end": entity["end"],
        "label": entity["entity_group"],
        "score": float(entity["score"]),
        "text": entity["word"],
    }


if __name__ == "__main__":
    main()
