"""Weights in the files of the distilled VGG-19 that hand three channels of the picture through."""

from pathlib import Path

import torch

from muon_ad.networks.vgg import LEVELS

STEPS = ('11', '12', '21', '22', '31', '32', '33', '34', '41', '42', '43', '44', '51')


def write_codecs(folder: Path) -> Path:
    """Write encoder and decoder of all levels; only the pooling of the encoder loses anything."""
    for level in LEVELS:
        steps = STEPS[:STEPS.index(f'{level}1') + 1]
        for kind in 'ed':
            weights = {}
            for step in (('0',) if kind == 'e' else ()) + steps:
                size = 1 if step == '0' else 3
                weights[f'conv{step}.weight'] = torch.zeros(3, 3, size, size)
                weights[f'conv{step}.weight'][range(3), range(3), size // 2, size // 2] = 1
                weights[f'conv{step}.bias'] = torch.zeros(3)
            torch.save({'model': weights}, folder / f'cd_vgg19_small16x_{kind}{level}.pth')
    return folder
