"""Decoding of the moments that become views."""

import numpy as np

from vito_mm.registry import TRANSFORMS
from vito_mm.utils.remote_files import check_backend_args
from vito_mm.videos import decode_frames, part_within, place_segment
from vito_mm.videos.backends import load_backend

from .base import Transform


@TRANSFORMS.register_module()
class DecodeFrames(Transform):
    """Decode the frames that :class:`SampleFrames` asked for, in one pass over the file.

    Frames come out as BGR, OpenMMLab's convention, on which mmpretrain's transforms rely.

    **Required Keys:**

    - video_path
    - segment
    - segment_start (several of them: frames of as many segments, one after the other)
    - segment_offsets
    - fps (float, optional): Frames per second of a folder or tar of images.
    - start, end (float, optional): The part of the video that counts, in seconds. Defaults to all.

    **Added Keys:**

    - imgs (list[np.ndarray]): One BGR uint8 frame per view, shape (height, width, 3).
    - duration (float): Length of the video in seconds.
    - frame_times (np.ndarray): When these frames begin, in seconds, shape (num_views, ).

    Args:
        backend (str): Decoder of video files: ``'pyav'``, ``'decord'`` or ``'torchcodec'``. All
            give the same frames. Defaults to 'pyav', the fastest.
        short_side (int, optional): Short side in pixels to which larger frames are scaled down
            while they are converted. Defaults to None, which means the video's own size.
        time_limit (float, optional): Seconds after which a video is given up. None means never.
            Defaults to 60.
        backend_args (dict, optional): Storage that videos are read from, arguments of
            :func:`mmengine.fileio.get`. With a ``backend`` other than ``'local'`` it reads all
            paths. Defaults to None: disks, and addresses (``s3://``, ``https://``) by their prefix.

    Raises:
        ValueError: At build time, if a setting makes no sense.
        ImportError: At build time, if the decoder or the client of the storage is not installed;
            names what to install.
        VideoReadError: If the file cannot be decoded.
    """

    def __init__(
        self,
        backend: str = 'pyav',
        short_side: int | None = None,
        time_limit: float | None = 60.0,
        backend_args: dict | None = None,
    ) -> None:
        load_backend(backend)
        check_backend_args(backend_args)
        if short_side is not None and short_side < 1:
            raise ValueError(f'short_side must be a positive number of pixels, got {short_side}')
        if time_limit is not None and time_limit <= 0:
            raise ValueError(f'time_limit must be a positive number of seconds, got {time_limit}')
        self.backend = backend
        self.short_side = short_side
        self.time_limit = time_limit
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Add the frames to the results."""

        def choose_times(duration: float) -> np.ndarray:
            results['duration'] = duration
            start, end = part_within(results, duration)
            segment = results['segment_offsets'], results['segment']
            places = np.atleast_1d(results['segment_start'])
            return start + np.concatenate(
                [place_segment(*segment, place, end - start) for place in places]
            )

        results['imgs'], results['frame_times'] = decode_frames(
            results['video_path'],
            choose_times,
            backend=self.backend,
            channel_order='bgr',
            short_side=self.short_side,
            time_limit=self.time_limit,
            fps=results.get('fps'),
            backend_args=self.backend_args,
        )
        return results
