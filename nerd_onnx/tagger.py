"""Where the two wings meet: texts to entities, RecordBatch to RecordBatch."""

from __future__ import annotations

import os
import unicodedata
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nerd_onnx.errors import ModelError, OptionError, first_line
from nerd_onnx.formats.columns import add_column, entities_array, entities_type, schema_metadata, text_values
from nerd_onnx.inference.arrays import Floats, Ints, ragged_arange
from nerd_onnx.inference.batching import equal_length_batches
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.candidates import Candidates
from nerd_onnx.inference.cpu import available_cpus
from nerd_onnx.inference.decoding import Decoder, Spans, WordDecisions, texts_of
from nerd_onnx.inference.encoding import EncodedTexts, TextEncoder, word_ranges
from nerd_onnx.inference.parts import Part, Pending, gathered
from nerd_onnx.inference.remote_bundle import load_bundle
from nerd_onnx.inference.segments import Segments, cut_segments, paragraphs
from nerd_onnx.inference.session import Network, Session
from nerd_onnx.options import Entity, TaggedTexts, TagOptions, checked, text_batches
from nerd_onnx.storage.location import is_uri

__all__ = ["Entity", "TagOptions", "TaggedTexts", "Tagger", "open_network"]

_LEAST_CAPACITY = 2  # tokens beside the special ones


class Tagger:
    """
    Find named entities. The same text gets the same entities and scores to the last bit, whatever its
    neighbours, the batch size and the number of threads. May be pickled: it travels as its options.

    :param bundle: the model folder, checked
    :param options: see :class:`TagOptions`
    :param network: runs instead of the bundle's ONNX file, to compare another network with it
    :ivar model_uri: where the model came from, None where it lies here
    :raises ModelError: when the model cannot be run or does not fit its labels
    :raises OptionError: when a label to keep is not one of the model's
    """

    def __init__(self, bundle: Bundle, options: TagOptions | None = None, network: Network | None = None) -> None:
        self.bundle = bundle
        self.labels = bundle.labels
        self.options = options or TagOptions()
        self.threads = self.options.threads or available_cpus()
        self._encoder = TextEncoder(bundle.tokenizer_file, bundle.word_rule, letter_case=bundle.letter_case)
        self.network: Network = network or open_network(bundle)
        self._decoder = Decoder(bundle.labels, bundle.calibration)
        self._kept = _kept_types(self.options.labels, self)
        self._least_scores = _least_scores(self.options.precision, bundle)
        self._capacity = bundle.segment_tokens - len(self._encoder.prefix) - len(self._encoder.suffix)
        if self._capacity < _LEAST_CAPACITY:
            raise ModelError(
                f"{bundle.name}: takes {bundle.segment_tokens} tokens, which is not enough for its special tokens and "
                "a text",
                reason="too-few-tokens",
                file=bundle.name,
                found=bundle.segment_tokens,
            )
        # Texts that change each other must go alone: one segment a call.
        self._batch_tokens = 1 if getattr(self.network, "mixes_texts", False) else self.options.batch_tokens
        self.model_uri: str | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._pool_process = 0

    @classmethod
    def load(cls, model: str | Path | None = None, **options: Any) -> Tagger:
        """
        Load a model: a bundle, a plain Hugging Face or Optimum folder, a hub id or a URI; None is the one inside.

        :param options: ``batch_tokens``, ``threads``, ``min_score``, ``precision``, ``labels``, ``offset_unit``,
            ``text_column`` and ``column``: the fields of :class:`TagOptions`
        """
        if (labels := options.get("labels")) is not None:
            options["labels"] = tuple(map(str.strip, labels.split(",") if isinstance(labels, str) else labels))
        return _loaded(model, TagOptions(**options))

    def __reduce__(self) -> tuple[Any, ...]:
        description = self.bundle.description
        if self.bundle.calibration is None and description is not None and description.calibration is not None:
            raise TypeError("a tagger of an uncalibrated() bundle cannot travel: its folder has the calibration")
        return _loaded, (self.model_uri or self.bundle.folder, self.options)

    def close(self) -> None:
        """Stop the worker threads; they start again when the tagger is used again."""
        if self._pool is not None and self._pool_process == os.getpid():
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None

    def _workers(self) -> ThreadPoolExecutor:
        """Give the worker threads, made on first use and again after a fork, which copies none."""
        if self._pool is None or self._pool_process != os.getpid():
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="nerd-onnx")
            self._pool_process = os.getpid()
        return self._pool

    @overload
    def tag(self, texts: Iterator[str | None]) -> Iterator[list[Entity] | None]: ...
    @overload
    def tag(self, texts: Collection[str | None]) -> list[list[Entity] | None]: ...
    def tag(self, texts: Iterable[str | None]) -> Iterator[list[Entity] | None] | list[list[Entity] | None]:
        """
        Tag texts, in order: a list of entities each, None for None.

        :param texts: whole texts of any length; a generator, or another iterator, is read as its results are asked for,
            at most 2,048 texts ahead of them
        """
        if isinstance(texts, str):
            raise TypeError("tag() takes a list of texts; for one text give a list of one")
        if isinstance(texts, Iterator):
            tagged = self.tag_stream(text_batches(texts))
            return (entities for batch in tagged for entities in batch.entities(self.labels))
        return self.tag_arrays(list(checked(texts))).entities(self.labels)

    def tag_arrays(self, texts: Sequence[str | None]) -> TaggedTexts:
        """Tag texts and give their entities as arrays."""
        return self._finish(self._start(texts))

    def tag_stream(self, batches: Iterable[Sequence[str | None]], *, lenient: bool = False) -> Generator[TaggedTexts]:
        """
        Tag batch after batch, in order; while one is in the network, the next is read and tokenized. No text is held
        longer than its own tagging takes, and a long one is tagged before the next is asked for.

        :param batches: texts; one batch ahead is taken from it
        :param lenient: a text that the model fails on has no entities and a reason, and the others are tagged
        """
        start = self._start_lenient if lenient else self._start
        finish = self._finish_lenient if lenient else self._finish
        under_way: deque[Pending] = deque()
        try:
            for pending in map(start, batches):
                under_way.append(pending)
                del pending
                while len(under_way) > 1 or (under_way and under_way[0].is_long):
                    yield finish(under_way.popleft())
            while under_way:
                yield finish(under_way.popleft())
        finally:
            for pending in under_way:
                pending.part.cancel()

    def tag_batch(self, batch: pa.RecordBatch, *, replace_column: bool = False) -> pa.RecordBatch:
        """
        Give the same rows and columns with the entities column added.

        :param batch: has the text column, of any string type
        :param replace_column: an existing column of the new name is replaced
        :raises InputError: when the text column is missing or holds no strings
        :raises OutputError: when the new column exists already
        """
        if not isinstance(batch, pa.RecordBatch):
            raise TypeError(f"tag_batch() takes a RecordBatch, not {type(batch).__name__}; a table has to_batches()")
        texts = text_values(batch, self.options.text_column)
        column = self.entity_column(self.tag_arrays(texts))
        return add_column(batch, self.entity_field(), column, self.schema_metadata(), replace=replace_column)

    def entity_field(self) -> pa.Field:
        """Name and type of the new column."""
        return pa.field(self.options.column, entities_type(self.labels.has_fine_level))

    def schema_metadata(self, **facts: str) -> dict[str, str]:
        """
        What the output's schema says of its entities: offset unit, model, how it was quantized.

        :param facts: more to say
        """
        return schema_metadata(
            self.options.column,
            offset_unit=self.options.offset_unit,
            model_sha256=self.bundle.model_sha256,
            quantization=self.bundle.quantization,
            kernels=self.bundle.kernels,
            calibration=self.bundle.calibration_digest,
            word_rule=self.bundle.word_rule,
            letter_case=str(self.bundle.letter_case).lower(),
            **{"layout": "nested", **facts},
        )

    @property
    def kept_types(self) -> tuple[str, ...]:
        """The labels that entities may have: all of the model's, or the coarse ones of those that were asked for."""
        if self._kept is None:
            return self.labels.types
        types, fine_types = self._kept
        of_fine = set(self.labels.type_of_fine_type[fine_types[:-1]].tolist())
        return tuple(name for i, name in enumerate(self.labels.types) if types[i] or i in of_fine)

    @property
    def min_score(self) -> float:
        """The least score of entities: as asked; else the model's own, unless thresholds of a precision are asked."""
        if self.options.min_score is not None:
            return self.options.min_score
        calibration = self.bundle.calibration
        return calibration.f1_threshold if calibration is not None and self.options.precision is None else 0.0

    def entity_column(self, tagged: TaggedTexts) -> pa.ListArray:
        """Turn entities into the Arrow column. *Shape:* (texts,)."""
        spans = tagged.spans
        return entities_array(
            tagged.texts,
            row=spans.row,
            start=spans.start,
            end=spans.end,
            label=spans.label,
            labels=self.labels.types,
            fine=spans.fine if self.labels.has_fine_level else None,
            fine_labels=self.labels.fine_types,
            score=spans.score,
            unit=self.options.offset_unit,
        )

    def tag_words(self, sentences: Sequence[Sequence[str]]) -> Spans:
        """
        Tag sentences of given words: each is decided by its first token, and offsets count words.

        :param sentences: words without white space in them
        :return: ``start`` and ``end`` are word numbers in the sentence, end-exclusive
        """
        texts = [" ".join(words) for words in sentences]
        encoded = self._encoder.encode(texts).with_words([word_ranges(words) for words in sentences])
        return self._filtered(self._decoder.spans(encoded, self._decided(texts, encoded, self._decoder)))

    def candidates(self, texts: Sequence[str]) -> tuple[Candidates, Spans, Floats]:
        """
        Give all that may be an entity, before anything is chosen; a calibration is fitted on it.

        :param texts: a paragraph each
        :return: what is known of them; where they stand, with their mean probability as the score; and the sum of each
            fine type's probability over their words. *Shape:* (candidates, fine types), or (candidates, 0) without a
            fine level
        """
        encoded = self._encoder.encode(texts)
        decoder = Decoder(self.labels, finds_candidates=True)
        decisions = self._decided(texts, encoded, decoder)
        found = decoder.candidates(encoded, decisions)
        row, end = texts_of(encoded, found.first), encoded.word_end[found.last]
        spans = Spans(
            row=row,
            start=encoded.word_start[found.first],
            end=np.array([_whole_end(texts[i], to) for i, to in zip(row, end.tolist(), strict=True)], dtype=np.int64),
            label=found.label,
            fine=np.full(len(found), -1),
            score=found.mean,
        )
        return found, spans, decoder.fine_sums(encoded, decisions, found.first, found.last)

    def _start(self, texts: Sequence[str | None]) -> Pending:
        """Cut texts into paragraphs, and hand the first part of them to the worker threads."""
        ranges = ((i, begin, end) for i, text in enumerate(texts) if text for begin, end in paragraphs(text))
        rest = gathered(ranges)
        return Pending(texts, self._start_part(texts, next(rest, [])), rest)

    def _start_part(self, texts: Sequence[str | None], ranges: Sequence[tuple[int, int, int]]) -> Part:
        """Tokenize paragraphs, and hand their batches to the worker threads."""
        different: dict[str, int] = {}
        rows = [
            (i, begin, different.setdefault((texts[i] or "")[begin:end], len(different))) for i, begin, end in ranges
        ]
        row, base, place = np.array(rows, dtype=np.int64).reshape(-1, 3).T
        paragraphs_once = list(different)
        encoded = self._encoder.encode(paragraphs_once)
        return Part(row, base, place, encoded, self._submit(paragraphs_once, encoded, self._decoder))

    def _start_lenient(self, texts: Sequence[str | None]) -> Pending:
        """Start texts; when one fails at once, without those that fail alone."""
        try:
            return self._start(texts)
        except Exception:  # noqa: BLE001 - tokenizers' errors share no base class
            good, reasons = self._without_failing(texts)
            return replace(self._start(good), reasons=reasons)

    def _finish_lenient(self, pending: Pending) -> TaggedTexts:
        """Finish texts; when one fails, again without those that fail alone."""
        try:
            return self._finish(pending)
        except Exception:  # noqa: BLE001 - onnxruntime's errors share no base class
            good, reasons = self._without_failing(pending.texts)
            return self._finish(replace(self._start(good), reasons={**pending.reasons, **reasons}))

    def _without_failing(self, texts: Sequence[str | None]) -> tuple[list[str | None], dict[int, str]]:
        """Put None for each text that fails when it is tagged alone, and say why."""
        good, reasons = list(texts), {}
        for i, text in enumerate(texts):
            try:
                self.tag_arrays([text])
            except Exception as err:  # noqa: BLE001 - of several libraries
                good[i], reasons[i] = None, first_line(err)
        return good, reasons

    def _decided(self, texts: Sequence[str], encoded: EncodedTexts, decoder: Decoder) -> list[WordDecisions]:
        """Run texts through the network and wait for it."""
        return [future.result() for future in self._submit(texts, encoded, decoder)]

    def _submit(self, texts: Sequence[str], encoded: EncodedTexts, decoder: Decoder) -> list[Future[WordDecisions]]:
        """Cut tokens into segments and batches, one call of the network each."""
        segments = cut_segments(texts, encoded, self._capacity)
        batches = equal_length_batches(segments.token_end - segments.token_begin, self._batch_tokens)
        workers = self._workers()
        return [workers.submit(self._decide, encoded, segments, batch, decoder) for batch in batches]

    def _decide(self, encoded: EncodedTexts, segments: Segments, batch: Ints, decoder: Decoder) -> WordDecisions:
        """Run one batch of segments of one length, and decide the words that are theirs."""
        begin, word_begin, word_end = segments.token_begin[batch], segments.word_begin[batch], segments.word_end[batch]
        length = int(segments.token_end[batch[0]] - begin[0])
        logits = self.network.logits(self._encoder.batch(encoded, begin, length))
        words = ragged_arange(word_begin, word_end)
        segment = np.repeat(np.arange(len(batch)), word_end - word_begin)
        position = encoded.word_token[words] - begin[segment] + len(self._encoder.prefix)
        return decoder.decide(words, logits[segment, position])

    def _finish(self, pending: Pending) -> TaggedTexts:
        """Wait for all parts, the next one under way while one is waited for."""
        under_way, found = deque([pending.part]), []
        tokens = np.zeros(len(pending.texts), np.int64)
        try:
            while under_way:
                under_way.extend(self._start_part(pending.texts, ranges) for ranges in islice(pending.rest, 1))
                part = under_way.popleft()
                found.append(self._finish_part(part))
                np.add.at(tokens, part.row, part.tokens)
        finally:
            for part in under_way:
                part.cancel()
        spans = _whole_characters(pending.texts, Spans.concatenate(found))
        return TaggedTexts(pending.texts, spans, tokens, pending.reasons)

    def _finish_part(self, part: Part) -> Spans:
        """Wait for the batches, join their words into entities, and place these in the texts."""
        return self._filtered(part.placed(self._decoder.spans(part.encoded, part.decided())))

    def _filtered(self, spans: Spans) -> Spans:
        """Keep what the options ask for."""
        if self._kept is not None:
            types, fine_types = self._kept
            spans = spans.select(types[spans.label] | fine_types[spans.fine])
        if self._least_scores is not None:
            spans = spans.select(spans.score >= self._least_scores[spans.label])
        if self.min_score > 0:
            spans = spans.select(spans.score >= np.float32(self.min_score))
        return spans


def open_network(bundle: Bundle) -> Session:
    """
    Open the bundle's network, and check that it scores as many labels as are named.

    :raises ModelError: when it does not, or cannot be run
    """
    session = Session(bundle.model_file, optimized=bundle.optimized)
    if session.labels is not None and session.labels != len(bundle.labels.names):
        raise ModelError(
            f"{bundle.model_file}: the network has {session.labels} outputs per token, but the folder names "
            f"{len(bundle.labels.names)} tags",
            reason="label-count",
            file=str(bundle.model_file),
            found=session.labels,
            expected=len(bundle.labels.names),
        )
    if bundle.letter_case and "token_type_ids" not in session.inputs:
        raise ModelError(
            f"{bundle.model_file}: the model was trained with letter case in token_type_ids, but the graph has no such "
            "input; export it again with nerd-export",
            reason="no-letter-case-input",
            file=str(bundle.model_file),
        )
    return session


def _loaded(model: str | Path | None, options: TagOptions) -> Tagger:
    tagger = Tagger(load_bundle(model), options)
    tagger.model_uri = str(model) if model is not None and is_uri(str(model)) else None
    return tagger


def _least_scores(precision: float | None, bundle: Bundle) -> npt.NDArray[np.float64] | None:
    """Give the least score of each type; None where all are kept."""
    if precision is None:
        return None
    if bundle.calibration is None:
        raise OptionError(
            f"--precision: {bundle.name} has no thresholds; export it with nerd-export --dataset, or use --min-score",
            reason="no-thresholds",
            option="--precision",
            file=bundle.name,
        )
    return bundle.calibration.least_scores(precision)


def _kept_types(
    names: Sequence[str] | None, tagger: Tagger
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """Mark which coarse and which fine types to keep; the fine marks end with one for "no fine type"."""
    if names is None:
        return None
    types, fine_types = tagger.labels.types, tagger.labels.fine_types
    tagger.labels.check_known(names)
    fine_kept = [t in names for t in fine_types] if tagger.labels.has_fine_level else [False] * len(fine_types)
    return np.array([t in names for t in types]), np.array([*fine_kept, False])


def _whole_characters(texts: Sequence[str | None], spans: Spans) -> Spans:
    """Let entities end after the accents of their last letter: tokenizers drop combining marks."""
    end = spans.end.copy()
    for i in range(len(spans)):
        text = texts[spans.row[i]] or ""
        if not text.isascii():
            next_in_row = i + 1 < len(spans) and spans.row[i + 1] == spans.row[i]
            end[i] = _whole_end(text, int(end[i]), int(spans.start[i + 1]) if next_in_row else None)
    return replace(spans, end=end)


def _whole_end(text: str, end: int, limit: int | None = None) -> int:
    """Move an end behind the accents of the letter before it."""
    last = len(text) if limit is None else limit
    while end < last and unicodedata.category(text[end]).startswith("M"):
        end += 1
    return end
