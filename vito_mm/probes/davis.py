"""Video object segmentation on DAVIS 2017 by label propagation, without training."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib import colormaps
from PIL import Image

from vito_mm.utils.progress import Progress
from vito_mm.utils.report import (
    Block,
    Heading,
    Paragraph,
    Picture,
    Table,
    Video,
    to_csv,
    write_document,
)
from vito_mm.utils.text import first_few
from vito_mm.videos.writing import write_video

from .encoder import Encoder
from .image_folders import ProbeError
from .label_images import draw_labels, sheet, shrunk, write_label_image
from .label_propagation import PROPAGATIONS, Propagation, segment_frames
from .record import Record
from .video_object_metric import score_objects

MEASURES = ('J', 'F')
PARTS = ('mean', 'recall', 'decay')

PUBLISHED = {
    'VITO ResNet-50': (65.5, 70.8),
    'BYOL ResNet-50': (63.8, 69.4),
    'MoCLR ResNet-50': (63.1, 67.8),
    'VFS ResNet-50': (67.0, 72.0),
}
"""J and F mean on DAVIS 2017 val by the protocol ``vfs``: https://arxiv.org/abs/2210.06433 and, the
last, https://arxiv.org/abs/2103.17263."""

CEILING = {'DINOv3 ViT-S/16': 72.7}
"""J&F of the strongest frozen features, by the protocol of their authors and not by ``vfs``:
https://arxiv.org/abs/2508.10104."""


FPS = 24
"""Frames of DAVIS per second."""


@dataclass(frozen=True)
class Sequence2017:
    """A sequence of DAVIS 2017.

    Attributes:
        name (str): Its name.
        frames (list[Path]): Frames in order.
        masks (list[Path]): Masks of the same frames: PNG images whose values are objects.
        num_objects (int): Objects of the first frame.
    """

    name: str
    frames: list[Path]
    masks: list[Path]
    num_objects: int


def find_sequences(root: str | os.PathLike, split: str = 'val') -> list[Sequence2017]:
    """List the sequences of a split, and check all frames and masks.

    Args:
        root (str | os.PathLike): Folder of DAVIS 2017, with ``JPEGImages/480p``,
            ``Annotations/480p`` and ``ImageSets/2017``.
        split (str): Name of the list there. Defaults to 'val'.

    Raises:
        ProbeError: If the list, a frame or a mask is missing, or a mask is no image of objects.
    """
    root = Path(root)
    listed = root / 'ImageSets' / '2017' / f'{split}.txt'
    if not listed.is_file():
        raise ProbeError(
            f'there is no {listed}: name the folder of DAVIS 2017 (TrainVal, 480p), which holds '
            'JPEGImages, Annotations and ImageSets'
        )
    names = listed.read_text().split()
    if not names:
        raise ProbeError(f'{listed} lists no sequence')
    return [_sequence(root, name) for name in names]


def _sequence(root: Path, name: str) -> Sequence2017:
    folders = [root / kind / '480p' / name for kind in ('JPEGImages', 'Annotations')]
    frames, masks = (
        sorted(folder.glob(f'*.{ending}'))
        for folder, ending in zip(folders, ('jpg', 'png'), strict=True)
    )
    if len(frames) < 3:
        raise ProbeError(f'{folders[0]} has {len(frames)} frames, and three are needed')
    known = {mask.stem for mask in masks}
    if missing := [frame.stem for frame in frames if frame.stem not in known]:
        raise ProbeError(
            f'{folders[1]} lacks the masks of {len(missing)} of {len(frames)} frames: '
            f'{first_few(missing, 3)}. Scores need the masks of all frames, as train and val have '
            'them'
        )
    masks = [folders[1] / f'{frame.stem}.png' for frame in frames]
    first = read_mask(masks[0])
    num_objects = int(first.max())
    if not num_objects:
        raise ProbeError(f'{masks[0]} shows no object')
    for mask in masks[1:]:
        objects = read_mask(mask)
        if objects.shape != first.shape or objects.max() > num_objects:
            raise ProbeError(
                f'{mask} does not go with the first mask of its sequence: '
                f'{objects.shape[1]} x {objects.shape[0]} pixels and {objects.max()} objects, not '
                f'{first.shape[1]} x {first.shape[0]} and {num_objects}'
            )
    return Sequence2017(name, frames, masks, num_objects)


def read_mask(file: Path) -> np.ndarray:
    """Read the objects of a mask, uint8, shape (H, W); 255, which is void, is background.

    Raises:
        ProbeError: If it is no PNG of one channel, or cannot be read.
    """
    try:
        with Image.open(file) as image:
            mode, objects = image.mode, np.array(image)
    except Exception as error:  # Pillow raises anything on damaged files
        raise ProbeError(f'{file} is not readable as an image: {error}') from None
    if mode not in ('P', 'L'):
        raise ProbeError(
            f'{file} is an image of mode {mode}: a mask has a palette, and its values are objects'
        )
    objects[objects == 255] = 0
    return objects


def read_frame(file: Path) -> np.ndarray:
    """Read a frame, RGB, uint8, shape (H, W, 3).

    Raises:
        ProbeError: If it cannot be read.
    """
    frame = cv2.imread(os.fspath(file))
    if frame is None:
        raise ProbeError(f'{file} is not readable as an image')
    return frame[..., ::-1]


def score_sequence(
    encoder: Encoder,
    sequence: Sequence2017,
    layer: str | int = 'res4',
    settings: Propagation = PROPAGATIONS['vfs'],
    out: Path | None = None,
) -> dict[str, Any]:
    """Segment a sequence and score its objects.

    Args:
        encoder (Encoder): Network whose features are compared.
        sequence (Sequence2017): The sequence.
        layer (str | int): Layer of the encoder. Defaults to 'res4'.
        settings (Propagation): Defaults to those of VFS.
        out (Path, optional): Folder for the masks, written as DAVIS has them, with its colours.
            Defaults to None.

    Returns:
        dict: ``objects``, for each of which ``{'J': {'mean', 'recall', 'decay'}, 'F': {...}}``,
        and ``seconds`` per frame.
    """
    started = time.monotonic()
    first = read_mask(sequence.masks[0])
    frames = (read_frame(file).copy() for file in sequence.frames)
    found = [first, *segment_frames(encoder, frames, first, layer, settings)]
    seconds = (time.monotonic() - started) / len(found)
    if out is not None:
        with Image.open(sequence.masks[0]) as given:
            palette = given.getpalette() if given.mode == 'P' else None
        for file, objects in zip(sequence.masks, found, strict=True):
            write_label_image(out / file.name, objects, palette)
    truth = [read_mask(file) for file in sequence.masks]
    scores = score_objects(truth, found, sequence.num_objects)
    objects = [{'J': asdict(region), 'F': asdict(contour)} for region, contour in scores]
    return dict(objects=objects, seconds=seconds)


def evaluate(
    encoder: Encoder,
    sequences: Sequence[Sequence2017],
    record: Record,
    layer: str | int = 'res4',
    settings: Propagation = PROPAGATIONS['vfs'],
    masks: Path | None = None,
    videos: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Score all sequences, those that a record does not have yet.

    Args:
        encoder (Encoder): Network whose features are compared.
        sequences (Sequence[Sequence2017]): See :func:`find_sequences`.
        record (Record): Gets the result of each sequence.
        layer (str | int): Layer of the encoder. Defaults to 'res4'.
        settings (Propagation): Defaults to those of VFS.
        masks (Path, optional): Folder for the masks, one folder per sequence. Defaults to None.
        videos (Path, optional): Folder for a video of each sequence, ``NAME.mp4``: its frames
            coloured by the masks, for which ``masks`` is needed. Defaults to None.

    Returns:
        dict: See :func:`score_sequence`, by sequence.

    Raises:
        ImportError: If PyAV is needed for videos and not installed.
    """
    with Progress(len(sequences), 'DAVIS', None, 'sequences') as bar:
        for sequence in sequences:
            out = masks and masks / sequence.name
            # Masks that someone removed are made again.
            kept = out is None or all((out / file.name).is_file() for file in sequence.masks)
            known = sequence.name in record.parts and kept
            result = None if known else score_sequence(encoder, sequence, layer, settings, out)
            video = videos and videos / f'{sequence.name}.mp4'
            if video and not (known and video.is_file()):
                write_video(video, draw_frames(sequence, out), FPS)
            if result is not None:
                record.put(sequence.name, result)
            bar.advance(skipped=known)
    return {sequence.name: record.parts[sequence.name] for sequence in sequences}


def summary(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Average over the objects of all sequences, in percent: J&F, and mean, recall, decay of each.

    Args:
        results (Mapping): What :func:`score_sequence` returned, by sequence.
    """
    objects = [item for result in results.values() for item in result['objects']]
    averages = {
        f'{measure} {part}': 100 * float(np.mean([item[measure][part] for item in objects]))
        for measure in MEASURES
        for part in PARTS
    }
    return {'J&F': (averages['J mean'] + averages['F mean']) / 2, **averages}


def write_report(
    folder: Path,
    results: Mapping[str, Mapping[str, Mapping[str, Any]]],
    sequences: Sequence[Sequence2017],
    protocol: str,
    masks: Mapping[str, Path],
    videos: Mapping[str, Path] | None = None,
) -> Path:
    """Write scores, per sequence as well, and pictures of the masks.

    Args:
        folder (Path): Gets ``davis.html``, ``davis.md`` and ``davis.csv``.
        results (Mapping): Scores by network and sequence.
        sequences (Sequence[Sequence2017]): The sequences.
        protocol (str): Name of the settings, key of ``PROPAGATIONS``.
        masks (Mapping[str, Path]): Folder of the masks of each network.
        videos (Mapping[str, Path], optional): Folder of the videos of each network, in that of the
            page, which shows them. Defaults to None.

    Returns:
        Path: The page.
    """
    summaries = {label: summary(scores) for label, scores in results.items()}
    names = list(next(iter(summaries.values())))
    rows = [
        [label, *(f'{found[name]:.1f}' for name in names)] for label, found in summaries.items()
    ]
    blocks: list[Block] = [
        Paragraph(
            f'Label propagation by the protocol {protocol}, without training: mean over the '
            f'objects of {len(sequences)} sequences, in percent. J is the overlap of regions, F '
            'the agreement of contours; recall is the share of frames above 50, decay what is '
            'lost from the first quarter of a sequence to the last.'
        ),
        Table(['network', *names], rows),
    ]
    if protocol == 'vfs':
        published = [
            [name, f'{(j + f) / 2:.1f}', str(j), str(f)] for name, (j, f) in PUBLISHED.items()
        ]
        blocks += [
            Heading('Published, on DAVIS 2017 val'),
            Table(['network', 'J&F', 'J mean', 'F mean'], published),
        ]
    blocks.append(Heading('Sequences'))
    lines = []
    for sequence in sequences:
        found = [summary({'': scores[sequence.name]})['J&F'] for scores in results.values()]
        lines.append([sequence.name, str(sequence.num_objects), *(f'{each:.1f}' for each in found)])
    header = ['sequence', 'objects', *(f'J&F of {label}' for label in results)]
    blocks.append(Table(header, lines))
    for sequence in sequences[:_PICTURES]:
        png = draw_masks(sequence, {label: place / sequence.name for label, place in masks.items()})
        first = f'{sequence.name}: from above the given masks' + ''.join(f', {x}' for x in masks)
        blocks.append(Picture(png, first))
    if videos:
        blocks.append(Heading('Videos'))
    for sequence in sequences:
        for label, place in (videos or {}).items():
            file = os.path.relpath(place / f'{sequence.name}.mp4', folder)
            blocks.append(Video(file, f'{sequence.name}, masks of {label}'))
    table = to_csv([['network', *names], *([k, *v.values()] for k, v in summaries.items())])
    title = 'Video object segmentation'
    return write_document(folder, title, blocks, 'davis', {'davis.csv': table})


_PICTURES, _COLUMNS = 6, 6
_PALETTE = np.uint8(255 * colormaps['tab10'](np.arange(256) % 10)[:, :3])  # a colour per object


def draw_masks(sequence: Sequence2017, masks: Mapping[str, Path]) -> bytes:
    """Draw frames of a sequence with the given masks, and below with those of each network.

    Args:
        sequence (Sequence2017): The sequence.
        masks (Mapping[str, Path]): Folder of its masks by each network.

    Returns:
        bytes: Content of a PNG file.
    """
    shown = np.linspace(0, len(sequence.frames) - 1, _COLUMNS).round().astype(int)
    rows = []
    for folder in (sequence.masks[0].parent, *masks.values()):
        rows.append([shrunk(_drawn(sequence, number, folder)) for number in shown])
    return sheet(rows)


def draw_frames(sequence: Sequence2017, masks: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a sequence with masks, RGB, uint8, cut to even sides for a video.

    Args:
        sequence (Sequence2017): The sequence.
        masks (Path): Folder of its masks.
    """
    for number in range(len(sequence.frames)):
        drawn = _drawn(sequence, number, masks)
        height, width = (side // 2 * 2 for side in drawn.shape[:2])
        yield np.ascontiguousarray(drawn[:height, :width])


def _drawn(sequence: Sequence2017, number: int, masks: Path) -> np.ndarray:
    frame = read_frame(sequence.frames[number])
    objects = read_mask(masks / sequence.masks[number].name)
    return draw_labels(frame, objects, _PALETTE, blank=0)
