"""Content as CLIP sees it: image features of a local CLIP folder, differentiable to the picture.
"""

from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from muon_ad.distill.backbone import BackboneError
from muon_ad.distill.folders import read_config
from muon_ad.paths import is_file

_LAYOUT = ('a CLIP folder is as transformers saves it: config.json, preprocessor_config.json and '
           'model.safetensors')


class ClipFeatures:
    """The frozen vision tower of CLIP, with its preprocessing done on tensors."""

    def __init__(self, model: nn.Module, side: int, mean: list[float], deviation: list[float],
                 device: torch.device) -> None:
        self._model = model.to(device).eval().requires_grad_(False)
        self._side = side
        self._mean = torch.tensor(mean, device=device)[:, None, None]
        self._deviation = torch.tensor(deviation, device=device)[:, None, None]

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> 'ClipFeatures':
        """Load a folder of a CLIPModel or CLIPVisionModelWithProjection. Raises BackboneError."""
        for file in ('config.json', 'preprocessor_config.json'):
            if not is_file(folder / file):
                raise BackboneError(f'{folder}: there is no {file}; {_LAYOUT}')
        # Takes seconds, and only who gives such a folder needs it.
        from transformers import CLIPVisionModelWithProjection

        config = read_config(folder, '.', 'preprocessor_config.json')
        try:
            model = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True)
            # A square crop in all that are published; written as a number by older versions.
            crop = config['crop_size']
            side = crop['height'] if isinstance(crop, dict) else int(crop)
            return cls(model, side, config['image_mean'], config['image_std'], device)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise BackboneError(f'{folder}: cannot be loaded: {error!r}; {_LAYOUT}') from error

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] in 0..1 -> unit vectors [B, D].

        The whole picture is squeezed to the network's square, where CLIP crops the middle of it:
        content at the borders counts, too.
        """
        small = F.interpolate(image, (self._side, self._side), mode='bicubic', antialias=True,
                              align_corners=False)
        pixels = (small - self._mean) / self._deviation
        return F.normalize(self._model(pixel_values=pixels).image_embeds, dim=-1)


def clip_loss(own: torch.Tensor, content: torch.Tensor) -> torch.Tensor:
    """Return 1 - cosine of unit vectors [B, D], mean over the batch; `content` is detached."""
    return 1 - (own * content.detach()).sum(dim=-1).mean()
