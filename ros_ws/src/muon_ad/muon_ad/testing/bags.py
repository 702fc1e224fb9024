"""Tiny bags from pictures, for tests."""

import struct
from collections.abc import Iterable
from numbers import Real
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from muon_ad.bags import BagWriter
from muon_ad.bags import message_class
from muon_ad.images import ENCODINGS
from muon_ad.pictures import COMPRESSED
from muon_ad.pictures import IMAGE
from muon_ad.replay import messages
from muon_ad.replay.topics import CAMERA_INFO
from muon_ad.replay.topics import is_name
from muon_ad.runtime.positions import Intrinsics

BEGIN_NS = 1_700_000_000_000_000_000
# Of arrays, by channels, where the caller names none.
_PLAIN = {1: 'mono8', 3: 'rgb8', 4: 'rgba8'}
_FROM_RGB = {
    'bgr8': cv2.COLOR_RGB2BGR, '8UC3': cv2.COLOR_RGB2BGR, 'rgba8': cv2.COLOR_RGB2RGBA,
    'bgra8': cv2.COLOR_RGB2BGRA, '8UC4': cv2.COLOR_RGB2BGRA, 'mono8': cv2.COLOR_RGB2GRAY,
    '8UC1': cv2.COLOR_RGB2GRAY,
}
# Of 8 bits, as the pictures.
_ENCODINGS = tuple(name for name, (dtype, _) in ENCODINGS.items() if dtype is np.uint8)
_COMPRESSED = ('rgb8', 'bgr8', 'mono8')
_DEPTHS = {'uint16': '16UC1', 'float32': '32FC1'}
_PICTURES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff')


def write_bag(
    path: str | Path,
    images: str | Path | np.ndarray | Iterable[str | Path | np.ndarray],
    *,
    depth: str | Path | np.ndarray | Iterable[str | Path | np.ndarray] | None = None,
    camera: float | Intrinsics | None = None,
    rate: float = 10.0,
    topic: str = '/image_raw',
    depth_topic: str = '/aligned_depth/image_raw',
    encoding: str = '',
    frame_id: str = 'camera_optical_frame',
    compressed: bool = False,
    begin_ns: int = BEGIN_NS,
) -> Path:
    """Write pictures as a bag of one camera, and return its path.

    images      arrays uint8 [H, W, 3] RGB, [H, W, 4] RGBA or [H, W] grey, picture files, or a
                folder or pattern (`pictures/*.jpg`) of such files, in order of their names
    depth       aligned depth images of the same size, uint16 in millimetres or float32 in metres,
                or files of 16 bits; one an image, or a single one for all
    camera      the calibration: horizontal field of view in degrees, or Intrinsics; camera_info is
                written beside the image's topic
    rate        images a second of their stamps, from `begin_ns` on
    encoding    of sensor_msgs/Image, which the pictures are converted to (default: as they are);
                arrays of another layout than RGB, RGBA or grey, such as yuyv, must be in it
    compressed  write PNG as image_transport does, on `topic`/compressed and
                `depth_topic`/compressedDepth

    A path that ends in .mcap is one file, any other a rosbag2 folder. Raises ValueError for
    pictures that are not there or not usable, BagError (a ValueError) where `path` exists.
    """
    pictures = _read(images)
    depths = _for_each(depth, pictures)
    if not (isinstance(rate, Real) and 0 < rate < 1e6):
        raise ValueError(f'rate is {rate!r}; expected images a second, above 0')
    for parameter, name in (('topic', topic), ('depth_topic', depth_topic)):
        if not is_name(name):
            raise ValueError(f'{parameter} is {name!r}; expected a name such as /image_raw')
    with BagWriter(path) as bag:
        for number, picture in enumerate(pictures):
            time_ns = begin_ns + round(number / rate * 1e9)
            header = messages.header(time_ns, frame_id)
            if camera is not None:
                info = camera_info(camera, picture.shape[1], picture.shape[0], header)
                beside = f'{topic.rpartition("/")[0]}/camera_info'
                bag.write(beside, CAMERA_INFO, time_ns, info)
            if depths is not None:
                _write_depth(bag, depth_topic, depths[number], header, time_ns, compressed)
            _write_picture(bag, topic, picture, encoding, header, time_ns, compressed)
    return Path(path)


def camera_info(camera: float | Intrinsics, width: int, height: int, header: Any) -> Any:
    """Return a sensor_msgs/CameraInfo without distortion; `camera` as in `write_bag`."""
    if not isinstance(camera, Intrinsics):
        if not (isinstance(camera, Real) and 0 < camera < 180):
            raise ValueError(f'camera is {camera!r}; expected degrees between 0 and 180')
        focal = width / 2 / np.tan(np.radians(camera) / 2)
        camera = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2)
    k = np.array([camera.fx, 0, camera.cx, 0, camera.fy, camera.cy, 0, 0, 1], np.float64)
    p = np.insert(k.reshape(3, 3), 3, 0.0, axis=1).reshape(12)
    region = message_class('sensor_msgs/msg/RegionOfInterest')(0, 0, 0, 0, False)
    return message_class(CAMERA_INFO)(
        header=header, height=height, width=width, distortion_model='plumb_bob', d=np.zeros(5),
        k=k, r=np.eye(3).reshape(9), p=p, binning_x=0, binning_y=0, roi=region,
    )


def _write_picture(
    bag: BagWriter, topic: str, pixels: np.ndarray, encoding: str, header: Any, time_ns: int,
    compressed: bool,
) -> None:
    encoding = encoding or _PLAIN.get(_channels(pixels), '')
    encoded = _encoded(pixels, encoding)
    if not compressed:
        bag.write(topic, IMAGE, time_ns, messages.image(encoded, encoding, header))
        return
    if encoding not in _COMPRESSED:
        raise ValueError(
            f'encoding is {encoding!r}; compressed is one of {", ".join(_COMPRESSED)}')
    # The file has true colours whatever the encoding, as image_transport writes it.
    bag.write(f'{topic}/compressed', COMPRESSED, time_ns, messages.png(
        encoded if encoding == 'mono8' else _encoded(pixels, 'rgb8'), header, encoding))


def _write_depth(
    bag: BagWriter, topic: str, depth: np.ndarray, header: Any, time_ns: int, compressed: bool
) -> None:
    encoding = _DEPTHS[str(depth.dtype)]
    if not compressed:
        bag.write(topic, IMAGE, time_ns, messages.image(depth, encoding, header))
    elif encoding == '16UC1':
        bag.write(f'{topic}/compressedDepth', COMPRESSED, time_ns, _png_depth(depth, header))
    else:
        raise ValueError('depth is float32; compressed is uint16, in millimetres')


def _encoded(pixels: np.ndarray, encoding: str) -> np.ndarray:
    """Return RGB, RGBA or grey in `encoding`; other arrays must be in it already."""
    if encoding not in _ENCODINGS:
        raise ValueError(f'encoding is {encoding!r}; expected one of {", ".join(_ENCODINGS)}')
    channels = _channels(pixels)
    if channels == 4 and encoding in ('bgra8', '8UC4'):
        return pixels[:, :, [2, 1, 0, 3]]
    if channels == 3 or (channels == 4 and encoding != 'rgba8'):
        rgb = np.ascontiguousarray(pixels[:, :, :3])
        if encoding.startswith('bayer'):
            return _mosaic(rgb, encoding.removeprefix('bayer_'))
        if encoding in _FROM_RGB:
            return cv2.cvtColor(rgb, _FROM_RGB[encoding])
        pixels, channels = rgb, 3
    if ENCODINGS[encoding][1] != channels:
        raise ValueError(
            f'an image has shape {pixels.shape}, which cannot become {encoding}; expected RGB, '
            f'[H, W, 3], and one of rgb8, {", ".join(_FROM_RGB)}, bayer_...'
        )
    return pixels


def _mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """Return what a sensor below a Bayer filter sees: of each pixel one colour."""
    seen = np.empty(rgb.shape[:2], np.uint8)
    for place, colour in enumerate(pattern[:4]):
        where = np.s_[place // 2::2, place % 2::2]
        seen[where] = rgb[where][:, :, 'rgb'.index(colour)]
    return seen


def _channels(pixels: np.ndarray) -> int:
    return 1 if pixels.ndim == 2 else pixels.shape[2]


def _png_depth(pixels: np.ndarray, header: Any) -> Any:
    """Return depth in millimetres as compressed_depth_image_transport writes it."""
    _, png = cv2.imencode('.png', pixels)
    data = np.concatenate([np.frombuffer(struct.pack('<iff', 0, 0, 0), np.uint8), png.reshape(-1)])
    return message_class(COMPRESSED)(header=header, format='16UC1; compressedDepth png', data=data)


def _for_each(depth: Any, pictures: list[np.ndarray]) -> list[np.ndarray] | None:
    """Return a depth image an image, all as they must be."""
    if depth is None:
        return None
    if isinstance(depth, str | Path):
        place = Path(depth).expanduser()
        depth = [place] * len(pictures) if place.is_file() else _files(place)
    elif isinstance(depth, np.ndarray) and depth.ndim == 2:
        depth = [depth] * len(pictures)
    depths = [_array(each, 'aligned depth', cv2.IMREAD_UNCHANGED) for each in depth]
    if len(depths) != len(pictures):
        raise ValueError(
            f'depth images: {len(depths)}; expected {len(pictures)}, as of images')
    for number, (one, picture) in enumerate(zip(depths, pictures, strict=True)):
        if str(one.dtype) not in _DEPTHS or one.ndim != 2:
            raise ValueError(
                f'depth image {number} is {one.dtype} of shape {one.shape}; expected uint16 in '
                'millimetres or float32 in metres, [H, W]'
            )
        if one.shape != picture.shape[:2]:
            raise ValueError(f'depth image {number} is {_size(one)}; expected {_size(picture)}, '
                             'as its image')
    return depths


def _read(images: Any) -> list[np.ndarray]:
    if isinstance(images, str | Path):
        images = _files(Path(images).expanduser())
    elif isinstance(images, np.ndarray) and _is_single(images):
        images = [images]
    images = list(images)
    pictures = [_array(each, 'image', cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) for each in images]
    if not pictures:
        raise ValueError('there are no images; expected at least one')
    for number, picture in enumerate(pictures):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or 0 in picture.shape:
            name = '' if isinstance(images[number], np.ndarray) else f' ({images[number]})'
            raise ValueError(
                f'image {number}{name} is {picture.dtype} of shape {picture.shape}; expected '
                'uint8 RGB, [H, W, 3]; depth images go into depth='
            )
    return pictures


def _is_single(images: np.ndarray) -> bool:
    """Whether an array is one picture, not several of grey or colour."""
    return images.ndim == 2 or (images.ndim == 3 and images.shape[2] in _PLAIN)


def _size(picture: np.ndarray) -> str:
    return f'{picture.shape[1]}x{picture.shape[0]}'


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        found = [path for path in place.iterdir() if path.suffix.lower() in _PICTURES]
    else:
        found = list(place.parent.glob(place.name))
    if not found:
        raise ValueError(f'{place}: no picture there; expected a file, a folder or a pattern')
    return sorted(found)


def _array(source: Any, what: str, how: int) -> np.ndarray:
    """Return an array as it is, or the picture in a file: RGB where it has colours."""
    if isinstance(source, np.ndarray):
        return source
    if not isinstance(source, str | Path):
        raise ValueError(f'an {what} is {source!r:.60}; expected an array or the name of a file')
    path = Path(source).expanduser()
    if not path.is_file():
        raise ValueError(f'{path}: no such file')
    picture = cv2.imread(str(path), how)
    if picture is None:
        raise ValueError(f'{path}: cannot be read as a picture')
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) if picture.ndim == 3 else picture
