"""Each tool reads each checkpoint once, and MMEngine's own initialisation not once more."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.conftest import REPO, write_video
from tests.helpers.demo_network import demo_checkpoint
from tests.helpers.image_folders import write_classes
from tests.helpers.processes import run_tool
from tests.helpers.tiny_vito import save, tiny_vito
from vito_mm.transfer.options import SuiteOptions
from vito_mm.transfer.plan import make_plan

CONFIG = REPO / 'configs' / 'miniscenes' / 'seg_pascal.py'


@pytest.fixture
def reads(monkeypatch):
    """Number of times that ``torch.load`` reads each file."""
    counted = Counter()
    load = torch.load

    def counting(file, *args, **kwargs):
        if isinstance(file, (str, Path)):  # torch 2.4 reads from memory for itself
            counted[str(file)] += 1
        return load(file, *args, **kwargs)

    monkeypatch.setattr(torch, 'load', counting)
    return counted


@pytest.fixture
def run(monkeypatch):
    """Run a tool in this process."""

    def run(tool, *words):
        run_tool(monkeypatch, tool, *words)

    return run


@pytest.fixture
def demo(tmp_path):
    return Path(demo_checkpoint(tmp_path / 'demo.pth'))


def test_check(reads, run, demo):
    ours = 'model.backbone.type=VITOResNet', f'model.backbone.checkpoint={demo}'
    run('check_checkpoint.py', CONFIG, '--cfg-options', *ours)
    assert reads == {str(demo): 1}


def test_check_of_a_stock_config(reads, run, checkpoints, tmp_path):
    init = dict(type='Pretrained', checkpoint=checkpoints['training'], prefix='backbone.')
    (tmp_path / 'stock.py').write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'\n"
        f'model = dict(backbone=dict(init_cfg={init!r}))\n'
    )
    run('check_checkpoint.py', tmp_path / 'stock.py')
    assert reads == {checkpoints['training']: 1}


def test_export(reads, run, checkpoints, tmp_path):
    run('export_checkpoint.py', checkpoints['training'], tmp_path / 'out.pth')
    assert reads == {checkpoints['training']: 1}


def test_probe(reads, run, demo, tmp_path):
    folder = write_classes(tmp_path / 'images', ['dark', 'light'], images=2)
    network = '--depth', 18, '--base-channels', 32, '--image-size', 32
    run(
        'probe.py',
        'knn',
        demo,
        '--data',
        folder,
        *network,
        '--k',
        1,
        '--workers',
        0,
        '--work-dir',
        tmp_path,
    )
    assert reads == {str(demo): 1}


@pytest.mark.parametrize('tool', ['show_attention.py', 'show_neighbours.py'])
def test_pictures(tool, reads, run, tmp_path):
    checkpoint = save(tmp_path / 'iter_7.pth', *tiny_vito())
    videos = [write_video(tmp_path / 'videos' / f'{i}.mp4', num_frames=20) for i in range(3)]
    words = videos[:1] if tool == 'show_attention.py' else ['--gallery', tmp_path / 'videos']
    run(tool, checkpoint, *words, '--size', 64, '--out', tmp_path / 'picture.png')
    assert reads == {str(checkpoint): 1}


def test_planning(reads, demo, miniscenes, tmp_path):
    """Two tasks, one checkpoint."""
    options = SuiteOptions(
        checkpoints=[str(demo)],
        tasks=['pascal', 'coco'],
        seeds=1,
        protocol='miniscenes',
        work_dir=tmp_path / 'suite',
        data=[f'{task}={folder}' for task, folder in miniscenes.items()],
        repo=REPO,
    )
    assert len(make_plan(options).runs) == 2
    assert reads == {str(demo): 1}
