"""Open a video file with FFmpeg, and no other file or address that it names. Needs PyAV >= 17.1."""

from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.container import InputContainer

from .errors import VideoReadError

SELF_CONTAINED = (
    *('mov', 'matroska', 'avi', 'flv', 'live_flv', 'kux', 'mpegts', 'mpeg', 'asf', 'asf_o', 'rm'),
    *('ogg', 'nut', 'nsv', 'nuv', 'mxf', 'gxf', 'wtv', 'pva', 'ty', 'dhav', 'dv', 'swf', 'ivf'),
    *('mpegvideo', 'm4v', 'h261', 'h263', 'h264', 'hevc', 'vvc', 'evc', 'obu', 'av1', 'apv'),
    *('vc1', 'vc1test', 'cavsvideo', 'avs2', 'avs3', 'dirac', 'dnxhd', 'yuv4mpegpipe'),
    *('mjpeg', 'mjpeg_2000', 'smjpeg', 'gif', 'apng'),
)
"""FFmpeg's names of the containers that are read: those whose frames are in the file itself.

Playlists (hls, dash, concat, sdp), numbered pictures (image2) and what else opens other files are
not among them, whatever a file is called and whatever FFmpeg takes it for.
"""

_VERSION = tuple(int(number) for number in av.__version__.split('.')[:2])
if _VERSION < (17, 1):
    raise ImportError(
        f'PyAV {av.__version__} is installed, and those before 17.1 end the process at some files, '
        'MPEG-2 among them. Run: pip install -U "av>=17.1"'
    )
# PyAV 19 takes any metadata as it is; before, only when told to.
_ARGUMENTS = {} if _VERSION >= (19, 0) else dict(metadata_errors='replace')
_OPTIONS = dict(protocol_whitelist='file', format_whitelist=','.join(SELF_CONTAINED))


def open_container(path: str, **options: str) -> InputContainer:
    """Open a video file to read it, and no other file that it refers to.

    Args:
        path (str): The file.
        **options (str): Options of FFmpeg for the container.

    Returns:
        InputContainer: The container of :func:`av.open`.

    Raises:
        VideoReadError: If its format is not one of ``SELF_CONTAINED``; names it.
        av.error.FFmpegError: If it cannot be opened.
    """
    try:
        return av.open(path, options={**_OPTIONS, **options}, **_ARGUMENTS)
    except av.error.ArgumentError:
        if (name := _format_off_the_list(path)) is None:
            raise
    reason = 'is in a format from which no video is read, as files of it are not videos or name'
    raise VideoReadError(path, f'{reason} other files: {name}. Convert it to MP4 or Matroska')


@contextmanager
def ffmpeg_errors(path: str) -> Iterator[None]:
    """Turn errors of FFmpeg in a block into a VideoReadError with their reason in one line."""
    try:
        yield
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        raise VideoReadError(path, f'{reason} (FFmpeg)') from None


def _format_off_the_list(path: str) -> str | None:
    """FFmpeg's name of a format that was refused, from what it logs about its choice."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.DEBUG)
    try:
        with av.logging.Capture() as log:
            av.open(path, options=_OPTIONS).close()
    except av.error.FFmpegError:
        pass
    finally:
        av.logging.set_level(level)
    messages = [message for _, _, message in log]
    if not any('not on whitelist' in message for message in messages):
        return None
    probed = [message.split()[1] for message in messages if message.startswith('Format ')]
    return next((name for name in probed if name != 'not'), 'unknown')
