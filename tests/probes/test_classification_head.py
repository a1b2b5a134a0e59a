"""Heads of linear probes in files, and what probes keep on disk."""

from dataclasses import replace

import pytest
import torch

from tests.helpers.image_folders import write_classes
from tests.helpers.processes import forked
from vito_mm.checkpoint import Checkpoint
from vito_mm.probes import features as features_module
from vito_mm.probes.classification_head import (
    ClassificationHead,
    find_head,
    load_head,
    own_classes,
)
from vito_mm.probes.encoder import Encoder
from vito_mm.probes.features import labelled_features
from vito_mm.probes.image_folders import ProbeError
from vito_mm.probes.inputs import Preprocessing
from vito_mm.probes.linear_classifier import fit_linear_classifier, linear_accuracy

NETWORK = dict(checkpoint='a' * 64, random=False, which='online')


@pytest.fixture(scope='module')
def clouds():
    """Features and labels of seven classes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(7).repeat(30)
    centres = torch.randn(7, 5, generator=generator)
    return centres[labels] + torch.randn(210, 5, generator=generator), labels


@pytest.fixture
def head(clouds):
    classifier = fit_linear_classifier(*clouds, 7, 0.1)
    return ClassificationHead(classifier, tuple('abcdefg'), NETWORK, 32)


def test_a_head_comes_back_from_its_file(head, clouds, tmp_path):
    file = tmp_path / 'new' / 'head.pth'
    head.save(file)
    assert [path.name for path in file.parent.iterdir()] == ['head.pth']
    # The file alone gives the scores.
    content = torch.load(file, weights_only=True)
    inputs = (clouds[0] - content['mean']) / content['std']
    scores = inputs @ content['weights'][:, :-1].T + content['weights'][:, -1]
    assert content['classes'] == list('abcdefg')
    found = load_head(file)
    torch.testing.assert_close(found.logits(clouds[0]), scores)
    assert torch.equal(found.logits(clouds[0]), head.logits(clouds[0]))
    assert (found.classes, found.network, found.size) == (head.classes, NETWORK, 32)
    others = [replace(head, training=dict(seed=1)), replace(head, size=64)]
    others.append(replace(head, classes=head.classes[::-1]))
    alike = replace(head, network=NETWORK | dict(which='target'))
    assert found.training_digest == head.training_digest == alike.training_digest
    assert len({each.training_digest for each in (head, *others)}) == 4
    others[0].save(file)
    assert load_head(file).training == dict(seed=1)


def test_a_head_of_another_network_or_width_is_refused(head, tmp_path):
    file = tmp_path / 'a.pth'
    head.require(NETWORK, 5, file)
    with pytest.raises(ProbeError, match=r'width 5, and the network has 8'):
        head.require(NETWORK, 8, file)
    with pytest.raises(ProbeError, match='another checkpoint'):
        head.require(NETWORK | dict(checkpoint='b' * 64), 5, file)


def test_the_head_of_a_network_is_found_in_a_folder(head, tmp_path):
    other = ClassificationHead(head.classifier, head.classes, NETWORK | dict(which='target'), 32)
    head.save(tmp_path / 'a.pth')
    other.save(tmp_path / 'b.pth')
    assert find_head(tmp_path, NETWORK)[0] == tmp_path / 'a.pth'
    assert find_head(tmp_path / 'b.pth', NETWORK)[1].network['which'] == 'target'
    with pytest.raises(ProbeError, match='0 heads of this network'):
        find_head(tmp_path, NETWORK | dict(random=True))
    head.save(tmp_path / 'c.pth')
    with pytest.raises(ProbeError, match=r'2 heads .*a\.pth, c\.pth'):
        find_head(tmp_path, NETWORK)
    with pytest.raises(ProbeError, match='gone'):
        find_head(tmp_path / 'gone', NETWORK)


def test_other_files_are_no_heads(tmp_path):
    torch.save({'state_dict': {}}, tmp_path / 'checkpoint.pth')
    with pytest.raises(ProbeError, match='no head'):
        load_head(tmp_path / 'checkpoint.pth')
    (tmp_path / 'text.pth').write_text('text')
    with pytest.raises(ProbeError, match='cannot be read'):
        load_head(tmp_path / 'text.pth')


def test_names_of_the_own_classes(tmp_path):
    file = Checkpoint('a.pth', {})
    names = own_classes(file, 1000)
    # Class 0 of ImageNet is the tench and 999 toilet paper; folders sort alike.
    assert (names[0], names[999], sorted(names)) == ('n01440764', 'n15075141', list(names))
    assert own_classes(file, 2, ('x', 'y')) == ('x', 'y')
    stored = Checkpoint('b.pth', {'meta': {'dataset_meta': {'classes': ['u', 'v', 'w']}}})
    assert own_classes(stored, 3) == ('u', 'v', 'w')
    for checkpoint, count, named in ((file, 3, ()), (file, 3, ('x', 'y')), (file, 2, ('x', 'x'))):
        with pytest.raises(ProbeError, match='--classes'):
            own_classes(checkpoint, count, named)


def test_some_rows_are_as_good_as_a_tensor_of_them(clouds):
    features, labels = clouds
    rows = torch.arange(210)[torch.arange(210) % 3 > 0]
    found = fit_linear_classifier(features, labels, 7, 0.01, rows=rows)
    expected = fit_linear_classifier(features[rows], labels[rows], 7, 0.01)
    assert torch.equal(found.weights, expected.weights)
    assert torch.equal(found.logits(features, rows), expected.logits(features[rows]))


def test_fits_go_on_where_they_ended(clouds, tmp_path, monkeypatch):
    features, labels = clouds
    parts = (features[::2], labels[::2], features[1::2], labels[1::2])
    options = dict(strengths=(1.0, 0.1, 0.01))
    expected = linear_accuracy(*parts, **options)
    assert linear_accuracy(*parts, folder=tmp_path, **options) == expected
    assert len(list(tmp_path.iterdir())) == 3
    (tmp_path / 'L2-0.1.pth').unlink()
    (tmp_path / 'L2-0.01.pth').unlink()
    fitted = []
    fit = fit_linear_classifier

    def counted(*args, **options):
        fitted.append(args[3])
        return fit(*args, **options)

    monkeypatch.setattr('vito_mm.probes.linear_classifier.fit_linear_classifier', counted)
    assert linear_accuracy(*parts, folder=tmp_path, **options) == expected
    assert fitted == [0.1, 0.01, expected.strength]


@pytest.fixture
def encoder():
    """Colours, averaged, after seeing images one by one."""
    network = torch.nn.Conv2d(3, 3, 1, bias=False)
    torch.nn.init.dirac_(network.weight)
    return Encoder(network, Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))


def test_features_in_files_go_on_where_they_ended(encoder, tmp_path, monkeypatch):
    folder = write_classes(tmp_path / 'images', ('dark', 'light'))
    expected = labelled_features(encoder, folder, 32, batch_size=2)
    store = tmp_path / 'store'
    store.mkdir()
    monkeypatch.setattr(features_module, '_SYNC_EVERY', 2)
    broken = folder / 'train/light/3.png'
    content = broken.read_bytes()
    broken.write_bytes(b'no image')
    with pytest.raises(ProbeError, match=r'light/3\.png'):
        labelled_features(encoder, folder, 32, batch_size=2, folder=store)
    broken.write_bytes(content)
    seen = []
    encoder.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    found = labelled_features(encoder, folder, 32, batch_size=2, folder=store)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    # The nine images before the broken one were kept.
    assert sum(seen) == (12 - 9) + 12
    seen.clear()
    again = labelled_features(encoder, folder, 32, batch_size=2, folder=store)
    assert seen == []
    assert torch.equal(again[0], expected[0])


MEMORY = """
import resource, sys
from functools import partial
from pathlib import Path
import torch
from vito_mm.probes import features, linear_classifier

linear_classifier._ROWS = 64
fit = partial(linear_classifier.fit_linear_classifier, max_iter=1)
linear_classifier.fit_linear_classifier = fit
mapped = features._mapped(Path(sys.argv[1]), 4096, 2048)
labels = torch.arange(4096) % 2
for start in range(0, 4096, 512):
    mapped[start : start + 512] = torch.randn(512, 2048)
    mapped[start : start + 512, 0] += 3 * labels[start : start + 512]
fit(mapped[:8], labels[:8], 2, 1.0)  # imports
used = int(Path('/proc/self/status').read_text().split('VmData:')[1].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, (1024 * used + int(sys.argv[2]), -1))
parts = mapped, labels, mapped[:512], labels[:512]
print(linear_classifier.linear_accuracy(*parts, (1.0, 0.1)).top1 > 80)
try:
    mapped.clone()
except RuntimeError as error:
    print("can't allocate memory" in str(error))
"""


def test_features_in_files_need_no_memory(tmp_path):
    """32 MiB of features, and room for 16 MiB: a copy of them does not fit."""
    (tmp_path / 'fit.py').write_text(MEMORY)
    words = (tmp_path / 'fit.py', tmp_path / 'features.bin', 16 * 2**20)
    (run,) = forked(tmp_path, words)
    assert run.stdout.splitlines()[-2:] == ['True', 'True'], run.stderr[-2000:]
