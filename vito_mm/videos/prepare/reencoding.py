"""Small copies of videos, cheap to read at random times. Needs PyAV, imported where used."""

import errno
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from vito_mm.utils.atomic import rename_durably
from vito_mm.utils.remote_files import is_address
from vito_mm.videos.file_checks import MAX_PIXELS
from vito_mm.videos.manifest import VIDEO_EXTENSIONS
from vito_mm.videos.tars import split_member

from .integrity import BAD, import_av, inspect_video

PRESETS = (
    *('ultrafast', 'superfast', 'veryfast', 'faster', 'fast'),
    *('medium', 'slow', 'slower', 'veryslow'),
)
"""Presets of x264, fastest and largest files first."""

_TICKS = 15360
"""Least time stamps in a second of copies: twice as many as the tolerance of times."""
_FRAME_DURATION = 1 << 8
"""AV_CODEC_FLAG_FRAME_DURATION: the length of the last frame is not a guess."""
_TARGET_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.EIO),
)


@dataclass(frozen=True)
class Encoding:
    """Encoding of copies: H.264 by libx264, yuv420p, without sound, index first (faststart).

    Attributes:
        short_side (int): Pixels of the shorter side of a frame; smaller frames keep their size,
            made even. Defaults to 256.
        gop (int): Most frames from one key frame to the next; 1 makes every frame a key frame.
            Defaults to 12.
        crf (int): Constant rate factor of x264, 0 (lossless) to 51. Defaults to 23.
        preset (str): One of ``PRESETS``. Defaults to 'medium'.
        fast_decode (bool): Leave out what makes decoding slow (CABAC, the loop filter, weighted
            prediction), for larger files. Defaults to False.
        b_frames (bool): Use B-frames. Defaults to True.

    Raises:
        ValueError: If a value is out of range; the message names it.
    """

    short_side: int = 256
    gop: int = 12
    crf: int = 23
    preset: str = 'medium'
    fast_decode: bool = False
    b_frames: bool = True

    def __post_init__(self) -> None:
        if self.short_side < 16:
            raise ValueError(f'short_side must be at least 16 pixels, got {self.short_side}')
        if self.gop < 1:
            raise ValueError(f'gop must be at least 1 frame, got {self.gop}')
        if not 0 <= self.crf <= 51:
            raise ValueError(f'crf goes from 0 to 51, got {self.crf}')
        if self.preset not in PRESETS:
            raise ValueError(f'unknown preset {self.preset!r}, known are {", ".join(PRESETS)}')

    def options(self) -> dict[str, str]:
        """Options of FFmpeg's libx264."""
        options = {'g': str(self.gop), 'crf': str(self.crf), 'preset': self.preset}
        if self.fast_decode:
            options['tune'] = 'fastdecode'
        if not self.b_frames:
            options['bf'] = '0'
        return options

    def __str__(self) -> str:
        settings = {'short_side': self.short_side, **self.options()}
        return ' '.join(['libx264', *(f'{name}={value}' for name, value in settings.items())])


class ReencodingError(RuntimeError):
    """A copy could not be written; ``lasting`` if others will fail as well, e.g. on a full disk."""

    def __init__(self, path: str, reason: str, lasting: bool) -> None:
        super().__init__(path, reason, lasting)
        self.path, self.reason, self.lasting = path, reason, lasting

    def __str__(self) -> str:
        return f'cannot write {self.path}: {self.reason}'


@dataclass
class Copier:
    """Places and encoding of the copies of a job; relative paths of sources start at ``root``."""

    folder: str
    root: str
    encoding: Encoding

    def target(self, path: str) -> str:
        """Path of the copy of a video: the same relative path, ``.mp4`` added where it is missing.

        It is also added to other endings: a.avi.mp4 is the copy of a.avi.
        """
        if is_address(path):
            inside = path.partition('://')[2]
        else:
            path = os.path.join(*split_member(path) or [path])
            inside = os.path.relpath(path, self.root)
            if inside.startswith('..'):
                inside = path.lstrip('/')
        stem, ending = os.path.splitext(inside)
        if ending != '.mp4' or stem.lower().endswith(VIDEO_EXTENSIONS):
            inside += '.mp4'
        return os.path.join(self.folder, inside)

    def check(self, paths: Iterable[str], source_folder: str | None) -> None:
        """Raise if a copy could take the place of a source or of another copy."""
        real = os.path.realpath(self.folder) + os.sep
        if source_folder and real.startswith(os.path.realpath(source_folder) + os.sep):
            raise ValueError(
                f'{self.folder!r} is {source_folder!r} or inside it, where copies would be taken '
                'for sources the next time; choose a folder for copies next to it'
            )
        targets: dict[str, str] = {}
        parents: dict[str, str] = {}
        for path in paths:
            parent = os.path.dirname(path)
            if parent not in parents:
                parents[parent] = os.path.realpath(parent) + os.sep
            if parents[parent].startswith(real):
                raise ValueError(
                    f'the source {path!r} is inside the folder for copies {self.folder!r} and '
                    'could be overwritten; choose another folder'
                )
            target = self.target(path)
            if targets.setdefault(target, path) != path:
                raise ValueError(
                    f'{targets[target]!r} and {path!r} would both become {target!r}; rename one'
                )


def reencode_video(
    source: str | os.PathLike,
    target: str | os.PathLike,
    encoding: Encoding,
    expected_sha256: str | None = None,
    max_pixels: int = MAX_PIXELS,
    fps: float | None = None,
) -> dict[str, Any]:
    """Write a small copy of a video and compare it with the source.

    The copy is there when it is complete. Frames keep their times, measured from the first one, so
    that a variable frame rate stays one. They are turned and scaled to square pixels.

    Args:
        source: Video file, or a folder or tar of images; it is checked frame by frame on the way.
        target: File to write, replaced if it is there. Its folder is made if need be.
        encoding: Encoding of the copy.
        expected_sha256, max_pixels, fps: See :func:`.integrity.inspect_video`.

    Returns:
        dict[str, Any]: Columns of :func:`inspect_video` of the copy, and ``source``,
        ``source_sha256``, ``source_bytes``, ``source_mtime_ns`` and ``encoding``. For a bad source
        there is no copy, and its own columns and verdict are returned with ``source`` and
        ``encoding``.

    Raises:
        ReencodingError: If the copy cannot be written.
        ImportError: If PyAV is not installed.
    """
    av = import_av()
    source, target = os.fspath(source), Path(target)
    if target.exists() and os.path.exists(source) and os.path.samefile(source, target):
        raise ReencodingError(str(target), 'it is the source itself', lasting=False)
    unfinished = unfinished_copy(target)
    row: dict[str, Any] = {}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _Copy(av, unfinished, encoding) as copy:
            row = inspect_video(source, True, expected_sha256, max_pixels, copy.write, fps)
            row.update(source=source, encoding=str(encoding))
            if row['verdict'] == BAD:
                target.unlink(missing_ok=True)  # of an earlier, readable source
                return row
            copy.finish()
        written = inspect_video(unfinished, max_pixels=max_pixels)
        if difference := _difference(row, written):
            raise ReencodingError(str(target), difference, lasting=False)
        rename_durably(unfinished, target)
    except (OSError, av.FFmpegError) as error:
        raise _as_reencoding_error(target, error) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return {
        **written,
        'path': str(target),
        **{f'source_{name}': row[name] for name in ('sha256', 'bytes', 'mtime_ns') if name in row},
        **{name: row[name] for name in ('source', 'encoding', 'checked')},
    }


def _as_reencoding_error(target: Path, error: Exception) -> ReencodingError:
    code = getattr(error, 'errno', None)
    reason = os.strerror(code) if code in _TARGET_ERRORS else str(error)
    return ReencodingError(str(target), reason, code in _TARGET_ERRORS)


def unfinished_copy(target: str | os.PathLike) -> Path:
    """Path of an incomplete copy, next to the copy; always the same, so that a kill leaves one."""
    return Path(f'{os.fspath(target)}.tmp')


def _difference(source: dict[str, Any], copy: dict[str, Any]) -> str | None:
    """Fault of the copy, None if it is like the source."""
    if copy['verdict'] == BAD:
        return f'the copy is bad ({copy["reason"]})'
    if copy['num_frames'] != source['num_frames']:
        return f'the copy has {copy["num_frames"]} frames and the source {source["num_frames"]}'
    # The length of the last frame is a guess in some containers.
    if abs(copy['seconds'] - source['seconds']) > max(0.1, 2 / source['fps']):
        return f'the copy lasts {copy["seconds"]} s and the source {source["seconds"]} s'
    return None


class _Copy:
    """A file that decoded frames are encoded into; made with the first of them."""

    def __init__(self, av, file: Path, encoding: Encoding) -> None:
        self.av, self.file, self.encoding = av, file, encoding
        self.container = self.stream = self.graph = self.graph_key = None
        self.last = -1

    def __enter__(self) -> '_Copy':
        return self

    def __exit__(self, *exception) -> None:
        if self.container is not None:
            self.container.close()

    def write(self, frame: Any, display: Any, rate: Fraction) -> None:
        """Encode a frame as it is shown; the rate is a hint."""
        try:
            self._write(frame, display, rate)
        except (OSError, self.av.FFmpegError) as error:
            raise _as_reencoding_error(self.file, error) from error

    def finish(self) -> None:
        """Write what is still in the encoder, and the index."""
        self.container.mux(self.stream.encode(None))
        self.container.close()
        self.container = None

    def _write(self, frame, display, rate: Fraction) -> None:
        # The encoder wants times that rise: of frames at one time, the last one is to be seen.
        finer = max(1, math.ceil(_TICKS * frame.time_base))
        pts, duration = frame.pts * finer, frame.duration * finer
        pts = max(self.last + 1, pts)
        self.last = pts
        key = frame.width, frame.height, frame.format.name, display
        if self.graph_key != key:
            self._start_graph(frame, display)
            self.graph_key = key
        self.graph.push(frame)
        shown = self.graph.pull()
        shown.pts, shown.time_base, shown.duration = pts, frame.time_base / finer, duration
        shown.pict_type = 0  # let the encoder choose, not the source
        if self.container is None:
            self._open(shown, rate)
        self.container.mux(self.stream.encode(shown))

    def _start_graph(self, frame, display) -> None:
        """Scale to square pixels, turn and convert; again for frames of another size."""
        if self.stream is None:
            sides = display.square(frame.width, frame.height)
            scale = min(1.0, self.encoding.short_side / min(sides))
            # yuv420p needs even sides; rounding must not make one grow.
            self.size = [max(2, min(round(side * scale / 2), side // 2) * 2) for side in sides]
        width, height = self.size
        self.graph = graph = self.av.filter.Graph()
        nodes = [
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=frame.time_base,
            ),
            graph.add('scale', f'{width}:{height}:flags=bicubic:out_range=tv'),
            *(graph.add(name, arguments) for name, arguments in display.filters()),
            graph.add('format', 'pix_fmts=yuv420p'),
            graph.add('setsar', '1'),
            graph.add('buffersink'),
        ]
        graph.link_nodes(*nodes).configure()

    def _open(self, frame, rate: Fraction) -> None:
        self.container = self.av.open(
            str(self.file), 'w', format='mp4', options={'movflags': '+faststart'}
        )
        self.stream = self.container.add_stream('libx264', rate, options=self.encoding.options())
        context = self.stream.codec_context
        context.width, context.height, context.pix_fmt = frame.width, frame.height, 'yuv420p'
        context.time_base = Fraction(frame.time_base)
        context.thread_count = 1
        context.flags |= _FRAME_DURATION
        context.color_range = frame.color_range
        context.colorspace = frame.colorspace
        context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
