"""Tiny random diffusers folders, of the library's own classes: Stable Diffusion 1.5, XL and 3.

Their layout and all interfaces are those of the real ones; a pass takes milliseconds.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers import AutoencoderTiny
from diffusers import DDIMScheduler
from diffusers import DDPMScheduler
from diffusers import EulerDiscreteScheduler
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers import SD3Transformer2DModel
from diffusers import StableDiffusion3Pipeline
from diffusers import StableDiffusionPipeline
from diffusers import StableDiffusionXLPipeline
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig
from transformers import CLIPTextModel
from transformers import CLIPTextModelWithProjection
from transformers import CLIPTokenizer
from transformers import T5Config
from transformers import T5EncoderModel
from transformers import T5Tokenizer

TEXT_WIDTH = 16


def build_sd15(folder: Path, **unet: object) -> Path:
    """Save a folder like Stable Diffusion 1.5, and return it; `unet` replaces its settings."""
    torch.manual_seed(0)
    StableDiffusionPipeline(
        vae=_autoencoder(4),
        text_encoder=CLIPTextModel(_text_config()),
        tokenizer=_tokenizer(folder.parent / f'{folder.name}_vocabulary'),
        unet=_unet(cross_attention_dim=TEXT_WIDTH, **unet),
        scheduler=DDIMScheduler(beta_schedule='scaled_linear', beta_start=0.00085,
                                beta_end=0.012, clip_sample=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def build_sdxl(folder: Path) -> Path:
    """Save a folder like Stable Diffusion XL: two text encoders, size embeddings."""
    torch.manual_seed(0)
    tokenizer = _tokenizer(folder.parent / f'{folder.name}_vocabulary')
    StableDiffusionXLPipeline(
        vae=_autoencoder(4),
        text_encoder=CLIPTextModel(_text_config()),
        text_encoder_2=CLIPTextModelWithProjection(_text_config()),
        tokenizer=tokenizer, tokenizer_2=tokenizer,
        unet=_unet(cross_attention_dim=2 * TEXT_WIDTH, addition_embed_type='text_time',
                   addition_time_embed_dim=8, transformer_layers_per_block=(1, 2),
                   projection_class_embeddings_input_dim=6 * 8 + TEXT_WIDTH),
        scheduler=EulerDiscreteScheduler(beta_schedule='scaled_linear', beta_start=0.00085,
                                         beta_end=0.012, steps_offset=1,
                                         timestep_spacing='leading'),
    ).save_pretrained(folder)
    return folder


def build_sd3(folder: Path, t5: bool = False) -> Path:
    """Save a folder like Stable Diffusion 3.5 medium, with or without its T5."""
    torch.manual_seed(0)
    tokenizer = _tokenizer(folder.parent / f'{folder.name}_vocabulary')
    StableDiffusion3Pipeline(
        vae=_autoencoder(16, shift_factor=0.0609, scaling_factor=1.5305),
        text_encoder=CLIPTextModelWithProjection(_text_config()),
        text_encoder_2=CLIPTextModelWithProjection(_text_config()),
        tokenizer=tokenizer, tokenizer_2=tokenizer,
        text_encoder_3=_t5() if t5 else None, tokenizer_3=_t5_tokenizer() if t5 else None,
        transformer=SD3Transformer2DModel(
            sample_size=16, patch_size=2, in_channels=16, out_channels=16, num_layers=2,
            attention_head_dim=8, num_attention_heads=2, caption_projection_dim=16,
            joint_attention_dim=4 * TEXT_WIDTH, pooled_projection_dim=2 * TEXT_WIDTH,
            pos_embed_max_size=32, qk_norm='rms_norm', dual_attention_layers=(0,)),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    ).save_pretrained(folder)
    return folder


def build_sd3_t5(folder: Path) -> Path:
    """Save a folder like `build_sd3`, with T5."""
    return build_sd3(folder, t5=True)


def build_plain(folder: Path) -> Path:
    """Save a folder with a tiny autoencoder and no text encoder, as the shipped backbone has."""
    torch.manual_seed(0)
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1), latent_channels=8,
    ).save_pretrained(folder / 'vae')
    _unet(cross_attention_dim=TEXT_WIDTH, in_channels=8, out_channels=8).save_pretrained(
        folder / 'unet')
    DDPMScheduler(prediction_type='v_prediction').save_pretrained(folder / 'scheduler')
    (folder / 'model_index.json').write_text(json.dumps({
        '_class_name': 'StableDiffusionPipeline', 'vae': ['diffusers', 'AutoencoderTiny'],
        'unet': ['diffusers', 'UNet2DConditionModel'], 'scheduler': ['diffusers', 'DDPMScheduler'],
    }))
    return folder


def _unet(**more: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(**{
        'sample_size': 16, 'in_channels': 4, 'out_channels': 4, 'layers_per_block': 2,
        'block_out_channels': (8, 16), 'attention_head_dim': 2, 'norm_num_groups': 4,
        'down_block_types': ('DownBlock2D', 'CrossAttnDownBlock2D'),
        'up_block_types': ('CrossAttnUpBlock2D', 'UpBlock2D'), **more,
    })


def _autoencoder(channels: int, **more: object) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8), latent_channels=channels, norm_num_groups=4,
        down_block_types=('DownEncoderBlock2D',) * 3, up_block_types=('UpDecoderBlock2D',) * 3,
        **more,
    )


def _text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=TEXT_WIDTH, projection_dim=TEXT_WIDTH, intermediate_size=16,
        num_hidden_layers=2, num_attention_heads=2, vocab_size=520, max_position_embeddings=77,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )


def _t5() -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=8, d_model=4 * TEXT_WIDTH, d_kv=8, d_ff=16,
                                   num_layers=1, num_heads=2))


def _t5_tokenizer() -> T5Tokenizer:
    return T5Tokenizer(vocab=[('<pad>', 0.0), ('</s>', 0.0), ('<unk>', 0.0), ('\u2581a', -1.0)],
                       extra_ids=0)


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """Save a byte-level vocabulary without merges, and return its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256),
                                      *range(256, 324))]
    tokens = ['<|startoftext|>', '<|endoftext|>', *letters, *(f'{one}</w>' for one in letters)]
    (folder / 'vocab.json').write_text(json.dumps({token: n for n, token in enumerate(tokens)}))
    (folder / 'merges.txt').write_text('#version: 0.2\n')
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77, local_files_only=True)
