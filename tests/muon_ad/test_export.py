"""Export to model packages: the runtime finds what PyTorch finds, in a real photograph."""

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from torch import nn

from muon_ad import export
from muon_ad.models import importing
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.package import load_package

SSDLITE = 'ssdlite320_mobilenet_v3_large'


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    importing.add_arguments(parser)
    return importing.run(parser.parse_args(list(arguments)))


def opinionated(model: nn.Module) -> nn.Module:
    """Make an untrained model answer to what it sees: as initialised, all scores are alike.

    Normalisation learns the statistics of a photograph, and the last layers' weights are spread.
    """
    torch.manual_seed(0)
    for name, parameter in model.head.named_parameters():
        if name.endswith('.1.weight') and parameter.ndim == 4:
            nn.init.normal_(parameter, std=0.2)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 0.5
    photograph = torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1).float() / 255
    with torch.no_grad():
        for _ in range(5):
            model([photograph, photograph.flip(2)])
    return model.eval()


@pytest.fixture(scope='module')
def ssdlite() -> tuple[nn.Module, list[str]]:
    torch.manual_seed(1)
    model, classes = export.torchvision_model(SSDLITE, random_weights=True)
    return opinionated(model), classes


@pytest.fixture(scope='module')
def package(ssdlite, tmp_path_factory):
    model, classes = ssdlite
    return export.export_torchvision(model, SSDLITE, classes, tmp_path_factory.mktemp('ssdlite'))


@pytest.mark.parametrize('picture', ['astronaut', 'coffee'])
def test_ssdlite_finds_in_the_runtime_what_it_finds_in_torch(ssdlite, package, picture):
    frame = cv2.resize(getattr(skimage.data, picture)(), (320, 320))
    model, classes = ssdlite
    with torch.no_grad():
        expected = model([torch.from_numpy(frame).permute(2, 0, 1).float() / 255])[0]
    expected = {key: value[:100].numpy() for key, value in expected.items()}
    assert len(expected['scores']) > 10, 'this checks nothing if the model finds nothing'
    assert np.ptp(expected['scores']) > 0.01
    detector = Detector(package, score_threshold=0.0, iou_threshold=1.0)
    found = detector.detect(frame)
    assert detector.classes == tuple(classes)
    whole = (expected['boxes'][:, 2:] > expected['boxes'][:, :2]).all(axis=1)
    np.testing.assert_allclose(found.scores, expected['scores'][whole], atol=1e-4)
    # Detections whose scores are equal to the last digits may change places.
    clear = np.abs(np.diff(expected['scores'][whole], prepend=2, append=-1)) > 1e-4
    clear = clear[1:] & clear[:-1]
    assert clear.sum() > 5
    np.testing.assert_allclose(found.boxes[clear], expected['boxes'][whole][clear], atol=0.05)
    np.testing.assert_array_equal(found.class_ids[clear], expected['labels'][whole][clear])


def test_boxes_come_back_in_the_frames_pixels(package):
    frame = skimage.data.astronaut()
    detector = Detector(package, score_threshold=0.0, iou_threshold=1.0)
    small = detector.detect(cv2.resize(frame, (320, 320)))
    large = detector.detect(cv2.resize(cv2.resize(frame, (320, 320)), (640, 640),
                                       interpolation=cv2.INTER_NEAREST))
    np.testing.assert_allclose(large.boxes, 2 * small.boxes, atol=3)


def test_fewer_detections_than_rows_are_filled_up_and_not_reported(ssdlite, tmp_path):
    class Two(nn.Module):
        def forward(self, images):
            boxes = torch.tensor([[0.0, 0, 9, 9], [1, 1, 8, 8]]) + images[0].mean() * 0
            return [{'boxes': boxes, 'scores': boxes[:, 2] / 10, 'labels': boxes[:, 0].long()}]

    fixed = export.FixedRows(Two(), rows=5)
    boxes, scores, labels = fixed(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
    assert (boxes.shape, scores.shape, labels.shape) == ((5, 4), (5,), (5,))
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0, 0, 0])


def test_missing_weights_are_named_with_where_they_belong(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(export.ExportError) as error:
        run(SSDLITE, str(tmp_path / 'out'))
    wanted = tmp_path / 'hub' / 'checkpoints' / 'ssdlite320_mobilenet_v3_large_coco-a79551df.pth'
    assert str(wanted) in str(error.value)
    assert 'download https://' in str(error.value)
    assert not (tmp_path / 'out').exists()


def test_weights_of_another_model_are_an_error(tmp_path):
    path = tmp_path / 'other.pth'
    torch.save({'weight': torch.zeros(3)}, path)
    with pytest.raises(export.ExportError, match='other.pth: not the weights of this model'):
        run(SSDLITE, str(tmp_path / 'out'), '--weights', str(path))
    path.write_bytes(b'not a checkpoint')
    with pytest.raises(export.ExportError, match='other.pth: not the weights'):
        run(SSDLITE, str(tmp_path / 'out'), '--weights', str(path))


def test_weights_from_a_file_and_from_the_cache_are_loaded(ssdlite, tmp_path, monkeypatch):
    model, _ = ssdlite
    cache = tmp_path / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    path = cache / 'ssdlite320_mobilenet_v3_large_coco-a79551df.pth'
    torch.save(model.state_dict(), path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    for weights in (path, None):
        loaded, _ = export.torchvision_model(SSDLITE, weights)
        for name, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value)


def test_unknown_models_and_sizes_are_errors(tmp_path, capsys):
    with pytest.raises(export.ExportError, match="'yolo' is not known to torchvision"):
        run('yolo', str(tmp_path), '--random-weights')
    with pytest.raises(SystemExit):
        run(SSDLITE, str(tmp_path), '--size', '320')
    assert "'320' is not WIDTHxHEIGHT" in capsys.readouterr().err


def test_the_command_writes_a_package_that_says_what_it_is(tmp_path, capsys):
    out = tmp_path / 'deep' / 'package'
    assert run(SSDLITE, str(out), '--random-weights', '--size', '160x128') == 0
    assert '160x128, 91 classes' in capsys.readouterr().out
    detector = Detector(load_package(out), score_threshold=0.0)
    assert detector.variant.width == 160
    detector.detect(np.zeros((100, 50, 3), np.uint8))
    assert Path(out / 'model.yaml').read_text().startswith(f'name: {SSDLITE}')
