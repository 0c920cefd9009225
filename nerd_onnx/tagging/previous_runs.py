"""What is there from runs before: told apart, checked and counted. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nerd_onnx.durability.fingerprints import difference, file_fingerprint
from nerd_onnx.durability.journal import Event, Progress
from nerd_onnx.durability.work_folder import may_go_on, unfinished_run
from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.output_place import output_errors, output_name
from nerd_onnx.storage.remote import exists
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.finished_outputs import check_finished, is_file, was_committed
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.job_fingerprint import facts_of
from nerd_onnx.tagging.pipeline import output_metadata
from nerd_onnx.tagging.rejects_file import rejected_rows


def entered(pair: FilePair, progress: Progress, on_error: str) -> Event | None:
    """
    Give what a journal says of a finished file, also of one that got its name as the run died; None for others.

    :raises InputError: when the input changed since
    :raises OutputError: when bad rows were looked at in another way
    """
    done = progress.finished.get(pair.name)
    if done is None and progress.begun(pair.name) and was_committed(pair.output, progress.commit):
        done = progress.commit
    if done is None:
        return None
    check_unchanged(pair, done["input"], while_what="after it was tagged")
    if done["on_error"] != on_error and (done["on_error"], on_error) != ("fail", "skip"):
        raise OutputError(
            f"{output_name(pair.output)}: cannot resume: --on-error (was {done['on_error']}, is {on_error}) changed "
            "since the file was finished; change it back, or start again with --overwrite",
            reason="run-changed",
            file=output_name(pair.output),
            option="--on-error",
            expected=str(done["on_error"]),
            found=on_error,
        )
    return done


def is_finished(pair: FilePair, progress: Progress, metadata: Mapping[str, str], *, overwrites: bool) -> bool:
    """
    Tell whether an output, of which the journal says nothing, was finished by an earlier run.

    :param metadata: what this run would say of it, see :func:`output_metadata`
    :param overwrites: the run may replace outputs
    :raises OutputError: when it is not what this run would make
    """
    with output_errors(pair.output):
        if overwrites or not exists(pair.output):
            return False
    if progress.begun(pair.name):
        raise OutputError(
            f"{output_name(pair.output)}: another program created it during the run; it was not overwritten",
            reason="exists-elsewhere",
            file=output_name(pair.output),
        )
    check_finished(pair, metadata)
    return True


def check_unchanged(pair: FilePair, before: Mapping[str, Any], *, while_what: str) -> None:
    """
    Check that an input is what it was.

    :param before: its fingerprint
    :raises InputError: naming what differs
    """
    if changed := difference(before, file_fingerprint(pair.input)):
        raise InputError(
            f"{input_name(pair.input)}: its {changed} changed {while_what}; restore the file, or start again with "
            "--overwrite",
            reason="input-changed",
            file=input_name(pair.input),
            changed=changed,
        )


def done_before(tagger: Tagger, jobs: Sequence[TagJob]) -> dict[str, int]:
    """
    Count what runs would go on with: rows that need not be tagged again, and files that are finished.

    :raises NerdError: what the runs would raise because of changed inputs, model or options
    """
    rows = files = 0
    for job in jobs:
        if not (job.many or is_file(job.pairs[0].output)):
            continue  # a stream is gone after its run
        progress = _progress(tagger, job)
        rows += progress.safe_rows
        overwrites = bool(progress.header.get("overwrite", job.overwrite))
        metadata = output_metadata(tagger, job)
        for pair in _wanted(job):
            done = entered(pair, progress, job.on_error)
            if done is not None or is_finished(pair, progress, metadata, overwrites=overwrites):
                files += 1
            elif begun := progress.begun(pair.name):
                check_unchanged(pair, begun["input"], while_what="since the run started")
    return {"safe_rows": rows, "finished_files": files}


def _progress(tagger: Tagger, job: TagJob) -> Progress:
    """Read what an unfinished run did that this one would go on with."""
    found = unfinished_run(job.output, many=job.many, stores_folder=job.work_dir)
    goes_on = found is not None and may_go_on(
        job.output, found, facts_of(tagger, job), resume=job.resume, overwrite=job.overwrite
    )
    return found if found is not None and goes_on else Progress()


def _wanted(job: TagJob) -> Sequence[FilePair]:
    if job.retry_rejects is None:
        return job.pairs
    names = rejected_rows(job.retry_rejects)
    return [pair for pair in job.pairs if pair.name in names]
