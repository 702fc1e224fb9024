"""Small data sets of drawn shapes, in the layouts of COCO and PASCAL VOC, as files on the disk."""

import json
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np

COLOURS = {'disc': (220, 40, 30), 'square': (30, 60, 220)}
SIZE = (96, 72)     # width and height of the pictures

Things = list[tuple[str, tuple[int, int, int, int]]]


def picture(seed: int) -> tuple[np.ndarray, Things]:
    """One or two shapes on grey: pixels, uint8 [H, W, 3] RGB, names and corners of the boxes."""
    rng = np.random.default_rng(seed)
    width, height = SIZE
    pixels = np.full((height, width, 3), rng.integers(60, 200), np.uint8)
    things: Things = []
    for part in range(rng.integers(1, 3)):
        side = int(rng.integers(20, 40))
        x = int(rng.integers(part * 48, part * 48 + 48 - side + 1))
        y = int(rng.integers(0, height - side + 1))
        name = list(COLOURS)[(seed + part) % 2]
        if name == 'square':
            pixels[y:y + side, x:x + side] = COLOURS[name]
        else:
            centre = (x + side // 2, y + side // 2)
            cv2.circle(pixels, centre, side // 2, COLOURS[name], -1)
        things.append((name, (x, y, x + side, y + side)))
    return pixels, things


def write_coco(folder: Path, training: int = 12, validation: int = 4) -> Path:
    """Write annotations/instances_{train,val}2017.json and pictures in train2017 and val2017."""
    categories = [{'id': 7, 'name': 'disc'}, {'id': 90, 'name': 'square'}]
    ids = {each['name']: each['id'] for each in categories}
    (folder / 'annotations').mkdir(parents=True)
    for part, first, count in (('train2017', 0, training), ('val2017', 100, validation)):
        if not count:
            continue
        (folder / part).mkdir()
        images, annotations = [], []
        for number in range(first, first + count):
            pixels, things = picture(number)
            cv2.imwrite(str(folder / part / f'{number:04}.png'), pixels[:, :, ::-1])
            images.append({'id': number, 'file_name': f'{number:04}.png'})
            annotations += [
                {'image_id': number, 'category_id': ids[name], 'iscrowd': 0,
                 'bbox': [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
                for name, box in things
            ]
        document = {'images': images, 'annotations': annotations, 'categories': categories}
        path = folder / 'annotations' / f'instances_{part}.json'
        path.write_text(json.dumps(document))
    return folder


def write_voc(folder: Path, training: int = 12, validation: int = 4) -> Path:
    """Write VOC2012/{Annotations,JPEGImages,ImageSets/Main/val.txt}."""
    year = folder / 'VOC2012'
    for name in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (year / name).mkdir(parents=True)
    held = []
    for number in range(training + validation):
        stem = f'2012_{number:06}'
        pixels, things = picture(number)
        cv2.imwrite(str(year / 'JPEGImages' / f'{stem}.jpg'), pixels[:, :, ::-1])
        root = ElementTree.Element('annotation')
        ElementTree.SubElement(root, 'filename').text = f'{stem}.jpg'
        for name, box in things:
            thing = ElementTree.SubElement(root, 'object')
            ElementTree.SubElement(thing, 'name').text = name
            ElementTree.SubElement(thing, 'difficult').text = '0'
            bounds = ElementTree.SubElement(thing, 'bndbox')
            # VOC counts pixels from 1, and the last one belongs to the object.
            values = (box[0] + 1, box[1] + 1, box[2], box[3])
            for key, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), values, strict=True):
                ElementTree.SubElement(bounds, key).text = str(value)
        ElementTree.ElementTree(root).write(year / 'Annotations' / f'{stem}.xml')
        if number >= training:
            held.append(stem)
    if held:
        (year / 'ImageSets' / 'Main' / 'val.txt').write_text('\n'.join(held))
    return folder
