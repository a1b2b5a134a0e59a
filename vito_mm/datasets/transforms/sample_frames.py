"""Choice of the moments that become views."""

import numpy as np

from vito_mm.registry import TRANSFORMS
from vito_mm.videos import sample_offsets

from .base import Transform


@TRANSFORMS.register_module()
class SampleFrames(Transform):
    """Draw when the views of a clip are taken, without opening the file.

    Section 3.1 of https://arxiv.org/abs/2210.06433. See
    :func:`vito_mm.videos.sample_offsets` for the methods.

    **Added Keys:**

    - segment (float): Length of the segment in seconds.
    - segment_start (float): Start as a fraction in [0, 1] of the room the video leaves.
    - segment_offsets (np.ndarray): Seconds from the start of the segment, shape (num_views, ).

    Args:
        num_views (int): Number of views, at least 2. Defaults to 3.
        segment (float): Length T of the clip segment in seconds. Defaults to 2.56.
        method (str): 'marginal', 'delta', 'uniform' or 'single'. Defaults to 'marginal'.
        delta (float, optional): Delay between views in seconds for ``method='delta'``.
            Defaults to None.
        fixed (bool): Take the same moments of a video whenever it is drawn, as in the paper's
            ablation of one fixed pair of frames per video. They follow from the video's index in
            the data set. Defaults to False.

    Raises:
        ValueError: At build time, if a setting makes no sense.
    """

    def __init__(
        self,
        num_views: int = 3,
        segment: float = 2.56,
        method: str = 'marginal',
        delta: float | None = None,
        fixed: bool = False,
    ) -> None:
        if num_views < 2:
            raise ValueError(f'num_views must be at least 2 to compare views, got {num_views}')
        self.num_views = num_views
        self.segment = segment
        self.method = method
        self.delta = delta
        self.fixed = fixed
        sample_offsets(num_views, segment, method, delta, np.random.default_rng(0))

    def transform(self, results: dict) -> dict:
        """Add the drawn moments to the results."""
        rng = np.random.RandomState(results['sample_idx']) if self.fixed else np.random
        results['segment'] = self.segment
        results['segment_start'] = rng.uniform()
        results['segment_offsets'] = sample_offsets(
            self.num_views, self.segment, self.method, self.delta, rng
        )
        return results
