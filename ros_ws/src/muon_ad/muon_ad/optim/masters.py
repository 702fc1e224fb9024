"""FP32 master weights: parameters in half precision are a rounding of what is optimised.

The step of a bfloat16 parameter is often below its last digit (2^-8 of its size) and would be
lost. The optimiser's state therefore holds the parameter, as `master`, and everything else in
float32, and writes the rounded value into the parameter after each step.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def master_of(parameter: Tensor, state: dict) -> Tensor:
    """Return what to update in float32 or better: the parameter itself, or its master weights."""
    dtype = full_dtype(parameter)
    if dtype == parameter.dtype:
        return parameter
    if 'master' not in state:
        state['master'] = parameter.detach().to(dtype, copy=True)
    return state['master']


def full_dtype(parameter: Tensor) -> torch.dtype:
    """Return the dtype of a parameter's state: its own, but at least float32."""
    return torch.promote_types(parameter.dtype, torch.float32)


def buffer_like(parameter: Tensor) -> Tensor:
    """Return zeros of the parameter's shape and memory format, for a state."""
    return torch.zeros_like(parameter, dtype=full_dtype(parameter))


def full_gradients(parameters: list[Tensor]) -> list[Tensor]:
    """Return the gradients in the dtype of the state."""
    return [parameter.grad.to(full_dtype(parameter)) for parameter in parameters]


def round_to_parameters(masters: list[Tensor], parameters: list[Tensor]) -> None:
    """Write updated masters into the parameters that they are masters of."""
    rounded = [(parameter, master) for parameter, master in zip(parameters, masters, strict=True)
               if master is not parameter]
    if rounded:
        torch._foreach_copy_(*map(list, zip(*rounded, strict=True)))


def restore_precision(optimizer: torch.optim.Optimizer, state_dict: dict) -> None:
    """Call after `load_state_dict`, which rounds all state to the dtype of its parameter."""
    keys = [key for group in state_dict['param_groups'] for key in group['params']]
    parameters = [each for group in optimizer.param_groups for each in group['params']]
    for key, parameter in zip(keys, parameters, strict=True):
        dtype = full_dtype(parameter)
        if dtype == parameter.dtype or parameter not in optimizer.state:
            continue
        for name, value in state_dict['state'][key].items():
            if torch.is_tensor(value) and name != 'step':
                full = value.to(parameter.device, dtype, copy=True)
                optimizer.state[parameter][name] = full


def buffers_of(state: Mapping[Tensor, dict], name: str, parameters: list[Tensor]) -> list[Tensor]:
    """Return the buffers called `name` from an optimiser's state; new ones are zero."""
    for parameter in parameters:
        if name not in state[parameter]:
            state[parameter][name] = buffer_like(parameter)
    return [state[parameter][name] for parameter in parameters]
