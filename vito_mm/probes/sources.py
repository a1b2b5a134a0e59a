"""Networks by name, without weights: mmpretrain's configs, torchvision's and timm's.

Weights are read from files on this machine. Nothing is downloaded.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from torch import Tensor, nn

from vito_mm.checkpoint import BackboneMatch, Checkpoint, CheckpointError, load_backbone
from vito_mm.checkpoint.config_parts import type_name
from vito_mm.checkpoint.conventions import require_same_features
from vito_mm.checkpoint.preprocessing import preprocessing_of_config
from vito_mm.checkpoint.stored_config import build_part
from vito_mm.utils.configs import read_config
from vito_mm.utils.text import near_text
from vito_mm.videos.frames import View

from .inputs import Preprocessing

Loaded = tuple[nn.Module, BackboneMatch | None]
"""A network with its weights, and for a backbone how the file covers it."""


@cache
def find_source(name: str) -> 'Source':
    """Find the network that a name stands for.

    Args:
        name (str): ``torchvision:NAME``, ``timm:NAME`` or the path of a config, ``FILE.py``.

    Raises:
        ValueError: If there is no such network.
        ImportError: If its library is not installed.
    """
    if name.startswith('torchvision:'):
        return TorchvisionSource(name)
    if name.startswith('timm:'):
        return TimmSource(name)
    if name.endswith('.py'):
        return ConfigSource.of_file(name)
    raise ValueError(
        f'{name or "nothing"!r} is no network: name torchvision:NAME such as torchvision:resnet50, '
        'timm:NAME such as timm:resnet50.a1_in1k, or a config of mmpretrain, FILE.py'
    )


class Source:
    """A network by its name, without weights.

    Subclasses have

    - ``view()``: the part of an image that it was trained with; interpolation is not followed.
    - ``preprocessing()``: the normalisation that it was trained with; None if it is not known.
    - ``remedy()``: where to get its weights.
    - ``load(checkpoint, which, classifier)``: the network with all the weights of a ``Checkpoint``,
      else a CheckpointError, or random ones for None. ``which`` is the network of a checkpoint of
      pre-training; ``classifier`` keeps the classifier.

    Attributes:
        name (str): As users give it.
        identity (str): The network that the name stands for, for the record of a stage.
    """

    name: str
    identity: str


class _Library(Source):
    """A network of a library.

    Subclasses set ``mean_and_std`` of pixels in [0, 1] and have ``make(classes)``, and
    ``headless()``, which leaves the classifier out and names its modules.
    """

    def __init__(self, name: str) -> None:
        self.name = self.identity = name

    def preprocessing(self) -> Preprocessing:
        return Preprocessing(
            *(tuple(255 * float(value) for value in values) for values in self.mean_and_std)
        )

    def load(self, checkpoint: Checkpoint | None, which: str, classifier: bool) -> Loaded:
        weights = {} if checkpoint is None else _weights(checkpoint)
        if classifier:
            module = self.make(1000)
            last = list(module.state_dict())[-1]  # of the classifier, with a row per class
            if last in weights and weights[last].ndim and len(weights[last]) != 1000:
                module = self.make(len(weights[last]))
        else:
            module, heads = self.headless()
            prefixes = tuple(f'{head}.' for head in heads)
            weights = {k: v for k, v in weights.items() if not k.startswith(prefixes)}
        if checkpoint is not None:
            _load_exactly(module, weights, checkpoint, self.name)
        return module, None


class TorchvisionSource(_Library):
    """``torchvision:NAME``, or ``torchvision:NAME.WEIGHTS`` for other weights than the first."""

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
        self.about = self.weights.transforms()
        self.mean_and_std = self.about.mean, self.about.std

    def view(self) -> View:
        return View(self.about.resize_size[0], self.about.crop_size[0])

    def remedy(self) -> str:
        return f'get {self.weights.url} ({self.weights.name})'

    def make(self, classes: int) -> nn.Module:
        import torchvision

        # What torchvision's builders set only where weights are given to them.
        is_vit = self.model.startswith('vit_')
        settings = dict(image_size=self.weights.meta['min_size'][0]) if is_vit else {}
        module = torchvision.models.get_model(
            self.model, weights=None, num_classes=classes, **settings
        )
        if hasattr(module, 'transform_input'):
            module.transform_input = True
        return module

    def headless(self) -> tuple[nn.Module, list[str]]:
        module = self.make(1000)
        linear = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
        if not linear:
            raise ValueError(f'{self.name}: what its classifier gets is no vector')
        parent, _, last = linear[-1].rpartition('.')
        setattr(module.get_submodule(parent), last, nn.Identity())
        return module, [linear[-1]]


class TimmSource(_Library):
    """``timm:NAME`` or ``timm:NAME.TAG``, whose tag tells the preprocessing."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        try:
            import timm
            from timm.data import resolve_data_config
        except ModuleNotFoundError as error:
            raise ImportError(f'{name} needs timm. Run: pip install timm') from error
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
        self.mean_and_std = self.data['mean'], self.data['std']

    def view(self) -> View:
        _, height, width = self.data['input_size']
        if self.data['crop_mode'] != 'center' or height != width:
            raise ValueError(
                f'{self.name}: only a square from the middle can be taken of a frame, and its '
                f'weights want crop_mode={self.data["crop_mode"]!r} at {width} x {height} pixels'
            )
        return View(int(height / self.data['crop_pct']), height)

    def remedy(self) -> str:
        if repository := self.about.get('hf_hub_id'):
            return f'get https://huggingface.co/{repository}/resolve/main/model.safetensors'
        return f'get {self.about.get("url") or "its weights"}'

    def make(self, classes: int, **settings: Any) -> nn.Module:
        import timm

        return timm.create_model(self.model, pretrained=False, num_classes=classes, **settings)

    def headless(self) -> tuple[nn.Module, list[str]]:
        heads = self.about.get('classifier') or ()
        module = self.make(0)
        if hasattr(module, 'dynamic_img_size'):  # plain transformers: frames of any size
            module = self.make(0, dynamic_img_size=True)
        return module, [heads] if isinstance(heads, str) else list(heads)


class ConfigSource(Source):
    """A config of mmpretrain, or of pre-training with it.

    Args:
        name (str): Name of the config, for messages.
        model (Mapping): Config of the model, or at least of its ``backbone``.
        preprocessor (Mapping, optional): That of images, if the model does not have it.
        pipeline (Sequence[Mapping]): Transforms of test images. Defaults to none.
        trusted (bool): Let types be any name that MMEngine can import. Defaults to True.
    """

    def __init__(
        self,
        name: str,
        model: Mapping[str, Any],
        preprocessor: Mapping[str, Any] | None = None,
        pipeline: Sequence[Mapping[str, Any]] = (),
        trusted: bool = True,
    ) -> None:
        if 'backbone' not in model:
            raise ValueError(f'{name} has no model.backbone: name a config of mmpretrain')
        self.name, self.model, self.pipeline, self.trusted = name, model, pipeline, trusted
        self.preprocessor = model.get('data_preprocessor') or preprocessor or {}

    @classmethod
    def of_file(cls, name: str) -> 'ConfigSource':
        """Read and execute a config file."""
        try:
            cfg = read_config(name)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from None
        dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
        pipeline = dataset.get('pipeline') or cfg.get('test_pipeline') or []
        return cls(name, cfg.get('model') or {}, cfg.get('data_preprocessor'), pipeline)

    @property
    def identity(self) -> str:
        """Hash of all that decides its outputs."""
        said = json.dumps([self.model, self.preprocessor, self.pipeline], default=str)
        return f'config {hashlib.sha256(said.encode()).hexdigest()[:16]}'

    def preprocessing(self) -> Preprocessing | None:
        found = preprocessing_of_config(self.preprocessor)
        if found is None:
            return None
        return Preprocessing(tuple(found['mean']), tuple(found['std']), found['channel_order'])

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
                    f'{self.name}: frames cannot be put through {dict(transform)} of its test '
                    "pipeline. Write ResizeEdge (edge='short') and CenterCrop there, or Resize"
                )
        if resize is None or (crop is None and not squash):
            raise ValueError(
                f'{self.name} does not say what size images have: it needs a test_pipeline with '
                'ResizeEdge and CenterCrop, or Resize'
            )
        return View(resize, crop or resize, squash)

    def remedy(self) -> str:
        return 'take the file that training with the config wrote'

    def load(self, checkpoint: Checkpoint | None, which: str, classifier: bool) -> Loaded:
        module = self.build(self.model if classifier else self.model['backbone'])
        if checkpoint is None:
            module.init_weights()
            return module, None
        if classifier:
            _load_exactly(module, _weights(checkpoint), checkpoint, self.name)
            return module, None
        return module, load_backbone(module, checkpoint, which)

    def build(self, part: Mapping[str, Any]) -> nn.Module:
        """Build a module of the model, without weights."""
        return build_part(part, self.trusted)

    def _side(self, size: int | Sequence[int]) -> int:
        sides = {size} if isinstance(size, int) else set(size)
        if len(sides) > 1:
            raise ValueError(f'{self.name}: its images are {size}, and frames are cut to squares')
        return sides.pop()


def _load_exactly(
    module: nn.Module, weights: Mapping[str, Tensor], checkpoint: Checkpoint, name: str
) -> None:
    """Load all weights into all places, or raise a CheckpointError with the keys."""
    own = module.state_dict()
    match = BackboneMatch('', 'online')
    match.missing = [key for key in own if key not in weights]
    match.unexpected = [key for key in weights if key not in own]
    match.shape_mismatch = [
        f'{key} {tuple(weights[key].shape)} -> {tuple(value.shape)}'
        for key, value in own.items()
        if key in weights and weights[key].shape != value.shape
    ]
    if not match.complete:
        raise CheckpointError(
            f'{checkpoint} does not fit {name}:\n{match.describe()}\nName the network that the '
            'checkpoint was trained with'
        )
    require_same_features(checkpoint, module, weights)
    module.load_state_dict(weights)


def _weights(checkpoint: Checkpoint) -> Mapping[str, Tensor]:
    """Weights of a file, without the prefix of DistributedDataParallel."""
    weights = checkpoint.model_state_dict
    if all(key.startswith('module.') for key in weights):
        weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    return weights
