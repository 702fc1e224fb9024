"""The teacher of a detector: a larger one in YOLOX format, asked cell by cell."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from muon_ad.runtime.decoders import grid
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.detection import Preparation
from muon_ad.runtime.engine import Engine
from muon_ad.runtime.package import InputSpec
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.runtime.package import sha256_of
from muon_ad.runtime.package import Variant
from muon_ad.train.images import DataError
from muon_ad.train.taps import add_feature_outputs

STRIDES = (8, 16, 32)
COCO = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat',
    'traffic light', 'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog',
    'horse', 'sheep', 'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella',
    'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite',
    'baseball bat', 'baseball glove', 'skateboard', 'surfboard', 'tennis racket', 'bottle',
    'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich', 'orange',
    'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch', 'potted plant',
    'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote', 'keyboard', 'cell phone',
    'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book', 'clock', 'vase', 'scissors',
    'teddy bear', 'hair drier', 'toothbrush',
)


def teacher_package(path: Path) -> ModelPackage:
    """Return the model package in a folder, or one around a bare ONNX file.

    A bare file is taken for a YOLOX as its authors export it: float32 [1, 3, H, W], BGR from 0 to
    255, letterboxed, with the 80 classes of COCO. Raises PackageError for a broken package,
    DataError for a file that has another input.
    """
    if path.suffix != '.onnx':
        return load_package(path)
    if not path.is_file():
        raise DataError(f'{path}: no such file; expected a detector in ONNX or a model package')
    shape = [size.dim_value
             for size in onnx.load(path).graph.input[0].type.tensor_type.shape.dim]
    if len(shape) != 4 or shape[:2] != [1, 3] or 0 in shape:
        raise DataError(f'{path}: input is {shape}; expected [1, 3, height, width], all fixed')
    height, width = shape[2:]
    variant = Variant('only', path.resolve(), sha256_of(path), width, height)
    return ModelPackage(
        name=path.stem,
        task='detection',
        folder=path.resolve().parent,
        summary='',
        licence='',
        input=InputSpec(color='bgr', layout='nchw', dtype='float32', resize='letterbox'),
        variants={'only': variant},
        default_variant='only',
        decoder={'name': 'yolox'},
        classes=COCO,
    )


def make_teacher(
    package: ModelPackage, classes: Sequence[str], width: int, height: int, inside: bool = False,
) -> 'Teacher | BoxTeacher':
    """Return the teacher that suits a package's decoder; raises as the two do."""
    kind = Teacher if package.decoder['name'] == 'yolox' else BoxTeacher
    return kind(package, classes, width, height, inside)


class Teacher:
    """A YOLOX-format detector that labels scenes cell by cell, for some of its classes.

    With `inside`, it shows its features as well. Raises DataError where the package is of another
    format, is too small for the scenes, or does not know one of the classes, TapError where it
    has no features to show.
    """

    def __init__(
        self,
        package: ModelPackage,
        classes: Sequence[str],
        width: int,
        height: int,
        inside: bool = False,
    ) -> None:
        self.detector = Detector(package, score_threshold=0.5)
        variant = self.detector.variant
        strides = tuple(package.decoder.get('strides', STRIDES))
        if package.decoder['name'] != 'yolox' or strides != STRIDES:
            raise DataError(f'{package.folder}: decoder is {package.decoder}; a teacher needs '
                            'yolox with strides 8, 16, 32')
        if width > variant.width or height > variant.height or width % 32 or height % 32:
            raise DataError(f'size is {width}x{height}; expected multiples of 32, not above the '
                            f'{variant.width}x{variant.height} of the teacher {package.folder}')
        missing = sorted(set(classes) - set(package.classes))
        if missing:
            raise DataError(f'classes {missing} are not known to the teacher {package.folder}')
        self.columns = [5 + package.classes.index(name) for name in classes]
        self.channels = 0
        self._engine = self.detector.engine
        if inside:
            with TemporaryDirectory() as folder:
                tapped = Path(folder) / 'tapped.onnx'
                size = (variant.width, variant.height)
                channels = add_feature_outputs(variant.file, tapped, size, STRIDES)
                self._engine = Engine(tapped)
            if len(set(channels)) != 1:
                raise DataError(f'{variant.file}: features of {channels} channels; expected the '
                                'same number at each stride')
            self.channels = channels[0]
        self._prepare = Preparation(package.input, variant)
        shape = (variant.height, variant.width, 3)
        self._canvas = np.full(shape, package.input.pad_value, np.uint8)
        self._cells, self._sizes = grid(variant.width, variant.height, STRIDES)
        # Scenes lie in the upper left of the teacher's input: these are the cells both share.
        limit = np.float32([width, height])
        self._shared = np.flatnonzero(((self._cells + 1) * self._sizes <= limit).all(axis=1))

    def label(self, scene: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return boxes, objectness, labels and features, as in Scenes without the first index."""
        # Not scaled to fill the teacher's input, or its cells would not be the student's.
        self._canvas[: scene.shape[0], : scene.shape[1]] = scene
        feed, _ = self._prepare(self._canvas)
        raw, *levels = self._engine.run({next(iter(self._engine.inputs)): feed})
        raw = raw[0, self._shared]
        features = [level[0].reshape(self.channels, -1).T for level in levels]
        features = np.concatenate(features)[self._shared] if features else raw[:, :0]
        cells, sizes = self._cells[self._shared], self._sizes[self._shared]
        centre = (raw[:, :2] + cells) * sizes
        half = np.exp(raw[:, 2:4]) * sizes / 2
        labels = raw[:, self.columns]
        # An object of a class that is not learnt is background to the student.
        ours = labels.max(axis=1) / np.maximum(raw[:, 5:].max(axis=1), 1e-6)
        boxes = np.clip(np.hstack([centre - half, centre + half]), -1000, 2000)
        return boxes, raw[:, 4] * ours, labels, features


class Teachers:
    """Several teachers as one, with the same classes and scenes.

    What they say of a cell is averaged: objectness evenly, boxes and labels by how surely each
    sees an object there. Their features stand side by side. `detector` is the first one's.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        self._teachers = tuple(teachers)
        self.detector = self._teachers[0].detector
        self.columns = self._teachers[0].columns
        self.channels = sum(teacher.channels for teacher in self._teachers)

    def label(self, scene: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return boxes, objectness, labels and features, as `Teacher.label` does."""
        views = [teacher.label(scene) for teacher in self._teachers]
        *seen, features = zip(*views, strict=True)
        boxes, objectness, labels = map(np.stack, seen)
        weights = (objectness + 1e-6)[..., None]
        weights = weights / weights.sum(axis=0)
        return ((boxes * weights).sum(axis=0), objectness.mean(axis=0),
                (labels * weights).sum(axis=0), np.concatenate(features, axis=1))
class BoxTeacher:
    """A detector of any format, such as torchvision's, of which only the boxes are known.

    Its detections become targets of the cells in their middle, as in centre sampling (Tian et
    al., FCOS, 2020, arXiv:2006.09214): of the stride that suits the box's longer side, within 1.5
    strides of its centre. All else is background, so what the teacher has doubts about is taught
    as less than it is; a YOLOX-format teacher teaches more. Raises DataError where features are
    asked for (`inside`), the size is no multiple of 32, or a class is not known to it.
    """

    LONGEST = {8: 64.0, 16: 128.0, 32: np.inf}      # side of the boxes of a stride, in pixels

    def __init__(
        self, package: ModelPackage, classes: Sequence[str], width: int, height: int,
        inside: bool = False,
    ) -> None:
        if inside:
            raise DataError(f'{package.folder}: a teacher with decoder {package.decoder["name"]} '
                            'shows boxes and no features; give --mimic 0')
        if width % 32 or height % 32:
            raise DataError(f'size is {width}x{height}; expected multiples of 32')
        missing = sorted(set(classes) - set(package.classes))
        if missing:
            raise DataError(f'classes {missing} are not known to the teacher {package.folder}')
        self.detector = Detector(package, score_threshold=0.3)
        self.columns = [package.classes.index(name) for name in classes]
        self.channels = 0
        cells, self._sizes = grid(width, height, STRIDES)
        self._centres = (cells + 0.5) * self._sizes

    def label(self, scene: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return boxes, objectness, labels and features (none), as `Teacher.label`."""
        count = len(self._centres)
        boxes, objectness = np.zeros((count, 4), np.float32), np.zeros(count, np.float32)
        labels = np.zeros((count, len(self.columns)), np.float32)
        found = self.detector.detect(scene)
        # The surest last, so that it has the cells that several boxes claim.
        for index in range(len(found))[::-1]:
            if found.class_ids[index] in self.columns:
                mine = self._cells_of(found.boxes[index])
                boxes[mine], objectness[mine] = found.boxes[index], found.scores[index]
                labels[mine] = 0
                labels[mine, self.columns.index(found.class_ids[index])] = 1
        return boxes, objectness, labels, np.zeros((count, 0), np.float32)

    def _cells_of(self, box: np.ndarray) -> np.ndarray:
        longest = max(box[2:] - box[:2])
        stride = next(stride for stride, most in self.LONGEST.items() if longest < most)
        near = np.abs(self._centres - (box[:2] + box[2:]) / 2) < 1.5 * stride
        inside = (self._centres > box[:2]) & (self._centres < box[2:])
        return (self._sizes[:, 0] == stride) & near.all(axis=1) & inside.all(axis=1)
