"""Reading annotated data sets: what is in them, and what is said of what is broken."""

import json
from pathlib import Path

import numpy as np
import pytest
from drawn_shapes import picture
from drawn_shapes import write_coco
from drawn_shapes import write_voc

from muon_ad.train.annotations import DataSet
from muon_ad.train.annotations import NO_AREA
from muon_ad.train.annotations import NO_PICTURE
from muon_ad.train.annotations import read_coco
from muon_ad.train.annotations import read_voc
from muon_ad.train.annotations import UNREADABLE
from muon_ad.train.images import DataError

READERS = {'coco': (write_coco, read_coco), 'voc': (write_voc, read_voc)}


@pytest.fixture(params=READERS)
def layout(request):
    return READERS[request.param]


def changed(folder: Path, change) -> Path:
    """The COCO folder after `change` was applied to the document of its training part."""
    path = folder / 'annotations' / 'instances_train2017.json'
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return folder


def number(data: DataSet, index: int) -> int:
    return int(data.training[index].path.stem.split('_')[-1])


def test_boxes_and_classes_are_those_that_were_drawn(layout, tmp_path):
    write, read = layout
    data = read(write(tmp_path))
    assert data.classes == ('disc', 'square')
    assert (len(data.training), len(data.validation)) == (12, 4)
    for index, each in enumerate(data.training):
        _, things = picture(number(data, index))
        assert [data.classes[i] for i in each.truth.class_ids] == [name for name, _ in things]
        np.testing.assert_array_equal(each.truth.boxes, np.float32([box for _, box in things]))
        assert not each.truth.ignored.any()
    held = {each.path for each in data.validation}
    assert held.isdisjoint(each.path for each in data.training)
    assert not data.skipped
    assert '12 pictures with' in data.summary() and 'left out: nothing' in data.summary()


def test_without_a_part_to_validate_with_every_eighth_picture_is_held_out(layout, tmp_path):
    write, read = layout
    data = read(write(tmp_path, training=16, validation=0))
    assert (len(data.training), len(data.validation)) == (14, 2)


def test_classes_are_chosen_in_the_order_asked_for(layout, tmp_path):
    write, read = layout
    folder = write(tmp_path)
    assert read(folder, ['square', 'disc']).classes == ('square', 'disc')
    data = read(folder, ['square'])
    for index, each in enumerate(data.training):
        _, things = picture(number(data, index))
        assert len(each.truth.boxes) == sum(name == 'square' for name, _ in things)
        assert not each.truth.class_ids.any()
    with pytest.raises(DataError, match=r"classes \['cat'\]; expected some of \['disc', 'square"):
        read(folder, ['cat'])


def test_missing_pictures_are_counted(layout, tmp_path):
    write, read = layout
    folder = write(tmp_path)
    gone = [each.path for each in read(folder).training[:2]]
    for path in gone:
        path.unlink()
    data = read(folder)
    assert data.skipped == {NO_PICTURE: 2} and len(data.training) == 10
    assert f'left out: 2 {NO_PICTURE}' in data.summary()
    for each in data.training:
        each.path.unlink()
    with pytest.raises(DataError, match='no picture with an object'):
        read(folder)


def test_a_folder_of_another_kind_is_an_error(layout, tmp_path):
    with pytest.raises(DataError, match='expected a'):
        layout[1](tmp_path)


def test_coco_pictures_may_lie_in_images(tmp_path):
    folder = write_coco(tmp_path)
    (folder / 'images').mkdir()
    for part in ('train2017', 'val2017'):
        (folder / part).rename(folder / 'images' / part)
    data = read_coco(folder)
    assert (len(data.training), data.skipped) == (12, {})


def test_coco_crowds_are_ignored_and_boxes_without_area_counted(tmp_path):
    def change(document):
        document['annotations'][0]['iscrowd'] = 1
        document['annotations'][1]['bbox'][2] = 0
        document['annotations'][2]['bbox'][0] = float('nan')

    data = read_coco(changed(write_coco(tmp_path), change))
    assert sum(each.truth.ignored.sum() for each in data.training) == 1
    assert data.skipped == {NO_AREA: 2}


@pytest.mark.parametrize(('change', 'message'), [
    (lambda document: document.pop('categories'), "there is no 'categories'"),
    (lambda document: document['annotations'][0].pop('bbox'), "there is no 'bbox'"),
    (lambda document: document['annotations'][0].update(bbox=[1, 2, 3]), 'not enough values'),
    (lambda document: document['annotations'][0].update(bbox='wide'), 'could not convert'),
    (lambda document: document['annotations'][0].update(category_id=1), 'there is no 1'),
    (lambda document: document['annotations'][0].update(image_id=4711), 'there is no 4711'),
    (lambda document: document.update(images=None), 'NoneType'),
])
def test_coco_files_of_another_format_are_errors_that_name_the_file(change, message, tmp_path):
    folder = changed(write_coco(tmp_path), change)
    with pytest.raises(DataError, match='instances_train2017.json: not in COCO.s format.*'
                       + message):
        read_coco(folder)


@pytest.mark.parametrize('text', ['{"images": [', '[]', '7', 'null', '[' * 100_000])
def test_coco_files_that_are_no_such_document_are_errors(text, tmp_path):
    folder = write_coco(tmp_path)
    (folder / 'annotations' / 'instances_val2017.json').write_text(text)
    with pytest.raises(DataError, match='instances_val2017.json: not in COCO.s format'):
        read_coco(folder)


BOX = '<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>'


@pytest.mark.parametrize('text', [
    '<annotation><object>',
    f'<annotation><object><bndbox>{BOX}</bndbox></object></annotation>',
    '<annotation><object><name>disc</name></object></annotation>',
    f'<annotation><object><name>disc</name><bndbox>{BOX[:15]}</bndbox></object></annotation>',
    '<annotation><object><name>disc</name><bndbox>' + BOX.replace('9', 'nine')
    + '</bndbox></object></annotation>',
    '<?xml version="1.0" encoding="klingon"?><annotation/>',
])
def test_voc_files_that_cannot_be_read_are_counted(text, tmp_path):
    folder = write_voc(tmp_path)
    (folder / 'VOC2012' / 'Annotations' / '2012_000003.xml').write_text(text)
    data = read_voc(folder)
    assert data.skipped == {UNREADABLE: 1} and len(data.training) == 11


def test_voc_objects_marked_difficult_are_ignored(tmp_path):
    folder = write_voc(tmp_path)
    path = folder / 'VOC2012' / 'Annotations' / '2012_000000.xml'
    path.write_text(path.read_text().replace('<difficult>0', '<difficult>1'))
    first, *others = read_voc(folder / 'VOC2012').training      # a year's own folder will do, too
    assert first.truth.ignored.all()
    assert not any(each.truth.ignored.any() for each in others)


def test_nothing_to_validate_with_is_an_error(tmp_path):
    folder = write_voc(tmp_path)
    stems = (folder / 'VOC2012' / 'ImageSets' / 'Main' / 'val.txt').read_text().split()
    for stem in stems:
        path = folder / 'VOC2012' / 'Annotations' / f'{stem}.xml'
        path.write_text('<annotation/>')
    with pytest.raises(DataError, match='no object of .* in the 4 pictures to validate with'):
        read_voc(folder)
