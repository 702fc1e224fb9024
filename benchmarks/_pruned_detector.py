"""The detector's side of the pruning benchmark: networks pruned by each method, and their mAP."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from _common import console
from _common import ROOT
from _common import WEIGHTS
from _pruned import Case

from muon_ad.metrics.detection import average_precisions
from muon_ad.metrics.detection import mean
from muon_ad.metrics.detection import Truth
from muon_ad.networks.detector import load_detector
from muon_ad.prune.detector import AVERAGE
from muon_ad.prune.detector import load_dense
from muon_ad.prune.detector import prune_detector
from muon_ad.prune.detector import RATES
from muon_ad.runtime.detection import Detections
from muon_ad.runtime.detection import Detector
from muon_ad.runtime.package import load_package
from muon_ad.runtime.package import ModelPackage
from muon_ad.train.detection_data import library
from muon_ad.train.detector import rendered
from muon_ad.train.detector import SIDE
from muon_ad.train.detector_export import add_variants
from muon_ad.train.detector_quality import LEAST_SCORE
from muon_ad.train.detector_trainer import Lessons
from muon_ad.train.detector_trainer import Recipe
from muon_ad.train.images import load_images
from muon_ad.train.teacher import Teacher
from muon_ad.train.teacher import teacher_package

PACKAGE = ROOT / 'models' / 'detector_default'
ANNOTATED = WEIGHTS.parent / 'detection'
LEARNT = 29         # of the 43 annotated images; the shipped detector has not seen those after
SCENES = 60
SIZE = (320, 256)
# Names in the annotated images that differ from COCO's.
COCO_NAMES = {'diningtable': 'dining table', 'pottedplant': 'potted plant', 'tvmonitor': 'tv',
              'sofa': 'couch'}


@dataclass(frozen=True)
class Pictured:
    """An annotated image: uint8 [H, W, 3] RGB, names and boxes (x_min, y_min, x_max, y_max)."""

    pixels: np.ndarray
    names: tuple[str, ...]
    boxes: np.ndarray


@cache
def unseen() -> list[Pictured]:
    """Return the annotated images that were not learnt from."""
    found = []
    for path in sorted((ANNOTATED / 'ground_truth').glob('*.txt'))[LEARNT:]:
        pixels = cv2.imread(str(ANNOTATED / 'images' / f'{path.stem}.jpg'))
        rows = [line.split() for line in path.read_text().splitlines()]
        names = tuple(COCO_NAMES.get(row[0], row[0]) for row in rows)
        boxes = np.float32([[float(value) for value in row[-4:]] for row in rows])
        found.append(Pictured(pixels[:, :, ::-1], names, boxes.reshape(-1, 4)))
    return found


def precision(package: ModelPackage, name: str) -> float:
    """Return the mAP at IoU 0.5 of a variant on `unseen`, over the classes that it knows."""
    detector = Detector(package, name, score_threshold=LEAST_SCORE)
    classes = detector.classes
    truths: list[Truth] = []
    results: list[Detections] = []
    for each in unseen():
        known = np.array([name in classes for name in each.names], bool)
        ids = np.array([classes.index(name) for name in each.names if name in classes], int)
        truths.append(Truth(each.boxes[known], ids))
        results.append(detector.detect(each.pixels))
    return mean(average_precisions(truths, results))


def pruned_package(cases: Sequence[Case], steps: int, pool: int, folder: Path) -> ModelPackage:
    """Prune the shipped detector as each case says; return a package of all, dense first.

    They learn from rendered scenes and from the annotated images that the shipped detector has
    learnt from, which they get without the annotation: it is itself the teacher.
    """
    dense, classes = load_dense(PACKAGE)
    recipe = Recipe(classes, *SIZE, steps, rate=RATES['muon'], warm_up=steps // 10,
                    average=AVERAGE, mimic=0.0, pool=pool, half=False)
    teacher = Teacher(teacher_package(PACKAGE), classes, *SIZE)
    paths = sorted((ANNOTATED / 'ground_truth').glob('*.txt'))[:LEARNT]
    pictures = load_images([ANNOTATED / 'images' / f'{path.stem}.jpg' for path in paths], SIDE)
    lessons = Lessons(teacher, library(pictures + rendered(SCENES, 0), teacher.detector, classes))
    target, about = folder / 'package', {'name': 'pruned', 'licence': '', 'summary': ''}
    add_variants(dense, classes, target, [SIZE], about, 'dense')
    for case in cases:
        console.print(f'detector: {case.name}, {steps} steps')
        made = prune_detector(dense, lessons, recipe, case.plan(steps), folder / case.name)
        add_variants(load_detector(made)[0], classes, target, [SIZE], about, case.name)
    return load_package(target)
