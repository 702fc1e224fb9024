"""Attention processors for diffusers that keep, and may replace, query, key and value.

They take the place of diffusers' own (AttnProcessor2_0, JointAttnProcessor2_0), compute the same,
and are put back afterwards: no method of a model is patched.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F  # noqa: N812
from diffusers.models.attention_processor import Attention as AttentionModule
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.attention_processor import JointAttnProcessor2_0
from torch import nn
from torch.utils.checkpoint import checkpoint

from muon_ad.distill.backbone import Attention
from muon_ad.distill.backbone import BackboneError
from muon_ad.distill.backbone import Override

_SUFFIX = '.processor'
# The U-Net registers its middle after its up blocks, and runs it before them.
_ORDER = {'down_blocks': 0, 'mid_block': 1, 'up_blocks': 2}

QKV = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def self_attention_layers(model: nn.Module) -> list[str]:
    """Return the module paths of the self-attention layers, in order of execution.

    Of a U-Net those without a text input (`attn1`); of an MMDiT all, whose image tokens attend to
    themselves and the text together.
    """
    modules = dict(model.named_modules())
    names = [name.removesuffix(_SUFFIX) for name in model.attn_processors]
    names = [name for name in names if _attends_to_itself(modules[name])]
    return sorted(names, key=lambda name: _ORDER.get(name.partition('.')[0], 0))


def _attends_to_itself(module: nn.Module) -> bool:
    if not isinstance(module, AttentionModule) or module.is_cross_attention:
        return False
    return module.added_kv_proj_dim is None or isinstance(module.processor, JointAttnProcessor2_0)


class Captured:
    """What the processors have seen of one pass, by layer.

    The first pass only: where gradient checkpointing runs a layer again, it is not recorded.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Attention] = {}

    def keep(self, attention: Attention) -> None:
        """Record a layer."""
        self._seen.setdefault(attention.name, attention)

    def __getitem__(self, name: str) -> Attention:
        """Return what layer `name` saw. Raises KeyError where it has not run."""
        return self._seen[name]


@contextmanager
def capture(
    model: nn.Module, layers: Sequence[str], override: Override | None = None,
) -> Iterator[Captured]:
    """Record `layers` of the passes within; the model's own processors return at the end.

    `model` is a diffusers model with attention processors, `layers` as `self_attention_layers`
    names them. Raises BackboneError for a layer that is not among them, or whose processor
    computes something else (fused projections, adapters).
    """
    before = dict(model.attn_processors)
    captured = Captured()
    changed = {
        name + _SUFFIX: _processor_for(name, before, captured, override) for name in layers
    }
    # set_attn_processor takes its dictionary apart.
    model.set_attn_processor({**before, **changed})
    try:
        yield captured
    finally:
        model.set_attn_processor(before)


def checkpoint_with_processors(module: nn.Module, *arguments: object) -> object:
    """Run a block and keep none of its activations: it runs again in the backward pass.

    For diffusers' `enable_gradient_checkpointing`, whose own function would repeat the block with
    the processors of that later moment. Where these save other tensors, or the same in another
    order, gradients are silently wrong.
    """
    processors = {part: part.processor for part in module.modules()
                  if isinstance(part, AttentionModule)}

    def run(*arguments: object) -> object:
        now = {part: part.processor for part in processors}
        _install(processors)
        try:
            return module(*arguments)
        finally:
            _install(now)

    return checkpoint(run, *arguments, use_reentrant=False)


def _install(processors: dict[AttentionModule, object]) -> None:
    for module, processor in processors.items():
        module.set_processor(processor)


def _processor_for(
    name: str, known: dict, captured: Captured, override: Override | None,
) -> 'CaptureSelf | CaptureJoint':
    own = known.get(name + _SUFFIX)
    if own is None:
        names = [key.removesuffix(_SUFFIX) for key in known]
        raise BackboneError(f'there is no attention layer {name!r}; expected some of {names}')
    for kind, replacement in ((AttnProcessor2_0, CaptureSelf),
                              (JointAttnProcessor2_0, CaptureJoint)):
        if type(own) is kind:
            return replacement(name, captured, override)
    raise BackboneError(
        f'attention layer {name!r} has the processor {type(own).__name__}; expected '
        f'{AttnProcessor2_0.__name__} or {JointAttnProcessor2_0.__name__}: load the model '
        'without adapters and with unfused projections'
    )


class _Capture:
    """What both processors share: the layer's name, and where its tensors go."""

    def __init__(self, name: str, captured: Captured, override: Override | None) -> None:
        self._name = name
        self._captured = captured
        self._override = override

    def _replaced(self, qkv: QKV) -> QKV:
        return qkv if self._override is None else self._override(self._name, *qkv)


class CaptureSelf(_Capture):
    """Computes as diffusers' AttnProcessor2_0 does for self-attention."""

    def __call__(
        self, attn: AttentionModule, hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None, temb: torch.Tensor | None = None,
        **_ignored: object,
    ) -> torch.Tensor:
        """[B, tokens, C], or [B, C, H, W] -> the same shape."""
        if encoder_hidden_states is not None:
            raise BackboneError(f'attention layer {self._name!r} attends to a text')
        residual = hidden_states
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if hidden_states.ndim == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        qkv = self._replaced(_image_tokens(attn, hidden_states))
        output = F.scaled_dot_product_attention(
            *qkv, attn_mask=_mask(attn, attention_mask, hidden_states))
        self._captured.keep(Attention(self._name, *qkv, output))
        hidden_states = _projected(attn, output)
        if residual.ndim == 4:
            hidden_states = hidden_states.transpose(1, 2).reshape(residual.shape)
        if attn.residual_connection:
            hidden_states = hidden_states + residual
        return hidden_states / attn.rescale_output_factor


class CaptureJoint(_Capture):
    """Computes as diffusers' JointAttnProcessor2_0: image tokens first, then those of the text.

    Kept are query, key and value of the image tokens, and their attention among themselves.
    """

    def __call__(
        self, attn: AttentionModule, hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None, **_ignored: object,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """[B, tokens, C] and the text's [B, text, C] -> both; without text, the image's alone."""
        if attention_mask is not None:
            raise BackboneError(f'attention layer {self._name!r} has a mask; expected none')
        qkv = self._replaced(_image_tokens(attn, hidden_states))
        among_themselves = F.scaled_dot_product_attention(*qkv)
        self._captured.keep(Attention(self._name, *qkv, among_themselves))
        if encoder_hidden_states is None:
            return _projected(attn, among_themselves)
        text = _text_tokens(attn, encoder_hidden_states)
        joined = (torch.cat(pair, dim=2) for pair in zip(qkv, text, strict=True))
        output = F.scaled_dot_product_attention(*joined)
        image, text = output.split([qkv[0].shape[2], text[0].shape[2]], dim=2)
        text = _flat(text)
        return _projected(attn, image), text if attn.context_pre_only else attn.to_add_out(text)


def _image_tokens(attn: AttentionModule, x: torch.Tensor) -> QKV:
    query, key, value = (_heads(attn, project(x)) for project in (attn.to_q, attn.to_k, attn.to_v))
    query = query if attn.norm_q is None else attn.norm_q(query)
    return query, key if attn.norm_k is None else attn.norm_k(key), value


def _text_tokens(attn: AttentionModule, x: torch.Tensor) -> QKV:
    projections = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
    query, key, value = (_heads(attn, project(x)) for project in projections)
    query = query if attn.norm_added_q is None else attn.norm_added_q(query)
    return query, key if attn.norm_added_k is None else attn.norm_added_k(key), value


def _heads(attn: AttentionModule, x: torch.Tensor) -> torch.Tensor:
    """[B, tokens, heads * dim] -> [B, heads, tokens, dim]."""
    return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)


def _flat(x: torch.Tensor) -> torch.Tensor:
    """[B, heads, tokens, dim] -> [B, tokens, heads * dim]."""
    return x.transpose(1, 2).flatten(2)


def _projected(attn: AttentionModule, output: torch.Tensor) -> torch.Tensor:
    linear, dropout = attn.to_out
    return dropout(linear(_flat(output)))


def _mask(
    attn: AttentionModule, mask: torch.Tensor | None, x: torch.Tensor,
) -> torch.Tensor | None:
    """[B * heads or less, 1, tokens] -> [B, heads, 1, tokens]."""
    if mask is None:
        return None
    batch, tokens, _ = x.shape
    mask = attn.prepare_attention_mask(mask, tokens, batch)
    return mask.view(batch, attn.heads, -1, mask.shape[-1])
