"""What an encoder takes: images in all forms, videos, and files or configs to be opened."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from torchvision.transforms import v2

import vito_mm
from tests.conftest import write_video
from tests.helpers.frame_videos import SIZE, centre, write_frames
from tests.helpers.tiny_vito import R18, save, tiny_vito
from vito_mm.checkpoint import CheckpointError, export_backbone
from vito_mm.videos import VideoReadError
from vito_mm.videos.frames import View

RNG = np.random.default_rng(0)
WIDE, TALL = (RNG.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((70, 90), (131, 80)))
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


def normalised(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(((images - MEAN) / STD).transpose(0, 3, 1, 2)).float()


@pytest.fixture
def vito(tmp_path):
    """A checkpoint of pre-training, and its model."""
    model, text = tiny_vito()
    model.eval()
    return save(tmp_path / 'iter_7.pth', model, text), model


def opened(kind: str, tmp_path):
    """An encoder of 64 px, and the function from images to features by the network itself."""
    if kind == 'resnet':
        model, text = tiny_vito()
        model.backbone.eval()
        file, network = save(tmp_path / 'a.pth', model, text), None
        mean, std = MEAN, STD
        by_hand = lambda x: model.backbone(x)[-1].mean((2, 3))  # noqa: E731
    else:
        import timm

        model = timm.create_model('vit_tiny_patch16_224', num_classes=3, dynamic_img_size=True)
        file, network = tmp_path / 'a.pth', 'timm:vit_tiny_patch16_224'
        torch.save(model.eval().state_dict(), file)
        mean = std = np.array([127.5] * 3)
        by_hand = lambda x: model.forward_head(model.forward_features(x), pre_logits=True)  # noqa: E731

    def direct(images: list[Image.Image]) -> torch.Tensor:
        steps = [v2.Resize(72, v2.InterpolationMode.BICUBIC), v2.CenterCrop(64)]
        cut = np.stack([np.asarray(v2.Compose(steps)(image)) for image in images])
        with torch.no_grad():
            return by_hand(torch.from_numpy((cut - mean) / std).permute(0, 3, 1, 2).float())

    return vito_mm.load_encoder(file, network=network, view=View(72, 64)), direct


@pytest.mark.parametrize('kind', ['resnet', 'vit'])
def test_images_in_all_forms_have_the_features_of_the_network(kind, tmp_path):
    encoder, direct = opened(kind, tmp_path)
    pillow = [Image.fromarray(image) for image in (WIDE, TALL)]
    paths = [tmp_path / 'wide.png', str(tmp_path / 'tall.png')]
    for path, image in zip(paths, pillow, strict=True):
        image.save(path)
    tensors = [torch.from_numpy(WIDE), torch.from_numpy(TALL).permute(2, 0, 1)]
    expected = direct(pillow)
    for images in ([WIDE, TALL], pillow, tuple(paths), tensors, [paths[0], pillow[1]]):
        torch.testing.assert_close(encoder(images), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(encoder(images, batch_size=1), expected, rtol=1e-4, atol=1e-4)
    for image in (WIDE, pillow[0], paths[0], tensors[0]):  # one alone
        torch.testing.assert_close(encoder(image), expected[:1], rtol=1e-4, atol=1e-4)

    batch = RNG.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    Image.fromarray(batch[1]).save(tmp_path / 'square.png')
    encoder = vito_mm.load_encoder(
        tmp_path / 'a.pth',
        network=None if kind == 'resnet' else 'timm:vit_tiny_patch16_224',
        view=View(64, 64),
    )
    found = encoder(batch)
    for images in (torch.from_numpy(batch), torch.from_numpy(batch).permute(0, 3, 1, 2)):
        assert torch.equal(encoder(images), found)
    torch.testing.assert_close(encoder(tmp_path / 'square.png'), found[1:2], rtol=1e-4, atol=1e-4)


def test_pillow_images_of_other_modes_are_rgb(vito):
    encoder = vito_mm.load_encoder(vito[0], view=View(64, 64))
    grey = Image.fromarray(WIDE[..., 0])
    rgb = np.repeat(WIDE[..., :1], 3, 2)
    torch.testing.assert_close(encoder(grey), encoder([rgb]))


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        (np.zeros((2, 64, 64, 3)), 'float64.* give uint8'),
        (torch.zeros(2, 3, 64, 64), 'float32.* give uint8'),
        ([np.zeros((64, 64, 3), np.float32)], 'float32.* give uint8'),
        (np.zeros((2, 64, 64, 4), np.uint8), r'shape \(2, 64, 64, 4\)'),
        ([np.zeros((64, 64), np.uint8)], r'shape \(64, 64\)'),
        ([np.zeros((1, 64, 64, 3), np.uint8)], r'shape \(1, 64, 64, 3\)'),
        ([], 'no images'),
    ],
)
def test_what_is_no_image_is_named(images, message, vito):
    encoder = vito_mm.load_encoder(vito[0])
    for compute in (encoder, encoder.masks):
        with pytest.raises(ValueError, match=message):
            compute(images)


def test_a_file_that_is_no_image_is_named(vito, tmp_path):
    (tmp_path / 'page.jpg').write_text('<html>404</html>')
    with pytest.raises(VideoReadError, match=r'page\.jpg'):
        vito_mm.load_encoder(vito[0])([tmp_path / 'page.jpg'])


def test_frames_of_a_video_have_the_features_and_masks_of_the_model(vito, tmp_path):
    """A video of lossless frames, five a second."""
    file, model = vito
    write_frames(tmp_path / 'video', 16, seed=0)
    files = sorted((tmp_path / 'video').iterdir())
    squares = np.stack([centre(path)[..., ::-1] for path in files])
    encoder = vito_mm.load_encoder(file, view=View(SIZE, SIZE))
    row = dict(path=str(tmp_path / 'video'), fps=5)
    with torch.no_grad():
        maps = model.backbone(normalised(squares))
        masks = [mask.numpy() for mask in model.neck.masks(maps)]
        pooled = model.neck(maps)
    pooled = pooled[0] if isinstance(pooled, tuple) else pooled

    for found, expected in (
        (encoder.video(row), [0, 5, 10, 15]),
        (encoder.video(row, 0.4, batch_size=3), [0, 2, 4, 6, 8, 10, 12, 14]),
        (encoder.video(row, [2.9, 0.1]), [14, 0]),
        (encoder.video(row, count=4), [2, 6, 10, 14]),
        (encoder.video(row | dict(start=1.0, end=2.0), 0.5), [5, 7]),
    ):
        np.testing.assert_allclose(found.times, np.array(expected) / 5)
        wanted = maps[-1].mean((2, 3))[expected]
        torch.testing.assert_close(found.features, wanted, rtol=1e-4, atol=1e-5)
        assert list(found.masks) == ['stage 4', 'stage 5']
        for mask, truth in zip(found.masks.values(), masks, strict=True):
            np.testing.assert_allclose(mask, truth[expected], rtol=1e-3, atol=1e-6)
            np.testing.assert_allclose(mask.sum((1, 2)), 1, atol=1e-5)
    necked = encoder.video(row, layer='neck').features
    torch.testing.assert_close(necked, pooled[[0, 5, 10, 15]], rtol=1e-4, atol=1e-5)


def test_videos_in_files(vito, tmp_path):
    export_backbone(vito[0], tmp_path / 'exported.pth')
    encoder = vito_mm.load_encoder(tmp_path / 'exported.pth', view=View(64, 64))
    path = write_video(tmp_path / 'a.mp4', num_frames=50)  # two seconds
    found = encoder.video(path, np.float32(0.5))
    np.testing.assert_allclose(found.times, [0, 0.48, 1, 1.48], atol=1e-3)  # 25 frames a second
    assert found.features.shape == (4, 128)
    assert found.masks == encoder.masks([WIDE]) == {}
    for times in ([0.5, 2.5], [-1]):
        with pytest.raises(VideoReadError, match=r'a\.mp4.* not at (2\.5|-1) s'):
            encoder.video(path, times)
    with pytest.raises(ValueError, match='more than 0'):
        encoder.video(path, 0)
    with pytest.raises(ValueError, match='give 1 or more'):
        encoder.video(path, count=0)
    with pytest.raises(VideoReadError, match=r'gone\.mp4'):
        encoder.video(tmp_path / 'gone.mp4')


CONFIGS = dict(
    mmseg="""
default_scope = 'mmseg'
custom_imports = dict(imports=['vito_mm'])
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean={mean}, std={std}, bgr_to_rgb=True),
    backbone=dict(
        type='VITOResNet', depth=18, stem_channels=16, base_channels=16, checkpoint={file!r},
        strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), which='target',
    ),
    decode_head=dict(
        type='FCNHead', in_channels=128, channels=16, num_classes=3,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
)
""",
    mmdet="""
default_scope = 'mmdet'
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(type='DetDataPreprocessor', mean={mean}, std={std}, bgr_to_rgb=True),
    backbone=dict(
        type='ResNet', depth=18, stem_channels=16, base_channels=16, frozen_stages=1,
        init_cfg=dict(type='Pretrained', checkpoint={file!r}, prefix='target_net.module.0'),
    ),
    neck=dict(type='FPN', in_channels=[16, 32, 64, 128], out_channels=16, num_outs=5),
    bbox_head=dict(type='RetinaHead', num_classes=3, in_channels=16, feat_channels=16),
)
""",
    mmpretrain="""
default_scope = 'mmpretrain'
data_preprocessor = dict(mean={mean}, std={std}, to_rgb=True, num_classes=3)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet', depth=18, stem_channels=16, base_channels=16,
        init_cfg=dict(type='Pretrained', checkpoint={file!r}, prefix='backbone'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=128),
)
""",
)


@pytest.mark.parametrize(
    ('scope', 'which'), [('mmseg', 'target'), ('mmdet', 'target'), ('mmpretrain', 'online')]
)
def test_a_config_gives_its_network_with_the_weights_it_names(scope, which, tmp_path):
    model, text = tiny_vito()
    with torch.no_grad():
        for parameter in model.target_net.parameters():
            parameter.mul_(1.1)
    file = save(tmp_path / 'iter_7.pth', model, text)
    config = tmp_path / 'config.py'
    pixels = dict(mean=MEAN.tolist(), std=STD.tolist())
    config.write_text(CONFIGS[scope].format(file=str(file), **pixels))
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope(scope):
        network = MODELS.build(cfg.model).backbone
        network.init_weights()
    network.eval()
    kept = model.backbone if which == 'online' else model.target_net.module[0]
    assert torch.equal(network.conv1.weight, kept.conv1.weight)
    images = RNG.integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = network(normalised(images))[-1]
    encoder = vito_mm.load_encoder(config)
    torch.testing.assert_close(encoder(images, 'last'), expected, rtol=1e-4, atol=1e-5)
    assert expected.shape[2:] == ((8, 12) if scope == 'mmseg' else (2, 3))
    # The attention of the file goes with its backbone.
    assert list(encoder.scales()) == ['stage 4', 'stage 5']
    assert vito_mm.load_encoder(str(config), view=View(64, 64)).view == View(64, 64)
    with pytest.raises(ValueError, match='says itself'):
        vito_mm.load_encoder(config, which='target')


def test_a_config_of_pretraining_gives_the_network_that_it_starts_from(tmp_path):
    half = dict(R18, stem_channels=32, base_channels=32)
    model, text = tiny_vito(half, (128, 256))
    file = save(tmp_path / 'iter_7.pth', model, text)
    config = tmp_path / 'adapt.py'
    config.write_text(
        "_base_ = 'vito_mm::miniscenes/pretrain_r18.py'\n"
        'model = dict(projector=dict(hid_channels=16, out_channels=8))\n'
        f'load_from = {str(file)!r}\n'
    )
    images = RNG.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    found = vito_mm.load_encoder(config)(images)
    assert torch.equal(found, vito_mm.load_encoder(file)(images))


def test_a_config_has_to_name_its_weights():
    with pytest.raises(CheckpointError, match='names no checkpoint'):
        vito_mm.load_encoder('vito_mm::miniscenes/pretrain_r18.py')
    with pytest.raises(FileNotFoundError, match='no config'):
        vito_mm.load_encoder('gone.py')
