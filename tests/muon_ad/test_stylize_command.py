"""`muon-ad stylize` on a tiny random backbone: its files, batches, errors, and going on later."""

import os
import re
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tiny_backbones

from muon_ad.cli import main
from muon_ad.distill.descent import Descent
from muon_ad.picture_files import read_picture
from muon_ad.picture_files import write_picture

STEPS = 6
SIZE = (24, 32)


@pytest.fixture(scope='module')
def backbone(tmp_path_factory) -> str:
    return str(tiny_backbones.build_plain(tmp_path_factory.mktemp('backbone')))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with a picture to redraw and a style."""
    rng = np.random.default_rng(0)
    for name in ('photo', 'style'):
        write_picture(tmp_path / f'{name}.png', rng.integers(0, 255, (*SIZE, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stylize(folder, backbone):
    """Call the command with files of the folder; return its exit status."""
    def stylize(*words: str) -> int:
        return main(['stylize', *words, '--backbone', backbone, '--steps', str(STEPS)])

    return stylize


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def stop_after(monkeypatch, steps: int, action) -> None:
    """Have `action` called in the place of the step behind that number of them."""
    advance = Descent.advance

    def stopping(descent) -> None:
        if descent.step == steps:
            action()
        advance(descent)

    monkeypatch.setattr(Descent, 'advance', stopping)


def test_a_picture_with_preview_and_video(stylize, folder, capsys):
    before = names(folder)
    assert stylize(
        'photo.png', 'style.png', '-o', 'out.png', '--preview', '--video', '--preview-every', '2'
    ) == 0
    assert names(folder) - before == {'out.png', 'out.preview.png', 'out.mp4'}
    picture = read_picture(folder / 'out.png')
    assert picture.shape == (*SIZE, 3)
    assert (picture != read_picture(folder / 'photo.png')).any()
    assert (read_picture(folder / 'out.preview.png') == picture).all()
    said = capsys.readouterr().out
    assert said.startswith('out.png: 32x24, 6 steps in ')
    video = cv2.VideoCapture(str(folder / 'out.mp4'))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    assert len(frames) == STEPS / 2 + 15        # the last stays for a while
    assert frames[0].shape == (*SIZE, 3)


def test_the_same_seed_gives_the_same_picture_and_settings_arrive(stylize, folder):
    for name, lr in (('one', '0.05'), ('two', '0.05'), ('other', '0.2')):
        assert stylize('photo.png', 'style.png', '-o', f'{name}.png', '--lr', lr) == 0
    one, two, other = (read_picture(folder / f'{name}.png') for name in ('one', 'two', 'other'))
    assert (one == two).all() and (one != other).any()


def test_a_batch_goes_on_behind_a_picture_that_cannot_be_read(stylize, folder, capsys):
    (folder / 'broken.png').write_text('no picture')
    write_picture(folder / 'tall.jpg', np.full((40, 20, 3), 90, np.uint8))
    contents = ('photo.png', 'broken.png', 'tall.jpg')
    assert stylize(*contents, 'style.png', '-o', 'out') == 1
    assert names(folder / 'out') == {'photo.png', 'tall.png'}
    assert read_picture(folder / 'out' / 'tall.png').shape == (40, 20, 3)
    said = capsys.readouterr().err
    assert 'broken.png: is not an image' in said
    assert '1 of 3 pictures could not be made' in said


def test_a_folder_of_pictures(stylize, folder):
    for name in ('a.png', 'b.jpg', 'notes.txt'):
        (folder / 'in').mkdir(exist_ok=True)
        (folder / 'in' / name).write_bytes((folder / 'photo.png').read_bytes())
    assert stylize('in', 'style.png', '-o', 'out') == 0
    assert names(folder / 'out') == {'a.png', 'b.png'}
    # What is there already is not made again.
    stamps = [path.stat().st_mtime_ns for path in sorted((folder / 'out').iterdir())]
    assert stylize('in', 'style.png', '-o', 'out', '--resume') == 0
    assert stamps == [path.stat().st_mtime_ns for path in sorted((folder / 'out').iterdir())]


@pytest.mark.parametrize('words, complaint', [
    (('none.png', 'style.png', '-o', 'o.png'), 'none.png: no such file; expected an image file'),
    (('photo.png', 'none.png', '-o', 'o.png'), 'none.png: no such file'),
    (('photo.png', 'style.png', '-o', 'photo.png'), 'photo.png would be overwritten'),
    (('photo.png', 'style.png', 'style.png', '-o', 'o.png'), 'expected a folder for 2 pictures'),
    (('photo.png', 'photo.png', 'style.png', '-o', 'o'), 'would all become one file'),
    (('photo.png', 'style.png', '-o', 'backbone.txt'), 'backbone.txt, a file; expected a folder'),
    (('photo.png', 'style.png', '-o', 'o.png', '--lr', 'nan'), 'lr is nan; expected'),
    (('photo.png', 'style.png', '-o', 'o.png', '--optimizer', 'x'), "optimizer is 'x'; expected"),
    (('photo.png', 'style.png', '-o', 'o.png', '--threads', '0'), '--threads is 0; expected 1'),
    (('photo.png', 'style.png', '-o', 'backbone.txt/o.png'), 'cannot be written'),
])  # fmt: skip
def test_bad_input_is_one_line(stylize, folder, capsys, words, complaint):
    (folder / 'backbone.txt').write_text('')
    before = names(folder)
    assert stylize(*words) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.startswith('muon-ad stylize: ')
    assert names(folder) == before


def test_a_backbone_that_is_not_there(folder, capsys):
    words = ['stylize', 'photo.png', 'style.png', '-o', 'o.png', '--backbone', 'nowhere']
    assert main(words) == 2
    said = capsys.readouterr().err
    assert 'nowhere: no such folder; a backbone is a folder as diffusers saves it' in said
    assert names(folder) == {'photo.png', 'style.png'}


def test_what_is_not_finite_leaves_picture_and_state_and_says_where(stylize, folder, capsys):
    assert stylize('photo.png', 'style.png', '-o', 'out.png', '--lr', '1e30') == 2
    said = capsys.readouterr().err
    assert re.search(r'photo.png: step [2-9]: .* not finite; try a lower lr', said)
    assert 'the picture before it is in out.last_good.png, the last state in out.png.part' in said
    assert read_picture(folder / 'out.last_good.png').shape == (*SIZE, 3)
    assert (folder / 'out.png.part' / 'state').exists()
    assert not (folder / 'out.png').exists()
    assert stylize('photo.png', 'style.png', '-o', 'out.png') == 0
    assert 'what an earlier run left is discarded' in capsys.readouterr().err


def test_an_interrupted_run_goes_on_to_the_same_picture(stylize, folder, capsys, monkeypatch):
    assert stylize('photo.png', 'style.png', '-o', 'whole.png') == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert stylize('photo.png', 'style.png', '-o', 'out.png', '--video') == 130
    said = capsys.readouterr().err
    assert 'interrupted after step 3; the state is kept in out.png.part' in said
    assert not (folder / 'out.png').exists()
    assert stylize('photo.png', 'style.png', '-o', 'out.png', '--video', '--lr', '1',
                   '--resume') == 2
    assert 'was begun with lr 0.05 (now 1.0)' in capsys.readouterr().err
    assert stylize('photo.png', 'style.png', '-o', 'out.png', '--video', '--resume') == 0
    assert (read_picture(folder / 'out.png') == read_picture(folder / 'whole.png')).all()
    assert (folder / 'out.mp4').exists() and not (folder / 'out.png.part').exists()


def test_a_second_interrupt_ends_at_once(stylize, folder, monkeypatch):
    def impatient() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    stop_after(monkeypatch, 2, impatient)
    assert stylize('photo.png', 'style.png', '-o', 'out.png') == 130
    assert not (folder / 'out.png').exists()


def test_a_killed_run_goes_on_to_the_same_picture(stylize, folder, backbone):
    assert stylize('photo.png', 'style.png', '-o', 'whole.png') == 0
    code = (
        'import os, signal, sys\n'
        'from muon_ad.distill.descent import Descent\n'
        'from muon_ad.cli import main\n'
        'advance = Descent.advance\n'
        'def killed(descent):\n'
        '    if descent.step == 4: os.kill(os.getpid(), signal.SIGKILL)\n'
        '    advance(descent)\n'
        'Descent.advance = killed\n'
        'main(sys.argv[1:])\n'
    )
    words = ['photo.png', 'style.png', '-o', 'out.png', '--save-every', '2']
    done = subprocess.run(
        [sys.executable, '-c', code, 'stylize', *words, '--backbone', backbone, '--steps',
         str(STEPS), '--threads', '1'],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}, capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (folder / 'out.png').exists()
    assert stylize(*words, '--resume') == 0
    assert (read_picture(folder / 'out.png') == read_picture(folder / 'whole.png')).all()
    assert not (folder / 'out.png.part').exists()


def test_the_bar_shows_both_losses_and_the_steps_to_go(stylize, folder, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
    assert stylize('photo.png', 'style.png', '-o', 'out.png') == 0
    said = capsys.readouterr().err
    assert f'{STEPS}/{STEPS}' in said
    assert 'style ' in said and 'content ' in said
