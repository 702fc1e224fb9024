"""The parts of a diffusers folder on this disk, with errors that say what a folder must hold."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers import AutoencoderTiny
from diffusers import SD3Transformer2DModel
from diffusers import UNet2DConditionModel
from torch import nn

from muon_ad.distill.backbone import BackboneError
from muon_ad.networks.light_unet import LightUNet
from muon_ad.paths import is_file
from muon_ad.paths import is_folder

LAYOUT = (
    'a backbone is a folder as diffusers saves it: model_index.json, vae/ and unet/ or '
    'transformer/, each with config.json and its weights as *.safetensors, and scheduler/ with '
    'scheduler_config.json'
)
AUTOENCODERS = (AutoencoderKL, AutoencoderTiny)
DENOISERS = {
    'unet': (UNet2DConditionModel, LightUNet), 'transformer': (SD3Transformer2DModel,),
}


def check_layout(folder: Path) -> str:
    """Return the denoiser's part, 'unet' or 'transformer'. Raises BackboneError."""
    if not is_folder(folder):
        raise BackboneError(f'{folder}: no such folder; {LAYOUT}')
    if not is_file(folder / 'model_index.json'):
        raise BackboneError(f'{folder}: there is no model_index.json; {LAYOUT}')
    denoiser = next((part for part in DENOISERS if is_folder(folder / part)), None)
    if denoiser is None:
        raise BackboneError(f'{folder}: there is no unet/ and no transformer/; {LAYOUT}')
    for part, file in ((denoiser, 'config.json'), ('vae', 'config.json'),
                       ('scheduler', 'scheduler_config.json')):
        if not is_file(folder / part / file):
            raise BackboneError(f'{folder}: there is no {part}/{file}; {LAYOUT}')
    return denoiser


def read_config(folder: Path, part: str, file: str = 'config.json') -> dict:
    """Return the configuration of a part. Raises BackboneError where it is no JSON object."""
    path = folder / part / file
    try:
        config = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise BackboneError(f'{path}: cannot be read as JSON: {error}') from error
    if not isinstance(config, dict):
        raise BackboneError(f'{path}: holds {type(config).__name__}; expected an object')
    return config


def load_autoencoder(folder: Path, device: torch.device) -> nn.Module:
    """Return the frozen autoencoder in float32. Raises BackboneError."""
    return _load(folder, 'vae', AUTOENCODERS, device, torch.float32)


def load_denoiser(folder: Path, part: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return the frozen U-Net or MMDiT. Raises BackboneError."""
    return _load(folder, part, DENOISERS[part], device, dtype)


def _load(
    folder: Path, part: str, classes: tuple[type, ...], device: torch.device, dtype: torch.dtype,
) -> nn.Module:
    known = {kind.__name__: kind for kind in classes}
    found = read_config(folder, part).get('_class_name')
    if found not in known:
        raise BackboneError(
            f'{folder}: {part}/config.json has _class_name {found!r}; expected one of '
            f'{sorted(known)}'
        )
    quantised = folder / part / 'quantised.safetensors'
    if is_file(quantised):
        return _load_quantised(known[found], quantised, dtype).to(device)
    try:
        model = known[found].from_pretrained(folder / part, local_files_only=True,
                                             torch_dtype=dtype, low_cpu_mem_usage=False)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        # What a library says of weights that are missing, damaged or of another shape.
        raise BackboneError(f'{folder}: {part}/ cannot be loaded: {error}; {LAYOUT}') from error
    return model.to(device).eval().requires_grad_(False)


def _load_quantised(kind: type, path: Path, dtype: torch.dtype) -> nn.Module:
    """Return the network with the weights that `muon-ad quantize unet` wrote."""
    from muon_ad.distill.quantise.weights import load_quantised
    from muon_ad.distill.quantise.weights import QuantisedFileError

    config = kind.load_config(path.parent, local_files_only=True)
    try:
        with torch.device('meta'):
            network = kind.from_config(config)
        return load_quantised(network, path, dtype)
    except QuantisedFileError as error:
        raise BackboneError(str(error)) from error
