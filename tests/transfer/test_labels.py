"""Data sets whose files hold other labels or images than their config expects."""

import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from PIL import Image

from tests.conftest import REPO
from tests.transfer.conftest import problems as plan_problems
from vito_mm.launch import parse_options
from vito_mm.transfer.checks import class_problems
from vito_mm.transfer.identity import moved_data
from vito_mm.transfer.labels import label_problems
from vito_mm.transfer.options import setting_words
from vito_mm.transfer.tasks import TASKS

FILES = dict(coco='instances_{}2017.json', lvis='lvis_v1_{}.json')
BOTH = ('train', 'val')


@pytest.fixture
def copied(miniscenes, tmp_path) -> Callable[[str], Path]:
    """Copies the data set of a task, to be changed."""
    return lambda task: Path(shutil.copytree(miniscenes[task], tmp_path / task))


@functools.cache
def base_of(task: str) -> Config:
    return Config.fromfile(REPO / 'configs' / TASKS[task].configs['miniscenes'])


def look(folder: Path, *cfg_options: str) -> tuple[list[str], list[str]]:
    """Problems and warnings of a data set, which has the name of its task."""
    cfg, task = Config(base_of(folder.name).to_dict()), TASKS[folder.name]
    words = [*setting_words(moved_data(cfg, str(folder))), *cfg_options]
    cfg.merge_from_dict(parse_options(words))
    found, warnings = label_problems(cfg, task)
    return [*found, *class_problems(cfg, task)], warnings


def change(folder: Path, part: str, function: Callable[[dict], None]) -> Path:
    """Change the content of an annotation file."""
    file = folder / 'annotations' / FILES[folder.name].format(part)
    content = json.loads(file.read_text())
    function(content)
    file.write_text(json.dumps(content))
    return file


def categories(function: Callable[[list], list]) -> Callable[[dict], None]:
    return lambda content: content.update(categories=function(content['categories']))


without_bicycle = categories(lambda known: [each for each in known if each['name'] != 'bicycle'])


@pytest.mark.parametrize('task', TASKS)
def test_data_sets_as_they_should_be(miniscenes, tmp_path, task):
    (tmp_path / task).symlink_to(miniscenes[task])
    assert look(tmp_path / task) == ([], [])


def test_the_plan_holds_problems_and_warnings_of_labels(options, copied):
    folder = copied('coco')
    file = change(folder, 'train', without_bicycle)
    (found,) = plan_problems(options(tasks=['coco'], data=[f'coco={folder}']))
    start = f'COCO, train_dataloader: {file} has 79 categories, the config 80 classes: '
    assert found.startswith(start)
    assert 'label 1 is car and not bicycle, 2 is motorcycle and not car' in found
    assert 'coco:train_dataloader.dataset.metainfo.classes=names.txt' in found


@pytest.mark.parametrize(
    ('function', 'expected'),
    [
        (lambda known: known[::-1], 'label 0 is toothbrush and not person'),
        (
            lambda known: [*known, dict(id=99, name='car')],
            'has 81 categories.*80 is car and',
        ),
        (lambda known: [], 'it has no "categories"'),
        (lambda known: [dict(id=1)], 'some of its "categories" have no id or no name'),
        (lambda known: [dict(id=1, name='x')], '80 classes: .*0 is None and .* and 75 more'),
    ],
)
def test_categories_that_are_not_those_of_the_config(copied, function, expected):
    folder = copied('coco')
    file = change(folder, 'val', categories(function))
    (found,) = look(folder)[0]
    assert found.startswith(f'COCO, val_dataloader: {file} ')
    assert re.search(expected, found)
    file.write_text('{"categories": [')
    (found,) = look(folder)[0]
    assert found.startswith(f'COCO, val_dataloader: {file} cannot be read as COCO annotations: ')


def test_the_evaluator_has_its_own_file(copied):
    folder = copied('coco')
    other = shutil.copy(change(folder, 'val', dict), folder / 'annotations/other.json')
    shutil.move(other, folder / 'annotations' / FILES['coco'].format('other'))
    other = change(folder, 'other', without_bicycle)
    (found,) = look(folder, f'val_evaluator.ann_file={other}')[0]
    assert found.startswith(f'COCO, val_evaluator: {other} has 79 categories')


def test_skipped_categories_and_annotations_are_warnings(copied, tmp_path):
    folder = copied('coco')
    file = change(
        folder,
        'train',
        lambda content: content['categories'].append(dict(id=99, name='zebra fish')),
    )
    problems, (warning,) = look(folder)
    assert problems == []
    assert warning.startswith(f'COCO, train_dataloader: {file} has 81 categories, of which 1 ')
    assert warning.endswith('zebra fish')
    names = tmp_path / 'names.txt'
    names.write_text('\n'.join(CocoDataset.METAINFO['classes']))
    assert look(folder, f'train_dataloader.dataset.metainfo.classes={names}') == ([], [])

    def spoil(content: dict) -> None:
        content['categories'].pop()
        for entry in content['annotations'][:3]:
            entry['bbox'][2] = 0.25
        content['annotations'][3]['image_id'] = 77

    change(folder, 'train', spoil)
    assert look(folder) == (
        [],
        [
            f'COCO, train_dataloader: {file}: {text}'
            for text in (
                '3 of 19 annotations are skipped, since each has a box of less than a pixel',
                '1 of 19 annotations are skipped, since each names an image that is not listed',
            )
        ],
    )


def test_the_remedy_that_is_named_helps(copied, tmp_path):
    folder, names = copied('coco'), tmp_path / 'names.txt'
    names.write_text('cat\ntraffic light\n')
    named = [f'{part}_dataloader.dataset.metainfo.classes={names}' for part in BOTH]

    def two(content: dict) -> None:
        used = sorted({each['category_id'] for each in content['annotations']})
        pair = zip(used, ('cat', 'traffic light'), strict=False)
        content['categories'] = [dict(id=i, name=name) for i, name in pair]

    for part in BOTH:
        change(folder, part, two)
    assert len(look(folder)[0]) == 2
    found = '\n'.join(look(folder, *named)[0])
    places = re.findall(r'--cfg-options coco:(\S*num_classes=2)', found)
    assert look(folder, *named, *places)[0] == []
    names.unlink()
    assert any('there is no file' in text for text in look(folder, *named, *places)[0])


def test_lvis_has_a_label_for_each_category(copied):
    folder = copied('lvis')
    file = change(folder, 'train', categories(lambda known: known[:-3]))
    (found,) = look(folder)[0]
    assert f'{file} has 1200 categories, the config 1203 classes: each category is a l' in found
    assert 'lvis:train_dataloader.dataset.dataset.metainfo.classes=' in found


def test_masks_are_asked_for_where_they_are_used(copied):
    """The paper's detector has none."""
    folder = copied('coco')

    def without_masks(content: dict) -> None:
        for entry in content['annotations']:
            del entry['segmentation']

    files = [change(folder, part, without_masks) for part in BOTH]
    found = look(folder)[0]
    assert all(f'{file}: annotations' in text for file, text in zip(files, found, strict=True))
    steps = ('train_dataloader.dataset.pipeline.1', 'val_dataloader.dataset.pipeline.2')
    without = [f'{step}.with_mask=False' for step in steps]
    assert len(look(folder, *without)[0]) == 1, 'mask AP is measured'
    assert look(folder, *without, 'val_evaluator.metric=bbox')[0] == []


def test_the_metric_decides_on_the_fields(copied):
    """pycocotools needs the flag of crowds, and takes an id of 0 for unmatched."""
    folder = copied('coco')

    def change_all(content: dict) -> None:
        for entry in content['annotations']:
            entry.pop('iscrowd')
        content['annotations'][0].update(id=0, iscrowd=0)

    for part in BOTH:
        change(folder, part, change_all)
    zero, crowds = look(folder)[0]
    assert zero.startswith('COCO, val_dataloader: ')
    assert 'pycocotools takes 0 for unmatched' in zero
    assert 'have no iscrowd' in crowds


def test_images_that_are_missing(copied):
    folder = copied('coco')
    for part in ('train2017', 'val2017'):
        for file in sorted((folder / part).iterdir())[::2]:
            file.unlink()
    train, val = look(folder)[0]
    first = folder / 'train2017' / '000000000001.jpg'
    assert f'4 of 8 images are not there, the first is {first}' in train
    assert '2 of 4 images are not there' in val


def test_an_image_without_objects_is_not_trained_on(copied):
    """mmdet skips it, so it need not be there; it is validated on, though."""
    folder = copied('coco')

    def without_first(content: dict) -> None:
        first = content['images'][0]['id']
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] != first]

    for part in BOTH:
        change(folder, part, without_first)
        min((folder / f'{part}2017').iterdir()).unlink()
    (found,) = look(folder)[0]
    assert found.startswith('COCO, val_dataloader: ')


def test_an_image_of_another_size(copied):
    """Such as one whose orientation is in its EXIF, which the annotating program did not heed."""
    folder = copied('coco')
    file = folder / 'train2017' / '000000000001.jpg'
    exif = Image.Exif()
    exif[274] = 6
    Image.open(file).save(file, exif=exif)
    (found,) = look(folder)[0]
    assert f'the image {file} has 72 x 96 pixels, and ' in found
    file.write_bytes(b'no image')
    (found,) = look(folder)[0]
    assert f'the image {file} cannot be read' in found


# Masks of classes ---------------------------------------------------------------------------------


def paint(file: Path, value: int) -> None:
    """Set the first pixel of a mask."""
    mask = np.array(Image.open(file))
    mask[0, 0] = value
    Image.fromarray(mask).save(file)


@pytest.fixture
def voc(copied) -> Path:
    return copied('pascal')


@pytest.fixture
def first_mask(voc) -> Path:
    """The first mask of the training list of PASCAL VOC."""
    name = (voc / 'ImageSets/Segmentation/train.txt').read_text().split()[0]
    return voc / 'SegmentationClass' / f'{name}.png'


def test_a_label_beyond_the_classes(voc, first_mask):
    paint(first_mask, 255)
    assert look(voc)[0] == []
    paint(first_mask, 21)
    (found,) = look(voc)[0]
    assert f'{first_mask} has 21 where the config has 21 classes, counted from 0 on' in found
    assert 'train_dataloader.dataset.datasets.0.metainfo.classes' in found


def test_labels_are_looked_at_as_they_are_learnt(copied):
    """ADE20K: 0 is no class, and the classes count from 1."""
    folder = copied('ade20k')
    first = min((folder / 'annotations' / 'validation').rglob('*.png'))
    for value in (0, 150, 255):
        paint(first, value)
        assert look(folder)[0] == []
    paint(first, 151)
    (found,) = look(folder)[0]
    assert f'the mask {first} has 151 where the config has 150 classes, counted from 1 on' in found
    paint(first, 150)
    differ = 'val_dataloader.dataset.reduce_zero_label=False'
    assert 'reduce_zero_label' in look(folder, differ)[0][0]


def test_skipped_classes_have_no_label(voc):
    places = ('train_dataloader.dataset.datasets.0', 'train_dataloader.dataset.datasets.1')
    settings = [
        f'{key}.metainfo.classes=(background,person)' for key in (*places, 'val_dataloader.dataset')
    ]
    assert look(voc, *settings, 'model.decode_head.num_classes=2')[0] == []


@pytest.mark.parametrize(
    ('spoil', 'expected'),
    [
        (lambda file: file.write_bytes(b'no image'), ' cannot be read: UnidentifiedImageError'),
        (lambda file: file.write_bytes(file.read_bytes()[:60]), ' cannot be read: '),
        (lambda file: Image.new('RGB', (8, 8)).save(file), ' has 3 channels'),
        (lambda file: Image.new('LA', (8, 8)).save(file), ' has 2 channels'),
        (lambda file: Image.new('I;16', (8, 8), 256).save(file), ' has 256 where the config'),
        (
            lambda file: Image.open(file).resize((48, 72)).save(file),
            ' has 48 x 72 pixels, and its image .* 96 x 72',
        ),
    ],
)
def test_a_mask_that_is_none(voc, first_mask, spoil, expected):
    spoil(first_mask)
    (found,) = look(voc)[0]
    assert re.match(rf'PASCAL VOC, train_dataloader: the mask {first_mask}{expected}', found)


@pytest.mark.parametrize(('task', 'count'), [('pascal', 3), ('ade20k', 2)])
@pytest.mark.parametrize('pair', [(0, 255), (0, 0)])
def test_masks_of_no_class(copied, task, count, pair):
    """Object masks as drawing programs save them: learnt as background and nothing else."""
    folder = copied(task)
    for file in folder.rglob('*.png'):
        mask = np.full(np.array(Image.open(file)).shape, pair[0], np.uint8)
        mask[: len(mask) // 2] = pair[1]
        Image.fromarray(mask).save(file)
    found = look(folder)[0]
    assert len(found) == count
    expected = 'hold nothing but ' + ' and '.join(map(str, sorted(set(pair))))
    assert all(expected in text for text in found)


def test_rare_classes_are_looked_for(voc, first_mask):
    """Where the first masks show none, more are read."""
    names = voc / 'ImageSets/Segmentation/train.txt'
    rare, common, *_ = names.read_text().split()
    paint(first_mask, 3)
    empty = voc / 'SegmentationClass' / f'{common}.png'
    Image.fromarray(np.where(np.eye(72, 96), 255, 0).astype(np.uint8)).save(empty)
    names.write_text('\n'.join([common] * 50 + [rare] + [common] * 12))
    assert look(voc)[0] == []
    names.write_text('\n'.join([common] * 63))
    (found,) = look(voc)[0]
    assert 'hold nothing but 0 and 255' in found


def test_images_and_masks_that_are_missing(voc, first_mask):
    first_mask.unlink()
    names = (voc / 'ImageSets/Segmentation/val.txt').read_text().split()
    (voc / 'JPEGImages' / f'{names[1]}.jpg').unlink()
    masks, images = look(voc)[0]
    assert re.search(rf'train_dataloader: 1 of \d+ masks .* {first_mask}$', masks)
    assert re.search(rf'val_dataloader: 1 of {len(names)} images .*{names[1]}.jpg$', images)


def test_data_sets_that_are_empty_or_cannot_be_made(copied, voc):
    folder = copied('ade20k')
    (found,) = look(folder, 'train_dataloader.dataset.img_suffix=.jpeg')[0]
    assert found == f'ADE20K, train_dataloader: ADE20KDataset finds no image in {folder}'
    (found,) = look(voc, 'val_dataloader.dataset.suffix=.png')[0]
    assert found.startswith('PASCAL VOC, val_dataloader: PascalVOCDataset cannot be made: ')
    assert "'suffix'" in found
