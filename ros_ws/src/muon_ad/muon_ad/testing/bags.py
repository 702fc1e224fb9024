"""Tiny bags from pictures, for tests."""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from muon_ad.bags import BagWriter
from muon_ad.bags import message_class
from muon_ad.bags.pictures import COMPRESSED
from muon_ad.bags.pictures import IMAGE
from muon_ad.images import ENCODINGS
from muon_ad.replay import messages
from muon_ad.replay.topics import CAMERA_INFO
from muon_ad.runtime.positions import Intrinsics

BEGIN_NS = 1_700_000_000_000_000_000
# By dtype and channels, where the caller names none.
_ENCODINGS = {
    ('uint8', 3): 'rgb8', ('uint8', 4): 'rgba8', ('uint8', 1): 'mono8',
    ('uint16', 1): '16UC1', ('float32', 1): '32FC1',
}
_PICTURES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff')


def write_bag(
    path: str | Path,
    images: str | Path | np.ndarray | Iterable[str | Path | np.ndarray],
    *,
    depth: np.ndarray | Iterable[np.ndarray] | None = None,
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

    images      arrays uint8 [H, W, 3] RGB (or of the `encoding` named), picture files, or a folder
                or pattern (`pictures/*.jpg`) of such files, in order of their names
    depth       aligned depth images, uint16 in millimetres or float32 in metres, one an image; a
                single array is used for all
    camera      the calibration: horizontal field of view in degrees, or Intrinsics; camera_info is
                written beside the image's topic
    rate        images a second of their stamps, from `begin_ns` on
    compressed  write PNG as image_transport does, on `topic`/compressed and
                `depth_topic`/compressedDepth

    A path that ends in .mcap is one file, any other a rosbag2 folder. Raises ValueError for
    pictures that are not there or not usable, BagError (a ValueError) where `path` exists.
    """
    pictures = _read(images)
    depths = _for_each(depth, len(pictures))
    if not 0 < rate < 1e6:
        raise ValueError(f'rate is {rate}; expected images a second, above 0')
    with BagWriter(path) as bag:
        for number, picture in enumerate(pictures):
            time_ns = begin_ns + round(number / rate * 1e9)
            header = messages.header(time_ns, frame_id)
            if camera is not None:
                info = camera_info(camera, picture.shape[1], picture.shape[0], header)
                beside = f'{topic.rpartition("/")[0]}/camera_info'
                bag.write(beside, CAMERA_INFO, time_ns, info)
            if depths is not None:
                _write_picture(bag, depth_topic, depths[number], '', header, time_ns, compressed)
            _write_picture(bag, topic, picture, encoding, header, time_ns, compressed)
    return Path(path)


def camera_info(camera: float | Intrinsics, width: int, height: int, header: Any) -> Any:
    """Return a sensor_msgs/CameraInfo without distortion; `camera` as in `write_bag`."""
    if not isinstance(camera, Intrinsics):
        if not 0 < camera < 180:
            raise ValueError(f'camera is {camera}; expected degrees between 0 and 180')
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
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    encoding = encoding or _ENCODINGS.get((str(pixels.dtype), channels), '')
    if ENCODINGS.get(encoding) != (pixels.dtype, channels) or 0 in pixels.shape:
        raise ValueError(
            f'a picture of {topic} is {pixels.dtype} {pixels.shape}, encoding {encoding!r}; '
            f'expected one of {sorted(_ENCODINGS)}, or an encoding that goes with it'
        )
    if not compressed:
        bag.write(topic, IMAGE, time_ns, messages.image(pixels, encoding, header))
    elif encoding == '16UC1':
        bag.write(f'{topic}/compressedDepth', COMPRESSED, time_ns, _png_depth(pixels, header))
    elif encoding == 'rgb8':
        bag.write(f'{topic}/compressed', COMPRESSED, time_ns, messages.png(pixels, header))
    else:
        raise ValueError(f'{topic}: {encoding} is not compressed; expected rgb8 or 16UC1')


def _png_depth(pixels: np.ndarray, header: Any) -> Any:
    """Return depth in millimetres as compressed_depth_image_transport writes it."""
    _, png = cv2.imencode('.png', pixels)
    data = np.concatenate([np.frombuffer(struct.pack('<iff', 0, 0, 0), np.uint8), png.reshape(-1)])
    return message_class(COMPRESSED)(header=header, format='16UC1; compressedDepth png', data=data)


def _for_each(depth: Any, count: int) -> list[np.ndarray] | None:
    if depth is None:
        return None
    if isinstance(depth, np.ndarray) and depth.ndim == 2:
        return [depth] * count
    depths = list(depth)
    if len(depths) != count:
        raise ValueError(f'there are {len(depths)} depth images; expected {count}, as of images')
    return depths


def _read(images: Any) -> list[np.ndarray]:
    if isinstance(images, str | Path):
        images = _files(Path(images).expanduser())
    pictures = [each if isinstance(each, np.ndarray) else _load(Path(each)) for each in images]
    if not pictures:
        raise ValueError('there are no images; expected at least one')
    return pictures


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        found = [path for path in place.iterdir() if path.suffix.lower() in _PICTURES]
    else:
        found = list(place.parent.glob(place.name))
    if not found:
        raise ValueError(f'{place}: no picture there; expected a file, a folder or a pattern')
    return sorted(found)


def _load(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f'{path}: cannot be read as a picture')
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
