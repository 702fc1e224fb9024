"""Files of weights: safetensors, with what is needed to build the network in their metadata.

Nothing in them is ever executed, unlike in a pickled checkpoint.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn


class WeightsError(ValueError):
    """A file of weights is missing, broken or of another network."""


@dataclass(frozen=True)
class Weights:
    """What a file holds: the kind of network, its settings as plain values, and its tensors."""

    kind: str
    config: dict[str, Any]
    state: dict[str, torch.Tensor]


def save_network(path: Path, model: nn.Module, kind: str, config: Mapping[str, Any]) -> None:
    """Write the tensors of a network, and its kind and settings, to a .safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous()
             for name, tensor in model.state_dict().items()}
    save_file(state, path, metadata={'network': kind, 'config': json.dumps(dict(config))})
    path.chmod(0o644)   # safetensors leaves it to its owner alone; packages are for everyone


def load_network(path: Path, kind: str = '') -> Weights:
    """Read what `save_network` wrote; `kind`, where given, is the one expected.

    Raises WeightsError naming the file and what is wrong with it.
    """
    if not path.is_file():
        raise WeightsError(f'{path}: no such file; expected weights as .safetensors')
    try:
        with safe_open(path, 'pt') as file:
            found = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(f'{path}: not a whole .safetensors file ({error})') from error
    if not {'network', 'config'} <= found.keys():
        raise WeightsError(f'{path}: says nothing of its network; expected a file that muon-ad '
                           'wrote')
    if kind and found['network'] != kind:
        raise WeightsError(f'{path}: weights of a {found["network"]!r}; expected of a {kind!r}')
    return Weights(found['network'], json.loads(found['config']), state)
