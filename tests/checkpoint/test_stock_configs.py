"""Every stock config with a ResNet takes a VITO checkpoint when its backbone alone is changed."""

import logging
from collections import Counter

import pytest
import torch
import torchvision
from mmengine.config import Config
from mmengine.logging import MMLogger

from tests.helpers.stock_configs import first_difference, stock_files, with_vito
from vito_mm.checkpoint import check_config

NUMBER_OF_CONFIGS = {'mmdet': 450, 'mmseg': 429}
"""Those with a plain ResNet in mmdet 3.3.0 and mmseg 1.2.2, at least."""

REASONS = {
    'No such file': 'it does not load: its base is not shipped',
    'does not exist': 'it does not load: its base is not shipped',
    'motmetrics is not installed': 'it needs the package motmetrics',
    'fairscale': 'it needs the package fairscale',
    'skimage is not installed': 'it needs the package scikit-image',
    'CascadeRPNHead.__init__() missing': 'mmdet cannot build it either',
    'has group norm': 'group norm, a checkpoint has batch norm: set norm_cfg, too',
    'another width': 'a wider deep stem: set stem_channels=64, too',
    'over the complete part': 'a whole model is loaded over it: set model.init_cfg=None, too',
    'load_from=': 'a whole model is loaded over it: set load_from=None, too',
}
"""What an exception says, and why it is one. Anything else fails the test."""


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """A training checkpoint for each depth, with weights that no initialisation makes."""
    folder = tmp_path_factory.mktemp('checkpoints')
    torch.manual_seed(0)
    files, weights = {}, {}
    for depth in (18, 34, 50, 101, 152):
        model = getattr(torchvision.models, f'resnet{depth}')()
        weights[depth] = {k: v for k, v in model.state_dict().items() if not k.startswith('fc.')}
        for value in weights[depth].values():
            value.copy_(5 if value.dtype == torch.long else torch.rand(value.shape) + 0.5)
        files[depth] = folder / f'r{depth}.pth'
        state_dict = {f'backbone.{k}': v for k, v in weights[depth].items()}
        torch.save({'state_dict': state_dict}, files[depth])
    return files, weights


@pytest.fixture
def process_group(tmp_path):
    """mmcv's synchronised batch norm cannot be built without one."""
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize('library', NUMBER_OF_CONFIGS)
def test_every_stock_config_takes_the_checkpoint(
    library, checkpoints, process_group, tmp_path, monkeypatch, capsys
):
    files, weights = checkpoints
    # Some configs name others relative to a checkout of the library.
    monkeypatch.chdir(stock_files(library)[0].parents[2])
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    count, exceptions, unexplained, warnings = 0, [], [], Counter()
    for file in stock_files(library):
        name = '/'.join(file.parts[-2:])
        try:
            written = with_vito(file, files, tmp_path)
            if written is None:
                continue
            config, depth = written
            count += 1
            cfg = Config.fromfile(config)
            cfg.model.pop('teacher_ckpt', None)  # downloaded when the model is built
            check = check_config(cfg)
            warnings.update(
                warning.split(',')[0].split(' of the base')[0] for warning in check.warnings
            )
            lost = first_difference(config, weights[depth])
            if lost is not None:
                unexplained.append(f'{name}: {lost} is not what the checkpoint holds')
        except Exception as error:
            reason = next((why for text, why in REASONS.items() if text in str(error)), None)
            if reason is None:
                unexplained.append(f'{name}: {type(error).__name__}: {error}')
            else:
                exceptions.append(f'{name}: {reason}')
    logger.setLevel(level)
    with capsys.disabled():
        print(f'\n{library}: {count} configs with a ResNet, {len(exceptions)} exceptions')
        print(*exceptions, sep='\n')
        print(
            'Warnings:',
            *(f'{number} x {text}' for text, number in warnings.most_common(12)),
            sep='\n',
        )
    assert not unexplained, '\n'.join(unexplained)
    assert count >= NUMBER_OF_CONFIGS[library]
    not_loading = sum('does not load' in exception for exception in exceptions)
    assert len(exceptions) - not_loading < 0.1 * count
