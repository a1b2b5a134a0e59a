"""What each video holds, whether it can be read and is long enough, and hashes of some frames."""

from dataclasses import dataclass
from typing import Any, ClassVar

from vito_mm.videos import VideoReadError, decode_frames, part_within
from vito_mm.videos.frames import evenly
from vito_mm.videos.prepare.integrity import (
    BAD,
    JUDGEMENT,
    MEASURED,
    hash_to_expect,
    import_av,
    inspect_video,
)

from .perceptual_hash import perceptual_hash
from .stage import Stage, undecodable
from .tables import DROPPED, Row

_ROUNDING = 0.002
"""Seconds that a length may lack: Matroska and FLV round the times of frames to milliseconds."""

_SHORT_SIDE = 256
"""Of frames that are hashed, in pixels, so that large ones take little memory."""


@dataclass
class Probe(Stage):
    """Drops videos that cannot be read or are too short; writes down what the others hold.

    Where a row names a part of a video, the length and the hashed frames are those of the part.

    Columns are those of :func:`~vito_mm.videos.prepare.integrity.inspect_video`, less its path and
    verdict, and ``hashes`` (list[str]): of frames at the middles of equal parts of the video, see
    :func:`.perceptual_hash.perceptual_hash`. A video whose ``sha256`` the table has already is
    dropped if its bytes are others, unless the table calls it bad. ``fps`` of the table holds for
    folders and tars of images.

    Attributes:
        min_seconds (float): Length of the shortest video. Defaults to 10, as in the paper.
        check (bool): Whether to decode every frame to find damage. Defaults to False.
        hashes (int): Number of frames that are hashed. Defaults to 3.

    """

    min_seconds: float = 10.0
    check: bool = False
    hashes: int = 3
    name: ClassVar[str] = 'probe'
    # An earlier inspection, of prepare_videos, is no longer what holds.
    makes: ClassVar[tuple[str, ...]] = (*MEASURED, 'hashes')

    def __post_init__(self) -> None:
        if not self.min_seconds >= 0:
            raise ValueError(f'--min-seconds {self.min_seconds}: give 0 or more')

    def check_settings(self) -> None:
        """Import PyAV."""
        import_av()

    def prepare(self, row: Row) -> dict[str, Any]:
        """Inspect a video and hash some frames; what it is dropped for is among the columns."""
        facts = inspect_video(row['path'], self.check, hash_to_expect(row), fps=row.get('fps'))
        verdict, reason = facts['verdict'], facts.get('reason')
        # The column ``dropped`` says the verdict here.
        facts = {name: facts[name] for name in facts if name not in ('path', *JUDGEMENT)}
        if verdict == BAD:
            return {**facts, DROPPED: reason}
        try:
            start, end = part_within(row, facts['seconds'])
        except VideoReadError as error:
            return {**facts, DROPPED: f'not in the video: {error.reason}'}
        if end - start < self.min_seconds - _ROUNDING:
            lacking = f'{round(end - start, 3):g} s, {self.min_seconds:g} s are wanted'
            return {**facts, DROPPED: f'too short: {lacking}'}
        try:
            return {**facts, 'hashes': self._hashes(row, facts['seconds'])}
        except VideoReadError as error:
            return {**facts, DROPPED: undecodable(error)}

    def finish(self, row: Row, prepared: dict[str, Any]) -> Row:
        """Add the columns."""
        return row | prepared

    def _hashes(self, row: Row, seconds: float) -> list[str]:
        if not self.hashes:
            return []
        # Not of the length that the header tells, by which decoders go in large Matroska files.
        times = evenly(self.hashes)(*part_within(row, seconds))
        frames, _ = decode_frames(
            row['path'], lambda _: times, short_side=_SHORT_SIDE, fps=row.get('fps')
        )
        return [perceptual_hash(frame) for frame in frames]
