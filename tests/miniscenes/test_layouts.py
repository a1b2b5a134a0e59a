"""Stock mmseg and mmdet data sets and metrics read the stills; only data_root changes."""

import copy
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from mmengine.config import Config

from vito_mm.miniscenes import CLASSES, LABEL_MAPS, get_preset
from vito_mm.miniscenes.layouts import coco_categories, encode_mask, lvis_categories
from vito_mm.miniscenes.stills import render_still

SEED, PRESET = 3, get_preset('tiny')


def stock_dataset(package, name, root):
    """Read a stock `_base_` data set config, with its data_root changed."""
    library = pytest.importorskip(package)
    base = Path(library.__file__).parent / '.mim' / 'configs' / '_base_' / 'datasets' / name
    config = Config.fromfile(base)

    def move(node):
        for key, value in node.items() if isinstance(node, dict) else ():
            if key == 'data_root':
                node[key] = f'{root}/'
            elif key == 'ann_file' and isinstance(value, str) and value.startswith('data/'):
                # Evaluators join data_root and the file in the config itself.
                node[key] = f'{root}/' + '/'.join(Path(value).parts[-2:])
            else:
                move(value)
        for member in node if isinstance(node, (list, tuple)) else ():
            move(member)

    move(config._cfg_dict)
    return config


def build(package, dataset):
    module = pytest.importorskip(f'{package}.registry')
    __import__(f'{package}.utils').utils.register_all_modules(init_default_scope=True)
    return module.DATASETS.build(copy.deepcopy(dataset))


@pytest.mark.parametrize(
    ('name', 'task', 'first_id', 'count'),
    [
        ('ade20k.py', 'ade20k', 1, 8),  # the files count from 1, mmseg's classes from 0
        ('pascal_voc12.py', 'voc', 0, 8),
        ('pascal_voc12_aug.py', 'voc', 0, 12),
    ],
)
def test_segmentation(miniscenes, name, task, first_id, count):
    config = stock_dataset('mmseg', name, miniscenes[task])
    train = build('mmseg', config.train_dataloader.dataset)
    assert len(train) == count
    train[0], train[count - 1]
    val = build('mmseg', config.val_dataloader.dataset)
    assert len(val) == 4
    labels, classes = LABEL_MAPS[task], val.METAINFO['classes']
    assert tuple(classes[number - first_id] for number in labels.ids) == labels.names
    assert classes[labels.background - first_id] in ('wall', 'background')
    for index in range(4):
        found = val[index]['data_samples'].gt_sem_seg.data[0].numpy()
        still = render_still(PRESET, SEED, task, 'val', index)
        expected = still.semantic(labels.ids, labels.background) - first_id
        np.testing.assert_array_equal(found, expected)


def test_voc_lists_and_boxes(miniscenes):
    root = Path(miniscenes['voc'])
    lists = {
        file.stem: file.read_text().split() for file in (root / 'ImageSets/Segmentation').iterdir()
    }
    assert {name: len(members) for name, members in lists.items()} == {
        'train': 8, 'val': 4, 'aug': 4, 'trainval': 12, 'trainaug': 12,
    }  # fmt: skip
    assert not set(lists['train']) & set(lists['aug'])
    for index, name in enumerate(lists['train']):
        still = render_still(PRESET, SEED, 'voc', 'train', index)
        xml = ElementTree.parse(root / 'Annotations' / f'{name}.xml')
        boxes = [[int(edge.text) for edge in box] for box in xml.iter('bndbox')]
        assert boxes == (still.boxes + np.array([1, 1, 0, 0])).tolist()
        names = [item.findtext('name') for item in xml.iter('object')]
        assert names == [LABEL_MAPS['voc'].names[label] for label in still.labels]


@pytest.mark.parametrize(
    ('task', 'name'), [('coco', 'coco_instance.py'), ('lvis', 'lvis_v1_instance.py')]
)
def test_detection(miniscenes, task, name):
    config = stock_dataset('mmdet', name, miniscenes[task])
    train = build('mmdet', config.train_dataloader.dataset)
    assert len(train) >= 8  # LVIS repeats images of rare classes
    train[0]
    val = build('mmdet', config.val_dataloader.dataset)
    assert len(val) == 4
    classes, labels = val.METAINFO['classes'], LABEL_MAPS[task]
    seen = set()
    for index in range(4):
        info = val.get_data_info(index)
        still = render_still(PRESET, SEED, task, 'val', index)
        names = [classes[item['bbox_label']] for item in info['instances']]
        assert names == [labels.names[label] for label in still.labels]
        seen.update(names)
        sample = val[index]
        assert sample['inputs'].shape[0] == 3
        loaded = _load_masks(info)
        np.testing.assert_array_equal(loaded['gt_masks'].masks.astype(bool), still.masks)
        np.testing.assert_array_equal(loaded['gt_bboxes'].numpy(), still.boxes)
    assert len(seen) > 2


def _load_masks(info):
    from mmcv.transforms import LoadImageFromFile
    from mmdet.datasets.transforms import LoadAnnotations

    results = LoadAnnotations(with_bbox=True, with_mask=True)(LoadImageFromFile()(info))
    results['gt_bboxes'] = results['gt_bboxes'].tensor
    return results


@pytest.mark.parametrize(
    ('task', 'name', 'metric_type'),
    [
        ('coco', 'coco_instance.py', 'CocoMetric'),
        ('lvis', 'lvis_v1_instance.py', 'LVISMetric'),
        ('lvis', 'lvis_v1_instance.py', 'vito_mm.FasterLVISMetric'),
    ],
)
def test_metrics_score_the_truth_as_perfect(miniscenes, monkeypatch, task, name, metric_type):
    # What lvis 0.5.3, which stock LVISMetric runs, needs of a numpy from 1.24 on.
    monkeypatch.setattr(np, 'float', float, raising=False)
    config = stock_dataset('mmdet', name, miniscenes[task])
    val = build('mmdet', config.val_dataloader.dataset)
    import torch
    from mmdet.registry import METRICS

    metric = METRICS.build(
        {**config.val_evaluator, 'metric': ['bbox', 'segm'], 'type': metric_type}
    )
    metric.dataset_meta = val.metainfo
    for index in range(len(val)):
        info = val.get_data_info(index)
        loaded = _load_masks(dict(info))
        labels = torch.tensor([item['bbox_label'] for item in info['instances']])
        masks = torch.from_numpy(loaded['gt_masks'].masks.astype(bool))
        prediction = dict(
            bboxes=loaded['gt_bboxes'], scores=torch.ones(len(labels)), labels=labels, masks=masks
        )
        sample = dict(
            img_id=info['img_id'],
            ori_shape=(info['height'], info['width']),
            pred_instances=prediction,
        )
        metric.process({}, [sample])
    scores = metric.evaluate(len(val))
    prefix = {'coco': 'coco/{}_mAP', 'lvis': 'lvis/{}_AP'}[task]
    assert scores[prefix.format('bbox')] == pytest.approx(1.0, abs=1e-3)
    assert scores[prefix.format('segm')] == pytest.approx(1.0, abs=1e-3)


def test_coco_categories_are_those_of_coco():
    from mmdet.datasets import CocoDataset

    categories = coco_categories()
    assert tuple(category['name'] for category in categories) == CocoDataset.METAINFO['classes']
    by_id = {category['id']: category['name'] for category in categories}
    assert (len(by_id), min(by_id), max(by_id)) == (80, 1, 90)
    # A few that everyone knows, as a guard against a shifted table.
    known = {1: 'person', 13: 'stop sign', 44: 'bottle', 62: 'chair', 72: 'tv', 90: 'toothbrush'}
    assert {number: by_id[number] for number in known} == known
    labels = LABEL_MAPS['coco']
    assert tuple(by_id[number] for number in labels.ids) == labels.names


def test_lvis_file_is_complete(miniscenes):
    file = Path(miniscenes['lvis']) / 'annotations/lvis_v1_train.json'
    content = json.loads(file.read_text())
    categories = {category['id']: category for category in content['categories']}
    assert sorted(categories) == list(range(1, 1204))
    labels = LABEL_MAPS['lvis']
    assert tuple(categories[number]['name'] for number in labels.ids) == labels.names
    for number, category in categories.items():
        found = [item for item in content['annotations'] if item['category_id'] == number]
        assert category['instance_count'] == len(found)
        assert category['image_count'] == len({item['image_id'] for item in found})
    for image in content['images']:
        present = {
            item['category_id']
            for item in content['annotations']
            if item['image_id'] == image['id']
        }
        assert present | set(image['neg_category_ids']) == set(labels.ids)
        assert not present & set(image['neg_category_ids'])
        assert image['not_exhaustive_category_ids'] == []


def test_lvis_frequencies_follow_the_number_of_images():
    annotations = [
        {'image_id': image, 'category_id': category}
        for category, count in ((3, 10), (45, 11), (71, 101))
        for image in range(count)
    ]
    categories = lvis_categories(annotations)
    assert [categories[number - 1]['frequency'] for number in (3, 45, 71, 100)] == list('rcfr')


def test_masks_survive_run_lengths():
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(0)
    cases = [rng.random((7, 5)) > 0.5 for _ in range(20)]
    for mask in [*cases, np.ones((3, 4), bool), np.zeros((3, 4), bool)]:
        encoded = encode_mask(mask)
        decoded = coco_mask.decode(coco_mask.frPyObjects(encoded, *mask.shape))
        np.testing.assert_array_equal(decoded.astype(bool), mask)


def test_probe_folder_is_read_by_mmpretrain(miniscenes):
    pytest.importorskip('mmpretrain')
    from mmpretrain.datasets import CustomDataset

    for split in ('train', 'val'):
        dataset = CustomDataset(data_root=miniscenes['probe'], data_prefix=split, pipeline=[])
        assert len(dataset) == 16
        assert sorted(member.name for member in CLASSES) == list(dataset.CLASSES)
