"""Data sets of videos and the transforms that make views of them."""

from .clip_sampler import ClipSampler, Draw, random_state_of
from .in_flight_file import InFlightFiles
from .labelled_fraction import subset_indices
from .transforms import *  # noqa: F403
from .video_dataset import VideoDataset

__all__ = [
    'ClipSampler',
    'Draw',
    'InFlightFiles',
    'VideoDataset',
    'random_state_of',
    'subset_indices',
]
