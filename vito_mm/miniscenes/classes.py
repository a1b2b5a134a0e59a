"""The eight classes of MiniScenes, and the real classes that they stand for in each data set."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SceneClass:
    """One class: an outline family together with a material family.

    Attributes:
        name: Name of the class, used for folders and manifests.
        title: The same in words.
        outline: Key of ``outlines.OUTLINES``.
        material: Key of ``materials.MATERIALS``.
    """

    name: str
    title: str
    outline: str
    material: str


CLASSES = (
    SceneClass('striped_disc', 'striped disc', 'disc', 'stripes'),
    SceneClass('checked_triangle', 'checked triangle', 'triangle', 'checks'),
    SceneClass('dotted_square', 'dotted square', 'square', 'dots'),
    SceneClass('blotchy_star', 'blotchy star', 'star', 'blotches'),
    SceneClass('ringed_cross', 'ringed cross', 'cross', 'rings'),
    SceneClass('plain_crescent', 'plain crescent', 'crescent', 'plain'),
    SceneClass('lined_leaf', 'finely lined leaf', 'leaf', 'lines'),
    SceneClass('rayed_gear', 'rayed gear', 'gear', 'rays'),
)
"""A class is known by its index in this tuple everywhere in the package."""


def video_label(index: int) -> int:
    """Give the class of a video: the classes take turns, so that they are balanced.

    Args:
        index: Index of the video.

    Returns:
        int: Index into ``CLASSES``.
    """
    return index % len(CLASSES)


@dataclass(frozen=True)
class LabelMap:
    """Where the eight classes go in a real data set.

    Attributes:
        names: The data set's own class names, in the order of ``CLASSES``.
        ids: The ids of these classes in the files on disk, in the same order.
        background: Id that pixels of the background get in label images; None where the data set
            has no label images.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    background: int | None = None


LABEL_MAPS = {
    # ADE20K's label images hold 1..150 with 0 for unlabelled; the background is `wall`.
    'ade20k': LabelMap(
        ('plate', 'flag', 'painting', 'flower', 'fan', 'boat', 'plant', 'clock'),
        (143, 150, 23, 67, 140, 77, 18, 149),
        background=1,
    ),
    'voc': LabelMap(
        ('car', 'boat', 'tvmonitor', 'bird', 'aeroplane', 'sofa', 'bottle', 'motorbike'),
        (7, 4, 20, 3, 1, 18, 5, 14),
        background=0,
    ),
    'coco': LabelMap(
        ('sports ball', 'pizza', 'book', 'bird', 'airplane', 'banana', 'surfboard', 'clock'),
        (37, 59, 84, 16, 5, 52, 42, 85),
    ),
    'lvis': LabelMap(
        ('beachball', 'pizza', 'pillow', 'starfish', 'airplane', 'banana', 'surfboard', 'clock'),
        (71, 816, 804, 1007, 3, 45, 1037, 271),
    ),
}
