"""Propagation of a video's first segmentation to its other frames, by the nearest features.

Each position of a frame takes the labels of the positions that resemble it most in the frames
before, within a neighbourhood of its own place. No training: a test of the features alone.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .encoder import Encoder

_TILE = 12  # cells each way that are compared at a time: larger tiles meet more cells out of reach


@dataclass(frozen=True)
class Propagation:
    """Settings of label propagation.

    Attributes:
        short_side (int): Size of the frames in pixels; the ratio of the sides is kept.
        multiple (int): Sides are rounded down to a multiple of it.
        output_stride (int): Pixels per cell of a ResNet's feature map.
        radius (int): Reach of the neighbourhood in cells.
        square (bool): The neighbourhood is a square of ``radius`` cells each way, not a circle of
            the cells nearer than ``radius``.
        top_k (int): Number of most similar cells that count, in all context frames together.
        temperature (float): Of the softmax over their cosines.
        context (int): Number of frames before the current one, besides the first frame.
        restrict_first (bool): The neighbourhood holds for the first frame as well.
        padding (str): Frames before the video's start: ``'none'``; ``'first'`` repeats the first
            frame. With ``'apart'`` the first frame is never among those before the current one.
        soft_labels (bool): Reduce the first labels by bilinear interpolation, not to the nearest.
        normalise (bool): Stretch the scores of each object in a frame to [0, 1].
        crisp (bool): Take the best object at the frame's reduced size, then enlarge the labels.
    """

    short_side: int = 480
    multiple: int = 1
    output_stride: int = 8
    radius: int = 18
    square: bool = False
    top_k: int = 10
    temperature: float = 0.07
    context: int = 20
    restrict_first: bool = True
    padding: str = 'none'
    soft_labels: bool = False
    normalise: bool = True
    crisp: bool = False

    def context_of(self, frame: int) -> list[int]:
        """List the frames whose labels a frame gets, the first frame in front."""
        start = frame - self.context
        if self.padding == 'first':
            return [0, *(max(0, number) for number in range(start, frame))]
        return [0, *range(max(self.padding == 'apart', start), frame)]


PROPAGATIONS = {
    'vfs': Propagation(),
    'crw': Propagation(
        radius=12,
        temperature=0.05,
        restrict_first=False,
        padding='first',
        soft_labels=True,
        normalise=False,
    ),
    'dino': Propagation(
        multiple=64,
        radius=12,
        square=True,
        top_k=5,
        temperature=0.1,
        context=7,
        padding='apart',
        crisp=True,
    ),
}
"""The protocols of VFS (https://github.com/xvjiarui/VFS), which the paper follows, CRW
(https://github.com/ajabri/videowalk) and DINO (https://github.com/facebookresearch/dino). VFS gives
ResNet-18 a radius of 12."""


def segment_frames(
    encoder: Encoder,
    frames: Iterable[np.ndarray],
    first_mask: np.ndarray,
    layer: str | int = 'res4',
    settings: Propagation = PROPAGATIONS['vfs'],
) -> Iterator[np.ndarray]:
    """Segment the frames of a video after the first, whose segmentation is given.

    Args:
        encoder (Encoder): Network whose features are compared.
        frames (Iterable[np.ndarray]): RGB, uint8, shape (H, W, 3), in order; read as needed.
        first_mask (np.ndarray): Objects of the first frame, shape (H, W): 0 is the background,
            and the objects have 1, 2 and so on.
        layer (str | int): Layer of the encoder. Defaults to 'res4'.
        settings (Propagation): Defaults to those of VFS.

    Yields:
        np.ndarray: Objects of the second and each later frame, uint8, shape (H, W).
    """
    size = first_mask.shape
    features: dict[int, Tensor] = {}
    labels: dict[int, Tensor] = {}
    for number, frame in enumerate(frames):
        small = cv2.resize(frame, _reduced(size, settings)[::-1])  # bilinear
        found = F.normalize(encoder(small[None], layer)[0], dim=0)
        grid = tuple(found.shape[1:])
        features[number] = found.flatten(1).T.contiguous()
        if number == 0:
            labels[0] = _first_labels(first_mask, grid, settings).to(found.device)
            continue
        context = settings.context_of(number)
        labels[number] = propagate(
            features[number],
            [features[i] for i in context],
            [labels[i] for i in context],
            grid,
            settings,
        )
        yield _objects(labels[number].T.unflatten(1, grid), small.shape[:2], size, settings)
        for past in [i for i in features if 0 < i <= number - settings.context]:
            del features[past], labels[past]


def propagate(
    queries: Tensor,
    keys: list[Tensor],
    values: list[Tensor],
    grid: tuple[int, int],
    settings: Propagation,
) -> Tensor:
    """Average the values of the most similar cells of the context frames for each cell.

    Args:
        queries (Tensor): Unit features of a frame's cells, row by row, shape (h * w, C).
        keys (list[Tensor]): Those of the context frames, the first frame in front, each of this
            shape.
        values (list[Tensor]): Labels of the context frames' cells, each of shape (h * w, K).
        grid (tuple[int, int]): h and w.
        settings (Propagation): Neighbourhood, number of cells and temperature.

    Returns:
        Tensor: Shape (h * w, K). Memory is bounded: a tile of cells is compared at a time.
    """
    reach = settings.radius if settings.square else settings.radius - 1
    free = 0 if settings.restrict_first else 1
    query_map, *key_maps = (part.unflatten(0, grid) for part in (queries, *keys[free:]))
    value_maps = [value.unflatten(0, grid) for value in values[free:]]
    out = values[0].new_empty(*grid, values[0].shape[1])
    for top, left in itertools.product(*(range(0, side, _TILE) for side in grid)):
        spans = [(at, min(at + _TILE, side)) for at, side in zip((top, left), grid, strict=True)]
        here = tuple(slice(*span) for span in spans)
        near = tuple(
            slice(max(0, start - reach), min(side, end + reach))
            for (start, end), side in zip(spans, grid, strict=True)
        )
        far = _is_far(here, near, settings, queries.device)
        query = query_map[here].flatten(0, 1)
        similar = [query @ key.T for key in keys[:free]]
        similar += [
            (query @ key[near].flatten(0, 1).T).masked_fill_(far, -torch.inf) for key in key_maps
        ]
        value = torch.cat([*values[:free], *(value[near].flatten(0, 1) for value in value_maps)])
        similar = torch.cat(similar, dim=1)
        best, cells = similar.topk(min(settings.top_k, similar.shape[1]), dim=1)
        weights = (best / settings.temperature).softmax(dim=1)
        found = (weights[..., None] * value[cells]).sum(dim=1)
        out[here] = found.unflatten(0, out[here].shape[:2])
    return out.flatten(0, 1)


def _is_far(
    here: tuple[slice, ...], near: tuple[slice, ...], settings: Propagation, device: torch.device
) -> Tensor:
    """Tell which cells of a part of a grid are out of reach of those of another, bool (M, N)."""
    down, across = (
        torch.arange(a.start, a.stop, device=device)[:, None]
        - torch.arange(b.start, b.stop, device=device)
        for a, b in zip(here, near, strict=True)
    )
    down, across = down[:, None, :, None], across[None, :, None, :]
    if settings.square:
        far = (down.abs() > settings.radius) | (across.abs() > settings.radius)
    else:
        far = down**2 + across**2 >= settings.radius**2
    return far.flatten(2).flatten(0, 1)


def _reduced(size: tuple[int, int], settings: Propagation) -> tuple[int, int]:
    """Height and width of the frames that the network gets."""
    scale = settings.short_side / min(size)
    step = settings.multiple
    height, width = (max(step, int(side * scale + 0.5) // step * step) for side in size)
    return height, width


def _first_labels(mask: np.ndarray, grid: tuple[int, int], settings: Propagation) -> Tensor:
    """Labels of the first frame's cells, one column per object and the background, (h * w, K)."""
    planes = F.one_hot(torch.from_numpy(mask.astype(np.int64))).permute(2, 0, 1)[None].float()
    if settings.soft_labels:
        small = F.interpolate(planes, size=grid, mode='bilinear', align_corners=False)
    else:
        small = F.interpolate(planes, size=grid, mode='nearest-exact')
    return small[0].flatten(1).T.contiguous()


def _objects(
    scores: Tensor, small: tuple[int, int], size: tuple[int, int], settings: Propagation
) -> np.ndarray:
    """Best object of each pixel, (H, W), from the scores of the cells, (K, h, w)."""
    enlarged = small if settings.crisp else size
    scores = F.interpolate(scores[None], size=enlarged, mode='bilinear', align_corners=False)[0]
    if settings.normalise:
        low, high = scores.amin(dim=(1, 2), keepdim=True), scores.amax(dim=(1, 2), keepdim=True)
        scores = torch.where(high > 0, (scores - low) / (high - low + 1e-12), scores)
    objects = scores.argmax(dim=0).to(torch.uint8)
    if settings.crisp:
        objects = F.interpolate(objects[None, None], size=size, mode='nearest-exact')[0, 0]
    return objects.cpu().numpy()
