"""Checks of a job's inputs and outputs before any work, and before the model is loaded."""

from __future__ import annotations

from nerd_onnx.durability.work_folder import other_version, unfinished, unfinished_run
from nerd_onnx.errors import ExistsError, InputError, OptionError, OutputError
from nerd_onnx.storage.input_stream import check_readable, input_name, is_stream
from nerd_onnx.storage.location import Location
from nerd_onnx.storage.output_place import check_output, output_name
from nerd_onnx.tagging.file_pairs import FilePair
from nerd_onnx.tagging.job import TagJob
from nerd_onnx.tagging.plan import output_format_of


def check_job(job: TagJob) -> None:
    """
    Check that all inputs can be opened and all outputs be written.

    :raises NerdError: for the first one that cannot
    """
    for pair in job.pairs:
        try:
            check_readable(pair.input)
            output_format_of(job, pair)
            # Not known from the name alone: a named pipe can be read only once, too.
            if job.resume and is_stream(pair.input):
                raise OptionError(
                    f"--resume needs files: {pair.input} cannot be read a second time",
                    reason="resume-needs-files",
                    option="--resume",
                    file=input_name(pair.input),
                )
        except InputError:
            if not job.may_refuse:
                raise
            continue  # the run records it as unreadable, and writes no output

        _check_output(job, pair)

    if job.rejects_place is not None:
        _check_rejects(job, job.rejects_place)
    if job.retried_place is not None:
        _check_retried(job.retried_place)


def _check_retried(rejects: Location) -> None:
    check_readable(rejects)
    if is_stream(rejects):  # its rows are read, and its fingerprint is taken
        raise OptionError(
            f"--retry-rejects needs a file: {input_name(rejects)} cannot be read a second time",
            reason="retry-needs-file",
            option="--retry-rejects",
            file=input_name(rejects),
        )


def _check_output(job: TagJob, pair: FilePair) -> None:
    if job.many:
        _check_apart(pair, job.output_place)
        if not pair.output.is_remote and not pair.output.parent.is_folder():
            return  # the run creates it

    try:
        check_output(pair.input, pair.output, overwrite=job.overwrite or job.resume)
    except ExistsError as err:
        raise _exists_error(job, pair, err) from None


def _exists_error(job: TagJob, pair: FilePair, err: ExistsError) -> OutputError:
    """Return the error for an existing output: it names --resume if that would help, else only --overwrite."""
    progress = unfinished_run(job.output_place, many=job.many, remote_work_dir=job.work_dir)
    if progress is not None and progress.other_version is not None:
        return other_version(job.output_place, progress.other_version)
    if progress is not None:
        return unfinished(job.output_place, progress)

    if job.many:
        return ExistsError(
            f"{output_name(pair.output)}: already exists; keep it and tag the other files with --resume, or write all "
            "files again with --overwrite",
            reason="output-exists",
            file=output_name(pair.output),
        )
    return err


def _check_apart(pair: FilePair, output: Location) -> None:
    """Check that the output folder contains no input: the next run would read the outputs of this one."""
    if pair.input.is_below(output):
        raise OutputError(
            f"{output_name(output)}: contains the input {output_name(pair.input)}; write to another folder",
            reason="output-contains-input",
            file=output_name(output),
            input=output_name(pair.input),
        )


def _check_rejects(job: TagJob, rejects: Location) -> None:
    if rejects.is_standard_stream:
        raise OptionError(
            "--rejects needs a file: standard output is for the rows", reason="rejects-needs-file", option="--rejects"
        )

    for pair in job.pairs:
        check_output(pair.input, rejects, overwrite=job.overwrite or job.resume)
        if rejects.is_same(pair.output):
            raise OutputError(
                f"{output_name(rejects)}: is also the output; give --rejects another name",
                reason="rejects-is-output",
                file=output_name(rejects),
                option="--rejects",
            )

    if job.retried_place is not None and rejects.is_same(job.retried_place):
        raise InputError(
            f"{output_name(rejects)}: --retry-rejects reads this file; give --rejects another name",
            reason="rejects-is-input",
            file=output_name(rejects),
            option="--rejects",
        )
