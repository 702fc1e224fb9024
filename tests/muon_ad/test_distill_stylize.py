"""Stylisation end to end on tiny random backbones."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from muon_ad.distill.backbone import load_backbone
from muon_ad.distill.descent import Descent
from muon_ad.distill.descent import predicts
from muon_ad.distill.objective import Objective
from muon_ad.distill.pixels import bounded_size
from muon_ad.distill.pixels import working_size
from muon_ad.distill.settings import REFERENCE
from muon_ad.distill.settings import Settings
from muon_ad.distill.settings import SettingsError
from muon_ad.distill.state import StateError
from muon_ad.distill.stylize import NotFiniteError
from muon_ad.distill.stylize import stylize
from muon_ad.images import ImageError

QUICK = Settings(steps=4, size=24, timesteps=2, gpn_warmup=1, save_every=2).completed({})


def picture(seed, height=30, width=22):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


CONTENT, STYLE = picture(0), picture(1, 24, 24)


@pytest.fixture(scope='module')
def backbone(backbone_folder):
    return load_backbone(backbone_folder('sd3'))    # the quickest


@pytest.mark.parametrize('name', ['sd15', 'sdxl', 'sd3', 'plain'])
def test_each_kind_of_backbone_stylises(backbone_folder, name):
    result = stylize(CONTENT, STYLE, load_backbone(backbone_folder(name)),
                     replace(QUICK, start='noise', steps=5, timesteps=1))
    assert result.image.shape == (28, 21, 3)
    assert result.image.dtype == np.uint8
    assert [record.step for record in result.history] == list(range(1, 6))
    assert result.full_steps == result.steps == 5
    assert result.history[-1].style < result.history[0].style


VARIANTS = {
    'kl': {'loss': 'kl'},
    'adamw': {'optimizer': 'adamw'},
    'muon': {'optimizer': 'muon'},
    'latent muon': {'optimizer': 'latent-muon'},
    'conflict and balance': {'conflict': 0.5, 'balance': True},
    'conflict, latent muon': {'conflict': 0.5, 'optimizer': 'latent-muon'},
    'gradient prediction': {'gpn_share': 0.5, 'steps': 4},
    'palette': {'start': 'palette'},
    'bfloat16': {'dtype': 'bfloat16'},
    'noised': {'noised': True, 'start': 'noise'},
}


@pytest.mark.parametrize('changes', VARIANTS.values(), ids=VARIANTS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(backbone, tmp_path, changes):
    settings = replace(QUICK, **{'steps': 2, **changes})
    whole = stylize(CONTENT, STYLE, backbone, settings)
    seen = []
    half = stylize(CONTENT, STYLE, backbone, settings, progress=seen.append,
                   cancel=lambda: len(seen) == settings.steps // 2, save=tmp_path / 'state')
    assert half.cancelled and half.steps == settings.steps // 2
    assert not whole.cancelled
    rest = stylize(CONTENT, STYLE, backbone, settings, resume=tmp_path / 'state')
    assert rest.steps == settings.steps
    assert np.array_equal(rest.image, whole.image)
    assert rest.history == whole.history
    assert rest.report == whole.report
    assert rest.seconds > half.seconds


def test_a_seed_gives_the_same_picture_and_another_another(backbone):
    settings = replace(QUICK, start='noise')
    first, second = (stylize(CONTENT, STYLE, backbone, settings) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert first.history == second.history
    other = stylize(CONTENT, STYLE, backbone, replace(settings, seed=1))
    assert other.history[0] != first.history[0]


def test_first_losses_are_those_of_the_reference(backbone):
    """From the content's latents the queries are the content's, so their loss is none."""
    first = stylize(CONTENT, STYLE, backbone, QUICK).history[0]
    assert first.content == 0
    assert first.style > 0
    assert first.timestep == backbone.timesteps(2)[0]


def test_steps_are_spread_over_the_time_steps(backbone):
    history = stylize(CONTENT, STYLE, backbone, replace(QUICK, timesteps=None)).history
    assert [record.timestep for record in history] == backbone.timesteps(4)
    history = stylize(CONTENT, STYLE, backbone, QUICK).history
    first, second = backbone.timesteps(2)
    assert [record.timestep for record in history] == [first, first, second, second]


def test_a_batch_is_each_picture_alone(backbone):
    pictures = np.stack([CONTENT, picture(5)])
    settings = replace(QUICK, steps=2, optimizer='latent-muon', conflict=0.5)
    batch = stylize(pictures, STYLE, backbone, settings)
    assert batch.image.shape == (2, 28, 21, 3)
    for index in range(2):
        alone = stylize(pictures[index], STYLE, backbone, settings)
        off = np.abs(batch.image[index].astype(int) - alone.image)
        assert off.max() <= 2       # the order of sums differs


def test_several_pictures_make_one_style(backbone):
    both = stylize(CONTENT, np.stack([STYLE, picture(2, 24, 24)]), backbone, QUICK)
    twice = stylize(CONTENT, np.stack([STYLE, STYLE]), backbone, QUICK)
    one = stylize(CONTENT, STYLE, backbone, QUICK)
    assert both.history[0].style != pytest.approx(one.history[0].style)
    assert twice.history[0].style == pytest.approx(one.history[0].style, rel=1e-4)


def test_conflict_projection_reports_what_it_did(backbone):
    report = stylize(CONTENT, STYLE, backbone, replace(QUICK, conflict=1.0)).report
    assert report['trigger_rate'] == 0.75       # the first step has no content gradient
    assert abs(report['cosine_after']) < abs(report['cosine_before'])


def test_balance_scales_the_content(backbone):
    report = stylize(CONTENT, STYLE, backbone, replace(QUICK, balance=True)).report
    assert 0.1 <= report['content_scale'] <= 10


def test_balance_leaves_the_content_its_weight(backbone):
    losses = [stylize(CONTENT, STYLE, backbone, replace(
        QUICK, steps=6, balance=True, content_weight=weight)).history[-1].content
        for weight in (0.0, 10.0)]
    assert losses[1] < losses[0]


def test_a_start_in_the_palette_has_the_statistics_of_the_style(backbone):
    style = torch.from_numpy(STYLE).permute(2, 0, 1)[None] / 255
    content = torch.from_numpy(CONTENT).permute(2, 0, 1)[None] / 255
    objective = Objective(backbone, replace(QUICK, start='palette'), content, style)
    moments = [(flat.mean(1), flat.cov()) for flat in (
        latents.transpose(0, 1).flatten(1)
        for latents in (objective.start(), backbone.encode(style)))]
    torch.testing.assert_close(moments[0][0], moments[1][0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(moments[0][1], moments[1][1], rtol=5e-2, atol=1e-2)


def test_what_is_left_open_is_as_the_backbone_recommends():
    open_settings = Settings()
    assert open_settings.completed({}) == replace(open_settings, **REFERENCE)
    assert open_settings.completed({'lr': 0.2}).lr == 0.2
    assert replace(open_settings, lr=0.3).completed({'lr': 0.2}).lr == 0.3


def test_content_weight_holds_the_content(backbone):
    losses = [stylize(CONTENT, STYLE, backbone, replace(QUICK, steps=6, content_weight=weight))
              .history[-1].content for weight in (0.0, 10.0)]
    assert losses[1] < losses[0]


def test_progress_tells_losses_and_previews(backbone):
    seen, pictures = [], []

    def progress(report):
        seen.append(report)
        pictures.append(report.preview())

    result = stylize(CONTENT, STYLE, backbone, replace(QUICK, preview_every=3), progress)
    assert [(one.step, one.steps, one.preview_due) for one in seen] == [
        (1, 4, False), (2, 4, False), (3, 4, True), (4, 4, True)]
    assert [one.style_loss for one in seen] == [record.style for record in result.history]
    assert np.array_equal(pictures[-1], result.image)
    assert not np.array_equal(pictures[0], result.image)


def test_cancelled_at_once_it_returns_the_content(backbone):
    result = stylize(CONTENT, STYLE, backbone, QUICK, cancel=lambda: True)
    assert result.cancelled
    assert (result.steps, result.full_steps, result.history) == (0, 0, [])
    assert result.image.shape == (28, 21, 3)


class Poisoned:
    """A backbone whose attention becomes NaN after so many passes with gradients."""

    def __init__(self, backbone, good):
        self._backbone, self._good = backbone, good

    def __getattr__(self, name):
        return getattr(self._backbone, name)

    def attend(self, latents, *arguments):
        if latents.requires_grad:
            self._good -= 1
            latents = latents * (float('nan') if self._good < 0 else 1.0)
        return self._backbone.attend(latents, *arguments)


@pytest.mark.parametrize('changes', [{}, {'balance': True}])
def test_nan_stops_with_the_last_good_picture_and_state(backbone, tmp_path, changes):
    state, seen = tmp_path / 'state', []
    settings = replace(QUICK, **changes)
    with pytest.raises(NotFiniteError, match=r'step 3: the style loss is not finite') as caught:
        stylize(CONTENT, STYLE, Poisoned(backbone, 2), settings, save=state,
                progress=lambda report: seen.append(report.preview()))
    assert isinstance(caught.value, ValueError)
    assert caught.value.step == 3
    assert np.array_equal(caught.value.image, seen[1])
    rest = stylize(CONTENT, STYLE, Poisoned(backbone, 9), settings, resume=state)
    assert np.array_equal(rest.image, stylize(CONTENT, STYLE, backbone, settings).image)


def test_latents_that_overflow_are_taken_back(backbone):
    with pytest.raises(NotFiniteError, match='step 1: the latents are not finite') as caught:
        stylize(CONTENT, STYLE, backbone,
                replace(QUICK, lr=3e38, optimizer='latent-muon', start='noise'))
    begun = stylize(CONTENT, STYLE, backbone, replace(QUICK, start='noise'), cancel=lambda: True)
    assert np.array_equal(caught.value.image, begun.image)


def test_a_state_of_another_run_is_refused(backbone, tmp_path):
    state = tmp_path / 'state'
    stylize(CONTENT, STYLE, backbone, QUICK, save=state, cancel=lambda: True)
    with pytest.raises(StateError, match=r'was begun with lr 0.05 \(now 0.1\); resume with the'):
        stylize(CONTENT, STYLE, backbone, replace(QUICK, lr=0.1), resume=state)
    with pytest.raises(StateError, match='belongs to another style; resume with'):
        stylize(CONTENT, CONTENT, backbone, QUICK, resume=state)
    with pytest.raises(StateError, match='belongs to another content and another style'):
        stylize(STYLE, CONTENT, backbone, QUICK, resume=state)
    stylize(CONTENT, STYLE, backbone, replace(QUICK, preview_every=1), resume=state)


def test_no_state_is_an_error(backbone, tmp_path):
    with pytest.raises(StateError, match='absent: no such file; to begin anew, do not resume'):
        stylize(CONTENT, STYLE, backbone, QUICK, resume=tmp_path / 'absent')
    for content in (b'', b'no state', b'PK\x03\x04'):
        (tmp_path / 'damaged').write_bytes(content)
        with pytest.raises(StateError, match='damaged: holds no state of a stylisation'):
            stylize(CONTENT, STYLE, backbone, QUICK, resume=tmp_path / 'damaged')
    torch.save([1, 2], tmp_path / 'other')
    with pytest.raises(StateError, match='other: holds no state of a stylisation'):
        stylize(CONTENT, STYLE, backbone, QUICK, resume=tmp_path / 'other')


def test_a_state_is_whole_or_absent(backbone, tmp_path, monkeypatch):
    state = tmp_path / 'state'
    stylize(CONTENT, STYLE, backbone, QUICK, save=state, cancel=lambda: True)
    before = state.read_bytes()

    def fail(_, stream):
        stream.write(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='disk full'):
        stylize(CONTENT, STYLE, backbone, QUICK, save=state, cancel=lambda: True)
    assert state.read_bytes() == before


@pytest.mark.parametrize(('content', 'style', 'message'), [
    (CONTENT.astype(np.float32), STYLE, 'content is float32'),
    (CONTENT[..., 0], STYLE, r'content is uint8 \[30, 22\]; expected uint8 RGB'),
    (CONTENT, STYLE[..., :2], r'style is uint8 \[24, 24, 2\]'),
    (CONTENT[:0], STYLE, r'content is uint8 \[0, 22, 3\]'),
    (np.zeros((1, 20000, 3), np.uint8), STYLE, 'content is 20000x1; expected up to 16384'),
])
def test_what_is_no_picture_is_named(backbone, content, style, message):
    with pytest.raises(ImageError, match=message):
        stylize(content, style, backbone, QUICK)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'steps': 0}, 'steps is 0; expected a whole number from 1 on'),
    ({'steps': 2.5}, 'steps is 2.5'),
    ({'seed': -1}, 'seed is -1'),
    ({'lr': float('nan')}, 'lr is nan; expected None (as the backbone recommends) or a number'),
    ({'lr': 1e39}, 'lr is 1e+39'),
    ({'content_weight': -0.1}, 'content_weight is -0.1'),
    ({'optimizer': 'sgd'}, "optimizer is 'sgd'; expected one of"),
    ({'loss': 'l2'}, "loss is 'l2'"),
    ({'start': 'end'}, "start is 'end'"),
    ({'dtype': 'float16'}, "dtype is 'float16'"),
    ({'conflict': 2}, 'conflict is 2; expected None'),
    ({'gpn_share': 1.0}, 'gpn_share is 1.0; expected a share from 0 to below 1'),
    ({'layers': ()}, 'layers is ()'),
    ({'timesteps': 0}, 'timesteps is 0; expected None'),
])
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises(SettingsError) as caught:
        Settings(**changes)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(('sides', 'size', 'bounded', 'working'), [
    ((512, 512), 256, (256, 256), (256, 256)),
    ((1080, 1920), 256, (192, 341), (192, 336)),
    ((100, 90), 256, (100, 90), (96, 96)),
    ((3, 4000), 256, (3, 4000), (16, 4000)),
    ((1, 1), 256, (1, 1), (16, 16)),
])
def test_sizes(sides, size, bounded, working):
    assert bounded_size(*sides, size) == bounded
    assert working_size(*bounded, 16) == working


def test_predicted_steps_are_spread_after_the_warm_up():
    settings = Settings(steps=30, gpn_share=0.25, gpn_warmup=10)
    chosen = [step for step in range(30) if predicts(step, settings)]
    assert chosen == [13, 17, 21, 25, 29]
    assert not any(predicts(step, Settings()) for step in range(100))


def test_predicted_steps_cost_no_pass(backbone):
    passes = []

    class Counting(Poisoned):
        def attend(self, latents, *arguments):
            passes.append(latents.requires_grad)
            return self._backbone.attend(latents, *arguments)

    result = stylize(CONTENT, STYLE, Counting(backbone, 0),
                     replace(QUICK, steps=9, gpn_share=0.5))
    assert (result.full_steps, result.predicted_steps) == (5, 4)
    assert sum(passes) == 5
    assert -1 <= result.report['gpn_cosine'] <= 1
    assert len(result.history) == 5


def test_losses_hold_the_gradient_that_is_followed(backbone):
    """One Adam step moves every latent by lr against the sign of the whole loss's gradient."""
    settings = replace(QUICK, lr=0.01, content_weight=0.25, start='noise')
    content, style = (torch.rand(1, 3, 16, 16) for _ in range(2))
    objective = Objective(backbone, settings, content, style)
    descent = Descent(objective, settings, [500.0])
    before = descent.latents.requires_grad_()
    losses = objective.losses(before, 500.0)
    total = losses.style + settings.content_weight * losses.content
    gradient = torch.autograd.grad(total, before)[0]
    descent.advance()
    moved = (descent.latents - before).detach()
    clear = gradient.abs() > 1e-6
    torch.testing.assert_close(moved[clear], -0.01 * gradient.sign()[clear], rtol=0.05, atol=0)
