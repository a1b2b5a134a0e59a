"""A checkpoint file, read once and passed to all that need it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union
from weakref import WeakValueDictionary

from torch import Tensor

from vito_mm.utils.hashing import sha256_of_file

from .reading import PREPROCESSING, meta_of, read_checkpoint, state_dict_of

if TYPE_CHECKING:
    from .matching import BackboneMatch


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights and metadata of one file. Get it by :meth:`read`.

    Functions that take a path take a ``Checkpoint`` as well: it stands for its path. A file is read
    once as long as somebody holds its ``Checkpoint``.

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
                shards. A ``Checkpoint`` is returned as it is.

        Returns:
            Checkpoint: The one that is held already, if the file is the same.

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
            held = cls(path, read_checkpoint(path))
            if key is not None:
                _HELD[key] = held
        return held

    @cached_property
    def state_dict(self) -> dict[str, Tensor]:
        """All weights in one flat dict, see :func:`.reading.state_dict_of`."""
        return state_dict_of(self.content, self.path)

    @cached_property
    def model_state_dict(self) -> dict[str, Tensor]:
        """The weights that the program that wrote the file loads into its model."""
        return state_dict_of(self.content, self.path, with_averaged=False)

    @cached_property
    def meta(self) -> dict[str, Any]:
        """Those of architecture, source, step, which, config_sha256 and preprocessing it tells."""
        return meta_of(self.content)

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
        return self.meta.get('preprocessing') or dict(PREPROCESSING, assumed=True)

    @cached_property
    def sha256(self) -> str:
        """Hash of the file, hexadecimal."""
        return sha256_of_file(self.path)

    def match(
        self, expected: Mapping[str, Tensor] | None = None, which: str = 'online'
    ) -> 'BackboneMatch':
        """Find a backbone in the file, under whatever prefix and by whatever names.

        Args:
            expected (Mapping[str, Tensor], optional): State dict to fill. Defaults to None: any
                ResNet will do.
            which (str): ``'online'`` or ``'target'``. Of an exported file, which holds one network
                under bare names, ``'online'`` is that one. Defaults to 'online'.

        Returns:
            BackboneMatch: The best match, which need not be complete.

        Raises:
            CheckpointError: If the file holds nothing of this network.
        """
        from .matching import match_file

        return match_file(self, expected, which)

    def match_at(self, expected: Mapping[str, Tensor], prefix: str) -> 'BackboneMatch':
        """Compare what has a prefix in the file with a backbone.

        Args:
            expected (Mapping[str, Tensor]): State dict to fill.
            prefix (str): Prefix with its dot; may be empty.

        Returns:
            BackboneMatch: The match, which need not be complete.
        """
        from .matching import match_at

        return match_at(self, expected, prefix)

    def __str__(self) -> str:
        return self.path

    def __fspath__(self) -> str:
        return self.path

    def __deepcopy__(self, memo: dict) -> 'Checkpoint':
        return self

    def __reduce__(self) -> tuple:
        return Checkpoint.read, (self.path,)


_HELD: 'WeakValueDictionary[tuple, Checkpoint]' = WeakValueDictionary()
"""What was read and is still in use: configs name the same file as text once more."""


def _identity(path: str) -> tuple | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None  # the reader gives the reason
    return os.path.abspath(path), status.st_ino, status.st_size, status.st_mtime_ns
