"""Nearest neighbours of frames by what a network makes of them."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch

from vito_mm.probes import neighbours as search
from vito_mm.probes.encoder import Encoder
from vito_mm.videos import frames as reader
from vito_mm.videos.frames import Clip

from .canvas import GREY, Canvas, shortened, text_width, wrapped
from .clips import read_clips

_CLIPS_AT_ONCE = 16


@dataclass(frozen=True)
class Frames:
    """Frames of videos and images, and their features."""

    rows: list[Mapping[str, Any]]  # of a manifest: the video of each
    labels: list[str | None]  # class of each, None if unknown
    times: np.ndarray  # when each begins, in seconds
    features: np.ndarray  # of length 1, float32, shape (n, C)

    def __len__(self) -> int:
        return len(self.rows)

    def videos(self) -> np.ndarray:
        """Real path of each frame's file, shape (n, )."""
        return np.array([os.path.realpath(row['path']) for row in self.rows], object)


class Neighbour(NamedTuple):
    """Index in the gallery, cosine, and whether it is of the query's class (None: unknown)."""

    index: int
    cosine: float
    is_right: bool | None


def labels_of(rows: Sequence[Mapping[str, Any]], folder: str | None) -> list[str | None]:
    """Classes: ``class_name`` or ``label`` of a row, else its sub-folder of ``folder``, if any."""
    found: list[str | None] = []
    for row in rows:
        label = row.get('class_name', row.get('label'))
        if label is None and folder is not None:
            inside = os.path.relpath(row['path'], folder).split(os.sep)
            label = inside[0] if len(inside) > 1 else None
        found.append(None if label is None else str(label))
    return found


def choose(labels: Sequence[str | None], count: int, seed: int) -> list[int]:
    """Choose at most so many videos at random, equally many per class; ascending indices."""
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    seen: Counter[str | None] = Counter()
    turn = {}
    for index in order:
        turn[index] = seen[labels[index]]
        seen[labels[index]] += 1
    return sorted(sorted(order, key=turn.get)[:count])


def read_frames(
    encoder: Encoder,
    rows: Sequence[Mapping[str, Any]],
    labels: Sequence[str | None],
    size: int,
    frames_per_video: int = 1,
    layer: str = 'pooled',
    workers: int = 1,
) -> tuple[Frames, list[str]]:
    """Decode frames spread over videos and compute their features.

    Args:
        encoder (Encoder): Computes the features.
        rows (Sequence[Mapping]): Rows of a manifest.
        labels (Sequence[str | None]): Class of each row.
        size (int): Side in pixels of :func:`vito_mm.videos.frames.evaluation_view`.
        frames_per_video (int): Evenly spread. Defaults to 1.
        layer (str): See :class:`vito_mm.probes.encoder.Encoder`. Defaults to 'pooled'.
        workers (int): Processes that decode. Defaults to 1.

    Returns:
        tuple: The frames, and the errors of videos that cannot be read.
    """
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    errors: list[str] = []
    view = reader.evaluation_view(size)

    def read(row: Mapping[str, Any]) -> Clip:
        return reader.spread(row, frames_per_video, view).distinct()

    results = read_clips(rows, range(len(rows)), read, workers)
    while some := dict(islice(results, _CLIPS_AT_ONCE)):
        errors += [result for result in some.values() if isinstance(result, str)]
        clips = {index: clip for index, clip in some.items() if not isinstance(clip, str)}
        if not clips:
            continue
        frames = np.concatenate([clip.frames for clip in clips.values()])
        vectors = encoder(frames, layer, batch_size=32).cpu().numpy()
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        ends = np.cumsum([len(clip.frames) for clip in clips.values()])[:-1]
        for (index, clip), part in zip(clips.items(), np.split(vectors, ends), strict=True):
            found[index] = clip.times, part
    kept = [index for index in sorted(found) for _ in found[index][0]]
    frames = Frames(
        [rows[index] for index in kept],
        [labels[index] for index in kept],
        np.concatenate([np.zeros(0), *(found[index][0] for index in sorted(found))]),
        np.concatenate([found[index][1] for index in sorted(found)]) if found else np.zeros((0, 0)),
    )
    return frames, errors


def nearest(
    queries: Frames, gallery: Frames, k: int, same_video: bool = False
) -> list[list[Neighbour]]:
    """Find the nearest frames of other videos by cosine, of each video its nearest one.

    Args:
        queries (Frames): Frames to find neighbours of.
        gallery (Frames): Frames to search.
        k (int): Neighbours of each query, fewer if there are not so many videos.
        same_video (bool): Count frames of the query's own video, which are near by themselves.
            Defaults to False.

    Returns:
        list[list[Neighbour]]: For each query, nearest first.
    """
    known = set(gallery.labels) - {None}
    videos = gallery.videos()
    # So many that they are of more than k videos.
    enough = (k + 1) * max(Counter(videos).values(), default=0)
    features = (torch.from_numpy(frames.features) for frames in (queries, gallery))
    cosines, indices = search.nearest(*features, enough)
    found = []
    for video, label, *near in zip(
        queries.videos(), queries.labels, cosines.tolist(), indices.tolist(), strict=True
    ):
        taken = set() if same_video else {video}
        of_query: list[Neighbour] = []
        for cosine, index in zip(*near, strict=True):
            if videos[index] not in taken and len(of_query) < k:
                taken.add(videos[index])
                is_right = gallery.labels[index] == label if label in known else None
                of_query.append(Neighbour(index, cosine, is_right))
        found.append(of_query)
    return found


class Score(NamedTuple):
    """Share of right neighbours within [0, 1], that of random videos, and number of neighbours."""

    share: float
    chance: float
    count: int


def score(
    queries: Frames, gallery: Frames, found: Sequence[Sequence[Neighbour]], same_video: bool = False
) -> Score | None:
    """Score what :func:`nearest` found; None if no query has a class that the gallery has."""
    classes = dict(zip(gallery.videos(), gallery.labels, strict=True))
    right, chances = [], []
    for video, label, neighbours in zip(queries.videos(), queries.labels, found, strict=True):
        judged = [neighbour.is_right for neighbour in neighbours if neighbour.is_right is not None]
        if not judged:  # then there may be no other video
            continue
        others = [name for other, name in classes.items() if same_video or other != video]
        right += judged
        chances += [others.count(label) / len(others)] * len(judged)
    return Score(float(np.mean(right)), float(np.mean(chances)), len(right)) if right else None


# The picture, in pixels. Colours that are told apart without seeing red and green.
_RIGHT, _WRONG, _UNKNOWN = '#009e73', '#d55e00', '#bbbbbb'
_SIDE, _GAP, _BORDER, _MARGIN, _LINE, _SMALL = 160, 14, 4, 16, 17, 12
_NARROWEST = 640


def draw_neighbours(
    queries: Frames, gallery: Frames, found: Sequence[Sequence[Neighbour]], title: str, summary: str
) -> np.ndarray:
    """Draw a row for each query (RGB, uint8): the query, then what :func:`nearest` found."""
    most = max(map(len, found), default=0)
    column, row = _SIDE + _GAP, _SIDE + 2 * _LINE + 18
    width = max(_NARROWEST, 2 * _MARGIN + (1 + most) * column + _GAP)
    lines = wrapped(summary, width - 2 * _MARGIN)
    if any(neighbour.is_right is not None for neighbours in found for neighbour in neighbours):
        lines.append('')
    top = _MARGIN + (len(lines) + 3) * _LINE + 8
    canvas = Canvas(width, top + len(found) * row + _MARGIN)
    canvas.title(title, _MARGIN)
    for number, line in enumerate(lines):
        y = _MARGIN + _LINE * (number + 1) + 8
        canvas.text(_MARGIN, y, line)
        if not line:
            _draw_legend(canvas, y + 4)
    canvas.text(_MARGIN, top - _LINE - _BORDER, 'query', bold=True)
    canvas.text(_MARGIN + column + _GAP, top - _LINE - _BORDER, 'nearest first', bold=True)
    for number, neighbours in enumerate(found):
        y = top + number * row
        _draw_frame(canvas, _MARGIN, y, queries, number, None)
        for place, neighbour in enumerate(neighbours, start=1):
            x = _MARGIN + place * column + _GAP
            _draw_frame(canvas, x, y, gallery, neighbour.index, neighbour)
    return canvas.array()


def _draw_legend(canvas: Canvas, y: int) -> None:
    right, wrong = _MARGIN, _MARGIN + 214
    for x, colour, text in (
        (right, _RIGHT, 'the class of the query'),
        (wrong, _WRONG, 'another class'),
    ):
        canvas.box(x + _BORDER, y + _BORDER, 8, 8, colour, _BORDER)
        canvas.text(x + 24, y, text, colour=colour, bold=True)


def _draw_frame(
    canvas: Canvas, x: int, y: int, frames: Frames, index: int, neighbour: Neighbour | None
) -> None:
    """A frame with its border and two lines; a query has none to be compared with."""
    row, time = frames.rows[index], frames.times[index]
    clip = reader.read(row, lambda *_: np.array([time]), reader.evaluation_view(_SIDE))
    canvas.paste(clip.frames[0], x, y)
    words, colour = [frames.labels[index] or ''], 'black'
    if neighbour is not None:
        colour = {True: _RIGHT, False: _WRONG, None: _UNKNOWN}[neighbour.is_right]
        words.insert(0, f'{neighbour.cosine:.3f}')
        canvas.box(x, y, _SIDE, _SIDE, colour, _BORDER)
    y += _SIDE + _BORDER + 2
    text = shortened(' '.join(words), _SIDE, _SMALL, bold=True)
    canvas.text(x, y, text, _SMALL, 'black' if colour == _UNKNOWN else colour, bold=True)
    when = f', {time:.2f} s' if clip.seconds else ''
    name = shortened(os.path.splitext(clip.name)[0], _SIDE - text_width(when, _SMALL), _SMALL)
    canvas.text(x, y + _LINE - 2, name + when, _SMALL, GREY)
