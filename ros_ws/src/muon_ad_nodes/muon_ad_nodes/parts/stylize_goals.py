"""Goals of the action Stylize: from a request to a job, and from its events to messages."""

from pathlib import Path

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from muon_ad.distill.jobs import Done
from muon_ad.distill.jobs import Failed
from muon_ad.distill.jobs import Step
from muon_ad.distill.settings import Settings
from muon_ad.images import ImageError
from muon_ad.images import to_rgb
from muon_ad.paths import expanded
from muon_ad_msgs.action import Stylize
from muon_ad_nodes.parts.images import to_message

# Fields of the goal that are settings of the same name; 0 or empty takes the default.
_SETTINGS = (
    'steps', 'optimizer', 'lr', 'content_weight', 'conflict', 'loss', 'size', 'seed',
    'preview_every',
)


class GoalError(ValueError):
    """A goal cannot be met: which of its fields, the value, and what was expected."""


def picture_of(goal: Stylize.Goal, name: str) -> np.ndarray | Path:
    """Return the picture `content` or `style`, uint8 [H, W, 3] RGB, or the path of its file.

    Raises GoalError where there is none, both, or an image that cannot be used.
    """
    image, path = getattr(goal, name), getattr(goal, f'{name}_path')
    there = bool(image.height or image.width or len(image.data))
    if there and path:
        raise GoalError(f'{name}_path is {path!r} beside an image {name}; expected one of them')
    if not there and not path:
        raise GoalError(f'{name} is empty, and so is {name}_path; expected an image or a file')
    if path:
        return expanded(path)
    try:
        return to_rgb(image)
    except ImageError as error:
        raise GoalError(f'{name}: {error}') from error


def settings_of(goal: Stylize.Goal, most_steps: int, largest: int) -> Settings:
    """Return the settings in a goal. Raises GoalError, and SettingsError for those of one field.
    """
    given = {name: _plain(getattr(goal, name)) for name in _SETTINGS if getattr(goal, name)}
    if given.get('content_weight', 0) < 0:
        given['content_weight'] = 0.0
    settings = Settings(**given)
    for name, most in (('steps', most_steps), ('size', largest)):
        if (value := getattr(settings, name)) > most:
            raise GoalError(f'{name} is {value}; expected up to {most} (parameter max_{name})')
    return settings


def _plain(value: float | int | str) -> float | int | str:
    """Return 0.05 for the float32 nearest to it, as people meant it."""
    return float(f'{value:.7g}') if isinstance(value, float) else value


def header_of(goal: Stylize.Goal, now: Time) -> Header:
    """Return the header of the results: that of the content, or the time of the goal for a file.
    """
    return Header(stamp=now) if goal.content_path else goal.content.header


def feedback_of(step: Step, header: Header) -> Stylize.Feedback:
    """Return a step as feedback."""
    return Stylize.Feedback(
        step=step.step, steps=step.steps, style_loss=step.style_loss,
        content_loss=step.content_loss, preview=_image(step.preview, header),
    )


def result_of(
    end: Done | Failed, header: Header, message: str, seconds: float
) -> Stylize.Result:
    """Return how a job ended as the result of its goal."""
    result = Stylize.Result(
        image=_image(end.image, header), message=message, seconds=float(seconds)
    )
    if isinstance(end, Done):
        result.steps = end.steps
        result.style_losses, result.content_losses = end.style_losses, end.content_losses
    return result


def _image(rgb: np.ndarray | None, header: Header) -> Image:
    if rgb is None:
        return Image()
    return to_message(rgb, 'rgb8', header.stamp, header.frame_id)
