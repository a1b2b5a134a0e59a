"""Containers and layouts of other programs' files: the right network in each, or what to do."""

import argparse
import functools
import json
import os
import pickle
import re
import runpy
from collections import deque
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from mmdet.models.backbones import ResNet as MMDetResNet
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from safetensors.torch import save_file
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore
from torchvision.models import resnet18

from tests.helpers.checkpoints import in_detectron2
from tests.helpers.features import assert_same_features
from vito_mm.checkpoint import Checkpoint, CheckpointError, load_backbone


def under(prefix, weights):
    return {prefix + key: value for key, value in weights.items()}


def filled(file, which='online'):
    model = MMDetResNet(18)
    load_backbone(model, file, which)
    return model


# Averaged weights next to the online ones

NAMESPACE = argparse.Namespace(lr=0.1, arch='resnet18', nested=argparse.Namespace(seed=0))
AVERAGED = {
    'model and model_ema': lambda o, t: {'model': o, 'model_ema': t},
    'timm': lambda o, t: {
        'epoch': 3,
        'arch': 'resnet18',
        'state_dict': o,
        'state_dict_ema': under('module.', t),
        'args': NAMESPACE,
    },
    'shadow': lambda o, t: {'model': under('module.', o), 'ema': {'decay': 0.99, 'shadow': t}},
    'ema_state_dict': lambda o, t: {'model_state_dict': o, 'ema_state_dict': t},
    'within': lambda o, t: {'state_dict': under('model.', o) | under('model_ema.module.', t)},
    'entries': lambda o, t: {'network': o, 'target_network': t, 'optimizer': {}},
    'names': lambda o, t: {'online_network_state_dict': o, 'target_network_state_dict': t},
    'PooDLe': lambda o, t: {
        'model': under('backbone.', o) | under('teacher_backbone.', t),
        'optimizer': {'state': {}, 'param_groups': [{'lr': 0.1}]},
        'epoch': 9,
        'args': NAMESPACE,
    },
    'DINO': lambda o, t: {
        'student': under('module.backbone.', o),
        'teacher': under('backbone.', t),
        'args': NAMESPACE,
    },
    'DeepSpeed': lambda o, t: {
        'module': under('backbone.', o) | under('momentum_backbone.', t),
        'args': NAMESPACE,
    },
}


@pytest.mark.parametrize('layout', AVERAGED)
def test_averaged_and_online_weights(layout, online, target, tmp_path):
    content = AVERAGED[layout](online.state_dict(), target.state_dict())
    for number, turned in enumerate((content, dict(reversed(content.items())))):
        torch.save(turned, tmp_path / f'{number}.pth')
        assert_same_features(filled(tmp_path / f'{number}.pth'), online)
        assert_same_features(filled(tmp_path / f'{number}.pth', 'target'), target)


def test_only_averaged_weights(target, tmp_path):
    torch.save({'state_dict_ema': target.state_dict()}, tmp_path / 'ema.pth')
    assert_same_features(filled(tmp_path / 'ema.pth', 'target'), target)
    with pytest.raises(CheckpointError, match=r'no online network.*which="target"'):
        filled(tmp_path / 'ema.pth')


class _Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = MMDetResNet(18, norm_eval=False)

    def forward(self, inputs, mode):
        return {'loss': self.backbone(inputs)[-1].mean()}


def test_mmengines_ema_hook_saves_the_averaged_weights_in_the_place_of_the_others(tmp_path):
    hook = EMAHook(momentum=0.3)
    runner = Runner(
        _Model(),
        str(tmp_path),
        train_dataloader=dict(
            dataset=[{'inputs': torch.rand(3, 64, 64)} for _ in range(4)],
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=2,
            collate_fn=lambda items: {'inputs': torch.stack([item['inputs'] for item in items])},
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.5)),
        custom_hooks=[hook],
        experiment_name=tmp_path.name,
        log_level='ERROR',
    )
    runner.train()
    for which, model in (('online', runner.model), ('target', hook.ema_model.module)):
        found, wanted = filled(tmp_path / 'epoch_2.pth', which), model.backbone
        assert all(torch.equal(v, wanted.state_dict()[k]) for k, v in found.state_dict().items())
    plain = Checkpoint.read(tmp_path / 'epoch_2.pth').model_state_dict
    averaged = hook.ema_model.module.state_dict()
    assert plain.keys() == averaged.keys()
    assert all(torch.equal(value, averaged[key]) for key, value in plain.items())


def test_parameters_without_buffers(online, target, tmp_path):
    shadow = dict(target.named_parameters())
    torch.save({'model': online.state_dict(), 'ema': {'shadow': shadow}}, tmp_path / 'shadow.pth')
    assert_same_features(filled(tmp_path / 'shadow.pth'), online)
    with pytest.raises(CheckpointError, match='running statistics of batch norm are missing'):
        filled(tmp_path / 'shadow.pth', 'target')


# Names that wrappers of modules insert


def _compiled(model):
    model.layer2 = torch.compile(model.layer2)
    return torch.compile(model).state_dict()


def _parallel(model):
    model.layer3 = nn.DataParallel(model.layer3)
    model.layer4[0] = nn.DataParallel(model.layer4[0])
    return nn.DataParallel(model).state_dict()


def _wrapped_by_fsdp(model):
    names = (r'^(layer\d\.\d)\.', r'_fsdp_wrapped_module.\1._checkpoint_wrapped_module.')
    return {re.sub(*names, key): value for key, value in model.state_dict().items()}


def _vector_counters(model):
    return {
        key: value.reshape(1) if key.endswith('num_batches_tracked') else value
        for key, value in model.state_dict().items()
    }


@pytest.mark.parametrize('wrap', [_compiled, _parallel, _wrapped_by_fsdp, _vector_counters])
def test_names_and_shapes_that_wrappers_change(wrap, online, tmp_path):
    model = resnet18(num_classes=7)
    model.load_state_dict(online.state_dict())
    weights = wrap(model)
    assert any(
        value.shape == (1,) or key not in online.state_dict() for key, value in weights.items()
    )
    torch.save({'model': weights}, tmp_path / 'wrapped.pth')
    assert_same_features(filled(tmp_path / 'wrapped.pth'), online)


@contextmanager
def process_group(backend, world_size=1, **store):
    if not hasattr(torch.distributed.fsdp, 'fully_shard'):
        pytest.skip('this torch has no FSDP2')
    torch.distributed.init_process_group(backend, rank=0, world_size=world_size, **store)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def sharded(model, processes, file):
    torch.distributed.fsdp.fully_shard(
        model, mesh=torch.distributed.init_device_mesh('cpu', (processes,))
    )
    torch.save({'model': model.state_dict()}, file)


def test_fsdp2(online, tmp_path, monkeypatch):
    with process_group('fake', 2, store=FakeStore()):
        sharded(resnet18(), 2, tmp_path / 'half.pth')
    with pytest.raises(CheckpointError, match=r"one process's part.*\(32, 3, 7, 7\)") as error:
        filled(tmp_path / 'half.pth')
    remedy = re.search(r'torch\.save\(.*?NEW_FILE\)', str(error.value))[0]

    model = resnet18(num_classes=7)
    model.load_state_dict(online.state_dict())
    with process_group('gloo', init_method=f'file://{tmp_path}/store'):
        sharded(model, 1, tmp_path / 'alone.pth')
        names = dict(model=model, torch=torch, NEW_FILE=tmp_path / 'remedy.pth')
        exec('from torch.distributed.checkpoint.state_dict import *', names)
        exec(remedy, names)
        folder = tmp_path / 'dcp'
        torch.distributed.checkpoint.save({'model': model.state_dict()}, checkpoint_id=folder)
    for name in ('alone.pth', 'remedy.pth'):
        assert_same_features(filled(tmp_path / name), online)

    with pytest.raises(CheckpointError, match='distributed checkpoint') as error:
        filled(folder)
    _, module, *words = str(error.value).rpartition(': python ')[2].split()
    monkeypatch.setattr('sys.argv', [module, *words])
    monkeypatch.chdir(tmp_path)
    runpy.run_module(module, run_name='__main__')
    assert_same_features(filled(tmp_path / 'weights.pth'), online)


# Containers


def test_pickles_of_numpy_arrays(online, tmp_path):
    """As detectron2's converter of torchvision's files writes it, classifier included."""
    arrays = {in_detectron2(k): v.numpy() for k, v in online.state_dict().items()}
    content = {'model': arrays, '__author__': 'torchvision', 'matching_heuristics': True}
    for protocol in (2, 3, 4, 5):
        file = tmp_path / f'R-18_{protocol}.pkl'
        file.write_bytes(pickle.dumps(content, protocol=protocol))
        assert_same_features(filled(file), online)


def test_archive_of_numpy_arrays(online, tmp_path):
    arrays = {k: v.numpy() for k, v in online.state_dict().items()}
    arrays['conv1.weight'] = arrays['conv1.weight'].astype('>f4')
    np.savez(tmp_path / 'model.npz', **arrays, classes=np.array(['a', 'b']))
    assert_same_features(filled(tmp_path / 'model.npz'), online)
    np.savez(tmp_path / 'objects.npz', **arrays, config=np.array({}, dtype=object))
    with pytest.raises(CheckpointError, match='Python objects'):
        filled(tmp_path / 'objects.npz')
    whole = (tmp_path / 'model.npz').read_bytes()
    (tmp_path / 'half.npz').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match='damaged or incomplete'):
        filled(tmp_path / 'half.npz')


@pytest.mark.parametrize('ending', ['safetensors', 'bin'])
def test_shards(ending, online, tmp_path):
    weights = list(online.state_dict().items())
    index = {}
    for number, part in enumerate((weights[:60], weights[60:]), start=1):
        name = f'model-0000{number}-of-00002.{ending}'
        save = save_file if ending == 'safetensors' else torch.save
        save(dict(part), tmp_path / name)
        index |= {key: name for key, _ in part}
    file = tmp_path / f'model.{ending}.index.json'
    file.write_text(json.dumps({'metadata': {'total_size': 1}, 'weight_map': index}, indent=2))
    assert_same_features(filled(file), online)

    (tmp_path / name).rename(tmp_path / 'gone')
    with pytest.raises(CheckpointError, match=f'not next to it: {name}'):
        filled(file)
    file.write_text(json.dumps({'weight_map': {'conv1.weight': '../secret.pth'}}))
    with pytest.raises(CheckpointError, match='outside its folder'):
        filled(file)
    file.write_text('{"architectures": ["ResNet"]}')
    with pytest.raises(CheckpointError, match='no weight_map'):
        filled(file)


def test_safetensors_whatever_its_first_byte(online, tmp_path):
    """The header's length comes first; 0x80 is the first byte of a pickle."""
    file = tmp_path / 'model.safetensors'
    save_file(online.state_dict(), file)
    data = file.read_bytes()
    length = int.from_bytes(data[:8], 'little')
    blanks = (0x80 - length) % 256
    header = data[8 : 8 + length] + b' ' * blanks
    file.write_bytes((length + blanks).to_bytes(8, 'little') + header + data[8 + length :])
    assert file.read_bytes()[0] == 0x80
    assert_same_features(filled(file), online)


@pytest.mark.parametrize('zipped', [True, False])
def test_namespace_next_to_the_weights(zipped, online, tmp_path):
    content = {'model': online.state_dict(), 'args': NAMESPACE}
    torch.save(content, tmp_path / 'args.pth', _use_new_zipfile_serialization=zipped)
    assert_same_features(filled(tmp_path / 'args.pth'), online)


def test_model_pickled_as_a_whole(online, target, tmp_path):
    torch.save(online, tmp_path / 'model.pth')
    assert_same_features(filled(tmp_path / 'model.pth'), online)
    torch.save({'epoch': 1, 'model': online, 'ema': target}, tmp_path / 'both.pth')
    assert_same_features(filled(tmp_path / 'both.pth'), online)
    assert_same_features(filled(tmp_path / 'both.pth', 'target'), target)


# What is refused


class _Runs:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize('write', [torch.save, lambda x, f: f.write_bytes(pickle.dumps(x))])
@pytest.mark.parametrize('wrap', [lambda x: x, lambda x: {'model': {'conv1.weight': x}}])
def test_no_code_of_a_file_is_run(wrap, write, tmp_path):
    for name, call in {
        'system': _Runs(os.system, f'touch {tmp_path}/was_run'),
        'eval': _Runs(eval, f'open({str(tmp_path / "was_run")!r}, "w")'),
        'getattr': _Runs(getattr, 'text', 'upper'),
        # An array of objects whose pointer the file chooses.
        'pointer': _Runs(np.ndarray, (1,), np.dtype('O'), b'\x01' * 8),
    }.items():
        write(wrap(call), tmp_path / name)
        with pytest.raises(CheckpointError, match=r'no weights|any code|refused'):
            filled(tmp_path / name)
    assert not (tmp_path / 'was_run').exists()
    # A reader that runs it would be noticed.
    pickle.loads(pickle.dumps(wrap(_Runs(os.system, f'touch {tmp_path}/was_run'))))
    assert (tmp_path / 'was_run').exists()


@pytest.mark.parametrize('kind', ['objects', 'pickle', 'program'])
def test_remedies_work_when_typed(kind, online, tmp_path, monkeypatch):
    file = tmp_path / 'it is.pth'
    if kind == 'objects':
        other = {'losses': deque([0.1, 0.2]), 'schedule': functools.partial(max, 1)}
        torch.save({'model': online.state_dict(), **other}, file)
    elif kind == 'pickle':
        file.write_bytes(pickle.dumps({'state_dict': online.state_dict()}))
    else:
        torch.jit.trace(online, torch.rand(1, 3, 32, 32)).save(file)
    with pytest.raises(CheckpointError) as error:
        filled(file)
    code = str(error.value).partition('code:\n')[2] or (
        'import torch; ' + str(error.value).rpartition('weights: ')[2]
    )
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert_same_features(filled(tmp_path / 'weights.pth'), online)


def test_a_resnet_is_searched_once_and_each_caller_has_a_match_of_its_own(tmp_path, monkeypatch):
    torch.save(resnet18().state_dict(), tmp_path / 'a.pth')
    checkpoint = Checkpoint.read(tmp_path / 'a.pth')
    first = checkpoint.match()
    first.missing, first.file = ['x'], 'elsewhere'
    monkeypatch.setattr('vito_mm.checkpoint.checkpoint.find_backbone', None)
    second = checkpoint.match()
    assert (second.missing, second.file, second.depths) == ([], str(checkpoint), (18, 18))
    assert second.weights.keys() == first.weights.keys()
