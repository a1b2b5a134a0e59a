"""A checkpoint file, read once and passed to all that need it."""

import hashlib
import os
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Union
from weakref import WeakValueDictionary

from torch import Tensor

from vito_mm.utils.hashing import sha1_of_file, sha256_of_file

from .conventions import Conventions
from .errors import CheckpointError
from .matching import BackboneMatch, Fit, find_backbone, match_prefix, require_weights
from .networks import WRAPPERS, flat_weights, is_target
from .origins import file_conventions
from .reading import META, foreign_classes, read_content

_META_KEYS = ('architecture', 'source', 'step', 'which', 'config_sha256')
_META_KEYS += ('preprocessing', 'conventions')


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights and metadata of one file. Get it by :meth:`read`.

    It can be given wherever a path can. A file is read once as long as its ``Checkpoint`` is held.

    Attributes:
        path (str): The file, as it was named.
        content (Mapping): Its entries, tensors on the CPU; nobody may change them.
    """

    path: str
    content: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, path: Union[str, os.PathLike, 'Checkpoint']) -> 'Checkpoint':
        """Read a local file without running code that it may hold.

        Objects of classes that ``torch.load(weights_only=True)`` refuses, such as the
        ``argparse.Namespace`` of a training script, are left empty.

        Args:
            path (str | os.PathLike | Checkpoint): File written by ``torch.save``, a pickle of numpy
                arrays, an ``.npz``, a safetensors file, or the index (``*.index.json``) of one in
                shards.

        Raises:
            CheckpointError: If the file is missing, a folder, no checkpoint, damaged, or needs
                unsafe pickles.
            ImportError: If it is a safetensors file and the package safetensors is not installed.
        """
        if isinstance(path, Checkpoint):
            return path
        path = os.fspath(path)
        key = _identity(path)
        held = _HELD.get(key)
        if held is None:
            held = cls(path, read_content(Path(path)))
            if key is not None:
                _HELD[key] = held
        return held

    @cached_property
    def state_dict(self) -> dict[str, Tensor]:
        """The weights of all networks, see :func:`.networks.flat_weights`."""
        return self._weights(with_averaged=True)

    @cached_property
    def model_state_dict(self) -> dict[str, Tensor]:
        """The weights that the program that wrote the file loads into its model."""
        return self._weights(with_averaged=False)

    def _weights(self, with_averaged: bool) -> dict[str, Tensor]:
        weights = flat_weights(self.content, self.path, with_averaged)
        if not weights:
            classes = ', '.join((foreign_classes(self.path) or [])[:5])
            raise CheckpointError(
                f'{self.path} holds no weights: its entries are '
                f'{sorted(map(str, self.content))[:10]}'
                + (f', with objects of {classes}' if classes else '')
                + f'. Expected a state dict, alone or under one of {", ".join(WRAPPERS)}.'
            )
        return weights

    @cached_property
    def meta(self) -> dict[str, Any]:
        """Metadata, where the file has them: architecture, source, step, which, and so on.

        Also config_sha256, preprocessing and conventions.
        Training checkpoints of MMEngine have the step and the config's hash; files of other
        programs nothing.
        """
        meta = self.content.get('meta')
        if not isinstance(meta, Mapping):
            # A bare state dict has no other room.
            meta = getattr(self.content, '_metadata', {}).get('', {}).get(META, {})
        known = {key: meta[key] for key in _META_KEYS if key in meta}
        if isinstance(meta.get('iter'), int):
            known.setdefault('step', meta['iter'])
        if self.config is not None:
            digest = hashlib.sha256(self.config.encode()).hexdigest()
            known.setdefault('config_sha256', digest)
        return known

    @property
    def config(self) -> str | None:
        """Text of the training config that MMEngine stores; never executed here."""
        meta = self.content.get('meta')
        text = meta.get('cfg') if isinstance(meta, Mapping) else None
        return text if isinstance(text, str) and text else None

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Mean and std of pixels in [0, 255] and ``channel_order`` (``'rgb'`` or ``'bgr'``).

        ImageNet's, with ``assumed=True``, where the file does not tell.
        """
        return self.conventions.said_preprocessing()

    @cached_property
    def conventions(self) -> Conventions:
        """What the network of the weights computes, see :func:`.origins.file_conventions`."""
        return file_conventions(self)

    @cached_property
    def sha1(self) -> str:
        """SHA-1 of the file, hexadecimal, by which public files are known."""
        return sha1_of_file(self.path)

    @cached_property
    def sha256(self) -> str:
        """Hash of the file, hexadecimal."""
        return sha256_of_file(self.path)

    def match(
        self,
        expected: Mapping[str, Tensor] | None = None,
        which: str = 'online',
        fit: Fit | None = None,
    ) -> BackboneMatch:
        """Find a backbone in the file, under whatever prefix and by whatever names.

        Args:
            expected (Mapping[str, Tensor], optional): State dict to fill. Defaults to None: any
                ResNet will do, and shapes are not compared.
            which (str): ``'online'`` or ``'target'``. Of an exported file, which holds one network
                under bare names, ``'online'`` is that one. Defaults to 'online'.
            fit (Callable, optional): See :data:`.matching.Fit`. Defaults to None: linear layers and
                1x1 convolutions take each other's weights, and nothing else is reshaped.

        Raises:
            CheckpointError: If the file holds nothing of this network.
        """
        if expected is None and which in self._plain_matches:
            return self._described(copy(self._plain_matches[which]), expected)
        exported = self.meta.get('which')
        try:
            if exported is not None and which == 'target' and exported != 'target':
                raise CheckpointError(
                    f'It was exported from the {exported} network; use which="online".'
                )
            network = 'online' if exported else which
            match = find_backbone(self.state_dict, expected, network, fit)
        except CheckpointError as error:
            raise CheckpointError(f'There is no such backbone in {self.path}. {error}') from None
        match.which = exported or match.which
        if expected is None:
            self._plain_matches[which] = copy(match)
        return self._described(match, expected)

    @cached_property
    def _plain_matches(self) -> dict[str, BackboneMatch]:
        """ResNets that were found, by network: a search among all depths takes a second."""
        return {}

    def match_prefix(
        self, expected: Mapping[str, Tensor], prefix: str, fit: Fit | None = None
    ) -> BackboneMatch:
        """Compare what has a prefix, with its dot or empty, in the file with a state dict."""
        which = 'target' if is_target(prefix) else 'online'
        match = match_prefix(self.model_state_dict, expected, prefix, which, fit=fit)
        return self._described(match, expected)

    def _described(
        self, match: BackboneMatch, expected: Mapping[str, Tensor] | None
    ) -> BackboneMatch:
        match.file, match.meta = self.path, self.meta
        require_weights(match.weights, self.path, expected)
        return match

    def __str__(self) -> str:
        return self.path

    def __fspath__(self) -> str:
        return self.path

    def __deepcopy__(self, memo: dict) -> 'Checkpoint':
        return self

    def __reduce__(self) -> tuple:
        return Checkpoint.read, (self.path,)


_HELD: 'WeakValueDictionary[tuple | None, Checkpoint]' = WeakValueDictionary()
"""Files that were read and are still in use: configs name them once more, as text."""


def _identity(path: str) -> tuple | None:
    try:
        status = os.stat(path)
    except OSError:
        return None  # the reader gives the reason
    return os.path.abspath(path), status.st_ino, status.st_size, status.st_mtime_ns
