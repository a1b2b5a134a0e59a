"""A segmenter and a detector that give one class wherever they look, on tiny data."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

REPO = Path(__file__).resolve().parents[2]

SOFA, CLOCK = 18, 74
"""Index of the class in VOC and in COCO that the models always give."""


def make_run(config: str, root: Path, answer: int, folder: Path) -> Config:
    """Write config and checkpoint of a fine-tuned model into a work dir."""
    cfg = Config.fromfile(REPO / 'configs' / 'miniscenes' / config)
    cfg.merge_from_dict({'model.backbone.checkpoint': None})
    for part in ('val', 'test'):
        cfg[f'{part}_dataloader'].dataset.data_root = f'{root}/'
    package = 'mmseg' if config.startswith('seg') else 'mmdet'
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(package):
        model = MODELS.build(cfg.model)
    head = model.decode_head.conv_seg if package == 'mmseg' else model.roi_head.bbox_head.fc_cls
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[answer] = 20.0
    folder.mkdir(parents=True, exist_ok=True)
    cfg.dump(folder / config)
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'iter_2.pth')
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_2.pth'))
    return cfg


@pytest.fixture(scope='session')
def segmenter(miniscenes, tmp_path_factory):
    """Work dir and config of the segmenter."""
    folder = tmp_path_factory.mktemp('segmenter')
    return folder, make_run('seg_pascal.py', miniscenes['pascal'], SOFA, folder)


@pytest.fixture(scope='session')
def detector(miniscenes, tmp_path_factory):
    """Work dir and config of the detector."""
    folder = tmp_path_factory.mktemp('detector')
    return folder, make_run('det_coco.py', miniscenes['coco'], CLOCK, folder)
