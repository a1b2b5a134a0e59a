"""The fine-tuning protocols: the paper's numbers, the libraries' schedules, and what they build."""

import copy
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope

from tests.engine.test_warm_up_lr import rates_of
from vito_mm.transfer.tasks import TASKS

CONFIGS = Path(__file__).parents[2] / 'configs'
PAPER = {name: task.configs['paper'] for name, task in TASKS.items()}
STOCK = {name: task.configs['stock'] for name, task in TASKS.items()}
SWIN = {name: task.config_for('paper', 'swin_s') for name, task in TASKS.items()}
ALL = (*PAPER.values(), *STOCK.values(), *SWIN.values())


def _load(path: str) -> Config:
    return Config.fromfile(CONFIGS / path)


def _course_of_the_rate(config: Config, steps_per_epoch: int) -> np.ndarray:
    """The learning rate of every step, from the optimizer and schedulers that a run would build."""
    with DefaultScope.overwrite_default_scope(config.default_scope):
        optimizer = build_optim_wrapper(torch.nn.Linear(1, 1), config.optim_wrapper)
        defaults = dict(optimizer=optimizer, epoch_length=steps_per_epoch)
        schedulers = [
            PARAM_SCHEDULERS.build(dict(scheduler), default_args=defaults)
            for scheduler in config.param_scheduler
        ]
    assert not any(scheduler.by_epoch for scheduler in schedulers)
    steps = config.train_cfg.get('max_iters') or config.train_cfg.max_epochs * steps_per_epoch
    return np.array(rates_of(optimizer.optimizer, schedulers, steps))


@pytest.mark.parametrize('path', ALL)
def test_the_command_of_the_docstring_runs_the_complete_batch_and_schedule(path):
    config = _load(path)
    package = 'mmseg' if path.startswith('seg/') else 'mmdet'
    command = rf'mim train {package} configs/{re.escape(path)} --gpus (\d+) --launcher pytorch'
    (gpus,) = re.findall(command, (CONFIGS / path).read_text())
    batch = int(gpus) * config.train_dataloader.batch_size
    assert config.auto_scale_lr == dict(enable=False, base_batch_size=batch)
    of_128 = [configs[task] for configs in (PAPER, SWIN) for task in ('coco', 'lvis')]
    assert batch == (128 if path in of_128 else 16)
    last, loop = config.param_scheduler[-1], config.train_cfg
    assert last.end == (loop.max_epochs if last.by_epoch else loop.max_iters)


# Segmentation -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('task', 'images', 'epochs', 'classes'),
    [('pascal', 10_582, 45, 21), ('ade20k', 20_210, 60, 150)],
)
def test_segmentation_of_the_paper(task, images, epochs, classes):
    config = _load(PAPER[task])
    assert config.train_cfg.max_iters == math.ceil(epochs * images / 16)
    assert config.optim_wrapper.optimizer == dict(
        type='SGD', lr=0.04, momentum=0.9, weight_decay=0.0005
    )
    config.train_cfg.max_iters = config.param_scheduler[0].end = 200  # the same course in little
    rates = _course_of_the_rate(config, 1)
    # MMEngine's PolyLR ends at the last step and not behind it.
    np.testing.assert_allclose(rates, 0.04 * (1 - np.arange(200) / 199) ** 0.9, atol=1e-7)

    model = config.model
    assert model.auxiliary_head is None
    assert model.decode_head.type == 'FCNHead'
    assert model.decode_head.in_index == model.backbone.out_indices[-1] == 3  # stage 5
    assert model.decode_head.num_classes == classes
    assert not model.pretrained
    for evaluator in (config.val_evaluator, config.test_evaluator):
        assert evaluator.iou_metrics == ['mIoU']


@pytest.fixture
def segmented(tmp_path):
    """Path of an image of 500 x 375 px and of its map of classes."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (375, 500, 3), dtype=np.uint8)
    labels = rng.integers(1, 21, (375, 500), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    cv2.imwrite(str(tmp_path / 'labels.png'), labels)
    return tmp_path / 'image.png', tmp_path / 'labels.png'


def _train_pipelines(config: Config) -> list[list[dict]]:
    dataset = config.train_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return [part.pipeline for part in dataset.get('datasets', [dataset])]


@pytest.mark.parametrize('task', ['pascal', 'ade20k'])
def test_segmenter_gets_crops_of_512(task, segmented):
    config = _load(PAPER[task])
    image, labels = segmented
    scales, flipped = [], set()
    np.random.seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        preprocessor = MODELS.build(config.model.data_preprocessor)
        for pipeline in _train_pipelines(config):
            kinds = [transform.type for transform in pipeline]
            assert ('PhotoMetricDistortion' in kinds) == (task == 'ade20k')
            run = Compose(pipeline)
            for _ in range(8):
                packed = run(
                    dict(
                        img_path=str(image),
                        seg_map_path=str(labels),
                        seg_fields=[],
                        reduce_zero_label=task == 'ade20k',
                    )
                )
                data = preprocessor(
                    dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']]), True
                )
                assert data['inputs'].shape == (1, 3, 512, 512)
                assert data['data_samples'][0].gt_sem_seg.shape == (512, 512)
                meta = packed['data_samples'].metainfo
                scales.append(meta['scale_factor'][0] * 375 / 512)
                flipped.add(meta['flip'])
    assert 0.5 <= min(scales) < 1.0 < 1.5 < max(scales) <= 2.0
    assert flipped == {False, True}


@pytest.mark.parametrize(('head', 'rate'), [('upernet', 1e-4), ('linear', 1e-3)])
@pytest.mark.parametrize('data', ['ade20k', 'cityscapes', 'bdd100k'])
def test_other_segmentation_has_the_schedule_of_ibot(head, rate, data):
    config = _load(f'protocols/{head}_{data}.py')
    assert config.train_cfg.max_iters == (160_000 if data == 'ade20k' else 80_000)
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', rate, 0.05)
    assert 'momentum' not in optimizer  # nothing of the base's SGD
    config.train_cfg.max_iters = config.param_scheduler[1].end = 2500  # the same course in little
    rates = _course_of_the_rate(config, 1)
    np.testing.assert_allclose(rates[:1500], rate * np.linspace(1e-6, 1, 1500), rtol=2e-3)
    np.testing.assert_allclose(rates[1500:], rate * np.linspace(1, 0, 1000), atol=2e-3 * rate)
    assert config.model.decode_head.num_classes == (150 if data == 'ade20k' else 19)


@pytest.mark.parametrize(('data', 'classes'), [('ade20k', 150), ('cityscapes', 19)])
def test_the_linear_head_is_linear_in_stage_5(data, classes):
    model = _load(f'protocols/linear_{data}.py').model
    with DefaultScope.overwrite_default_scope('mmseg'):
        head = MODELS.build(model.decode_head)
    (weight, bias) = head.parameters()
    assert (weight.shape, bias.shape) == ((classes, 2048, 1, 1), (classes,))
    features = [torch.randn(2, 8, 6, 6)] * 3 + [torch.randn(2, 2048, 3, 4)]
    expected = torch.einsum('kc,nchw->nkhw', weight[:, :, 0, 0], features[3])
    torch.testing.assert_close(head(features), expected + bias[:, None, None])
    assert model.auxiliary_head is None


# Detection ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('task', 'classes', 'detections', 'dataset', 'metric'),
    [
        ('coco', 80, 100, 'CocoDataset', 'CocoMetric'),
        ('lvis', 1203, 300, 'LVISV1Dataset', 'FasterLVISMetric'),
    ],
)
def test_detection_of_the_paper(task, classes, detections, dataset, metric):
    config = _load(PAPER[task])
    assert config.train_cfg.max_epochs == 30
    assert config.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-3, weight_decay=1e-4)
    rates = _course_of_the_rate(config, 200)
    assert rates[0] < 1e-5
    assert 0.9e-3 < rates.max() <= 1e-3
    assert 800 < rates.argmax() <= 1000
    assert (np.diff(rates[1000:]) < 0).all()
    assert rates[-1] < 1e-8

    assert config.model.bbox_head.num_classes == classes
    assert config.model.test_cfg.max_per_img == detections
    # Each image as often as any other, and no masks.
    assert config.train_dataloader.dataset.type == dataset
    assert config.train_dataloader.sampler.type == 'DefaultSampler'
    assert config.val_dataloader.dataset.type == config.test_dataloader.dataset.type == dataset
    assert config.val_dataloader.dataset.ann_file != config.train_dataloader.dataset.ann_file
    for evaluator in (config.val_evaluator, config.test_evaluator):
        assert evaluator.type == metric
        assert evaluator.metric == 'bbox'
        assert evaluator.ann_file.startswith(config.data_root)
    assert 'with_mask' not in config.pretty_text
    assert config.model.backbone.norm_cfg == dict(type='SyncBN', requires_grad=True)


def _boxed(folder: Path, width: int, height: int) -> dict:
    """An image file with a box around its middle, as a data set gives it to the pipeline."""
    file = folder / f'{width}x{height}.png'
    cv2.imwrite(str(file), np.full((height, width, 3), 100, np.uint8))
    box = [width / 4, height / 4, width * 3 / 4, height * 3 / 4]
    return dict(
        img_path=str(file),
        img_id=1,
        height=height,
        width=width,
        instances=[dict(bbox=box, bbox_label=7, ignore_flag=0)],
    )


@pytest.mark.parametrize('task', ['coco', 'lvis'])
def test_detector_gets_images_of_at_most_800_x_1024(task, tmp_path):
    config = _load(PAPER[task])
    np.random.seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        (pipeline,) = _train_pipelines(config)
        run = Compose(pipeline)
        sizes, scales, flipped = [], [], set()
        for size in [(640, 480), (480, 640)] * 10:
            packed = run(_boxed(tmp_path, *size))
            sample = packed['data_samples']
            sizes.append(packed['inputs'].shape[1:])
            scales.append(sample.scale_factor[0] * 640 / 1024)
            flipped.add(sample.flip)
            assert sample.gt_instances.labels.tolist() == [7]
            x1, y1, x2, y2 = sample.gt_instances.bboxes.tensor[0].tolist()
            assert 0 <= x1 < x2 <= sizes[-1][1]
            assert 0 <= y1 < y2 <= sizes[-1][0]
        whole = Compose(config.val_dataloader.dataset.pipeline)
        assert whole(_boxed(tmp_path, 640, 480))['inputs'].shape == (3, 768, 1024)
    heights, widths = zip(*sizes, strict=True)
    # Height first: a swapped crop would leave 1024 rows of the tall images.
    assert max(heights) == 800
    assert max(widths) == 1024
    assert 0.8 <= min(scales) < 0.9 < 1.15 < max(scales) <= 1.25
    assert flipped == {False, True}


@pytest.fixture(scope='module')
def detector():
    """The detector of COCO's config with a ResNet-18, and a batch of two small images."""
    config = _load(PAPER['coco'])
    config.merge_from_dict(
        {
            'model.backbone.checkpoint': None,
            'model.backbone.depth': 18,
            'model.neck.in_channels': [64, 128, 256, 512],
        }
    )
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = revert_sync_batchnorm(MODELS.build(config.model))
        model.init_weights()
        for name, parameter in model.backbone.named_parameters():
            if name.endswith('bn2.weight'):  # not zero as in a fresh ResNet: what learns is seen
                parameter.data.fill_(1.0)
        data = demo_mm_inputs(2, [[3, 96, 128], [3, 96, 128]], num_items=[2, 1])
        data = model.data_preprocessor(data, True)
    return model, data


@pytest.fixture
def fcos(detector):
    """The same for one test: the model as if new, a copy of the data."""
    model, data = detector
    model.train().zero_grad()
    yield model, copy.deepcopy(data)
    MessageHub.get_current_instance().pop_info('epoch', None)


def _spy(monkeypatch, owner, method: str) -> list:
    """Record arguments and result of every call of a method."""
    calls = []
    original = getattr(owner, method)

    def recorded(*args, **kwargs):
        result = original(*args, **kwargs)
        calls.append((args, result))
        return result

    monkeypatch.setattr(owner, method, recorded)
    return calls


@pytest.mark.parametrize(('epoch', 'aligned'), [(3, False), (4, True)])
def test_fcos_assigns_by_atss_first_and_by_task_alignment_then(fcos, monkeypatch, epoch, aligned):
    model, data = fcos
    head = model.bbox_head
    atss = _spy(monkeypatch, head.initial_assigner, 'assign')
    alignment = _spy(monkeypatch, head.alignment_assigner, 'assign')
    classification = _spy(monkeypatch, head.loss_cls, 'forward')
    assert type(head.initial_assigner).__name__ == 'ATSSAssigner'
    MessageHub.get_current_instance().update_info('epoch', epoch)

    losses = model.loss(data['inputs'], data['data_samples'])
    used, unused = (alignment, atss) if aligned else (atss, alignment)
    assert len(used) == 2  # images
    assert not unused
    assert any((result.gt_inds > 0).any() for _, result in used)
    if aligned:  # the best score of an object is to be the IoU of its best box
        best = torch.cat([result.max_overlaps[result.gt_inds > 0] for _, result in used]).max()
        targets = torch.cat([scores for (_, (_, scores), *_), _ in classification])
        assert 0 < best < 1
        torch.testing.assert_close(targets.max(), best, rtol=1e-3, atol=1e-4)

    loss, _ = model.parse_losses(losses)
    loss.backward()
    for name, parameter in model.backbone.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize('epoch', [0, 4])
def test_fcos_learns_from_crops_without_objects(fcos, epoch):
    model, data = fcos
    for sample in data['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    MessageHub.get_current_instance().update_info('epoch', epoch)
    loss, _ = model.parse_losses(model.loss(data['inputs'], data['data_samples']))
    loss.backward()
    assert loss.isfinite()
    assert model.backbone.conv1.weight.grad.any()


def test_fcos_regresses_distances_from_points(fcos, monkeypatch):
    """Boxes do not depend on the size of anchors, which only ATSS looks at."""
    model, data = fcos
    model.eval()
    with torch.no_grad():
        features = model.extract_feat(data['inputs'])
        _, boxes = model.bbox_head(features)
        generator = model.bbox_head.prior_generator
        larger = [anchors * 3 for anchors in generator.base_anchors]
        monkeypatch.setattr(generator, 'base_anchors', larger)
        _, again = model.bbox_head(features)
    for one, other in zip(boxes, again, strict=True):
        torch.testing.assert_close(one, other)


# Swin-S -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('task', TASKS)
def test_swin_s_is_fine_tuned_by_the_same_protocol(task):
    swin, resnet = _load(SWIN[task]), _load(PAPER[task])
    for part in ('train_dataloader', 'val_dataloader', 'train_cfg', 'val_evaluator'):
        assert swin[part] == resnet[part]
    backbone = swin.model.pop('backbone')
    assert (backbone.type, backbone.stock) == ('VITOBackbone', 'SwinTransformer')
    assert (backbone.embed_dims, list(backbone.depths)) == (96, [2, 2, 18, 2])
    assert swin.optim_wrapper.optimizer.type == 'AdamW'
    resnet.model.pop('backbone')
    if task in ('coco', 'lvis'):
        assert swin.model.neck.in_channels == [96, 192, 384, 768]
        resnet.model.neck.in_channels = swin.model.neck.in_channels
        assert swin.param_scheduler == resnet.param_scheduler
        assert swin.optim_wrapper.optimizer == resnet.optim_wrapper.optimizer
    else:
        assert swin.model.decode_head.in_channels == 768
        resnet.model.decode_head.in_channels = 768
        steps = swin.train_cfg.max_iters = swin.param_scheduler[1].end = 2000
        rates = _course_of_the_rate(swin, 1)
        assert rates[0] < 1e-9
        assert rates.argmax() in (1499, 1500)
        assert rates.max() == pytest.approx(6e-5, rel=1e-2)
        assert (len(rates), rates[-1] < 1e-7) == (steps, True)
    assert swin.model == resnet.model


# The libraries' schedules -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('task', 'base'),
    [
        ('pascal', 'mmseg::fcn/fcn_r50-d8_4xb4-40k_voc12aug-512x512.py'),
        ('ade20k', 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'),
        ('coco', 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'),
        ('lvis', 'mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py'),
    ],
)
def test_stock_configs_change_nothing_but_the_backbone(task, base, tmp_path):
    (tmp_path / 'base.py').write_text(f'_base_ = {base!r}\n')
    library = Config.fromfile(tmp_path / 'base.py')
    ours = _load(STOCK[task])
    for part in ('train_dataloader', 'val_dataloader', 'optim_wrapper', 'param_scheduler'):
        assert ours[part] == library[part]
    assert ours.train_cfg == library.train_cfg
    for config in (ours, library):
        config.model.pop('pretrained', None)
        config.model.pop('backbone')
    assert ours.model == library.model
