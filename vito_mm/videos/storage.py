"""Videos that are not files of their own: members of tars, and those in object storage.

Their bytes are put into memory (Linux's ``memfd``), which has a name like a file, so that all
decoders and readers take them as they take files.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any, BinaryIO
from urllib.request import urlopen

from .errors import VideoReadError
from .file_checks import CANNOT_READ
from .tars import SEPARATOR, opened_member, split_member

SILENCE = 10.0
"""Seconds without a byte after which a server is given up."""

_BLOCK = 2**18


def is_address(path: str) -> bool:
    """True for an address such as ``https://host/1.mp4`` or ``cluster:s3://bucket/1.mp4``."""
    return '://' in path and re.match(r'[\w.+-]+(:[\w.+-]+)?://', path) is not None


@contextmanager
def local_name(
    path: str,
    backend_args: Mapping[str, Any] | None = None,
    check_deadline: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """Give the name under which a video can be opened: its path, or that of its bytes in memory.

    A file of its own, which need not exist, is not touched.

    Args:
        path (str): File or folder, member of a tar (``shard.tar::cats/1.mp4``, unless that is the
            name of a file), or address.
        backend_args (Mapping, optional): Arguments of :func:`mmengine.fileio.get`. With a
            ``backend`` other than ``'local'``, it reads all paths. Defaults to None: the prefix of
            an address decides.
        check_deadline (Callable): Called between blocks that are read. Defaults to nothing.

    Raises:
        VideoReadError: If it cannot be read. Nothing is tried again.
        ImportError: If the client of a storage is not installed.
    """
    backend = (backend_args or {}).get('backend')
    is_remote = is_address(path) if backend is None else backend != 'local'
    if is_remote:
        with _memory() as file:
            _fetch(path, backend_args, file, check_deadline)
            yield _name(file)
    elif (found := split_member(path)) is not None:
        with _memory() as file:
            with opened_member(*found, check_deadline) as member:
                shutil.copyfileobj(member, file, _BLOCK)
            yield _name(file)
    elif SEPARATOR in path and not os.path.lexists(path):
        raise VideoReadError(path, f'no such file, and no tar {path.split(SEPARATOR)[0]!r}')
    else:
        yield path


def check_backend_args(backend_args: Mapping[str, Any] | None) -> None:
    """Raise a ValueError if MMEngine has no such backend, or the error that it raises itself."""
    if backend_args and 'backend' in backend_args:
        from mmengine.fileio import backends, get_file_backend

        if (name := backend_args['backend']) not in backends.backends:
            known = ', '.join(backends.backends)
            raise ValueError(
                f'backend_args: MMEngine has no storage backend {name!r} but {known}. Others are '
                'registered with mmengine.fileio.register_backend in a module of custom_imports'
            )
        get_file_backend(backend_args=dict(backend_args))


def _memory() -> BinaryIO:
    return open(os.memfd_create('video'), 'w+b')


def _name(file: BinaryIO) -> str:
    file.flush()
    return f'/proc/self/fd/{file.fileno()}'


def _fetch(
    path: str,
    backend_args: Mapping[str, Any] | None,
    file: BinaryIO,
    check_deadline: Callable[[], None],
) -> None:
    from mmengine.fileio import HTTPBackend, backends, get_file_backend

    try:
        backend = get_file_backend(path, backend_args=backend_args, enable_singleton=True)
    except KeyError as error:
        known = ', '.join(f'{prefix}://' for prefix in backends.prefix_to_backends if prefix)
        reason = f'no storage backend of MMEngine reads addresses of {error}, known are {known}'
        raise VideoReadError(path, reason) from None
    try:
        if type(backend) is HTTPBackend:  # its own ``get`` waits for ever
            _download(path, file, check_deadline)
        else:
            if (data := backend.get(path)) is None:  # LMDB's and others' answer
                raise FileNotFoundError('there is nothing under this name')
            file.write(data)
    except VideoReadError:
        raise
    except Exception as error:  # clients of storages raise anything
        raise VideoReadError(path, _reason(path, error)) from None
    check_deadline()


def _download(url: str, file: BinaryIO, check_deadline: Callable[[], None]) -> None:
    with urlopen(url, timeout=SILENCE) as response:
        length = response.length
        while block := response.read1(_BLOCK):
            file.write(block)
            check_deadline()
        if length is not None and file.tell() != length:
            raise HTTPException(f'cut off after {file.tell()} of {length} bytes')


def _reason(path: str, error: Exception) -> str:
    """Reason in one line."""
    remedy = ''
    if SEPARATOR in path:
        remedy = ' (members are read from tars on disks only: copy or mount the tar)'
    name = '' if isinstance(error, OSError | HTTPException) else f'{type(error).__name__}: '
    return ' '.join(f'{CANNOT_READ}: {name}{error}{remedy}'.split())
