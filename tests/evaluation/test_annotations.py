"""Annotation files that a run would fail on, or learn or measure wrongly."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import REPO
from vito_mm.evaluation.annotations import names_of, read_annotations
from vito_mm.miniscenes import make_miniscenes
from vito_mm.transfer.options import SuiteOptions
from vito_mm.transfer.plan import Plan, PlanError, make_plan


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp('miniscenes')
    return make_miniscenes(root, preset='tiny', workers=0, tasks=('coco', 'lvis'), progress=False)


@pytest.fixture
def data(original, tmp_path):
    """A copy of the data sets, to be changed."""
    return {name: Path(shutil.copytree(original[name], tmp_path / name)) for name in original}


def plan_of(folder: Path, *cfg_options: str) -> Plan:
    options = SuiteOptions(
        REPO,
        checkpoints=['random'],
        tasks=[folder.name],
        seeds=1,
        protocol='miniscenes',
        work_dir=folder.parent / 'suite',
        data=[f'{folder.name}={folder}'],
        cfg_options=cfg_options,
    )
    return make_plan(options)


def problems(folder: Path, *cfg_options: str) -> list[str]:
    with pytest.raises(PlanError) as caught:
        plan_of(folder, *cfg_options)
    return caught.value.problems


def annotation_file(folder: Path, part: str) -> Path:
    name = 'instances_{}2017.json' if folder.name == 'coco' else 'lvis_v1_{}.json'
    return folder / 'annotations' / name.format(part)


def spoil(folder: Path, part: str, function) -> Path:
    """Change the content of an annotation file."""
    file = annotation_file(folder, part)
    content = json.loads(file.read_text())
    function(content)
    file.write_text(json.dumps(content))
    return file


def each_annotation(**changes):
    """A change of all annotations; values may be functions of the annotation, None removes."""

    def change(content):
        for entry in content['annotations']:
            for key, value in changes.items():
                value = value(entry) if callable(value) else value
                entry.pop(key, None)
                if value is not None:
                    entry[key] = value

    return change


def fourth(name, **changes):
    """A change of the fourth entry of a list."""

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


def image_ids_as_text(content):
    for entry in content['annotations']:
        entry['image_id'] = str(entry['image_id'])


TRIANGLE = [10, 10, 30, 10, 30, 30]
BOTH = ('train', 'val')


@pytest.mark.parametrize(
    ('parts', 'change', 'expected'),
    [
        (BOTH, each_annotation(area=None), r'\d+ of \d+ have no area. The first is number 1 of'),
        (BOTH, each_annotation(bbox=None), 'have no bbox of four numbers'),
        (BOTH, fourth('annotations', bbox=['1', '2', '3', '4']), '1 of .* no bbox of four numbers'),
        (BOTH, fourth('annotations', bbox=[1, 2, 3]), '1 of .* no bbox of four numbers'),
        (BOTH, fourth('annotations', bbox=[1, 2, 3, float('nan')]), '1 of .* no bbox of four numb'),
        (BOTH, each_annotation(segmentation=None), 'have no segmentation'),
        (BOTH, fourth('annotations', segmentation=[]), '1 of .* have no segmentation. .* number 4'),
        (BOTH, fourth('annotations', segmentation='x'), '1 of .* neither outlines nor an encoding'),
        (BOTH, fourth('annotations', segmentation=[['a'] * 6]), 'a mask that is broken, ValueErr'),
        (
            BOTH,
            fourth('annotations', segmentation=dict(size=[72, 96], counts='no encoding')),
            'a mask that is broken, ValueError',
        ),
        (
            BOTH,
            fourth('annotations', segmentation=dict(size=[72, 96], counts=[100, 20])),
            'neither outlines nor an encoding',
        ),
        (
            BOTH,
            fourth('annotations', segmentation=dict(size=[96, 72], counts=[6000, 912])),
            'a mask of another size than their image',
        ),
        (('val',), fourth('annotations', segmentation=[[1, 1, 9, 9]]), 'neither outlines nor an'),
        (('val',), fourth('annotations', segmentation=[[1, 1, 9, 9], TRIANGLE]), 'neither outli'),
        (BOTH, each_annotation(segmentation=[[0.1, 0.1, 0.2, 0.1, 0.2, 0.3]]), 'an empty mask'),
        (BOTH, parts_of_image, 'no box reaches beyond 1 '),
        (BOTH, each_annotation(iscrowd=1), r'none of \d+ .*: \d+ is a crowd'),
        (BOTH, each_annotation(image_id=77), r'none of \d+ .*: \d+ names an image that is not '),
        (BOTH, image_ids_as_text, r'none of \d+ .*: \d+ names an image that is not '),
        (
            ('train',),
            each_annotation(bbox=lambda a: [*a['bbox'][:2], 20, 0.5]),
            'less than a pixel',
        ),
        (('train',), each_annotation(bbox=[200, 5, 20, 20]), 'outside its image'),
        (BOTH, emptied, 'annotations: there is none'),
        (BOTH, doubled('images'), 'images: 1 ids come more than once'),
        (BOTH, doubled('annotations'), 'annotations: 1 ids come more than once'),
        (BOTH, doubled('categories'), 'categories: 1 ids come more than once'),
        (BOTH, fourth('images', file_name=None), 'images: 1 of . have no file_name, the first is'),
        (BOTH, fourth('images', width='96'), 'images: 1 of . have no width'),
        (BOTH, fourth('annotations', id=None), '1 of .* have no id'),
        (('val',), fourth('annotations', id=0), '1 of .* have an id that is 0'),
        (('val',), each_annotation(id=lambda a: f'a{a["id"]}'), 'have an id that is 0 or no numb'),
        (('val',), each_annotation(iscrowd=None), 'have no iscrowd'),
    ],
)
def test_coco_files_that_a_run_would_stumble_over(data, parts, change, expected):
    files = {part: spoil(data['coco'], part, change) for part in parts}
    found = problems(data['coco'])
    for part, file in files.items():
        of_part = [text for text in found if text.startswith(f'COCO, {part}_dataloader: {file}: ')]
        assert any(re.search(expected, text) for text in of_part), found
    assert len(found) <= 2 * len(parts)


@pytest.mark.parametrize(
    ('part', 'change'),
    [
        # What pycocotools and mmdet do right with.
        ('train', each_annotation(id=lambda a: a['id'] - 1)),
        ('train', each_annotation(id=lambda a: f'a{a["id"]}')),
        ('train', each_annotation(iscrowd=None)),
        ('val', fourth('annotations', id=-3)),
        ('val', fourth('annotations', segmentation=[TRIANGLE, [1, 1]])),
        ('val', fourth('annotations', iscrowd=1)),
    ],
)
def test_coco_files_that_are_right(data, part, change):
    spoil(data['coco'], part, change)
    plan = plan_of(data['coco'])
    assert len(plan.runs) == 1
    assert plan.remarks == []


def test_masks_are_asked_for_where_they_are_used(data):
    """The paper's detector has none."""
    for part in BOTH:
        spoil(data['coco'], part, each_annotation(segmentation=None))
    steps = ('train_dataloader.dataset.pipeline.1', 'val_dataloader.dataset.pipeline.2')
    without = [f'coco:{step}.with_mask=False' for step in steps]
    assert len(problems(data['coco'], *without)) == 1, 'mask AP is measured'
    assert plan_of(data['coco'], *without, 'coco:val_evaluator.metric=bbox').runs


def test_annotations_that_are_left_out_are_told(data):
    def tiny(content):
        for entry in content['annotations'][:3]:
            entry['bbox'][2] = 0.25
        content['annotations'][3]['image_id'] = 77

    file = spoil(data['coco'], 'train', tiny)
    start = f'COCO, train_dataloader: {file}: '
    assert plan_of(data['coco']).remarks == [
        f'{start}1 of 19 annotations are left out, since each names an image that is not listed',
        f'{start}3 of 19 annotations are left out, since each has a box of less than a pixel',
    ]


def test_images_that_are_not_there(data):
    for part in ('train2017', 'val2017'):
        for file in sorted((data['coco'] / part).iterdir())[::2]:
            file.unlink()
    train, val = problems(data['coco'])
    first = data['coco'] / 'train2017' / '000000000001.jpg'
    assert train.startswith('COCO, train_dataloader: ')
    assert f'4 of 8 images are not there, the first is {first}' in train
    assert '2 of 4 images are not there' in val


def test_an_image_without_objects_is_not_trained_on(data):
    """mmdet leaves it out, so it need not be there; it is validated on, though."""

    def without_first(content):
        first = content['images'][0]['id']
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] != first]

    for part in BOTH:
        spoil(data['coco'], part, without_first)
        next(iter(sorted((data['coco'] / f'{part}2017').iterdir()))).unlink()
    (found,) = problems(data['coco'])
    assert found.startswith('COCO, val_dataloader: ')


def test_an_image_of_another_size(data):
    """Such as one whose orientation is in its EXIF, which the annotating program did not heed."""
    file = data['coco'] / 'train2017' / '000000000001.jpg'
    exif = Image.Exif()
    exif[274] = 6
    Image.open(file).save(file, exif=exif)
    (found,) = problems(data['coco'])
    assert f'the image {file} has 72 x 96 pixels, and ' in found
    file.write_bytes(b'no image')
    (found,) = problems(data['coco'])
    assert f'the image {file} cannot be read' in found


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (fourth('images', neg_category_ids=None), 'images: 1 of 4 have no list neg_category_ids'),
        (fourth('images', not_exhaustive_category_ids=None), 'no list not_exhaustive_category_ids'),
        (fourth('categories', frequency=None), 'categories: 1 of 1203 have no frequency'),
        (fourth('images', coco_url=None), 'images: 1 of 4 have no coco_url'),
        (each_annotation(area=0), r'none of \d+ can be measured on: \d+ has an area of 0'),
        (doubled('annotations'), 'annotations: 1 ids come more than once'),
    ],
)
def test_lvis_files_that_a_run_would_stumble_over(data, change, expected):
    file = spoil(data['lvis'], 'val', change)
    (found,) = problems(data['lvis'])
    assert found.startswith(f'LVIS, val_dataloader: {file}: ')
    assert re.search(expected, found)


def test_lvis_files_with_other_ids_are_right(data):
    for part in BOTH:
        spoil(data['lvis'], part, each_annotation(id=lambda a: a['id'] - 1))
    assert plan_of(data['lvis']).runs
    for part in BOTH:
        spoil(data['lvis'], part, each_annotation(id=lambda a: f'text {a["id"]}'))
    assert plan_of(data['lvis']).runs


NAMES = [f'class {i}' for i in range(30)] + ['ä"b']
CATEGORIES = json.dumps([dict(id=i, name=name) for i, name in enumerate(NAMES)])
ANNOTATIONS = json.dumps([dict(id=i, image_id=7, bbox=[i, 0.5, 3e1, -4]) for i in range(50)])
IMAGES = '[{"id": 7, "text": "\\"categories\\": ["}]'


@pytest.mark.parametrize(
    'text',
    [
        '{"annotations": @a, "images": @i, "categories": @c}\n',
        ' {"images" :\n @i ,"categories" :\n @c, "annotations":\t@a , "info": {"x": 1}}',
        '{"info": {"categories": [1]}, "categories": @c, "images":@i, "annotations": @a}',
    ],
)
def test_a_file_is_read_whatever_its_order(tmp_path, text):
    file = tmp_path / 'a.json'
    for sign, part in (('@a', ANNOTATIONS), ('@i', IMAGES), ('@c', CATEGORIES)):
        text = text.replace(sign, part)
    file.write_text(text, encoding='utf-8')
    found = read_annotations(str(file))
    content = json.loads(text)
    assert names_of(found) == tuple(NAMES)
    assert found.images == content['images']
    assert found.ids == [each['id'] for each in content['annotations']]
    assert found.boxes.tolist() == [each['bbox'] for each in content['annotations']]
    # Nothing that json refuses is accepted.
    stripped = text.strip()
    for place in range(0, len(stripped), max(1, len(stripped) // 60)):
        for broken in (stripped[:place], stripped[:place] + ']' + stripped[place:]):
            file.write_text(broken, encoding='utf-8')
            try:
                json.loads(broken)
            except ValueError:
                with pytest.raises(ValueError, match=r'it is (no JSON|empty)'):
                    read_annotations(str(file))


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        (b'\xef\xbb\xbf{}', 'byte order mark'),
        ('{}'.encode('utf-16'), 'no UTF-8'),
        (b'{"images": [], "annotations": [1], "categories": []}', 'annotations holds .1., which'),
        (b'{"images": [], "annotations": []}', 'no "categories"'),
        (b'{}', 'no "images"'),
        (b'{"images": [], "images": []}', 'twice'),
        (b'{} x', 'Extra data|no JSON'),
    ],
)
def test_a_file_that_is_no_annotations(tmp_path, content, expected):
    file = tmp_path / 'a.json'
    file.write_bytes(content)
    with pytest.raises(ValueError, match=expected):
        read_annotations(str(file))
