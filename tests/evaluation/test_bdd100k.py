"""BDD100K's labels become annotation files that mmdet and pycocotools read rightly."""

import json
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.conftest import REPO
from tests.helpers.bdd100k import box, write_bdd100k
from tests.helpers.processes import status_of_tool
from vito_mm.evaluation import bdd100k
from vito_mm.evaluation.bdd100k import CLASSES, convert_labels, read_frames

VAL = 'labels/det_20/det_val.json'
LANE = dict(id='7', category='lane', poly2d=[dict(vertices=[[0, 0], [5, 5]], types='LL')])
FRAMES = dict(
    train=[
        dict(
            name='one.jpg',
            attributes=dict(weather='clear'),
            timestamp=10000,
            labels=[
                box('traffic light', 1125.9, 133.18, 1156.98, 210.88, attributes=dict(crowd=False)),
                box('other vehicle', 300, 300, 419, 359),
                box('pedestrian', 50, 60, 69, 109, attributes=dict(crowd=True)),
                LANE,
                box('car', 5, 5, 4, 9),
            ],
        ),
        dict(name='none.jpg'),
        dict(name='null.jpg', labels=None),
        dict(name='old.jpg', labels=[box('bike', 0, 0, 1279, 719), box('person', 1, 2, 3, 4)]),
    ],
    val=[
        dict(name='v.jpg', labels=[box('trailer', 0, 0, 99, 99), box('truck', 200, 0, 299, 99)]),
        dict(name='w.jpg', labels=[box(name, 8, 8, 99, 99) for name in CLASSES]),
    ],
)


@pytest.fixture(scope='module')
def converted(tmp_path_factory) -> Path:
    root = write_bdd100k(tmp_path_factory.mktemp('bdd100k'), FRAMES)
    convert_labels(root)
    return root


def test_mmdet_reads_the_boxes_by_the_shipped_config(converted):
    cfg = Config.fromfile(REPO / 'configs/protocols/faster_rcnn_bdd100k.py')
    settings = dict(cfg.train_dataloader.dataset, data_root=str(converted), pipeline=[])
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(settings)
        every = DATASETS.build(settings | dict(filter_cfg=None))
    assert dataset.metainfo['classes'] == CLASSES
    read = {Path(each['img_path']).name: each for each in map(every.get_data_info, range(4))}
    assert list(read) == ['one.jpg', 'none.jpg', 'null.jpg', 'old.jpg']
    assert all(Path(each['img_path']).is_file() for each in read.values())
    assert all((each['width'], each['height']) == (1280, 720) for each in read.values())
    found = [
        (CLASSES[each['bbox_label']], each['ignore_flag'], np.round(each['bbox'], 6).tolist())
        for each in read['one.jpg']['instances']
    ]
    # By hand: the last pixel belongs to the box, and mmdet's end behind it.
    assert found == [
        ('traffic light', 0, [1125.9, 133.18, 1157.98, 211.88]),
        ('car', 1, [300, 300, 420, 360]),
        ('pedestrian', 1, [50, 60, 70, 110]),
    ]
    assert [CLASSES[each['bbox_label']] for each in read['old.jpg']['instances']] == [
        'bicycle',
        'pedestrian',
    ]
    assert not read['none.jpg']['instances']
    assert len(dataset) == 2  # images without a box are not learnt from


def test_truth_as_predictions_has_an_ap_of_one(converted, capsys):
    truth = COCO(converted / 'labels/det_20/det_val_coco.json')
    fields = ('image_id', 'category_id', 'bbox')
    guesses = [dict({key: each[key] for key in fields}, score=0.9) for each in truth.anns.values()]
    evaluation = COCOeval(truth, truth.loadRes(guesses), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    # For each class; the trailer that is found as a truck is neither right nor wrong.
    precision = evaluation.eval['precision'][:, :, :, 0, 2]
    assert precision.shape[2] == len(CLASSES)
    np.testing.assert_allclose(precision, 1)


def test_the_tool_says_what_it_wrote(tmp_path, capfd):
    root = write_bdd100k(tmp_path / 'data', FRAMES)
    for split in ('train', 'val'):  # as the files of 2018 are called
        old = root / f'labels/bdd100k_labels_images_{split}.json'
        (root / f'labels/det_20/det_{split}.json').rename(old)
    out = tmp_path / 'new' / 'folder'
    words = ('prepare_bdd100k.py', root, out, '--labels', root / 'labels')
    assert status_of_tool(*words) == 0
    told = capfd.readouterr().out.splitlines()
    assert told[0] == f'{out}/det_train_coco.json: 4 images, 5 boxes'
    assert told[1].strip().startswith('2 of them')
    assert told[2].strip().startswith('1 empty')
    assert {file.name for file in out.iterdir()} == {'det_train_coco.json', 'det_val_coco.json'}
    content = json.loads((out / 'det_train_coco.json').read_text())
    assert [each['name'] for each in content['categories']] == list(CLASSES)
    assert [each['id'] for each in content['annotations']] == [1, 2, 3, 4, 5]
    assert [each['image_id'] for each in content['annotations']] == [1, 1, 1, 4, 4]
    assert content['annotations'][0]['area'] == pytest.approx(32.08 * 78.7)

    assert status_of_tool('prepare_bdd100k.py', root) == 2
    assert 'det_20' in capfd.readouterr().err


@pytest.mark.parametrize('indent', [None, 4])
@pytest.mark.parametrize('chunk', [3, 7, 2**20])
def test_frames_are_those_of_the_file_wherever_it_is_cut(tmp_path, monkeypatch, indent, chunk):
    monkeypatch.setattr(bdd100k, '_CHUNK', chunk)
    frames = [dict(name='ä "]}, [.jpg', labels=[]), *FRAMES['train'], *FRAMES['val']]
    file = tmp_path / 'labels.json'
    file.write_text(f'\n {json.dumps(frames, indent=indent, ensure_ascii=False)}\n')
    assert list(read_frames(file)) == frames
    file.write_text('[ ]')
    assert not list(read_frames(file))


def test_memory_does_not_grow_with_the_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(bdd100k, '_CHUNK', 2**12)
    images = tmp_path / 'images'
    images.mkdir()
    cv2.imwrite(str(images / '0.jpg'), np.zeros((720, 1280, 3), np.uint8))
    frames = [dict(name=f'{i}.jpg', labels=[box('car', 1, 2, 30, 40)] * 25) for i in range(160)]
    for frame in frames[1:]:
        (images / frame['name']).touch()
    peaks = []
    # With the first everything is imported; the second fills all buffers.
    for number in (1, 40, 160):
        file = tmp_path / 'det_train.json'
        file.write_text(json.dumps(frames[:number]))
        tracemalloc.start()
        counts = bdd100k.convert_split(file, images, tmp_path / 'coco.json')
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert counts.boxes == 25 * number
    print(peaks, file.stat().st_size)
    assert peaks[2] < peaks[1] + file.stat().st_size / 5


def changed(root: Path, text: str, by: str) -> None:
    file = root / VAL
    assert text in file.read_text()
    file.write_text(file.read_text().replace(text, by))


def cut(root: Path) -> None:
    file = root / VAL
    file.write_text(file.read_text()[:-80])


def small(root: Path) -> None:
    cv2.imwrite(str(root / 'images/100k/val/c.jpg'), np.zeros((360, 640, 3), np.uint8))


FAULTS = {
    'no labels': (lambda root: (root / VAL).unlink(), 'det_val.json'),
    'no folder': (lambda root: (root / 'images/100k/val').rename(root / 'x'), 'images/100k/val'),
    'no image': (lambda root: (root / 'images/100k/val/c.jpg').unlink(), '1 of 1 .*: c.jpg'),
    'category': (lambda root: changed(root, '"car"', '"cars"'), "c.jpg .*'cars'.*'car'"),
    'cut off': (cut, 'det_val.json .* frame 1'),
    'no list': (lambda root: changed(root, '[\n    {\n        "name"', '{"name"'), 'no list'),
    'no name': (lambda root: changed(root, '"name"', '"file"'), 'entry 1 .*"name"'),
    'twice': (lambda root: changed(root, '[\n    {\n', '[{"name": "c.jpg"}, {'), 'c.jpg .*twice'),
    'no numbers': (lambda root: changed(root, '"x1": 100', '"x1": "left"'), 'c.jpg .*x1, y1'),
    'no boxes': (lambda root: changed(root, 'box2d', 'box3d'), 'no boxes'),
    'other size': (small, '640 x 360'),
    'no text': (lambda root: (root / VAL).write_bytes(b'[{"name": "\xff"}]'), 'UTF-8'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_one_clear_error_and_no_file_that_is_not_complete(fault, tmp_path):
    root = write_bdd100k(tmp_path)
    old = root / 'labels/det_20/det_val_coco.json'
    old.write_text('old')
    spoil, expected = FAULTS[fault]
    spoil(root)
    with pytest.raises((ValueError, FileNotFoundError), match=expected):
        convert_labels(root)
    assert old.read_text() == 'old'
    assert not list(tmp_path.rglob('*.tmp'))


def test_what_is_no_frame_is_not_read_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(bdd100k, '_CHUNK', 100)
    monkeypatch.setattr(bdd100k, '_LARGEST_FRAME', 1000)
    file = tmp_path / 'labels.json'
    file.write_text('[{"name": "a.jpg"}, {broken ' + 'x' * 5000 + ']')
    frames = read_frames(file)
    assert next(frames)['name'] == 'a.jpg'
    with pytest.raises(ValueError, match='frame 2'):
        next(frames)
