"""First clips of a run before it starts: their frames, crops, views and time differences."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope
from mmpretrain.datasets import RandomResizedCrop

from vito_mm.checkpoint.config_parts import placed_datasets
from vito_mm.datasets.clip_sampler import ClipSampler, Draw
from vito_mm.datasets.transforms.augment_views import AugmentViews
from vito_mm.datasets.transforms.byol_augmentation import ViewAugmentation
from vito_mm.datasets.transforms.decode_frames import DecodeFrames
from vito_mm.datasets.transforms.sample_frames import SampleFrames
from vito_mm.datasets.video_dataset import VideoDataset, video_datasets
from vito_mm.registry import DATA_SAMPLERS, DATASETS, MODELS
from vito_mm.videos import IMAGE_EXTENSIONS, part_within, place_segment

_BINS = 25


@dataclass
class PreviewView:
    """One view of a clip and where it comes from."""

    name: str  # of its augmentation: 'A1', 'A2', ..., in the order of AugmentViews
    time: float  # that was drawn, in seconds from the start of the video
    frame_time: float  # when the frame on screen at that time begins
    frame: np.ndarray  # that frame as it goes into the crop, RGB, uint8
    box: tuple[int, int, int, int] | None  # left, top, width, height of a random crop
    image: np.ndarray  # the view before normalisation, RGB, float32 within [0, 255]
    augmentation: ViewAugmentation | None  # values drawn by BYOLAugmentation, if any
    steps: list[str]  # names of the transforms of the view


@dataclass
class PreviewClip:
    """One sample of a run; times are in seconds."""

    draw: Draw  # index of the sample, with the number of the draw
    path: str
    label: int | None
    duration: float  # of the video; 0 for an image
    part: tuple[float, float]  # start and end of what the row of the manifest names
    segment: tuple[float, float]  # start and end of the clip
    views: list[PreviewView]
    skipped: list[tuple[str, str]]  # unreadable videos that this one replaces, with the reasons


@dataclass
class TimeDifferences:
    """Time differences between the views of clips, in videos at least as long as the segment."""

    sampler: SampleFrames  # draws the times
    values: np.ndarray  # absolute differences of all pairs of views, in seconds
    num_clips: int  # of videos
    num_images: int  # clips of single images, which have no time and are not in values

    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts in 25 bins over the segment, and the edges of the bins in seconds."""
        return np.histogram(self.values, bins=_BINS, range=(0, self.sampler.segment))

    def mode(self) -> tuple[float, float]:
        """Lower and upper edge of the fullest bin, in seconds."""
        counts, edges = self.histogram()
        fullest = int(counts.argmax())
        return float(edges[fullest]), float(edges[fullest + 1])

    def lines(self) -> list[str]:
        """Summary."""
        lines = []
        if self.num_clips:
            low, high = self.mode()
            lines.append(
                f'|dt| of {len(self.values):,} pairs of views in {self.num_clips:,} clips: '
                f'mode {low:.2f} to {high:.2f} s, median {np.median(self.values):.3f} s, '
                f'mean {self.values.mean():.3f} s'
            )
            if self.sampler.method == 'marginal':
                lines.append(
                    f'in theory: mode 0, median {self.sampler.segment * (1 - 0.5**0.5):.3f} s, '
                    f'mean {self.sampler.segment / 3:.3f} s'
                )
            lines.append('in videos shorter than the segment it shrinks with them')
        if self.num_images:
            lines.append(f'{self.num_images:,} clips of single images, which have no time')
        return lines


def build_sampler(cfg: Config, seed: int | None = None) -> ClipSampler:
    """Build the stream of clips of a run and the data set that it draws from.

    ``seed`` defaults to ``randomness.seed`` of the config.

    Raises:
        ValueError: If the config does not train on videos, or has no seed.
        FileNotFoundError: If there are no videos.
    """
    init_default_scope(cfg.get('default_scope') or 'mmpretrain')
    loader = cfg.get('train_dataloader') or {}
    leaves = placed_datasets(loader['dataset'], '') if loader.get('dataset') else ()
    kinds = [dataset.get('type') for _, dataset in leaves]
    if not any(_is_video_dataset(kind) for kind in kinds):
        found = ', '.join(map(str, kinds)) or 'nothing'
        raise ValueError(f'the config has no VideoDataset to train on, but {found}')
    if seed is None:
        seed = (cfg.get('randomness') or {}).get('seed')
    if seed is None:
        raise ValueError('the config has no randomness.seed: give the seed of the run')
    dataset = DATASETS.build(loader['dataset'])
    for videos in video_datasets(dataset):
        for kind in (SampleFrames, DecodeFrames, AugmentViews):
            if not any(isinstance(stage, kind) for stage in videos.pipeline.transforms):
                raise ValueError(f'the pipeline of the config has no {kind.__name__}')
    sampler = DATA_SAMPLERS.build(dict(loader.sampler), default_args=dict(dataset=dataset))
    if not isinstance(sampler, ClipSampler):
        raise ValueError(f'the config draws by {type(sampler).__name__}, not by ClipSampler')
    sampler.seed = seed
    return sampler


def _is_video_dataset(kind: Any) -> bool:
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    return isinstance(kind, type) and issubclass(kind, VideoDataset)


def time_differences(sampler: ClipSampler, num_clips: int = 20_000) -> list[TimeDifferences]:
    """Draw the times of the first clips of a run without decoding, per ``SampleFrames``."""
    datasets = list(video_datasets(sampler.dataset))
    pipelines = [videos.pipeline.transforms for videos in datasets]
    for videos, stages in zip(datasets, pipelines, strict=True):
        last = next(i for i, stage in enumerate(stages) if isinstance(stage, SampleFrames))
        videos.pipeline.transforms = [*stages[: last + 1], _with_stage(stages[last])]
    found: dict[str, tuple[SampleFrames, list, list]] = {}
    try:
        for draw in islice(sampler, num_clips):
            stage, results = sampler.dataset[draw]
            _, offsets, images = found.setdefault(repr(stage), (stage, [], []))
            is_image = results['video_path'].lower().endswith(IMAGE_EXTENSIONS)
            (images if is_image else offsets).append(results['segment_offsets'])
    finally:
        for videos, stages in zip(datasets, pipelines, strict=True):
            videos.pipeline.transforms = stages
    return [
        TimeDifferences(stage, _pairwise(np.array(offsets)), len(offsets), len(images))
        for stage, offsets, images in found.values()
    ]


def _with_stage(stage: SampleFrames) -> Callable:
    return lambda results: (stage, results)


def _pairwise(times: np.ndarray) -> np.ndarray:
    """Absolute differences of all pairs of columns."""
    if not len(times):
        return np.zeros(0)
    pairs = combinations(range(times.shape[1]), 2)
    return np.concatenate([np.abs(times[:, one] - times[:, two]) for one, two in pairs])


def draw_clips(cfg: Config, sampler: ClipSampler, num_clips: int = 6) -> list[PreviewClip]:
    """Make the first clips of a run, and note how each came about.

    The views are those of the data set's items: observers between the stages of its pipelines draw
    no random number that is not given back. They stay in the data set.

    Raises:
        ValueError: If the items have no ``inputs``, as ``PackInputs`` makes them.
        RuntimeError: If no video can be read; lists the first reasons.
    """
    settings = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    settings = dict(type='SelfSupDataPreprocessor') | dict(settings)
    # Not normalised, and in the order of channels in which pictures are shown.
    preprocessor = MODELS.build(settings | dict(mean=None, std=None, to_rgb=True))
    observer = _Observer(sampler.dataset)
    clips = []
    for draw in islice(sampler, num_clips):
        item = sampler.dataset[draw]
        if not isinstance(item, Mapping) or 'inputs' not in item:
            raise ValueError('the pipeline does not end with PackInputs')
        with torch.no_grad():
            images = preprocessor(default_collate([item]), training=True)['inputs']
        images = [image[0].permute(1, 2, 0).numpy() for image in images]
        clips.append(observer.clip(draw, images))
    return clips


class _Observer:
    """Notes what a data set does while it makes an item."""

    def __init__(self, dataset: Any) -> None:
        self.results: dict = {}
        self.views: list[dict] = []
        for videos in video_datasets(dataset):
            stages = [self._begin]
            for stage in videos.pipeline.transforms:
                stages.append(stage)
                if isinstance(stage, AugmentViews):
                    stages.append(self._note_results)
                    for number, pipeline in enumerate(stage.pipelines, start=1):
                        pipeline.transforms = self._observed(f'A{number}', pipeline.transforms)
            videos.pipeline.transforms = stages

    def _begin(self, results: dict) -> dict:
        self.views = []  # also of a video that turned out to be bad
        return results

    def _note_results(self, results: dict) -> dict:
        self.results = dict(results)
        return results

    def _observed(self, name: str, steps: list[Callable]) -> list[Callable]:
        names = [type(step).__name__ for step in steps]

        def begin(results: dict) -> dict:
            frame = results['img'][..., ::-1].copy()
            self.views.append(dict(name=name, frame=frame, box=None, steps=names))
            return results

        def end(results: dict) -> dict:
            self.views[-1]['augmentation'] = results.get('augmentation')
            return results

        return [begin, *map(self._observed_step, steps), end]

    def _observed_step(self, step: Callable) -> Callable:
        if not isinstance(step, RandomResizedCrop):
            return step

        def crop(results: dict) -> dict:
            state = np.random.get_state()
            top, left, height, width = step.rand_crop_params(results['img'])
            np.random.set_state(state)  # so that the step draws the same again
            frame = results['img'][..., ::-1].copy()
            self.views[-1].update(frame=frame, box=(left, top, width, height))
            return step(results)

        return crop

    def clip(self, draw: Draw, images: list[np.ndarray]) -> PreviewClip:
        """The last item."""
        seen = self.results
        part = part_within(seen, seen['duration'])
        offsets = np.array([*seen['segment_offsets'], 0.0, seen['segment']])
        *times, start, end = part[0] + place_segment(
            offsets, seen['segment'], seen['segment_start'], part[1] - part[0]
        )
        shown = zip(times, seen['frame_times'], images, self.views, strict=True)
        views = [
            PreviewView(time=float(time), frame_time=float(frame_time), image=image, **view)
            for time, frame_time, image, view in shown
        ]
        skipped = list(dict(seen['skipped_videos']).items())  # one may be drawn twice
        return PreviewClip(
            *(draw, seen['video_path'], seen.get('gt_label'), seen['duration'], part),
            *((float(start), float(end)), views, skipped),
        )


def summarise(clips: list[PreviewClip], differences: list[TimeDifferences]) -> str:
    """Summarise clips, skipped videos and time differences in a few lines."""
    lines = [f'{len(clips)} clips of {len({clip.path for clip in clips})} files']
    skipped = dict(pair for clip in clips for pair in clip.skipped)
    if skipped:
        lines.append(f'{len(skipped)} videos that cannot be read, replaced by others:')
        lines += [f'  {path}: {reason}' for path, reason in skipped.items()]
    times = [[[view.time for view in clip.views]] for clip in clips if clip.duration]
    if times:
        shown = np.concatenate([_pairwise(np.array(of_clip)) for of_clip in times])
        lines.append(
            f'|dt| of the shown clips: median {np.median(shown):.3f} s, mean {shown.mean():.3f} s'
        )
    for found in differences:
        lines += [repr(found.sampler), *(f'  {line}' for line in found.lines())]
    return '\n'.join(lines)
