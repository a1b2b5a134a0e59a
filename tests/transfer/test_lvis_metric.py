"""FasterLVISMetric against the lvis package's own evaluation."""

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


def test_equals_the_lvis_package(world, monkeypatch):
    from lvis import LVIS, LVISEval, LVISResults

    file, samples = world
    found = _evaluate(
        METRICS.build(dict(type='FasterLVISMetric', ann_file=file, metric=['bbox', 'segm'])),
        samples,
    )
    prefix = file.replace('.json', '_results')
    _evaluate(
        LVISMetric(file, metric=['bbox', 'segm'], format_only=True, outfile_prefix=prefix), samples
    )

    monkeypatch.setattr(np, 'float', float, raising=False)  # what lvis 0.5.3 needs
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
            expected = reference.get_results()[item]
            assert found[f'lvis/{metric}_{item}'] == pytest.approx(expected, abs=1e-6), item
            assert expected > 0.01, f'{item} shows nothing'


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
