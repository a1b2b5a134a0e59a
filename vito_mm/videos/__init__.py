"""Video files: which there are, which frames to take, and their pixels. No OpenMMLab in here."""

from .decoding import VideoReadError, decode_frames
from .manifest import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, find_videos, read_manifest, write_manifest
from .sampling import SAMPLING_METHODS, place_segment, sample_offsets

__all__ = [
    'IMAGE_EXTENSIONS',
    'SAMPLING_METHODS',
    'VIDEO_EXTENSIONS',
    'VideoReadError',
    'decode_frames',
    'find_videos',
    'place_segment',
    'read_manifest',
    'sample_offsets',
    'write_manifest',
]
