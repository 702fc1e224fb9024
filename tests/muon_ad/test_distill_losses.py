"""Losses of attention distillation against naive references, their gradients and their memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from muon_ad.distill.backbone import Attention
from muon_ad.distill.losses import attention_loss
from muon_ad.distill.losses import attention_map_loss
from muon_ad.distill.losses import query_loss
from muon_ad.distill.losses import TokensError


def layer(seed, samples=2, tokens=11, heads=3, dim=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, samples, heads, tokens, dim, generator=generator,
                                    dtype=dtype)
    return attention(query, key, value)


def attention(query, key, value):
    output = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    return Attention('layer', query, key, value, output)


def naive_map(query, key):
    scores = torch.einsum('bhid,bhjd->bhij', query, key) / query.shape[-1] ** 0.5
    weights = scores.exp()
    return weights / weights.sum(-1, keepdim=True)


def test_attention_loss_is_that_of_the_formula():
    own, other = [layer(0), layer(1, tokens=6)], [layer(2, 1, 7), layer(3, 1, 9)]
    expected = 0.0
    for one, style in zip(own, other, strict=True):
        keys = style.key.expand(2, -1, -1, -1)
        target = torch.einsum('bhij,bhjd->bhid', naive_map(one.query, keys),
                              style.value.expand(2, -1, -1, -1))
        expected += (one.output - target).abs().mean()
    torch.testing.assert_close(attention_loss(own, other), expected)


def test_pictures_of_a_style_are_read_as_one():
    own, styles = layer(0), layer(1, samples=3, tokens=4)
    keys = torch.cat(list(styles.key), dim=1)[None]
    values = torch.cat(list(styles.value), dim=1)[None]
    joined = attention(keys, keys, values)
    torch.testing.assert_close(attention_loss([own], [styles]), attention_loss([own], [joined]))


def test_own_style_costs_nothing():
    own = layer(0, samples=1)
    assert attention_loss([own], [own]) < 1e-14
    assert attention_map_loss([own], [own]) < 1e-14
    assert query_loss([own], [own]) == 0


@pytest.mark.parametrize('chunk', [1, 4, 11, 100])
@pytest.mark.parametrize('pictures', [1, 2])
def test_map_loss_is_the_divergence_whatever_the_chunk(chunk, pictures):
    own, style = layer(0), layer(1, samples=pictures)
    ours = naive_map(own.query, own.key)
    theirs = naive_map(style.query, style.key)
    expected = (theirs * (theirs.log() - ours.log())).sum(-1).mean()
    torch.testing.assert_close(attention_map_loss([own], [style], chunk), expected)
    torch.testing.assert_close(attention_map_loss([own, own], [style, style], chunk), 2 * expected)


def test_query_loss_is_that_of_the_formula():
    own, content = layer(0), layer(1)
    expected = (own.query - content.query).abs().sum() / own.query.numel()
    torch.testing.assert_close(query_loss([own], [content]), expected)


def test_gradients_are_those_of_the_losses():
    style = layer(5, samples=1, tokens=4, heads=2, dim=3)
    start = layer(6, samples=2, tokens=4, heads=2, dim=3)
    inputs = [part.requires_grad_() for part in (start.query, start.key, start.value)]
    kept = layer(7, samples=2, tokens=4, heads=2, dim=3)

    def map_loss(query, key, value):
        return attention_map_loss([attention(query, key, value)], [style], chunk=3)

    def queries(query, key, value):
        return query_loss([attention(query, key, value)], [kept])

    assert torch.autograd.gradcheck(map_loss, inputs)
    assert torch.autograd.gradcheck(queries, inputs)


def test_attention_loss_has_gradients_through_the_own_output_alone():
    own, style = layer(0), layer(1, samples=1)
    inputs = [part.requires_grad_() for part in (own.query, own.key, own.value)]
    fixed = torch.einsum('bhij,bhjd->bhid', naive_map(own.query, style.key.expand(2, -1, -1, -1)),
                         style.value.expand(2, -1, -1, -1)).detach()
    expected = torch.autograd.grad((attention(*inputs).output - fixed).abs().mean(), inputs)
    found = torch.autograd.grad(attention_loss([attention(*inputs)], [style]), inputs)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('loss', [attention_loss, attention_map_loss, query_loss])
def test_targets_get_no_gradient(loss):
    own, style = layer(0), layer(1)
    parts = [part.requires_grad_() for part in (style.query, style.key, style.value)]
    query = own.query.clone().requires_grad_()
    own = attention(query, own.key, own.value)
    loss([own], [attention(*parts)]).backward()
    assert query.grad is not None
    assert all(part.grad is None for part in parts)


@pytest.mark.parametrize('loss', [attention_loss, attention_map_loss, query_loss])
def test_half_precision_is_compared_in_float32(loss):
    found = loss([layer(0, dtype=torch.bfloat16)], [layer(1, dtype=torch.bfloat16)])
    assert found.dtype == torch.float32


def test_other_token_counts_have_no_map_loss():
    with pytest.raises(TokensError, match=r"layer 'layer' has \(2, 3, 11, 5\) keys .* loss l1"):
        attention_map_loss([layer(0)], [layer(1, samples=1, tokens=12)])
    with pytest.raises(TokensError, match='one style picture'):
        attention_map_loss([layer(0)], [layer(1, samples=3)])


class Largest(TorchDispatchMode):
    """The most elements that any tensor made within has."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else (found,):
            if isinstance(each, torch.Tensor):
                self.elements = max(self.elements, each.numel())
        return found


@pytest.mark.parametrize(('loss', 'bound'), [
    (attention_loss, 512 * 4),              # the outputs
    (lambda own, style: attention_map_loss(own, style, chunk=16), 16 * 512),
])
def test_maps_are_never_held_whole(loss, bound):
    own, style = layer(0, 1, 512, 1, 4, torch.float32), layer(1, 1, 512, 1, 4, torch.float32)
    query, key, value = (part.requires_grad_() for part in (own.query, own.key, own.value))
    with Largest() as made:
        loss([attention(query, key, value)], [style]).backward()
    assert query.grad.abs().max() > 0
    assert bound / 2 < made.elements <= bound


def test_what_the_map_loss_saves_for_later_does_not_grow_with_the_map():
    def saved(tokens):
        own, style = (layer(n, 1, tokens, 1, 4, torch.float32) for n in (0, 1))
        query = own.query.requires_grad_()
        kept = {}

        def keep(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = attention_map_loss([attention(query, own.key, own.value)], [style], 16)
        assert loss.requires_grad
        return sum(kept.values())

    assert 0 < saved(512) < 2.5 * saved(256)
