"""The eight classes of MiniScenes, and their names and ids in the layouts of real data sets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SceneClass:
    """One class: an outline family together with a material family.

    Attributes:
        name: Name of the class, used for folders and manifests.
        title: The same in words.
        outline: Key of ``objects.OUTLINES``.
        material: Key of ``objects.MATERIALS``.
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


@dataclass(frozen=True)
class LabelMap:
    """The eight classes in a real data set.

    Attributes:
        names: The data set's class names, in the order of ``CLASSES``.
        ids: Ids of these classes in the files, in the same order.
        background: Id of the background in label images; None without label images.
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
