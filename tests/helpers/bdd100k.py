"""A few images and labels in BDD100K's layout."""

import json
from pathlib import Path

import cv2
import numpy as np

SIZE = (1280, 720)


def box(category: str, *corners: float, **more: object) -> dict:
    """A label with a box, as Scalabel has it."""
    corners = dict(zip(('x1', 'y1', 'x2', 'y2'), corners, strict=True))
    return dict(id='0', category=category, box2d=corners) | more


def write_bdd100k(root: Path, frames: dict[str, list[dict]] | None = None) -> Path:
    """Write images and labels of detection and segmentation.

    Args:
        root: Folder to fill.
        frames: Frames of each split. By default two and one, of which each has a car and a rider.

    Returns:
        Path: The folder.
    """
    if frames is None:
        labels = [box('car', 100, 200, 299.5, 359), box('rider', 10, 20, 59, 119)]
        frames = dict(
            train=[dict(name='a.jpg', labels=labels), dict(name='b.jpg', labels=labels)],
            val=[dict(name='c.jpg', labels=labels)],
        )
    for split, listed in frames.items():
        folders = [f'images/100k/{split}', f'images/10k/{split}', f'labels/sem_seg/masks/{split}']
        for folder in (*folders, 'labels/det_20'):
            (root / folder).mkdir(parents=True, exist_ok=True)
        image = np.full((*SIZE[::-1], 3), 90, np.uint8)
        mask = np.full(SIZE[::-1], 255, np.uint8)
        mask[:360], mask[360:, :640] = 10, 0  # sky and road
        for frame in listed:
            for folder in folders[:2]:
                cv2.imwrite(str(root / folder / frame['name']), image)
            cv2.imwrite(str(root / folders[2] / frame['name'].replace('.jpg', '.png')), mask)
        file = root / f'labels/det_20/det_{split}.json'
        file.write_text(json.dumps(listed, indent=4))
    return root
