"""A diffusers U-Net that is physically smaller than its dense one, by a plan in its configuration.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields

from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from muon_ad.networks.dynamic_conv import NoAttention
from muon_ad.networks.dynamic_conv import tell_shape
from muon_ad.networks.dynamic_conv import TokenDynamicConv
from muon_ad.networks.slicing import drop_skip
from muon_ad.networks.slicing import keep_features
from muon_ad.networks.slicing import keep_groups
from muon_ad.networks.slicing import keep_heads


class LightError(ValueError):
    """A plan does not fit a U-Net: which part, and what was expected."""


@dataclass(frozen=True)
class Light:
    """How a light U-Net differs from its dense one, by the paths of modules.

    `heads` kept of an attention layer, `groups` of channels kept between the convolutions of a
    residual block, `features` kept within a feed-forward part. `dynamic` self-attention layers
    are convolutions, with so many bases; those in `removed` are gone. Residual blocks in
    `without_skip` do not read their skip connection, but the given number of channels before it.
    """

    heads: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    features: Mapping[str, int] = field(default_factory=dict)
    dynamic: Mapping[str, int] = field(default_factory=dict)
    removed: Sequence[str] = ()
    without_skip: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict:
        """Return plain values, for config.json."""
        return {**asdict(self), 'removed': list(self.removed)}

    @classmethod
    def from_dict(cls, given: Mapping) -> 'Light':
        """Return the plan in plain values. Raises LightError."""
        names = [each.name for each in fields(cls)]
        if not isinstance(given, Mapping) or not set(given) <= set(names):
            raise LightError(f'light is {given!r}; expected an object with some of {names}')
        for name, value in given.items():
            if name == 'removed':
                good = not isinstance(value, str) and all(isinstance(each, str) for each in value)
            else:
                good = isinstance(value, Mapping) and all(
                    type(count) is int and count > 0 for count in value.values())
            if not good:
                raise LightError(f'light.{name} is {value!r}; expected a list of modules for '
                                 'removed, else an object of module: number above 0')
        return cls(**given)


class LightUNet(UNet2DConditionModel):
    """diffusers' UNet2DConditionModel with the parts of `light` cut or replaced.

    Its inputs, outputs and blocks' outputs are those of the dense U-Net, so whatever takes that
    takes this. The configuration is the dense one's and, since that has no words for single
    layers, `light`: save_pretrained and from_pretrained work, with no file beside the weights.
    Raises LightError where the plan names parts that are not there.
    """

    def __init__(self, light: Mapping, **dense: object) -> None:
        super().__init__(**dense)
        shrink(self, Light.from_dict(light))
        self.register_to_config(light=dict(light))

    @staticmethod
    def _get_init_keys(input_class: type) -> set[str]:
        # diffusers reads an initialiser's signature, and this one leaves most of it to its base.
        known = set(UNet2DConditionModel._get_init_keys(UNet2DConditionModel))
        return known | {'light'} if input_class is LightUNet else (
            UNet2DConditionModel._get_init_keys(input_class))


def shrink(
    model: UNet2DConditionModel, light: Light, kept: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Cut a dense U-Net, in place, to a plan.

    `kept` holds, for modules in heads, groups and features, the indices that stay; without it,
    the first ones stay. New convolutions begin at zero, in evaluation mode where the model is.
    Raises LightError, SlicingError.
    """
    for name, cut, kind, counts in (
        ('heads', keep_heads, Attention, light.heads),
        ('groups', keep_groups, ResnetBlock2D, light.groups),
        ('features', keep_features, FeedForward, light.features),
    ):
        for path, count in counts.items():
            chosen = kept[path] if kept else range(count)
            if len(chosen) != count:
                raise LightError(f'{name} of {path} are to be {count}; given {list(chosen)}')
            cut(_part(model, path, kind), chosen)
    for path, hidden in light.without_skip.items():
        drop_skip(_part(model, path, ResnetBlock2D), hidden)
    for path, bases in light.dynamic.items():
        _part(model, path, Attention)
        block, around = _surroundings(model, path)
        like = block.norm1.weight
        block.attn1 = TokenDynamicConv(len(like), bases).to(like.device, like.dtype).train(
            model.training)
        if tell_shape not in around._forward_pre_hooks.values():
            around.register_forward_pre_hook(tell_shape, with_kwargs=True)
    for path in light.removed:
        _part(model, path, Attention)
        block, _ = _surroundings(model, path)
        block.attn1, block.norm1 = NoAttention(), nn.Identity()


def attentions(model: nn.Module) -> dict[str, Attention]:
    """Return all attention layers, to the picture itself and to a text, by path."""
    return dict(_of_kind(model, Attention))


def residual_blocks(model: nn.Module) -> dict[str, ResnetBlock2D]:
    """Return the residual blocks by path."""
    return dict(_of_kind(model, ResnetBlock2D))


def feed_forwards(model: nn.Module) -> dict[str, FeedForward]:
    """Return the feed-forward parts of transformers by path."""
    return dict(_of_kind(model, FeedForward))


def skips(model: UNet2DConditionModel) -> dict[str, tuple[int, int]]:
    """Return {residual block of the way up: (hidden channels, channels of its skip)}.

    Blocks whose skip is gone are left out.
    """
    found = {}
    last = model.config.block_out_channels[-1]
    for number, block in enumerate(model.up_blocks):
        for index, resnet in enumerate(block.resnets):
            if resnet.in_channels > last:
                found[f'up_blocks.{number}.resnets.{index}'] = last, resnet.in_channels - last
            last = resnet.out_channels
    return found


def level(model: UNet2DConditionModel, name: str) -> int:
    """Return at which scale a module or parameter works: 0 the finest, what frames it included."""
    coarsest = len(model.config.block_out_channels) - 1
    kind, _, rest = name.partition('.')
    if kind == 'mid_block':
        return coarsest
    if kind in ('down_blocks', 'up_blocks'):
        number = int(rest.partition('.')[0])
        return number if kind == 'down_blocks' else coarsest - number
    return 0


def _of_kind(model: nn.Module, kind: type) -> Iterable[tuple[str, nn.Module]]:
    return ((name, part) for name, part in model.named_modules() if isinstance(part, kind))


def _part(model: nn.Module, path: str, kind: type) -> nn.Module:
    found = dict(model.named_modules()).get(path)
    if not isinstance(found, kind):
        raise LightError(f'light names {path!r} as {kind.__name__}; the U-Net has '
                         f'{type(found).__name__ if found else "nothing"} there')
    return found


def _surroundings(
    model: nn.Module, path: str,
) -> tuple[BasicTransformerBlock, Transformer2DModel]:
    """Return the block of a self-attention layer and the transformer around it."""
    block, _, name = path.rpartition('.')
    around = block.partition('.transformer_blocks.')[0]
    if name != 'attn1':
        raise LightError(f'light replaces {path!r}; expected a self-attention layer (attn1)')
    return _part(model, block, BasicTransformerBlock), _part(model, around, Transformer2DModel)
