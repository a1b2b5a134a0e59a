"""Checkpoints of a ResNet-18 as the different programs write them."""

import pytest
import torch
from mmengine.logging import HistoryBuffer
from torchvision.models import resnet18


def _randomised(seed):
    """torchvision's ResNet-18 with running statistics that are not the initial ones."""
    torch.manual_seed(seed)
    model = resnet18(num_classes=7)
    for name, buffer in model.named_buffers():
        if 'running' in name:
            buffer.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope='session')
def online():
    return _randomised(0)


@pytest.fixture(scope='session')
def target():
    return _randomised(1)


@pytest.fixture(scope='session')
def checkpoints(online, target, tmp_path_factory):
    """Files by kind; each holds ``online``, and ``training`` holds ``target`` as well."""
    backbone = {k: v for k, v in online.state_dict().items() if not k.startswith('fc.')}
    momentum = {k: v for k, v in target.state_dict().items() if not k.startswith('fc.')}
    training = {
        **{f'backbone.{k}': v for k, v in backbone.items()},
        'neck.poolings.0.conv1.weight': torch.zeros(4, 4, 1, 1),
        'projector.fc0.weight': torch.zeros(4, 4),
        'target_net.steps': torch.tensor(30),
        **{f'target_net.module.0.{k}': v for k, v in momentum.items()},
        'target_net.module.1.poolings.0.conv1.weight': torch.zeros(4, 4, 1, 1),
    }
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    contents = {
        'training': {
            'meta': {'epoch': 0, 'iter': 30, 'cfg': ''},
            'state_dict': training,
            'message_hub': {'log_scalars': {'train/loss': history}},
            'optimizer': {'state': {}, 'param_groups': []},
        },
        'ddp': {'state_dict': {f'module.{k}': v for k, v in training.items()}},
        'torchvision': online.state_dict(),
        'mmpretrain': {
            'state_dict': {
                **{f'backbone.{k}': v for k, v in backbone.items()},
                'head.fc.weight': online.fc.weight.detach(),
            }
        },
        'model_entry': {'model': {f'module.{k}': v for k, v in online.state_dict().items()}},
        'without_counters': {
            'state_dict': {k: v for k, v in backbone.items() if 'num_batches' not in k}
        },
    }
    folder = tmp_path_factory.mktemp('checkpoints')
    files = {}
    for kind, content in contents.items():
        files[kind] = str(folder / f'{kind}.pth')
        torch.save(content, files[kind])
    return files
