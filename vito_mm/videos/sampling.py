"""Moments of a video that become the views of a clip.

All times are in seconds, so that the same setting means the same at any frame rate. Drawing is
separate from placing: a draw needs no file (:func:`sample_offsets`), and its meaning in a video
follows from the video's duration (:func:`place_segment`).
"""

import numpy as np

SAMPLING_METHODS = ('marginal', 'delta', 'uniform', 'single')
"""Known values of ``method``, the four samplings compared in the paper (section 3.1)."""


def sample_offsets(
    num_views: int,
    segment: float,
    method: str = 'marginal',
    delta: float | None = None,
    rng: np.random.Generator | np.random.RandomState | None = None,
) -> np.ndarray:
    """Draw the times of the views within a clip segment.

    Section 3.1 of https://arxiv.org/abs/2210.06433.

    Args:
        num_views (int): Number of views, at least 1.
        segment (float): Length T of the segment in seconds.
        method (str): One of

            - ``'marginal'``: every view independently and uniformly in the segment. The absolute
              difference of two views has mode 0 and median T (1 - 1 / sqrt 2).
            - ``'delta'``: views a fixed ``delta`` apart, the first one uniform in what is left.
            - ``'uniform'``: the segment is cut into ``num_views`` equal chunks, one view uniform
              in each.
            - ``'single'``: all views at one time, uniform in the segment.

            Defaults to 'marginal'.
        delta (float, optional): Delay between neighbouring views in seconds, for ``'delta'`` only.
            Defaults to None.
        rng: NumPy generator or legacy random state. Defaults to NumPy's global state, which
            data loader workers seed.

    Returns:
        np.ndarray: Offsets from the start of the segment in seconds, shape (num_views, ).

    Raises:
        ValueError: If a setting makes no sense; the message names it.
    """
    if num_views < 1:
        raise ValueError(f'num_views must be at least 1, got {num_views}')
    if not segment > 0:
        raise ValueError(f'segment must be a positive number of seconds, got {segment}')
    if method not in SAMPLING_METHODS:
        raise ValueError(f'unknown sampling method {method!r}, known are {SAMPLING_METHODS}')
    if (delta is not None) != (method == 'delta'):
        raise ValueError(f"delta goes with method='delta' and only there, got {delta}, {method!r}")
    uniform = (rng if rng is not None else np.random).uniform

    if method == 'marginal':
        return np.asarray(uniform(0, segment, num_views))
    if method == 'single':
        return np.full(num_views, uniform(0, segment))
    if method == 'uniform':
        return (np.arange(num_views) + uniform(0, 1, num_views)) * (segment / num_views)
    span = delta * (num_views - 1)
    room = max(0.0, segment - span)
    if delta < 0 or span - segment > 1e-9 * segment:  # three times 0.1 is more than 0.3
        raise ValueError(
            f'{num_views} views delta={delta} s apart must lie within the segment of {segment} s'
        )
    return uniform(0, room) + delta * np.arange(num_views)


def place_segment(offsets: np.ndarray, segment: float, start: float, duration: float) -> np.ndarray:
    """Turn offsets within a segment into times of one video.

    Args:
        offsets (np.ndarray): Offsets in seconds within the segment.
        segment (float): Length T of the segment in seconds.
        start (float): Where the segment starts, as a fraction in [0, 1] of the room that the video
            leaves: 0 is the start of the video, 1 lets the segment end with it.
        duration (float): Duration of the video in seconds. In a video shorter than the segment the
            whole video is the segment and the offsets shrink with it.

    Returns:
        np.ndarray: Times in seconds, all within [0, duration].
    """
    if duration < segment:
        return offsets * (duration / segment)
    return start * (duration - segment) + offsets
