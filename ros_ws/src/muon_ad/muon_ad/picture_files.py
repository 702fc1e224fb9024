"""Picture files: read as RGB whatever they hold, written complete or not at all."""

from pathlib import Path

import cv2
import numpy as np

from muon_ad.paths import is_folder
from muon_ad.paths import write_whole

ENDINGS = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff')


class PictureFileError(ValueError):
    """A picture file cannot be read or written: its path, and what is wrong."""


def read_picture(path: Path) -> np.ndarray:
    """Return the picture in a file as uint8 [H, W, 3] RGB, upright where its EXIF data say how.

    Grey, 16-bit and transparent pictures (over white) are converted. Raises PictureFileError.
    """
    if is_folder(path):
        raise PictureFileError(f'{path}: is a folder; expected an image file')
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = 'no such file' if isinstance(error, FileNotFoundError) else str(error)
        raise PictureFileError(f'{path}: {reason}; expected an image file') from error
    if not data:
        raise PictureFileError(f'{path}: the file is empty; expected an image')
    return _to_rgb(_decoded(data, path), path)


def _decoded(data: bytes, path: Path) -> np.ndarray:
    """Decode to grey, BGR or BGRA in the file's own depth."""
    buffer = np.frombuffer(data, np.uint8)
    try:
        image = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
        if image is not None and image.shape[2:] != (4,):
            # What keeps transparency knows no orientation, and no format of cameras has both.
            image = cv2.imdecode(buffer, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise PictureFileError(f'{path}: cannot be decoded: {error}') from error
    if image is None:
        raise PictureFileError(f'{path}: is not an image; expected PNG, JPEG, BMP, WebP or TIFF')
    return image


def _to_rgb(image: np.ndarray, path: Path) -> np.ndarray:
    if image.dtype == np.uint16:
        image = (image // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        raise PictureFileError(
            f'{path}: holds {image.dtype} pixels; expected 8 or 16 bits a channel'
        )
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if image.shape[2] == 4:
        cover = image[..., 3:].astype(np.float32) / 255
        image = (image[..., :3] * cover + 255 * (1 - cover)).round().astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def write_picture(path: Path, rgb: np.ndarray) -> None:
    """Write uint8 [H, W, 3] RGB in the format that the ending names.

    The file is there complete, or as it was before; folders are made. Raises PictureFileError.
    """
    check_ending(path)
    try:
        _, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data.tobytes())
    except (OSError, cv2.error) as error:
        raise PictureFileError(f'{path}: cannot be written: {error}') from error


def check_ending(path: Path) -> None:
    """Raise PictureFileError unless the name of a file ends as that of a picture."""
    if path.suffix.lower() not in ENDINGS:
        raise PictureFileError(f'{path}: expected a name that ends in one of {ENDINGS}')


def pictures_in(folder: Path) -> list[Path]:
    """Return the picture files in a folder, without subfolders, by name.

    Raises PictureFileError where there is none, or the folder cannot be read.
    """
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    except (OSError, ValueError) as error:
        raise PictureFileError(f'{folder}: cannot be read: {error}') from error
    if not found:
        raise PictureFileError(f'{folder}: no picture in it; expected files with {ENDINGS}')
    return found
