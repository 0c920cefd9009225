"""Texts through the network: while one batch of texts is in the network, the next is read and tokenized."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np

from nerd_onnx.errors import InterruptedRunError, ModelError, first_line
from nerd_onnx.inference.arrays import Floats, Ints, ragged_arange
from nerd_onnx.inference.batching import equal_length_batches
from nerd_onnx.inference.bundle import Bundle
from nerd_onnx.inference.candidates import Candidates
from nerd_onnx.inference.decoding import Decoder, Spans, WordDecisions, texts_of
from nerd_onnx.inference.encoding import EncodedTexts, TextEncoder, word_ranges
from nerd_onnx.inference.native_network import NativeNetwork
from nerd_onnx.inference.segments import Segments, cut_segments, paragraphs
from nerd_onnx.inference.session import Network, Session
from nerd_onnx.inference.text_parts import Part, Pending, gathered, part_characters
from nerd_onnx.long_text import release_unused
from nerd_onnx.machine.cpu import available_cpus
from nerd_onnx.meter import NetworkMeter
from nerd_onnx.options import TaggedTexts, TagOptions
from nerd_onnx.span_filter import ends_with_combining_marks, with_combining_marks
from nerd_onnx.stages import stage

_MIN_CAPACITY = 2  # tokens besides the special ones
Item = TypeVar("Item")


class TextStream:
    """
    Runs texts through tokenizer, network and decoder.

    :param bundle: segment length, labels and calibration
    :param options: ``threads`` and ``batch_tokens`` are used
    :param encoder: the tokenizer
    :param network: computes the logits
    :param keep: selects the entities to return
    :ivar threads: number of calls of the network at the same time
    :ivar meter: counts what is done of the items of :meth:`tag_items`; None if nobody wants to know
    :raises ModelError: if a segment of the network has no room for a text
    """

    def __init__(
        self,
        bundle: Bundle,
        options: TagOptions,
        encoder: TextEncoder,
        network: Network,
        keep: Callable[[Spans], Spans],
    ) -> None:
        self.encoder = encoder
        self.network = network

        self._labels = bundle.labels
        self._decoder = Decoder(bundle.labels, bundle.calibration)
        self._keep = keep
        self._capacity = self._checked_capacity(bundle)

        # A dynamically quantized network computes one scale for the whole batch, so that each text changes the scores
        # of the others: it gets one segment per call.
        self._batch_tokens = 1 if getattr(network, "mixes_texts", False) else options.batch_tokens
        self.threads = options.threads or available_cpus()

        self.meter: NetworkMeter | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._pool_process = 0

    def _checked_capacity(self, bundle: Bundle) -> int:
        capacity = bundle.segment_tokens - len(self.encoder.prefix) - len(self.encoder.suffix)
        if capacity < _MIN_CAPACITY:
            raise ModelError(
                f"{bundle.name}: takes {bundle.segment_tokens} tokens, which is not enough for its special tokens and "
                "a text",
                reason="too-few-tokens",
                file=bundle.name,
                found=bundle.segment_tokens,
            )
        return capacity

    def close(self) -> None:
        """Stop the worker threads; they start again when the stream is used again."""
        # After a fork, the threads belong to the parent: waiting for them here would never end.
        if self._pool is not None and self._pool_process == os.getpid():
            # Batches that run are stopped in between: a damaged network may take an hour for one.
            self._pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(self.network, Session | NativeNetwork):
                self.network.stop()
            self._pool.shutdown(wait=True)

        self._pool = None

    def tag(self, texts: Sequence[str | None]) -> TaggedTexts:
        """Tag texts, and wait for all of them."""
        return self.finish(self.start(texts))

    def tag_items(
        self, items: Iterable[tuple[Item, Sequence[str | None]]], *, lenient: bool
    ) -> Generator[tuple[Item, TaggedTexts]]:
        """Tag the texts of item after item; see :meth:`nerd_onnx.tagger.Tagger.tag_items`."""
        start = self._start_lenient if lenient else self.start
        finish = self._finish_lenient if lenient else self.finish
        under_way: deque[tuple[Item, Pending, int]] = deque()

        meter = self.meter

        # The pair that is finished lives in this function alone: a variable of the loop would keep its texts alive
        # while the next ones are read.
        def finished() -> tuple[Item, TaggedTexts]:
            item, pending, place = under_way.popleft()
            tagged = finish(pending)
            if meter is not None:
                meter.settle(place)
            return item, tagged

        try:
            for item, texts in items:
                place = 0 if meter is None else meter.begin(sum(len(text) for text in texts if text))
                under_way.append((item, start(texts), place))
                del item, texts

                # One item is always ahead, but none beside a long text, which takes enough memory alone.
                while len(under_way) > 1 or (under_way and under_way[0][1].is_long):
                    yield finished()

            while under_way:
                yield finished()
        finally:
            for _, pending, _ in under_way:
                pending.part.cancel()

    def tag_words(self, sentences: Sequence[Sequence[str]]) -> Spans:
        """
        Tag sentences that are given as words; the first token of a word decides about it.

        :param sentences: words without white space
        :return: ``start`` and ``end`` are word numbers in the sentence, end-exclusive
        """
        texts = [" ".join(words) for words in sentences]
        encoded = self.encoder.encode(texts).with_words([word_ranges(words) for words in sentences])
        return self._keep(self._decoder.spans(encoded, self._decided(texts, encoded, self._decoder)))

    def candidates(self, texts: Sequence[str]) -> tuple[Candidates, Spans, Floats]:
        """
        Return all candidates, before the decoder chooses among them.

        :param texts: one paragraph each
        :return: the candidates; their places in the texts, with their mean probability as the score; and the sum of
            each fine label's probability over their words. *Shape:* (candidates, fine labels), or (candidates, 0)
            without a fine level
        """
        encoded = self.encoder.encode(texts)
        decoder = Decoder(self._labels, finds_candidates=True)
        decisions = self._decided(texts, encoded, decoder)

        found = decoder.candidates(encoded, decisions)

        row = texts_of(encoded, found.first)
        spans = Spans(
            row=row,
            start=encoded.word_start[found.first],
            end=ends_with_combining_marks(texts, row, encoded.word_end[found.last]),
            label=found.label,
            fine=np.full(len(found), -1),
            score=found.mean,
        )
        return found, spans, decoder.fine_sums(encoded, decisions, found.first, found.last)

    @stage("tokenize")
    def start(self, texts: Sequence[str | None]) -> Pending:
        """Cut texts into paragraphs, and hand the first part of the paragraphs to the worker threads."""
        ranges = ((i, begin, end) for i, text in enumerate(texts) if text for begin, end in paragraphs(text))
        rest = gathered(ranges, part_characters(texts))
        return Pending(texts, self._start_part(texts, next(rest, [])), rest)

    @stage("decode")
    def finish(self, pending: Pending) -> TaggedTexts:
        """Wait for all parts; while one part is waited for, the next one is in the network."""
        under_way, found = deque([pending.part]), []
        tokens = np.zeros(len(pending.texts), np.int64)

        try:
            while under_way:
                ranges = next(pending.rest, None)
                if ranges is not None:
                    under_way.append(self._start_part(pending.texts, ranges))

                part = under_way.popleft()
                spans = self._finish_part(part)

                found.append(spans.compact() if pending.is_long else spans)
                np.add.at(tokens, part.row, part.tokens)
        finally:
            for part in under_way:
                part.cancel()

        joined = Spans.concatenate(found)
        # The parts would stay in memory beside the whole, and a long text has millions of entities.
        found.clear()
        if pending.is_long:
            release_unused()

        spans = with_combining_marks(pending.texts, joined)
        return TaggedTexts(pending.texts, spans, tokens, pending.reasons)

    def _start_part(self, texts: Sequence[str | None], ranges: Sequence[tuple[int, int, int]]) -> Part:
        """Tokenize paragraphs, each different one once, and hand their batches to the worker threads."""
        different: dict[str, int] = {}
        rows = []
        for i, begin, end in ranges:
            paragraph = (texts[i] or "")[begin:end]
            # A paragraph that occurred before has the place of its first occurrence.
            rows.append((i, begin, different.setdefault(paragraph, len(different))))

        # reshape(): an empty list would have one dimension only.
        row, base, place = np.array(rows, dtype=np.int64).reshape(-1, 3).T

        paragraphs_once = list(different)
        encoded = self.encoder.encode(paragraphs_once)

        characters = sum(end - begin for _, begin, end in ranges)
        return Part(row, base, place, encoded, self._submit(paragraphs_once, encoded, self._decoder, characters))

    def _finish_part(self, part: Part) -> Spans:
        """Wait for the batches, join their words into entities, and place these in the texts."""
        return self._keep(part.placed(self._decoder.spans(part.encoded, part.decided())))

    def _start_lenient(self, texts: Sequence[str | None]) -> Pending:
        """Start texts; if that fails, start them without the texts that fail alone."""
        try:
            return self.start(texts)
        except InterruptedRunError:
            raise
        except Exception:  # noqa: BLE001 - tokenizers' errors share no base class
            good, reasons = self._without_failing(texts)
            return replace(self.start(good), reasons=reasons)

    def _finish_lenient(self, pending: Pending) -> TaggedTexts:
        """Finish texts; if that fails, tag them again without the texts that fail alone."""
        try:
            return self.finish(pending)
        except InterruptedRunError:
            raise
        except Exception:  # noqa: BLE001 - onnxruntime's errors share no base class
            good, reasons = self._without_failing(pending.texts)
            return self.finish(replace(self.start(good), reasons={**pending.reasons, **reasons}))

    def _without_failing(self, texts: Sequence[str | None]) -> tuple[list[str | None], dict[int, str]]:
        """Return the texts with None for each that fails when it is tagged alone, and the reasons by index."""
        good, reasons = list(texts), {}
        # One by one: an error of a batch does not say which of its texts it is about.
        for i, text in enumerate(texts):
            try:
                self.tag([text])
            except InterruptedRunError:
                raise
            except Exception as err:  # noqa: BLE001 - of several libraries
                good[i], reasons[i] = None, first_line(err)

        return good, reasons

    def _decided(self, texts: Sequence[str], encoded: EncodedTexts, decoder: Decoder) -> list[WordDecisions]:
        """Run texts through the network and wait for it."""
        return [future.result() for future in self._submit(texts, encoded, decoder)]

    def _submit(
        self, texts: Sequence[str], encoded: EncodedTexts, decoder: Decoder, characters: int = 0
    ) -> list[Future[WordDecisions]]:
        """
        Cut tokens into segments and these into batches; submit one call of the network per batch.

        :param characters: what the meter counts when all batches are done
        """
        segments = cut_segments(texts, encoded, self._capacity)
        lengths = segments.token_end - segments.token_begin
        batches = equal_length_batches(lengths, self._batch_tokens)

        # A batch mixes segments of several texts, so progress is counted in shares of all characters.
        per_token = characters / max(1, int(lengths.sum()))
        workers = self._workers()
        return [workers.submit(self._decide_counted, encoded, segments, batch, decoder, per_token) for batch in batches]

    def _decide_counted(
        self, encoded: EncodedTexts, segments: Segments, batch: Ints, decoder: Decoder, characters_per_token: float
    ) -> WordDecisions:
        """Decide the words of a batch, and count its tokens."""
        decisions = self.decide(encoded, segments, batch, decoder)
        if (meter := self.meter) is not None:
            tokens = int((segments.token_end[batch] - segments.token_begin[batch]).sum())
            meter.advance(tokens * characters_per_token, tokens)
        return decisions

    @stage("decode")
    def decide(self, encoded: EncodedTexts, segments: Segments, batch: Ints, decoder: Decoder) -> WordDecisions:
        """Run one batch of segments of equal length through the network, and decide their words."""
        begin = segments.token_begin[batch]
        word_begin, word_end = segments.word_begin[batch], segments.word_end[batch]
        length = int(segments.token_end[batch[0]] - begin[0])

        logits = self.network.logits(self.encoder.batch(encoded, begin, length))

        # The decision about a word is that of its first token.
        words = ragged_arange(word_begin, word_end)
        segment = np.repeat(np.arange(len(batch)), word_end - word_begin)
        position = encoded.word_token[words] - begin[segment] + len(self.encoder.prefix)

        return decoder.decide(words, logits[segment, position])

    def _workers(self) -> ThreadPoolExecutor:
        """Return the worker threads. A fork copies no threads, so its process gets new ones."""
        if self._pool is None or self._pool_process != os.getpid():
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="nerd-onnx")
            self._pool_process = os.getpid()
        return self._pool
