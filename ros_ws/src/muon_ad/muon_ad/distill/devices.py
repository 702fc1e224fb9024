"""Where to compute, by name."""

DEVICES = ('auto', 'cpu', 'cuda')


class DeviceError(ValueError):
    """A device is not there."""


def choose_device(name: str) -> str:
    """Return the torch device of a name among DEVICES; `auto` is cuda where there is a GPU.

    Raises DeviceError.
    """
    # Here, so that a node can name the devices without loading torch.
    import torch

    available = torch.cuda.is_available()
    if name not in DEVICES or (name == 'cuda' and not available):
        found = 'a GPU' if available else 'no GPU'
        raise DeviceError(f'device is {name!r}; expected one of {DEVICES}, and there is {found}')
    return ('cuda' if available else 'cpu') if name == 'auto' else name
