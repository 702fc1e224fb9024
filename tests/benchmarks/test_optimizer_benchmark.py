"""The race of optimisers: curves, grids, what is compared, and the tasks that they run on."""

import json
import math
from dataclasses import replace

import _common
import _optimizer_tasks as tasks
import _race
import numpy as np
import optimizers
import pytest
import torch
from _race import against
from _race import Curve
from _race import Sweep
from torch import nn

from muon_ad.train.images import DataError

TINY = tasks.Sizes(scenes=1, latents=8, pool=4, held=1)


def curve(*losses: float, every: int = 10, seconds: float = 1.0) -> Curve:
    return Curve([every * index for index in range(len(losses))], list(losses), seconds)


def toy(centre: float = 0.01) -> _race.Task:
    """A small regression, whose batches and held-out batch come from one teacher."""
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn(6, 3, generator=generator)

    def batch(rng: np.random.Generator):
        x = torch.from_numpy(rng.normal(size=(16, 6)).astype(np.float32))
        return x, x @ wanted

    def loss(net, given):
        return (net(given[0]) - given[1]).square().mean()

    def make():
        return nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3))

    return _race.Task('toy', make, loss, batch, [batch(np.random.default_rng(9))], ('0',), ('2',),
                      dict.fromkeys(_race.NAMES, centre))


def test_a_curve_is_read_between_its_points():
    line = curve(8.0, 4.0, 2.0, 3.0)
    assert line.at(5) == 6.0
    assert line.at(99) == 3.0
    assert line.reaches(3.0) == 15.0
    assert line.reaches(9.0) == 0.0
    assert line.reaches(1.0) is None
    assert curve(math.inf, 4.0).reaches(5.0) == 10.0


def test_a_grid_goes_on_where_the_best_is_at_its_edge():
    tried = Sweep()
    for rate, loss in ((0.1, 3.0), (0.2, 2.0), (0.4, math.inf)):
        tried.add(rate, curve(9.0, loss))
    assert tried.best == 0.2 and tried.beyond() is None
    tried.add(0.05, curve(9.0, 1.0))
    assert tried.best == 0.05
    assert tried.beyond() == pytest.approx(0.05 / _race.FACTOR)
    rising = Sweep()
    for rate, loss in ((0.1, 3.0), (0.2, 2.0)):
        rising.add(rate, curve(9.0, loss))
    assert rising.beyond() == pytest.approx(0.2 * _race.FACTOR)


def test_the_sweep_finds_the_rate_at_which_a_run_ends_lowest():
    said = []
    swept = _race.sweep(toy(1e-5), ['adamw'], 12, rates=3, extensions=2, say=said.append)['adamw']
    # From far too low a centre it climbs as far as it may, and says that it is not there yet.
    assert len(swept.losses) == len(said) == 5
    assert swept.best == max(swept.losses) and swept.beyond()
    assert swept.step_seconds > 0


def test_runs_depend_on_the_seed_alone_and_learn():
    task = toy()
    first, again, other = (_race.train(task, 'muon', 0.02, 40, seed) for seed in (1, 1, 2))
    assert first.losses == again.losses != other.losses
    assert first.losses[-1] < 0.7 * first.losses[0]
    assert first.steps[0] == 0 and first.steps[-1] == 40


def test_a_run_that_diverges_ends_there():
    found = _race.train(toy(), 'sgd', 1e20, 30, seed=0)
    assert found.losses[-1] == math.inf and found.steps[-1] < 30


def test_an_optimiser_is_compared_in_steps_and_in_seconds():
    adamw = [curve(8.0, 4.0, 2.0), curve(8.0, 4.0, 2.0)]
    faster = curve(8.0, 2.0, 1.0, seconds=2.0)      # half the steps, each twice as dear
    never = curve(8.0, 6.0, 5.0)
    found = against(adamw, [faster, never], steps=20)
    assert found.equal_steps == [1.0, 5.0]
    assert found.equal_seconds == [2.0, 5.0]
    assert found.steps_ratio == [2.0, None]
    assert found.seconds_ratio == [1.0, None]


def test_a_cheap_optimiser_takes_more_steps_for_equal_seconds():
    steady = Sweep()
    steady.add(0.02, curve(1.0, 1.0, seconds=1.3))
    cheap = Sweep()
    cheap.add(0.02, curve(1.0, 1.0, seconds=1.0))
    curves = _race.race(toy(), {'adamw': steady, 'sgd': cheap}, 10, 1, lambda text: None)
    assert curves['adamw'][0].steps[-1] == 10
    assert curves['sgd'][0].steps[-1] == 13


def test_what_was_not_reached_counts_as_less_than_any_ratio():
    assert optimizers.reached([None, 2.0, 3.0]) == {
        'median': 2.0, 'min': 0.0, 'max': 3.0, 'rounds': [None, 2.0, 3.0]}
    assert optimizers.reached([None, None, 3.0])['median'] is None


def test_the_report_has_every_figure_and_is_valid_json(tmp_path, monkeypatch):
    monkeypatch.setattr(optimizers, 'OUT', tmp_path)
    task = toy()
    swept, curves, found = optimizers.measure(task, steps=10, rates=2, extensions=0, seeds=2)
    ratios = optimizers.compare('toy', found)
    assert set(ratios) == {f'toy_{kind}_{name}' for name in _race.NAMES if name != 'adamw'
                           for kind in ('steps', 'seconds', 'loss', 'loss_in_time')}
    assert all(len(each['rounds']) == 2 for each in ratios.values())
    rows = _common.table('Optimisers', *'abcdefg')
    optimizers.fill(rows, 'toy', swept, found)
    assert rows.row_count == len(_race.NAMES)
    optimizers.draw_curves('toy', curves, steps=10)
    assert (tmp_path / 'optimizers_toy.png').stat().st_size > 1000
    report = optimizers.summary(task, 10, swept, curves, found)
    text = json.dumps(report, allow_nan=False)
    assert json.loads(text)['optimizers']['lion']['figures']['steps_ratio'] is not None


def learns(task: _race.Task, rate: float, steps: int) -> bool:
    """Whether the loss on a batch of what it learns from falls."""
    seen = replace(task, held=[task.batch(np.random.default_rng(5))])
    losses = _race.train(seen, 'muon', rate, steps, seed=0).losses
    return losses[-1] < 0.95 * losses[0]


def test_the_style_student_is_a_task(monkeypatch):
    monkeypatch.setattr(tasks, 'STYLES', ['mosaic'])
    task = tasks.style_task(TINY)
    assert task.about['features'] in ('distilled VGG-19', 'backbone_tiny/encoder', 'random')
    assert math.isfinite(_race.judge(task, task.make()))
    assert learns(task, 0.01, 6)


def test_the_denoiser_is_a_task_on_the_latents_of_an_autoencoder(tmp_path):
    from muon_ad.train.backbone_parts import make_autoencoder

    torch.manual_seed(0)
    make_autoencoder(8).save_pretrained(tmp_path / 'vae')
    task = tasks.denoise_task(TINY, tmp_path)
    assert [len(each[0]) for each in task.held] == [8]
    assert learns(task, 0.01, 5)
    with pytest.raises(DataError, match='no autoencoder'):
        tasks.denoise_task(TINY, tmp_path / 'none')


def test_the_detector_is_a_task():
    task = tasks.detector_task(TINY)
    assert math.isfinite(_race.judge(task, task.make()))
    assert learns(task, 0.005, 24)
