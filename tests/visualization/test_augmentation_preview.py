"""The augmentation preview shows what the run gets."""

import copy
import itertools
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from scipy.stats import kstest

from tests.conftest import REPO, frame_index, write_video
from vito_mm.datasets import ClipSampler
from vito_mm.models.preprocessors.batch_augmentation import augment_batch
from vito_mm.registry import DATASETS
from vito_mm.videos import write_manifest
from vito_mm.visualization import preview_picture
from vito_mm.visualization.augmentation_preview import (
    PreviewClip,
    build_sampler,
    draw_clips,
    time_differences,
)
from vito_mm.visualization.preview_picture import write_preview

BASE = Config.fromfile(REPO / 'configs/vito/pretrain_r50.py')
NOTHING = dict.fromkeys(
    ('flip_prob', 'jitter_prob', 'grayscale_prob', 'blur_prob', 'solarize_prob'), 0.0
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    init_default_scope('mmpretrain')
    few = partial(time_differences, num_clips=300)
    monkeypatch.setattr(preview_picture, 'time_differences', few)


def config(folder: Path, **pipeline: dict) -> Config:
    """The shipped config on a folder, with changes of its pipeline's stages."""
    cfg = copy.deepcopy(BASE)
    changes = dict(data_root=str(folder), pipeline=pipeline)
    cfg.merge_from_dict(dict(train_dataloader=dict(dataset=changes)))
    return cfg


def clips_of(cfg: Config, num_clips: int = 6, seed: int = 0) -> list[PreviewClip]:
    return draw_clips(cfg, build_sampler(cfg, seed), num_clips)


def untouched_items(cfg: Config, clips: list[PreviewClip]) -> list[dict]:
    """What a data set without observers gives for the same draws."""
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    return [dataset[clip.draw] for clip in clips]


def assert_images(clip: PreviewClip, item: dict) -> None:
    """The shown views are those of the item."""
    for view, tensor in zip(clip.views, item['inputs'], strict=True):
        np.testing.assert_array_equal(view.image, tensor.numpy()[::-1].transpose(1, 2, 0))


@pytest.mark.parametrize('as_lists', [False, True])
def test_clips_and_views_are_those_of_the_run(textured_folder, as_lists):
    cfg = config(textured_folder)
    if as_lists:
        dataset = cfg.train_dataloader.dataset
        pipelines = dataset.pipeline.augment.pipelines
        dataset.pipeline.augment.pipelines = [list(steps.values()) for steps in pipelines.values()]
        dataset.pipeline = list(dataset.pipeline.values())
    clips = clips_of(cfg, 10, seed=5)
    draws = list(itertools.islice(ClipSampler(range(8), seed=5), 10))
    assert [clip.draw for clip in clips] == draws
    assert [clip.draw.number for clip in clips] == list(range(10))
    for clip, item in zip(clips, untouched_items(cfg, clips), strict=True):
        sample = item['data_samples']
        assert clip.path == sample.video_path
        assert [view.name for view in clip.views] == ['A1', 'A2', 'A1']
        assert [view.frame_time for view in clip.views] == sample.frame_times.tolist()
        assert_images(clip, item)
        assert all(view.augmentation is not None for view in clip.views)


def test_views_left_to_the_device_are_shown_as_it_makes_them(textured_folder):
    cfg = config(textured_folder, augment=dict(on_device=True))
    clips = clips_of(cfg)
    for clip, item in zip(clips, untouched_items(cfg, clips), strict=True):
        drawn = item['data_samples'].augmentations
        assert [view.augmentation for view in clip.views] == drawn
        for view, tensor, augmentation in zip(clip.views, item['inputs'], drawn, strict=True):
            images = tensor[None, [2, 1, 0]]
            expected = augment_batch(images, np.array([augmentation], np.float32))[0]
            np.testing.assert_array_equal(view.image, expected.permute(1, 2, 0).numpy())
    # The same draws on the CPU, where they are rounded at each step.
    in_worker = clips_of(config(textured_folder))
    for one, other in zip(clips, in_worker, strict=True):
        for view, same in zip(one.views, other.views, strict=True):
            assert view.augmentation == same.augmentation
            assert np.abs(view.image - same.image).mean() < 2


def test_the_rectangle_is_what_was_cut_out(textured_folder):
    byol = dict(byol=NOTHING)
    cfg = config(textured_folder, augment=dict(pipelines=dict(A1=byol, A2=byol)))
    boxes = set()
    for clip in clips_of(cfg):
        for view in clip.views:
            left, top, width, height = view.box
            boxes.add(view.box)
            cut = view.frame[top : top + height, left : left + width]
            resized = cv2.resize(cut, (224, 224), interpolation=cv2.INTER_CUBIC)
            np.testing.assert_array_equal(view.image, resized)
    assert len(boxes) > 12


def test_times_are_those_of_the_frames(video_folder):
    cfg = config(video_folder)
    for clip in clips_of(cfg):
        start, end = clip.segment
        assert clip.duration == pytest.approx(80 / 25)
        assert 0 <= start <= end <= clip.duration
        assert end - start == pytest.approx(2.56)
        for view in clip.views:
            assert start <= view.time <= end
            assert frame_index(view.frame) == int(view.time * 25 + 1e-6)
            assert view.frame_time == pytest.approx(frame_index(view.frame) / 25, abs=1e-3)


def test_a_video_shorter_than_the_segment_is_the_segment(make_video):
    path = make_video('short/short.mp4', num_frames=10)
    clip, *_ = clips_of(config(path.parent))
    assert clip.segment == (0, pytest.approx(0.4))
    assert max(view.time for view in clip.views) <= 0.4


def test_parts_of_a_video_have_times_of_the_video(tmp_path, make_video):
    make_video('long.mp4', num_frames=120)
    parts = [dict(start=2.0, end=3.0), dict(start=1.5), dict(end=2.8), dict()]
    write_manifest(tmp_path / 'm.jsonl', [dict(path='long.mp4', **part) for part in parts])
    cfg = config(tmp_path)
    cfg.train_dataloader.dataset.ann_file = 'm.jsonl'
    expected = [(2.0, 3.0), (1.5, 4.8), (0.0, 2.8), (0.0, 4.8)]
    clips = clips_of(cfg, 8)
    for clip in clips:
        assert clip.part == pytest.approx(expected[clip.draw])
        assert clip.duration == pytest.approx(4.8)
        assert clip.part[0] <= clip.segment[0] < clip.segment[1] <= clip.part[1] + 1e-9
        for view in clip.views:
            assert frame_index(view.frame) == int(view.time * 25 + 1e-6)
    write_preview(cfg, tmp_path / 'preview.png', 4)


def test_the_histogram_is_of_the_same_draws_as_the_clips(video_folder):
    cfg = config(video_folder)
    sampler = build_sampler(cfg, seed=3)
    (found,) = time_differences(sampler, num_clips=6)
    clips = draw_clips(cfg, sampler, 6)
    times = np.array([[view.time for view in clip.views] for clip in clips])
    shown = [np.abs(times[:, i] - times[:, j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(found.values, np.concatenate(shown))


@pytest.mark.parametrize(
    ('sample', 'mode', 'median'),
    [
        (dict(), 0.0, 2.56 * (1 - 0.5**0.5)),
        (dict(num_views=2, segment=1.28), 0.0, 1.28 * (1 - 0.5**0.5)),
        (dict(method='delta', delta=0.75, num_views=2), 0.75, 0.75),
        (dict(method='uniform', num_views=2), 1.28, 1.28),
        (dict(method='single'), 0.0, 0.0),
        (dict(method='single', fixed=True), 0.0, 0.0),
    ],
)
def test_distances_follow_the_sampler(video_folder, sample, mode, median):
    sampler = build_sampler(config(video_folder, sample=sample))
    count = 300 if sample.get('method') in ('single', 'delta') else 6000
    (found,) = time_differences(sampler, num_clips=count)
    assert len(found.values) == count * (3 if found.sampler.num_views == 3 else 1)
    low, high = found.mode()
    width = found.sampler.segment / 25
    assert high - low == pytest.approx(width)
    assert low - 1.5 * width <= mode <= high + 1.5 * width
    assert np.median(found.values) == pytest.approx(median, abs=0.03)
    if found.sampler.method == 'marginal':
        segment = found.sampler.segment
        first_pairs = found.values[: found.num_clips]  # those of the others share views with them
        assert kstest(first_pairs, lambda dt: 1 - (1 - dt / segment) ** 2).pvalue > 1e-3


def test_images_and_videos_together(tmp_path, video_folder):
    images = tmp_path / 'images'
    images.mkdir()
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 256, (90, 70 + index, 3), np.uint8)
        cv2.imwrite(str(images / f'{index}.png'), noise)
    cfg = Config.fromfile(REPO / 'configs/baselines/vito_r50_images_and_videos.py')
    videos, stills = cfg.train_dataloader.dataset.datasets
    videos.data_root, stills.data_root = str(video_folder), str(images)
    clips = clips_of(cfg, 9)
    assert sorted(Path(clip.path).suffix for clip in clips) == ['.mp4'] * 6 + ['.png'] * 3
    for clip in clips:
        if clip.path.endswith('.png'):
            assert (clip.duration, clip.segment) == (0, (0, 0))
            frames = [view.frame for view in clip.views]
            np.testing.assert_array_equal(frames[0], cv2.imread(clip.path)[..., ::-1])
            np.testing.assert_array_equal(frames[0], frames[2])
    (found,) = time_differences(build_sampler(cfg), num_clips=90)
    assert (found.num_clips, found.num_images, len(found.values)) == (60, 30, 180)
    # Images alone have no times to show.
    cfg.train_dataloader.dataset = stills
    summary = write_preview(cfg, tmp_path / 'preview.png', 2)
    assert '300 clips of single images' in summary
    assert '|dt|' not in summary


def test_a_bad_video_is_listed_with_its_replacement(tmp_path, video_folder):
    bad = video_folder / 'bad $1 \udcff.mp4'
    bad.touch()
    cfg = config(video_folder)
    clips = clips_of(cfg, 7)
    (stand_in,) = (clip for clip in clips if clip.skipped)
    assert stand_in.skipped == [(str(bad), 'is empty (0 bytes)')]
    for clip, item in zip(clips, untouched_items(cfg, clips), strict=True):
        assert clip.path == item['data_samples'].video_path != str(bad)
        assert_images(clip, item)
    summary = write_preview(cfg, tmp_path / 'preview.png', 7)
    assert '7 clips of 6 files' in summary
    assert f'  {bad}: is empty (0 bytes)' in summary


def test_the_picture_shows_the_views_pixel_by_pixel(tmp_path):
    sizes = [(64, 48), (48, 96), (320, 96)]
    for index, size in enumerate(sizes):
        write_video(tmp_path / 'videos' / f'{index}.mp4', size=size, texture=index)
    cfg = config(tmp_path / 'videos', sample=dict(num_views=5))
    write_preview(cfg, tmp_path / 'new' / 'folder' / 'preview.png', 3)
    sheet = cv2.imread(str(tmp_path / 'new' / 'folder' / 'preview.png'))
    assert sheet.shape[1] <= 2000
    for number, clip in enumerate(clips_of(cfg, 3)):
        picture = clip.views[2 * number].image.round().clip(0, 255).astype(np.uint8)[..., ::-1]
        match = cv2.matchTemplate(sheet[..., 1], picture[..., 1], cv2.TM_SQDIFF)
        x, y = cv2.minMaxLoc(match)[2]
        np.testing.assert_array_equal(sheet[y : y + 224, x : x + 224], picture)


def test_other_augmentations_are_shown_without_what_they_drew(tmp_path, textured_folder):
    stock = [
        dict(type='RandomFlip', prob=0.5),
        dict(type='RandomResizedCrop', scale=96),
        dict(type='RandomGrayscale', prob=0.5, keep_channels=True),
    ]
    plain = [dict(type='Resize', scale=(64, 48))]
    cfg = config(textured_folder)
    cfg.train_dataloader.dataset.pipeline.augment.pipelines = [stock, plain]
    clips = clips_of(cfg)
    for clip, item in zip(clips, untouched_items(cfg, clips), strict=True):
        assert [view.box is None for view in clip.views] == [False, True, False]
        assert all(view.augmentation is None for view in clip.views)
        assert_images(clip, item)
    write_preview(cfg, tmp_path / 'preview.png', 2)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(train_dataloader=dict(dataset=dict(type='BaseDataset'))), 'but BaseDataset'),
        (dict(train_dataloader=None), 'no VideoDataset to train on, but nothing'),
        (dict(train_dataloader=dict(sampler=dict(type='DefaultSampler'))), 'not by ClipSampler'),
        (dict(train_dataloader=dict(dataset=dict(pipeline=dict(sample=None)))), 'no SampleFrames'),
        (dict(train_dataloader=dict(dataset=dict(pipeline=dict(pack=None)))), 'PackInputs'),
        (dict(randomness=dict(seed=None)), 'give the seed'),
    ],
)
def test_configs_that_have_nothing_to_show(tmp_path, textured_folder, change, message):
    cfg = config(textured_folder)
    cfg.merge_from_dict(change)
    with pytest.raises(ValueError, match=message):
        write_preview(cfg, tmp_path / 'preview.png')
    for num_clips in (0, 101):
        with pytest.raises(ValueError, match='within 1 and 100'):
            write_preview(cfg, tmp_path / 'preview.png', num_clips)
