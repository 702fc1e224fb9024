"""The algebra of projecting conflicts away, over any gradients; PCGrad; the monitor; lambda."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from muon_ad.optim.balance import GradientBalance
from muon_ad.optim.conflict import ConflictMonitor
from muon_ad.optim.conflict import cosines
from muon_ad.optim.conflict import orthogonalised_cosines
from muon_ad.optim.conflict import pcgrad
from muon_ad.optim.conflict import project_conflict

VALUES = st.floats(-1e3, 1e3, width=32)
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, max_side=5)
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(
    *(arrays.arrays(np.float32, shape, elements=VALUES).map(
        lambda values: torch.from_numpy(values).double()) for _ in range(2))))
THRESHOLDS = st.floats(-1, 1)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    size = float(a.norm() * b.norm())
    return float((a * b).sum()) / size if size else 0.0


def sizable(*tensors: torch.Tensor) -> None:
    """Leave out what is lost in rounding."""
    assume(all(float(each.norm()) > 1e-3 for each in tensors))


@given(PAIRS, THRESHOLDS)
def test_the_projection_is_orthogonal_where_triggered_and_nothing_where_not(pair, threshold):
    style, content = pair
    sizable(style, content)
    before = cosine(style, content)
    assume(abs(before - threshold) > 1e-9 and abs(before) > 1e-9)
    found, report = project_conflict(style, content, threshold)
    assert report.before[0] == pytest.approx(before, abs=1e-9)
    assert report.projected == (before < threshold,)
    if before >= threshold:
        assert torch.equal(found, style)
    else:
        leftover = float((found * content).sum()) / float(style.norm() * content.norm())
        assert abs(leftover) < 1e-12


@given(PAIRS, st.floats(0, 1))
def test_strength_takes_away_its_share_of_the_conflict_and_nothing_else(pair, strength):
    style, content = pair
    sizable(style, content)
    found, report = project_conflict(style, content, 0.0, strength)
    assume(report.triggered)
    dot = float((style * content).sum())
    scale = float(style.norm() * content.norm())
    assert float((found * content).sum()) == pytest.approx((1 - strength) * dot, abs=1e-9 * scale)
    gone = style - found            # only along the content's gradient
    across = gone - float((gone * content).sum()) / float((content * content).sum()) * content
    assert float(across.norm()) <= 1e-9 * float(style.norm())


@given(PAIRS, THRESHOLDS)
def test_projecting_twice_is_projecting_once(pair, threshold):
    style, content = pair
    sizable(style, content)
    once, report = project_conflict(style, content, threshold)
    twice, _ = project_conflict(once, content, threshold)
    torch.testing.assert_close(twice, once, rtol=0, atol=1e-9 * float(style.norm()))


@given(PAIRS, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), THRESHOLDS)
def test_it_scales_with_the_styles_gradient_and_ignores_the_contents_size(
    pair, factor, other, threshold
):
    style, content = pair
    sizable(style, content)
    assume(abs(cosine(style, content) - threshold) > 1e-9)
    found, _ = project_conflict(style, content, threshold)
    scaled, _ = project_conflict(factor * style, other * content, threshold)
    torch.testing.assert_close(scaled, factor * found, rtol=1e-9,
                               atol=1e-9 * factor * float(style.norm()))


@given(st.lists(PAIRS, min_size=1, max_size=4), THRESHOLDS)
def test_scopes_are_each_tensor_by_itself_and_all_as_one_vector(pairs, threshold):
    styles, contents = map(list, zip(*pairs, strict=True))
    each, report = project_conflict(styles, contents, threshold)
    for index, (style, content) in enumerate(pairs):
        alone, single = project_conflict(style, content, threshold)
        assert torch.equal(each[index], alone)
        assert report.before[index] == single.before[0]
    whole, report = project_conflict(styles, contents, threshold, scope='global')
    flat = [torch.cat([tensor.flatten() for tensor in tensors]) for tensors in (styles, contents)]
    assume(abs(cosine(*flat) - threshold) > 1e-9 and abs(cosine(*flat)) > 1e-9)
    alone, single = project_conflict(*flat, threshold)
    assert len(report.projected) == 1 and report.triggered == single.triggered
    torch.testing.assert_close(torch.cat([tensor.flatten() for tensor in whole]), alone,
                               rtol=1e-9, atol=1e-9)


def test_opposed_gradients_vanish_and_agreeing_ones_stay():
    content = torch.tensor([1.0, 2.0, 2.0])
    found, report = project_conflict(-2 * content, content)
    assert found.abs().max() < 1e-6
    assert report.before == (pytest.approx(-1),) and report.rate == 1
    found, report = project_conflict(content, content)
    assert found is content and report.rate == 0 and report.after == report.before


@pytest.mark.parametrize('threshold', [-0.5, 0.5])
def test_a_zero_gradient_is_in_no_conflict(threshold):
    some, none = torch.ones(4), torch.zeros(4)
    for style, content in ((some, none), (none, some), (none, none)):
        found, report = project_conflict(style, content, threshold)
        assert torch.equal(found, style)
        assert report.before == (0.0,) and report.triggered == 0


def test_half_precision_is_measured_in_full_and_inputs_are_kept():
    style, content = torch.full((5000,), -1.0).bfloat16(), torch.full((5000,), 0.3).bfloat16()
    style[:2500] = 0.1
    kept = style.clone()
    found, report = project_conflict(style, content, 0.0)
    assert found.dtype == torch.bfloat16 and torch.equal(style, kept)
    assert report.before[0] == pytest.approx(cosine(style.double(), content.double()), abs=1e-5)
    assert abs(report.after[0]) < 0.01


def test_orthogonalisation_can_bring_a_conflict_back():
    generator = torch.Generator().manual_seed(0)
    style = torch.randn(6, 6, generator=generator) * torch.logspace(0, -2, 6)[:, None]
    content = torch.randn(6, 6, generator=generator) - 2 * style
    projected, report = project_conflict(style, content, 0.0)
    left = orthogonalised_cosines([projected, torch.ones(3)], [content, -torch.ones(3)])
    assert len(left) == 1
    assert abs(report.after[0]) < 1e-6 < abs(left[0])
    assert orthogonalised_cosines(projected[None, :, :, None], content[None, :, :, None],
                                  latents=True) == pytest.approx(left)


@pytest.mark.parametrize(('options', 'problem'), [
    ({'threshold': -1.5}, 'threshold is -1.5; expected -1 to 1'),
    ({'threshold': math.nan}, 'threshold is nan'),
    ({'strength': 2.0}, 'strength is 2.0; expected 0 to 1'),
    ({'scope': 'layer'}, "scope is 'layer'; expected one of tensor, global"),
])
def test_settings_out_of_range_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        project_conflict(torch.ones(2), torch.ones(2), **options)


def test_gradients_that_do_not_match_are_refused():
    for first, second in ((torch.ones(2), torch.ones(3)), ([torch.ones(2)], []), ([], [])):
        with pytest.raises(ValueError, match='gradients have the shapes'):
            cosines(first, second)


def test_pcgrad_is_its_algorithm():
    """Three tasks in the plane, by hand: each loses what opposes another, in the order drawn."""
    tasks = [torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0]), torch.tensor([-1.0, -3.0])]
    found = pcgrad(tasks, torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(4)
    for index, task in enumerate(tasks):
        wanted = task.clone()
        for other in torch.randperm(3, generator=generator).tolist():
            dot = wanted @ tasks[other]
            if other != index and dot < 0:
                wanted = wanted - dot / (tasks[other] @ tasks[other]) * tasks[other]
        torch.testing.assert_close(found[index], wanted)


def test_pcgrad_of_two_tasks_is_symmetric_and_leaves_no_conflict():
    style = [torch.tensor([1.0, -2.0]), torch.tensor([[0.5]])]
    content = [torch.tensor([-1.0, 1.0]), torch.tensor([[1.0]])]
    one, two = pcgrad([style, content])
    assert abs(cosines(one, content, 'global')[0]) < 1e-6
    assert abs(cosines(two, style, 'global')[0]) < 1e-6
    with pytest.raises(ValueError, match='at least one task'):
        pcgrad([])


def test_the_monitor_keeps_rates_and_cosines():
    monitor = ConflictMonitor()
    assert monitor.summary() == {'steps': 0, 'trigger_rate': 0.0}
    content = [torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])]
    for style in ([[-1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]):
        _, report = project_conflict([torch.tensor(each) for each in style], content)
        monitor.record(report, orthogonalised=[0.25, 0.75])
    assert monitor.rates == [0.5, 0.0]
    assert monitor.summary() == {
        'steps': 2, 'trigger_rate': 0.25, 'cosine_before': 0.0, 'cosine_after': 0.25,
        'cosine_orthogonalised': 0.5,
    }


def test_lambda_is_the_ratio_of_norms_smoothed_and_bounded():
    balance = GradientBalance(ema=0.5, limits=(0.1, 10.0))
    assert balance.value == 1.0
    assert balance.update(2.0, 1.0) == pytest.approx(2.0)
    assert balance.update(8.0, 1.0) == pytest.approx(4.0)       # geometric mean
    assert balance.update(0.0, 1.0) == balance.update(1.0, 0.0) == pytest.approx(4.0)
    balance.update(1e12, 1.0)
    assert balance.value == pytest.approx(math.sqrt(40))
    for _ in range(60):
        balance.update(1.0, 1e9)
    assert balance.value == pytest.approx(0.1)


@given(st.lists(st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)), min_size=1, max_size=9))
def test_lambda_of_exchanged_losses_is_the_inverse_and_stays_within_limits(norms):
    one, other = GradientBalance(), GradientBalance()
    for style, content in norms:
        value = one.update(style, content)
        assert value * other.update(content, style) == pytest.approx(1)
        assert 0.1 - 1e-9 <= value <= 10 + 1e-9


def test_a_balance_goes_on_from_its_state_and_refuses_nonsense():
    first, second = GradientBalance(), GradientBalance()
    first.update(3.0, 1.0)
    second.load_state_dict(first.state_dict())
    assert second.update(1.0, 1.0) == first.update(1.0, 1.0)
    for settings in ({'ema': 1.0}, {'limits': (0.0, 1.0)}, {'limits': (2.0, 1.0)}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            GradientBalance(**settings)
    with pytest.raises(ValueError, match='content_norm is nan'):
        first.update(1.0, math.nan)
