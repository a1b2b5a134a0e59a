"""Checkpoints of a ResNet-18 as the different programs write them."""

import argparse
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file
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
            'meta': {
                'epoch': 0,
                'iter': 30,
                'cfg': 'model = dict()',
                'preprocessing': {
                    'mean': [123.675, 116.28, 103.53],
                    'std': [58.395, 57.12, 57.375],
                    'channel_order': 'rgb',
                },
            },
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
    contents |= {
        'moco': {
            'epoch': 200,
            'arch': 'resnet18',
            'state_dict': {
                **{f'module.encoder_q.{k}': v for k, v in online.state_dict().items()},
                **{f'module.encoder_k.{k}': v for k, v in target.state_dict().items()},
                'module.queue': torch.zeros(4, 4),
            },
            'optimizer': {'state': {0: {'momentum_buffer': torch.zeros(2)}}},
        },
        # What their training scripts leave, with the arguments of the command line.
        'dino_training': {
            'student': {f'module.backbone.{k}': v for k, v in backbone.items()},
            'teacher': {f'backbone.{k}': v for k, v in momentum.items()},
            'optimizer': {'state': {}, 'param_groups': []},
            'epoch': 3,
            'args': argparse.Namespace(lr=0.1, output_dir=Path('out')),
            'dino_loss': {'center': torch.zeros(1, 4)},
        },
        'poodle': {
            'model': {
                **{f'backbone.{k}': v for k, v in backbone.items()},
                **{f'teacher_backbone.{k}': v for k, v in momentum.items()},
                'decoder.conv1.weight': torch.zeros(4, 4, 1, 1),
            },
            'optimizer': {'state': {}, 'param_groups': []},
            'epoch': 3,
            'args': argparse.Namespace(lr=0.1, output_dir=Path('out')),
        },
        'deepspeed': {
            'module': {
                **{f'backbone.{k}': v for k, v in backbone.items()},
                **{f'teacher.backbone.{k}': v for k, v in momentum.items()},
            },
            'buffer_names': ['backbone.bn1.running_mean'],
            'param_shapes': [OrderedDict((k, v.shape) for k, v in backbone.items())],
            'optimizer': None,
            'ds_config': {'train_batch_size': 8, 'zero_optimization': {'stage': 1}},
            'ds_version': '0.14.0',
            'global_steps': 30,
            'args': argparse.Namespace(lr=0.1, output_dir=Path('out')),
        },
        'vince': {f'feature_extractor.module.model.{k}': v for k, v in backbone.items()},
        'resnet18_entry': {'resnet18': backbone, 'step': 7},
        'namespace': {'state_dict': backbone, 'args': argparse.Namespace(lr=0.1)},
        'numpy': {'model': {k: v.numpy() for k, v in backbone.items()}},
        'lightly': {'state_dict': {f'backbone.{_position(k)}': v for k, v in backbone.items()}},
        'detectron2': {
            'model': {f'backbone.bottom_up.{in_detectron2(k)}': v for k, v in backbone.items()}
        },
    }
    folder = tmp_path_factory.mktemp('checkpoints')
    files = {}
    for kind, content in contents.items():
        files[kind] = str(folder / f'{kind}.pth')
        torch.save(content, files[kind])
    files['safetensors'] = str(folder / 'model.safetensors')
    save_file({f'backbone.{k}': v for k, v in backbone.items()}, files['safetensors'])
    return files


def _position(key):
    """Name in ``nn.Sequential(*resnet.children())``."""
    children = ['conv1', 'bn1', 'relu', 'maxpool', 'layer1', 'layer2', 'layer3', 'layer4']
    first, rest = key.split('.', 1)
    return f'{children.index(first)}.{rest}'


def in_detectron2(key):
    """As detectron2's tools/convert-torchvision-to-d2.py renames."""
    if 'layer' not in key:
        key = 'stem.' + key
    for stage in (1, 2, 3, 4):
        key = key.replace(f'layer{stage}', f'res{stage + 1}')
    for number in (1, 2, 3):
        key = key.replace(f'bn{number}', f'conv{number}.norm')
    return key.replace('downsample.0', 'shortcut').replace('downsample.1', 'shortcut.norm')
