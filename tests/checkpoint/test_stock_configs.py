"""Every stock config with a ResNet takes a VITO checkpoint when its backbone alone is changed."""

import json
from collections import Counter

import pytest
import torch
import torchvision
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from tests.helpers.stock_configs import (
    first_difference,
    other_backbones,
    stock_files,
    with_vito,
)
from vito_mm.checkpoint import check_config
from vito_mm.utils.quiet import quiet_logger

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
    with quiet_logger():
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


OTHER_CONFIGS = {'mmdet': (224, 192), 'mmseg': (29, 28)}
"""Those with a Swin, ConvNeXt, ResNeXt or RegNet in mmdet 3.3.0 and mmseg 1.2.2, at least, and how
many of them take the checkpoint; the others say why not."""

OTHER_REASONS = {
    'has group norm': 'group norm, a checkpoint has batch norm: set norm_cfg, too',
    'over the complete part': 'a whole model is loaded over it: set model.init_cfg=None, too',
    'load_from=': 'a whole model is loaded over it: set load_from=None, too',
    '(96, 3, 4, 4) -> (96, 6, 4, 4)': 'pairs of images, of six channels',
}


def _weights_of(plain: dict) -> dict[str, torch.Tensor]:
    """Those of pre-training with a backbone: of Swin and ConvNeXt with the last norm alone."""
    backbone = MODELS.build(dict(plain, out_indices=(3,)) if 'depth' not in plain else dict(plain))
    weights = backbone.state_dict()
    for value in weights.values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    return weights


@pytest.mark.slow
@pytest.mark.parametrize('library', OTHER_CONFIGS)
def test_every_stock_config_of_another_backbone_takes_its_checkpoint(
    library, process_group, tmp_path, monkeypatch, capsys
):
    """With a model of the backbone alone: one per distinct backbone and start of a run."""
    monkeypatch.chdir(stock_files(library)[0].parents[2])
    unreadable, exceptions, unexplained, counts = [], [], [], Counter()
    for plain, starts in other_backbones(library, unreadable).items():
        plain = json.loads(plain)
        with DefaultScope.overwrite_default_scope(library):
            weights = _weights_of(plain)
        file = tmp_path / 'iter_1.pth'
        torch.save({'state_dict': {f'backbone.{k}': v for k, v in weights.items()}}, file)
        for start, configs in starts.items():
            cfg = Config(json.loads(start))
            cfg.model.backbone.checkpoint = str(file)
            counts[plain['type'].rpartition('.')[2]] += len(configs)
            names = [f'{"/".join(each.parts[-2:])}' for each in configs]
            try:
                match = check_config(cfg).match
                with DefaultScope.overwrite_default_scope(library):
                    backbone = MODELS.build(cfg.model.backbone)
                backbone.init_weights()
                loaded = backbone.state_dict()
                lost = [k for k, v in weights.items() if k in loaded and not loaded[k].equal(v)]
                extra = [k for k in loaded if k not in weights and k not in match.new]
                extra = [k for k in extra if not k.endswith('relative_position_index')]
                if lost or extra:
                    unexplained.append(f'{names}: {lost[:3]} {extra[:3]}')
            except Exception as error:
                text = str(error)
                reason = next((why for what, why in OTHER_REASONS.items() if what in text), None)
                if reason is None:
                    unexplained.append(f'{names}: {type(error).__name__}: {error}')
                else:
                    exceptions += [f'{name}: {reason}' for name in names]
    with capsys.disabled():
        print(f'\n{library}: {dict(counts)}, {len(exceptions)} exceptions')
        print(*exceptions, *unreadable, sep='\n')
    assert not unexplained, '\n'.join(unexplained)
    count, taking = OTHER_CONFIGS[library]
    assert sum(counts.values()) >= count
    assert sum(counts.values()) - len(exceptions) >= taking
