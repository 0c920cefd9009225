"""The public class :class:`Tagger`: finds entities in texts, words and record batches."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import pyarrow as pa

from nerd_onnx import entity_column
from nerd_onnx.formats.columns import OffsetUnit, add_column, text_values
from nerd_onnx.inference.arrays import Floats
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.candidates import Candidates
from nerd_onnx.inference.decoding import Spans
from nerd_onnx.inference.encoding import TextEncoder
from nerd_onnx.inference.kernels import Kernel, chosen_kernel, instructions_of, kernels_of, open_network
from nerd_onnx.inference.remote_bundle import load_bundle
from nerd_onnx.inference.session import Network
from nerd_onnx.inference.word_joints import Join
from nerd_onnx.meter import NetworkMeter
from nerd_onnx.options import Entity, TaggedTexts, TagOptions, checked, text_batches
from nerd_onnx.span_filter import SpanFilter
from nerd_onnx.stages import stage
from nerd_onnx.storage.location import Location
from nerd_onnx.text_stream import Item, TextStream

__all__ = ["Entity", "TagOptions", "TaggedTexts", "Tagger", "open_network"]


class Tagger:
    """
    Finds named entities.

    The same text always gets the same entities and scores, to the last bit: they do not depend on other texts, the
    batch size or the number of threads. May be pickled: a copy is loaded again from its model and options.

    :param bundle: the model
    :param options: see :class:`TagOptions`
    :param network: runs instead of the bundle's graph, to compare another network with it
    :ivar options: as given, with the kernel that was chosen in place of ``auto``
    :ivar join: how words become entities: as asked for, else as suits the model
    :ivar model_uri: URI that the model was loaded from; None for a local model
    :raises ModelError: if the model cannot be run or does not fit its labels
    :raises OptionError: if the model lacks a label to keep, or thresholds for a precision
    """

    def __init__(self, bundle: Bundle, options: TagOptions | None = None, network: Network | None = None) -> None:
        self.bundle = bundle
        self.labels = bundle.labels
        self.model_uri: str | None = None

        options = options or TagOptions()
        if options.labels is not None:
            options = replace(options, labels=bundle.labels.named(options.labels))
        if network is None:
            # Copies of this tagger, and the workers of an engine, must compute the same bits or fail.
            options = replace(options, kernel=chosen_kernel(bundle, options.kernel))
        self.options = options

        self.join: Join = options.join or bundle.join
        encoder = TextEncoder(
            bundle.tokenizer_file,
            bundle.word_rule,
            letter_case=bundle.letter_case,
            joins_touching=self.join == "touching",
        )

        self.network: Network = network or open_network(bundle, options.kernel)
        bundle.check_files()
        self._filter = SpanFilter(bundle, options)
        self._stream = TextStream(bundle, options, encoder, self.network, self._filter)
        self.threads = self._stream.threads

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        batch_tokens: int = TagOptions.batch_tokens,
        threads: int | None = TagOptions.threads,
        min_score: float | None = TagOptions.min_score,
        precision: float | None = TagOptions.precision,
        labels: str | Iterable[str] | None = TagOptions.labels,
        offset_unit: OffsetUnit = TagOptions.offset_unit,
        text_column: str | tuple[str, ...] = TagOptions.text_column,
        column: str = TagOptions.column,
        kernel: Kernel = TagOptions.kernel,
        join: Join | None = TagOptions.join,
    ) -> Tagger:
        """
        Load a model.

        :param model: a bundle, a plain Hugging Face or Optimum folder, a hub id, or a URI; None for the default model
        :param batch_tokens: maximum number of tokens in one call of the network
        :param threads: calls of the network at the same time; None for one per available processor
        :param min_score: minimum score of entities; None for the model's own threshold, if it has one. 0 keeps all
        :param precision: minimum precision of each label, by the thresholds of the model's calibration; None keeps all
        :param labels: coarse or fine labels to keep, also as one string with commas; None keeps all
        :param offset_unit: unit of ``start`` and ``end`` in columns: ``codepoint``, or another of ``OffsetUnit``
        :param text_column: column to tag, or several in a tuple
        :param column: name of the new column
        :param kernel: what computes the network: ``onnxruntime``, ``native`` or ``portable``, see :class:`TagOptions`
        :param join: ``touching`` or ``scheme``, see :class:`TagOptions`; None for what suits the model
        :raises ModelError: if the model is missing, cannot be run, or does not fit its labels
        :raises OptionError: if an option has an invalid value, or the model does not support it
        """
        if labels is not None:
            names = labels.split(",") if isinstance(labels, str) else labels
            labels = tuple(name.strip() for name in names)

        options = TagOptions(
            batch_tokens, threads, min_score, precision, labels, offset_unit, text_column, column, kernel, join
        )
        return _loaded(model, options)

    def __repr__(self) -> str:
        kept = "" if self.options.labels is None else f", labels={','.join(self.options.labels)}"
        return f"Tagger({self.bundle.name}, {self.bundle.quantization}, {self.kernel}{kept})"

    def __reduce__(self) -> tuple[Any, ...]:
        description = self.bundle.description
        if self.bundle.calibration is None and description is not None and description.calibration is not None:
            raise TypeError("a tagger of an uncalibrated() bundle cannot travel: its folder has the calibration")
        return _loaded, (self.model_uri or self.bundle.folder, self.options)

    def close(self) -> None:
        """Stop the worker threads; they start again when the tagger is used again."""
        self._stream.close()

    def measure(self, meter: NetworkMeter | None) -> None:
        """Count what is done of the items of :meth:`tag_items`, from its next call on; None stops that."""
        self._stream.meter = meter

    @overload
    def tag(self, texts: Iterator[str | None]) -> Iterator[list[Entity] | None]: ...
    @overload
    def tag(self, texts: Collection[str | None]) -> list[list[Entity] | None]: ...
    def tag(self, texts: Iterable[str | None]) -> Iterator[list[Entity] | None] | list[list[Entity] | None]:
        """
        Return the entities of each text, in order; None for None.

        :param texts: texts of any length. An iterator is read as its results are asked for, at most 2,048 texts ahead
        :raises TypeError: if a text is neither str nor None, or ``texts`` is one string
        """
        _refuse_columns(texts)

        if isinstance(texts, Iterator):
            tagged = self.tag_stream(text_batches(texts))
            return (entities for batch in tagged for entities in batch.entities(self.labels))
        return self.tag_arrays(list(checked(texts))).entities(self.labels)

    def tag_arrays(self, texts: Sequence[str | None]) -> TaggedTexts:
        """Return the entities of texts as arrays."""
        return self._stream.tag(texts)

    def tag_stream(self, batches: Iterable[Sequence[str | None]], *, lenient: bool = False) -> Generator[TaggedTexts]:
        """
        Tag batch after batch of texts, in order; see :meth:`tag_items`.

        :param batches: texts; at most one batch is read ahead
        :param lenient: a text that the model fails on gets no entities and a reason, and the others are tagged
        """
        with closing(self.tag_items(((None, texts) for texts in batches), lenient=lenient)) as items:
            for _, tagged in items:
                yield tagged
                del tagged  # or its texts would be kept while the next batch is tagged

    def tag_items(
        self, items: Iterable[tuple[Item, Sequence[str | None]]], *, lenient: bool = False
    ) -> Generator[tuple[Item, TaggedTexts]]:
        """
        Tag the texts of item after item, in order, and yield each item with its entities.

        While the texts of one item are in the network, those of the next are read and tokenized. No text is kept after
        it is tagged, and a long text is tagged before the next item is read.

        :param items: any object, such as a batch of rows, with its texts; at most one item is read ahead
        :param lenient: a text that the model fails on gets no entities and a reason, and the others are tagged
        """
        return self._stream.tag_items(items, lenient=lenient)

    def tag_batch(self, batch: pa.RecordBatch, *, replace_column: bool = False) -> pa.RecordBatch:
        """
        Return the same rows and columns with the entities column added; of several text columns, one column each.

        :param batch: has the text columns, of any string type
        :param replace_column: an existing column of a new name is replaced
        :raises InputError: if a text column is missing or has another type
        :raises OptionError: if a text column has lists of texts
        :raises OutputError: if a new column exists already
        """
        if not isinstance(batch, pa.RecordBatch):
            raise TypeError(f"tag_batch() takes a RecordBatch, not {type(batch).__name__}; a table has to_batches()")

        texts: list[str | None] = []
        for name in self.options.columns_of_texts("tag_batch()"):
            texts += text_values(batch, name)

        found, rows, facts = self.entity_column(self.tag_arrays(texts)), batch.num_rows, self.schema_metadata()

        for i, field in enumerate(self.entity_fields()):
            column = found.slice(i * rows, rows)
            batch = add_column(batch, field, column, facts, replace=replace_column)
        return batch

    def tag_words(self, sentences: Sequence[Sequence[str]]) -> Spans:
        """Tag sentences of words without white space; the offsets count words, see :meth:`TextStream.tag_words`."""
        return self._stream.tag_words(sentences)

    def candidates(self, texts: Sequence[str]) -> tuple[Candidates, Spans, Floats]:
        """Return all candidates of paragraphs, see :meth:`TextStream.candidates`; a calibration is fitted on them."""
        return self._stream.candidates(texts)

    def entity_field(self) -> pa.Field:
        """Return name and type of the entities column."""
        return entity_column.entity_field(self.labels, self.options)

    def entity_fields(self) -> list[pa.Field]:
        """Return name and type of each entities column: one per text column."""
        return [self.entity_field().with_name(name) for name in self.options.new_columns]

    @stage("write")
    def entity_column(self, tagged: TaggedTexts) -> pa.ListArray:
        """Return entities as an Arrow column. *Shape:* (texts,)."""
        return entity_column.entity_column(tagged, self.labels, self.options)

    def schema_metadata(self, **facts: str) -> dict[str, str]:
        """Return the metadata of an output's schema: offset unit, model, how the model was quantized, more facts."""
        return entity_column.entity_metadata(self.bundle, self.options, {"kernels": self.kernels, **facts})

    @property
    def kernels(self) -> str:
        """Name of what decides the last bits of the logits, see :func:`kernels_of`."""
        return kernels_of(self.bundle, self.network)

    @property
    def kernel(self) -> str:
        """What computes the network: ``onnxruntime``, or ``native`` with its instruction set."""
        return instructions_of(self.network)

    @property
    def kept_types(self) -> tuple[str, ...]:
        """The coarse labels that entities may have, also those of which only fine labels are kept."""
        return self._filter.labels

    @property
    def min_score(self) -> float:
        """The minimum score: as asked for; else the model's own threshold, unless a precision is asked for."""
        return self._filter.min_score


def _refuse_columns(texts: object) -> None:
    """
    Refuse one string, and columns of other libraries, whose missing values are not None.

    :raises TypeError: it names the function that takes them
    """
    if isinstance(texts, str):
        raise TypeError("tag() takes a list of texts; for one text give a list of one")

    library, name = type(texts).__module__.split(".")[0], type(texts).__name__
    if library in ("pandas", "polars"):
        raise TypeError(
            f"tag() takes a list of texts, not a {name} of {library}; call "
            f"nerd_onnx.integrations.{library}.entities(column, tagger), or give tag() a list"
        )
    if isinstance(texts, (pa.Array, pa.ChunkedArray)):
        raise TypeError(f"tag() takes a list of texts, not a {name}; give array.to_pylist(), or a batch to tag_batch()")


def _loaded(model: str | Path | None, options: TagOptions) -> Tagger:
    """Load a tagger; copies of a tagger refer to this function."""
    tagger = Tagger(load_bundle(model), options)
    tagger.model_uri = str(model) if model is not None and Location.of(model).is_remote else None
    return tagger
