"""Picture files: read upright and as RGB, written complete or not at all."""

import numpy as np
import pytest
from PIL import Image

from muon_ad import paths
from muon_ad.picture_files import ENDINGS
from muon_ad.picture_files import PictureFileError
from muon_ad.picture_files import pictures_in
from muon_ad.picture_files import read_picture
from muon_ad.picture_files import write_picture

ORIENTATION = 0x0112


def flag() -> np.ndarray:
    """A picture with no symmetry: uint8 [16, 32, 3]."""
    rgb = np.zeros((16, 32, 3), np.uint8)
    rgb[:8, :16] = (250, 10, 10)
    return rgb


@pytest.mark.parametrize('ending', ENDINGS)
def test_what_is_written_is_read_again(tmp_path, ending):
    path = tmp_path / 'new' / f'flag{ending}'
    write_picture(path, flag())
    read = read_picture(path)
    lossy = ending in ('.jpg', '.jpeg', '.webp')
    assert np.abs(read.astype(int) - flag()).mean() <= (6 if lossy else 0)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize('orientation, turned', [
    (1, lambda rgb: rgb), (3, lambda rgb: rgb[::-1, ::-1]), (6, lambda rgb: np.rot90(rgb, -1)),
])  # fmt: skip
def test_photographs_are_read_upright(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(flag()).save(tmp_path / 'photo.jpg', exif=exif, quality=95)
    read = read_picture(tmp_path / 'photo.jpg').astype(int)
    assert read.shape == turned(flag()).shape
    assert np.abs(read - turned(flag())).mean() < 6


def test_a_file_is_as_it_was_where_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / 'flag.png'
    write_picture(path, flag())
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(paths.os, 'fsync', full)
    with pytest.raises(PictureFileError, match='flag.png: cannot be written: .*No space left'):
        write_picture(path, 255 - flag())
    assert path.read_bytes() == before


def test_names_and_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(PictureFileError, match='flag.xyz: expected a name that ends in one of'):
        write_picture(tmp_path / 'flag.xyz', flag())
    with pytest.raises(PictureFileError, match='no picture in it; expected files with'):
        pictures_in(tmp_path)
    with pytest.raises(PictureFileError, match='nowhere: cannot be read'):
        pictures_in(tmp_path / 'nowhere')
    write_picture(tmp_path / 'b.PNG', flag())
    write_picture(tmp_path / 'a.jpg', flag())
    (tmp_path / 'notes.txt').write_text('')
    assert [path.name for path in pictures_in(tmp_path)] == ['a.jpg', 'b.PNG']
