"""Pruning the style student in training, on small generated images and untrained features."""

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from support import kill_once_there_is

from muon_ad.cli import main
from muon_ad.networks.resize import residual_blocks
from muon_ad.networks.style import StyleConfig
from muon_ad.networks.style import StyleEncoder
from muon_ad.networks.style import StyleStudent
from muon_ad.networks.weights import load_network
from muon_ad.networks.weights import save_network
from muon_ad.prune.graph import PruningError
from muon_ad.prune.plan import METHODS
from muon_ad.prune.plan import Plan
from muon_ad.prune.shapes import count
from muon_ad.prune.style import prune_style
from muon_ad.prune.style import StylePupil
from muon_ad.prune.style import WEIGHTS
from muon_ad.runtime.engine import Engine
from muon_ad.train import perceptual
from muon_ad.train import style as training
from muon_ad.train.checkpoint import CHECKPOINT
from muon_ad.train.log import LOG
from muon_ad.train.style_export import export_student
from muon_ad.train.style_weights import load_student

CONFIG = StyleConfig(channels=16, blocks=3, fine=8, encoder=(4, 8), hidden=8)
STEPS = 8
RECIPE = training.Recipe(
    steps=STEPS, crop=32, batch=2, warm=0, ramp=1, half=False, weights=dict(WEIGHTS))
PLAN = Plan(STEPS, ratio=0.4, multiple=4)


def picture(seed: int, side: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> Path:
    """Files of an untrained student and its encoder."""
    folder = tmp_path_factory.mktemp('dense') / 'weights'
    torch.manual_seed(3)
    save_network(folder / 'dense.safetensors', StyleStudent(CONFIG), 'style', CONFIG.to_dict())
    save_network(
        folder / 'encoder.safetensors', StyleEncoder(CONFIG), 'style_encoder', CONFIG.to_dict())
    return folder / 'dense.safetensors'


@pytest.fixture
def prune(weights, tmp_path):
    """Prune by a plan into a folder below `tmp_path`; returns the file."""
    torch.manual_seed(0)
    features = perceptual.Features()
    corpus = training.Corpus([picture(n, 96) for n in range(3)], [], [picture(9, 256)])

    def run(plan: Plan, name: str = 'out', **more) -> Path:
        recipe = replace(RECIPE, steps=plan.steps)
        return prune_style(weights, corpus, features, recipe, plan, tmp_path / name, **more)

    return run


def assert_same_weights(one: Path, other: Path) -> None:
    """The order of what the file's header says is not always the same, so not byte by byte."""
    first, second = load_network(one), load_network(other)
    assert (first.kind, first.config) == (second.kind, second.config)
    assert first.state.keys() == second.state.keys()
    for name, tensor in first.state.items():
        assert torch.equal(tensor, second.state[name]), name


@pytest.mark.parametrize('method', METHODS)
def test_each_method_leaves_a_smaller_student_for_the_same_style_vectors(method, prune, weights):
    path = prune(replace(PLAN, method=method))
    assert path.name == 'p40.safetensors'
    dense, small = load_student(weights), load_student(path)
    assert count(small) == pytest.approx(0.6 * count(dense), rel=0.2)
    image, style = torch.rand(1, 3, 32, 48), torch.rand(1, CONFIG.style_length)
    assert small(image, style).shape == dense(image, style).shape
    blocks = len(residual_blocks(small))
    assert blocks < 3 if method == 'layerdrop' else blocks == 3
    assert_same_weights(*(each.with_name('encoder.safetensors') for each in (path, weights)))


def test_parameters_fall_step_by_step_and_are_logged(prune, tmp_path):
    prune(PLAN)
    with (tmp_path / 'out' / LOG).open(newline='') as stream:
        rows = list(csv.DictReader(stream))
    parameters = [float(row['parameters']) for row in rows]
    assert len(parameters) == STEPS
    assert parameters == sorted(parameters, reverse=True)
    assert len(set(parameters)) > 2
    assert parameters[-2] == parameters[-1]     # the last quarter recovers
    assert all(float(row['imitation']) > 0 for row in rows[1:])


@pytest.mark.parametrize('settings', [
    {'score': 'paper', 'threshold': 'sigma'}, {'score': 'magnitude'}, {'method': 'layerdrop'},
    {'score': 'paper', 'threshold': 'tau', 'tau': 1.0},
])  # fmt: skip
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(settings, prune, tmp_path):
    plan = replace(PLAN, **settings)
    whole = prune(plan, 'whole')

    class Killed(Exception):
        pass

    advance = training.Trainer.advance

    def advance_until_killed(trainer):
        if trainer.step == 6:
            raise Killed
        return advance(trainer)

    training.Trainer.advance = advance_until_killed
    try:
        with pytest.raises(Killed):
            prune(plan, 'parts', save_every=5)
    finally:
        training.Trainer.advance = advance
    parts = prune(plan, 'parts', resume=True, save_every=5)
    assert_same_weights(parts, whole)
    assert (parts.parent / LOG).read_text() == (whole.parent / LOG).read_text()
    ends = [torch.load(path.parent / CHECKPOINT, weights_only=True) for path in (whole, parts)]
    assert str(ends[0]['optimizer']) == str(ends[1]['optimizer'])
    assert str(ends[0].get('score')) == str(ends[1].get('score'))


def test_a_checkpoint_of_another_plan_is_refused(prune):
    prune(replace(PLAN, steps=1))
    with pytest.raises(ValueError, match='made with plan of ratio = 0.4, not 0.6'):
        prune(replace(PLAN, steps=1, ratio=0.6), resume=True)


def test_a_pruned_student_is_pruned_further(prune, tmp_path):
    first = prune(PLAN)
    torch.manual_seed(0)
    corpus = training.Corpus([picture(n, 96) for n in range(3)], [], [picture(9, 256)])
    second = prune_style(first, corpus, perceptual.Features(), RECIPE, PLAN, tmp_path / 'more')
    assert count(load_student(second)) < count(load_student(first))


def test_the_export_of_a_pruned_student_does_what_it_does(prune, tmp_path):
    student = load_student(prune(replace(PLAN, method='static-l1', steps=1)))
    export_student(student, CONFIG.style_length, tmp_path / 'p40.onnx')
    pixels = picture(5, 64)[None]
    style = np.random.default_rng(0).normal(0.5, 0.5, (1, CONFIG.style_length)).astype(np.float32)
    found = Engine(tmp_path / 'p40.onnx').run({'image': pixels, 'style': style})[0]
    with torch.no_grad():
        image = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        expected = student(image, torch.from_numpy(style)) * 255
    worst = np.abs(found.astype(float) - expected.permute(0, 2, 3, 1).numpy()).max()
    assert worst <= 1.01


def test_a_student_with_attention_is_refused():
    config = replace(CONFIG, tokens=2)
    corpus = training.Corpus([picture(n, 96) for n in range(3)], [], [picture(9, 256)])
    with pytest.raises(PruningError, match='attends to a style image'):
        StylePupil(corpus, perceptual.Features(), RECIPE, StyleStudent(config),
                   StyleEncoder(config))


@pytest.fixture
def arguments(weights, tmp_path) -> list[str]:
    """Arguments of `muon-ad prune style` for a short run on pictures made here."""
    for name, number, side in (('photos', 9, 64), ('styles', 2, 256)):
        (tmp_path / name).mkdir()
        for index in range(number):
            cv2.imwrite(str(tmp_path / name / f'{index}.png'), picture(index, side))
    torch.manual_seed(0)
    torch.save(perceptual.Features().state_dict(), tmp_path / 'features.pth')
    return ['prune', 'style', str(weights.parent.parent), '--content', str(tmp_path / 'photos'),
            '--styles', str(tmp_path / 'styles'), '--features', str(tmp_path / 'features.pth'),
            '--crop', '32', '--batch', '2', '--steps', '6', '--multiple', '4', '--ratio', '0.6',
            '--checkpoint-every', '1']


def test_a_run_that_was_killed_goes_on_as_if_it_never_was(arguments, tmp_path, capsys):
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    assert main([*arguments, '-o', str(whole)]) == 0
    shown = capsys.readouterr().out
    assert 'blocks.1' in shown and 'all' in shown and 'fewer parameters (60% asked)' in shown
    kill_once_there_is(broken / CHECKPOINT, [*arguments, '-o', str(broken)])
    assert 1 <= torch.load(broken / CHECKPOINT, weights_only=True)['step'] < 6
    assert main([*arguments, '-o', str(broken), '--resume']) == 0
    assert (broken / LOG).read_text() == (whole / LOG).read_text()
    assert_same_weights(broken / 'p60.safetensors', whole / 'p60.safetensors')


@pytest.mark.parametrize(('more', 'message'), [
    (['--ratio', '1.5'], 'ratio is 1.5'), (['--threshold', 'tau'], 'tau is None'),
    (['--score', 'batchnorm'], 'no batch normalisation'),
])  # fmt: skip
def test_what_cannot_be_done_is_an_error_of_one_line(more, message, arguments, tmp_path, capsys):
    assert main([*arguments, '-o', str(tmp_path / 'out'), *more]) == 2
    assert message in capsys.readouterr().err
