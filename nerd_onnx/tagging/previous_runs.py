"""Work of earlier runs: found, checked and counted. Nothing is changed here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nerd_onnx.durability.chunks import chunk_path, chunk_schema, intact_chunks
from nerd_onnx.durability.events import CommitEvent
from nerd_onnx.durability.fingerprints import content_sha256, difference, file_fingerprint, version_of
from nerd_onnx.durability.journal import Finished, Progress
from nerd_onnx.durability.recorded_files import FileState, state_of
from nerd_onnx.durability.work_folder import may_resume, recorded_progress, work_folder_of
from nerd_onnx.errors import InputError, OutputError
from nerd_onnx.formats.registry import format_named
from nerd_onnx.storage.file_info import FileInfo
from nerd_onnx.storage.file_record import FileRecord
from nerd_onnx.storage.input_stream import input_name
from nerd_onnx.storage.location import Location, Name
from nerd_onnx.storage.output_place import output_errors, output_name
from nerd_onnx.tagger import Tagger
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.final_check import output_lost
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.outputs_without_journal import check_finished, is_file
from nerd_onnx.tagging.plan import Plan
from nerd_onnx.tagging.rejects_file import is_part, part_path
from nerd_onnx.tagging.same_rows import check_new_columns, check_same_rows


@dataclass(frozen=True)
class Standing:
    """
    What an earlier run did for one file, and whether it can be used.

    :param finished: the file was finished by the interrupted run, and its output is intact; None for other files
    :param is_recorded: the journal records that the output has its name
    :param earlier: the output was finished before the run that the journal records; None for other files
    :param is_remade: the interrupted run finished the file, but its output or its rejected rows were lost
    :param overwrites: an output that exists now may be replaced
    """

    finished: Finished | None = None
    is_recorded: bool = False
    earlier: FileInfo | None = None
    is_remade: bool = False
    overwrites: bool = False

    @property
    def is_done(self) -> bool:
        """Whether the file need not be tagged."""
        return self.finished is not None or self.earlier is not None


def standing_of(plan: Plan, pair: FilePair, progress: Progress, folder: str, *, overwrites: bool) -> Standing:
    """
    Check the output of a file, and return what of an earlier run can be used for the file.

    :param progress: what the journal records
    :param folder: the work folder
    :param overwrites: the run may replace outputs
    :raises InputError: if the input changed since the file was finished
    :raises OutputError: if the output is not what this run would write, or was written by another program
    """
    recorded = progress.finished.get(pair.name)
    # The run may have ended between renaming the output into place and recording that.
    pending = Finished(progress.commit) if progress.commit and progress.begun(pair.name) else None
    replaced = progress.replaced.get(pair.name)

    if (own := recorded or pending) is not None:
        state = _output_state(plan, pair, own)
        has_rejects = _has_rejects(plan, pair, own.commit, folder)

        if state == "intact" and has_rejects:
            _check_finished_input(pair, own.commit, verify=plan.job.verify)
            _check_on_error(pair, own.commit.on_error, plan.job.on_error)
            return Standing(own, is_recorded=recorded is not None)

        # What is there is this run's own output, cut or without its rejected rows, so it may be replaced.
        if state != "changed":
            return Standing(is_remade=recorded is not None, overwrites=overwrites or state != "missing")
        # Without a record that the output got its name, the file is another program's, as _earlier() says.
        if recorded is not None and not overwrites:
            raise output_lost(pair.output, state)

    elif replaced is not None:
        state = _output_state(plan, pair, replaced)
        if state == "changed" and not overwrites:
            raise output_lost(pair.output, state)
        return Standing(is_remade=True, overwrites=True)

    # Without --resume, an output that is there is refused when it is opened, if its input can be read.
    is_new = overwrites or not plan.job.resume
    return Standing(earlier=None if is_new else _earlier(plan, pair, progress, folder), overwrites=overwrites)


def _output_state(plan: Plan, pair: FilePair, own: Finished) -> FileState:
    if own.commit.output is None:  # a pipe or device, which cannot be looked at
        return "intact"
    return state_of(pair.output, own.commit.output, own.version, verify=plan.job.verify)


def _has_rejects(plan: Plan, pair: FilePair, commit: CommitEvent, folder: str) -> bool:
    """Whether the rejected rows of a finished file are there, if this run writes a rejects file."""
    if plan.job.rejects is None:
        return True
    if commit.rejects is None:
        return commit.totals.rejected == 0  # else the run was started without --rejects
    return is_part(part_path(folder, pair.name), commit.rejects)


def _check_finished_input(pair: FilePair, commit: CommitEvent, *, verify: bool) -> None:
    """
    Check that the input of a finished file is what was tagged.

    :raises InputError: if it changed
    """
    check_unchanged(pair, commit.input, while_what="after it was tagged")

    # Who changes the middle of a file and sets its time back changes its version too. A copy has another version as
    # well, so only the content can tell.
    has_doubt = verify or version_of(pair.input) != commit.input_version
    if commit.input_sha256 is not None and has_doubt and content_sha256(pair.input) != commit.input_sha256:
        raise _input_changed(pair, "content", while_what="after it was tagged")


def _check_on_error(pair: FilePair, before: str, now: str) -> None:
    # A file that was finished under "fail" has no rejected row, so "skip" would have written the same bytes.
    if before != now and (before, now) != ("fail", "skip"):
        raise OutputError(
            f"{output_name(pair.output)}: cannot resume: --on-error (was {before}, is {now}) changed since the file "
            "was finished; change it back, or start again with --overwrite",
            reason="run-changed",
            file=output_name(pair.output),
            option="--on-error",
            expected=before,
            found=now,
        )


def _earlier(plan: Plan, pair: FilePair, progress: Progress, folder: str) -> FileInfo | None:
    """
    Return facts about an output that was finished by an earlier run, of which there is no journal; None without one.

    :raises OutputError: if it is not what this run would write
    """
    with output_errors(pair.output):
        found = pair.output.info_if_any()
        if found is None and not (os.path.islink(pair.output)):
            return None

    # Damaged lines may have recorded it; and so did the journal if it has lost the last lines, because the interrupted
    # run found rows of this file that it rejected.
    if progress.damaged_lines or (not progress.begun(pair.name) and os.path.exists(part_path(folder, pair.name))):
        raise OutputError(
            f"{output_name(pair.output)}: already exists, and the journal of the interrupted run has lost what it "
            "recorded of it; move it away and write it again with --resume, or replace it with --resume --overwrite",
            reason="output-unknown",
            file=output_name(pair.output),
        )

    if progress.begun(pair.name):
        raise OutputError(
            f"{output_name(pair.output)}: another program created it during the run; it was not overwritten",
            reason="exists-elsewhere",
            file=output_name(pair.output),
        )

    check_finished(pair, format_named(plan.output_format(pair)), plan.metadata, verify=plan.job.verify)
    check_new_columns(plan, pair)
    if plan.job.verify:
        check_same_rows(plan, pair)
    return found


def safe_rows(pairs: Sequence[FilePair], progress: Progress, folder: str) -> int:
    """
    Return the number of rows that need not be tagged again, after a short look at the files that hold them.

    :param progress: what the journal records
    :param folder: the work folder
    """
    finished = {name: done.commit for name, done in progress.finished.items()}
    rows = 0
    for pair in pairs:
        if (commit := finished.get(pair.name)) is not None and _seems_intact(pair.output, commit.output):
            rows += commit.totals.rows

    for number, chunk in enumerate(progress.chunks):
        if _size_of(chunk_path(folder, number)) != chunk.size:
            break
        rows += chunk.rows
    return rows


def _seems_intact(path: Location, record: FileRecord | None) -> bool:
    """Whether a file has the recorded size. Remote storage is not asked: an error must not wait for it."""
    return record is None or path.is_remote or _size_of(path) == record.size


def _size_of(path: Name) -> int:
    with suppress(OSError):
        return os.stat(path).st_size
    return -1


def check_unchanged(pair: FilePair, before: Mapping[str, Any], *, while_what: str) -> None:
    """
    Check that an input still has its fingerprint.

    :param before: the fingerprint
    :param while_what: when the change must have happened, for the message
    :raises InputError: if a fact differs; the message names it
    """
    if changed := difference(before, file_fingerprint(pair.input)):
        raise _input_changed(pair, changed, while_what=while_what)


def _input_changed(pair: FilePair, changed: str, *, while_what: str) -> InputError:
    name = input_name(pair.input)
    return InputError(
        f"{name}: its {changed} changed {while_what}; restore the file, or start again with --overwrite",
        reason="input-changed",
        file=name,
        changed=changed,
    )


def done_before(tagger: Tagger, jobs: Sequence[TagJob]) -> dict[str, int]:
    """
    Count the work of earlier runs that these jobs would reuse.

    :return: ``safe_rows``, which need not be tagged again; ``finished_files``; and the work that would be done again:
        ``remade_files``, ``damaged_lines`` and ``damaged_chunks``, see :class:`TagReport`
    :raises NerdError: what the runs would raise because of changed inputs, outputs, model or options
    """
    counts = dict.fromkeys(("safe_rows", "finished_files", "remade_files", "damaged_lines", "damaged_chunks"), 0)
    for job in jobs:
        # A stream keeps nothing of an earlier run.
        if job.many or is_file(job.pairs[0].output):
            _count(Plan.of(tagger, job), counts)
    return counts


def _count(plan: Plan, counts: dict[str, int]) -> None:
    """Add what a run would reuse."""
    job = plan.job
    folder = work_folder_of(job.output_place, many=job.many, remote_work_dir=job.work_dir)

    progress = _progress(plan)
    counts["damaged_lines"] += progress.damaged_lines

    overwrites = job.overwrite or (progress.header is not None and progress.header.overwrite)

    for pair in plan.pairs:
        standing = standing_of(plan, pair, progress, folder, overwrites=overwrites)
        counts["finished_files"] += standing.is_done
        counts["remade_files"] += standing.is_remade

        if standing.finished is not None:
            counts["safe_rows"] += standing.finished.commit.totals.rows
        elif not standing.is_done and (begun := progress.begun(pair.name)):
            check_unchanged(pair, begun.input, while_what="since the run started")
            intact = intact_chunks(folder, progress.chunks, chunk_schema(plan.layout.results))

            counts["safe_rows"] += sum(chunk.rows for chunk in progress.chunks[:intact])
            counts["damaged_chunks"] += len(progress.chunks) - intact


def _progress(plan: Plan) -> Progress:
    """Return the progress of the interrupted run that this one would resume; empty without one."""
    job = plan.job
    found = recorded_progress(job.output_place, many=job.many, remote_work_dir=job.work_dir)
    if not found.is_worth_keeping:
        # As WorkFolder.begin() has it: the right to overwrite and the knowledge of outputs outlast the journal.
        kept = Progress(header=found.header, replaced=found.replaced, damaged_lines=found.damaged_lines)
        return kept if job.resume else Progress()

    resumes = may_resume(job.output_place, found, plan.facts, resume=job.resume, overwrite=job.overwrite)
    return found if resumes else Progress()
