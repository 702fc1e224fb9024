"""Training of the detector on annotated pictures: scenes, assignment, and runs of the command."""

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from drawn_shapes import COLOURS
from drawn_shapes import picture
from drawn_shapes import write_coco
from drawn_shapes import write_voc

from muon_ad.metrics.detection import Truth
from muon_ad.networks.detector import cells
from muon_ad.networks.detector import load_detector
from muon_ad.networks.detector import save_detector
from muon_ad.runtime.boxes import iou
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.package import load_package
from muon_ad.train import detector as training
from muon_ad.train.annotated_scenes import AnnotatedScenes
from muon_ad.train.annotated_scenes import joined
from muon_ad.train.annotated_scenes import mirrored
from muon_ad.train.annotated_scenes import moved
from muon_ad.train.annotations import read_coco
from muon_ad.train.assignment import assigned
from muon_ad.train.checkpoint import CHECKPOINT
from muon_ad.train.compose import Placed
from muon_ad.train.images import DataError
from muon_ad.train.imitation import imitation_losses
from muon_ad.train.log import LOG

SHIPPED = Path(__file__).resolve().parents[2] / 'models' / 'detector_default'
SIZE = (96, 64)


def truth(*boxes: tuple[float, ...], ids: tuple[int, ...] = (), ignored=None) -> Truth:
    flags = np.zeros(len(boxes), bool) if ignored is None else np.array(ignored)
    return Truth(np.float32(boxes).reshape(-1, 4), np.array(ids or [0] * len(boxes), int), flags)


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    training.add_arguments(parser)
    return training.run(parser.parse_args([str(each) for each in arguments]))


def options(out: Path) -> tuple:
    return ('--out', out, '--width', SIZE[0], '--height', SIZE[1], '--batch', 4, '--fp32',
            '--steps', 6, '--warm-up', 1, '--validate-every', 3)


# ---- scenes

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return read_coco(write_coco(tmp_path_factory.mktemp('coco')))


def test_boxes_lie_where_the_shapes_are_drawn(data):
    """In every scene that is composed, what is in a box has the colour of its class."""
    scenes = AnnotatedScenes(data.training, SIZE, seed=1)
    colours = np.float32([COLOURS[name] for name in data.classes])
    seen = 0
    for number in range(12):
        for pixels, found in zip(*scenes.batch(number, 4), strict=True):
            for box, index in zip(found.boxes[~found.ignored], found.class_ids[~found.ignored],
                                  strict=True):
                x, y = ((box[:2] + box[2:]) / 2).astype(int)
                colour = cv2.blur(pixels, (3, 3))[y, x].astype(np.float32)
                # Colours are disturbed: what stays is which of red and blue is more.
                assert np.sign(colour[0] - colour[2]) == np.sign(
                    colours[index][0] - colours[index][2])
                seen += 1
    assert seen > 40


def test_scenes_depend_on_seed_and_number_alone(data):
    first, again, other = (AnnotatedScenes(data.training, SIZE, seed) for seed in (1, 1, 2))
    first.batch(0, 2)
    for got, wanted in zip(first.batch(5, 2)[1], again.batch(5, 2)[1], strict=True):
        np.testing.assert_array_equal(got.boxes, wanted.boxes)
    assert (first.batch(5, 2)[0] == again.batch(5, 2)[0]).all()
    assert (first.batch(5, 2)[0] != other.batch(5, 2)[0]).any()


def test_pictures_that_cannot_be_decoded_are_told_and_left_out(tmp_path, capsys):
    pictures = read_coco(write_coco(tmp_path)).training
    pictures[0].path.write_bytes(b'not a picture')
    scenes = AnnotatedScenes(pictures, SIZE, seed=0)
    for number in range(8):
        scenes.batch(number, 4)
    assert scenes.unreadable == {0}
    assert capsys.readouterr().out.count('0000.png: cannot be decoded as an image') == 1
    for each in pictures:
        each.path.write_bytes(b'')
    with pytest.raises(DataError, match='none of 12 pictures'):
        AnnotatedScenes(pictures, SIZE, seed=0).batch(0, 1)


def test_moved_boxes_are_cut_ignored_or_dropped():
    twice = Placed(np.diag([2.0, 2.0, 1.0]), (0, 0, 60, 40))
    there = moved(truth((5, 5, 15, 15), (25, 5, 40, 10), (28, 2, 78, 12), (40, 0, 50, 9),
                        (1, 1, 2, 9), ids=(0, 1, 2, 3, 4)), twice)
    assert there.class_ids.tolist() == [0, 1, 2, 4]     # one is outside
    np.testing.assert_array_equal(there.boxes, np.float32(
        [[10, 10, 30, 30], [50, 10, 60, 20], [56, 4, 60, 24], [2, 2, 4, 18]]))
    # A third is left of the second; too little of the third; the last is too thin.
    assert there.ignored.tolist() == [False, False, True, True]


def test_what_was_ignored_stays_so():
    place = Placed(np.eye(3), (0, 0, 60, 40))
    assert moved(truth((5, 5, 25, 25), ignored=[True]), place).ignored.tolist() == [True]
    assert not len(moved(truth(), place).boxes)


def test_truths_are_joined_and_mirrored():
    both = joined([truth((0, 0, 9, 9)), truth((5, 6, 7, 8), ids=(3,), ignored=[True])])
    assert both.class_ids.tolist() == [0, 3] and both.ignored.tolist() == [False, True]
    np.testing.assert_array_equal(mirrored(both, 20).boxes[1], [13, 6, 15, 8])


# ---- assignment

def output(classes: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A raw output that says nothing, with the cells of its grid."""
    places, strides = cells(*SIZE)
    return torch.zeros(1, len(places), 5 + classes), places, strides


def test_cells_around_the_middle_of_an_object_are_to_find_it():
    raw, places, strides = output()
    box = (20.0, 10.0, 52.0, 42.0)
    targets = assigned(raw, [truth(box, ids=(1,))], places, strides)
    chosen = targets.objectness[0].bool()
    assert chosen.sum() >= 1
    centres = ((places + 0.5) * strides)[chosen]
    assert ((centres - torch.tensor([36.0, 26.0])).abs() < 2.5 * strides[chosen]).all()
    assert (centres > torch.tensor(box[:2])).all() and (centres < torch.tensor(box[2:])).all()
    torch.testing.assert_close(targets.boxes[0, chosen], torch.tensor([box] * int(chosen.sum())))
    assert (targets.labels[0, :, 0] == 0).all()
    assert (targets.labels[0, chosen, 1] > 0).all() and (targets.labels[0, ~chosen] == 0).all()
    assert targets.counted.all()


def test_the_better_a_network_finds_an_object_the_more_cells_it_gets():
    raw, places, strides = output()
    box = torch.tensor([16.0, 8.0, 64.0, 56.0])
    few = assigned(raw, [truth(box.tolist())], places, strides).objectness.sum()
    middle, extent = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    raw[0, :, :2] = middle / strides - places
    raw[0, :, 2:4] = (extent / strides).log()
    assert few < assigned(raw, [truth(box.tolist())], places, strides).objectness.sum() == 10


def test_a_cell_goes_to_the_object_that_it_fits_better():
    raw, places, strides = output()
    near, far = (8.0, 8.0, 40.0, 40.0), (24.0, 24.0, 56.0, 56.0)
    alone = [assigned(raw, [truth(box)], places, strides).objectness[0].bool()
             for box in (near, far)]
    both = assigned(raw, [truth(near, far)], places, strides)
    assert (both.objectness[0].bool() <= (alone[0] | alone[1])).all()
    owned = {tuple(box.tolist()) for box in both.boxes[0][both.objectness[0].bool()]}
    assert owned == {near, far}


def test_objects_thinner_than_a_cell_or_outside_do_not_break_it():
    raw, places, strides = output()
    odd = truth((40, 20, 40.5, 20.5), (300, 300, 320, 320), (-50, -50, 200, 200))
    targets = assigned(raw, [odd], places, strides)
    assert torch.isfinite(targets.labels).all()
    owned = {tuple(box.tolist()) for box in targets.boxes[0][targets.objectness[0].bool()]}
    assert (40, 20, 40.5, 20.5) in owned and (300, 300, 320, 320) not in owned


def test_nothing_is_asked_where_an_ignored_object_is():
    raw, places, strides = output()
    crowd = truth((0, 0, 48, 64), ignored=[True])
    targets = assigned(raw, [crowd], places, strides)
    assert not targets.objectness.any()
    inside = ((places + 0.5) * strides)[:, 0] < 48
    assert (targets.counted[0].bool() == ~inside).all()
    losses = [imitation_losses(raw, assigned(raw, [each], places, strides), places, strides)
              for each in (crowd, truth())]
    assert losses[0]['objectness'] < losses[1]['objectness']
    assert losses[1]['boxes'] == losses[1]['labels'] == 0


def test_the_losses_of_what_was_assigned_lead_to_the_boxes():
    """Descending them, a free output comes to find just what is there."""
    raw, places, strides = output()
    there = truth((20, 10, 52, 42), (60, 30, 90, 60), ids=(0, 1))
    raw.requires_grad_()
    optimizer = torch.optim.Adam([raw], 0.1)
    for _ in range(150):
        targets = assigned(raw.detach(), [there], places, strides)
        loss = sum(imitation_losses(raw, targets, places, strides).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = (raw[0, :, 4:5].sigmoid() * raw[0, :, 5:].sigmoid()).detach()
    for index, box in enumerate(there.boxes):
        best = scores[:, index].argmax()
        assert scores[best, index] > 0.6 and scores[best, 1 - index] < 0.3
        wanted = assigned(raw.detach(), [there], places, strides).boxes[0, best]
        np.testing.assert_allclose(wanted, box)


# ---- the command

def test_some_steps_on_coco_lower_the_loss_and_place_the_boxes(tmp_path, capsys):
    out = tmp_path / 'out'
    assert run('--coco', write_coco(tmp_path / 'coco', 24, 8), *options(out), '--steps', 60,
               '--weights', SHIPPED / 'weights' / 'dense.safetensors', '--classes', 'disc,square',
               '--batch', 8, '--rate', 3e-3, '--optimizer', 'adamw', '--curriculum', 'off',
               '--average', 0.9, '--validate-every', 30, '--name', 'shapes') == 0
    said = capsys.readouterr()
    assert '24 pictures with' in said.out and 'step 30: mAP' in said.out + said.err
    rows = list(csv.DictReader((out / LOG).open()))
    assert float(rows[-1]['loss']) < 0.8 * float(rows[0]['loss'])
    assert rows[0]['mAP'] == ''
    assert float(rows[-1]['mAP']) > 0.3
    package = load_package(out / 'package')
    assert package.classes == ('disc', 'square') and package.name == 'shapes'
    assert 'average precision, 8 annotated unseen pictures' in package.quality
    detector, hits, shapes = Detector(package, score_threshold=0.05), 0, 0
    for number in range(200, 210):      # drawn anew
        pixels, things = picture(number)
        found = detector.detect(pixels)
        for name, box in things:
            same = found.boxes[found.class_ids == package.classes.index(name)]
            hits += iou(same, np.float32([box])).max(initial=0) > 0.5
            shapes += 1
    assert hits > 0.5 * shapes


def test_voc_is_learnt_from_on_from_weights_of_other_classes(tmp_path):
    folder = write_voc(tmp_path / 'voc')
    torch.manual_seed(0)
    net = training.DetectorNet(2)
    save_detector(tmp_path / 'start.safetensors', net, ('square', 'cat'))
    out = tmp_path / 'out'
    arguments = ('--voc', folder, *options(out), '--weights', tmp_path / 'start.safetensors',
                 '--rate', 1e-6)
    with pytest.raises(DataError, match=r"no objects of classes \['cat'\]"):
        run(*arguments)     # by default, classes are those of the weights
    assert run(*arguments, '--classes', 'disc,square') == 0
    learnt, classes = load_detector(out / training.WEIGHTS)
    assert classes == ('disc', 'square')
    # At that rate the network is still the one it started from, and its square is the first row.
    torch.testing.assert_close(learnt.stage16[0][0].weight, net.stage16[0][0].weight,
                               rtol=0, atol=1e-4)
    torch.testing.assert_close(learnt.label[0].weight[1], net.label[0].weight[0],
                               rtol=0, atol=1e-4)


def test_annotations_and_a_teacher_are_learnt_from_at_once(tmp_path):
    torch.manual_seed(1)
    package = training.export_detector(
        training.DetectorNet(2).eval(), ['disc', 'square'], tmp_path / 'teacher', [SIZE],
        {'name': 'teacher'})
    coco = write_coco(tmp_path / 'coco')
    out = tmp_path / 'out'
    assert run('--coco', coco, *options(out), '--steps', 20, '--teacher', package.folder,
               package.folder, '--images', coco / 'train2017', '--pool', 8,
               '--curriculum', 'off') == 0
    row = list(csv.DictReader((out / LOG).open()))[-1]
    assert float(row['features']) > 0 and row['mAP']
    parts = sum(float(row[name]) for name in ('objectness', 'labels', 'boxes', 'features'))
    assert float(row['loss']) == pytest.approx(parts, rel=1e-4)


class EnoughError(Exception):
    """Ends a run as a crash would."""


def test_a_run_on_annotations_goes_on_as_if_never_interrupted(tmp_path, monkeypatch):
    coco = write_coco(tmp_path / 'coco')
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    assert run('--coco', coco, *options(whole)) == 0
    advance = training.Trainer.advance

    def advance_or_end(trainer):
        if trainer.step == 5:
            raise EnoughError
        return advance(trainer)

    with monkeypatch.context() as patched, pytest.raises(EnoughError):
        patched.setattr(training.Trainer, 'advance', advance_or_end)
        run('--coco', coco, *options(broken), '--checkpoint-every', 2)
    assert torch.load(broken / CHECKPOINT, weights_only=True)['step'] == 4
    assert run('--coco', coco, *options(broken), '--resume') == 0
    states = [torch.load(out / CHECKPOINT, weights_only=True) for out in (whole, broken)]
    for name, value in states[0]['average'].items():
        torch.testing.assert_close(states[1]['average'][name], value, rtol=0, atol=0, msg=name)
    assert states[0]['precision'] == states[1]['precision'] is not None


def test_nothing_to_learn_from_is_an_error(tmp_path):
    with pytest.raises(DataError, match='give --coco or --voc, or --teacher'):
        run(*options(tmp_path / 'out'))
    with pytest.raises(DataError, match='nowhere: no annotations/instances'):
        run('--coco', 'nowhere', *options(tmp_path / 'out'))
