"""Checkpoints of a training: written whole or not at all, and refused where they do not fit."""

import os
import pickle
from collections.abc import Collection
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

CHECKPOINT = 'checkpoint.pt'


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values; a process killed on the way leaves the previous file."""
    partial = path.with_suffix('.partial')
    with partial.open('wb') as stream:
        torch.save(dict(state), stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def load_checkpoint(
    path: Path, made_with: Mapping[str, Mapping[str, Any]], may_differ: Collection[str] = (),
) -> dict[str, Any]:
    """Read the state that a run left, onto the CPU; nothing but tensors and plain values.

    `made_with` maps entries of the state, such as `recipe`, to what they hold in the run that
    goes on; fields in `may_differ` are not compared. Raises FileNotFoundError, or ValueError
    where the file is not a checkpoint or a field differs.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no checkpoint to resume; start without --resume')
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f'{path}: cannot be read as a checkpoint ({error})') from error
    for entry, wanted in made_with.items():
        have = state.get(entry, {}) if isinstance(state, dict) else {}
        fields = sorted({*wanted, *have} - set(may_differ))
        odd = [f'{name} = {have.get(name)!r}, not {wanted.get(name)!r}'
               for name in fields if have.get(name) != wanted.get(name)]
        if odd:
            raise ValueError(f'{path}: made with {entry} of {"; ".join(odd)}; give the same '
                             'arguments, or another --out')
    return state
