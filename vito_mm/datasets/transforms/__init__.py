"""From a row of the manifest to the views of a clip."""

from vito_mm.registry import TRANSFORMS, register_lazily

from .augment_views import AugmentViews
from .byol_augmentation import BYOLAugmentation, ViewAugmentation
from .decode_frames import DecodeFrames
from .sample_frames import SampleFrames

# A subclass of mmpretrain's, so imported when first built.
register_lazily(TRANSFORMS, 'BYOLCrop', 'vito_mm.datasets.transforms.byol_crop')

__all__ = ['AugmentViews', 'BYOLAugmentation', 'DecodeFrames', 'SampleFrames', 'ViewAugmentation']
