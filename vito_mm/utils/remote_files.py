"""Files behind addresses, read by the storage backends of MMEngine.

MMEngine is imported when one is read: preparing videos on disks does without it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO
from urllib.request import urlopen

SILENCE = 10.0
"""Seconds without a byte after which a server is given up."""
BLOCK = 2**18
"""Bytes that are read at once."""


def is_address(path: str) -> bool:
    """True for an address such as ``https://host/1.mp4`` or ``cluster:s3://bucket/1.mp4``."""
    return '://' in path and re.match(r'[\w.+-]+(:[\w.+-]+)?://', path) is not None


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


def fetch(
    path: str,
    backend_args: Mapping[str, Any] | None,
    file: BinaryIO,
    check_deadline: Callable[[], None],
) -> None:
    """Write the bytes of an address to an open file.

    Args:
        path (str): Address, or name in the storage of ``backend_args``.
        backend_args (Mapping, optional): Arguments of :func:`mmengine.fileio.get`.
        file (BinaryIO): Gets the bytes.
        check_deadline (Callable): Called between blocks that are read, and at the end.

    Raises:
        ImportError: If the client of a storage is not installed.
        Exception: If it cannot be read, of any kind that a client raises. Nothing is tried again.
    """
    from mmengine.fileio import HTTPBackend, backends, get_file_backend

    try:
        backend = get_file_backend(path, backend_args=backend_args, enable_singleton=True)
    except KeyError as error:
        known = ', '.join(f'{prefix}://' for prefix in backends.prefix_to_backends if prefix)
        raise OSError(
            f'no storage backend of MMEngine reads addresses of {error}, known are {known}'
        ) from None
    if type(backend) is HTTPBackend:  # its own ``get`` waits for ever
        _download(path, file, check_deadline)
    else:
        data = backend.get(path)
        if data is None:  # LMDB's and others' answer
            raise FileNotFoundError('there is nothing under this name')
        file.write(data)
    check_deadline()


def _download(url: str, file: BinaryIO, check_deadline: Callable[[], None]) -> None:
    with urlopen(url, timeout=SILENCE) as response:
        length = response.length
        while block := response.read1(BLOCK):
            file.write(block)
            check_deadline()
    if length is not None and file.tell() != length:
        raise OSError(f'cut off after {file.tell()} of {length} bytes')
