"""Shortcuts: accuracy of mean colour and background in identifying a video or a class.

A contrastive loss learns whatever distinguishes videos and is constant within one. If mean colour
or the background does, the loss can be met without learning anything.
"""

import numpy as np

from .presets import Preset, get_preset
from .stills import render_probe_image
from .videos import around_first_cut, render_video

_DELAY = 0.75
"""Seconds between the two frames of a video: the median delay of two views in marginal sampling of
2.56 s."""


def ridge_accuracy(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> float:
    """Test a linear classifier, fitted by ridge regression on one-hot labels.

    The weight of the squared norm is 1, for features of unit variance.

    Args:
        train: (N, C) features.
        train_labels: (N,) int labels.
        test: (M, C) features.
        test_labels: (M,) int labels.

    Returns:
        float: Accuracy in [0, 1].
    """
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-6
    train, test = (np.c_[(part - mean) / deviation, np.ones(len(part))] for part in (train, test))
    targets = np.eye(int(train_labels.max()) + 1)[train_labels]
    gram = train.T @ train + len(train) * np.eye(train.shape[1])
    weights = np.linalg.solve(gram, train.T @ targets)
    return float(((test @ weights).argmax(axis=1) == test_labels).mean())


def retrieval_accuracy(queries: np.ndarray, keys: np.ndarray) -> float:
    """Compute the share of N videos whose two frames, (N, C) features each, are nearest."""
    # Colours and borders have few channels, so the difference itself fits into memory.
    distances = ((queries[:, None] - keys[None]) ** 2).sum(axis=-1)
    return float((distances.argmin(axis=1) == np.arange(len(queries))).mean())


def mean_colour(pictures: np.ndarray) -> np.ndarray:
    """Compute the mean colour of (N, H, W, 3) uint8 pictures, (N, 3) float64."""
    return pictures.mean(axis=(1, 2))


def corners(pictures: np.ndarray) -> np.ndarray:
    """Compute the mean colours of the corners, mostly background, (N, 12) float64."""
    length = max(1, pictures.shape[1] // 8)
    rows = (slice(0, length), slice(-length, None))
    return np.concatenate([pictures[:, y, x].mean(axis=(1, 2)) for y in rows for x in rows], axis=1)


def measure_shortcuts(
    preset: str | Preset = 'demo', seed: int = 0, num_videos: int = 64
) -> dict[str, float]:
    """Measure the shortcuts by mean colour and by background.

    Args:
        preset: Key of ``PRESETS``, or a preset. Defaults to ``'demo'``.
        seed: Seed of the world. Defaults to 0.
        num_videos: Number of videos to tell apart, 8 or more. Defaults to 64.

    Returns:
        dict[str, float]: Accuracies. ``video_by_*``: retrieval of the other frame of the own video
        among ``num_videos``, 0.75 s apart; ``video_by_*_at_once``: of neighbouring frames, the
        ceiling of these features; ``video_by_*_across_cut``, if there are cuts: of the frames
        before and after the first cut; ``class_by_*``: a linear classifier of the classes,
        trained on frames of the videos and tested on probe images.
    """
    preset = get_preset(preset) if isinstance(preset, str) else preset
    times = 0.5 + np.array([0.0, 1.0 / preset.fps, _DELAY])
    frames = _frames_of_all(preset, seed, [times] * num_videos)
    labels = np.array([preset.label_of(index) for index in range(num_videos)])
    count = 25 * len(preset.classes)
    probe = np.stack([render_probe_image(preset, seed, 'val', index) for index in range(count)])
    probe_labels = np.array([preset.label_of(index) for index in range(count)])
    cut_times = [around_first_cut(preset, seed, index) for index in range(num_videos)]
    has_cuts = all(each is not None for each in cut_times)
    cuts = _frames_of_all(preset, seed, cut_times) if has_cuts else None
    result = {'chance_video': 1 / num_videos, 'chance_class': 1 / len(preset.classes)}
    for name, feature in (('mean_colour', mean_colour), ('corners', corners)):
        first, neighbour, later = (feature(frames[:, time]) for time in range(3))
        result[f'video_by_{name}'] = retrieval_accuracy(first, later)
        result[f'video_by_{name}_at_once'] = retrieval_accuracy(first, neighbour)
        if cuts is not None:
            before, after = (feature(cuts[:, time]) for time in range(2))
            result[f'video_by_{name}_across_cut'] = retrieval_accuracy(before, after)
        result[f'class_by_{name}'] = ridge_accuracy(
            np.concatenate([first, later]), np.tile(labels, 2), feature(probe), probe_labels
        )
    return result


def _frames_of_all(preset: Preset, seed: int, times: list[np.ndarray]) -> np.ndarray:
    return np.stack(
        [list(render_video(preset, seed, index, each)) for index, each in enumerate(times)]
    )


def report_shortcuts(preset: str | Preset = 'demo', seed: int = 0) -> str:
    """Format the measured shortcuts as a table of several lines."""
    found = measure_shortcuts(preset, seed)
    lines = ['What gives a video or a class away (accuracy)  mean colour  corners (background)']
    for title, key, chance in (
        ('own video among 64, 0.75 s later', 'video_by_{}', 'chance_video'),
        ('own video among 64, the next frame', 'video_by_{}_at_once', 'chance_video'),
        ('own video among 64, across a cut', 'video_by_{}_across_cut', 'chance_video'),
        ('class of an image, linear', 'class_by_{}', 'chance_class'),
    ):
        if key.format('corners') not in found:
            continue
        colour, background = (found[key.format(name)] for name in ('mean_colour', 'corners'))
        title = f'{title} (chance {found[chance]:.3f})'
        lines.append(f'{title:<46} {colour:>11.3f}  {background:>20.3f}')
    return '\n'.join(lines)
