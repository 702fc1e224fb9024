"""Training of the detector: targets, scenes, losses, and a run that is killed and taken up again.

The teacher is a network made here, in the same format as a real one, that sees an object wherever
a cell is red: it takes seconds to imitate.
"""

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from support import kill_once_there_is
from torch import nn
from torch import Tensor
from torch.nn import functional

from muon_ad.export import write_package
from muon_ad.networks.detector import boxes
from muon_ad.networks.detector import cells
from muon_ad.networks.detector import DetectorNet
from muon_ad.networks.detector import for_classes
from muon_ad.networks.detector import STRIDES
from muon_ad.runtime.boxes import iou
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.train import detector as training
from muon_ad.train.checkpoint import CHECKPOINT
from muon_ad.train.compose import compose
from muon_ad.train.compose import disturb
from muon_ad.train.detection_data import Library
from muon_ad.train.detection_data import library
from muon_ad.train.detection_data import Pool
from muon_ad.train.detector_export import export_detector
from muon_ad.train.detector_trainer import Lessons
from muon_ad.train.detector_trainer import Recipe
from muon_ad.train.detector_trainer import Trainer
from muon_ad.train.images import DataError
from muon_ad.train.imitation import feature_loss
from muon_ad.train.imitation import imitation_losses
from muon_ad.train.imitation import mirror
from muon_ad.train.imitation import Targets
from muon_ad.train.log import LOG
from muon_ad.train.taps import TapError
from muon_ad.train.teacher import Teacher
from muon_ad.train.teacher import teacher_package

SIZE = 64
CLASSES = ('red', 'green', 'grey')


class ColourTeacher(nn.Module):
    """Objectness and labels are how red, green and grey a cell is; the box is four cells wide."""

    def forward(self, image: Tensor) -> Tensor:
        rgb = image.permute(0, 3, 1, 2).float() / 255
        rest = rgb.sum(1, keepdim=True) - rgb
        likeness = (rgb - rest / 2).clamp(0, 1)
        likeness = torch.cat([likeness[:, :2], torch.zeros_like(likeness[:, :1])], 1)
        levels = []
        for stride in STRIDES:
            labels = functional.avg_pool2d(likeness, stride)
            box = torch.zeros_like(labels[:, :1]) + 0.5
            extent = torch.full_like(box, np.log(4))
            objectness = labels.amax(1, keepdim=True)
            parts = [box, box, extent, extent, objectness, labels]
            levels.append(torch.cat(parts, 1).flatten(2))
        return torch.cat(levels, 2).transpose(1, 2)


@pytest.fixture(scope='module')
def package(tmp_path_factory) -> ModelPackage:
    folder = tmp_path_factory.mktemp('teacher')
    torch.onnx.export(
        ColourTeacher(), (torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8),),
        str(folder / 'net.onnx'), input_names=['image'], output_names=['output'], dynamo=False,
    )
    return write_package(folder, {
        'name': 'colours', 'task': 'detection', 'input': {'resize': 'letterbox'},
        'decoder': {'name': 'yolox'}, 'classes': list(CLASSES),
        'variants': {'only': {'file': 'net.onnx', 'width': SIZE, 'height': SIZE}},
    })


@pytest.fixture(scope='module')
def teacher(package) -> Teacher:
    return Teacher(package, ['green', 'red'], SIZE, SIZE)


@pytest.fixture(scope='module')
def pictures() -> list[np.ndarray]:
    """Grey pictures with a red or a green square."""
    rng = np.random.default_rng(0)
    made = []
    for index in range(12):
        picture = np.full((96, 128, 3), rng.integers(60, 200), np.uint8)
        x, y = rng.integers(0, 64, 2)
        picture[y:y + 40, x:x + 40] = [(220, 20, 20), (20, 220, 20)][index % 2]
        made.append(picture)
    return made


@pytest.fixture(scope='module')
def source(pictures, teacher) -> Library:
    return library(pictures, teacher.detector, ['green', 'red'])


@pytest.fixture
def folder(tmp_path, pictures) -> Path:
    images = tmp_path / 'images'
    images.mkdir()
    for index, picture in enumerate(pictures):
        cv2.imwrite(str(images / f'{index:02}.png'), picture[:, :, ::-1])
    return images


def options(folder: Path, package: ModelPackage, out: Path, *more: str) -> list[str]:
    return ['--sequences', str(folder), '--teacher', str(package.folder), '--out', str(out),
            '--classes', 'red,green', '--width', str(SIZE), '--height', str(SIZE),
            '--pool', '16', '--batch', '4', '--mimic', '0', *more]


def run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    training.add_arguments(parser)
    return training.run(parser.parse_args(arguments))


def test_the_teachers_cells_are_the_students(teacher):
    scene = np.zeros((SIZE, SIZE, 3), np.uint8)
    scene[16:24, 40:48] = (255, 0, 0)  # column 5, row 2 at stride 8
    found, objectness, labels, _ = teacher.label(scene)
    places, strides = cells(SIZE, SIZE)
    best = objectness.argmax()
    assert places[best].tolist() == [5, 2]
    assert strides[best] == 8
    np.testing.assert_allclose(found[best], [28, 4, 60, 36], rtol=1e-4)
    assert labels[best].tolist() == pytest.approx([0, 1])


@pytest.mark.parametrize(('width', 'height'), [(32, 64), (64, 32), (32, 32)])
def test_a_smaller_scene_uses_the_upper_left_of_the_teachers_grid(package, width, height):
    small = Teacher(package, ['red'], width, height)
    scene = np.zeros((height, width, 3), np.uint8)
    scene[16:24, 8:16] = (255, 0, 0)
    found, objectness, _, _ = small.label(scene)
    places, strides = cells(width, height)
    assert len(objectness) == len(places)
    best = objectness.argmax()
    assert (places[best].tolist(), strides[best].item()) == ([1, 2], 8)
    np.testing.assert_allclose(found[best], [-4, 4, 28, 36], rtol=1e-4)


def test_objects_of_classes_not_learnt_are_background(package):
    scene = np.full((SIZE, SIZE, 3), (0, 255, 0), np.uint8)
    assert Teacher(package, ['green'], SIZE, SIZE).label(scene)[1].min() == 1
    assert Teacher(package, ['red'], SIZE, SIZE).label(scene)[1].max() == 0


@pytest.mark.parametrize(('classes', 'width', 'message'), [
    (['purple'], SIZE, r"\['purple'\] are not known to the teacher"),
    (['red'], 96, '96x64; expected multiples of 32, not above the 64x64'),
    (['red'], 40, '40x64; expected multiples of 32'),
])
def test_a_teacher_that_does_not_suit_is_an_error(package, classes, width, message):
    with pytest.raises(DataError, match=message):
        Teacher(package, classes, width, SIZE)


def test_the_library_holds_crops_and_draws_classes_evenly(pictures, source):
    assert len(source.pictures) > len(pictures)
    assert set(source.counts) == {'red', 'green'}
    assert source.weights.sum() == pytest.approx(1)


def test_without_objects_every_picture_is_drawn_alike(teacher):
    plain = [np.full((64, 64, 3), 100, np.uint8)] * 4
    found = library(plain, teacher.detector, ['red'])
    assert found.weights.tolist() == [0.25] * 4


def test_scenes_depend_on_their_number_alone(source, teacher):
    first, second = (Pool(source, teacher, (SIZE, SIZE), 4, seed=3) for _ in range(2))
    for index in range(6):
        first.make(index)
    for index in range(2, 6):
        second.make(index)
    np.testing.assert_array_equal(first.scenes.images, second.scenes.images)
    np.testing.assert_array_equal(first.scenes.boxes, second.scenes.boxes)
    assert len(np.unique(first.scenes.images.reshape(4, -1), axis=0)) == 4


def test_scenes_and_disturbances_are_images_that_vary(source):
    scenes = [compose(np.random.default_rng(seed), source.draw, 96, 64)[0] for seed in range(40)]
    assert all(scene.shape == (64, 96, 3) and scene.dtype == np.uint8 for scene in scenes)
    changed = [disturb(np.random.default_rng(seed), scenes[0]) for seed in range(8)]
    assert all(scene.shape == (64, 96, 3) and scene.dtype == np.uint8 for scene in changed)
    # A few are of one colour, where the zoom is into a square.
    assert len({scene.tobytes() for scene in scenes + changed}) > 40


@pytest.fixture(scope='module')
def open_teacher(tmp_path_factory) -> Teacher:
    """A teacher with a decoupled head: an untrained network of our own."""
    torch.manual_seed(0)
    net = DetectorNet(2).eval()
    folder = tmp_path_factory.mktemp('open')
    package = export_detector(net, ['red', 'green'], folder, [(SIZE, SIZE)], {'name': 'open'})
    teacher = Teacher(package, ['red'], 32, SIZE, inside=True)
    teacher.net, teacher.package = net, package
    return teacher


def test_a_teacher_shows_the_features_before_its_head(open_teacher):
    scene = np.random.default_rng(0).integers(0, 256, (SIZE, 32, 3), np.uint8)
    shown = open_teacher.label(scene)[3]
    padded = np.full((SIZE, SIZE, 3), 114, np.uint8)
    padded[:, :32] = scene
    with torch.no_grad():
        image = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255
        levels = open_teacher.net.features(image)
    shared = [level[..., : level.shape[3] // 2].flatten(2)[0].T for level in levels]
    np.testing.assert_allclose(shown, torch.cat(shared).numpy(), rtol=1e-3, atol=1e-3)


def test_a_teacher_without_features_is_an_error_that_says_what_to_do(package):
    with pytest.raises(TapError, match='stride 8; train with --mimic 0'):
        Teacher(package, ['red'], SIZE, SIZE, inside=True)


def test_a_bare_yolox_is_a_teacher(data):
    package = teacher_package(data / 'weights' / 'yolox_nano.onnx')
    teacher = Teacher(package, ['person'], 320, 256, inside=True)
    scene = cv2.resize(skimage.data.astronaut(), (256, 256))
    scene = np.hstack([scene, np.zeros((256, 64, 3), np.uint8)])
    found, objectness, labels, features = teacher.label(scene)
    best = (objectness * labels[:, 0]).argmax()
    assert objectness[best] * labels[best, 0] > 0.5
    assert iou(found[[best]], np.float32([[10, 0, 230, 256]]))[0, 0] > 0.6
    assert features.shape == (len(found), 64)


def test_a_bare_file_of_another_kind_is_an_error(negative_package):
    with pytest.raises(DataError, match=r'encoder.onnx: input is \[1, 256, 256, 3\]; expected'):
        teacher_package(negative_package / 'encoder.onnx')
    with pytest.raises(DataError, match='none.onnx: no such file'):
        teacher_package(Path('none.onnx'))


def test_feature_loss_ignores_scale_and_shift_but_not_the_pattern():
    torch.manual_seed(0)
    levels = [torch.randn(2, 5, 8, 8), torch.randn(2, 5, 4, 4)]
    same = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1)
    assert feature_loss(levels, 3 * same - 7).item() == pytest.approx(0, abs=1e-4)
    assert feature_loss(levels, -same).item() == pytest.approx(4, abs=1e-3)
    assert 1.5 < feature_loss(levels, torch.randn_like(same)).item() < 2.5
    assert feature_loss([], same[..., :0]).item() == 0


@pytest.fixture
def make_trainer(open_teacher, source):
    """A trainer that imitates features; by default of 90 steps by the curriculum."""
    def make(**settings) -> Trainer:
        settings = {'steps': 90, 'batch': 4, 'warm_up': 10, 'pool': 8, **settings}
        recipe = Recipe(('red',), 32, SIZE, **settings)
        return Trainer(recipe, Lessons(open_teacher, source, source))

    return make


def test_a_run_imitates_features_where_the_teacher_shows_them(make_trainer):
    trainer = make_trainer()
    before = trainer.advance()['features']
    for _ in range(30):
        after = trainer.advance()['features']
    assert 0 < after < 0.8 * before


def test_the_curriculum_freezes_the_adapters_and_lowers_the_rate(make_trainer):
    trainer = make_trainer(steps=12, warm_up=1)
    logged = [trainer.advance() for _ in range(6)]
    adapters = {name: value.clone() for name, value in trainer.adapters.state_dict().items()}
    net = trainer.net.box[0].weight.clone()
    logged += [trainer.advance() for _ in range(6)]
    for name, value in trainer.adapters.state_dict().items():
        assert torch.equal(value, adapters[name])
    assert not torch.equal(trainer.net.box[0].weight, net)
    assert logged[0]['rate'] == logged[5]['rate'] == pytest.approx(10 * logged[-1]['rate'])


def test_the_balance_follows_the_held_out_scenes_and_weighs_the_losses(make_trainer):
    trainer = make_trainer(steps=30, warm_up=1)
    assert {trainer.advance()['lambda'] for _ in range(5)} == {0.8}
    logged = [trainer.advance() for _ in range(10)]
    assert len({row['lambda'] for row in logged}) > 5
    row = logged[-1]
    parts = row['objectness'] + row['labels'] + row['boxes']
    weight = row['lambda']
    assert row['loss'] == pytest.approx(
        weight / 0.8 * row['features'] + (1 - weight) / 0.2 * parts, rel=1e-5)


def test_without_a_curriculum_the_losses_are_added_and_the_rate_alone_changes(make_trainer):
    trainer = make_trainer(curriculum=False, steps=12, warm_up=2)
    logged = [trainer.advance() for _ in range(12)]
    for row in logged:
        assert row['loss'] == pytest.approx(
            row['objectness'] + row['labels'] + row['boxes'] + row['features'])
        assert 'lambda' not in row
    rates = [row['rate'] for row in logged]
    assert rates[0] == pytest.approx(rates[1] / 2)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] < 0.1 * rates[1]


def test_mirroring_a_scene_mirrors_its_targets(teacher):
    rng = np.random.default_rng(1)
    scene = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    here = [torch.from_numpy(np.float32(part))[None] for part in teacher.label(scene)]
    there = [torch.from_numpy(np.float32(part))[None] for part in teacher.label(scene[:, ::-1])]
    images = torch.from_numpy(scene).permute(2, 0, 1)[None]
    flipped, targets = mirror(images, Targets(*here))
    assert torch.equal(flipped[0].permute(1, 2, 0), torch.from_numpy(scene[:, ::-1].copy()))
    for name, expected in zip(('boxes', 'objectness', 'labels', 'features'), there, strict=True):
        torch.testing.assert_close(getattr(targets, name), expected, atol=1e-4, rtol=1e-4)


def exact_output(targets: Targets) -> Tensor:
    """The raw output that says exactly what the targets say."""
    places, strides = cells(SIZE, SIZE)
    low, high = targets.boxes[..., :2], targets.boxes[..., 2:]
    return torch.cat([
        (low + high) / 2 / strides - places, ((high - low) / strides).log(),
        torch.logit(targets.objectness, 1e-6)[..., None], torch.logit(targets.labels, 1e-6),
    ], -1)


def test_losses_are_least_where_student_and_teacher_agree(teacher):
    scene = np.full((SIZE, SIZE, 3), (230, 10, 10), np.uint8)
    targets = Targets(*(torch.from_numpy(np.float32(part))[None] for part in teacher.label(scene)))
    places, strides = cells(SIZE, SIZE)
    raw = exact_output(targets)
    torch.testing.assert_close(boxes(raw, places, strides), targets.boxes, atol=1e-3, rtol=1e-3)
    agreed = imitation_losses(raw, targets, places, strides)
    assert agreed['boxes'] < 1e-3
    torch.manual_seed(0)
    for column, name in ((0, 'boxes'), (3, 'boxes'), (4, 'objectness'), (6, 'labels')):
        other = raw.clone()
        other[..., column] += 0.5
        assert imitation_losses(other, targets, places, strides)[name] > agreed[name] + 1e-3


def test_losses_of_an_empty_scene_are_finite(teacher):
    scene = np.zeros((SIZE, SIZE, 3), np.uint8)
    targets = Targets(*(torch.from_numpy(np.float32(part))[None] for part in teacher.label(scene)))
    raw = torch.zeros(1, len(targets.boxes[0]), 7, requires_grad=True)
    losses = imitation_losses(raw, targets, *cells(SIZE, SIZE))
    sum(losses.values()).backward()
    assert losses['labels'] == losses['boxes'] == 0
    assert torch.isfinite(raw.grad).all()


def test_output_has_a_row_for_each_cell():
    net = DetectorNet(4).eval()
    with torch.no_grad():
        raw = net(torch.zeros(2, 3, 64, 96))
    assert raw.shape == (2, len(cells(96, 64)[0]), 9)


def test_a_network_for_other_classes_says_the_same_of_those_it_knows():
    torch.manual_seed(0)
    net = DetectorNet(4).eval()
    image = torch.rand(1, 3, 64, 64)
    other = for_classes(net, 'abcd', 'dxb')
    with torch.no_grad():
        was, now = net(image), other(image)
    torch.testing.assert_close(now[..., [0, 1, 2, 3, 4, 5, 7]], was[..., [0, 1, 2, 3, 4, 8, 6]])
    assert now[..., 6].sigmoid().max() < 0.1    # nothing is known of x


def test_a_short_training_learns_what_the_teacher_sees(folder, package, tmp_path, capsys):
    out = tmp_path / 'out'
    arguments = options(folder, package, out, '--steps', '240', '--rate', '0.003',
                        '--average', '0.98', '--holdout', '0.34', '--sizes', '96x64',
                        '--keep', 'red', '--name', 'squares')
    assert run(arguments) == 0
    assert 'against the teacher, 4 unseen pictures' in capsys.readouterr().out
    rows = list(csv.DictReader((out / 'log.csv').open()))
    assert [int(row['step']) for row in rows] == list(range(20, 241, 20))
    assert float(rows[-1]['loss']) < 0.5 * float(rows[0]['loss'])
    trained = load_package(out / 'package')
    assert trained.name == 'squares'
    assert list(trained.variants) == ['dense_64x64', 'dense_96x64']
    assert trained.classes == ('red',)
    for variant in trained.variants:
        frame = np.full((64, 64, 3), 90, np.uint8)
        frame[16:48, 16:48] = (220, 20, 20)
        found = Detector(trained, variant, score_threshold=0.2).detect(frame)
        assert trained.classes[found.class_ids[0]] == 'red'


def test_a_run_that_was_killed_goes_on_as_if_it_never_was(folder, open_teacher, tmp_path):
    more = ('--steps', '12', '--checkpoint-every', '2', '--classes', 'red', '--mimic', '2')
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    assert run(options(folder, open_teacher.package, whole, *more)) == 0
    arguments = options(folder, open_teacher.package, broken, *more)
    kill_once_there_is(broken / CHECKPOINT, ['train', 'detector', *arguments])
    taken_up = torch.load(broken / CHECKPOINT, weights_only=True)
    assert 2 <= taken_up['step'] < 12
    assert run([*arguments, '--resume']) == 0
    states = [torch.load(out / CHECKPOINT, weights_only=True) for out in (whole, broken)]
    for kind in ('net', 'adapters', 'average'):
        for name, value in states[0][kind].items():
            torch.testing.assert_close(states[1][kind][name], value, rtol=0, atol=0, msg=name)
    assert states[0]['curriculum'] == states[1]['curriculum']
    assert (whole / LOG).read_text() == (broken / LOG).read_text()


def test_a_checkpoint_of_another_recipe_is_an_error(folder, package, tmp_path):
    arguments = options(folder, package, tmp_path / 'out', '--steps', '2')
    assert run(arguments) == 0
    with pytest.raises(ValueError, match='checkpoint.pt: made with'):
        run([*arguments, '--resume', '--rate', '0.5'])


def test_rendered_scenes_are_pictures_that_vary():
    frames = training.rendered(3, seed=0)
    assert all(frame.shape == (400, 533, 3) and frame.dtype == np.uint8 for frame in frames)
    assert len({frame.tobytes() for frame in frames}) == 3


def test_no_pictures_is_an_error(package, tmp_path):
    arguments = options(tmp_path, package, tmp_path / 'out')[2:]
    with pytest.raises(DataError, match='--images, --sequences or --scenes'):
        run(arguments)
    with pytest.raises(DataError, match='nowhere: no such'):
        run(['--images', 'nowhere', *arguments])
