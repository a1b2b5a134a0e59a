"""Encoders of files in the public layouts: attention, classifier and input against the port."""

import json

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from tests.conftest import write_video
from tests.helpers.image_folders import write_classes
from tests.helpers.processes import run_tool
from tests.helpers.public_port import Port, write_moclr, write_port
from vito_mm.checkpoint import CheckpointError, export_backbone
from vito_mm.probes.features import classifier_accuracy
from vito_mm.probes.image_folders import ProbeError
from vito_mm.probes.loading import load_encoder, resnet
from vito_mm.videos.frames import View

MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
FRAMES = np.random.default_rng(0).integers(0, 256, (3, 96, 130, 3), dtype=np.uint8)
NAMES = tuple('abcdefg')


def normalised(frames):
    return torch.from_numpy(((frames - MEAN) / STD).transpose(0, 3, 1, 2)).float()


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope='module')
def port(tmp_path_factory):
    file = tmp_path_factory.mktemp('port') / 'vito.pth'
    return write_port(file), file


@pytest.fixture
def moclr(tmp_path, monkeypatch):
    return write_moclr(tmp_path / 'moclr.pth', monkeypatch), tmp_path / 'moclr.pth'


@torch.no_grad()
def test_features_and_masks_of_the_public_file(port):
    model, file = port
    encoder = load_encoder(file, needs_attention=True)
    maps = model.stages(normalised(FRAMES))
    for name, wanted in zip(('res2', 'res3', 'res4', 'res5'), maps, strict=True):
        close(encoder(FRAMES, name), wanted)
    masks = encoder.masks(FRAMES)
    assert list(masks) == ['stage 5']
    wanted = model.avgpool.mask(maps[-1])
    assert wanted.max() > 3 * wanted.mean()
    close(torch.from_numpy(masks['stage 5']), wanted)
    close(encoder(FRAMES, 'neck'), model.avgpool(maps[-1]))
    close(encoder(FRAMES), maps[-1].mean((2, 3)))


@torch.no_grad()
def test_classifiers_are_kept(port, moclr, tmp_path):
    """On the attention-pooled vector, on the mean, and in torchvision's own layout."""
    for model, file in (port, moclr):
        close(load_encoder(file, classifier=True)(FRAMES), model(normalised(FRAMES)))
    assert load_encoder(moclr[1]).neck is None
    torch.manual_seed(0)
    plain = torchvision.models.resnet18(num_classes=5).eval()
    torch.save({'model': plain.state_dict()}, tmp_path / 'plain.pth')
    encoder = load_encoder(tmp_path / 'plain.pth', classifier=True)
    close(encoder(FRAMES), plain(normalised(FRAMES)))
    assert encoder.view == View(256, 224)


CLASSIFIER = """
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet', depth=50, base_channels=4, stem_channels=4,
        conv_cfg=dict(type='Conv2dAdaptivePadding'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', in_channels=128, num_classes=7),
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
    ),
)
"""


@torch.no_grad()
def test_a_fine_tuned_classifier_of_mmpretrain(tmp_path):
    model = Port(attention=False)
    weights = {
        f'head.{key}' if key.startswith('fc') else f'backbone.{key}': value
        for key, value in model.state_dict().items()
    }
    torch.save(dict(state_dict=weights, meta=dict(cfg=CLASSIFIER)), tmp_path / 'iter_7.pth')
    wanted = model(normalised(FRAMES))
    close(load_encoder(tmp_path / 'iter_7.pth', classifier=True)(FRAMES), wanted)
    pipeline = [dict(type='Resize', scale=96)]
    (tmp_path / 'right.py').write_text(f'{CLASSIFIER}\ntest_pipeline = {pipeline}')
    named = load_encoder(tmp_path / 'iter_7.pth', 'online', str(tmp_path / 'right.py'))
    close(named(FRAMES), model.stages(normalised(FRAMES))[-1].mean((2, 3)))
    options = dict(network=str(tmp_path / 'plain.py'), classifier=True)
    (tmp_path / 'plain.py').write_text(CLASSIFIER.replace('Conv2dAdaptivePadding', 'Conv2d'))
    with pytest.raises(CheckpointError, match='Conv2dAdaptivePadding'):
        load_encoder(tmp_path / 'iter_7.pth', **options)
    (tmp_path / 'bgr.py').write_text(CLASSIFIER.replace('to_rgb=True', 'to_rgb=False'))
    with pytest.raises(CheckpointError, match='channels arrive as BGR'):
        load_encoder(tmp_path / 'iter_7.pth', network=str(tmp_path / 'bgr.py'))


def test_another_network_than_that_of_the_file_is_refused(port):
    with pytest.raises(CheckpointError, match='Conv2dAdaptivePadding'):
        load_encoder(port[1], network=resnet(50, 4))


def test_images_are_resized_without_a_crop(port):
    encoder = load_encoder(port[1])
    assert encoder.view == View(224, 224, squash=True)
    resized = Image.fromarray(FRAMES[0]).resize((224, 224), Image.Resampling.BICUBIC)
    close(encoder([FRAMES[0]]), encoder(np.asarray(resized)[None]))


def test_a_file_without_classifier_says_so(port, tmp_path):
    export_backbone(port[1], tmp_path / 'exported.pth')
    with pytest.raises(CheckpointError, match=r'no linear classifier .*fc\.weight'):
        load_encoder(tmp_path / 'exported.pth', classifier=True)
    weights = torch.load(port[1])
    weights['fc.weight'][0, 0] = torch.nan
    torch.save(weights, tmp_path / 'diverged.pth')
    with pytest.raises(CheckpointError, match='not finite'):
        load_encoder(tmp_path / 'diverged.pth', classifier=True)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Images of 40 x 50 pixels in seven classes."""
    return write_classes(tmp_path_factory.mktemp('images'), NAMES, images=3)


@torch.no_grad()
def accuracies(model, folder, size):
    logits, labels = [], []
    for label, name in enumerate(NAMES):
        for file in sorted((folder / 'val' / name).iterdir()):
            image = Image.open(file).resize((size, size), Image.Resampling.BICUBIC)
            logits.append(model(normalised(np.asarray(image)[None]))[0])
            labels.append(label)
    ranks = torch.stack(logits).argsort(1, descending=True)
    hits = ranks == torch.tensor(labels)[:, None]
    return [100 * hits[:, :count].any(1).double().mean().item() for count in (1, 5)]


def test_accuracy_of_the_files_classifier(port, folder, tmp_path, monkeypatch, capsys):
    model, file = port
    wanted = accuracies(model, folder, 96)
    assert 0 < wanted[0] < wanted[1]
    found = classifier_accuracy(load_encoder(file, classifier=True), folder, 96)
    assert found == pytest.approx(wanted)
    out = tmp_path / 'found.json'
    words = ('classify', file, '--data', folder, '--image-size', 96, '--workers', 0, '--out', out)
    words += ('--work-dir', tmp_path / 'work')
    run_tool(monkeypatch, 'probe.py', *words)
    header, _, row = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in header.split('|')[2:4]] == ['top-1', 'top-5']
    assert [cell.strip() for cell in row.split('|')[2:4]] == [f'{x:.1f}' for x in wanted]
    (result,) = json.loads(out.read_text())['results']
    assert [result['top-1'], result['top-5']] == pytest.approx(wanted)


def test_what_cannot_be_classified(port, tmp_path, monkeypatch, capsys):
    folder = write_classes(tmp_path / 'images', ('a', 'b'), images=1)
    with pytest.raises(ProbeError, match=r'7 classes .* has 2 sub-folders'):
        classifier_accuracy(load_encoder(port[1], classifier=True), folder, 64)
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, 'probe.py', 'classify', 'random', '--data', folder)
    assert 'no classifier' in capsys.readouterr().err


def test_the_attention_is_drawn(port, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'strip.png'
    video = write_video(tmp_path / 'a.mp4', texture=1)
    words = (port[1], video, '--out', out, '--size', 64, '--frames', 2)
    run_tool(monkeypatch, 'show_attention.py', *words)
    assert 'frames: 2' in capsys.readouterr().out
    assert out.is_file()
