"""From a row of the manifest to the views of a clip."""

from .augment_views import AugmentViews
from .byol_augmentation import BYOLAugmentation, ViewAugmentation
from .decode_frames import DecodeFrames
from .sample_frames import SampleFrames

__all__ = ['AugmentViews', 'BYOLAugmentation', 'DecodeFrames', 'SampleFrames', 'ViewAugmentation']
