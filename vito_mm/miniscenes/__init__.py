"""MiniScenes: a small procedural world, as videos and as labelled images in four stock layouts.

The outline and the material of an object tell its class and stay the same through a video; pose,
size, hue, light and the camera change within it. Backgrounds are shared by many videos, so that
neither they nor colour give a video away. Presets with a ``Difficulty`` add cuts, clutter,
occluders, a second object, bending, a moving camera and coloured light. Nothing here imports
OpenMMLab until the LVIS annotations are written, which take their category names from mmdet.
"""

from .classes import CLASSES, LABEL_MAPS, LabelMap, SceneClass
from .make import TASKS, make_miniscenes
from .presets import PRESETS, Difficulty, Preset, get_preset

__all__ = [
    'CLASSES',
    'LABEL_MAPS',
    'PRESETS',
    'TASKS',
    'Difficulty',
    'LabelMap',
    'Preset',
    'SceneClass',
    'get_preset',
    'make_miniscenes',
]
