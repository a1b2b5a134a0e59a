"""What the README and the docs tell a user to type."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18, resnet50

from tests.conftest import ONEDL, REPO, write_video
from tests.helpers.bdd100k import write_bdd100k
from tests.helpers.own_tasks import HALF_RESNET18, SEGMENTER, write
from tests.helpers.processes import shell, status_of_tool, user_environment
from tests.helpers.tiny_vito import save, tiny_vito
from vito_mm.checkpoint import Checkpoint, check_config, export_backbone
from vito_mm.miniscenes import make_miniscenes
from vito_mm.videos import read_manifest

from .pages import python_blocks, runs


def call(command: str) -> int | str | None:
    """Run ``python FILE ...`` in this process; returns its exit status."""
    _, file, *arguments = shlex.split(command)
    return status_of_tool(file.removeprefix('tools/'), *arguments)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder to work in that looks like the checkout, so that nothing is written into that."""
    folder = tmp_path / 'checkout'
    folder.mkdir()
    for name in ('configs', 'docs', 'tools'):
        (folder / name).symlink_to(REPO / name)
    monkeypatch.chdir(folder)
    return folder


@runs('README.md', matching=r'python tools/(prepare_videos|browse_views)\.py', count=2)
def test_commands_about_videos_do_what_the_page_says(commands, tmp_path, monkeypatch):
    monkeypatch.chdir(REPO)
    for index in range(3):
        write_video(tmp_path / f'videos/{index}.mp4', size=(96, 64), texture=index)
    (tmp_path / 'videos/page.mp4').write_text('<html>404</html>')
    for command in commands:
        assert not call(command.text.replace('/data/', f'{tmp_path}/'))
    rows = [json.loads(line) for line in (tmp_path / 'small.jsonl').read_text().splitlines()]
    assert sorted(row['verdict'] for row in rows) == ['bad', 'ok', 'ok', 'ok']
    assert all((tmp_path / row['path']).is_file() for row in rows)
    assert (tmp_path / 'views.png').stat().st_size > 10_000


def test_long_recordings_become_rows_of_minutes(tmp_path):
    rows = [dict(path='a.mp4', seconds=185.0), dict(path='b.mp4', seconds=10.0)]
    (tmp_path / 'small.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    (block,) = python_blocks('docs/your_own_videos.md', 'read_manifest')
    exec(block.text.replace('/data/', f'{tmp_path}/'), {})
    made = [json.loads(line) for line in (tmp_path / 'minutes.jsonl').read_text().splitlines()]
    assert [(row['path'][-5:], row['start'], row['end']) for row in made] == [
        ('a.mp4', 0, 60),
        ('a.mp4', 60, 120),
        ('a.mp4', 120, 180),
        ('b.mp4', 0, 60),
    ]


@runs('docs/your_own_videos.md', matching=r'python tools/.* /data/walking_tours', count=1)
def test_the_recipe_of_walking_tours(commands, tmp_path, monkeypatch):
    """On a recording of a good two minutes, and one that is broken."""
    monkeypatch.chdir(REPO)
    write_video(tmp_path / 'walking_tours/venice.mp4', num_frames=130, fps=1, size=(96, 64))
    (tmp_path / 'walking_tours/zurich.mp4').write_text('<html>404</html>')
    (command,) = commands
    assert not call(command.text.replace('/data/', f'{tmp_path}/'))
    (block,) = python_blocks('docs/your_own_videos.md', 'read_manifest')
    exec(block.text.replace('/data/', f'{tmp_path}/'), {})
    rows = read_manifest(tmp_path / 'minutes.jsonl')
    assert [(row['start'], row['end']) for row in rows] == [(0, 60), (60, 120)]
    assert all((tmp_path / row['path']).is_file() for row in rows)
    assert rows[0]['seconds'] > 120


def test_the_model_for_brain_score_has_the_features(tmp_path):
    """Of an export; what wraps it needs Brain-Score, and is not run."""
    build, _ = python_blocks('docs/frozen_probes.md')
    torch.manual_seed(0)
    network = resnet50().eval()
    torch.save({'state_dict': network.state_dict()}, tmp_path / 'vito.pth')
    export_backbone(tmp_path / 'vito.pth', tmp_path / 'vito_torchvision.pth', layout='torchvision')
    found = {}
    exec(build.text.replace('/ckpt/', f'{tmp_path}/'), found)
    network.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found['model'](images), network(images))


# Use a VITO checkpoint in your config

WAYS = python_blocks('docs/use_a_checkpoint.md')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder that stands for /ckpt, with a training checkpoint of ResNet-50."""
    folder = tmp_path_factory.mktemp('ckpt')
    weights = {f'backbone.{k}': v for k, v in resnet50().state_dict().items() if k[:3] != 'fc.'}
    target = {f'target_net.module.0.{k[9:]}': v for k, v in weights.items()}
    torch.save({'state_dict': weights | target, 'meta': {'iter': 7}}, folder / 'vito.pth')
    return folder


@runs('docs/use_a_checkpoint.md', matching='python tools/', count=7)
def test_commands_of_the_hand_over(commands, trained, monkeypatch):
    monkeypatch.chdir(REPO)
    shutil.copy(trained / 'vito.pth', trained / 'best.pth')
    for command in commands:
        assert not call(command.text.replace('/ckpt/', f'{trained}/'))
    made = {path.name for path in trained.iterdir()}
    assert made >= {'backbone.pth', 'torchvision.pth', 'timm.safetensors', 'detectron2.pth'}
    assert made >= {'vito_r50', 'vito_ade20k.pth'}


@runs('README.md', matching=r'python tools/(check|export)_checkpoint', count=2)
def test_commands_of_the_readme_about_a_checkpoint(commands, trained, checkout, monkeypatch):
    for command in commands:
        assert not call(command.text.replace('CHECKPOINT', f'{trained}/vito.pth'))
    assert Checkpoint.read(checkout / 'backbone.pth').meta['step'] == 7


@pytest.mark.skipif(ONEDL, reason='its MMEngine finds no mmseg:: base without vito_mm')
@pytest.mark.parametrize('number', range(3), ids=['custom_imports', 'scoped name', 'init_cfg'])
def test_each_way_starts_from_the_whole_checkpoint(number, trained, tmp_path):
    """By the library's own parts; the last way needs no vito_mm, in a process without it."""
    export_backbone(trained / 'vito.pth', trained / 'backbone.pth')
    config = tmp_path / 'config.py'
    config.write_text(WAYS[number].text.replace('/ckpt/', f'{trained}/'))
    check = check_config(config)
    assert (len(check.match.weights), check.warnings) == (318, [])
    code = (
        'import sys, torch\n'
        'from mmengine.config import Config\n'
        'from mmengine.registry import MODELS, init_default_scope\n'
        f'cfg = Config.fromfile({str(config)!r})\n'
        'init_default_scope(cfg.default_scope)\n'
        'model = MODELS.build(cfg.model)\n'
        'model.backbone.init_weights()\n'
        f'weights = torch.load({str(trained / "backbone.pth")!r})["state_dict"]\n'
        'loaded = model.backbone.state_dict()\n'
        'assert loaded.keys() == weights.keys()\n'
        'assert all(torch.equal(loaded[k], v) for k, v in weights.items())\n'
        f'assert ("vito_mm" in sys.modules) == {number < 2}\n'
    )
    if number < 2:
        exec(code, {})
    else:
        result = shell(sys.executable, '-c', code, bare=True)
        assert result.returncode == 0, result.stderr[-3000:]


OF_TABLE = r'python tools/transfer\.py.* (pascal|coco) '


@runs('README.md', 'docs/transfer.md', matching=OF_TABLE, count=2)
def test_commands_of_the_transfer_table_lack_nothing_but_the_data(
    commands, trained, tmp_path, monkeypatch, capsys
):
    """The real data sets cannot be here; everything else about the command is checked."""
    monkeypatch.chdir(REPO)
    for name in ('vito.pth', 'other.pth', 'moclr.pth'):
        (tmp_path / name).symlink_to(trained / 'vito.pth')
    for command in commands:
        named = re.sub(r'(/ckpt/)?\b(\w+\.pth)', rf'{tmp_path}/\2', command.text)
        assert call(f'{named} --work-dir {tmp_path}/suite --dry-run --no-estimate') == 2
        told = capsys.readouterr().err.splitlines()
        problems = [line for line in told if line.startswith('  - ')]
        assert len(problems) == 2
        assert all('there is no data folder' in problem for problem in problems)


@runs('docs/transfer.md', matching=r'python tools/transfer\.py.* cells=', count=4)
def test_commands_of_a_task_of_ones_own_are_planned(
    commands, trained, miniscenes, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(REPO)
    full_size = SEGMENTER.replace(HALF_RESNET18, 'depth=50').replace(
        'in_channels=256', 'in_channels=2048'
    )
    config = write(tmp_path, full_size, miniscenes['pascal'])
    for command in commands:
        text = command.text.replace('/ckpt', str(trained)).replace('my_config.py', str(config))
        text = text.replace('1% 10%', '90% 95%')  # of 12 images
        assert call(f'{text} --work-dir {tmp_path}/suite --dry-run --no-estimate') == 0
        seeds = int((re.findall(r'--seeds (\d)', text) or [5])[0])
        points = 3 if '--labels' in text or '--layer-decay' in text else 1
        assert f' = {2 * seeds * points} runs' in capsys.readouterr().out


@runs('docs/frozen_probes.md', matching=r'python tools/(prepare_bdd100k|transfer)\.py', count=2)
def test_commands_of_the_protocols_lack_nothing_but_ade20k(commands, trained, checkout, capsys):
    """BDD100K is there in little; what its tool writes is where the configs look for it."""
    write_bdd100k(checkout / 'data/bdd100k')
    prepare, transfer = commands
    assert call(prepare.text) == 0
    text = transfer.text.replace('CHECKPOINT', f'{trained}/vito.pth')
    assert call(f'{text} --dry-run --no-estimate') == 2
    problems = [line for line in capsys.readouterr().err.splitlines() if line.startswith('  - ')]
    assert [line.partition(': ')[0] for line in problems] == ['  - ADE20K, linear']


# Pictures


@runs('docs/pictures.md', matching=r'python tools/show_', count=4)
def test_commands_of_the_pictures(commands, checkout, monkeypatch):
    checkpoint = save(checkout / 'vito.pth', *tiny_vito())
    video = write_video(checkout / 'videos/cat/long.mp4', num_frames=100, fps=4, texture=1)
    for index in range(4):
        write_video(checkout / f'videos/dog/{index}.mp4', num_frames=20, texture=index)
    places = {'CHECKPOINT': checkpoint, 'VIDEO': video, 'FOLDER_OR_MANIFEST': checkout / 'videos'}
    for command in commands:
        words = [str(places.get(word, word)) for word in command.words]
        assert not call(shlex.join([*words, '--size', '64']))
    for name in ('attention.png', 'attention.mp4', 'some.png', 'neighbours.png'):
        assert (checkout / name).stat().st_size > 10_000


# MiniScenes

MADE = 'data/study_small --preset study_small'
FEW = ' --num-videos 2 --num-images 2 --num-probe-images 40 --workers 0'


@runs('docs/miniscenes.md', matching='', count=6)
def test_commands_of_miniscenes(commands, checkout, monkeypatch, capsys):
    """In the page's order, each on what those before it made; of the world a small part."""
    torch.save(resnet18().state_dict(), checkout / 'resnet18.pth')
    for command in commands:
        if command.text.startswith('python '):
            text = command.text.replace(MADE, MADE + FEW).replace('--report', '--workers 0')
            assert not call(text.replace('CHECKPOINT', str(checkout / 'resnet18.pth')))
        else:
            subprocess.run(command.words, check=True)
    assert (checkout / 'study.png').stat().st_size > 10_000
    assert (
        checkout / 'data/held_out/val'
    ).resolve() == checkout / 'data/study_small/probe/held_out'
    assert '| random' in capsys.readouterr().out


def test_every_config_of_the_ablations_is_on_the_page():
    page = (REPO / 'docs/ablations.md').read_text()
    files = [*REPO.glob('configs/vito/ablations/*.py'), *REPO.glob('configs/baselines/*.py')]
    assert {file.name for file in files} == set(re.findall(r'^\| `(\w+\.py)`', page, re.M))
    family = (REPO / 'docs/pretrain.md').read_text()
    files = REPO.glob('configs/vito/*.py')
    assert {file.name for file in files} <= set(re.findall(r'`configs/vito/(\w+\.py)`', family))


# Get started


@pytest.mark.slow
@runs('docs/get_started.md', matching=r'(python tools/|mim )', count=4)
def test_the_first_steps_work_in_their_order(commands, checkout, tmp_path):
    """At two steps each, on a few videos and stills."""
    parts = make_miniscenes(tmp_path / 'data/miniscenes', 'tiny', workers=0, progress=False)
    (checkout / 'data').symlink_to(tmp_path / 'data')
    videos = tmp_path / 'videos'
    videos.mkdir()
    for number, video in enumerate(sorted(Path(parts['videos']).rglob('*.mp4'))):
        shutil.copy(video, videos / ('one.mp4' if number == 0 else f'{number}.mp4'))
    few = {
        'tools/train.py': (
            '--cfg-options train_cfg.max_iters=2 train_dataloader.batch_size=4 '
            'train_dataloader.num_workers=0 '
            'train_dataloader.persistent_workers=False default_hooks.checkpoint.interval=2'
        ),
        'mim train': 'train_cfg.max_iters=2 train_cfg.val_interval=2',
    }
    printed = []
    for command in commands:
        text = command.text.replace('/data/videos', str(videos)).replace('iter_1000', 'iter_2')
        for word, options in few.items():
            text += f' {options}' if word in text else ''
        done = subprocess.run(
            shlex.split(text), env=user_environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        printed.append(done.stdout + done.stderr)
    assert 'backbone keys' in printed[-1]
    assert 'mIoU' in printed[-1]
    assert (checkout / 'attention.png').is_file()


# Adapt


@pytest.fixture
def my_disk(tmp_path):
    """A folder that stands for /data and /ckpt: videos, labelled images, annotations, weights."""
    few = dict(num_videos=4, num_images=4, num_probe_images=32, workers=0, progress=False)
    parts = make_miniscenes(tmp_path / 'world', 'tiny', tasks=('videos', 'probe', 'coco'), **few)
    for name, part in (('videos', 'videos'), ('images', 'probe'), ('detection', 'coco')):
        (tmp_path / name).symlink_to(parts[part])
    torch.save(resnet18().state_dict(), tmp_path / 'resnet50.pth')
    return tmp_path


SMALL = (
    'model.backbone.depth=18 model.neck.in_channels=(256,512) model.projector.in_channels=768 '
    'model.projector.hid_channels=32'
)
SMALL_DETECTOR = (
    'model.backbone.depth=18 model.neck.in_channels=[64,128,256,512] '
    'model.test_cfg.rcnn.score_thr=0.0 '
    'train_cfg.max_epochs=1 train_dataloader.batch_size=2 '
    'train_dataloader.dataset.pipeline.2.scale=(128,96) '
) + ' '.join(
    f'{part}_dataloader.dataset.pipeline.1.scale=(128,96) {part}_dataloader.num_workers=0 '
    f'{part}_dataloader.persistent_workers=False'
    for part in ('val', 'test')
)
STEPS = (
    (
        r'python tools/train\.py',
        f'{SMALL} model.micro_batch_size=2 train_cfg.max_iters=2 train_dataloader.batch_size=4 '
        'train_dataloader.num_workers=0 train_dataloader.persistent_workers=False '
        'train_dataloader.dataset.pipeline.augment.pipelines.A1.crop.scale=32 '
        'train_dataloader.dataset.pipeline.augment.pipelines.A2.crop.scale=32',
    ),
    (r'python tools/check_checkpoint\.py configs', SMALL),
    (r'.* my_detector\.py', SMALL_DETECTOR),
)
"""Settings for a ResNet-18 and few steps, by the beginning of the command that gets them."""


@pytest.mark.slow
@runs('docs/adapt.md', matching=r'(python tools/|mim )', count=10)
def test_the_afternoon_of_adaptation(commands, my_disk, checkout):
    """In the page's order, each on what those before it made."""
    places = {'/data/': f'{my_disk}/', '/ckpt/': f'{my_disk}/'}
    places |= {'iter_7812': 'iter_2', 'epoch_12': 'epoch_1'}

    def in_place(text: str) -> str:
        for name, place in places.items():
            text = text.replace(name, place)
        return text

    (block,) = python_blocks('docs/adapt.md', 'mmdet::')
    (checkout / 'my_detector.py').write_text(in_place(block.text))
    printed = {}
    for command in commands:
        text = in_place(command.text)
        for pattern, options in STEPS:
            if re.match(pattern, text):
                text += f' {options}' if '--cfg-options' in text else f' --cfg-options {options}'
        done = subprocess.run(
            shlex.split(text), env=user_environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f'{text}\n{done.stderr[-3000:]}'
        printed[command.text] = done.stdout + done.stderr
    adapted, *_ = [text for command, text in printed.items() if 'adapt_r50.py --videos' in command]
    assert 'Iter(probe) [0/2]  knn_top1' in adapted
    assert f'loaded 120/120 backbone keys from {my_disk}/resnet50.pth' in adapted
    after, before = (text for command, text in printed.items() if command.startswith('mim'))
    assert 'loaded 120/120 backbone keys from work_dirs/adapted/iter_2.pth' in after
    assert f'loaded 120/120 backbone keys from {my_disk}/resnet50.pth' in before
    assert all('bbox_mAP' in text for text in (after, before))
