"""Work of earlier runs: found, checked and counted. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nerd_onnx.durability.fingerprints import difference, file_fingerprint
from nerd_onnx.durability.journal import Event, Progress
from nerd_onnx.durability.work_folder import may_resume, unfinished_run
from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.output_place import output_errors, output_name
from nerd_onnx.storage.remote import exists
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.finished_outputs import check_finished, is_file, was_committed
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.plan import Plan


def finished_event(pair: FilePair, progress: Progress, on_error: str) -> Event | None:
    """
    Return the journal's event of a finished file; None for other files.

    A file is also finished if the run ended between renaming it into place and recording that.

    :raises InputError: if the input changed since then
    :raises OutputError: if the file was finished with another ``--on-error``
    """
    done = progress.finished.get(pair.name)
    if done is None and progress.begun(pair.name) and was_committed(pair.output, progress.commit):
        done = progress.commit
    if done is None:
        return None

    check_unchanged(pair, done["input"], while_what="after it was tagged")
    # A file that was finished under "fail" has no rejected row, so "skip" would have written the same bytes.
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
    Whether an output that the journal does not name was finished by an earlier run.

    :param metadata: the metadata that this run would write, see :attr:`Plan.metadata`
    :param overwrites: the run may replace outputs, so it tags the file again
    :raises OutputError: if it is not what this run would write
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
    Check that an input still has its fingerprint.

    :param before: the fingerprint
    :param while_what: when the change must have happened, for the message
    :raises InputError: if a fact differs; the message names it
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
    Count the work of earlier runs that these jobs would reuse.

    :return: ``safe_rows``, which need not be tagged again, and ``finished_files``
    :raises NerdError: what the runs would raise because of changed inputs, model or options
    """
    rows = files = 0

    for job in jobs:
        if not (job.many or is_file(job.pairs[0].output)):
            continue  # a stream keeps nothing of an earlier run

        plan = Plan.of(tagger, job)
        progress = _progress(plan)
        rows += progress.safe_rows
        overwrites = bool(progress.header.get("overwrite", job.overwrite))

        for pair in plan.pairs:
            done = finished_event(pair, progress, job.on_error)
            if done is not None or is_finished(pair, progress, plan.metadata, overwrites=overwrites):
                files += 1
            elif begun := progress.begun(pair.name):
                check_unchanged(pair, begun["input"], while_what="since the run started")

    return {"safe_rows": rows, "finished_files": files}


def _progress(plan: Plan) -> Progress:
    """Return the progress of the interrupted run that this one would resume; empty without one."""
    job = plan.job
    found = unfinished_run(job.output, many=job.many, remote_work_dir=job.work_dir)
    if found is None:
        return Progress()

    resumes = may_resume(job.output, found, plan.facts, resume=job.resume, overwrite=job.overwrite)
    return found if resumes else Progress()
