"""From moments to pixels."""

import numpy as np
from mmcv.transforms import BaseTransform

from vito_mm.registry import TRANSFORMS
from vito_mm.videos import decode_frames, place_segment


@TRANSFORMS.register_module()
class DecodeFrames(BaseTransform):
    """Decode the frames that :class:`SampleFrames` asked for, with one open and one request.

    Frames come out as BGR, OpenMMLab's convention, on which mmpretrain's transforms rely.

    **Required Keys:**

    - video_path
    - segment
    - segment_start
    - segment_offsets

    **Added Keys:**

    - imgs (list[np.ndarray]): One BGR uint8 frame a view, shape (height, width, 3).
    - frame_times (np.ndarray): When these frames begin, in seconds, shape (num_views, ).

    Raises:
        VideoReadError: If the file cannot be decoded.
    """

    def transform(self, results: dict) -> dict:
        """Add the frames to the results."""

        def choose_times(duration: float) -> np.ndarray:
            return place_segment(
                results['segment_offsets'], results['segment'], results['segment_start'], duration
            )

        frames, results['frame_times'] = decode_frames(results['video_path'], choose_times)
        results['imgs'] = list(np.ascontiguousarray(frames[..., ::-1]))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
