"""How long a run will take: estimated by tagging its first texts."""

from __future__ import annotations

import time

from nerd_onnx.errors import NerdError
from nerd_onnx.tagging.pipeline import open_pair_reader, text_objects_of
from nerd_onnx.tagging.plan import Plan
from nerd_onnx.tagging.run_meter import RunMeter

_TRIAL_S = 1.0
_TRIAL_CHARACTERS = 20_000  # tagged between two looks at the clock
_LONGEST_TRIAL = 10 * _TRIAL_CHARACTERS  # of one text


def estimated_seconds(plan: Plan) -> float | None:
    """
    Return the time that a run needs in this process, without what an earlier run did; None if it is not known.

    The first texts of the first file are tagged for about a second. Their share of the run gives the time: it is right
    if the other texts are similar.
    """
    meter = RunMeter()
    meter.begin(plan.pairs, plan.job.limit)
    if not meter.knows_sizes:
        return None

    for pair in plan.pairs:
        try:
            with open_pair_reader(plan, pair, texts_only=True) as source:
                rows = next(source.batches(), None)
                if rows is None:
                    continue

                share = meter.read(pair.name, source)
                done, seconds = _tagged_in_a_second(plan, [text for text in text_objects_of(rows) if text])
        except NerdError:
            continue  # the run reports it
        return round(seconds / (share * done), 1) if share and done else None

    return 0.0


def _tagged_in_a_second(plan: Plan, texts: list[str]) -> tuple[float, float]:
    """Tag the first texts for about a second, and return their share of the characters and the seconds."""
    total, done, at = sum(map(len, texts)), 0, 0
    plan.tagger.tag_arrays(["Berlin"])  # the first call prepares the network

    begin = time.perf_counter()
    while at < len(texts) and time.perf_counter() - begin < _TRIAL_S:
        part: list[str] = []
        size = 0
        while at < len(texts) and size < _TRIAL_CHARACTERS:
            # Only the begin of a long text, because within one nothing looks at the clock.
            part.append(texts[at][:_LONGEST_TRIAL])
            size += len(part[-1])
            at += 1

        plan.tagger.tag_arrays(part)
        done += size

    return done / max(1, total), time.perf_counter() - begin
