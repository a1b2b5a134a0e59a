"""FasterLVISMetric against the lvis package's own evaluation."""

import copy
import json

import numpy as np
import pytest
import torch
from mmdet.evaluation.metrics import LVISMetric
from mmdet.structures.mask import encode_mask_results

from vito_mm.registry import METRICS

SIDE = 128  # pixels; areas below 32**2 and between 32**2 and 96**2 occur, and a few above
NUM_IMAGES = 12
FREQUENCIES = 'rrrcccffff'


def _box_mask(box, side=SIDE):
    x, y, w, h = (int(v) for v in box)
    mask = np.zeros((side, side), dtype=bool)
    mask[y : y + h, x : x + w] = True
    mask[y : y + h // 3, x : x + w // 3] = False  # so that masks and boxes differ
    return mask


def _random_box(rng):
    size = rng.integers(8, 120, 2)
    corner = [rng.integers(0, SIDE - s) for s in size]
    return [float(v) for v in (*corner, *size)]


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    """Random LVIS annotations with every federated list in use, and noisy detections."""
    rng = np.random.default_rng(0)
    category_ids = list(range(3, 3 + 2 * len(FREQUENCIES), 2))
    images, annotations, samples = [], [], []
    for image_id in range(1, NUM_IMAGES + 1):
        present = rng.choice(category_ids, 4, replace=False)
        absent = rng.choice([c for c in category_ids if c not in present], 2, replace=False)
        images.append(
            {
                'id': image_id,
                'width': SIDE,
                'height': SIDE,
                'coco_url': f'http://images.cocodataset.org/val2017/{image_id}.jpg',
                'neg_category_ids': absent.tolist(),
                'not_exhaustive_category_ids': [int(present[0])],
            }
        )
        boxes, labels = [], []
        for category_id in present:
            for _ in range(rng.integers(1, 4)):
                box = _random_box(rng)
                mask = _box_mask(box)
                rle = encode_mask_results([mask])[0]
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'image_id': image_id,
                        'category_id': int(category_id),
                        'bbox': box,
                        'area': float(mask.sum()),
                        'segmentation': {**rle, 'counts': rle['counts'].decode()},
                    }
                )
                x, y, w, h = np.clip(np.array(box) + rng.normal(0, 2, 4), 1, SIDE - 2)
                boxes.append([x, y, min(x + max(w, 4), SIDE), min(y + max(h, 4), SIDE)])
                labels.append(category_ids.index(category_id))
        # False positives of all categories; in the first image more than the 300 that count.
        for _ in range(400 if image_id == 1 else 15):
            x, y, w, h = _random_box(rng)
            boxes.append([x, y, x + w, y + h])
            labels.append(rng.integers(len(category_ids)))
        masks = [_box_mask([x1, y1, x2 - x1, y2 - y1]) for x1, y1, x2, y2 in boxes]
        samples.append(
            {
                'img_id': image_id,
                'ori_shape': (SIDE, SIDE),
                'pred_instances': {
                    'bboxes': torch.tensor(np.array(boxes), dtype=torch.float32),
                    'labels': torch.tensor(labels),
                    'scores': torch.tensor(rng.permutation(len(boxes)) / len(boxes)),
                    'masks': torch.tensor(np.array(masks)),
                },
            }
        )
    file = tmp_path_factory.mktemp('lvis') / 'lvis_v1_val.json'
    categories = [
        {'id': i, 'name': f'category_{i}', 'frequency': f}
        for i, f in zip(category_ids, FREQUENCIES, strict=True)
    ]
    file.write_text(
        json.dumps({'images': images, 'annotations': annotations, 'categories': categories})
    )
    return str(file), samples


def _evaluate(metric, samples):
    metric.dataset_meta = {'classes': [f'category_{i}' for i in range(len(FREQUENCIES))]}
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def _reference(file, samples, monkeypatch):
    """What lvis 0.5.3 makes of the same predictions."""
    from lvis import LVIS, LVISEval, LVISResults

    prefix = file.replace('.json', '_results')
    _evaluate(
        LVISMetric(file, metric=['bbox', 'segm'], format_only=True, outfile_prefix=prefix), samples
    )
    monkeypatch.setattr(np, 'float', float, raising=False)  # what lvis 0.5.3 needs
    found = {}
    for metric in ('bbox', 'segm'):
        with open(f'{prefix}.{metric}.json') as stream:
            detections = json.load(stream)
        if metric == 'segm':  # or lvis takes the boxes' areas
            for detection in detections:
                del detection['bbox']
        ground_truth = LVIS(file)
        reference = LVISEval(ground_truth, LVISResults(ground_truth, detections), metric)
        reference.run()
        for item in ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'APr', 'APc', 'APf'):
            found[f'lvis/{metric}_{item}'] = float(reference.get_results()[item])
    return found


def _metric(file, **settings):
    return METRICS.build(
        dict(type='FasterLVISMetric', ann_file=file, metric=['bbox', 'segm']) | settings
    )


def test_equals_the_lvis_package(world, monkeypatch):
    file, samples = world
    expected = _reference(file, samples, monkeypatch)
    assert _evaluate(_metric(file), samples) == pytest.approx(expected, abs=1e-12)
    assert min(expected.values()) > 0.01, 'something shows nothing'


def _odd_world(file, seed):
    """A small world with what real files have: images without annotations, without detections,
    without either; instances without an area or to be ignored; ties of scores."""
    rng = np.random.default_rng(seed)
    category_ids = list(range(1, 1 + len(FREQUENCIES)))
    images, annotations, samples = [], [], []
    for image_id in range(1, 13):
        kind = rng.choice(
            ['usual', 'not annotated', 'not detected', 'empty'], p=[0.4, 0.3, 0.2, 0.1]
        )
        present = rng.choice(category_ids, 3) if kind in ('usual', 'not detected') else []
        boxes, labels = [], []
        for category_id in present:
            box = _random_box(rng)
            mask = _box_mask(box)
            rle = encode_mask_results([mask])[0]
            odd = rng.random()
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=int(category_id),
                    bbox=box,
                    area=0.0 if odd < 0.1 else float(mask.sum()),
                    segmentation={**rle, 'counts': rle['counts'].decode()},
                    **(dict(ignore=1) if 0.1 < odd < 0.2 else {}),
                    **(dict(iscrowd=1) if 0.2 < odd < 0.3 else {}),
                )
            )
            for _ in range(rng.integers(4)):
                x, y, w, h = np.clip(np.array(box) + rng.normal(0, 2, 4), 1, SIDE - 2)
                boxes.append([x, y, min(x + max(w, 4), SIDE), min(y + max(h, 4), SIDE)])
                labels.append(category_id - 1)
        for _ in range(rng.choice([5, 320], p=[0.9, 0.1])):
            x, y, w, h = _random_box(rng)
            boxes.append([x, y, x + w * (rng.random() > 0.05), y + h])
            labels.append(rng.integers(len(category_ids)))
        if kind in ('not detected', 'empty'):
            boxes, labels = [], []
        absent = rng.choice(category_ids, rng.integers(4), replace=False)
        images.append(
            dict(
                id=image_id,
                width=SIDE,
                height=SIDE,
                coco_url=f'{image_id}.jpg',
                neg_category_ids=[int(c) for c in absent if c not in present],
                not_exhaustive_category_ids=[
                    int(c) for c in rng.choice(category_ids, rng.integers(3), replace=False)
                ],
            )
        )
        masks = [_box_mask([x1, y1, x2 - x1, y2 - y1]) for x1, y1, x2, y2 in boxes]
        samples.append(
            {
                'img_id': image_id,
                'ori_shape': (SIDE, SIDE),
                'pred_instances': {
                    'bboxes': torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32),
                    'labels': torch.tensor(np.array(labels, int)),
                    'scores': torch.tensor(rng.integers(1, 20, len(boxes)) / 20),
                    'masks': torch.tensor(np.array(masks).reshape(-1, SIDE, SIDE)),
                },
            }
        )
    categories = [
        dict(id=i, name=f'category_{i}', frequency=f)
        for i, f in zip(category_ids, FREQUENCIES, strict=True)
    ]
    content = dict(images=images, annotations=annotations, categories=categories)
    file.write_text(json.dumps(content))
    return content, samples


def _with_ids(content, samples, image, annotation, category):
    """The same world with other ids, in the same order."""
    content, samples = copy.deepcopy(content), copy.deepcopy(samples)
    for each in content['images']:
        each['id'] = image(each['id'])
        for key in ('neg_category_ids', 'not_exhaustive_category_ids'):
            each[key] = [category(i) for i in each[key]]
    for each in content['annotations']:
        each.update(
            id=annotation(each['id']),
            image_id=image(each['image_id']),
            category_id=category(each['category_id']),
        )
    for each in content['categories']:
        each['id'] = category(each['id'])
    for each in samples:
        each['img_id'] = image(each['img_id'])
    return content, samples


@pytest.mark.parametrize('seed', range(8))
def test_equals_the_lvis_package_in_odd_worlds(tmp_path, monkeypatch, seed):
    content, samples = _odd_world(tmp_path / 'plain.json', seed)
    expected = _reference(str(tmp_path / 'plain.json'), samples, monkeypatch)
    assert expected['lvis/segm_AP'] > 0.001
    for name, ids in dict(
        plain=[lambda i: i] * 3,
        zero=[lambda i: i - 1] * 3,
        text=[lambda i: f'id {i:03}'] * 3,
        large=[lambda i: 10**12 + 7 * i, lambda i: -i, lambda i: i + 0.5],
    ).items():
        file = tmp_path / f'{name}.json'
        other, detected = _with_ids(content, samples, *ids)
        file.write_text(json.dumps(other))
        found = _evaluate(_metric(str(file)), detected)
        assert found == pytest.approx(expected, abs=1e-12), name


def test_the_annotation_file_stays_as_it_is(world):
    file, samples = world
    metric = _metric(file)
    before = copy.deepcopy(metric._lvis_api.dataset)
    _evaluate(metric, samples)
    assert metric._lvis_api.dataset == before


def _double_image(content):
    content['images'][1]['id'] = content['images'][0]['id']


def _double_annotation(content):
    content['annotations'][1]['id'] = content['annotations'][0]['id']


def _no_frequency(content):
    del content['categories'][2]['frequency']


def _no_federated_list(content):
    del content['images'][3]['neg_category_ids']


def _no_mask(content):
    del content['annotations'][5]['segmentation']


def _broken_mask(content):
    content['annotations'][5]['segmentation']['counts'] = 'no encoding!!'


def _nothing(content):
    content['annotations'] = []


@pytest.mark.parametrize(
    ('spoil', 'expected'),
    [
        (_double_image, 'images: 1 ids come more than once'),
        (_double_annotation, 'annotations: 1 ids come more than once'),
        (_no_frequency, 'categories: 1 of 10 have no frequency'),
        (_no_federated_list, 'images: 1 of 12 have no list neg_category_ids'),
        (_no_mask, 'annotations: 1 of .* have no segmentation. The first is number 6'),
        (_broken_mask, 'annotations: 1 of .* have a mask that is broken'),
        (_nothing, 'annotations: there is none'),
    ],
)
def test_what_cannot_be_measured_by_is_told_before_the_training(world, tmp_path, spoil, expected):
    with open(world[0]) as stream:
        content = json.load(stream)
    spoil(content)
    file = tmp_path / 'spoilt.json'
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=expected) as raised:
        _metric(str(file))
    assert str(file) in str(raised.value)


def test_repeats_and_reports_chosen_items(world):
    file, samples = world
    metric = METRICS.build(
        dict(
            type='FasterLVISMetric',
            ann_file=file,
            metric=['segm'],
            metric_items=['AP', 'APr'],
            classwise=True,
        )
    )
    first = _evaluate(metric, samples)
    assert _evaluate(metric, samples) == pytest.approx(first, nan_ok=True)
    assert {'lvis/segm_AP', 'lvis/segm_APr', 'lvis/category_3_precision'} <= set(first)
    assert 'lvis/segm_APc' not in first


def test_nothing_detected_scores_zero(world):
    file, samples = world
    empty = [
        {**s, 'pred_instances': {k: v[:0] for k, v in s['pred_instances'].items()}} for s in samples
    ]
    found = _evaluate(METRICS.build(dict(type='FasterLVISMetric', ann_file=file)), empty)
    assert found['lvis/bbox_AP'] == 0


def test_refuses_what_it_cannot_do(world):
    with pytest.raises(ValueError, match='bbox'):
        METRICS.build(dict(type='FasterLVISMetric', ann_file=world[0], metric='proposal'))
    with pytest.raises(ValueError, match='metric_items'):
        METRICS.build(dict(type='FasterLVISMetric', ann_file=world[0], metric_items=['mAP']))
