"""Stylises one picture in a process of its own: `python -m muon_ad.distill.worker <descriptor>`.

The descriptor is a socket on which jobs.py's messages pass. The process ends with its parent,
however that ends.
"""

import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from muon_ad.distill.devices import choose_device
from muon_ad.distill.jobs import Done
from muon_ad.distill.jobs import Failed
from muon_ad.distill.jobs import Job
from muon_ad.distill.jobs import Step
from muon_ad.picture_files import PictureFileError
from muon_ad.picture_files import read_picture

if TYPE_CHECKING:       # it loads torch
    from muon_ad.distill.result import Progress


class JobError(ValueError):
    """A job cannot be done: which of its fields, and what was expected."""


def main() -> None:
    """Do the one job that comes in; the last message out is Done or Failed."""
    # Ctrl-C is the parent's to handle, and what it blocked for itself is not blocked here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
    connection = Connection(int(sys.argv[1]))
    try:
        job: Job = connection.recv()
    except EOFError:
        return
    cancelled = threading.Event()
    threading.Thread(target=_listen, args=(connection, cancelled), daemon=True).start()
    answer = _answer(job, connection, cancelled)
    # Where nobody listens any more, there is nobody to tell.
    with suppress(BrokenPipeError):
        connection.send(answer)
    # All has been said, and what torch and CUDA would clear away goes with the process.
    sys.stderr.flush()
    os._exit(0)


def _listen(connection: Connection, cancelled: threading.Event) -> None:
    """Whatever comes behind the job cancels it; the end of the parent ends this process."""
    try:
        connection.recv()
        cancelled.set()
        connection.recv()
    except (EOFError, OSError):
        os._exit(1)


def _answer(job: Job, connection: Connection, cancelled: threading.Event) -> Done | Failed:
    try:
        return _stylize(job, connection, cancelled)
    except ValueError as error:
        # The library's own errors are of this kind and say what was expected.
        return Failed(str(error), getattr(error, 'image', None))
    except BrokenPipeError:
        return Failed('nobody listens')
    except Exception as error:  # noqa: BLE001 - told to the parent, which goes on
        traceback.print_exc()
        return Failed(f'{type(error).__name__}: {error}')


def _stylize(job: Job, connection: Connection, cancelled: threading.Event) -> Done:
    content, style = _picture(job.content, 'content'), _picture(job.style, 'style')

    import torch

    from muon_ad.distill.backbone import load_backbone
    from muon_ad.distill.stylize import stylize

    torch.set_num_threads(job.threads)
    device = choose_device(job.device)
    backbone = load_backbone(
        job.backbone, device, getattr(torch, job.settings.dtype), attention=job.attention)

    def tell(progress: 'Progress') -> None:
        shown = progress.preview() if job.previews and progress.preview_due else None
        connection.send(Step(
            progress.step, progress.steps, progress.style_loss, progress.content_loss, shown,
        ))

    try:
        result = stylize(
            content, style, backbone, job.settings, progress=tell, cancel=cancelled.is_set,
        )
    except torch.OutOfMemoryError as error:
        raise JobError(
            f'size is {job.settings.size}; there is not the memory for it on {device}, take a '
            f'smaller one ({str(error).splitlines()[0]})'
        ) from error
    return Done(
        result.image, result.steps, [record.style for record in result.history],
        [record.content for record in result.history], result.cancelled,
    )


def _picture(source: np.ndarray | Path, name: str) -> np.ndarray:
    """Raises JobError naming the field where a file is no picture."""
    if isinstance(source, np.ndarray):
        return source
    try:
        return read_picture(source)
    except PictureFileError as error:
        raise JobError(f'{name}_path is {str(source)!r}: {error}') from error


if __name__ == '__main__':
    main()
