"""Pictures for people: detections drawn into a frame, and panels with captions."""

import cv2
import numpy as np

CAPTION_HEIGHT = 26
BOX = (80, 220, 60)         # RGB

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_detections(
    picture: np.ndarray, detections: object, colour: tuple[int, int, int] = BOX, zoom: int = 1,
    labels: bool = True,
) -> np.ndarray:
    """Return a copy of `picture` (uint8 RGB [H, W, 3]) with boxes, labels, scores and distances.

    `detections` is a muon_ad_msgs/DetectionArray, of rclpy or from a bag. `zoom` enlarges a small
    picture first, so that the labels can be read; without `labels` there are boxes alone.
    """
    picture = picture.repeat(zoom, 0).repeat(zoom, 1)
    scale = picture.shape[1] / 640
    for found in detections.detections:
        corner = (round(float(found.x_min * zoom)), round(float(found.y_min * zoom)))
        opposite = (round(float(found.x_max * zoom)), round(float(found.y_max * zoom)))
        cv2.rectangle(picture, corner, opposite, colour, max(1, round(3 * scale)), cv2.LINE_AA)
        if not labels:
            continue
        text = f'{found.label} {found.score:.2f}'
        if found.position_valid:
            text += f' {found.position.z:.1f} m'
        _label(picture, text, corner, scale, colour)
    return picture


def zoom_for(picture: np.ndarray, width: int) -> int:
    """Return by how much to enlarge a picture for it to be about `width` pixels wide."""
    return max(1, width // picture.shape[1])


def panel(picture: np.ndarray | None, caption: str, size: tuple[int, int]) -> np.ndarray:
    """Return a picture fitted into `size` (width, height) below a caption of CAPTION_HEIGHT rows.

    Grey where there is no picture.
    """
    width, height = size
    drawn = np.full((height + CAPTION_HEIGHT, width, 3), 24, np.uint8)
    cv2.putText(
        drawn, caption, (8, CAPTION_HEIGHT - 8), _FONT, 0.55, (235, 235, 235), 1, cv2.LINE_AA
    )
    if picture is not None:
        scale = min(width / picture.shape[1], height / picture.shape[0])
        fitted_size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        fitted = cv2.resize(picture, fitted_size, interpolation=method)
        left = (width - fitted_size[0]) // 2
        top = CAPTION_HEIGHT + (height - fitted_size[1]) // 2
        drawn[top:top + fitted_size[1], left:left + fitted_size[0]] = fitted
    return drawn


def _label(
    picture: np.ndarray, text: str, corner: tuple[int, int], scale: float,
    colour: tuple[int, int, int],
) -> None:
    size, thick = 0.7 * scale, max(1, round(2 * scale))
    (width, height), base = cv2.getTextSize(text, _FONT, size, thick)
    left = max(0, min(corner[0], picture.shape[1] - width))
    bottom = max(height + base, corner[1])
    cv2.rectangle(picture, (left, bottom - height - base), (left + width, bottom), colour, -1)
    cv2.putText(
        picture, text, (left, bottom - base // 2), _FONT, size, (0, 0, 0), thick, cv2.LINE_AA
    )
