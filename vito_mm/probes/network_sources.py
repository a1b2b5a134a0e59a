"""Where networks come from: mmpretrain's configs, torchvision, timm and checkpoints of ResNets.

Weights are read from files on this machine. Nothing is downloaded.
"""

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vito_mm.checkpoint.config_parts import parts_of, type_name
from vito_mm.checkpoint.layouts import is_plain
from vito_mm.checkpoint.matching import BackboneMatch, load_backbone, match_file
from vito_mm.checkpoint.reading import (
    PREPROCESSING,
    CheckpointError,
    meta_of,
    read_checkpoint,
    state_dict_of,
)
from vito_mm.utils.text import near_text
from vito_mm.videos.frames import View


@dataclass(frozen=True)
class Normalisation:
    """What is done to pixels before a network gets them.

    Attributes:
        mean (tuple[float, ...]): Of pixels in [0, 255], in the order of the network's channels.
        std (tuple[float, ...]): Likewise.
        channel_order (str): ``'rgb'`` or ``'bgr'``. Defaults to 'rgb'.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str = 'rgb'


class Source(ABC):
    """A network that has a name and no weights yet.

    Args:
        name (str): As users give it.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def identity(self) -> str:
        """What the name stands for, for the record of a stage."""
        return self.name

    @abstractmethod
    def normalisation(self) -> Normalisation:
        """What the network was trained to get."""

    @abstractmethod
    def view(self) -> View:
        """The part of an image that it was trained to get. Interpolation is not taken over."""

    @abstractmethod
    def how_to_get(self) -> str:
        """Where its weights are, for a message."""

    @abstractmethod
    def classifier(self, checkpoint: str) -> nn.Module:
        """The whole network with the weights of a file, which give the number of classes."""

    @abstractmethod
    def backbone(self, checkpoint: str, which: str) -> nn.Module:
        """The network without its classifier, with the weights of a file."""


class TorchvisionNetwork(Source):
    """``torchvision:NAME``, or ``torchvision:NAME.WEIGHTS`` for other weights than the first.

    Raises:
        ValueError: If torchvision has no such classifier.
    """

    def __init__(self, name: str) -> None:
        import torchvision

        super().__init__(name)
        self.model, _, wanted = name.partition(':')[2].partition('.')
        # Others, of detection say, fetch the weights of their backbone.
        known = torchvision.models.list_models(module=torchvision.models)
        if self.model not in known:
            near = near_text(self.model, known)
            raise ValueError(f'torchvision has no classifier {self.model!r}{near}')
        entries = {entry.name: entry for entry in torchvision.models.get_model_weights(self.model)}
        if wanted and wanted not in entries:
            raise ValueError(
                f'torchvision has no weights {wanted!r} of {self.model}, only {", ".join(entries)}'
            )
        self.weights = entries[wanted or next(iter(entries))]

    def normalisation(self) -> Normalisation:
        about = self.weights.transforms()
        return _of_unit_range(about.mean, about.std)

    def view(self) -> View:
        about = self.weights.transforms()
        return View(about.resize_size[0], about.crop_size[0])

    def how_to_get(self) -> str:
        return f'get {self.weights.url} ({self.weights.name})'

    def classifier(self, checkpoint: str) -> nn.Module:
        return _loaded_classifier(self._make, checkpoint, self.name)

    def backbone(self, checkpoint: str, which: str) -> nn.Module:
        module = self._make(1000)
        linear = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
        if not linear:
            raise ValueError(f'{self.name}: what its classifier gets is no vector')
        parent, _, last = linear[-1].rpartition('.')
        setattr(module.get_submodule(parent), last, nn.Identity())
        weights = _without(read_weights(checkpoint), [linear[-1]])
        return load_exactly(module, weights, checkpoint, self.name)

    def _make(self, classes: int) -> nn.Module:
        import torchvision

        return torchvision.models.get_model(self.model, weights=None, num_classes=classes)


class TimmNetwork(Source):
    """``timm:NAME`` or ``timm:NAME.TAG``, whose tag tells the pre-processing.

    Raises:
        ImportError: If timm is not installed.
        ValueError: If timm has no such model.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        try:
            import timm
            from timm.data import resolve_data_config
        except ModuleNotFoundError as error:
            raise ImportError(
                f'{name} needs timm, which is not installed: pip install timm'
            ) from error
        self.model = name.partition(':')[2]
        try:
            about = timm.get_pretrained_cfg(self.model)
        except RuntimeError as error:  # of the tag
            raise ValueError(f'{name}: {error}') from None
        if about is None:
            near = near_text(self.model, timm.list_models())
            raise ValueError(f'timm has no model {self.model!r}{near}')
        self.about = about.to_dict()
        self.data = resolve_data_config(pretrained_cfg=self.about)

    def normalisation(self) -> Normalisation:
        return _of_unit_range(self.data['mean'], self.data['std'])

    def view(self) -> View:
        _, height, width = self.data['input_size']
        if self.data['crop_mode'] != 'center' or height != width:
            raise ValueError(
                f'{self.name}: only a square from the middle can be taken of a frame, and its '
                f'weights want crop_mode={self.data["crop_mode"]!r} at {width} x {height} pixels'
            )
        return View(int(height / self.data['crop_pct']), height)

    def how_to_get(self) -> str:
        if repository := self.about.get('hf_hub_id'):
            return f'get https://huggingface.co/{repository}/resolve/main/model.safetensors'
        return f'get {self.about.get("url") or "its weights"}'

    def classifier(self, checkpoint: str) -> nn.Module:
        return _loaded_classifier(self._make, checkpoint, self.name)

    def backbone(self, checkpoint: str, which: str) -> nn.Module:
        heads = self.about.get('classifier') or ()
        heads = [heads] if isinstance(heads, str) else heads
        weights = _without(read_weights(checkpoint), heads)
        return load_exactly(self._make(0), weights, checkpoint, self.name)

    def _make(self, classes: int) -> nn.Module:
        import timm

        return timm.create_model(self.model, pretrained=False, num_classes=classes)


class ConfiguredNetwork(Source):
    """``FILE.py``, a config of mmpretrain or of pre-training with it.

    Raises:
        ValueError: If there is no such file, or no model in it.
    """

    def __init__(self, name: str) -> None:
        from mmengine.config import Config

        super().__init__(name)
        if not Path(name).is_file():
            raise ValueError(f'there is no config {name}')
        self.cfg = Config.fromfile(name)
        if 'backbone' not in self.cfg.get('model', {}):
            raise ValueError(f'{name} has no model.backbone: name a config of mmpretrain')
        dataset = (self.cfg.get('test_dataloader') or {}).get('dataset') or {}
        self.pipeline = dataset.get('pipeline') or self.cfg.get('test_pipeline') or []
        self.preprocessor = (
            self.cfg.model.get('data_preprocessor') or self.cfg.get('data_preprocessor') or {}
        )

    def identity(self) -> str:
        said = json.dumps([self.cfg.model, self.preprocessor, self.pipeline], default=str)
        return f'config {hashlib.sha256(said.encode()).hexdigest()[:16]}'

    def normalisation(self) -> Normalisation:
        mean, std = self.preprocessor.get('mean'), self.preprocessor.get('std')
        if mean is None or std is None:
            raise ValueError(f'{self.name}: its data_preprocessor has no mean and std')
        # OpenMMLab's loaders give BGR; the preprocessors have a name each for turning it.
        turned = any(self.preprocessor.get(key) for key in ('to_rgb', 'bgr_to_rgb', 'rgb_to_bgr'))
        order = 'rgb' if turned else 'bgr'
        return Normalisation(tuple(map(float, mean)), tuple(map(float, std)), order)

    def view(self) -> View:
        resize, crop, squash = None, None, False
        for transform in self.pipeline:
            kind = type_name(transform)
            if kind == 'ResizeEdge' and transform.get('edge', 'short') == 'short':
                resize = transform['scale']
            elif kind == 'Resize' and not transform.get('keep_ratio', False):
                resize, squash = self._side(transform['scale']), True
            elif kind == 'CenterCrop' and resize is not None:
                crop = self._side(transform['crop_size'])
            elif kind not in ('LoadImageFromFile', 'PackInputs'):
                raise ValueError(
                    f'{self.name}: what {dict(transform)} of its test pipeline does cannot be done '
                    "to frames. Write test_pipeline with ResizeEdge (edge='short') and CenterCrop, "
                    'or with Resize'
                )
        if resize is None or (crop is None and not squash):
            raise ValueError(
                f'{self.name} does not say what size images have: it needs a test_pipeline with '
                'ResizeEdge and CenterCrop, or with Resize'
            )
        return View(resize, crop or resize, squash)

    def how_to_get(self) -> str:
        return 'take the file that training with the config wrote'

    def classifier(self, checkpoint: str) -> nn.Module:
        module = self._built(self._without_addresses().model)
        return load_exactly(module, read_weights(checkpoint), checkpoint, self.name)

    def backbone(self, checkpoint: str, which: str) -> nn.Module:
        module = self._built(self._without_addresses().model.backbone)
        if any(map(is_plain, module.state_dict())):
            load_backbone(module, checkpoint, which)
            return module
        if which != 'online':
            raise ValueError(f'{self.name}: the {which} network is found for ResNets only')
        weights, prefix = read_weights(checkpoint), 'backbone.'
        if found := {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}:
            weights = found
        return load_exactly(module, weights, checkpoint, self.name)

    def _built(self, part: Any) -> nn.Module:
        from mmengine.registry import DefaultScope
        from mmpretrain.registry import MODELS

        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return MODELS.build(part)

    def _without_addresses(self) -> Any:
        """The config without weights that a model would download when it is built."""
        cfg = copy.deepcopy(self.cfg)
        for _, part in parts_of(cfg.model, 'model'):
            if part.get('pretrained'):
                part['pretrained'] = None
        return cfg

    def _side(self, size: int | Sequence[int]) -> int:
        sides = {size} if isinstance(size, int) else set(size)
        if len(sides) > 1:
            raise ValueError(f'{self.name}: its images are {size}, and frames are cut to squares')
        return sides.pop()


class CheckpointedResNet(Source):
    """A file with a ResNet of pre-training, see :func:`vito_mm.transfer.load_backbone`."""

    def normalisation(self) -> Normalisation:
        said = meta_of(read_checkpoint(self.name)).get('preprocessing') or PREPROCESSING
        return Normalisation(tuple(said['mean']), tuple(said['std']), said['channel_order'])

    def view(self) -> View:
        return View(256, 224)

    def how_to_get(self) -> str:
        return ''

    def classifier(self, checkpoint: str) -> nn.Module:
        raise ValueError(f'{self.name} has no classifier')

    def backbone(self, checkpoint: str, which: str) -> nn.Module:
        from vito_mm.probes.frozen_features import frozen_resnet

        match = match_file(checkpoint, which=which)
        if match.depths[0] is None:
            raise CheckpointError(
                f'{checkpoint} holds no whole ResNet-18, 34, 50, 101 or 152 under '
                f'{match.prefix!r}. Of another network, name the config as the backbone and this '
                'file as the checkpoint'
            )
        return frozen_resnet(checkpoint, match.depths[0], which)


@cache
def find_source(name: str) -> Source:
    """The network that a name stands for.

    Args:
        name (str): ``torchvision:NAME``, ``timm:NAME`` or the path of a config, ``FILE.py``.

    Returns:
        Source: The network.

    Raises:
        ValueError: If there is no such network.
        ImportError: If its library is not installed.
    """
    if name.startswith('torchvision:'):
        return TorchvisionNetwork(name)
    if name.startswith('timm:'):
        return TimmNetwork(name)
    if name.endswith('.py'):
        return ConfiguredNetwork(name)
    raise ValueError(
        f'{name or "nothing"!r} is no network: name torchvision:NAME such as torchvision:resnet50, '
        'timm:NAME such as timm:resnet50.a1_in1k, or a config of mmpretrain, FILE.py'
    )


def read_weights(checkpoint: str) -> dict[str, Tensor]:
    """Read a state dict without running code that a file may hold.

    Args:
        checkpoint (str): File of PyTorch or safetensors.

    Returns:
        dict[str, Tensor]: The weights, without the prefix of DistributedDataParallel.

    Raises:
        CheckpointError: If it holds none.
    """
    weights = state_dict_of(read_checkpoint(checkpoint), checkpoint, with_averaged=False)
    if all(key.startswith('module.') for key in weights):
        weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    return weights


def load_exactly(
    module: nn.Module, weights: Mapping[str, Tensor], checkpoint: str, name: str
) -> nn.Module:
    """Load all weights into all places.

    Args:
        module (nn.Module): Network.
        weights (Mapping[str, Tensor]): State dict.
        checkpoint (str): Where it is from, for the message.
        name (str): Name of the network, for the message.

    Returns:
        nn.Module: The network.

    Raises:
        CheckpointError: If they do not fit; lists missing, unexpected and misshaped keys.
    """
    match = BackboneMatch('', 'online')
    try:
        result = module.load_state_dict(weights, strict=False)
        match.missing, match.unexpected = result.missing_keys, result.unexpected_keys
    except RuntimeError:  # of shapes
        own = module.state_dict()
        match.missing = [key for key in own if key not in weights]
        match.unexpected = [key for key in weights if key not in own]
        match.misshaped = [
            f'{key} {tuple(weights[key].shape)} -> {tuple(value.shape)}'
            for key, value in own.items()
            if key in weights and weights[key].shape != value.shape
        ]
    if not match.complete:
        raise CheckpointError(
            f'{checkpoint} does not fit {name}:\n{match.describe()}\nName the network that the '
            'checkpoint was trained with'
        )
    return module


def _loaded_classifier(make: Any, checkpoint: str, name: str) -> nn.Module:
    """A network with as many outputs as its checkpoint has: the last layer is the classifier."""
    weights, module = read_weights(checkpoint), make(1000)
    last = list(module.state_dict())[-1]
    if last in weights and weights[last].ndim and len(weights[last]) != 1000:
        module = make(len(weights[last]))
    return load_exactly(module, weights, checkpoint, name)


def _without(weights: Mapping[str, Tensor], parts: Sequence[str]) -> dict[str, Tensor]:
    prefixes = tuple(f'{part}.' for part in parts)
    return {key: value for key, value in weights.items() if not key.startswith(prefixes)}


def _of_unit_range(mean: Sequence[float], std: Sequence[float]) -> Normalisation:
    """From numbers for pixels in [0, 1]."""
    return Normalisation(*(tuple(255 * float(v) for v in values) for values in (mean, std)))
