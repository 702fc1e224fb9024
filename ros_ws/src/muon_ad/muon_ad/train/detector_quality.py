"""How well a detector does: against a teacher, and against annotations."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from tqdm import tqdm

from muon_ad.metrics.detection import average_precisions
from muon_ad.metrics.detection import Precision
from muon_ad.metrics.detection import Truth
from muon_ad.networks.detector import DetectorNet
from muon_ad.runtime.detection import Detections
from muon_ad.runtime.detection import Detector
from muon_ad.train.annotations import Annotated
from muon_ad.train.detector_export import export_detector
from muon_ad.train.images import DataError

LEAST_SCORE = 0.02      # of detections that are looked at


def agreement(
    student: Detector, teacher: Detector, pictures: Sequence[np.ndarray]
) -> dict[str, float]:
    """Return the average precision (IoU 0.5) of each class against the teacher's detections."""
    truths, results = [], []
    for picture in tqdm(pictures, desc='comparing with the teacher'):
        found = teacher.detect(picture)
        names = [teacher.classes[index] for index in found.class_ids]
        shared = np.array([name in student.classes for name in names], bool)
        ids = [student.classes.index(name) for name in names if name in student.classes]
        truths.append(Truth(found.boxes[shared], np.array(ids, int)))
        results.append(student.detect(picture))
    return by_name(average_precisions(truths, results), student.classes)


def by_name(precisions: dict[int, Precision], classes: Sequence[str]) -> dict[str, float]:
    """Return average precisions by the name of the class, rounded for a model card."""
    return {classes[index]: round(value.average, 3) for index, value in precisions.items()}


def against_annotations(
    net: DetectorNet, classes: Sequence[str], pictures: Sequence[Annotated],
    size: tuple[int, int],
) -> dict[int, Precision]:
    """Return the average precision (IoU 0.5) of each class on annotated pictures.

    The network is exported first, at this input size (width, height): what is measured is what
    will run. Pictures that cannot be decoded are left out; raises DataError where none can.
    """
    with TemporaryDirectory() as folder:
        package = export_detector(net, classes, Path(folder), [size], {'name': 'validated'})
        detector = Detector(package, score_threshold=LEAST_SCORE)
        truths: list[Truth] = []
        results: list[Detections] = []
        for each in tqdm(pictures, desc='validating', leave=False):
            picture = cv2.imread(str(each.path), cv2.IMREAD_COLOR)
            if picture is not None:
                truths.append(each.truth)
                results.append(detector.detect(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)))
    if not truths:
        raise DataError(f'none of {len(pictures)} pictures to validate with can be decoded')
    return average_precisions(truths, results)
