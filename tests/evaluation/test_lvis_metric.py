"""FasterLVISMetric against the lvis package's own evaluation."""

import copy
import json
import re

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


def _world(seed: int, odd: bool = False) -> tuple[dict, list[dict]]:
    """Random LVIS annotations with every federated list in use, and noisy detections.

    An odd one has what real files have: images without annotations, without detections, without
    either; instances without an area or to be ignored; ties of scores.
    """
    rng = np.random.default_rng(seed)
    ids = list(range(3, 3 + 2 * len(FREQUENCIES), 2))
    images, annotations, samples = [], [], []
    for image_id in range(1, NUM_IMAGES + 1):
        kinds = ['usual', 'not annotated', 'not detected', 'empty']
        kind = rng.choice(kinds, p=[0.4, 0.3, 0.2, 0.1]) if odd else 'usual'
        present = rng.choice(ids, 4, replace=odd) if kind in ('usual', 'not detected') else []
        absent = rng.choice([i for i in ids if i not in present], rng.integers(1, 4), replace=False)
        images.append(
            dict(
                id=image_id,
                width=SIDE,
                height=SIDE,
                coco_url=f'http://images.cocodataset.org/val2017/{image_id}.jpg',
                neg_category_ids=absent.tolist(),
                not_exhaustive_category_ids=[int(i) for i in rng.choice(ids, 2, replace=False)],
            )
        )
        boxes, labels = [], []
        for category in np.repeat(present, rng.integers(1, 4, len(present))):
            box = _random_box(rng)
            mask = _box_mask(box)
            rle, share = encode_mask_results([mask])[0], rng.random() if odd else 1
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=int(category),
                    bbox=box,
                    area=0.0 if share < 0.1 else float(mask.sum()),
                    segmentation={**rle, 'counts': rle['counts'].decode()},
                    **(dict(ignore=1) if 0.1 < share < 0.2 else {}),
                    **(dict(iscrowd=1) if 0.2 < share < 0.3 else {}),
                )
            )
            for _ in range(rng.integers(4) if odd else 1):
                x, y, w, h = np.clip(np.array(box) + rng.normal(0, 2, 4), 1, SIDE - 2)
                boxes.append([x, y, min(x + max(w, 4), SIDE), min(y + max(h, 4), SIDE)])
                labels.append(ids.index(category))
        # False positives of all categories; in some images more than the 300 that count.
        for _ in range(320 if image_id == 1 or (odd and rng.random() < 0.1) else 10):
            x, y, w, h = _random_box(rng)
            boxes.append([x, y, x + w * (not odd or rng.random() > 0.05), y + h])
            labels.append(rng.integers(len(ids)))
        if kind in ('not detected', 'empty'):
            boxes, labels = [], []
        masks = [_box_mask([x1, y1, x2 - x1, y2 - y1]) for x1, y1, x2, y2 in boxes]
        scores = rng.integers(1, 20, len(boxes)) / 20 if odd else rng.permutation(len(boxes)) / 400
        samples.append(
            dict(
                img_id=image_id,
                ori_shape=(SIDE, SIDE),
                pred_instances=dict(
                    bboxes=torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32),
                    labels=torch.tensor(np.array(labels, int)),
                    scores=torch.tensor(scores),
                    masks=torch.tensor(np.array(masks).reshape(-1, SIDE, SIDE)),
                ),
            )
        )
    categories = [
        dict(id=i, name=f'category_{i}', frequency=f) for i, f in zip(ids, FREQUENCIES, strict=True)
    ]
    return dict(images=images, annotations=annotations, categories=categories), samples


def _written(file, content) -> str:
    file.write_text(json.dumps(content))
    return str(file)


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    content, samples = _world(0)
    return _written(tmp_path_factory.mktemp('lvis') / 'lvis_v1_val.json', content), samples


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


@pytest.mark.parametrize('seed', range(4))
def test_equals_the_lvis_package_in_odd_worlds(tmp_path, monkeypatch, seed):
    content, samples = _world(seed, odd=True)
    plain = _written(tmp_path / 'plain.json', content)
    expected = _reference(plain, samples, monkeypatch)
    assert expected['lvis/segm_AP'] > 0.001
    assert _evaluate(_metric(plain), samples) == pytest.approx(expected, abs=1e-12)
    for name, ids in dict(
        zero=[lambda i: i - 1] * 3,
        text=[lambda i: f'id {i:03}'] * 3,
        large=[lambda i: 10**12 + 7 * i, lambda i: -i, lambda i: i + 0.5],
    ).items():
        other, detected = _with_ids(content, samples, *ids)
        found = _evaluate(_metric(_written(tmp_path / f'{name}.json', other)), detected)
        assert found == pytest.approx(expected, abs=1e-12), name


def test_the_annotation_file_stays_as_it_is(world):
    file, samples = world
    metric = _metric(file)
    before = copy.deepcopy(metric._lvis_api.dataset)
    _evaluate(metric, samples)
    assert metric._lvis_api.dataset == before


@pytest.mark.parametrize(
    ('spoil', 'expected'),
    [
        (lambda c: c['images'][1].update(id=1), 'images: 1 ids come more than once'),
        (lambda c: c['categories'][2].pop('frequency'), 'categories: 1 of 10 have no frequency'),
        (
            lambda c: c['annotations'][5]['segmentation'].update(counts='no encoding!!'),
            'annotations: 1 of .* have a mask that is broken',
        ),
        (lambda c: c['annotations'].clear(), 'annotations: there is none'),
    ],
)
def test_a_file_with_faults_is_refused_before_the_training(tmp_path, spoil, expected):
    content, _ = _world(0)
    spoil(content)
    file = _written(tmp_path / 'spoilt.json', content)
    with pytest.raises(ValueError, match=expected) as raised:
        _metric(file)
    assert file in str(raised.value)


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


def test_names_of_classes_are_ones_that_loggers_take(tmp_path):
    """MLflow ends a run for others."""
    content, samples = _world(0)
    content['categories'][0]['name'] = 'bow_(decorative_ribbons)'
    metric = _metric(_written(tmp_path / 'lvis.json', content), metric='bbox', classwise=True)
    names = set(_evaluate(metric, samples))
    assert 'lvis/bow_decorative_ribbons_precision' in names
    assert all(re.fullmatch(r'[\w/]+', name, re.ASCII) for name in names)


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
