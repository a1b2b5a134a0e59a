"""Data sets whose files hold other labels than their config has classes."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from PIL import Image

from tests.conftest import REPO
from vito_mm.miniscenes import make_miniscenes
from vito_mm.transfer.options import SuiteOptions
from vito_mm.transfer.plan import Plan, PlanError, make_plan

FOLDERS = dict(pascal='voc', ade20k='ade20k', coco='coco', lvis='lvis')


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp('miniscenes')
    tasks = tuple(FOLDERS.values())
    return make_miniscenes(root, preset='tiny', workers=0, tasks=tasks, progress=False)


@pytest.fixture
def data(original, tmp_path):
    """A copy of the data sets, to be changed."""
    return {name: Path(shutil.copytree(original[name], tmp_path / name)) for name in original}


def plan_of(data: dict[str, Path], task: str, *cfg_options: str) -> Plan:
    options = SuiteOptions(
        REPO,
        checkpoints=['random'],
        tasks=[task],
        seeds=1,
        protocol='miniscenes',
        work_dir=data[FOLDERS[task]].parent / 'suite',
        data=[f'{task}={data[FOLDERS[task]]}'],
        cfg_options=cfg_options,
    )
    return make_plan(options)


def problems(data: dict[str, Path], task: str, *cfg_options: str) -> list[str]:
    with pytest.raises(PlanError) as caught:
        plan_of(data, task, *cfg_options)
    return caught.value.problems


def change(file: Path, function) -> Path:
    """Change the categories of an annotation file."""
    content = json.loads(file.read_text())
    content['categories'] = function(content['categories'])
    file.write_text(json.dumps(content))
    return file


@pytest.fixture
def train(data) -> Path:
    return data['coco'] / 'annotations' / 'instances_train2017.json'


@pytest.fixture
def val(data) -> Path:
    return data['coco'] / 'annotations' / 'instances_val2017.json'


@pytest.mark.parametrize('task', FOLDERS)
def test_data_sets_as_they_should_be(data, task):
    plan = plan_of(data, task)
    assert len(plan.runs) == 1
    assert plan.remarks == []


def without_bicycle(categories: list[dict]) -> list[dict]:
    return [each for each in categories if each['name'] != 'bicycle']


def test_a_file_that_lacks_a_class(data, train):
    change(train, without_bicycle)
    (found,) = problems(data, 'coco')
    start = f'COCO, train_dataloader: {train} has 79 categories, the config 80 classes: it lacks 1'
    assert found.startswith(start)
    assert '(bicycle)' in found
    assert 'coco:train_dataloader.dataset.metainfo.classes=names.txt' in found


def test_the_labels_that_mmdet_makes_of_such_a_file_are_shifted(train):
    """Why it is a problem and not left to the user."""

    def label_of_cars() -> int:
        dataset = CocoDataset(ann_file=str(train), data_prefix=dict(img=''), test_mode=True)
        return dataset.cat2label[3]

    assert label_of_cars() == CocoDataset.METAINFO['classes'].index('car')
    change(train, without_bicycle)
    assert label_of_cars() == CocoDataset.METAINFO['classes'].index('bicycle')


@pytest.mark.parametrize(
    ('function', 'expected'),
    [
        (lambda known: known[::-1], r'another order \(first: toothbrush in the file, person in'),
        (lambda known: [*known, dict(id=99, name='car')], 'has 81 categories.*has car more than'),
        (lambda known: [], 'it has no "categories"'),
        (lambda known: 'none', 'it has no "categories"'),
        (lambda known: [dict(id=1)], 'some of its "categories" have no id or no name'),
        (lambda known: [dict(id=1, name='x')], r'80 classes: it lacks 80.*\(person, .*, \.\.\.\)'),
    ],
)
def test_categories_that_are_not_those_of_the_config(data, val, function, expected):
    change(val, function)
    (found,) = problems(data, 'coco')
    assert found.startswith(f'COCO, val_dataloader: {val} ')
    assert re.search(expected, found)


@pytest.mark.parametrize('text', ['', '{"categories": [', 'x', '[]'])
def test_a_file_that_is_no_annotations(data, train, text):
    train.write_text(text)
    (found,) = problems(data, 'coco')
    assert found.startswith(f'COCO, train_dataloader: {train} cannot be read as COCO annotations: ')


def test_what_evaluates_has_its_own_file(data, val):
    other = Path(shutil.copy(val, val.with_name('other.json')))
    change(other, without_bicycle)
    (found,) = problems(data, 'coco', f'coco:val_evaluator.ann_file={other}')
    assert found.startswith(f'COCO, val_evaluator: {other} has 79 categories')


def test_categories_that_nobody_left_out_on_purpose_are_told(data, train, tmp_path):
    change(train, lambda known: [*known, dict(id=99, name='zebra fish')])
    (remark,) = plan_of(data, 'coco').remarks
    assert remark.startswith(f'COCO, train_dataloader: {train} has 81 categories, of which 1 ')
    assert remark.endswith('zebra fish')
    names = tmp_path / 'names.txt'
    names.write_text('\n'.join(CocoDataset.METAINFO['classes']))
    chosen = f'coco:train_dataloader.dataset.metainfo.classes={names}'
    assert plan_of(data, 'coco', chosen).remarks == []


def test_the_remedy_that_is_named_helps(data, train, val, tmp_path):
    names = tmp_path / 'names.txt'
    names.write_text('cat\ntraffic light\n')
    loaders = ('train_dataloader', 'val_dataloader')
    named = [f'coco:{loader}.dataset.metainfo.classes={names}' for loader in loaders]
    for file in (train, val):
        used = {each['category_id'] for each in json.loads(file.read_text())['annotations']}
        pair = list(zip(sorted(used), ('cat', 'traffic light'), strict=False))
        change(file, lambda known, pair=pair: [dict(id=i, name=name) for i, name in pair])
    assert len(problems(data, 'coco')) == 2
    places = [
        re.search(r'--cfg-options (coco:\S*num_classes=2)', text).group(1)
        for text in problems(data, 'coco', *named)
    ]
    assert len(plan_of(data, 'coco', *named, *places).runs) == 1
    names.unlink()
    assert any('there is no file' in text for text in problems(data, 'coco', *named, *places))


def test_lvis_has_a_label_for_each_category(data):
    file = data['lvis'] / 'annotations' / 'lvis_v1_train.json'
    change(file, lambda known: known[:-3])
    (found,) = problems(data, 'lvis')
    assert f'{file} has 1200 categories, the config 1203 classes: each category is a l' in found
    assert 'lvis:train_dataloader.dataset.dataset.metainfo.classes=' in found


def masks_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob('*.png'))


def paint(file: Path, value: int) -> None:
    """Set the first pixel of a mask."""
    mask = np.array(Image.open(file))
    mask[0, 0] = value
    Image.fromarray(mask).save(file)


@pytest.fixture
def first_mask(data) -> Path:
    """The first mask of the training list of PASCAL VOC."""
    name = (data['voc'] / 'ImageSets/Segmentation/train.txt').read_text().split()[0]
    return data['voc'] / 'SegmentationClass' / f'{name}.png'


def test_a_label_beyond_the_classes(data, first_mask):
    paint(first_mask, 255)
    assert plan_of(data, 'pascal').runs
    paint(first_mask, 21)
    (found,) = problems(data, 'pascal')
    assert found.startswith(f'PASCAL VOC, train_dataloader: the mask {first_mask} has 21 where ')
    assert 'the config has 21 classes, counted from 0 on' in found
    assert 'train_dataloader.dataset.datasets.0.metainfo.classes' in found


def test_labels_are_looked_at_as_they_are_learnt(data):
    """ADE20K: 0 is no class, and the classes count from 1."""
    (first, *_) = masks_of(data['ade20k'] / 'annotations' / 'validation')
    for value in (0, 150, 255):
        paint(first, value)
        assert plan_of(data, 'ade20k').runs
    paint(first, 151)
    (found,) = problems(data, 'ade20k')
    assert f'the mask {first} has 151 where the config has 150 classes, counted from 1 on' in found
    paint(first, 150)
    differ = 'ade20k:val_dataloader.dataset.reduce_zero_label=False'
    assert 'reduce_zero_label' in problems(data, 'ade20k', differ)[0]


def test_classes_that_are_left_out_have_no_label(data):
    cfg_options = [
        f'pascal:{key}.metainfo.classes=(background,person)'
        for key in (
            'train_dataloader.dataset.datasets.0',
            'train_dataloader.dataset.datasets.1',
            'val_dataloader.dataset',
        )
    ]
    cfg_options.append('pascal:model.decode_head.num_classes=2')
    assert plan_of(data, 'pascal', *cfg_options).runs


@pytest.mark.parametrize(
    ('spoil', 'expected'),
    [
        (lambda file: file.write_bytes(b'no image'), 'cannot be read: UnidentifiedImageError'),
        (lambda file: file.write_bytes(file.read_bytes()[:60]), 'cannot be read: '),
        (lambda file: Image.new('RGB', (8, 8)).save(file), 'has 3 channels'),
        (lambda file: Image.new('LA', (8, 8)).save(file), 'has 2 channels'),
        (lambda file: Image.new('I;16', (8, 8), 256).save(file), 'has 256 where the config'),
    ],
)
def test_a_mask_that_is_none(data, first_mask, spoil, expected):
    spoil(first_mask)
    (found,) = problems(data, 'pascal')
    assert found.startswith(f'PASCAL VOC, train_dataloader: the mask {first_mask} {expected}')


def test_a_mask_that_is_not_of_its_image(data, first_mask):
    mask = Image.open(first_mask)
    mask.resize((mask.width // 2, mask.height)).save(first_mask)
    (found,) = problems(data, 'pascal')
    assert re.search(rf'{first_mask} has 48 x 72 pixels, and its image .* 96 x 72', found)


@pytest.mark.parametrize('task', ['pascal', 'ade20k'])
@pytest.mark.parametrize('pair', [(0, 255), (0, 0), (255, 255)])
def test_masks_of_no_class(data, task, pair):
    """Object masks as drawing programs save them: learnt as background and nothing else."""
    for file in masks_of(data[FOLDERS[task]]):
        mask = np.full(np.array(Image.open(file)).shape, pair[0], np.uint8)
        mask[: len(mask) // 2] = pair[1]
        Image.fromarray(mask).save(file)
    found = problems(data, task)
    assert len(found) == {'pascal': 3, 'ade20k': 2}[task]
    expected = 'hold nothing but ' + ' and '.join(map(str, sorted(set(pair))))
    assert all(expected in text for text in found)


def test_rare_classes_are_looked_for(data, first_mask):
    """Where the first masks show none, more are read."""
    names = data['voc'] / 'ImageSets/Segmentation/train.txt'
    rare, common, *_ = names.read_text().split()
    paint(first_mask, 3)
    empty = data['voc'] / 'SegmentationClass' / f'{common}.png'
    Image.fromarray(np.where(np.eye(72, 96), 255, 0).astype(np.uint8)).save(empty)
    names.write_text('\n'.join([common] * 50 + [rare] + [common] * 12))
    assert plan_of(data, 'pascal').runs
    names.write_text('\n'.join([common] * 63))
    (found,) = problems(data, 'pascal')
    assert 'hold nothing but 0 and 255' in found


def test_images_and_masks_that_are_not_there(data, first_mask):
    first_mask.unlink()
    names = (data['voc'] / 'ImageSets/Segmentation/val.txt').read_text().split()
    (data['voc'] / 'JPEGImages' / f'{names[1]}.jpg').unlink()
    found = problems(data, 'pascal')
    assert re.match(
        rf'PASCAL VOC, train_dataloader: 1 of \d+ masks are not there.* {first_mask}$', found[0]
    )
    assert re.match(
        rf'PASCAL VOC, val_dataloader: 1 of {len(names)} images .*{names[1]}.jpg$', found[1]
    )
    assert len(found) == 2


def test_a_folder_without_images_of_that_ending(data):
    (found,) = problems(data, 'ade20k', 'ade20k:train_dataloader.dataset.img_suffix=.jpeg')
    assert found == f'ADE20K, train_dataloader: ADE20KDataset finds no image in {data["ade20k"]}'


def test_a_data_set_that_cannot_be_made(data):
    (found,) = problems(data, 'pascal', 'pascal:val_dataloader.dataset.suffix=.png')
    assert found.startswith('PASCAL VOC, val_dataloader: PascalVOCDataset cannot be made: ')
    assert "'suffix'" in found
