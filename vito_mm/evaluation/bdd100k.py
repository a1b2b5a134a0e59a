"""BDD100K's detection labels as COCO annotation files, which mmdet reads and pycocotools measures.

Names, classes and boxes are those of BDD100K's own conversion (https://github.com/bdd100k/bdd100k,
``bdd100k/configs/det.toml``, and Scalabel's ``box2d_to_bbox``).
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vito_mm.utils.atomic import written_aside
from vito_mm.utils.progress import Progress
from vito_mm.utils.text import first_few, near_text

CLASSES = (
    *('pedestrian', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle'),
    *('traffic light', 'traffic sign'),
)
"""Categories in the order of their ids, which count from 1."""

OTHER_NAMES = dict(
    bike='bicycle', caravan='car', motor='motorcycle', person='pedestrian', van='car'
)
"""Classes by the names that they have in the labels of 2018."""

UNCERTAIN = {'other person': 'pedestrian', 'other vehicle': 'car', 'trailer': 'truck'}
"""Categories that are no class, and the class of which detections there count as neither right nor
wrong: they become crowds of it, which mmdet does not learn from."""

SIZE = (1280, 720)
"""Width and height of all images with such labels."""

_NAMES = ('det_{}.json', 'bdd100k_labels_images_{}.json')
"""Files of the labels of 2020 and 2018, by split."""

_CHUNK = 2**22
_LARGEST_FRAME = 2**26  # in characters: what is larger is no frame
_BETWEEN = re.compile(r'[\s,]*')


@dataclass
class Counts:
    """Content of an annotation file: images, boxes, those that are crowds, and empty ones."""

    images: int = 0
    boxes: int = 0
    crowds: int = 0
    empty: int = 0  # not written


def convert_labels(
    root: str | os.PathLike,
    labels: str | os.PathLike | None = None,
    out: str | os.PathLike | None = None,
) -> dict[Path, Counts]:
    """Convert the labels of both splits.

    Labels are read frame by frame, so that memory does not depend on their number. A file is
    complete or not there.

    Args:
        root: Folder of BDD100K with ``images/100k/train`` and ``images/100k/val``.
        labels (optional): Folder of ``det_train.json`` and ``det_val.json``, or of 2018's
            ``bdd100k_labels_images_*.json``. Defaults to ``labels/det_20`` in ``root``.
        out (optional): Folder for ``det_train_coco.json`` and ``det_val_coco.json``. Defaults to
            that of the labels.

    Returns:
        dict[Path, Counts]: The files, and what is in them.

    Raises:
        FileNotFoundError: If labels or images are missing; lists all that was looked for.
        ValueError: If a file is no list of Scalabel's frames, or has a category that is unknown.
    """
    root = Path(root)
    labels = root / 'labels' / 'det_20' if labels is None else Path(labels)
    out = labels if out is None else Path(out)
    found, missing = {}, []
    for split in ('train', 'val'):
        files = [labels / name.format(split) for name in _NAMES]
        images = root / 'images' / '100k' / split
        found[split] = next((file for file in files if file.is_file()), None), images
        if found[split][0] is None:
            missing.append(f'there is neither {files[0]} nor {files[1].name}')
        if not images.is_dir():
            missing.append(f'there is no folder {images}')
    if missing:
        raise FileNotFoundError('; '.join(missing))
    out.mkdir(parents=True, exist_ok=True)
    return {
        (file := out / f'det_{split}_coco.json'): convert_split(*places, file)
        for split, places in found.items()
    }


def convert_split(labels: Path, images: Path, out: Path) -> Counts:
    """Convert the labels of a split; see :func:`convert_labels`.

    Args:
        labels (Path): File of Scalabel's frames.
        images (Path): Folder of their images.
        out (Path): COCO annotation file to write.
    """
    there = {entry.name for entry in os.scandir(images)}
    counts, missing, known = Counts(), [], set()
    categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES, 1)]
    with (
        written_aside(out) as unfinished,
        unfinished.open('w', encoding='utf-8') as opened,
        # Annotations come behind all images, and are too many for the memory.
        tempfile.TemporaryFile('w+', dir=out.parent, encoding='utf-8') as annotations,
        Progress(len(there), labels.name, bad=None, items='images') as progress,
    ):
        opened.write(f'{{"categories": {json.dumps(categories)},\n"images": [')
        for frame in read_frames(labels):
            name = frame['name']
            if name in known:
                raise ValueError(f'{labels}: the frame {name} comes twice')
            known.add(name)
            if name not in there:
                missing.append(name)
            elif counts.images == len(missing):  # the first that is there
                _check_size(images / name)
            counts.images += 1
            image = dict(id=counts.images, file_name=name, width=SIZE[0], height=SIZE[1])
            opened.write(f'{"," * (counts.images > 1)}\n{json.dumps(image)}')
            for label in frame.get('labels') or ():
                if (entry := _annotation(label, f'{labels}: the frame {name}', counts)) is None:
                    continue
                entry = dict(id=counts.boxes, image_id=counts.images, **entry)
                annotations.write(f'{"," * (counts.boxes > 1)}\n{json.dumps(entry)}')
            progress.advance()
        if missing:
            raise FileNotFoundError(
                f'{len(missing)} of {counts.images} images of {labels} are not in {images}: '
                f'{first_few(missing, 3)}'
            )
        if not counts.boxes:
            raise ValueError(f'{labels} has no boxes: none of its labels has a "box2d"')
        opened.write('\n],\n"annotations": [')
        annotations.seek(0)
        shutil.copyfileobj(annotations, opened)
        opened.write('\n]}\n')
    return counts


def read_frames(file: Path) -> Iterator[dict[str, Any]]:
    """Read the frames of a label file one by one.

    Args:
        file (Path): JSON list of objects with a ``name``, in Scalabel's format.

    Yields:
        dict[str, Any]: A frame.

    Raises:
        ValueError: If it is none, or ends before its end.
    """
    decode = json.JSONDecoder().raw_decode
    number = 0
    try:
        with file.open(encoding='utf-8') as opened:
            text = opened.read(_CHUNK)
            start = text[: len(text) - len(text.lstrip()) + 1]
            if not start.endswith('['):
                raise ValueError(f'{file} is no list of frames in JSON')
            at = len(start)
            while True:
                at = _BETWEEN.match(text, at).end()
                if text.startswith(']', at):
                    return
                try:
                    frame, at = decode(text, at)
                except json.JSONDecodeError as error:
                    more = opened.read(_CHUNK)
                    if not more or len(text) - at > _LARGEST_FRAME:
                        raise ValueError(
                            f'{file} is broken or cut off in its frame {number + 1}: {error.msg}'
                        ) from None
                    text, at = text[at:] + more, 0
                    continue
                number += 1
                if not isinstance(frame, dict) or not isinstance(frame.get('name'), str):
                    raise ValueError(f'{file}: the entry {number} of the list has no "name"')
                yield frame
    except UnicodeDecodeError:
        raise ValueError(f'{file} is no text in UTF-8, so no JSON') from None


def _annotation(label: Mapping, where: str, counts: Counts) -> dict[str, Any] | None:
    """Entry of a label without its ids, counted; None for lanes and areas, and for empty boxes."""
    if (box := label.get('box2d')) is None:
        return None
    category = OTHER_NAMES.get(label.get('category'), label.get('category'))
    name = UNCERTAIN.get(category, category)
    if name not in CLASSES:
        known = [*CLASSES, *OTHER_NAMES, *UNCERTAIN]
        near = near_text(str(category), known)
        raise ValueError(f'{where} has the category {category!r}{near}, which is none of BDD100K')
    try:
        x1, y1, x2, y2 = (float(box[key]) for key in ('x1', 'y1', 'x2', 'y2'))
    except (KeyError, TypeError, ValueError):
        raise ValueError(f'{where} has a box2d without the numbers x1, y1, x2, y2') from None
    if not (x2 >= x1 and y2 >= y1):
        counts.empty += 1
        return None
    crowd = category in UNCERTAIN or bool((label.get('attributes') or {}).get('crowd'))
    counts.boxes += 1
    counts.crowds += crowd
    # Scalabel's boxes include their last pixel.
    width, height = x2 - x1 + 1, y2 - y1 + 1
    return dict(
        category_id=CLASSES.index(name) + 1,
        bbox=[x1, y1, width, height],
        area=width * height,
        iscrowd=int(crowd),
    )


def _check_size(file: Path) -> None:
    with Image.open(file) as image:
        size = image.size
    if size != SIZE:
        raise ValueError(
            f'{file} has {size[0]} x {size[1]} pixels, and the boxes are for {SIZE[0]} x {SIZE[1]}'
        )
