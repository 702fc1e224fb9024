"""Annotated pictures on the disk: COCO's layout and that of PASCAL VOC.

Files are listed and annotations read at once; pictures are decoded when they are drawn, so that a
data set need not fit into memory. What cannot be used is counted by reason, never passed over.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from muon_ad.metrics.detection import Truth
from muon_ad.train.images import DataError
from muon_ad.train.images import hold_out

NO_PICTURE = 'pictures that are missing'
NO_AREA = 'boxes without area'
UNREADABLE = 'annotation files that cannot be read'


@dataclass(frozen=True)
class Annotated:
    """A picture and what is in it; class_ids index the classes of its data set."""

    path: Path
    truth: Truth


@dataclass
class DataSet:
    """Pictures to learn from and to validate with, and how much of what was left out."""

    classes: tuple[str, ...]
    training: list[Annotated] = field(default_factory=list)
    validation: list[Annotated] = field(default_factory=list)
    skipped: Counter = field(default_factory=Counter)

    def summary(self) -> str:
        """Return in a line how much there is."""
        objects = sum(len(each.truth.boxes) for each in self.training)
        left_out = ', '.join(f'{count} {reason}' for reason, count in self.skipped.items())
        return (f'{len(self.training)} pictures with {objects} objects of {len(self.classes)} '
                f'classes to learn from, {len(self.validation)} to validate with; left out: '
                f'{left_out or "nothing"}')


# Name of the class, corners of the box, whether it is to be ignored.
Thing = tuple[str, tuple[float, float, float, float], bool]


def read_coco(folder: Path, classes: Sequence[str] = ()) -> DataSet:
    """Read a folder in COCO's layout: annotations/instances_NAME.json and pictures in NAME/.

    Pictures may lie in images/NAME/ or images/ as well. Files with val in their name are for
    validation; without one, every eighth picture is. `classes` chooses among the categories; by
    default all are taken, in the order of their ids. Crowds are ignored. Raises DataError where
    a file is not of that format, or nothing is left to learn from.
    """
    files = sorted((folder / 'annotations').glob('instances_*.json'))
    if not files:
        raise DataError(f'{folder}: no annotations/instances_*.json in it; expected a data set in '
                        "COCO's layout")
    documents = {path: _coco_document(path) for path in files}
    names = dict(sorted((number, name) for document in documents.values()
                        for number, name in document['categories'].items()))
    data = DataSet(_chosen(classes, list(dict.fromkeys(names.values())), folder))
    for path, document in documents.items():
        part = data.validation if 'val' in path.stem else data.training
        pictures = _picture_folder(folder, path, document)
        for name, things in document['images'].values():
            _add(part, data, pictures / name, things)
    return _divided(data, folder)


def read_voc(folder: Path, classes: Sequence[str] = ()) -> DataSet:
    """Read a VOCdevkit, or one VOCyear folder of it: Annotations/*.xml and JPEGImages/.

    ImageSets/Main/val.txt lists what is for validation; without it, every eighth picture is.
    `classes` chooses among those found; by default all are taken, in alphabetical order. Objects
    marked difficult are ignored. Raises DataError where there is none, or nothing is left.
    """
    years = [path.parent for path in sorted([*folder.glob('Annotations'),
                                             *folder.glob('*/Annotations')])]
    if not years:
        raise DataError(f'{folder}: no Annotations in it or in its folders; expected a VOCdevkit')
    skipped: Counter = Counter()
    found = [(year, *read) for year in years for read in _voc_files(year, skipped)]
    names = sorted({thing[0] for *_, things in found for thing in things})
    data = DataSet(_chosen(classes, names, folder), skipped=skipped)
    held = {year: _voc_list(year / 'ImageSets' / 'Main' / 'val.txt') for year in years}
    for year, stem, name, things in found:
        part = data.validation if stem in held[year] else data.training
        _add(part, data, year / 'JPEGImages' / name, things)
    return _divided(data, folder)


def _chosen(wanted: Sequence[str], known: list[str], folder: Path) -> tuple[str, ...]:
    missing = sorted(set(wanted) - set(known))
    if missing:
        raise DataError(f'{folder}: no objects of classes {missing}; expected some of {known}')
    return tuple(wanted or known)


def _add(part: list[Annotated], data: DataSet, path: Path, things: Sequence[Thing]) -> None:
    """Add a picture with those of its objects that are of the classes chosen."""
    if not path.is_file():
        data.skipped[NO_PICTURE] += 1
        return
    good = []
    for name, box, ignored in things:
        if name not in data.classes:
            continue
        if all(map(math.isfinite, box)) and box[2] > box[0] and box[3] > box[1]:
            good.append((data.classes.index(name), box, ignored))
        else:
            data.skipped[NO_AREA] += 1
    part.append(Annotated(path, Truth(
        np.array([box for _, box, _ in good], np.float32).reshape(-1, 4),
        np.array([number for number, *_ in good], int),
        np.array([ignored for *_, ignored in good], bool),
    )))


def _divided(data: DataSet, folder: Path) -> DataSet:
    """Hold pictures out to validate with, where the data set itself names none."""
    if not any(len(each.truth.boxes) for each in data.training):
        raise DataError(f'{folder}: no picture with an object of {list(data.classes)} to learn '
                        f'from; left out: {dict(data.skipped)}')
    if not data.validation:
        data.training, data.validation = hold_out(data.training)
    if not any((~each.truth.ignored).any() for each in data.validation):
        raise DataError(f'{folder}: no object of {list(data.classes)} in the '
                        f'{len(data.validation)} pictures to validate with')
    return data


# ---- COCO

def _coco_document(path: Path) -> dict[str, dict]:
    """Return categories {id: name} and images {id: (file name, things)} of a file."""
    try:
        raw = json.loads(path.read_text(encoding='utf-8'))
        categories = {int(each['id']): str(each['name']) for each in raw['categories']}
        images: dict[int, tuple[str, list[Thing]]] = {
            int(each['id']): (str(each['file_name']), []) for each in raw['images']
        }
        for each in raw['annotations']:
            x, y, width, height = map(float, each['bbox'])
            name = categories[int(each['category_id'])]
            images[int(each['image_id'])][1].append(
                (name, (x, y, x + width, y + height), bool(each.get('iscrowd', 0))))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: not in COCO's format ({error})") from error
    except KeyError as error:
        raise DataError(f"{path}: not in COCO's format: there is no {error}") from error
    return {'categories': categories, 'images': images}


def _picture_folder(folder: Path, path: Path, document: dict[str, dict]) -> Path:
    """Return where the pictures of an annotation file are: the first place that has one."""
    name = path.stem.removeprefix('instances_')
    places = (folder / name, folder / 'images' / name, folder / 'images', folder)
    files = [file for file, _ in document['images'].values()]
    return next((place for place in places if any((place / file).is_file() for file in files)),
                places[0])


# ---- VOC

def _voc_files(year: Path, skipped: Counter) -> Iterator[tuple[str, str, list[Thing]]]:
    """Yield stem, name of the picture and things of each annotation file that can be read."""
    for path in sorted((year / 'Annotations').glob('*.xml')):
        try:
            root = ElementTree.parse(path).getroot()
            things = [_voc_thing(each) for each in root.iter('object')]
        except (ElementTree.ParseError, ValueError, LookupError, OSError):
            skipped[UNREADABLE] += 1
            continue
        yield path.stem, root.findtext('filename') or f'{path.stem}.jpg', things


def _voc_thing(element: Any) -> Thing:  # noqa: ANN401 - ElementTree.Element
    """Read one object; its pixels count from 1, and the last belongs to it."""
    box = element.find('bndbox')
    name = element.findtext('name')
    if box is None or not name:
        raise ValueError('object without name or bndbox')
    left, top, right, bottom = (
        float(box.findtext(key, 'none')) for key in ('xmin', 'ymin', 'xmax', 'ymax'))
    return name.strip(), (left - 1, top - 1, right, bottom), element.findtext('difficult') == '1'


def _voc_list(path: Path) -> set[str]:
    return set(path.read_text(encoding='utf-8').split()) if path.is_file() else set()
