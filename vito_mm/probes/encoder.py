"""Features of frames by a network: a model in training, or one of :mod:`vito_mm.probes.loading`."""

import inspect
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vito_mm.checkpoint import NETWORKS
from vito_mm.models import AttentionPooling, MultiScaleAttentionPooling
from vito_mm.videos import frames as video_frames
from vito_mm.videos.frames import Row, View

from .inputs import Picture, opened_picture, rgb_tensor
from .layers import as_map, module_of, puts_channels_first, stages_of

DEFAULT_VIEW = View(256, 224)
"""The usual view of networks at 224 px."""

_COPIES = ('target_net', 'momentum_encoder')  # of VITO and BYOL, and of MoCo v3


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """Features of frames of one video.

    Attributes:
        features (Tensor): float32 on the network's device, shape (T, C), or (T, C, h, w) of a
            feature map.
        times (np.ndarray): Seconds at which the frames begin, shape (T, ).
        masks (dict[str, np.ndarray]): Attention by scale, see :meth:`Encoder.masks`. Empty without
            attention.
    """

    features: Tensor
    times: np.ndarray
    masks: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Encoder:
    """Features of images and of frames of videos.

    It leaves no trace in a model in training: the network is in evaluation mode meanwhile, and
    afterwards modes and random numbers are as before.

    Layers by name:

    - ``'pooled'``: the network's last output, averaged over positions; of a classifier its logits.
    - ``'neck'``: the neck's output, which is the attention pooling of VITO.
    - ``'last'``: the network's last feature map, after its final norm.
    - ``'res2'`` to ``'res5'``, or the index of a stage or transformer block (-1 is the last one):
      the feature map there, before any norm that only outputs have.
    - the name of a submodule, such as ``'layer3.5'`` or ``'blocks.11'``: its feature map.

    Attributes:
        backbone (nn.Module): The network.
        preprocess (Callable): Makes its input from RGB images, uint8, shape (N, 3, H, W).
        view (View): The part of a frame that it was trained or is evaluated with.
        neck (nn.Module, optional): Takes the backbone's feature maps. Defaults to None.
        memory_format (torch.memory_format): Of its input. Defaults to channels last.
        exact (bool): Compute in single precision, the same each time, on a GPU as well, which is
            slower. Defaults to False.
    """

    backbone: nn.Module
    preprocess: Callable[[Tensor], Tensor]
    view: View = DEFAULT_VIEW
    neck: nn.Module | None = None
    memory_format: torch.memory_format = torch.channels_last
    exact: bool = False

    @classmethod
    def of_model(cls, model: nn.Module, network: str = 'online') -> 'Encoder':
        """Take a network of a self-supervised model in training, whose modules are shared.

        Args:
            model (nn.Module): VITO or an algorithm of mmpretrain, not wrapped.
            network (str): 'online', or 'target' for its slowly moving copy. Defaults to 'online'.

        Raises:
            ValueError: If the model has no such network.
        """
        if network not in NETWORKS:
            raise ValueError(f'network must be one of {NETWORKS}, got {network!r}')
        parts = [model.backbone, getattr(model, 'neck', None)]
        if network == 'target':
            copies = [getattr(model, name) for name in _COPIES if hasattr(model, name)]
            if not copies:
                raise ValueError(
                    f"network='target': {type(model).__name__} has none; take 'online'"
                )
            parts = [*copies[0].module, None]

        def preprocess(images: Tensor) -> Tensor:
            # OpenMMLab's loaders give BGR, and its preprocessors expect it.
            data = dict(inputs=images.flip(1), data_samples=None)
            return model.data_preprocessor(data, False)['inputs']

        memory_format = getattr(model, 'memory_format', torch.contiguous_format)
        return cls(parts[0], preprocess, neck=parts[1], memory_format=memory_format)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.backbone.parameters()).device

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        layer: str | int = 'pooled',
        batch_size: int = 100,
    ) -> Tensor:
        """Compute features of a layer.

        Args:
            images: An array or tensor of images, RGB, uint8, shape (N, H, W, 3) or of a tensor
                (N, 3, H, W), of any size that the network takes. Or one image, or a sequence of
                images of any sizes: files, Pillow images, arrays or tensors (H, W, 3), which are
                resized and cropped by ``view``, as torchvision does.
            layer (str | int): See above. Defaults to 'pooled'.
            batch_size (int): Images at a time. Defaults to 100.

        Returns:
            Tensor: float32 on the network's device, shape (N, C), or (N, C, h, w) of a feature map.

        Raises:
            ValueError: If these are no images of uint8, there is no such layer, or the network does
                not take images of this size.
            VideoReadError: If a file is no image.
        """
        return torch.cat(self._run(images, batch_size, lambda x: self.compute(x, layer)))

    def video(
        self,
        path: str | os.PathLike | Row,
        seconds: float | Sequence[float] = 1.0,
        *,
        count: int | None = None,
        layer: str | int = 'pooled',
        batch_size: int = 32,
    ) -> VideoFeatures:
        """Compute features and attention masks of frames of a video.

        Frames are scaled while they are decoded, and cropped by ``view``.

        Args:
            path: File, folder or tar of a video, or a row of a manifest
                (:mod:`vito_mm.videos.frames`).
            seconds (float | Sequence[float]): One frame every so many seconds from the start; or
                the frames on screen at these times. Defaults to 1.0.
            count (int, optional): So many frames, evenly spread, instead. Defaults to None.
            layer (str | int): See above. Defaults to 'pooled'.
            batch_size (int): Frames at a time. Defaults to 32.

        Raises:
            ValueError: If the times make no sense, or there is no such layer.
            VideoReadError: If the video cannot be read, or a time is not within it.
        """
        row = dict(path=os.fspath(path)) if isinstance(path, (str, os.PathLike)) else path
        if count is not None:
            times = video_frames.evenly(count)
        elif isinstance(seconds, Real):
            times = video_frames.every(seconds)
        else:
            times = video_frames.at(seconds)
        clip = video_frames.read(row, times, self.view, time_limit=None)
        features = self(clip.frames, layer, batch_size)
        return VideoFeatures(features, clip.times, self.masks(clip.frames, batch_size))

    def compute(self, images: Tensor, layer: str | int) -> Tensor:
        """Compute features of preprocessed images (N, 3, H, W) in the network's current mode."""
        if layer == 'neck' and self.neck is None:
            raise ValueError("layer='neck': the network has none; take 'pooled'")
        compute = dict(pooled=self._pooled, neck=self._necked, last=self._last).get(layer)
        if compute is None:
            return self._output_of(module_of(self.backbone, layer), images).float()
        return compute(images).float()

    def scales(self) -> dict[str, int]:
        """Scales that are pooled by attention, if any: number of the feature map by its name.

        'stage 4' and 'stage 5' are the last two of a ResNet, as in the paper: the stem is stage 1.
        Of a backbone that does not tell its stages they are 'map 1' and so on.
        """
        if not isinstance(self.neck, MultiScaleAttentionPooling):
            return {}
        first = 2 if hasattr(self.backbone, 'res_layers') else 1
        stages = getattr(self.backbone, 'out_indices', None)
        return {
            f'map {number + 1}' if stages is None else f'stage {stages[number] + first}': number
            for number, pooling in enumerate(self.neck.scales)
            if isinstance(pooling, AttentionPooling)
        }

    def masks(
        self, images: Picture | Sequence[Picture], batch_size: int = 32
    ) -> dict[str, np.ndarray]:
        """Compute attention masks of images by scale, float32, shape (N, h, w), each of sum 1.

        For the images see :meth:`__call__`. Without attention there are none.
        """
        scales = self.scales()
        if not scales:
            return {}
        batches = self._run(images, batch_size, lambda x: self.neck.masks(self._forward(x)))
        return {
            name: np.concatenate([masks[number].float().cpu().numpy() for masks in batches])
            for name, number in scales.items()
        }

    def _batches(self, images: Picture | Sequence[Picture], size: int) -> Iterator[Tensor]:
        """Images, uint8, shape (n, H, W, 3), so many at a time; files are read meanwhile."""
        is_batch = isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4
        if is_batch:
            yield from rgb_tensor(images, 4).split(size)
            return
        if isinstance(images, (str, os.PathLike, Image.Image, np.ndarray, Tensor)):
            images = [images]
        view = replace(self.view, bicubic=True)
        for first in range(0, len(images), size):
            cut = [view(opened_picture(image)) for image in images[first : first + size]]
            yield torch.from_numpy(np.stack(cut))

    def _run(self, images: Picture | Sequence[Picture], batch_size: int, compute: Callable) -> list:
        parts = nn.ModuleList(part for part in (self.backbone, self.neck) if part is not None)
        # A GPU would otherwise round to TF32, and choose its algorithm by a race.
        precision = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        found = []
        with torch.no_grad(), undisturbed(parts), precision if self.exact else nullcontext():
            for batch in self._batches(images, batch_size):
                inputs = batch.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
                inputs = self.preprocess(inputs).contiguous(memory_format=self.memory_format)
                try:
                    found.append(compute(inputs))
                except AssertionError as error:  # by which transformers refuse sizes
                    size = ' x '.join(map(str, batch.shape[1:3]))
                    raise ValueError(
                        f'the network does not take frames of {size} pixels: {error}'
                    ) from error
        if not found:
            raise ValueError('there are no images')
        return found

    def _forward(self, images: Tensor) -> Tensor | Sequence[Tensor]:
        # Masked image modelling leaves out patches otherwise.
        masked = 'mask' in inspect.signature(self.backbone.forward).parameters
        return self.backbone(images, mask=None) if masked else self.backbone(images)

    def _necked(self, images: Tensor) -> Tensor:
        return _last_of(self.neck(self._forward(images)), 0)

    def _pooled(self, images: Tensor) -> Tensor:
        last = _last_of(self._forward(images))
        if last.ndim == 4:
            return last.mean(dim=(2, 3))
        return last.mean(dim=1) if last.ndim == 3 else last

    def _last(self, images: Tensor) -> Tensor:
        if hasattr(self.backbone, 'forward_features'):  # timm's
            return as_map(self.backbone.forward_features(images), self.backbone, images.shape[2:])
        if type(self.backbone).__module__.startswith('torchvision.'):
            return self._before_pooling(images)
        kind = getattr(self.backbone, 'out_type', None)  # mmpretrain's transformers
        try:
            if kind is not None:
                self.backbone.out_type = 'featmap'
            return as_map(_last_of(self._forward(images)), self.backbone, images.shape[2:])
        finally:
            if kind is not None:
                self.backbone.out_type = kind

    def _before_pooling(self, images: Tensor) -> Tensor:
        """The last feature map of a classifier of torchvision, whose output is a vector."""
        if hasattr(self.backbone, 'avgpool'):
            return self._output_of(self.backbone.avgpool, images, of_input=True)
        # Transformers have a norm behind their blocks; others pool by a function.
        last = getattr(self.backbone, 'encoder', None) or stages_of(self.backbone)[-1]
        return self._output_of(last, images)

    def _output_of(self, module: nn.Module, images: Tensor, of_input: bool = False) -> Tensor:
        """The feature map that a module gives, or gets."""

        def stop(module: nn.Module, inputs: tuple, output: Tensor | None = None) -> None:
            raise _Reached(inputs[0] if of_input else output)

        hooked = module.register_forward_pre_hook if of_input else module.register_forward_hook
        handle = hooked(stop)
        try:
            self._forward(images)
        except _Reached as reached:
            first = of_input or puts_channels_first(module)
            return as_map(reached.args[0], self.backbone, images.shape[2:], first)
        finally:
            handle.remove()
        raise ValueError('the network does not use this layer')


class _Reached(Exception):
    """The wanted layer has been computed."""


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode; afterwards modes and random numbers are as before."""
    modes = [(module, module.training) for module in model.modules()]
    states = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        try:
            model.eval()  # batch norm keeps its running statistics
            yield
        finally:
            # Not train(), whose overrides decide for themselves what is trained.
            for module, training in modes:
                module.training = training
            random.setstate(states[0])
            np.random.set_state(states[1])


def choose_device(device: str | None = None) -> str:
    """Check PyTorch's name of a device, by default a GPU where there is one.

    Raises:
        ValueError: If it cannot be used here.
    """
    if device is None:
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'device {device!r} cannot be used here: {reason}') from None
    return device


def _last_of(output: Tensor | Sequence[Tensor], index: int = -1) -> Tensor:
    return output[index] if isinstance(output, (tuple, list)) else output
