"""Heads that probe.py linear keeps, and probe.py robustness on them, as users type it."""

import csv
import json
import shutil
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.image_folders import write_classes
from tests.helpers.processes import run_tool
from tests.helpers.robustness_world import write_robustness
from vito_mm.probes.classification_head import load_head
from vito_mm.probes.features import exactly_normalised
from vito_mm.probes.loading import load_encoder, resnet
from vito_mm.probes.robustness import ALEXNET_ERRORS
from vito_mm.transfer.report.results import read_results

CLASSES = ('dark', 'grey', 'light')
OWN_ORDER = ('light', 'dark', 'grey')
SIZE = 32


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    """Images, their variants, and a network with a classifier that has another order."""
    root = tmp_path_factory.mktemp('robustness')
    images = write_classes(root / 'images', CLASSES, images=3)
    data = dict(val=images / 'val') | write_robustness(root, images / 'val')
    encoder = load_encoder(None, network=resnet(18, 16), device='cpu')
    # The nearest mean of a class is the largest of linear scores.
    files = [sorted((images / 'train' / name).iterdir()) for name in OWN_ORDER]
    means = [encoder(np.stack([*map(pixels_of, some)])).mean(dim=0) for some in files]
    fc = torch.stack(means)
    weights = encoder.backbone.state_dict()
    weights |= {'fc.weight': fc, 'fc.bias': -0.5 * fc.square().sum(dim=1)}
    torch.save(weights, root / 'net.pth')
    (root / 'classes.txt').write_text('\n'.join(OWN_ORDER))
    options = [word for name, folder in data.items() for word in (f'--{name}', folder)]
    return SimpleNamespace(root=root, images=images, data=data, options=options)


@pytest.fixture
def probe(monkeypatch, capsys, tmp_path, world):
    """Runs a probe on the network in this process; returns its table and what else it writes."""

    def run(name, *words, checkpoints=(world.root / 'net.pth',)):
        out = tmp_path / 'found.json'
        options = ('--workers', 0, '--device', 'cpu', '--out', out, '--work-dir', tmp_path / 'work')
        run_tool(monkeypatch, 'probe.py', name, *checkpoints, *options, *words)
        return json.loads(out.read_text())['results']

    return run


@pytest.fixture(scope='module')
def head(world):
    """Heads of the network and of random weights, kept by the linear probe, and its results."""
    out = world.root / 'linear.json'
    words = ('linear', world.root / 'net.pth', 'random', '--data', world.images, '--size', SIZE)
    options = ('--workers', 0, '--device', 'cpu', '--out', out, '--work-dir', world.root / 'work')
    with pytest.MonkeyPatch.context() as patch:
        run_tool(patch, 'probe.py', *words, '--save-head', world.root / 'heads', *options)
    (kept,) = (world.root / 'heads').glob('*_net.pth')
    names = {f'{name}.{end}' for name in (kept.stem, 'random') for end in ('json', 'lock')}
    names |= {'linear.csv', 'linear.html', 'linear.md'}
    assert {path.name for path in (world.root / 'work').iterdir()} == names
    return SimpleNamespace(file=kept, results=json.loads(out.read_text())['results'])


def pixels_of(file, resize=SIZE):
    """The middle of an image, resized on its shorter side, as the network gets it."""
    with Image.open(file) as image:
        image = image.convert('RGB')
    width = int(resize * image.width / image.height)
    image = image.resize((width, resize), Image.Resampling.BICUBIC)
    left, top = (round((side - SIZE) / 2) for side in image.size)
    return np.array(image.crop((left, top, left + SIZE, top + SIZE)))


def direct(score, classes, data, resize=SIZE):
    """All numbers by loops over images; ``score`` takes pixels (N, H, W, 3)."""

    @cache
    def scores(file):
        return dict(zip(classes, score(pixels_of(file, resize)[None])[0].tolist(), strict=True))

    def accuracy(folder, among):
        hits = []
        for name in among:
            for file in (folder / name).iterdir():
                found = scores(file)
                hits.append(max(among, key=found.get) == name)
        return 100 * np.mean(hits)

    def errors(folder):
        wrong = []
        for part in {path.parent for path in folder.rglob('dark')}:
            hits = [
                max(CLASSES, key=scores(file).get) == name
                for name in CLASSES
                for file in (part / name).iterdir()
            ]
            wrong.append(100 * (1 - np.mean(hits)))
        return np.mean(wrong)

    right = {
        name: [
            max(CLASSES, key=scores(data['vid-robust'] / 'val' / name / f'{n}.png').get) == name
            for n in range(5)
        ]
        for name in CLASSES
    }
    return {
        'top-1': accuracy(data['val'], CLASSES),
        'ImageNet-A': accuracy(data['imagenet-a'], CLASSES[1:]),
        'pm-0': 100 * np.mean([hits[2] for hits in right.values()]),
        'pm-10': 100 * np.mean([all(hits) for hits in right.values()]),
        'ImageNet-C error': errors(data['imagenet-c']),
        'ImageNet-3DCC error': errors(data['3dcc']),
    }


def compare(found, expected):
    found = {key: value for key, value in found.items() if key not in ('checkpoint', 'seconds')}
    assert found == {key: pytest.approx(value) for key, value in expected.items()}
    assert len({round(value) for value in expected.values()}) > 3


def test_a_kept_head_is_tested(world, head, probe, tmp_path):
    (found,) = probe('robustness', '--head', head.file.parent, *world.options)
    assert found['top-1'] == head.results[0]['top-1']
    content = torch.load(head.file, weights_only=True)
    assert content['classes'] == list(CLASSES)
    encoder = exactly_normalised(load_encoder(world.root / 'net.pth', device='cpu'))

    def score(pixels):
        features = (encoder(pixels).double() - content['mean']) / content['std']
        return features @ content['weights'][:, :-1].T + content['weights'][:, -1]

    compare(found, direct(score, CLASSES, world.data))
    work = tmp_path / 'work'
    page = (work / 'robustness.md').read_text()
    published = f'{100 * ALEXNET_ERRORS["gaussian_noise"]:.1f}'
    assert any('gaussian_noise' in line and published in line for line in page.splitlines())
    rows = list(csv.DictReader((work / 'robustness.csv').open()))
    noise = [100 - float(r['percent']) for r in rows if r['test'] == 'imagenet-c']
    assert np.mean(noise) == pytest.approx(found['ImageNet-C error'])
    # What is known is not computed again, and belongs to its data.
    (record,) = work.glob('*/val.json')
    record.write_text(record.read_text().replace(str(found['top-1']), '12.5'))
    (again,) = probe('robustness', '--head', head.file, '--val', world.data['val'])
    assert again['top-1'] == 12.5
    # Where they lie does not matter.
    moved = shutil.copytree(world.data['val'], tmp_path / 'moved')
    (again,) = probe('robustness', '--head', head.file, '--val', moved)
    assert again['top-1'] == 12.5
    Image.new('RGB', (50, 40)).save(moved / 'dark' / '0.png')
    with pytest.raises(SystemExit, match='another data'):
        probe('robustness', '--head', head.file, '--val', moved)


def test_a_known_head_is_fitted_again_where_its_file_is_not(world, probe, tmp_path):
    words = ('linear', '--data', world.images, '--size', SIZE, '--save-head', tmp_path / 'a.pth')
    (first,) = probe(*words)
    (record,) = (tmp_path / 'work').glob('*.json')
    fitted = torch.load(tmp_path / 'a.pth', weights_only=True)
    content = record.read_text()
    record.write_text(content.replace(str(first['top-1']), '12.5'))
    assert [row['top-1'] for row in probe(*words)] == [12.5]
    (tmp_path / 'a.pth').write_bytes(b'another one')
    assert [row['top-1'] for row in probe(*words)] == [first['top-1']]
    again = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert torch.equal(again['weights'], fitted['weights'])


def test_a_report_tells_heads_apart_by_how_they_were_fitted(world, head, probe, tmp_path):
    """Those of two networks that were fitted alike share a row."""
    tested = ('--val', world.data['val'], '--evaluation', tmp_path / 'report')
    both = (world.root / 'net.pth', 'random')
    probe('robustness', '--head', head.file.parent, *tested, checkpoints=both)
    other = replace(load_head(head.file), training=dict(seed=1))
    other.save(tmp_path / 'other.pth')
    words = ('--head', tmp_path / 'other.pth', '--work-dir', tmp_path / 'other')
    probe('robustness', *words, *tested)
    rows = {}
    for result in read_results(tmp_path / 'report'):
        rows.setdefault(result.row, []).append(bool(result.network.sha256))
    assert sorted(map(sorted, rows.values())) == [[False, True], [True]]


def test_the_own_classifier_is_tested_by_names(world, probe):
    options = ('--size', SIZE, *world.options)
    (found,) = probe('robustness', '--classes', world.root / 'classes.txt', *options)
    encoder = load_encoder(world.root / 'net.pth', classifier=True, device='cpu')
    # The network's view has a margin: 224 of 256 pixels, in proportion.
    expected = direct(encoder, OWN_ORDER, world.data, round(256 * SIZE / 224))
    compare(found, expected)
    with pytest.raises(SystemExit, match=r'3 classes, and 0 names .*--classes'):
        probe('robustness', *options)


@pytest.mark.slow
def test_images_are_corrupted_here(world, head, probe, tmp_path):
    corrupt = pytest.importorskip('corrupt_tta').corrupt
    few = write_classes(tmp_path / 'few', CLASSES, images=1) / 'val'
    (found,) = probe('robustness', '--head', head.file, '--corrupt', few)
    assert found.keys() >= {'corrupted error', 'corrupted mCE'}
    rows = csv.DictReader((tmp_path / 'work' / 'robustness.csv').open())
    accuracies = {row['part']: float(row['percent']) for row in rows}
    assert len(accuracies) == 75
    content = torch.load(head.file, weights_only=True)
    encoder = exactly_normalised(load_encoder(world.root / 'net.pth', device='cpu'))
    hits = []
    for number, name in enumerate(CLASSES):
        changed = np.uint8(corrupt(pixels_of(few / name / '0.png'), 5, 'contrast').clip(0, 255))
        features = (encoder(changed[None]).double() - content['mean']) / content['std']
        scores = features @ content['weights'][:, :-1].T + content['weights'][:, -1]
        hits.append(scores[0].argmax() == number)
    assert accuracies['contrast/5'] == pytest.approx(100 * np.mean(hits))


def test_everything_wrong_is_told_before_anything_runs(world, head, probe, tmp_path, capsys):
    (tmp_path / 'pink' / 'pink').mkdir(parents=True)
    Image.new('RGB', (40, 40)).save(tmp_path / 'pink' / 'pink' / '0.png')
    options = ('--head', head.file, '--val', tmp_path / 'pink', '--vid-robust', tmp_path / 'gone')
    with pytest.raises(SystemExit) as caught:
        probe('robustness', *options, '--imagenet-c', tmp_path / 'lost')
    for word in ('pink', 'pmsets.json', 'lost'):
        assert word in str(caught.value)
    other = load_encoder(None, network=resnet(18, 32), seed=1).backbone.state_dict()
    torch.save(other, tmp_path / 'wide.pth')
    data = ('--val', world.data['val'])
    for checkpoint, words, message in (
        (tmp_path / 'wide.pth', ('--head', head.file), 'width 128, and the network has 256'),
        (tmp_path / 'wide.pth', ('--head', head.file.parent), '0 heads of this network'),
        (tmp_path / 'wide.pth', (), 'no linear classifier'),
    ):
        with pytest.raises(SystemExit, match=message):
            probe('robustness', *words, *data, checkpoints=(checkpoint,))
    for name, words, message, checkpoints in (
        ('robustness', (), 'no classifier', ('random',)),
        ('robustness', ('--head', 'x', '--classes', 'y'), '--classes', ('random',)),
        ('robustness', ('--classes', 'gone.txt'), 'gone.txt', ('a.pth',)),
    ):
        with pytest.raises(SystemExit):
            probe(name, *words, *data, checkpoints=checkpoints)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        probe('robustness', '--head', head.file)
    assert '--imagenet-a' in capsys.readouterr().err
    words = ('--data', world.images, '--save-head', 'a.pth')
    with pytest.raises(SystemExit):
        probe('linear', *words, checkpoints=('random', 'random'))
    assert '--save-head' in capsys.readouterr().err
    assert not (tmp_path / 'found.json').exists()
