"""A video of how a picture forms, from frames that were kept as files."""

import os
from pathlib import Path

import cv2
import numpy as np

from muon_ad.picture_files import read_picture
from muon_ad.picture_files import write_picture

FPS = 10
# So that the result can be looked at before a player begins again.
_LAST_FRAME_S = 1.5


class VideoError(ValueError):
    """A video cannot be written."""


def keep_frame(folder: Path, step: int, rgb: np.ndarray) -> None:
    """Keep the picture after `step` as a frame, uint8 [H, W, 3] RGB; raises PictureFileError.

    As a file, since a video that is cut off cannot be played or gone on with.
    """
    write_picture(folder / f'{step:06}.png', rgb)


def write_video(path: Path, folder: Path) -> None:
    """Write the frames in `folder` as an MP4, complete or not at all. Raises VideoError."""
    frames = sorted(folder.glob('[0-9]*.png'))
    if not frames:
        raise VideoError(f'{path}: there are no frames for a video')
    frames += frames[-1:] * round(_LAST_FRAME_S * FPS)
    height, width = (side - side % 2 for side in read_picture(frames[0]).shape[:2])
    partial = path.with_name(f'.{path.stem}.partial{path.suffix}')
    writer = cv2.VideoWriter(
        str(partial), cv2.VideoWriter_fourcc(*'mp4v'), FPS, (width, height)
    )
    try:
        if not writer.isOpened():
            raise VideoError(f'{path}: cannot be written; is the folder writable, and is '
                             "OpenCV's FFmpeg there?")
        for frame in frames:
            # The codec takes even sides only.
            writer.write(cv2.cvtColor(read_picture(frame)[:height, :width], cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
    os.replace(partial, path)
