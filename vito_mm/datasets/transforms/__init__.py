"""From a row of the manifest to the views of a clip."""

from .augment_views import AugmentViews
from .decode_frames import DecodeFrames
from .gaussian_blur import RandomGaussianBlur
from .sample_frames import SampleFrames

__all__ = ['AugmentViews', 'DecodeFrames', 'RandomGaussianBlur', 'SampleFrames']
