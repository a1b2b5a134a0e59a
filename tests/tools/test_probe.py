"""tools/probe.py and what the documentation tells about it, as users type it."""

import csv
import json
import os
import re
import shlex
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import REPO
from tests.helpers.image_folders import write_classes
from tests.helpers.processes import run_tool, shell
from tests.helpers.segmentation_world import write_world
from vito_mm.probes import knn, loading
from vito_mm.probes.loading import load_encoder, resnet
from vito_mm.probes.sources import find_source
from vito_mm.utils.file_lock import file_lock

PAGES = ('README.md', 'docs/frozen_probes.md')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp('images'), ['dark', 'grey', 'light'])


def write_noise(folder, side, images):
    """Images of noise, whose classes overlap: the score follows from all of the features."""
    rng = np.random.default_rng(0)
    for file in sorted(write_classes(folder, ['a', 'b', 'c'], images).rglob('*.png')):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(file)
    return folder


@pytest.fixture
def probe(monkeypatch, capsys, tmp_path):
    """Runs the script in this process; returns what it prints as results."""

    def run(*words):
        place = () if '--work-dir' in words else ('--work-dir', tmp_path / 'work')
        run_tool(monkeypatch, 'probe.py', *words, *place)
        return capsys.readouterr().out

    return run


def weights(seed, width=64):
    return load_encoder(None, network=resnet(18, width), seed=seed).backbone.state_dict()


def rows_of(table):
    """Cells of a Markdown table whose columns must be aligned."""
    lines = table.splitlines()
    assert len({len(line) for line in lines}) == 1, table
    assert len({tuple(m.start() for m in re.finditer(r'\|', line)) for line in lines}) == 1, table
    header, marks, *rows = ([c.strip() for c in line.strip('|').split('|')] for line in lines)
    assert all(set(mark) <= set('-:') for mark in marks)
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_one_table_and_one_file_for_several_checkpoints(folder, tmp_path):
    file = tmp_path / 'a.pth'
    torch.save({'state_dict': weights(5)}, file)
    run = shell(
        *(sys.executable, 'tools/probe.py', 'linear', 'random', file, '--data', folder),
        *('--depth', '18', '--image-size', '32', '--out', tmp_path / 'new/found.json'),
        *('--work-dir', tmp_path / 'work'),
    )
    assert run.returncode == 0, run.stderr[-3000:]
    rows = rows_of(run.stdout)
    assert [row['checkpoint'] for row in rows] == ['random', str(file)]
    assert list(rows[0]) == ['checkpoint', 'top-1', 'L2', 'seconds']
    found = json.loads((tmp_path / 'new/found.json').read_text())
    assert (found['probe'], found['settings']['size']) == ('linear', 32)
    for row, result in zip(rows, found['results'], strict=True):
        assert row['top-1'] == f'{result["top-1"]:.1f}'
        assert result['top-1'] > 60
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['found.json']


def test_the_same_weights_give_the_same_row(tmp_path, probe):
    for seed in (3, 4):
        torch.save(weights(seed), tmp_path / f'{seed}.pth')
    data = write_noise(tmp_path / 'noise', 32, images=20)
    options = ('--data', data, '--depth', 18, '--image-size', 32, '--seed', 3, '--workers', 0)
    words = ('knn', 'random', tmp_path / '3.pth', tmp_path / '4.pth', *options, '--k', 3)
    random, same, other = (row['top-1'] for row in rows_of(probe(*words)))
    assert random == same != other


def test_any_network_can_be_named(tmp_path, probe):
    import timm

    torch.manual_seed(0)
    vit = timm.create_model('vit_tiny_patch16_224', num_classes=2).eval()
    torch.save(vit.state_dict(), tmp_path / 'vit.pth')
    data = write_noise(tmp_path / 'noise', 224, images=6)
    options = ('--data', data, '--image-size', 224, '--batch-size', 4, '--workers', 0)
    name = ('--backbone', 'timm:vit_tiny_patch16_224')
    (row,) = rows_of(probe('knn', tmp_path / 'vit.pth', *options, *name, '--k', 1))

    def features(part):
        files = sorted((data / part).rglob('*.png'))
        pixels = torch.from_numpy(np.stack([np.array(Image.open(file)) for file in files]))
        with torch.no_grad():
            maps = vit.forward_features(pixels.permute(0, 3, 1, 2) / 127.5 - 1)
            found = vit.forward_head(maps, pre_logits=True)
        return torch.nn.functional.normalize(found), [file.parent.name for file in files]

    (train, names), (val, truth) = features('train'), features('val')
    found = [names[nearest] for nearest in (val @ train.T).argmax(dim=1)]
    right = 100 * np.mean([a == b for a, b in zip(found, truth, strict=True)])
    assert 0 < right < 100
    assert row['top-1'] == f'{right:.1f}'


def test_random_weights_are_those_of_the_files_network(folder, tmp_path, probe):
    thin = load_encoder(None, network=resnet(18, 16)).backbone.state_dict()
    torch.save(thin, tmp_path / 'thin.pth')
    options = ('--data', folder, '--size', 32, '--workers', 0, '--device', 'cpu')
    words = 'knn', 'random', tmp_path / 'thin.pth', *options
    rows = rows_of(probe(*words))
    assert len(rows) == 2
    # One of the two that a file tells need not be given with the other.
    same = rows_of(probe(*words, '--depth', 18))
    assert same[1]['top-1'] == rows[1]['top-1']


def test_segmentation_takes_depth_and_width_from_the_file(tmp_path, probe):
    """A network of other depth and width than the config's, and random weights of it."""
    config = write_world(tmp_path / 'world')
    resnet34 = load_encoder(None, network=resnet(34, 32), seed=1).backbone.state_dict()
    torch.save(resnet34, tmp_path / 'r34.pth')
    options = ('--config', config, '--steps', 1, '--batch-size', 2, '--workers', 0)
    folder = tmp_path / 'runs'
    probe('segment', 'random', tmp_path / 'r34.pth', *options, '--work-dir', folder)
    states = [torch.load(file)['state_dict'] for file in sorted(folder.glob('*/iter_1.pth'))]
    assert len(states) == 2
    shapes = [{key: value.shape for key, value in state.items()} for state in states]
    assert shapes[0] == shapes[1]
    assert shapes[0]['backbone.layer3.5.conv2.weight'] == (128, 128, 3, 3)
    kept = [
        torch.equal(state['backbone.conv1.weight'], resnet34['conv1.weight']) for state in states
    ]
    assert sorted(kept) == [False, True]
    size = ('--depth', 18, '--base-channels', 16)
    probe('segment', 'random', *options, *size, '--work-dir', tmp_path / 'flags')
    state = torch.load(tmp_path / 'flags' / 'random' / 'iter_1.pth')['state_dict']
    assert state['backbone.layer4.1.conv2.weight'].shape == (128, 128, 3, 3)
    # Another setting is trained anew, in place of the former.
    probe('segment', 'random', *options, *size, '--work-dir', tmp_path / 'flags', '--steps', 2)
    kept = json.loads((tmp_path / 'flags' / 'random.json').read_text())
    assert kept['identity']['train_cfg']['max_iters'] == 2
    assert (tmp_path / 'flags' / 'random' / 'last_checkpoint').read_text().endswith('iter_2.pth')


def test_segmentation_of_two_networks(tmp_path, probe):
    config = write_world(tmp_path / 'world')
    words = ('segment', 'random', 'random', '--config', config, '--steps', 12, '--lr', 0.02)
    words += ('--batch-size', 8, '--work-dir', tmp_path / 'runs', '--out', tmp_path / 'found.json')
    words += ('--cfg-options', 'val_dataloader.batch_size=2')
    out = probe(*words)
    rows = rows_of(out)
    assert list(rows[0]) == ['checkpoint', 'mIoU', 'aAcc', 'mAcc', 'seconds']
    assert rows[0]['mIoU'] == rows[1]['mIoU']
    names = sorted(path.name for path in (tmp_path / 'runs').iterdir())
    of_networks = [
        f'{name}{end}' for name in ('random', 'random-2') for end in ('', '.json', '.lock')
    ]
    assert names == sorted([*of_networks, 'segment.csv', 'segment.html', 'segment.md'])
    for name in ('random', 'random-2'):
        assert (tmp_path / 'runs' / name / 'iter_12.pth').is_file()
        assert (tmp_path / 'runs' / name / 'psp.py').is_file()
        assert len(list((tmp_path / 'runs' / name).glob('*/vis_data/scalars.json'))) == 1
    settings = json.loads((tmp_path / 'found.json').read_text())['settings']
    assert settings['cfg_options'] == {'val_dataloader.batch_size': 2}
    lines = list(csv.DictReader((tmp_path / 'runs/segment.csv').open()))
    assert [line['network'] for line in lines] == ['random', 'random-2']
    assert f'{float(lines[1]["mIoU"]):.1f}' == rows[1]['mIoU']
    # What is there is not made again, and what was interrupted is.
    weights = [tmp_path / 'runs' / name / 'iter_12.pth' for name in ('random', 'random-2')]
    written = [file.stat().st_mtime_ns for file in weights]
    assert probe(*words) == out
    assert [file.stat().st_mtime_ns for file in weights] == written
    (tmp_path / 'runs/random-2.json').unlink()
    assert [row['mIoU'] for row in rows_of(probe(*words))] == [row['mIoU'] for row in rows]
    again = [file.stat().st_mtime_ns for file in weights]
    assert [a == b for a, b in zip(again, written, strict=True)] == [True, False]


def kept_score(file):
    return json.loads(file.read_text())['parts']['result']['top-1']


def test_what_is_known_is_not_computed_again(folder, tmp_path, probe, monkeypatch):
    """It is if the network, the data or an option is another one, or where it was interrupted."""
    opened, votes = [], []
    load, vote = loading.load_encoder, knn.knn_top1

    def interrupted(*parts, k):
        votes.append(k)
        if len(votes) == 2:
            raise KeyboardInterrupt
        return vote(*parts, k=k)

    def counted(*args, **settings):
        opened.append(args[0])
        return load(*args, **settings)

    monkeypatch.setattr(knn, 'knn_top1', interrupted)
    monkeypatch.setattr(loading, 'load_encoder', counted)
    data = shutil.copytree(folder, tmp_path / 'data')
    torch.save(weights(3, 16), tmp_path / 'a.pth')
    file, options = tmp_path / 'a.pth', ('--size', 32, '--workers', 0, '--data', data)
    both = ('knn', file, 'random', *options, '--k', 3)
    with pytest.raises(KeyboardInterrupt):
        probe(*both)
    # The first is opened once, to be checked and probed; the other one for each.
    assert len(opened) == 3
    (record,) = (tmp_path / 'work').glob('*.json')
    record.write_text(record.read_text().replace(str(kept_score(record)), '12.5'))
    rows = rows_of(probe(*both))
    assert (rows[0]['top-1'], votes) == ('12.5', [3, 3, 3])
    lines = list(csv.DictReader((tmp_path / 'work/knn.csv').open()))
    assert [float(line['top-1']) for line in lines] == [
        12.5,
        kept_score(tmp_path / 'work/random.json'),
    ]
    assert '12.5' in (tmp_path / 'work/knn.html').read_text()
    opened.clear()
    assert rows_of(probe('knn', file, *options, '--k', 3)) == rows[:1]
    assert (len(opened), len(votes)) == (1, 3)

    (data / 'train/dark/0.png').rename(data / 'train/light/new.png')
    for count, words in enumerate((('--k', 3), ('--k', 2), ('--k', 2, '--size', 24)), 4):
        probe('knn', file, *options, *words)
        assert len(votes) == count, words
    torch.save(weights(4, 16), file)
    for _ in range(2):
        probe('knn', file, *options, *words)
        assert len(votes) == 7


def test_a_config_is_known_by_its_content(folder, tmp_path, probe):
    backbone = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
    text = f'model = dict(backbone={backbone})\n'
    text += 'data_preprocessor = dict(mean=[1, 2, 3], std=[50, 50, 50], to_rgb=True)\n'
    (tmp_path / 'run.py').write_text(text)
    options = ('--data', folder, '--size', 32, '--workers', 0, '--k', 3)

    def score(config):
        (row,) = rows_of(probe('knn', 'random', '--backbone', config, *options))
        return row['top-1']

    score(tmp_path / 'run.py')
    record = tmp_path / 'work/random.json'
    record.write_text(record.read_text().replace(str(kept_score(record)), '12.5'))
    (tmp_path / 'same.py').write_text(f'# moved\n{text}')
    assert score(tmp_path / 'same.py') == '12.5'
    (tmp_path / 'run.py').write_text(text.replace('50, 50, 50', '1, 1, 1'))
    find_source.cache_clear()  # as another process
    assert score(tmp_path / 'run.py') != '12.5'


def test_folders_of_checkpoints_are_all_different(monkeypatch):
    monkeypatch.syspath_prepend(str(REPO / 'tools'))
    from _probing import folder_names

    assert folder_names(['r/m-2.pth', 'r/m.pth', 'x/r/m.pth']) == ['r_m-2', 'r_m', 'r_m-3']
    assert folder_names(['random'] * 3) == ['random', 'random-2', 'random-3']


def test_two_commands_at_once_do_not_share_a_checkpoint(folder, tmp_path, probe):
    (tmp_path / 'work').mkdir()
    words = ('--data', folder, '--depth', 18, '--size', 32, '--workers', 0)
    with (
        file_lock(tmp_path / 'work/random-2.lock', RuntimeError),
        pytest.raises(SystemExit, match=rf'process {os.getpid()}\) probes random-2 .*--work-dir'),
    ):
        probe('linear', 'random', 'random', *words)
    assert not list((tmp_path / 'work').glob('*.json'))


def test_errors_are_one_line_and_come_before_any_probe(folder, tmp_path, probe):
    file = tmp_path / 'r18.pth'
    torch.save(weights(0), file)
    images = ('--data', folder, '--depth', 18, '--image-size', 32)
    for words, message in (
        (('knn', 'random', tmp_path / 'gone.pth', *images), r'gone\.pth'),
        (('linear', file, '--data', folder, '--depth', 50), 'has 50 layers: see --depth'),
        (('knn', file, '--data', folder, '--base-channels', 32), 'see --base-channels'),
        (('knn', file, '--data', folder, '--device', 'nowhere'), "device 'nowhere' cannot be"),
        (('knn', 'random', '--data', tmp_path / 'gone'), r'no folder .*gone/train'),
        (('segment', 'random', '--config', 'gone.py'), "no config file 'gone.py'"),
    ):
        with pytest.raises(SystemExit, match=message) as caught:
            probe(*words, '--out', tmp_path / 'found.json')
        assert str(caught.value).startswith(f'tools/probe.py {words[0]}: ')
    assert not (tmp_path / 'found.json').exists()


@pytest.mark.parametrize('option', [('--k', '0'), ('--workers', '-1'), ('--batch-size', 'x')])
def test_senseless_numbers_are_refused(folder, probe, option, capsys):
    with pytest.raises(SystemExit):
        probe('knn', 'random', '--data', folder, *option)
    assert option[0] in capsys.readouterr().err


def commands(page):
    """Indented lines that run the probe, without their comments."""
    text = (REPO / page).read_text()
    found = re.findall(r'^    python tools/probe\.py (.*)$', text, re.M)
    return [shlex.split(line, comments=True) for line in found]


NOT_THERE = {
    **dict.fromkeys(
        ['segment', 'linear-segmentation', 'incontext'], r'data set of .* is not there: data/'
    ),
    'davis': r'there is no /data/DAVIS/ImageSets',
    'ucf101': r'there is no folder of videos .*data/ucf101',
}
"""What the commands say of real data sets, which cannot be here."""


@pytest.mark.slow
@pytest.mark.parametrize('page', PAGES)
def test_documented_commands_run(page, folder, tmp_path, probe, monkeypatch):
    """Those of real data sets up to the data, which are not there."""
    monkeypatch.chdir(tmp_path)
    found = [words for words in commands(page) if words[0] in ('knn', 'linear', *NOT_THERE)]
    assert found
    for words in found:
        words = ['random' if 'CHECKPOINT' in w or w.endswith('.pth') else w for w in words]
        if words[0] in NOT_THERE:
            words = [str(REPO / w) if w.startswith('configs/') else w for w in words]
            with pytest.raises(SystemExit, match=NOT_THERE[words[0]]):
                probe(*words)
            continue
        words[words.index('--data') + 1] = str(folder)
        small = ('--workers', '0', '--depth', '18', '--image-size', '32')
        assert len(rows_of(probe(*words, *small))) == 2
