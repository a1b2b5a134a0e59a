"""One pipeline of augmentations per view."""

from collections.abc import Callable, Mapping, Sequence

from mmcv.transforms import Compose

from vito_mm.registry import TRANSFORMS

from .base import Transform
from .byol_augmentation import BYOLAugmentation

Stages = Sequence[dict | Callable] | dict[str, dict | Callable | None]
"""Transforms in order, with names or without."""


def named_stages(stages: Stages) -> list:
    """Stages in order, of a list or of a dict of names; None leaves one out."""
    values = stages.values() if isinstance(stages, Mapping) else stages
    return [stage for stage in values if stage is not None]


@TRANSFORMS.register_module()
class AugmentViews(Transform):
    """Pass every frame of a clip through its own pipeline.

    View i takes pipeline i modulo their number: with A1 and A2 three views are augmented A1, A2,
    A1 (section 3.1 of https://arxiv.org/abs/2210.06433). mmpretrain's ``MultiView`` makes all views
    from one image; here each view is another frame.

    **Required Keys:**

    - imgs (list[np.ndarray]): One frame per view.

    **Added Keys:**

    - img (list[np.ndarray]): The augmented views, what mmpretrain's ``PackInputs`` packs.
    - augmentations (list[ViewAugmentation]): What is left to the device, with ``on_device``.

    Args:
        pipelines (Sequence | dict): Pipelines of image transforms, each of which gets a results
            dict with ``img`` and ``img_shape``. As in :class:`vito_mm.datasets.VideoDataset`, the
            pipelines and the transforms of each may be lists or dicts of names in order.
        on_device (bool): Leave :class:`BYOLAugmentation`, which then has to be the last transform
            of each pipeline, to the training device: the data workers decode, crop and draw, and
            ``ViewPreprocessor`` augments the whole batch. ``PackInputs`` needs
            'augmentations' among its ``meta_keys``. Defaults to False.

    Raises:
        ValueError: If there is no pipeline, one is a single transform, or one is such that the
            device cannot finish it.
    """

    def __init__(
        self, pipelines: Sequence[Stages] | dict[str, Stages | None], on_device: bool = False
    ) -> None:
        found = named_stages(pipelines)
        if not found:
            raise ValueError('AugmentViews needs at least one pipeline in `pipelines`')
        if any(isinstance(pipeline, Mapping) and 'type' in pipeline for pipeline in found):
            raise ValueError(
                'AugmentViews needs a list of transforms for each view in `pipelines`, got a '
                'single transform: write pipelines=[[dict(type=...), ...]]'
            )
        self.pipelines = [Compose(named_stages(pipeline)) for pipeline in found]
        self.on_device = on_device
        for number, pipeline in enumerate(self.pipelines, start=1):
            steps = list(pipeline.transforms)
            if on_device and not (steps and isinstance(steps[-1], BYOLAugmentation)):
                raise ValueError(
                    f'AugmentViews(on_device=True) needs BYOLAugmentation as the last transform of '
                    f'each pipeline, number {number} is {[type(step).__name__ for step in steps]}'
                )

    def transform(self, results: dict) -> dict:
        """Add the augmented views to the results."""
        views = [
            self.pipelines[view % len(self.pipelines)](
                dict(
                    img=frame,
                    img_shape=frame.shape[:2],
                    ori_shape=frame.shape[:2],
                    on_device=self.on_device,
                )
            )
            for view, frame in enumerate(results.pop('imgs'))
        ]
        results['img'] = [view['img'] for view in views]
        if self.on_device:
            results['augmentations'] = [view['augmentation'] for view in views]
        return results
