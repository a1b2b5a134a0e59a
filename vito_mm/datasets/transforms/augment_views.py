"""One pipeline of augmentations a view."""

from collections.abc import Sequence

from mmcv.transforms import BaseTransform, Compose

from vito_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class AugmentViews(BaseTransform):
    """Pass every frame of a clip through its own pipeline.

    View i takes pipeline i modulo their number: with A1 and A2 three views are augmented A1, A2,
    A1 (section 3.1 of https://arxiv.org/abs/2210.06433). mmpretrain's ``MultiView`` makes all views
    from one image; here each view is another frame.

    **Required Keys:**

    - imgs (list[np.ndarray]): One frame a view.

    **Added Keys:**

    - img (list[np.ndarray]): The augmented views, what mmpretrain's ``PackInputs`` packs.

    Args:
        pipelines (Sequence[Sequence[dict]]): Pipelines of image transforms, each of which gets a
            results dict with ``img`` and ``img_shape``.

    Raises:
        ValueError: If there is no pipeline.
    """

    def __init__(self, pipelines: Sequence[Sequence[dict]]) -> None:
        if not pipelines:
            raise ValueError('AugmentViews needs at least one pipeline in `pipelines`')
        self.pipelines = [Compose(pipeline) for pipeline in pipelines]

    def transform(self, results: dict) -> dict:
        """Add the augmented views to the results."""
        results['img'] = [
            self.pipelines[view % len(self.pipelines)](
                dict(img=frame, img_shape=frame.shape[:2], ori_shape=frame.shape[:2])
            )['img']
            for view, frame in enumerate(results.pop('imgs'))
        ]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(pipelines={self.pipelines})'
