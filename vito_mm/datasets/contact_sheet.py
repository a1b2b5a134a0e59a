"""One picture of what a run will see: its first clips, their crops and views, their time lines."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope
from mmpretrain.datasets import RandomResizedCrop

from vito_mm.registry import DATA_SAMPLERS, DATASETS, MODELS
from vito_mm.videos import IMAGE_EXTENSIONS, decode_frames, place_segment

from .clip_sampler import ClipSampler, Draw
from .transforms.augment_views import AugmentViews
from .transforms.byol_augmentation import JITTER_ORDERS, ViewAugmentation
from .transforms.decode_frames import DecodeFrames
from .transforms.sample_frames import SampleFrames
from .video_dataset import VideoDataset, video_datasets

MAX_CLIPS = 100
"""Most clips of one sheet: a picture cannot be higher than 65,535 pixels."""


@dataclass
class View:
    """One view of a clip and where it comes from.

    Args:
        name (str): Which augmentation: 'A1', 'A2', ..., in the order of ``AugmentViews``.
        time (float): Drawn moment, in seconds from the start of the video.
        frame_time (float): When the frame on screen at that moment begins, in seconds.
        frame (np.ndarray): That frame as it goes into the crop, RGB, uint8.
        box (tuple, optional): Left, top, width and height of the crop in pixels of ``frame``; None
            if the pipeline has no ``RandomResizedCrop``.
        image (np.ndarray): View that the network gets, not yet normalised: RGB, float32 within
            [0, 255].
        augmentation (ViewAugmentation, optional): What was drawn; None if the pipeline has no
            ``BYOLAugmentation``.
        steps (list[str]): Names of the transforms of the view.
    """

    name: str
    time: float
    frame_time: float
    frame: np.ndarray
    box: tuple[int, int, int, int] | None
    image: np.ndarray
    augmentation: ViewAugmentation | None
    steps: list[str]


@dataclass
class Clip:
    """One sample of a run.

    Args:
        draw (Draw): Index of the sample, with the number of the draw.
        path (str): File of the video.
        label (int, optional): Label of the manifest.
        duration (float): Duration of the video in seconds; 0 for an image.
        part (tuple[float, float]): Start and end, in seconds, of what the row of the manifest takes
            of the video; usually all of it.
        segment (tuple[float, float]): Start and end of the clip segment in seconds.
        views (list[View]): The views.
        skipped (list[tuple[str, str]]): Videos for which this one stands in, with the reasons.
    """

    draw: Draw
    path: str
    label: int | None
    duration: float
    part: tuple[float, float]
    segment: tuple[float, float]
    views: list[View]
    skipped: list[tuple[str, str]]


@dataclass
class Distances:
    """How far apart in time a sampler takes the views of a clip.

    Args:
        sampler (SampleFrames): The sampler.
        values (np.ndarray): Absolute time differences of all pairs of views, in seconds.
        num_clips (int): Clips of videos.
        num_images (int): Clips of single images, which have no time and are not in ``values``.
    """

    sampler: SampleFrames
    values: np.ndarray
    num_clips: int
    num_images: int


def write_contact_sheet(
    cfg: Config, file: str | os.PathLike, num_clips: int = 6, seed: int | None = None
) -> str:
    """Draw the first clips of a pre-training run, and the histogram of its time differences.

    Args:
        cfg (Config): Config of the run.
        file: PNG to write; its folder is made.
        num_clips (int): Clips to show, at most ``MAX_CLIPS``. Defaults to 6.
        seed (int, optional): Seed of the run. Defaults to None, which means that of the config.

    Returns:
        str: What is in the picture, in a few lines.

    Raises:
        ValueError: If the config does not train on videos, or a setting makes no sense.
        FileNotFoundError: If there are no videos.
        RuntimeError: If none of them can be read; lists the first reasons.
    """
    if not 1 <= num_clips <= MAX_CLIPS:
        raise ValueError(f'num_clips must be within 1 and {MAX_CLIPS}, got {num_clips}')
    sampler = build_sampler(cfg, seed)
    clips = draw_clips(cfg, sampler, num_clips)
    distances = draw_distances(sampler)
    title = f'{cfg.filename or "a config"}, seed {sampler.seed}'
    figure = _draw_sheet(clips, distances, title)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=_DPI, format='png')
    return summarise(clips, distances)


def build_sampler(cfg: Config, seed: int | None = None) -> ClipSampler:
    """Build the stream of clips of a run and the data set that it draws from.

    Args:
        cfg (Config): Config of the run.
        seed (int, optional): Seed of the run. Defaults to None, which means ``randomness.seed`` of
            the config.

    Returns:
        ClipSampler: The stream; ``dataset`` is what it draws from.

    Raises:
        ValueError: If the config does not train on videos, or has no seed.
        FileNotFoundError: If there are no videos.
    """
    init_default_scope(cfg.get('default_scope') or 'mmpretrain')
    loader = cfg.get('train_dataloader') or {}
    kinds = list(_types_of(loader.get('dataset')))
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


def draw_distances(sampler: ClipSampler, num_clips: int = 20_000) -> list[Distances]:
    """Draw the moments of the first clips of a run, without decoding any.

    Args:
        sampler (ClipSampler): Stream of clips, from :func:`build_sampler`.
        num_clips (int): Number of draws. Defaults to 20,000.

    Returns:
        list[Distances]: One for each setting of ``SampleFrames``. The differences are those of
        videos that are as long as the segment; in shorter ones they shrink with the video.
    """
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
        Distances(stage, _pairwise(np.array(offsets)), len(offsets), len(images))
        for stage, offsets, images in found.values()
    ]


def _with_stage(stage: SampleFrames) -> Callable:
    return lambda results: (stage, results)


def _pairwise(offsets: np.ndarray) -> np.ndarray:
    """Absolute differences of all pairs of columns."""
    if not len(offsets):
        return np.zeros(0)
    pairs = combinations(range(offsets.shape[1]), 2)
    return np.concatenate([np.abs(offsets[:, one] - offsets[:, two]) for one, two in pairs])


def draw_clips(cfg: Config, sampler: ClipSampler, num_clips: int = 6) -> list[Clip]:
    """Make the first clips of a run, and note how each came about.

    The views are those of the data set's items: observers between the stages of its pipelines look
    on, and draw no random number that is not given back. They stay in the data set.

    Args:
        cfg (Config): Config of the run; says what happens to views before the network.
        sampler (ClipSampler): Stream of clips, from :func:`build_sampler`.
        num_clips (int): Number of clips. Defaults to 6.

    Returns:
        list[Clip]: The clips.

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
    """Looks on while a data set makes an item."""

    def __init__(self, dataset: Any) -> None:
        self.results: dict = {}
        self.views: list[dict] = []
        for videos in video_datasets(dataset):
            stages = [self._begin]
            for stage in videos.pipeline.transforms:
                stages.append(stage)
                if isinstance(stage, DecodeFrames):
                    stages.append(self._note_decoder(stage))
                if isinstance(stage, AugmentViews):
                    stages.append(self._note_results)
                    for number, pipeline in enumerate(stage.pipelines, start=1):
                        pipeline.transforms = self._observed(f'A{number}', pipeline.transforms)
            videos.pipeline.transforms = stages

    def _begin(self, results: dict) -> dict:
        self.views = []  # also of a video that turned out to be bad
        return results

    def _note_decoder(self, stage: DecodeFrames) -> Callable:
        def note(results: dict) -> dict:
            self.decoder = stage
            return results

        return note

    def _note_results(self, results: dict) -> dict:
        self.results = dict(results)
        return results

    def _observed(self, name: str, steps: list[Callable]) -> list[Callable]:
        names = [type(step).__name__ for step in steps]

        def begin(results: dict) -> dict:
            view = dict(name=name, frame=results['img'].copy(), box=None, steps=names)
            self.views.append(view)
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
            self.views[-1].update(frame=results['img'].copy(), box=(left, top, width, height))
            return step(results)

        return crop

    def clip(self, draw: Draw, images: list[np.ndarray]) -> Clip:
        """What was seen of the last item."""
        seen = self.results
        duration = self._duration(seen['video_path'], seen.get('fps'))
        part = seen.get('start') or 0.0, min(seen.get('end') or duration, duration)
        offsets = np.array([*seen['segment_offsets'], 0.0, seen['segment']])
        *times, start, end = part[0] + place_segment(
            offsets, seen['segment'], seen['segment_start'], part[1] - part[0]
        )
        views = [
            View(
                time=float(time),
                frame_time=float(frame_time),
                image=image,
                **view | dict(frame=view['frame'][..., ::-1]),
            )
            for time, frame_time, image, view in zip(
                times, seen['frame_times'], images, self.views, strict=True
            )
        ]
        return Clip(
            draw=draw,
            path=seen['video_path'],
            label=seen.get('gt_label'),
            duration=duration,
            part=part,
            segment=(float(start), float(end)),
            views=views,
            skipped=list(dict(seen['skipped_videos']).items()),  # one may be drawn twice
        )

    def _duration(self, path: str, fps: float | None) -> float:
        """Duration as the decoder told it, which it tells nobody but the chooser of times."""
        told = []

        def listen(duration: float) -> np.ndarray:
            told.append(float(duration))
            return np.zeros(1)

        decode_frames(
            path, listen, self.decoder.backend, time_limit=self.decoder.time_limit, fps=fps
        )
        return told[0]


def _types_of(settings: Any) -> Iterator[Any]:
    """Types of a data set and of those that it wraps, before any is built."""
    if isinstance(settings, Mapping):
        inner = settings.get('datasets') or [settings.get('dataset')]
        yield settings.get('type')
        for other in inner:
            yield from _types_of(other)


def _is_video_dataset(kind: Any) -> bool:
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    return isinstance(kind, type) and issubclass(kind, VideoDataset)


def summarise(clips: list[Clip], distances: list[Distances]) -> str:
    """Tell clips, skipped videos and time differences in a few lines.

    Args:
        clips (list[Clip]): From :func:`draw_clips`.
        distances (list[Distances]): From :func:`draw_distances`.

    Returns:
        str: The lines.
    """
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
    for found in distances:
        lines += [repr(found.sampler), *(f'  {line}' for line in _numbers(found))]
    return '\n'.join(lines)


def _numbers(found: Distances) -> list[str]:
    lines = []
    if found.num_clips:
        low, high = mode_of(found)
        lines.append(
            f'|dt| of {len(found.values):,} pairs of views in {found.num_clips:,} clips: '
            f'mode {low:.2f} to {high:.2f} s, median {np.median(found.values):.3f} s, '
            f'mean {found.values.mean():.3f} s'
        )
        if found.sampler.method == 'marginal':
            lines.append(
                f'in theory: mode 0, median {found.sampler.segment * (1 - 0.5**0.5):.3f} s, '
                f'mean {found.sampler.segment / 3:.3f} s'
            )
        lines.append('in videos shorter than the segment it shrinks with them')
    if found.num_images:
        lines.append(f'{found.num_images:,} clips of single images, which have no time')
    return lines


_BINS = 25


def mode_of(found: Distances) -> tuple[float, float]:
    """Find the most frequent time difference.

    Args:
        found (Distances): From :func:`draw_distances`, of at least one video.

    Returns:
        tuple[float, float]: Lower and upper edge, in seconds, of the fullest bin of the histogram:
        a 25th of the segment.
    """
    counts, edges = _histogram(found)
    fullest = int(counts.argmax())
    return float(edges[fullest]), float(edges[fullest + 1])


def _histogram(found: Distances) -> tuple[np.ndarray, np.ndarray]:
    return np.histogram(found.values, bins=_BINS, range=(0, found.sampler.segment))


# The picture. Everything is placed in pixels from the upper left corner, so that frames keep their
# shapes and views of usual size are shown pixel by pixel.
_DPI = 100
_MARGIN = 20
_FRAME, _VIEW = (340, 224), (224, 224)  # boxes that frames and views are fitted in
_NARROWEST = 260  # so that there is room for what is written about a frame
_GAP, _PAIR_GAP = 12, 24  # between a frame and its view, and to the next frame
_PAIRS_A_LINE = 3
_HEADER, _NOTE, _TIMES, _NO_TIMES, _CAPTION, _PRINT = 26, 18, 66, 26, 20, 58
_TITLE, _NUMBERS, _HISTOGRAM = 50, 150, 230
_COLOURS = ('tab:blue', 'tab:orange', 'tab:green', 'tab:red', 'tab:purple', 'tab:brown')
_SMALL, _NORMAL, _LARGE = 8, 10, 13  # points


class _Sheet:
    """A figure with a ruler of pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor='white')

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        place = (x / self.width, 1 - (y + height) / self.height)
        return self.figure.add_axes((*place, width / self.width, height / self.height))

    def text(self, x: float, y: float, text: str, size: float = _NORMAL, **kwargs: Any) -> None:
        """Text whose top is at y."""
        self.figure.text(
            x / self.width,
            1 - y / self.height,
            _printable(text),
            size=size,
            va='top',
            parse_math=False,  # file names have dollars
            **kwargs,
        )


def _printable(text: str) -> str:
    """Escapes for what the font that comes with matplotlib lacks, instead of empty boxes."""
    return ''.join(
        char if ord(char) < 0x250 else char.encode('ascii', 'backslashreplace').decode()
        for char in text
    )


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f'...{text[-limit + 3 :]}'


@dataclass
class _Grid:
    """Where pairs of a frame and its view are placed; all clips share it, so that they align."""

    columns: int
    lines: int
    frame_width: int
    height: int

    @classmethod
    def of(cls, views: list[View], num_views: int) -> '_Grid':
        lines = -(-num_views // _PAIRS_A_LINE)
        frames = [_fitted(view.frame, _FRAME) for view in views]
        pictures = frames + [_fitted(view.image, _VIEW, whole=True) for view in views]
        return cls(
            columns=-(-num_views // lines),
            lines=lines,
            frame_width=max(_NARROWEST, *(width for width, _ in frames)),
            height=max(height for _, height in pictures),
        )

    @property
    def pair(self) -> int:
        return self.frame_width + _GAP + _VIEW[0] + _PAIR_GAP

    @property
    def line(self) -> int:
        return _CAPTION + self.height + _PRINT


def _fitted(image: np.ndarray, room: tuple[int, int], whole: bool = False) -> tuple[int, int]:
    """Width and height of an image that is to fill the room, enlarged by a whole factor or any."""
    height, width = image.shape[:2]
    scale = min(room[0] / width, room[1] / height)
    scale = int(scale) if whole and scale >= 1 else scale
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _draw_sheet(clips: list[Clip], distances: list[Distances], title: str) -> Figure:
    views = [view for clip in clips for view in clip.views]
    grid = _Grid.of(views, max(len(clip.views) for clip in clips))
    heights = [
        _HEADER
        + _NOTE * len(clip.skipped)
        + (_TIMES if clip.duration else _NO_TIMES)
        + grid.lines * grid.line
        + _MARGIN
        for clip in clips
    ]
    panels = [_NUMBERS + _HISTOGRAM * bool(found.num_clips) for found in distances]
    sheet = _Sheet(
        2 * _MARGIN + grid.columns * grid.pair - _PAIR_GAP,
        _TITLE + sum(heights) + sum(panels),
    )
    sheet.text(_MARGIN, 14, _shortened(title, sheet.width // 11), _LARGE, weight='bold')
    y = _TITLE
    for number, (clip, height) in enumerate(zip(clips, heights, strict=True), start=1):
        _draw_clip(sheet, y, clip, number, grid)
        y += height
    for found, height in zip(distances, panels, strict=True):
        _draw_distances(sheet, y, found)
        y += height
    return sheet.figure


def _draw_clip(sheet: _Sheet, y: float, clip: Clip, number: int, grid: _Grid) -> None:
    label = '' if clip.label is None else f', label {clip.label}'
    name = _shortened(clip.path, sheet.width // 9 - 30)
    sheet.text(_MARGIN, y, f'{number}   {name}{label}', weight='bold')
    y += _HEADER
    for path, reason in clip.skipped:
        note = f'stands in for {_shortened(path, sheet.width // 14)}: {reason}'
        sheet.text(_MARGIN, y - 4, note[: sheet.width // 7], color='tab:red', size=_SMALL)
        y += _NOTE
    _draw_times(sheet, y, clip)
    y += _TIMES if clip.duration else _NO_TIMES
    for index in range(len(clip.views)):
        line, column = divmod(index, grid.columns)
        place = _MARGIN + column * grid.pair, y + line * grid.line
        _draw_view(sheet, *place, clip, index, grid)


def _draw_times(sheet: _Sheet, y: float, clip: Clip) -> None:
    """The video with the segment on the left, the segment with the moments on the right."""
    width = (sheet.width - 3 * _MARGIN) / 2
    if not clip.duration:
        sheet.text(_MARGIN, y, 'A single image: no time line', color='dimgrey')
        return
    start, end = clip.segment
    for x, low, high, what in (
        (_MARGIN, 0, clip.duration, 'video'),
        (2 * _MARGIN + width, start, end, 'segment'),
    ):
        axes = sheet.axes(x, y, width, 34)
        axes.set(xlim=(low, high), ylim=(len(clip.views) - 0.5, -0.5), yticks=[])
        for outside in ((0, clip.part[0]), (clip.part[1], clip.duration)):
            axes.axvspan(*outside, color='silver', lw=0)
        axes.axvspan(start, end, color='gold', alpha=0.35, lw=0)
        for index, view in enumerate(clip.views):
            colour = _COLOURS[index % len(_COLOURS)]
            axes.axvline(view.time, color=colour, lw=1)
            axes.plot(view.time, index, 'o', color=colour, ms=6, clip_on=False)
        axes.set_xticks([low, high], [f'{low:.2f} s', f'{what} to {high:.2f} s'], size=_SMALL)
        for text, side in zip(axes.get_xticklabels(), ('left', 'right'), strict=True):
            text.set_horizontalalignment(side)


def _draw_view(sheet: _Sheet, x: float, y: float, clip: Clip, index: int, grid: _Grid) -> None:
    view, colour = clip.views[index], _COLOURS[index % len(_COLOURS)]
    style = dict(color=colour, weight='bold', size=_SMALL + 1)
    when = f'   {view.time:.2f} s (frame: {view.frame_time:.2f} s)' if clip.duration else ''
    right = x + grid.frame_width + _GAP
    sheet.text(x, y, f'{index + 1}{when}', **style)
    sheet.text(right, y, view.name, **style)
    y += _CAPTION
    axes = _show(sheet, x, y, view.frame, _fitted(view.frame, _FRAME))
    height, width = view.frame.shape[:2]
    crop = f'{width} x {height}, no RandomResizedCrop'
    if view.box:
        left, top, *size = view.box
        for line_colour, line_width in (('black', 4), (colour, 2)):
            box = Rectangle((left, top), *size, fill=False, lw=line_width, color=line_colour)
            axes.add_patch(box).set_clip_on(False)
        share = size[0] * size[1] / (width * height)
        crop = f'{width} x {height}, crop {size[0]} x {size[1]}\n{share:.0%} of the area'
    image = view.image.round().clip(0, 255).astype(np.uint8)
    _show(sheet, right, y, image, _fitted(image, _VIEW, whole=True))
    y += grid.height + 6
    sheet.text(x, y, crop, size=_SMALL, color='dimgrey')
    sheet.text(right, y, _describe(view), size=_SMALL, color='dimgrey')


def _show(sheet: _Sheet, x: float, y: float, image: np.ndarray, size: tuple[int, int]) -> Axes:
    axes = sheet.axes(x, y, *size)
    axes.imshow(image, aspect='auto', extent=(0, image.shape[1], image.shape[0], 0))
    axes.set_axis_off()
    return axes


def _describe(view: View) -> str:
    """What was drawn for a view, in three short lines, the colours in the order of their turns."""
    drawn = view.augmentation
    if drawn is None:
        others = [step for step in view.steps if step != 'RandomResizedCrop']
        return 'what these drew is not known:\n' + _wrapped(others) if others else 'crop only'
    effects = ['flip'] * drawn.flip + ['grey'] * drawn.grayscale
    effects += [f'sigma {drawn.sigma:.2f}'] * bool(drawn.sigma) + ['solarize'] * drawn.solarize
    neutral = dict(brightness=1, contrast=1, saturation=1, hue=0)
    colours = [
        f'{name} {getattr(drawn, name):{"+.3f" if name == "hue" else ".2f"}}'
        for name in JITTER_ORDERS[drawn.order]
        if getattr(drawn, name) != neutral[name]
    ]
    colours = colours or ['no colour jitter']
    return _wrapped(effects or ['no flip/grey/blur/solarize']) + '\n' + _wrapped(colours)


def _wrapped(words: list[str], limit: int = 36) -> str:
    lines = ['']
    for word in words:
        longer = f'{lines[-1]}, {word}' if lines[-1] else word
        if len(longer) > limit:
            lines.append(word)
        else:
            lines[-1] = longer
    return '\n'.join(lines)


def _draw_distances(sheet: _Sheet, y: float, found: Distances) -> None:
    segment, width = found.sampler.segment, sheet.width - 2 * _MARGIN
    sheet.text(_MARGIN, y + 10, 'Time between two views of a clip', _LARGE, weight='bold')
    text = '\n'.join([repr(found.sampler), *_numbers(found)])
    sheet.text(_MARGIN, y + 40, text, size=_SMALL + 1, linespacing=1.5)
    if not found.num_clips:
        return
    axes = sheet.axes(_MARGIN + 50, y + _NUMBERS, width - 60, _HISTOGRAM - 60)
    counts, edges = _histogram(found)
    density = counts / counts.sum() / np.diff(edges)
    axes.stairs(density, edges, fill=True, color='tab:blue', alpha=0.5, label='drawn')
    axes.axvline(np.median(found.values), color='tab:blue', label='median')
    if found.sampler.method == 'marginal':
        theory = 2 * (segment - edges) / segment**2
        axes.plot(edges, theory, color='tab:red', label='2 (T - dt) / T^2')
    axes.set(xlim=(0, segment), xlabel='|dt|, seconds', ylabel='density, 1/s')
    axes.legend(loc='upper right', frameon=False)
