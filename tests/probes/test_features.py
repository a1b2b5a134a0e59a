"""Features of folders of labelled images."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.image_folders import write_classes
from vito_mm.probes.encoder import Encoder
from vito_mm.probes.features import labelled_features
from vito_mm.probes.image_folders import ProbeError, train_and_val
from vito_mm.probes.inputs import Preprocessing
from vito_mm.probes.knn import knn_top1
from vito_mm.probes.labelled_images import labelled_frames
from vito_mm.probes.linear_classifier import linear_accuracy
from vito_mm.probes.loading import load_encoder, resnet


@pytest.fixture
def folder(tmp_path):
    """Two classes, told apart by brightness."""
    return write_classes(tmp_path, ('dark', 'light'))


@pytest.mark.parametrize('workers', [0, 2])
def test_features_are_those_of_the_centre(folder, workers):
    identity = torch.nn.Conv2d(3, 3, 1, bias=False)
    torch.nn.init.dirac_(identity.weight)
    encoder = Encoder(identity, Preprocessing((100.0, 110.0, 120.0), (50.0, 60.0, 70.0)))
    _, _, found, labels = labelled_features(encoder, folder, 32, batch_size=5, workers=workers)
    images = labelled_frames(folder, 32)
    assert labels.tolist() == images.val_labels.tolist() == [0] * 6 + [1] * 6
    assert images.classes == ('dark', 'light')
    for file, features in zip(images.val.files, found, strict=True):
        with Image.open(file) as image:
            centre = np.asarray(image.resize((40, 32), Image.Resampling.BICUBIC))[:, 4:36]
        expected = (centre.mean(axis=(0, 1)) - [100, 110, 120]) / [50, 60, 70]
        np.testing.assert_allclose(features, expected, atol=1e-4)


def test_features_are_those_of_the_checkpoint_in_evaluation_mode(checkpoints, online, folder):
    encoder = load_encoder(checkpoints['training'])
    found = labelled_features(encoder, folder, 32)
    fc, online.fc = online.fc, torch.nn.Identity()
    expected = labelled_features(Encoder(online, encoder.preprocess), folder, 32)
    online.fc = fc
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_random_resnet_tells_bright_from_dark(folder):
    encoder = load_encoder(None, network=resnet(18))
    assert knn_top1(*labelled_features(encoder, folder, 32), k=3) == 100


def test_a_random_resnet_tells_six_levels_of_grey(tmp_path):
    write_classes(tmp_path, [f'level{index}' for index in range(6)])
    encoder = load_encoder(None, network=resnet(18))
    one, other = (
        linear_accuracy(*labelled_features(encoder, tmp_path, 32, batch_size=n)) for n in (128, 36)
    )
    assert one == other
    assert one.top1 > 80
    assert one.top5 >= one.top1


def test_pixels_are_normalised_bit_exact_as_by_torchvision(folder):
    """A last digit can decide between two neighbours."""
    from torchvision import transforms

    identity = torch.nn.Conv2d(3, 3, 1, bias=False)
    torch.nn.init.dirac_(identity.weight)
    preprocess = load_encoder(None, network=resnet(18, 8)).preprocess
    _, _, found, _ = labelled_features(Encoder(identity, preprocess), folder, 32)
    bicubic = transforms.InterpolationMode.BICUBIC
    view = transforms.Compose(
        [
            *(transforms.Resize(32, bicubic), transforms.CenterCrop(32), transforms.ToTensor()),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    files = labelled_frames(folder, 32).val.files
    images = torch.stack([view(Image.open(file).convert('RGB')) for file in files])
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert torch.equal(found, identity(images).mean((2, 3)))


@pytest.mark.parametrize('workers', [0, 1])
def test_an_unreadable_image_is_named_in_one_line(folder, workers):
    (folder / 'train/light/3.png').write_bytes(b'no image')
    encoder = load_encoder(None, network=resnet(18, 8))
    message = r'train/light/3\.png: not readable as an image\. .*remove'
    with pytest.raises(ProbeError, match=message) as caught:
        labelled_features(encoder, folder, 32, workers=workers)
    assert '\n' not in str(caught.value)


def test_what_is_wrong_with_a_folder_is_named(folder):
    with pytest.raises(ProbeError, match=r'no folder .*nowhere/train'):
        train_and_val(folder / 'nowhere')

    (folder / 'val/grey').mkdir()
    with pytest.raises(ProbeError, match=r'val has classes without an image: grey'):
        train_and_val(folder)
    (folder / 'val/dark/0.png').rename(folder / 'val/grey/0.png')
    with pytest.raises(ProbeError, match=r'train lacks classes of \S+val: grey'):
        train_and_val(folder)

    (folder / 'lone').mkdir()
    for part in ('train', 'val'):
        (folder / 'lone' / part).mkdir()
    with pytest.raises(ProbeError, match='train has no sub-folders'):
        train_and_val(folder / 'lone')
    for part in ('train', 'val'):
        (folder / part / 'dark').rename(folder / 'lone' / part / 'dark')
    with pytest.raises(ProbeError, match='one class, dark'):
        train_and_val(folder / 'lone')
