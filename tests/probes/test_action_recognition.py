"""Fine-tuning on videos in class folders: what is read, and the command from start to report."""

import csv
import json
import shutil

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from tests.helpers.class_folder_videos import CLASSES, write_class_folders
from tests.helpers.processes import run_tool
from vito_mm.probes.action_recognition import find_split, protocol_config, read_protocol
from vito_mm.probes.image_folders import ProbeError
from vito_mm.probes.loading import load_encoder, resnet
from vito_mm.probes.video_classifier import ClassifierFirstHook, class_names, read_list


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp('ucf')
    write_class_folders(root, seconds=0.4, side=32)
    return root


@pytest.fixture
def copied(world, tmp_path):
    return shutil.copytree(world, tmp_path / 'data')


@pytest.fixture
def weights(tmp_path):
    """A ResNet-18 of a quarter of the width."""
    file = tmp_path / 'thin.pth'
    torch.save(load_encoder(None, network=resnet(18, 16), seed=1).backbone.state_dict(), file)
    return file


@pytest.fixture
def command(world, tmp_path, monkeypatch, capsys):
    """Runs the sub-command at a tiny size; returns what is printed."""

    def run(*words):
        few = ('--epochs', 2, '--size', 32, '--batch-size', 2, '--workers', 0)
        few += ('--cfg-options', 'train_dataloader.dataset.times=1')
        few += tuple(
            f'{part}.pipeline.0.num_frames=2'
            for part in ('train_dataloader.dataset.dataset', 'val_dataloader.dataset')
        )
        few += ('val_dataloader.dataset.pipeline.0.num_clips=2',)
        place = ('--data', world, '--work-dir', tmp_path / 'runs')
        run_tool(monkeypatch, 'probe.py', 'ucf101', *place, *words, *few)
        return capsys.readouterr().out

    return run


def test_the_command_goes_on_where_it_was_interrupted(command, weights, tmp_path, monkeypatch):
    """In the second epoch; and what is finished is not repeated."""
    trained, original = [], ClassifierFirstHook.before_train_epoch

    def interrupt(hook, runner):
        if runner.epoch == 1 and not trained.count(1):
            trained.append(1)
            raise KeyboardInterrupt
        trained.append(runner.epoch)
        original(hook, runner)

    monkeypatch.setattr(ClassifierFirstHook, 'before_train_epoch', interrupt)
    with pytest.raises(KeyboardInterrupt):
        command(weights)
    (record,) = (tmp_path / 'runs').glob('*.json')
    assert 'result' not in json.loads(record.read_text())['parts']
    out = command(weights)
    assert trained == [0, 1, 1]
    assert command(weights) == out
    assert trained == [0, 1, 1]

    found = json.loads(record.read_text())['parts']['result']
    assert found['accuracy/top1'] in (0, 50, 100)
    label = record.stem
    with (tmp_path / 'runs/ucf101.csv').open() as file:
        (row,) = csv.DictReader(file)
    assert (row['network'], float(row['top-1'])) == (label, found['accuracy/top1'])
    page = (tmp_path / 'runs/ucf101.md').read_text()
    assert '| VITO ResNet-50 | 85.3 |' in page
    saved = torch.load(tmp_path / f'runs/{label}/epoch_2.pth', weights_only=False)
    # The steps before the interruption count.
    times, _ = saved['message_hub']['log_scalars']['train/time'].data
    assert len(times) == 4
    assert found['seconds'] > times.sum()
    state = saved['state_dict']
    assert state['backbone.conv1.weight'].shape == (16, 3, 7, 7)
    assert state['classifier.1.weight'].shape == (2, 128)

    with pytest.raises(SystemExit, match='another seed'):
        command(weights, '--seed', 1)


def test_an_evaluation_that_failed_is_made_up_for(copied, command, monkeypatch):
    trained, original = [], ClassifierFirstHook.before_train_epoch

    def note(hook, runner):
        trained.append(runner.epoch)
        original(hook, runner)

    monkeypatch.setattr(ClassifierFirstHook, 'before_train_epoch', note)
    video = copied / 'UCF-101/Hammering/video 4.mp4'
    content = video.read_bytes()
    video.write_bytes(b'no video')
    words = ('random', '--depth', 18, '--base-channels', 16, '--data', copied)
    with pytest.raises(RuntimeError, match='video 4'):
        command(*words)
    video.write_bytes(content)
    assert '| random' in command(*words)
    assert trained == [0, 1]


def named_transformer(folder):
    timm = pytest.importorskip('timm')
    torch.manual_seed(7)
    vit = timm.create_model('vit_tiny_patch16_224', num_classes=2)
    torch.save(vit.state_dict(), folder / 'vit.pth')
    return folder / 'vit.pth', 'timm:vit_tiny_patch16_224', 192


def resnet_of_bgr(folder):
    weights = load_encoder(None, network=resnet(18, 16), seed=1).backbone.state_dict()
    told = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], channel_order='bgr')
    file = folder / 'bgr.pth'
    torch.save(dict(state_dict=weights, meta=dict(preprocessing=told)), file)
    return file, None, 128


@pytest.mark.parametrize('make', [named_transformer, resnet_of_bgr])
def test_other_networks_are_trained_with_their_own_preprocessing(make, world, tmp_path):
    file, name, channels = make(tmp_path)
    base, split = read_protocol('ucf101_r50.py'), find_split(world)
    cfg = protocol_config(base, split, file, tmp_path, size=32, backbone=name)
    assert (cfg.model.in_channels, cfg.model.num_classes) == (channels, 2)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    model.init_weights()
    clips = torch.randint(0, 256, (1, 1, 2, 3, 32, 32), dtype=torch.uint8)
    pooled = load_encoder(file, network=name, device='cpu')(clips.flatten(0, 2)).mean(dim=0)
    with torch.no_grad():
        expected = model.eval().classifier(pooled)
        torch.testing.assert_close(model(clips)[0, 0], expected, atol=1e-4, rtol=1e-4)
    model.train()
    model(clips).sum().backward()
    first = next(model.backbone.network.parameters())
    assert first.grad is not None
    assert first.grad.any()


def test_the_network_of_a_file_needs_no_name(world, tmp_path):
    file, _, _ = named_transformer(tmp_path)
    base, split = read_protocol('ucf101_r50.py'), find_split(world)
    own = protocol_config(base, split, file, tmp_path, size=32)
    random = protocol_config(base, split, None, tmp_path, size=32, like=file)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        states = [MODELS.build(cfg.model.backbone).state_dict() for cfg in (own, random)]
    assert own.model.in_channels == random.model.in_channels == 192
    key = 'network.patch_embed.projection.weight'
    weights = torch.load(file)['patch_embed.proj.weight']
    assert [torch.equal(state[key], weights) for state in states] == [True, False]


def test_epochs_keep_the_shares_of_the_schedule(world, tmp_path):
    videos, base = find_split(world), read_protocol('ucf101_r50.py')
    small = dict(depth=18, base_channels=16, size=32)
    cfg = protocol_config(base, videos, None, tmp_path, **small)
    assert (cfg.train_cfg.max_epochs, cfg.custom_hooks[0].epochs) == (21, 5)
    assert cfg.model.in_channels == 128
    assert cfg.val_evaluator.topk == (1,)
    cfg = protocol_config(base, videos, None, tmp_path, epochs=42, **small)
    assert (cfg.train_cfg.max_epochs, cfg.custom_hooks[0].epochs) == (42, 10)
    assert cfg.param_scheduler.milestones == [22, 30, 38]


def test_classes_are_numbered_as_their_list_says(copied):
    lists = copied / 'ucfTrainTestlist'
    videos = find_split(copied)
    assert videos.classes == [*CLASSES]
    labels = [row['label'] for row in read_list(videos.train, videos.root)]
    assert labels == [0, 1, 0, 1]
    # Without the list of classes, their numbers in the list of videos are of another order.
    (lists / 'classInd.txt').unlink()
    with pytest.raises(ProbeError, match=r'Hammering.* the number 1 .* is 2.*classInd'):
        find_split(copied)
    for part in ('train', 'test'):
        file = lists / f'{part}list01.txt'
        lines = file.read_text().splitlines()
        file.write_text('\n'.join(line.rpartition('mp4')[0] + 'mp4' for line in lines))
    assert find_split(copied).classes == sorted(CLASSES)
    # Numbers from 0 that agree.
    (lists / 'trainlist01.txt').write_text('Hammering/video 0.mp4 1\nHammerThrow/video 1.mp4 0\n')
    assert [row['label'] for row in read_list(videos.train, videos.root)] == [1, 0]


@pytest.mark.parametrize(
    ('content', 'word'),
    [
        ('1 Hammering\n', 'HammerThrow'),
        ('1 Hammering\n2 HammerThrow\n3 Archery\n', 'Archery'),
        ('1 Hammering\n3 HammerThrow\n', 'from 1'),
        ('2 Hammering\n1 HammerThrow\n', r'the number 1 .* is 2'),
    ],
)
def test_a_list_of_classes_that_disagrees_is_refused(copied, content, word):
    (copied / 'ucfTrainTestlist/classInd.txt').write_text(content)
    with pytest.raises(ProbeError, match=word):
        find_split(copied)


def test_lists_elsewhere_have_their_own_order(copied):
    """Lists within the folder of the classes are no class; two orders do not go together."""
    root, lists = copied / 'UCF-101', copied / 'ucfTrainTestlist'
    shutil.copytree(lists, root / 'mine')
    assert class_names(root, root / 'mine/trainlist01.txt') == [*CLASSES]
    (root / 'mine/classInd.txt').write_text('2 Hammering\n1 HammerThrow\n')
    with pytest.raises(ProbeError, match='different numbers'):
        find_split(copied, test=root / 'mine/testlist01.txt')


def test_all_that_is_missing_is_named_before_anything_runs(copied, command, tmp_path):
    with pytest.raises(SystemExit, match=r'no folder of videos .*gone'):
        command('random', '--data', tmp_path / 'gone')
    (copied / 'ucfTrainTestlist/trainlist01.txt').unlink()
    (copied / 'UCF-101/Hammering/video 4.mp4').unlink()
    with pytest.raises(SystemExit, match=r'(?s)trainlist01.*--train-list.*video 4.*--test-list'):
        command('random', '--data', copied)
    (copied / 'ucfTrainTestlist/trainlist01.txt').write_text('\n')
    with pytest.raises(SystemExit, match='names no video'):
        command('random', '--data', copied)
    assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize('form', ['./{}', '{root}/{}'])
def test_a_list_may_name_videos_by_other_paths(copied, form):
    lists, root = copied / 'ucfTrainTestlist', copied / 'UCF-101'
    expected = read_list(lists / 'trainlist01.txt', root)
    lines = (lists / 'trainlist01.txt').read_text().splitlines()
    other = lists / 'other.txt'
    other.write_text('\n'.join(form.format(line, root=root) for line in lines))
    assert [row['label'] for row in read_list(other, root)] == [row['label'] for row in expected]
    shutil.copy(root / CLASSES[0] / 'video 0.mp4', copied / 'stray.mp4')
    other.write_text(form.format('../stray.mp4', root=root))
    with pytest.raises(ValueError, match=r'stray\.mp4.* no class folder'):
        read_list(other, root)


def test_an_option_that_is_new_to_the_protocol_is_told(monkeypatch):
    told = []
    monkeypatch.setattr('vito_mm.launch.print_log', lambda text, **_: told.append(text))
    words = ['train_cfg.max_epoch=3', 'train_cfg.max_epochs=2']
    assert read_protocol('ucf101_r50.py', words).train_cfg.max_epochs == 2
    (warning,) = told
    assert 'max_epoch' in warning


def test_other_configs_and_sizes_are_refused(world, tmp_path):
    with pytest.raises(ProbeError, match='no config file'):
        read_protocol(tmp_path / 'nowhere.py')
    with pytest.raises(ProbeError, match='FrameAverageClassifier'):
        read_protocol('vito_pascal_stock.py')
    pytest.importorskip('timm')
    name = 'timm:vit_tiny_patch16_224'
    with pytest.raises(ProbeError, match='100 pixels'):
        protocol_config(
            read_protocol('ucf101_r50.py'),
            find_split(world),
            None,
            tmp_path,
            size=100,
            backbone=name,
        )
