"""Video files: which there are, which frames to take, and their pixels.

No OpenMMLab in here, but for MMEngine's file backends where a path is an address.
"""

from .backends import BACKENDS
from .decoding import decode_frames
from .errors import VideoReadError
from .images import IMAGE_EXTENSIONS
from .manifest import (
    VIDEO_EXTENSIONS,
    Manifest,
    find_videos,
    part_name,
    part_within,
    read_manifest,
    write_manifest,
)
from .sampling import SAMPLING_METHODS, place_segment, sample_offsets

__all__ = [
    'BACKENDS',
    'IMAGE_EXTENSIONS',
    'SAMPLING_METHODS',
    'VIDEO_EXTENSIONS',
    'Manifest',
    'VideoReadError',
    'decode_frames',
    'find_videos',
    'part_name',
    'part_within',
    'place_segment',
    'read_manifest',
    'sample_offsets',
    'write_manifest',
]
