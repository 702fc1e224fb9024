"""What the process of a job answers, in this process: its messages and its errors."""

import threading
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
import tiny_backbones
import torch

from muon_ad.distill import descent
from muon_ad.distill import worker
from muon_ad.distill.devices import choose_device
from muon_ad.distill.devices import DeviceError
from muon_ad.distill.jobs import Done
from muon_ad.distill.jobs import Failed
from muon_ad.distill.jobs import Job
from muon_ad.distill.result import NotFinite
from muon_ad.distill.settings import Settings
from muon_ad.picture_files import write_picture

SETTINGS = Settings(steps=3, preview_every=2)


@pytest.fixture(scope='module')
def backbone(tmp_path_factory) -> Path:
    return tiny_backbones.build_plain(tmp_path_factory.mktemp('backbone'))


@pytest.fixture
def answer(backbone):
    """Answer a job; return the messages before the last, and the last."""
    picture = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)

    def answer(cancelled: bool = False, **fields):
        ours, theirs = Pipe()
        event = threading.Event()
        if cancelled:
            event.set()
        given = {'content': picture, 'style': picture, 'settings': SETTINGS, 'device': 'cpu',
                 'backbone': backbone, **fields}
        end = worker._answer(Job(**given), theirs, event)
        steps = []
        while ours.poll():
            steps.append(ours.recv())
        return steps, end

    return answer


def test_steps_with_previews_where_they_are_due_and_then_the_picture(answer):
    steps, end = answer(previews=True)
    assert [(step.step, step.steps) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert [step.preview is not None for step in steps] == [False, True, True]
    assert isinstance(end, Done) and not end.cancelled
    assert end.image.shape == (24, 32, 3) and end.image.dtype == np.uint8
    assert (steps[-1].preview == end.image).all()
    assert end.style_losses == [step.style_loss for step in steps]
    assert end.content_losses == [step.content_loss for step in steps]


def test_without_previews_none_is_decoded(answer):
    assert all(step.preview is None for step in answer()[0])


def test_a_file_is_read_and_a_cancelled_job_says_so(answer, tmp_path):
    write_picture(tmp_path / 'content.png', np.full((20, 30, 3), 90, np.uint8))
    steps, end = answer(cancelled=True, content=tmp_path / 'content.png')
    assert not steps
    assert end.cancelled and end.steps == 0 and end.image.shape == (20, 30, 3)


def test_what_cannot_be_done_is_told_by_field(answer):
    assert answer(content=Path('none.png'))[1].message == (
        "content_path is 'none.png': none.png: no such file; expected an image file"
    )
    assert 'nowhere: no such folder; a backbone is' in answer(backbone=Path('nowhere'))[1].message


def test_what_is_not_finite_comes_with_the_picture_before_it(answer, monkeypatch):
    advance = descent.Descent.advance

    def spoiling(self) -> None:
        advance(self)
        if self.step == 2:
            raise NotFinite('the style loss is')

    monkeypatch.setattr(descent.Descent, 'advance', spoiling)
    _, end = answer()
    assert 'the style loss is not finite' in end.message
    assert end.image.shape == (24, 32, 3)


@pytest.mark.parametrize('error, message', [
    (torch.OutOfMemoryError('CUDA out of memory. Tried\nmuch'),
     'size is 256; there is not the memory for it on cpu, take a smaller one (CUDA out of memory. '
     'Tried)'),
    (ZeroDivisionError('by nothing'), 'ZeroDivisionError: by nothing'),
])  # fmt: skip
def test_other_errors(answer, monkeypatch, error, message):
    def failing(_self) -> None:
        raise error

    monkeypatch.setattr(descent.Descent, 'advance', failing)
    _, end = answer()
    assert isinstance(end, Failed)
    assert end.message == message


def test_devices():
    there = torch.cuda.is_available()
    assert choose_device('cpu') == 'cpu'
    assert choose_device('auto') == ('cuda' if there else 'cpu')
    if not there:
        with pytest.raises(DeviceError, match="device is 'cuda'; expected .* there is no GPU"):
            choose_device('cuda')
