"""The empty prompt of a diffusers folder: what the backbone is conditioned on instead of a text.

The pipelines' own `encode_prompt` does the work; the text encoders are not kept.
"""

from pathlib import Path

import diffusers
import torch
from torch import nn

from muon_ad.distill.backbone import BackboneError
from muon_ad.paths import is_folder

_TIME_IDS = 6   # of SDXL: original size, offset of the crop, target size; two numbers each


@torch.no_grad()
def null_prompt(folder: Path, denoiser: nn.Module) -> dict[str, torch.Tensor]:
    """Return the denoiser's arguments for the empty prompt, with a batch of one.

    `encoder_hidden_states` [1, tokens, width]; with SDXL `text_embeds` [1, width], with SD3
    `pooled_projections` [1, width]. Zeros where the folder has no text encoder. Raises
    BackboneError.
    """
    if not is_folder(folder / 'text_encoder'):
        return _zeros(denoiser)
    for encoder in sorted(folder.glob('text_encoder*')):
        tokenizer = encoder.name.replace('text_encoder', 'tokenizer')
        # The library makes up an empty one where there is none.
        if not is_folder(folder / tokenizer):
            raise BackboneError(f'{folder}: there is {encoder.name}/ and no {tokenizer}/; '
                                'expected both as diffusers saves them, or neither')
    try:
        found = _encoded(folder, denoiser)
    except (OSError, ValueError, RuntimeError, TypeError, ImportError) as error:
        raise BackboneError(
            f'{folder}: the empty prompt cannot be encoded: {error}; expected text_encoder*/ and '
            'tokenizer*/ as diffusers saves them, or none of these folders'
        ) from error
    example = next(denoiser.parameters())
    return {name: value.to(example) for name, value in found.items()}


def needs_time_ids(denoiser: nn.Module) -> bool:
    """Whether this is a U-Net of SDXL, which is told the sizes of its pictures."""
    return getattr(denoiser.config, 'addition_embed_type', None) == 'text_time'


def pooled_width(denoiser: nn.Module) -> int:
    """Return the width of SDXL's pooled text embedding."""
    config = denoiser.config
    return (config.projection_class_embeddings_input_dim
            - _TIME_IDS * config.addition_time_embed_dim)


def _zeros(denoiser: nn.Module) -> dict[str, torch.Tensor]:
    config, example = denoiser.config, next(denoiser.parameters())
    if 'joint_attention_dim' in config:
        return {'encoder_hidden_states': example.new_zeros(1, 1, config.joint_attention_dim),
                'pooled_projections': example.new_zeros(1, config.pooled_projection_dim)}
    width = config.cross_attention_dim
    # A U-Net may list a width for each block; they are equal in all that are published.
    width = width if isinstance(width, int) else width[0]
    found = {'encoder_hidden_states': example.new_zeros(1, 1, width)}
    if needs_time_ids(denoiser):
        found['text_embeds'] = example.new_zeros(1, pooled_width(denoiser))
    return found


def _encoded(folder: Path, denoiser: nn.Module) -> dict[str, torch.Tensor]:
    # Attributes of diffusers are imported when asked for, and pipelines take seconds.
    if 'joint_attention_dim' in denoiser.config:
        pipeline = _pipeline(diffusers.StableDiffusion3Pipeline, folder, transformer=denoiser,
                             **_t5_parts(folder))
        embeddings, _, pooled, _ = pipeline.encode_prompt(
            '', '', '', 'cpu', do_classifier_free_guidance=False)
        return {'encoder_hidden_states': embeddings, 'pooled_projections': pooled}
    if needs_time_ids(denoiser):
        pipeline = _pipeline(diffusers.StableDiffusionXLPipeline, folder, unet=None)
        embeddings, _, pooled, _ = pipeline.encode_prompt(
            '', device='cpu', do_classifier_free_guidance=False)
        return {'encoder_hidden_states': embeddings, 'text_embeds': pooled}
    pipeline = _pipeline(diffusers.StableDiffusionPipeline, folder, unet=None,
                         safety_checker=None, requires_safety_checker=False)
    embeddings, _ = pipeline.encode_prompt('', 'cpu', 1, False)
    return {'encoder_hidden_states': embeddings}


def _t5_parts(folder: Path) -> dict:
    """Return how to load T5: in half, as it takes 19 GB in full, or not where it was left out.

    Its part of the prompt is then zeros, as the pipeline has it.
    """
    if not is_folder(folder / 'text_encoder_3'):
        return {'text_encoder_3': None, 'tokenizer_3': None}
    return {'torch_dtype': {'text_encoder_3': torch.bfloat16, 'default': torch.float32}}


def _pipeline(kind: type, folder: Path, **parts: object) -> object:
    """Return a pipeline of text encoders and tokenizers alone."""
    return kind.from_pretrained(
        folder, local_files_only=True, low_cpu_mem_usage=False, vae=None, scheduler=None,
        feature_extractor=None, image_encoder=None, **parts)
