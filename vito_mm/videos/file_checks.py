"""What is wrong with a file, as far as it shows without a decoder."""

import os
import stat

from .errors import VideoReadError

HEAD_BYTES = 512
"""Bytes of a file that :func:`check_head` looks at."""


def check_file(path: str) -> os.stat_result:
    """Refuse what cannot be read; opening a pipe would even wait for ever.

    Args:
        path (str): File that should be read.

    Returns:
        os.stat_result: Status of a regular file or a folder.

    Raises:
        VideoReadError: If it does not exist, is neither file nor folder, or may not be read.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        reason = 'a link to a missing file' if os.path.islink(path) else 'no such file'
        raise VideoReadError(path, reason) from None
    except OSError as error:
        raise VideoReadError(path, f'cannot be read: {error.strerror}') from None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise VideoReadError(path, 'is no regular file but a pipe, a socket or a device')
    if not os.access(path, os.R_OK):
        raise VideoReadError(path, 'no permission to read it')
    return status


def check_head(path: str, head: bytes) -> None:
    """Name what FFmpeg would call invalid data, or take for a list of other files to open.

    Args:
        path (str): File that is read.
        head (bytes): Its first ``HEAD_BYTES`` bytes.

    Raises:
        VideoReadError: If the file is empty or a text.
    """
    if not head:
        raise VideoReadError(path, 'is empty (0 bytes)')
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
    """Whether a file looks like MP4, MOV, Matroska or WebM.

    Args:
        head (bytes): Its first bytes.

    Returns:
        bool: True if it does.
    """
    boxes = (b'ftyp', b'moov', b'mdat', b'free', b'skip', b'wide', b'pnot')
    return head[4:8] in boxes or head[:4] == b'\x1aE\xdf\xa3'
