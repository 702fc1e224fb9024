"""Muon: against torch's own and a naive float64 reference, and in all ways of training."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from muon_ad.optim import muon as module
from muon_ad.optim.gradients import GradientError
from muon_ad.optim.muon import Muon
from muon_ad.optim.newton_schulz import COEFFICIENTS
from muon_ad.optim.newton_schulz import orthogonalise
from muon_ad.optim.split import split_parameters

SETTINGS = {'lr': 0.02, 'weight_decay': 0.1, 'momentum': 0.9}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parameters(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    return [nn.Parameter(random(*shape, seed=n).to(dtype)) for n, shape in enumerate(shapes)]


def train(optimizer, params, steps: int = 5) -> list[nn.Parameter]:
    for step in range(steps):
        for index, each in enumerate(params):
            each.grad = random(*each.shape, seed=100 * step + index + 7).to(each.dtype)
        optimizer.step()
    return params


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(),
        nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 4),
    )


def loss_of(net: nn.Module, seed: int = 0) -> torch.Tensor:
    images = random(8, 3, 8, 8, seed=seed).to(next(net.parameters()).dtype)
    return functional.cross_entropy(net(images).float(), torch.arange(8) % 4)


def naive(parameter, gradients, lr, weight_decay, momentum, nesterov, scale):
    """The update as it is written, one matrix at a time in float64."""
    value = parameter.detach().double().flatten(1)
    buffer = torch.zeros_like(value)
    a, b, c = COEFFICIENTS
    for gradient in gradients:
        gradient = gradient.double().flatten(1)
        buffer = momentum * buffer + (1 - momentum) * gradient
        x = momentum * buffer + (1 - momentum) * gradient if nesterov else buffer
        x = x / x.norm()
        for _ in range(5):
            x = a * x + b * x @ x.T @ x + c * x @ x.T @ x @ x.T @ x
        rows, columns = value.shape
        factor = (0.2 * math.sqrt(max(rows, columns)) if scale == 'rms'
                  else math.sqrt(max(1, rows / columns)))
        value = (1 - lr * weight_decay) * value - lr * factor * x
    return value.view(parameter.shape)


@pytest.mark.parametrize('nesterov', [True, False])
@pytest.mark.parametrize('scale', ['rms', 'spectral'])
def test_agrees_with_a_naive_reference(nesterov, scale):
    shapes = [(6, 10), (10, 6), (8, 4, 3, 3), (8, 4, 3, 3), (5, 2, 7)]
    params = parameters(*shapes)
    wanted = [naive(each, [random(*each.shape, seed=100 * step + n + 7) for step in range(5)],
                    nesterov=nesterov, scale=scale, **SETTINGS) for n, each in enumerate(params)]
    train(Muon(params, nesterov=nesterov, scale=scale, **SETTINGS), params)
    for found, value in zip(params, wanted, strict=True):
        torch.testing.assert_close(found.double(), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('nesterov', [True, False])
@pytest.mark.parametrize(('scale', 'peers'), [('rms', 'match_rms_adamw'),
                                              ('spectral', 'original')])
def test_agrees_with_torch_on_matrices(nesterov, scale, peers, monkeypatch):
    """torch.optim.Muon always orthogonalises in bfloat16: so do we here, to compare the rest."""
    monkeypatch.setattr(module, 'orthogonalise',
                        lambda x, steps: orthogonalise(x, steps, torch.bfloat16))
    shapes = [(6, 10), (10, 6), (6, 10), (7, 7)]
    ours, theirs = parameters(*shapes), parameters(*shapes)
    train(Muon(ours, scale=scale, nesterov=nesterov, **SETTINGS), ours)
    train(torch.optim.Muon(theirs, adjust_lr_fn=peers, nesterov=nesterov, **SETTINGS), theirs)
    step = SETTINGS['lr'] * module.update_scale(10, 6, scale)
    for found, wanted in zip(ours, theirs, strict=True):
        # Five steps, each of which may differ by the rounding of bfloat16, 2^-8 of its size.
        assert (found - wanted).abs().max() < 5 * step / 256


def test_in_float32_it_stays_near_torch():
    ours, theirs = parameters((16, 24)), parameters((16, 24))
    train(Muon(ours, **SETTINGS), ours)
    train(torch.optim.Muon(theirs, adjust_lr_fn='match_rms_adamw', **SETTINGS), theirs)
    moved = ours[0] - parameters((16, 24))[0]
    assert (ours[0] - theirs[0]).norm() < 0.02 * moved.norm()


def test_the_rest_is_exactly_adamw():
    shapes = [(6,), (3, 4)]
    ours, theirs = parameters(*shapes), parameters(*shapes)
    settings = {'lr': 0.01, 'betas': (0.9, 0.95), 'eps': 1e-8, 'weight_decay': 0.1}
    train(Muon([{'params': ours, 'algorithm': 'adamw'}], **settings), ours)
    train(torch.optim.AdamW(theirs, foreach=True, **settings), theirs)
    for found, wanted in zip(ours, theirs, strict=True):
        assert torch.equal(found, wanted)


def test_a_step_has_the_size_of_adamws():
    params = parameters((32, 96))
    before = params[0].detach().clone()
    params[0].grad = random(32, 96, seed=5)
    Muon(params, lr=1.0).step()
    assert 0.15 < (params[0] - before).square().mean().sqrt() < 0.25


def test_groups_are_divided_by_shape_and_keep_their_settings():
    net = nn.Linear(4, 5)
    optimizer = Muon([{'params': net.parameters(), 'lr': 0.5, 'momentum': 0.3}])
    assert [(group['algorithm'], group['lr'], group['momentum'])
            for group in optimizer.param_groups] == [('muon', 0.5, 0.3), ('adamw', 0.5, 0.3)]
    assert optimizer.param_groups[0]['params'] == [net.weight]


def test_parameters_without_gradient_stay():
    still, moved = parameters((3, 4), (3, 4))
    before = still.detach().clone()
    optimizer = Muon([still, moved], weight_decay=0.1)
    moved.grad = torch.ones(3, 4)
    optimizer.step()
    assert torch.equal(still, before)
    assert still not in optimizer.state


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_a_run_goes_on_from_its_state_as_if_never_interrupted(dtype, tmp_path):
    def start():
        net = network().to(dtype)
        return net, Muon(split_parameters(net).groups(), lr=0.01, weight_decay=0.1)

    def advance(net, optimizer, steps):
        for step in steps:
            optimizer.zero_grad()
            loss_of(net, step).backward()
            optimizer.step()

    whole, whole_optimizer = start()
    advance(whole, whole_optimizer, range(6))
    first, first_optimizer = start()
    advance(first, first_optimizer, range(3))
    torch.save([first.state_dict(), first_optimizer.state_dict()], tmp_path / 'state.pt')
    second, second_optimizer = start()
    states = torch.load(tmp_path / 'state.pt', weights_only=True)
    second.load_state_dict(states[0])
    second_optimizer.load_state_dict(states[1])
    advance(second, second_optimizer, range(3, 6))
    for found, wanted in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(found, wanted)


def test_accumulated_gradients_are_those_of_the_whole_batch():
    def after(parts: int) -> nn.Module:
        net = network().double()
        optimizer = Muon(split_parameters(net).groups(), lr=0.01)
        images, labels = random(8, 3, 8, 8).double(), torch.arange(8) % 4
        for _ in range(2):
            optimizer.zero_grad()
            for some in range(parts):
                loss = functional.cross_entropy(net(images[some::parts]), labels[some::parts])
                (loss / parts).backward()
            optimizer.step()
        return net

    for found, wanted in zip(after(2).parameters(), after(1).parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_gradient_scaler_scales_and_skips():
    scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)
    scaled, plain = network(), network()
    optimizers = [Muon(split_parameters(net).groups(), lr=0.01) for net in (scaled, plain)]
    for _ in range(3):
        scaler.scale(loss_of(scaled)).backward()
        scaler.step(optimizers[0])
        scaler.update()
        loss_of(plain).backward()
        optimizers[1].step()
        for each in optimizers:
            each.zero_grad()
    for found, wanted in zip(scaled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)

    before = [each.detach().clone() for each in scaled.parameters()]
    scaler.scale(loss_of(scaled)).backward()
    next(scaled.parameters()).grad[0] = math.inf
    scaler.step(optimizers[0])
    scaler.update()
    assert scaler.get_scale() == 512
    for found, wanted in zip(scaled.parameters(), before, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize('algorithm', ['muon', 'adamw'])
def test_tiny_updates_of_half_precision_parameters_are_not_lost(algorithm):
    half = nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    full = nn.Parameter(torch.ones(4, 4))
    made = [Muon([{'params': [each], 'algorithm': algorithm}], lr=3e-4)
            for each in (half, full)]
    for step in range(100):
        gradient = random(4, 4).bfloat16()
        half.grad, full.grad = gradient, gradient.float()
        for optimizer in made:
            optimizer.step()
        if step == 0:       # a step is far below the last digit of bfloat16
            assert torch.equal(half, torch.ones_like(half)) and not torch.equal(full, half.float())
    assert (1 - full).abs().max() > 0.004
    assert torch.equal(half, full.bfloat16())
    assert made[0].state[half]['master'].dtype == torch.float32


def test_it_trains_a_network():
    net = network()
    optimizer = Muon(split_parameters(net).groups(), lr=0.02)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = loss_of(net)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_a_learning_rate_schedule_reaches_both_algorithms():
    net = network()
    optimizer = Muon(split_parameters(net).groups(), lr=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 ** step)
    loss_of(net).backward()
    optimizer.step()
    schedule.step()
    assert [group['lr'] for group in optimizer.param_groups] == [0.01] * 3


def test_a_compiled_step_does_the_same():
    plain, compiled = parameters((4, 6), (6,)), parameters((4, 6), (6,))
    train(Muon(plain, **SETTINGS), plain, steps=2)
    optimizer = Muon(compiled, **SETTINGS)
    optimizer.step = torch.compile(optimizer.step, backend='aot_eager')
    train(optimizer, compiled, steps=2)
    for found, wanted in zip(compiled, plain, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(('settings', 'problem'), [
    ({'lr': -1.0}, 'lr is -1.0; expected at least 0'),
    ({'lr': math.nan}, 'lr is nan'),
    ({'momentum': 1.0}, 'momentum is 1.0; expected at least 0 and below 1'),
    ({'weight_decay': -0.1}, 'weight_decay is -0.1'),
    ({'steps': 0}, 'steps is 0'),
    ({'scale': 'large'}, "scale is 'large'; expected one of rms, spectral"),
    ({'betas': (0.9, 1.5)}, 'betas is 1.5'),
    ({'eps': 0.0}, 'eps is 0.0; expected above 0'),
])
def test_settings_out_of_range_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        Muon(parameters((3, 3)), **settings)


def test_what_cannot_be_orthogonalised_is_refused_by_name():
    with pytest.raises(ValueError, match=r'bias \[4\]: Muon needs two or more.*adamw'):
        Muon([{'params': [('bias', nn.Parameter(torch.zeros(4)))], 'algorithm': 'muon'}])
    with pytest.raises(ValueError, match="algorithm is 'sgd'; expected one of muon, adamw"):
        Muon([{'params': parameters((3, 3)), 'algorithm': 'sgd'}])
    with pytest.raises(ValueError, match='parameter 0 of group 0.*complex'):
        Muon([nn.Parameter(torch.zeros(3, 3, dtype=torch.complex64))])


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(value):
    net = network()
    optimizer = Muon(split_parameters(net).groups())
    before = [each.detach().clone() for each in net.parameters()]
    loss_of(net).backward()
    net[2].weight.grad[3, 1, 0, 2] = value
    with pytest.raises(GradientError, match=r'2.weight \[8, 8, 3, 3\].*not finite'):
        optimizer.step()
    for found, wanted in zip(net.parameters(), before, strict=True):
        assert torch.equal(found, wanted)
    assert not optimizer.state


def test_a_sparse_gradient_is_refused():
    table = nn.Embedding(5, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(GradientError, match='sparse'):
        Muon(table.parameters()).step()
