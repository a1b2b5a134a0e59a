"""Faults of a file that show without a decoder."""

import os
import stat
from typing import BinaryIO

from .errors import VideoReadError

HEAD_BYTES = 512
"""Bytes of a file that :func:`check_head` looks at."""

MAX_PIXELS = 2**27
"""Frames of more pixels are taken for broken headers: 16K (15360 x 8640) is just below."""

TOO_LARGE = 'more pixels in a frame than the limit'
CANNOT_READ = 'cannot be read'

_COMPRESSED = {
    b'\x1f\x8b': 'gzip',
    b'BZh': 'bzip2',
    b'\xfd7zXZ\0': 'xz',
    b'\x28\xb5\x2f\xfd': 'zstd',
    b'PK\3\4': 'zip',
    b"7z\xbc\xaf'\x1c": '7z',
    b'Rar!': 'rar',
}


def check_pixels(path: str, width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse frames of more pixels than any camera makes, before memory is taken for them."""
    if width * height > max_pixels:
        raise VideoReadError(path, f'{TOO_LARGE}: {width} x {height} > {max_pixels}')


def check_file(path: str) -> os.stat_result:
    """Status of a regular file or folder; what cannot be read is refused.

    Opening a pipe would even wait for ever.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        reason = 'a link to a missing file' if os.path.islink(path) else 'no such file'
        raise VideoReadError(path, reason) from None
    except OSError as error:
        raise VideoReadError(path, f'{CANNOT_READ}: {error.strerror}') from None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise VideoReadError(path, 'is no regular file but a pipe, a socket or a device')
    if not os.access(path, os.R_OK):
        raise VideoReadError(path, 'no permission to read it')
    return status


def check_head(path: str, head: bytes) -> None:
    """Refuse an empty file, a text and a compressed archive by the first ``HEAD_BYTES`` bytes.

    FFmpeg would call them invalid data, or consider them a list of other files to open.
    """
    if not head:
        raise VideoReadError(path, 'is empty (0 bytes)')
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            remedy = 'Unpack it, and list the folder, or a .tar of it without compression'
            raise VideoReadError(path, f'is a compressed archive: {name}. {remedy}')
    if b'\0' in head or head.startswith(b'YUV4MPEG2'):
        return
    try:
        text = head.decode('utf-8')
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else: a character cut by the end of the head
            return
        text = head[: error.start].decode('utf-8')
    if all(character.isprintable() or character.isspace() for character in text):
        begin = ' '.join(text.split())[:40]
        raise VideoReadError(path, f'is text and not a video: it begins with {begin!r}')


def is_mp4_or_matroska(head: bytes) -> bool:
    """True if the first bytes are those of MP4, MOV, Matroska or WebM, and of nothing else.

    False if FFmpeg could also consider it a playlist, which it finds by tags in the text up to the
    first NUL.
    """
    boxes = (b'ftyp', b'moov', b'mdat', b'free', b'skip', b'wide', b'pnot')
    text, nul, _ = head.partition(b'\0')
    is_either = head[4:8] in boxes or head[:4] == b'\x1aE\xdf\xa3'
    return is_either and bool(nul) and b'<' not in text


def name_for_decoders(path: str, file: BinaryIO) -> str:
    """Name by which decoders open this file and nothing else: its path, or its descriptor on Linux.

    Decoders cannot be given a path that is not UTF-8, and would see a protocol (``concat:``) or a
    pattern (``%03d.png``) in others.
    """
    try:
        path.encode('utf-8')
        is_plain = not set(path) & set(':%')
    except UnicodeEncodeError:
        is_plain = False
    return path if is_plain else f'/proc/self/fd/{file.fileno()}'
