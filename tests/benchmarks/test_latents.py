"""The benchmark of latents on a tiny random backbone: what it compares, and without weights."""

from dataclasses import replace

import _latent_runs
import _pairs
import cv2
import latents
import numpy as np
import pytest
from _latent_runs import Case
from _latent_runs import Run

pytest.importorskip('torch')

from tiny_backbones import build_plain  # noqa: E402

from muon_ad.distill.backbone import load_backbone  # noqa: E402
from muon_ad.distill.settings import Settings  # noqa: E402

PICTURE = np.zeros((64, 64, 3), np.uint8)
SETTINGS = Settings(steps=3, size=64, gpn_warmup=1).completed({})


@pytest.fixture(scope='module')
def backbone(tmp_path_factory):
    return load_backbone(build_plain(tmp_path_factory.mktemp('backbone') / 'plain'))


@pytest.fixture(scope='module')
def pair():
    return _pairs.default_pairs(64, 1)[0]


def made(style: float, content: float = 1.0, seconds: float = 1.0, full: int = 4) -> Run:
    return Run(style, content, seconds, full, None, None, PICTURE)


def test_default_pairs_are_square_and_all_different():
    pairs = _pairs.default_pairs(48, 4)
    assert [pair.content.shape for pair in pairs] == [(48, 48, 3)] * 4
    assert [pair.style.shape for pair in pairs] == [(48, 48, 3)] * 4
    assert len({pair.content.tobytes() + pair.style.tobytes() for pair in pairs}) == 4
    assert all(pair.style_path.is_file() for pair in pairs)


def test_given_pairs_are_cut_to_the_middle(tmp_path):
    path = tmp_path / 'wide.png'
    picture = np.zeros((40, 120, 3), np.uint8)
    picture[:, 40:80] = (10, 20, 200)
    cv2.imwrite(str(path), picture[..., ::-1])
    pair = _pairs.given_pairs(40, [(path, path)])[0]
    assert (pair.content == (10, 20, 200)).all()
    assert pair.name == 'wide, wide'
    with pytest.raises(FileNotFoundError, match='none.png: no picture'):
        _pairs.given_pairs(40, [(tmp_path / 'none.png', path)])


def test_the_rate_with_the_least_loss_is_taken():
    assert _latent_runs.best({'adam': {0.01: 2.0, 0.1: 1.5, 0.3: 9.0}, 'muon': {0.01: 1.0}}) == {
        'adam': 0.1, 'muon': 0.01}


def test_ratios_compare_at_the_same_weight_with_adam_and_without_projection():
    found = {}
    for number, optimizer in enumerate(latents.OPTIMIZERS, 1):
        for weight in (0.1, 0.5):
            for conflict in (None, 0.0):
                style = number * weight * (1 if conflict is None else 0.5)
                found[Case(optimizer, weight, conflict)] = [made(style, seconds=number)]
    ratios = latents.optimizer_ratios(found)
    assert ratios['style_loss_latent-muon_vs_adam']['rounds'] == pytest.approx([4.0, 4.0])
    assert ratios['seconds_muon_vs_adam']['median'] == 3
    projected = ratios['style_loss_adamw_projected_below_0_vs_not']
    assert projected['rounds'] == pytest.approx([0.5, 0.5])
    assert 'style_loss_adam_vs_adam' not in ratios


def test_saved_passes_are_those_without_a_backward_pass():
    rows = latents.gpn_rows({'all true': [made(1.0)], 'GPN 50%': [made(2.0, full=2)]}, 4, 0.5)
    assert rows['all true']['passes saved']['median'] == 0
    assert rows['GPN 50%']['passes saved']['median'] == 0.5
    assert rows['GPN 50%']['sum of losses']['median'] == 2.5


def test_runs_and_their_projection_are_measured(backbone, pair):
    found = _latent_runs.pareto([pair], backbone, SETTINGS, {'adam': 0.05, 'latent-muon': 0.05},
                                (0.25,), (None, 1.0))
    assert {case.optimizer for case in found} == {'adam', 'latent-muon'}
    plain = found[Case('adam', 0.25, None)][0]
    assert plain.trigger_rate is None and plain.cosine is None
    assert plain.full_steps == 3 and plain.seconds > 0
    # Any cosine is below 1; only at the first step, where the content is, it has no gradient.
    assert found[Case('adam', 0.25, 1.0)][0].trigger_rate == pytest.approx(2 / 3)
    assert -1 <= found[Case('adam', 0.25, 1.0)][0].cosine <= 1
    again = _latent_runs.stylised(pair, backbone, replace(SETTINGS, optimizer='adam', lr=0.05))
    assert again.style == plain.style
    filled = latents.pareto_table(found, {'adam': 0.05, 'latent-muon': 0.05})
    assert filled.row_count == 4
    assert latents.pareto_chart(found).std() > 0


def test_keys_are_words():
    assert latents.key('patches (GPDM-like)') == 'patches_gpdm_like'


def test_a_share_of_gradients_is_predicted_and_held_against_fewer_steps(backbone, pair):
    settings = replace(SETTINGS, steps=5)
    found = _latent_runs.predicted([pair], backbone, settings, (0.0, 0.5))
    full = {name: runs[0].full_steps for name, runs in found.items()}
    assert full == {'all true': 5, 'GPN 50%': 3, '3 true steps alone': 3}


def test_without_weights_all_that_needs_none_is_compared(backbone, pair, tmp_path, capsys):
    judge = latents.judge_at(tmp_path)
    methods = latents.methods({'denoiser': backbone}, tmp_path, tmp_path, SETTINGS)
    assert judge is None
    said = capsys.readouterr().out
    for absent in ('no judge', 'left out: AdaIN', 'left out: WCT', 'left out: MicroAST'):
        assert absent in said
    cheap = {name: method for name, method in methods.items() if 'patches' not in name}
    rows, pictures = latents.compare_methods(cheap, [pair], judge)
    assert list(rows) == ['ours, denoiser', 'injection (StyleID-like)', 'student (streaming)',
                          'the photograph itself']
    assert rows['the photograph itself']['SSIM']['median'] == 1
    assert rows['student (streaming)']['style distance']['median'] is None
    assert rows['student (streaming)']['SSIM']['median'] < 1
    assert latents.grades_table('all', rows).row_count == 4
    sheet = latents.grid([pair], pictures, side=40)
    assert sheet.shape[1] == 5 * 40     # content, style and three methods


def test_with_weights_the_photograph_is_equal_to_itself(data, pair):
    judge = latents.judge_at(data / 'weights')
    found = latents.grades(judge, pair, pair.content)
    assert found['content distance'] == pytest.approx(0, abs=1e-6)
    assert found['SSIM'] == 1
    assert latents.grades(judge, pair, pair.style)['style distance'] == pytest.approx(0, abs=1e-6)
    assert latents.grades(judge, pair, pair.style)['sliced Wasserstein'] == 0


def test_memory_is_that_of_another_process(tmp_path):
    folder = build_plain(tmp_path / 'plain')
    few, many = (latents.loss_memory('l1', size, 'denoiser', folder) for size in (64, 256))
    assert 0 < few < many < 500
