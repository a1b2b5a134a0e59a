"""The shipped augmentations, on the CPU and on the device, against torchvision in float64.

torchvision's functions are the reference of BYOL's augmentations
(https://arxiv.org/abs/2006.07733, appendix B) that all PyTorch versions share.
"""

import copy

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import init_default_scope
from scipy.stats import ks_2samp, kstest
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional

from tests.conftest import REPO
from vito_mm.datasets import AugmentViews, BYOLAugmentation, Draw, ViewAugmentation, random_state_of
from vito_mm.datasets.transforms.byol_augmentation import JITTER_ORDERS
from vito_mm.models.preprocessors.batch_augmentation import augment_batch
from vito_mm.models.preprocessors.deferred import DeferredPreprocessor
from vito_mm.models.preprocessors.view_preprocessor import ViewPreprocessor

CONFIG = Config.fromfile(REPO / 'configs/vito/pretrain_r50.py')
PIPELINES = CONFIG.train_dataloader.dataset.pipeline.augment.pipelines
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def shipped(view: str) -> BYOLAugmentation:
    settings = dict(PIPELINES[view].byol)
    assert settings.pop('type') == 'BYOLAugmentation'
    return BYOLAugmentation(**settings)


def photo(seed: int = 0, size: tuple[int, int] = (96, 80)) -> np.ndarray:
    """Blobs of colour, which neighbouring pixels share as in photographs."""
    blobs = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), np.uint8)
    return cv2.resize(blobs, size[::-1], interpolation=cv2.INTER_CUBIC)


def to_tensor(image: np.ndarray) -> Tensor:
    """BGR of 8 bits as RGB, float64, within [0, 1]."""
    return torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1).double() / 255


def reference(image: Tensor, drawn: ViewAugmentation) -> Tensor:
    if drawn.flip:
        image = functional.horizontal_flip(image)
    for name in JITTER_ORDERS[drawn.order]:
        image = getattr(functional, f'adjust_{name}')(image, getattr(drawn, name))
    if drawn.grayscale:
        image = functional.rgb_to_grayscale(image, num_output_channels=3)
    if drawn.sigma:
        image = functional.gaussian_blur(image, [drawn.kernel_size] * 2, [drawn.sigma] * 2)
    return torch.where(image < 0.5, image, 1 - image) if drawn.solarize else image


FIXED = {
    'nothing': ViewAugmentation(),
    'flip': ViewAugmentation(flip=True),
    'darker': ViewAugmentation(brightness=0.63),
    'brighter': ViewAugmentation(brightness=1.38),
    'less contrast': ViewAugmentation(contrast=0.61),
    'more contrast': ViewAugmentation(contrast=1.4),
    'less colour': ViewAugmentation(saturation=0.8),
    'more colour': ViewAugmentation(saturation=1.19),
    'hue up': ViewAugmentation(hue=0.1),
    'hue down': ViewAugmentation(hue=-0.07),
    'grey': ViewAugmentation(grayscale=True),
    'little blur': ViewAugmentation(sigma=0.1),
    'blur': ViewAugmentation(sigma=0.9),
    'much blur': ViewAugmentation(sigma=2.0),
    'small kernel': ViewAugmentation(sigma=2.0, kernel_size=5),
    'smaller kernel': ViewAugmentation(sigma=1.0, kernel_size=3),
    'solarize': ViewAugmentation(solarize=True),
    'first order': ViewAugmentation(True, 0, 1.3, 0.7, 1.1, 0.05, False, 1.2, False),
    'last order': ViewAugmentation(False, 23, 0.7, 1.3, 0.9, -0.05, False, 0.6, False),
    'all': ViewAugmentation(True, 10, 1.2, 1.2, 1.2, 0.1, True, 2.0, False),
}


@pytest.mark.parametrize('name', FIXED)
def test_cpu_computes_what_was_drawn(name):
    """Within rounding to 8 bits at each step; hues are told apart by 1.4 degrees."""
    drawn = FIXED[name]
    ours = to_tensor(BYOLAugmentation().apply(photo(), drawn))
    difference = (ours - reference(to_tensor(photo()), drawn)).abs() * 255
    steps = sum(x != y for x, y in zip(drawn, ViewAugmentation(), strict=True))
    assert difference.mean() <= 0.4 * steps + 0.5 * bool(drawn.hue) + 1e-4
    assert difference.max() <= (14 if drawn.hue else 1.1 * steps) + 1e-3


def test_device_computes_what_was_drawn():
    """All at once, as a batch, to single precision."""
    images = [photo(seed) for seed in range(len(FIXED))]
    expected = [
        reference(to_tensor(image), drawn)
        for image, drawn in zip(images, FIXED.values(), strict=True)
    ]
    for is_rgb in (True, False):
        order = slice(None, None, -1) if is_rgb else slice(None)
        batch = np.stack([image[..., order].transpose(2, 0, 1) for image in images])
        ours = augment_batch(torch.from_numpy(batch), np.array([*FIXED.values()]), is_rgb=is_rgb)
        assert ours.dtype == torch.float32
        ours = ours if is_rgb else ours.flip(1)
        # Greys of torchvision sum to 0.9999; hues of near-greys are ill-conditioned.
        torch.testing.assert_close(ours.double() / 255, torch.stack(expected), atol=3e-4, rtol=0)


def test_device_and_cpu_agree_on_drawn_views():
    """Draws of the shipped settings: the same parameters, the same picture."""
    np.random.seed(0)
    for view in ('A1', 'A2'):
        augmentation = shipped(view)
        drawn = [augmentation.draw() for _ in range(64)]
        images = [photo(seed) for seed in range(64)]
        cpu = np.stack([augmentation.apply(*pair) for pair in zip(images, drawn, strict=True)])
        batch = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())
        device = augment_batch(batch, np.array(drawn), is_rgb=False)
        solarized = torch.tensor([one.solarize for one in drawn])
        difference = (device - torch.from_numpy(cpu).permute(0, 3, 1, 2)).abs()
        # Solarizing turns a level beside the threshold to the other side of it.
        assert difference[~solarized].mean(dim=(1, 2, 3)).max() < 2
        assert difference[solarized].mean() < 4 or not solarized.any()


@pytest.mark.parametrize(('view', 'blur', 'solarize'), [('A1', 1.0, 0.0), ('A2', 0.1, 0.2)])
def test_draws_are_distributed_as_in_the_paper(view, blur, solarize):
    """Jitter at 0.8, each value independent and uniform, every order of the four as likely."""
    np.random.seed(2)
    draws = [shipped(view).draw() for _ in range(6000)]
    for field, share in dict(flip=0.5, grayscale=0.2, sigma=blur, solarize=solarize).items():
        found = np.mean([bool(getattr(draw, field)) for draw in draws])
        assert found == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 6000))
    assert {draw.kernel_size for draw in draws} == {23}
    assert BYOLAugmentation(kernel_size=7).draw().kernel_size == 7
    changed = np.array([draw[2:6] for draw in draws if draw.brightness != 1])
    assert len(changed) / 6000 == pytest.approx(0.8, abs=0.025)
    for column, low, high in zip(
        changed.T, (0.6, 0.6, 0.8, -0.1), (1.4, 1.4, 1.2, 0.1), strict=True
    ):
        assert kstest(column, 'uniform', (low, high - low)).pvalue > 1e-3
    np.testing.assert_allclose(np.corrcoef(changed.T), np.eye(4), atol=0.06)
    sigmas = np.array([draw.sigma for draw in draws if draw.sigma])
    assert kstest(sigmas, 'uniform', (0.1, 1.9)).pvalue > 1e-3
    counts = np.bincount([draw.order for draw in draws], minlength=24)
    assert counts.min() > 180
    assert counts.max() < 320
    assert sorted(JITTER_ORDERS) == sorted(set(JITTER_ORDERS))


def shipped_crop(view: str = 'A1', **changes):
    init_default_scope('mmpretrain')
    return Compose([dict(PIPELINES[view].crop, **changes)]).transforms[0]


def windows_of(crop, size: tuple[int, int], n: int) -> np.ndarray:
    """Top, left, height and width of n crops of a frame of that width and height."""
    frame = np.zeros((size[1], size[0], 3), np.uint8)
    return np.array([crop.rand_crop_params(frame) for _ in range(n)], float)


def clipped_windows(size: tuple[int, int], smallest: float, n: int) -> np.ndarray:
    """The same by the words of BYOL's code: one draw of area and aspect, clipped to the frame."""
    rng = np.random.default_rng(7)
    width, height = size
    area = rng.uniform(smallest, 1, n) * width * height
    aspect = (4 / 3) ** rng.uniform(-1, 1, n)
    w = np.minimum(np.rint(np.sqrt(area * aspect)), width)
    h = np.minimum(np.rint(np.sqrt(area / aspect)), height)
    top = rng.integers(0, (height - h).astype(int) + 1)
    left = rng.integers(0, (width - w).astype(int) + 1)
    return np.stack([top, left, h, w], axis=1)


@pytest.mark.parametrize('size', [(1920, 1080), (602, 256), (144, 256), (64, 64)])
@pytest.mark.parametrize(('view', 'smallest'), [('A1', 0.4), ('A2', 0.4), ('A1', 0.08)])
def test_crop_has_the_distribution_of_byols(view, smallest, size):
    np.random.seed(0)
    changes = {} if smallest == 0.4 else dict(crop_ratio_range=(smallest, 1.0))
    crop = shipped_crop(view, **changes)
    assert (crop.scale, crop.interpolation) == ((224, 224), 'bicubic')
    ours, theirs = windows_of(crop, size, 4000), clipped_windows(size, smallest, 40_000)
    for columns in ([0], [1], [2], [3], [2, 3]):
        pair = [windows[:, columns].prod(axis=1) for windows in (ours, theirs)]
        assert ks_2samp(*pair).pvalue > 1e-3
    assert (ours[:, :2] >= 0).all()
    assert size[1] - 3 < (ours[:, 0] + ours[:, 2]).max() <= size[1]
    assert size[0] - 3 < (ours[:, 1] + ours[:, 3]).max() <= size[0]


def test_crops_of_wide_frames_in_numbers():
    """Mean and largest area of 16:9 frames, aspect ratio, and the one window of torchvision's."""
    np.random.seed(0)
    found = {}
    for oversize in ('clip', 'redraw'):
        crop = shipped_crop(oversize=oversize)
        wide, wider = windows_of(crop, (1920, 1080), 8000), windows_of(crop, (602, 256), 4000)
        areas = wide[:, 2] * wide[:, 3] / (1920 * 1080)
        most_frequent = np.unique(wider, axis=0, return_counts=True)[1].max() / len(wider)
        found[oversize] = areas.mean(), areas.max(), (wide[:, 3] / wide[:, 2]).max(), most_frequent
    mean, largest, aspect, most_frequent = found['clip']
    assert mean == pytest.approx(0.610, abs=0.006)
    # The largest of all has probability 0; its bounds are sqrt(1920 x 1080 x 4 / 3) x 1080.
    assert 0.82 < largest <= 0.8661
    assert 1.45 < aspect <= 1.54
    assert most_frequent < 0.01
    mean, largest, aspect, most_frequent = found['redraw']
    assert mean == pytest.approx(0.520, abs=0.006)
    assert (largest, aspect) == pytest.approx((0.75, 4 / 3), abs=2e-3)
    assert most_frequent == pytest.approx(0.428, abs=0.03)


def test_redrawn_crops_have_the_distribution_of_torchvisions():
    np.random.seed(0)
    torch.manual_seed(0)
    ours = windows_of(shipped_crop(oversize='redraw'), (600, 400), 3000)
    frame = torch.zeros(3, 400, 600)
    theirs = np.array(
        [RandomResizedCrop.get_params(frame, (0.4, 1.0), (3 / 4, 4 / 3)) for _ in range(3000)],
        float,
    )
    for ours_column, theirs_column in zip(ours.T, theirs.T, strict=True):
        assert ks_2samp(ours_column, theirs_column).pvalue > 1e-3
    assert ours[:, 2:].prod(axis=1).min() >= 0.399 * 400 * 600


def test_the_crop_is_the_window_that_was_drawn():
    """Resized to the same size, so that nothing but the window is left."""
    frame, drawing = photo(0, (48, 86)), shipped_crop()
    for seed in range(20):
        np.random.seed(seed)
        top, left, height, width = drawing.rand_crop_params(frame)
        crop = shipped_crop(scale=(height, width))
        np.random.seed(seed)
        image = crop(dict(img=frame))['img']
        np.testing.assert_array_equal(image, frame[top : top + height, left : left + width])


@pytest.mark.parametrize('size', [(1, 1), (1, 50), (3, 2)])
def test_crops_of_frames_of_a_few_pixels(size):
    np.random.seed(0)
    ours = windows_of(shipped_crop(crop_ratio_range=(0.08, 1.0)), size, 200)
    assert (ours[:, 2:] >= 1).all()
    assert (ours[:, :2] + ours[:, 2:] <= size[::-1]).all()


def augment(on_device: bool, number: int = 5) -> dict:
    """Three views of random frames by the shipped pipelines, in the random state of a draw."""
    init_default_scope('mmpretrain')
    views = AugmentViews(copy.deepcopy(PIPELINES.to_dict()), on_device=on_device)
    frames = [photo(seed, (128, 160)) for seed in range(3)]
    with random_state_of(Draw(0, seed=7, number=number)):
        return views.transform(dict(imgs=frames))


class Sample(dict):
    __getattr__ = dict.__getitem__


def batch_of(results: list[dict]) -> dict:
    inputs = [
        torch.from_numpy(np.stack(views).transpose(0, 3, 1, 2).copy())
        for views in zip(*[result['img'] for result in results], strict=True)
    ]
    return dict(inputs=inputs, data_samples=[Sample(result) for result in results])


def test_where_it_is_augmented_does_not_change_the_clip():
    """The draw of a sample decides its crop and augmentations, in the worker or on the device."""
    preprocessor = ViewPreprocessor(mean=MEAN, std=STD, to_rgb=True)
    in_worker = [augment(on_device=False, number=number) for number in range(4)]
    for result in in_worker:
        assert 'augmentations' not in result
    left = [augment(on_device=True, number=number) for number in range(4)]
    assert [len(result['augmentations']) for result in left] == [3] * 4
    expected = preprocessor(batch_of(in_worker), True)['inputs']
    found = preprocessor(batch_of(left), True)['inputs']
    # One of a level is 0.017; solarized views are compared above.
    for view, number in ((0, 0), (2, 0), (0, 3), (2, 3)):
        difference = (found[view][number] - expected[view][number]).abs()
        assert difference.mean() < 0.04
    again = preprocessor(batch_of([augment(on_device=True, number=n) for n in range(4)]), True)
    for one, other in zip(found, again['inputs'], strict=True):
        assert torch.equal(one, other)


def test_a_sample_is_augmented_alike_in_any_batch():
    preprocessor = ViewPreprocessor(mean=MEAN, std=STD, to_rgb=True)
    results = [augment(on_device=True, number=number) for number in range(6)]
    whole = preprocessor(batch_of(results), True)['inputs']
    deferred = DeferredPreprocessor(preprocessor)
    waiting = deferred(batch_of(results), True)['inputs']
    for view in range(3):
        part = deferred.slice_view(waiting, view, slice(2, 5))
        torch.testing.assert_close(part, whole[view][2:5], atol=1e-5, rtol=0)
        alone = preprocessor(batch_of(results[4:5]), True)['inputs'][view]
        torch.testing.assert_close(alone[0], whole[view][4], atol=1e-5, rtol=0)


def test_autocast_does_not_blur_in_half_precision():
    preprocessor = ViewPreprocessor(mean=MEAN, std=STD, to_rgb=True)
    data = batch_of([augment(on_device=True)])
    expected = preprocessor(data, True)['inputs']
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = preprocessor(data, True)['inputs']
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize('size', [(5, 7), (1, 3), (64, 64)])
def test_images_smaller_than_the_kernel(size):
    """The reflection at the border repeats, on both paths alike."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    drawn = ViewAugmentation(sigma=2.0)
    cpu = BYOLAugmentation().apply(image, drawn).astype(float)
    batch = torch.from_numpy(image.transpose(2, 0, 1)[None].copy())
    device = augment_batch(batch, np.array([drawn]), is_rgb=False)[0].permute(1, 2, 0).numpy()
    assert np.abs(device - cpu).max() < 1.5


@pytest.mark.parametrize(
    ('kwargs', 'name'),
    [
        (dict(kernel_size=22), 'kernel_size'),
        (dict(sigma=(2.0, 1.0)), 'sigma'),
        (dict(blur_prob=2), 'blur_prob'),
        (dict(hue=0.6), 'hue'),
        (dict(brightness=-1), 'brightness'),
    ],
)
def test_bad_settings_are_named(kwargs, name):
    with pytest.raises(ValueError, match=name):
        BYOLAugmentation(**kwargs)
    with pytest.raises(ValueError, match='oversize'):
        shipped_crop(oversize='reject')


def test_the_device_finishes_only_what_it_knows():
    flip = dict(type='RandomFlip', prob=0.5)
    with pytest.raises(ValueError, match=r"number 2 is \['RandomFlip'\]"):
        AugmentViews([[dict(type='BYOLAugmentation')], [flip]], on_device=True)
