"""Embeddings of videos and images, against networks in double precision on plainly read frames."""

import copy
import pickle
import shutil
from functools import partial

import cv2
import numpy as np
import pytest
import torch
import torchvision
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch import nn

from tests.helpers.colours import read_frames, write_noise
from tests.helpers.scenes import run_on
from tests.models.test_vito import config as vito_config
from vito_mm.curation.embedding import Embed
from vito_mm.curation.stage import StageError

SIZE = 56
"""Side of the squares in these tests, so that frames have a short side of 64."""

MEAN, STD = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def resnet18(seed):
    """A network without classifier whose batch norms do something."""
    torch.manual_seed(seed)
    network = torchvision.models.resnet18()
    network.fc = nn.Identity()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith('running_var'):
                value.uniform_(0.5, 1.5)
            elif name.endswith('running_mean'):
                value.normal_(0, 0.1)
    return network.eval()


def write_pretraining(file, online, target):
    """A checkpoint as VITO's training writes it."""
    weights = {f'backbone.{key}': value for key, value in online.state_dict().items()}
    weights |= {f'target_net.module.0.{k}': value for k, value in target.state_dict().items()}
    weights['projector.fc0.weight'] = torch.zeros(3, 3)
    torch.save(dict(state_dict=weights, meta=dict(iter=5)), file)
    return str(file)


@pytest.fixture(scope='module')
def networks():
    return dict(online=resnet18(0), target=resnet18(1))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory, networks):
    return write_pretraining(tmp_path_factory.mktemp('checkpoint') / 'vito.pth', **networks)


def normalised(images, mean=MEAN, std=STD):
    """The square in the middle of images whose short side is 64, as double precision."""
    top, left = ((side - SIZE) // 2 for side in images.shape[1:3])
    square = images[:, top : top + SIZE, left : left + SIZE] / 255
    return torch.from_numpy((square - mean) / std).permute(0, 3, 1, 2)


def features_of(network, images):
    network = copy.deepcopy(network).double()
    network.eval()  # not chained: that of OpenMMLab's backbones returns None
    with torch.inference_mode():
        features = network(images)
    features = features[-1] if isinstance(features, (tuple, list)) else features
    features = features.mean((2, 3)) if features.ndim == 4 else features
    return nn.functional.normalize(features, dim=1).numpy()


def unit(vector):
    return vector / np.sqrt((vector**2).sum())


def embed(stage, path):
    row = dict(path=str(path))
    return np.array(stage.finish(row, stage.prepare(row))['embedding'])


@pytest.mark.parametrize('which', ['online', 'target'])
def test_a_checkpoint_of_vito_embeds_frames_from_all_over_a_video(
    tmp_path, networks, checkpoint, which
):
    path = write_noise(tmp_path / 'a.mp4', (64, 90), 40, seed=0)
    # Of 1.6 s at 25 frames a second: in the middle of eight parts of 0.2 s.
    frames = read_frames(path)[2::5]
    expected = unit(features_of(networks[which], normalised(frames)).mean(0))
    (row,) = run_on(Embed(checkpoint, which=which, size=SIZE), [dict(path=str(path))], tmp_path)
    found = np.array(row['embedding'])
    assert found.shape == (512,)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_array_equal(found, found.round(5))


@pytest.mark.parametrize('backbone', ['torchvision:resnet18', 'timm:resnet18.a1_in1k'])
def test_libraries_embed_with_what_their_classifier_sees(tmp_path, networks, backbone):
    weights = networks['online'].state_dict()
    weights['fc.weight'], weights['fc.bias'] = torch.zeros(7, 512), torch.zeros(7)
    torch.save(weights, tmp_path / 'resnet.pth')
    path = write_noise(tmp_path / 'a.mp4', (64, 64), 3, seed=1)
    expected = unit(features_of(networks['online'], normalised(read_frames(path)[1:2])).mean(0))
    found = embed(Embed(backbone, str(tmp_path / 'resnet.pth'), frames=1, size=SIZE), path)
    np.testing.assert_allclose(found, expected, atol=2e-5)


BACKBONES = [
    dict(
        type='ResNet',
        depth=18,
        stem_channels=16,
        base_channels=16,
        out_indices=(2, 3),
        norm_cfg=dict(type='SyncBN'),
    ),
    dict(type='MobileNetV3', arch='small_075', out_indices=(12,)),
]


@pytest.mark.parametrize('backbone', BACKBONES, ids=lambda backbone: backbone['type'])
def test_a_config_gives_the_backbone_and_what_is_done_to_pixels(tmp_path, backbone):
    mean, std = [10.0, 20.0, 30.0], [60.0, 50.0, 40.0]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        plain = backbone | (dict(norm_cfg=dict(type='BN')) if 'norm_cfg' in backbone else {})
        network = MODELS.build(copy.deepcopy(plain))
    network.init_weights()
    weights = {f'backbone.{key}': value for key, value in network.state_dict().items()}
    torch.save(dict(state_dict=weights), tmp_path / 'a.pth')
    preprocessor = dict(type='SelfSupDataPreprocessor', mean=mean, std=std, to_rgb=False)
    model = vito_config(backbone=backbone, data_preprocessor=preprocessor)
    (tmp_path / 'a.py').write_text(f'model = {model!r}')
    path = write_noise(tmp_path / 'a.mp4', (64, 64), 3, seed=2)
    # Channels in reverse, as OpenMMLab reads images.
    images = normalised(
        read_frames(path)[1:2, :, :, ::-1], *(np.array(v) / 255 for v in (mean, std))
    )
    expected = unit(features_of(network, images).mean(0))
    stage = Embed(str(tmp_path / 'a.py'), str(tmp_path / 'a.pth'), frames=1, size=SIZE)
    stage.check_settings()
    np.testing.assert_allclose(embed(stage, path), expected, atol=2e-5)


def test_a_folder_of_images_is_embedded_as_frames_are(tmp_path, networks, checkpoint):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 64, 80, 3), dtype=np.uint8)
    (tmp_path / 'images/more').mkdir(parents=True)
    names = ('a.png', 'b.PNG', 'c.webp', 'more/d.png', 'z.png')
    for name, image in zip(names, images, strict=True):
        lossless = [cv2.IMWRITE_WEBP_QUALITY, 101] if name.endswith('webp') else []
        cv2.imwrite(str(tmp_path / 'images' / name), image[:, :, ::-1], lossless)
    (tmp_path / 'images/notes.txt').write_text('no image')
    expected = features_of(networks['online'], normalised(images))
    embed, folder = partial(Embed, checkpoint, size=SIZE), tmp_path / 'images'
    for found in (embed().embed_images(folder), embed(batch_size=2).embed_images(folder, 3)):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-5)
    (tmp_path / 'images/more/e.jpg').write_bytes(b'broken')
    with pytest.raises(StageError, match=r'more/e\.jpg cannot be read .*repair or remove it'):
        embed().embed_images(folder)
    with pytest.raises(StageError, match='there is no image'):
        embed().embed_images(tmp_path / 'none')


def test_the_stage_is_known_by_the_content_of_its_files(tmp_path, networks, checkpoint):
    identity = Embed(checkpoint, size=SIZE).identity()
    copied = shutil.copy(checkpoint, tmp_path / 'other.pth')
    assert Embed(str(copied), size=SIZE, batch_size=1, device='cpu').identity() == identity
    swapped = write_pretraining(tmp_path / 'swap.pth', networks['target'], networks['online'])
    others = [Embed(swapped, size=SIZE), Embed(checkpoint), Embed(checkpoint, frames=2, size=SIZE)]
    others.append(Embed(checkpoint, which='target', size=SIZE))
    assert all(other.identity() != identity for other in others)
    assert len(pickle.dumps(others[0])) < 1000


def test_what_cannot_work_is_told_before_any_video(tmp_path, checkpoint):
    def told(kind, message, *args, **kwargs):
        with pytest.raises(kind, match=message):
            Embed(*args, **kwargs).check_settings()

    told(ValueError, 'a checkpoint itself', checkpoint, checkpoint)
    told(StageError, r'gone\.pth cannot be read', str(tmp_path / 'gone.pth'))
    told(StageError, 'nothing is downloaded', 'torchvision:resnet18')
    told(StageError, '1 missing|missing: conv1', 'torchvision:resnet18', checkpoint)
    told(ValueError, "nothing' is no network", '')
    torch.save(dict(state_dict={'a.weight': torch.zeros(2)}), tmp_path / 'other.pth')
    told(StageError, 'no key of a ResNet', str(tmp_path / 'other.pth'))
