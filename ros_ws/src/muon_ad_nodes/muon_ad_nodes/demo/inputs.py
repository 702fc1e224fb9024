"""What the demo is fed with, as arguments of the launch file; checked before anything starts."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import cv2

IMAGE_ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


class InputError(ValueError):
    """The input or the style cannot be used; the message says what was expected."""


@dataclass(frozen=True)
class Input:
    """Arguments for the launch file, the cameras they start, and whether the input has an end."""

    title: str
    arguments: tuple[str, ...]
    cameras: tuple[str, ...]
    ends: bool = False


def choose_input(text: str) -> Input:
    """Turn what the user gave (nothing, video, folder of images, camera number) into an Input.

    Raises InputError for a path that does not exist or holds no picture, or a missing camera.
    """
    if not text:
        return Input('built-in scene', (), ('camera', 'csi'))
    path = Path(text).expanduser()
    if path.is_dir():
        _check_folder(path)
        return _own(text, f'csi_source:=folder csi_path:={path.resolve()} csi_loop:=true')
    if path.exists():
        _check_video(path)
        arguments = f'csi_source:=video csi_path:={path.resolve()} csi_loop:=false'
        return _own(text, arguments, ends=True)
    device = Path(f'/dev/video{text}')
    if text.isdecimal() and device.exists():
        return _own(text, f'csi_source:=v4l2 csi_device:={device}')
    raise InputError(
        f'input {text!r} is not there; expected a video file, a folder of images, or the number '
        'of a camera'
    )


def check_style(text: str, names: tuple[str, ...]) -> str:
    """Return the style as the nodes take it: a built-in name, or the absolute path of an image.

    Raises InputError for anything else.
    """
    if not text or text in names:
        return text
    path = Path(text).expanduser()
    if path.is_dir():
        raise InputError(f'style {text!r} is a folder; expected an image file')
    if not path.is_file():
        raise InputError(
            f'style {text!r} is not there; expected an image file or one of {", ".join(names)}'
        )
    if cv2.imread(str(path)) is None:
        raise InputError(f'style {text!r} is not an image that can be read')
    return str(path.resolve())


def _own(title: str, arguments: str, ends: bool = False) -> Input:
    # Split at the names only: paths may hold spaces.
    pieces = arguments.replace(' csi_', '\0csi_').split('\0')
    return Input(title, ('realsense:=false', *pieces), ('csi',), ends)


def _check_folder(path: Path) -> None:
    images = (file for file in sorted(path.iterdir()) if file.suffix.lower() in IMAGE_ENDINGS)
    first = list(itertools.islice(images, 16))
    if not first:
        raise InputError(f'folder {path} holds no image ({", ".join(IMAGE_ENDINGS)})')
    if all(cv2.imread(str(file)) is None for file in first):
        raise InputError(f'folder {path}: none of its first {len(first)} images can be read')


def _check_video(path: Path) -> None:
    video = cv2.VideoCapture(str(path))
    readable = video.isOpened() and video.read()[0]
    video.release()
    if not readable:
        raise InputError(f'{path} is not a video that can be read')
