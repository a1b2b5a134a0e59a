"""Region similarity J and contour accuracy F of video object segmentation.

As the DAVIS challenge of 2017 defines them, https://arxiv.org/abs/1704.00675 and, for contours,
https://openaccess.thecvf.com/content_cvpr_2016/html/Perazzi_A_Benchmark_Dataset_CVPR_2016_paper.html.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

CONTOUR_TOLERANCE = 0.008
"""Distance, as a share of the picture's diagonal, at which contours still match."""

NUM_BINS = 4  # of a video, for the decay


@dataclass(frozen=True)
class Score:
    """Score of an object over the frames of a video, all within [0, 1] but the decay.

    Attributes:
        mean (float): Mean over frames.
        recall (float): Share of frames with more than 0.5.
        decay (float): Mean of the first quarter minus that of the last.
    """

    mean: float
    recall: float
    decay: float

    @classmethod
    def of_frames(cls, values: Sequence[float]) -> 'Score':
        """Summarise the values of a video's frames, in order; there is at least one."""
        values = np.asarray(values, np.float64)
        # Quarters share their ends, as in the challenge's code.
        ends = np.round(np.linspace(1, len(values), NUM_BINS + 1) + 1e-10).astype(int) - 1
        quarters = [values[ends[i] : ends[i + 1] + 1].mean() for i in (0, NUM_BINS - 1)]
        return cls(values.mean(), (values > 0.5).mean(), quarters[0] - quarters[1])


def score_objects(
    truth: Sequence[np.ndarray], found: Sequence[np.ndarray], num_objects: int
) -> list[tuple[Score, Score]]:
    """Score each object of a video by J and F; the first and the last frame do not count.

    Args:
        truth (Sequence[np.ndarray]): Object of each pixel, 0 for the background, one array of shape
            (H, W) per frame; at least three.
        found (Sequence[np.ndarray]): The segmentation to score, alike.
        num_objects (int): Objects are 1 to this number.

    Returns:
        list[tuple[Score, Score]]: J and F of each object.
    """
    scores = []
    for number in range(1, num_objects + 1):
        pairs = [(a == number, b == number) for a, b in zip(truth, found, strict=True)][1:-1]
        regions = Score.of_frames([region_similarity(*pair) for pair in pairs])
        contours = Score.of_frames([contour_accuracy(*pair) for pair in pairs])
        scores.append((regions, contours))
    return scores


def region_similarity(truth: np.ndarray, found: np.ndarray) -> float:
    """Intersection over union of two masks, bool, shape (H, W); 1 if both are empty."""
    union = np.count_nonzero(truth | found)
    return np.count_nonzero(truth & found) / union if union else 1.0


def contour_accuracy(truth: np.ndarray, found: np.ndarray) -> float:
    """F-measure of the contours of two masks, bool, shape (H, W); 1 if both are empty.

    A contour pixel matches if one of the other contour is within
    :data:`CONTOUR_TOLERANCE` diagonals, rounded up to pixels.
    """
    contours = [_contour(mask) for mask in (truth, found)]
    counts = [np.count_nonzero(contour) for contour in contours]
    if not all(counts):
        return float(not any(counts))
    reach = int(np.ceil(CONTOUR_TOLERANCE * np.hypot(*truth.shape)))
    distance = np.arange(-reach, reach + 1)
    disk = (distance[:, None] ** 2 + distance**2 <= reach**2).astype(np.uint8)
    wide = [cv2.dilate(contour.astype(np.uint8), disk) for contour in contours]
    recall = np.count_nonzero(contours[0] & (wide[1] > 0)) / counts[0]
    precision = np.count_nonzero(contours[1] & (wide[0] > 0)) / counts[1]
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def _contour(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask's contour: those that differ from their right, lower or diagonal neighbour.

    The last row and column repeat, so that the picture's edge is no contour.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode='edge')
    right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    contour = (mask ^ right) | (mask ^ below) | (mask ^ diagonal)
    # At the edges one neighbour is left.
    contour[-1], contour[:, -1] = mask[-1] ^ right[-1], mask[:, -1] ^ below[:, -1]
    contour[-1, -1] = False
    return contour
