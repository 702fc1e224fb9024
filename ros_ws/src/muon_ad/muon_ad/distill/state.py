"""A stylisation on disk, to be continued exactly: complete or not there at all."""

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import torch

from muon_ad.distill.backbone import Backbone
from muon_ad.distill.settings import Settings
from muon_ad.paths import is_file

FORMAT = 1


class StateError(ValueError):
    """A saved state cannot be continued from: the file, and why."""


def identity(content: np.ndarray, style: np.ndarray, backbone: Backbone) -> dict[str, str]:
    """Return what a state belongs to besides its settings.

    Of the backbone its kind and its layers are known, not its weights, which are too large to
    read for this.
    """
    kind = f'{type(backbone).__name__} {backbone.latent_channels} {" ".join(backbone.layers)}'
    return {'content': _digest(content), 'style': _digest(style),
            'backbone': hashlib.sha256(kind.encode()).hexdigest()}


def _digest(pixels: np.ndarray) -> str:
    shape = repr(pixels.shape).encode()
    return hashlib.sha256(shape + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def save_state(path: Path, settings: Settings, about: dict[str, str], run: dict) -> None:
    """Write the state. Raises OSError."""
    partial = path.with_name(f'{path.name}.partial')
    with partial.open('wb') as stream:
        torch.save({'format': FORMAT, 'settings': settings.to_dict(), 'about': about, 'run': run},
                   stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def load_state(path: Path, settings: Settings, about: dict[str, str]) -> dict:
    """Return the `run` that was saved. Raises StateError for no such file, a damaged one, one of
    other pictures or another backbone, and for settings that would change the result.
    """
    if not is_file(path):
        raise StateError(f'{path}: no such file; to begin anew, do not resume')
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
        known = state['format'] == FORMAT
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError,
            pickle.UnpicklingError) as error:
        raise StateError(f'{path}: holds no state of a stylisation: {error}') from error
    if not known:
        raise StateError(f'{path}: has the format {state["format"]}; expected {FORMAT}')
    other = [name for name, value in about.items() if state['about'].get(name) != value]
    if other:
        raise StateError(f'{path}: belongs to another {" and another ".join(other)}; resume with '
                         'what it was begun with')
    then = Settings(**state['settings'])
    changed = [f'{name} {getattr(then, name)!r} (now {getattr(settings, name)!r})'
               for name in then.differences(settings)]
    if changed:
        raise StateError(f'{path}: was begun with {", ".join(changed)}; resume with the same '
                         'settings')
    return state['run']
