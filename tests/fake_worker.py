"""The process of a job with everything but the network: what it does depends on the seed.

Each step adds 1 to the content. A test in which a job must be at work waits for its first step.
"""

import os
import signal

import numpy as np

from muon_ad.distill import worker
from muon_ad.distill.jobs import Done
from muon_ad.distill.jobs import Job
from muon_ad.distill.jobs import Step

# Seeds: after its first step the job ...
UNTIL_CANCELLED = 1         # goes on only once it is cancelled
DEAF = 2                    # never goes on
KILLED = 3                  # is killed
DEFECT = 4                  # raises what nobody expects
NOT_FINITE = 5              # has a result that is not a number
HALF_SAID = 6               # is killed in the middle of a message


class NotFinite(ValueError):
    def __init__(self, image):
        super().__init__('step 2: the loss is not finite')
        self.image = image


def stylize(job: Job, connection, cancelled) -> Done:
    content, _ = worker._picture(job.content, 'content'), worker._picture(job.style, 'style')
    steps = job.settings.steps
    for step in range(1, steps + 1):
        image = content + np.uint8(step)
        shown = image if job.previews and step % job.settings.preview_every == 0 else None
        connection.send(Step(step, steps, 10.0 / step, 0.5, shown))
        _misbehave(job.settings.seed, image, connection, cancelled)
        if cancelled.is_set():
            break
    losses = [10.0 / done for done in range(1, step + 1)]
    return Done(image, step, losses, [0.5] * step, cancelled=step < steps)


def _misbehave(seed: int, image, connection, cancelled) -> None:
    if seed == UNTIL_CANCELLED:
        cancelled.wait()
    elif seed == DEAF:
        signal.pause()
    elif seed == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    elif seed == DEFECT:
        raise ZeroDivisionError('division by nothing')
    elif seed == NOT_FINITE:
        raise NotFinite(image)
    elif seed == HALF_SAID:
        os.write(connection.fileno(), b'\0\0\1\0')
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == '__main__':
    worker._stylize = stylize
    worker.main()
