"""Pre-training that pools over the object, whose mask it is given: the most that attention can do.

The mask comes as a fourth channel of the frames, through crop and flip, up to the backbone.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmpretrain.models import ResNet
from mmpretrain.registry import MODELS, TRANSFORMS
from torch import Tensor
from torch.nn.functional import interpolate

from vito_mm.datasets.transforms import BYOLAugmentation, DecodeFrames
from vito_mm.miniscenes import get_preset
from vito_mm.miniscenes.objects import NO_CLASS
from vito_mm.miniscenes.render import visible_masks
from vito_mm.miniscenes.videos import draw_scenes
from vito_mm.models.preprocessors.view_preprocessor import ViewPreprocessor


@TRANSFORMS.register_module()
class OracleFrames(DecodeFrames):
    """Decode frames of MiniScenes' videos and draw the mask of the object as a fourth channel.

    Args:
        world (str): Preset of the videos, which has shots (a ``difficulty``).
        seed (int): Seed of the world. Defaults to 0.
        **kwargs: As those of :class:`vito_mm.datasets.DecodeFrames`.
    """

    def __init__(self, world: str, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.world, self.seed = world, seed

    def transform(self, results: dict) -> dict:
        """Add the frames, of four channels, to the results."""
        results = super().transform(results)
        index = int(Path(results['video_path']).stem.removeprefix('video_'))
        results['imgs'] = [
            np.dstack([image, 255 * self._mask(index, time).astype(np.uint8)])
            for image, time in zip(results['imgs'], results['frame_times'], strict=True)
        ]
        return results

    def _mask(self, index: int, time: float) -> np.ndarray:
        preset = get_preset(self.world)
        at = np.array([round(time * preset.fps) / preset.fps])  # rendered at exactly this time
        (scene,) = draw_scenes(preset, self.seed, index, at)
        # A companion stands behind the object.
        number = max(n for n, (item, _) in enumerate(scene.layers) if item.label != NO_CLASS)
        return visible_masks(scene.layers, (preset.video_side,) * 2)[number]


@TRANSFORMS.register_module()
class OracleAugmentation(BYOLAugmentation):
    """Augment the first three channels, and flip the fourth as them."""

    def transform(self, results: dict) -> dict:
        """Augment ``img``, shape (height, width, 4)."""
        image, mask = results['img'][..., :3], results['img'][..., 3]
        drawn = self.draw()
        image = self.apply(np.ascontiguousarray(image), drawn)
        results['img'] = np.dstack([image, mask[:, ::-1] if drawn.flip else mask])
        return results


@MODELS.register_module()
class OraclePreprocessor(ViewPreprocessor):
    """Normalise the first three channels as usual, and the fourth to [0, 1]."""

    def forward(self, data: dict, training: bool = False) -> dict:
        """Preprocess views; images of evaluations have three channels."""
        inputs = data['inputs']
        if not isinstance(inputs, list) or inputs[0].shape[1] == 3:
            return super().forward(data, training)
        data = dict(data, inputs=[view[:, :3] for view in inputs])
        found = super().forward(data, training)
        masks = [view[:, 3:].to(found['inputs'][0]) / 255 for view in inputs]
        found['inputs'] = [torch.cat(pair, 1) for pair in zip(found['inputs'], masks, strict=True)]
        return found


@MODELS.register_module()
class OracleResNet(ResNet):
    """ResNet whose feature maps, averaged, are the mean over the object.

    Where the object is not seen, the mean over the image. Images of three channels give the
    feature maps of a plain ResNet.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute feature maps of images (N, 3, H, W), or with masks (N, 4, H, W)."""
        maps = super().forward(x[:, :3])
        if x.shape[1] == 3:
            return maps
        return tuple(each * _weights(x[:, 3:], each.shape[2:]) for each in maps)


def _weights(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Weights (N, 1, h, w) of mean 1: the share of the object in each position."""
    share = interpolate(mask.float(), size, mode='area')
    mean = share.mean(dim=(2, 3), keepdim=True)
    return torch.where(mean > 0, share / mean.clamp(min=1e-6), torch.ones_like(share))
