"""Data sets of videos and the transforms that make views of them."""

from .transforms import *  # noqa: F403
from .video_dataset import VideoDataset

__all__ = ['VideoDataset']
