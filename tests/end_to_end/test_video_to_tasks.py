"""From videos to a fine-tuned segmenter and detector, through stock mmseg and mmdet."""

import json
import sys

import pytest
import torch
from mmengine.config import Config

from tests.conftest import REPO, with_original_mim
from tests.helpers.processes import shell
from vito_mm.miniscenes import make_miniscenes


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('miniscenes')
    return make_miniscenes(root, preset='tiny', workers=0, progress=False)


@pytest.fixture(scope='module')
def checkpoint(data, tmp_path_factory):
    """Pre-training by the demo's config, cut to three steps."""
    folder = tmp_path_factory.mktemp('pretrain')
    run = shell(
        *(sys.executable, 'tools/train.py', 'configs/miniscenes/pretrain_r18.py'),
        *('--work-dir', folder, '--cfg-options', 'train_cfg.max_iters=3'),
        'default_hooks.checkpoint.interval=3',
        f'train_dataloader.dataset.data_root={data["videos"]}',
        'train_dataloader.batch_size=4',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return folder / 'iter_3.pth'


def test_the_backbone_has_torchvisions_names(checkpoint):
    from torchvision.models import resnet18

    weights = torch.load(checkpoint)['state_dict']
    backbone = {
        k.removeprefix('backbone.'): tuple(v.shape)
        for k, v in weights.items()
        if k.startswith('backbone.')
    }
    half = {
        k: tuple(size // 2 if size >= 64 else size for size in v.shape)
        for k, v in resnet18().state_dict().items()
        if not k.startswith('fc.')
    }
    assert backbone == half


TASKS = {
    'ade20k': ('mmseg', 'seg', 'ade20k', 'mIoU'),
    'voc': ('mmseg', 'seg', 'pascal', 'mIoU'),
    'coco': ('mmdet', 'det', 'coco', 'coco/bbox_mAP'),
    'lvis': ('mmdet', 'det', 'lvis', 'lvis/bbox_AP'),
}


def fine_tune(task: str, data: dict, checkpoint, folder, *options: str, config: str | None = None):
    """``mim train`` of a shipped config on the tiny data, a few steps and one evaluation."""
    package, kind, name, _ = TASKS[task]
    config = config or f'miniscenes/{kind}_{name}.py'
    cfg = Config.fromfile(REPO / 'configs' / config)
    root = data[task]
    options = [*options, f'model.backbone.checkpoint={checkpoint}']
    options += ['default_hooks.logger.interval=1']
    if package == 'mmseg':
        options += ['train_cfg.max_iters=2', 'train_cfg.val_interval=2']
        options += [f'{part}_dataloader.dataset.data_root={root}' for part in ('val', 'test')]
        voc = task == 'voc'  # stock VOC-aug joins train and aug
        parts = ('datasets.0.', 'datasets.1.') if voc else ('',)
        options += [f'train_dataloader.dataset.{part}data_root={root}' for part in parts]
    else:
        annotations = 'lvis_v1_val' if task == 'lvis' else 'instances_val2017'
        inner = 'dataset.dataset' if 'dataset' in cfg.train_dataloader.dataset else 'dataset'
        truth = f'{root}/annotations/{annotations}.json'
        # Two steps may leave no box above the usual score, and mmdet logs no metric then.
        two_stage = 'rcnn' in cfg.model.test_cfg
        options += [f'model.test_cfg.{"rcnn." if two_stage else ""}score_thr=0.0']
        options += ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
        options += [f'{part}_dataloader.dataset.data_root={root}/' for part in ('val', 'test')]
        options += [f'train_dataloader.{inner}.data_root={root}/']
        options += [f'{part}_evaluator.ann_file={truth}' for part in ('val', 'test')]
    return shell(
        *(sys.executable, '-m', 'mim', 'train', package, REPO / 'configs' / config),
        *('--work-dir', folder, '--cfg-options', *options),
        bare=True,  # what a config forgets to import is not there
    )


def check(run, task: str, keys: int, checkpoint, folder) -> None:
    """The run ended well, took every key of the checkpoint, and logged its metric."""
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    assert f'loaded {keys}/{keys} backbone keys from {checkpoint}' in run.stdout + run.stderr
    (scalars,) = folder.glob('*/vis_data/scalars.json')
    values = [json.loads(line) for line in scalars.read_text().splitlines()]
    metric = TASKS[task][-1]
    assert next(line[metric] for line in values if metric in line) >= -1


@with_original_mim
@pytest.mark.parametrize(
    'task',
    ['ade20k', 'coco', *(pytest.param(task, marks=pytest.mark.slow) for task in ('voc', 'lvis'))],
)
def test_mim_train_starts_from_the_checkpoint_and_evaluates(task, data, checkpoint, tmp_path):
    run = fine_tune(task, data, checkpoint, tmp_path / 'run')
    check(run, task, 120, checkpoint, tmp_path / 'run')


@pytest.mark.slow
def test_the_detector_of_the_paper_starts_from_the_checkpoint(data, checkpoint, tmp_path):
    config = 'miniscenes/det_coco_fcos.py'
    run = fine_tune('coco', data, checkpoint, tmp_path / 'run', config=config)
    check(run, 'coco', 120, checkpoint, tmp_path / 'run')


@pytest.mark.slow
@pytest.mark.parametrize('protocol', ['', '_stock'], ids=['paper', 'stock'])
@pytest.mark.parametrize('task', TASKS)
def test_full_size_configs_train_on_a_cpu(task, protocol, data, tmp_path):
    """The configs for ADE20K, VOC, COCO and LVIS as they are, but for data, batch and length."""
    from torchvision.models import resnet50

    weights = {f'backbone.{k}': v for k, v in resnet50().state_dict().items() if k[:3] != 'fc.'}
    checkpoint = tmp_path / 'r50.pth'
    torch.save(dict(state_dict=weights), checkpoint)
    workers = [f'{part}_dataloader.num_workers=0' for part in ('train', 'val')]
    workers += [f'{part}_dataloader.persistent_workers=False' for part in ('train', 'val')]
    workers += ['train_dataloader.batch_size=2']  # two images with batch norm are the least
    _, kind, name, _ = TASKS[task]
    config = f'{kind}/vito_{name}{protocol}.py'
    run = fine_tune(task, data, checkpoint, tmp_path / 'run', *workers, config=config)
    check(run, task, 318, checkpoint, tmp_path / 'run')
