"""Annotation files that a run would fail on, or learn or measure wrongly."""

import copy
import json
import re
import tracemalloc

import numpy as np
import pytest

from vito_mm.evaluation.annotations import Uses, problems, read_annotations, used_images

COCO = dict(
    train=Uses(learns=True, masks=True, name_key='file_name'),
    val=Uses(metric='coco', masks=True, name_key='file_name'),
)
LVIS = Uses(metric='lvis', name_key='coco_url')


@pytest.fixture(scope='module')
def originals(miniscenes):
    """Files of COCO by part, and one of LVIS."""
    files = {part: f'{miniscenes["coco"]}/annotations/instances_{part}2017.json' for part in COCO}
    files['lvis'] = f'{miniscenes["lvis"]}/annotations/lvis_v1_val.json'
    return {name: read_annotations(file) for name, file in files.items()}


@pytest.fixture
def content(originals):
    return copy.deepcopy(originals)


def all_of(**changes):
    """A change of all annotations; values may be functions of the annotation, None removes."""

    def change(content):
        for entry in content['annotations']:
            for key, value in changes.items():
                value = value(entry) if callable(value) else value
                entry.pop(key, None)
                if value is not None:
                    entry[key] = value

    return change


def fourth(name='annotations', **changes):
    """A change of the fourth entry of a list; None removes."""

    def change(content):
        entry = content[name][3]
        for key, value in changes.items():
            entry.pop(key, None)
            if value is not None:
                entry[key] = value

    return change


def doubled(name):
    def change(content):
        content[name][3]['id'] = content[name][1]['id']

    return change


def parts_of_image(content):
    for entry in content['annotations']:
        x, y, w, h = entry['bbox']
        entry['bbox'] = [x / 96, y / 72, w / 96, h / 72]


def emptied(content):
    content['annotations'] = []


TRIANGLE = [10, 10, 30, 10, 30, 30]
BOTH = ('train', 'val')


@pytest.mark.parametrize(
    ('parts', 'change', 'expected'),
    [
        (BOTH, all_of(area=None), r'\d+ of \d+ have no area. The first is number 1 of'),
        (BOTH, all_of(bbox=None), 'have no bbox of four numbers'),
        (BOTH, fourth(bbox=['1', '2', '3', '4']), '1 of .* no bbox of four numbers'),
        (BOTH, fourth(bbox=[1, 2, 3]), '1 of .* no bbox of four numbers'),
        (BOTH, fourth(bbox=[1, 2, 3, float('nan')]), '1 of .* no bbox of four numb'),
        (BOTH, all_of(segmentation=None), 'have no segmentation'),
        (BOTH, fourth(segmentation=[]), '1 of .* have no segmentation. .* number 4'),
        (BOTH, fourth(segmentation='x'), '1 of .* neither outlines nor an encoding'),
        (BOTH, fourth(segmentation=[['a'] * 6]), 'a mask that is broken, ValueErr'),
        (BOTH, fourth(segmentation=dict(size=[72, 96], counts='no')), 'a mask that is broken'),
        (BOTH, fourth(segmentation=dict(size=[72, 96], counts=[100, 20])), 'neither outlines nor'),
        (BOTH, fourth(segmentation=dict(size=[96, 72], counts=[6000, 912])), 'of another size'),
        (('val',), fourth(segmentation=[[1, 1, 9, 9]]), 'neither outlines nor an'),
        (('val',), fourth(segmentation=[[1, 1, 9, 9], TRIANGLE]), 'neither outlines nor'),
        (BOTH, all_of(segmentation=[[0.1, 0.1, 0.2, 0.1, 0.2, 0.3]]), 'an empty mask'),
        (BOTH, parts_of_image, 'no box reaches beyond 1 '),
        (BOTH, all_of(iscrowd=1), r'none of \d+ .*: \d+ is a crowd'),
        (BOTH, all_of(image_id=77), r'none of \d+ .*: \d+ names an image that is not '),
        (BOTH, all_of(image_id=lambda a: str(a['image_id'])), 'names an image that is not '),
        (('train',), all_of(bbox=lambda a: [*a['bbox'][:2], 20, 0.5]), 'less than a pixel'),
        (('train',), all_of(bbox=[200, 5, 20, 20]), 'outside its image'),
        (('train',), all_of(segmentation=[[1, 1, 9, 9]]), 'less than three points'),
        (BOTH, emptied, 'annotations: there is none'),
        (BOTH, doubled('images'), 'images: 1 ids come more than once'),
        (BOTH, doubled('annotations'), 'annotations: 1 ids come more than once'),
        (BOTH, doubled('categories'), 'categories: 1 ids come more than once'),
        (BOTH, fourth('images', file_name=None), 'images: 1 of . have no file_name. The first is'),
        (BOTH, fourth('images', width='96'), 'images: 1 of . have no width'),
        (BOTH, fourth(id=None), '1 of .* have no id'),
        (BOTH, fourth(image_id=[1]), '1 of .* have no image_id'),
        (('val',), fourth(id=0), '1 of .* have no id other than 0'),
        (('val',), all_of(id=lambda a: f'a{a["id"]}'), 'have no id other than 0 that is a number'),
        (('val',), all_of(iscrowd=None), 'have no iscrowd'),
    ],
)
def test_coco_files_with_faults(content, parts, change, expected):
    for part in parts:
        change(content[part])
        found = problems(content[part], COCO[part])
        assert any(re.search(expected, text) for text in found), found
        assert len(found) <= 2


@pytest.mark.parametrize(
    ('part', 'change'),
    [
        # Handled by pycocotools and mmdet.
        ('train', all_of(id=lambda a: a['id'] - 1)),
        ('train', all_of(id=lambda a: f'a{a["id"]}')),
        ('train', all_of(iscrowd=None)),
        ('train', fourth(segmentation=[[1, 1, 9, 9]])),
        ('val', fourth(id=-3)),
        ('val', fourth(segmentation=[TRIANGLE, [1, 1]])),
        ('val', fourth(iscrowd=1)),
        ('lvis', all_of(id=lambda a: a['id'] - 1)),
        ('lvis', all_of(id=lambda a: f'text {a["id"]}')),
    ],
)
def test_files_that_are_right(content, part, change):
    change(content[part])
    assert problems(content[part], COCO.get(part, LVIS)) == []


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (fourth('images', neg_category_ids=None), 'images: 1 of 4 have no list neg_category_ids'),
        (fourth('images', not_exhaustive_category_ids=None), 'no list not_exhaustive_category_ids'),
        (fourth('categories', frequency=None), 'categories: 1 of 1203 have no frequency'),
        (fourth('images', coco_url=None), 'images: 1 of 4 have no coco_url'),
        (all_of(area=0), r'none of \d+ can be measured on: \d+ has an area of 0'),
        (doubled('annotations'), 'annotations: 1 ids come more than once'),
    ],
)
def test_lvis_files_with_faults(content, change, expected):
    change(content['lvis'])
    (found,) = problems(content['lvis'], LVIS)
    assert re.search(expected, found)


def test_images_that_a_run_reads(content):
    entries = content['train']['annotations']
    first = entries[0]['image_id']
    content['train']['annotations'] = [each for each in entries if each['image_id'] != first]
    images = content['train']['images']
    assert used_images(content['train'], COCO['train']) == images
    used = used_images(content['train'], COCO['train'], only_annotated=True)
    assert [image for image in images if image not in used] == [images[0]]


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        (b'', 'Expecting value'),
        (b'{"images": [', 'Expecting value'),
        (b'\xef\xbb\xbf{}', 'BOM'),
        ('{}'.encode('utf-16'), 'utf-8'),
        (b'[]', 'no "images"'),
        (b'{"images": [], "annotations": [1], "categories": []}', 'annotations holds .1., which'),
        (b'{"images": [], "annotations": []}', 'no "categories"'),
        (json.dumps(dict(images='none')).encode(), 'no "images"'),
    ],
)
def test_a_file_that_is_no_annotations(tmp_path, text, expected):
    file = tmp_path / 'a.json'
    file.write_bytes(text)
    with pytest.raises(ValueError, match=expected):
        read_annotations(str(file))


def test_outlines_take_little_memory(tmp_path):
    """As lists of numbers, six times the file."""
    outline = np.random.default_rng(0).uniform(0, 100, 200).round(2).tolist()
    annotations = [dict(id=i, segmentation=[outline]) for i in range(500)]
    file = tmp_path / 'many.json'
    file.write_text(json.dumps(dict(images=[], categories=[], annotations=annotations)))
    tracemalloc.start()
    content = read_annotations(str(file))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(content['annotations'][7]['segmentation'][0]) == outline
    assert peak < 3.5 * file.stat().st_size
