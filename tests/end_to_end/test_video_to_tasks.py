"""From videos to a fine-tuned segmenter and detector, through stock mmseg and mmdet."""

import json
import sys

import pytest
import torch

from tests.conftest import REPO
from tests.tools.test_train import shell
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


def test_torchvision_takes_the_backbone(checkpoint):
    from torchvision.models import resnet18

    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    backbone = {k.removeprefix('backbone.'): v for k, v in weights.items() if 'backbone.' in k}
    model = resnet18()
    result = model.load_state_dict(backbone, strict=False)
    assert result.missing_keys == ['fc.weight', 'fc.bias']
    assert result.unexpected_keys == []


TASKS = {
    'ade20k': ('mmseg', 'seg_ade20k.py', 'mIoU'),
    'voc': ('mmseg', 'seg_pascal.py', 'mIoU'),
    'coco': ('mmdet', 'det_coco.py', 'coco/bbox_mAP'),
    'lvis': ('mmdet', 'det_lvis.py', 'lvis/bbox_AP'),
}


def fine_tune(task: str, data: dict, checkpoint, folder):
    """``mim train`` of the demo's config on the tiny data, a few steps and one evaluation."""
    package, config, _ = TASKS[task]
    root = data[task]
    options = [f'model.backbone.checkpoint={checkpoint}', 'default_hooks.logger.interval=1']
    if package == 'mmseg':
        options += ['train_cfg.max_iters=2', 'train_cfg.val_interval=2']
        options += [f'{part}_dataloader.dataset.data_root={root}' for part in ('val', 'test')]
        voc = task == 'voc'  # stock VOC-aug is a ConcatDataset of train and aug
        parts = ('datasets.0.', 'datasets.1.') if voc else ('',)
        options += [f'train_dataloader.dataset.{part}data_root={root}' for part in parts]
    else:
        ann = 'lvis_v1_val' if task == 'lvis' else 'instances_val2017'
        inner = 'dataset.dataset' if task == 'lvis' else 'dataset'
        options += ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
        options += [f'{part}_dataloader.dataset.data_root={root}/' for part in ('val', 'test')]
        options += [f'train_dataloader.{inner}.data_root={root}/']
        options += [
            f'{part}_evaluator.ann_file={root}/annotations/{ann}.json' for part in ('val', 'test')
        ]
    return shell(
        *(sys.executable, '-m', 'mim', 'train', package, REPO / 'configs/miniscenes' / config),
        *('--work-dir', folder, '--cfg-options', *options),
    )


@pytest.mark.parametrize('task', TASKS)
def test_mim_train_starts_from_the_checkpoint_and_evaluates(task, data, checkpoint, tmp_path):
    run = fine_tune(task, data, checkpoint, tmp_path / 'run')
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    assert f'loaded 122/122 backbone keys from {checkpoint}' in run.stdout + run.stderr
    (scalars,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    values = [json.loads(line) for line in scalars.read_text().splitlines()]
    metric = TASKS[task][2]
    assert next(line[metric] for line in values if metric in line) >= -1


def test_a_wrong_prefix_ends_the_run_with_the_keys(data, checkpoint, tmp_path):
    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    wrong = {f'mistake.{k}': v for k, v in weights.items() if k.startswith('backbone.layer1')}
    torch.save(dict(state_dict=wrong), tmp_path / 'wrong.pth')
    run = fine_tune('ade20k', data, tmp_path / 'wrong.pth', tmp_path / 'run')
    assert run.returncode != 0
    error = run.stdout + run.stderr
    assert 'CheckpointError' in error
    assert 'wrong.pth' in error
    assert 'conv1.weight' in error
