"""MiniScenes: a small procedural world, as videos and as labelled images in four stock layouts.

The outline and the material of an object define its class and are constant through a video; pose,
size, hue, light and the camera change. Backgrounds are shared by many videos, so that neither they
nor colour identify a video. Presets with a ``Difficulty`` add cuts, clutter, occluders, a second
object, bending, a moving camera and coloured light. OpenMMLab is imported for the LVIS annotations
alone, which take their category names from mmdet.
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
