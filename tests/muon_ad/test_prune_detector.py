"""Pruning the shipped detector in training: its package is its own teacher, on rendered scenes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import kill_once_there_is

from muon_ad.cli import main
from muon_ad.networks.detector import load_detector
from muon_ad.networks.resize import residual_blocks
from muon_ad.networks.weights import load_network
from muon_ad.prune.detector import AVERAGE
from muon_ad.prune.detector import cut_and_refit
from muon_ad.prune.detector import load_dense
from muon_ad.prune.detector import prune_detector
from muon_ad.prune.plan import Plan
from muon_ad.prune.shapes import count
from muon_ad.train import detector_trainer
from muon_ad.train.checkpoint import CHECKPOINT
from muon_ad.train.detection_data import library
from muon_ad.train.detector import rendered
from muon_ad.train.detector_trainer import Lessons
from muon_ad.train.detector_trainer import Recipe
from muon_ad.train.detector_trainer import Trainer
from muon_ad.train.log import LOG
from muon_ad.train.teacher import Teacher
from muon_ad.train.teacher import teacher_package

SHIPPED = Path(__file__).resolve().parents[2] / 'models' / 'detector_default'
STEPS = 5
PLAN = Plan(STEPS, ratio=0.4)


@pytest.fixture(scope='module')
def dense():
    return load_dense(SHIPPED)


@pytest.fixture(scope='module')
def lessons(dense):
    teacher = Teacher(teacher_package(SHIPPED), dense[1], 64, 64)
    return Lessons(teacher, library(rendered(3, 0), teacher.detector, dense[1]))


@pytest.fixture
def prune(dense, lessons, tmp_path):
    """Prune by a plan into a folder below `tmp_path`; returns the file."""
    def run(plan: Plan, name: str = 'out', **more) -> Path:
        recipe = Recipe(dense[1], 64, 64, plan.steps, 2, warm_up=1, average=AVERAGE, pool=6,
                        half=False)
        return prune_detector(dense[0], lessons, recipe, plan, tmp_path / name, **more)

    return run


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = load_network(one).state, load_network(other).state
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize('settings', [{}, {'score': 'batchnorm', 'method': 'static-l1'}])
def test_a_pruned_detector_has_fewer_parameters_and_the_same_output(settings, prune, dense):
    small, classes = load_detector(prune(replace(PLAN, **settings)))
    net = dense[0]
    assert classes == dense[1]
    assert count(small) == pytest.approx(0.6 * count(net), rel=0.05)
    image = torch.rand(1, 3, 64, 96)
    assert small(image).shape == net(image).shape
    assert torch.isfinite(small(image)).all()


def test_layerdrop_removes_the_blocks_that_there_are(prune, dense):
    small, _ = load_detector(prune(replace(PLAN, method='layerdrop', ratio=0.2)))
    assert 0 < len(residual_blocks(small)) < len(residual_blocks(dense[0]))
    assert count(small) < 0.95 * count(dense[0])


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(prune, monkeypatch):
    plan = replace(PLAN, score='batchnorm', threshold='sigma')
    whole = prune(plan, 'whole')

    class Killed(Exception):
        pass

    advance = Trainer.advance

    def advance_until_killed(trainer):
        if trainer.step == 4:
            raise Killed
        return advance(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(detector_trainer.Trainer, 'advance', advance_until_killed)
        with pytest.raises(Killed):
            prune(plan, 'parts', save_every=3)
    parts = prune(plan, 'parts', resume=True, save_every=3)
    assert_same_weights(parts, whole)
    assert (parts.parent / LOG).read_text() == (whole.parent / LOG).read_text()


def test_the_command_goes_on_after_it_was_killed_and_shows_what_is_left(tmp_path, capsys):
    arguments = ['prune', 'detector', str(SHIPPED), '--scenes', '2', '--pool', '4', '--batch', '2',
                 '--width', '64', '--height', '64', '--steps', '3', '--checkpoint-every', '1',
                 '-o', str(tmp_path)]
    kill_once_there_is(tmp_path / CHECKPOINT, arguments)
    assert main([*arguments, '--resume']) == 0
    shown = capsys.readouterr().out
    for text in ('class_tower', 'GFLOP for 64x64', 'parameters (40% asked)'):
        assert text in shown
    assert count(load_dense(tmp_path / CHECKPOINT)[0]) == count(
        load_detector(tmp_path / 'p40.safetensors')[0])


def test_cut_at_once_and_refitted_it_is_close_to_the_dense_one_without_training(
    dense, lessons, tmp_path,
):
    net = dense[0]
    recipe = Recipe(dense[1], 64, 64, batch=4, pool=8, half=False, mimic=0.0)
    small = cut_and_refit(net, lessons, recipe, replace(PLAN, keep=0.25), batches=4)
    assert count(small) == pytest.approx(0.6 * count(net), rel=0.02)
    trainer = detector_trainer.Trainer(recipe, lessons, net)
    images, _ = trainer.backward()
    net.eval()
    with torch.no_grad():
        wanted = net(images)
        spread = (wanted - wanted.mean((0, 1))).abs().mean()
        assert (small.eval()(images) - wanted).abs().mean() < 0.5 * spread


def test_the_command_can_cut_and_refit(tmp_path, capsys):
    assert main(['prune', 'detector', str(SHIPPED), '--scenes', '2', '--pool', '4', '--batch', '2',
                 '--width', '64', '--height', '64', '--refit', '2', '--keep', '0.25',
                 '-o', str(tmp_path)]) == 0
    path = tmp_path / 'p40.safetensors'
    assert str(path) in capsys.readouterr().out
    assert count(load_detector(path)[0]) < 0.65 * count(load_dense(SHIPPED)[0])
