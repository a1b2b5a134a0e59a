"""Summary of a preparation for the user."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .integrity import BAD
from .reencoding import Encoding

_EDGES = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds between key frames


@dataclass
class Summary:
    """Counts over the rows of a manifest; all but two are of the readable videos.

    Attributes:
        num_ok, num_bad, num_noted (int): Videos that can be read, that cannot, and with notes.
        reasons (Counter): Bad videos by the first part of their reason.
        spacings (Counter): Videos by the mean seconds between key frames: index of the first edge
            that is not smaller.
    """

    num_ok: int = 0
    num_bad: int = 0
    num_noted: int = 0
    reasons: Counter = field(default_factory=Counter)
    codecs: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    bytes: int = 0
    spacings: Counter = field(default_factory=Counter)
    num_keyframes: float = 0.0
    num_frames: int = 0

    def add(self, row: dict[str, Any]) -> None:
        """Count a row."""
        if row['verdict'] == BAD:
            self.num_bad += 1
            self.reasons[row['reason'].split(':')[0]] += 1
            return
        self.num_ok += 1
        self.num_noted += 'notes' in row
        self.codecs[row['codec']] += 1
        self.seconds += row['seconds']
        self.num_frames += row['num_frames']
        self.bytes += row['bytes']
        mean = row['keyframe_interval']['mean']
        self.spacings[sum(mean > edge for edge in _EDGES)] += 1
        self.num_keyframes += row['seconds'] / max(mean, 1e-3)

    def __str__(self) -> str:
        lines = [
            f'videos   {self.num_ok + self.num_bad}',
            f'ok       {self.num_ok}' + (f', {self.num_noted} with notes' * bool(self.num_noted)),
            f'bad      {self.num_bad}',
            *(f'         {count:>8}  {reason}' for reason, count in self.reasons.most_common()),
            f'length   {self.seconds / 3600:.2f} h',
            f'size     {self.bytes / 1e9:.3f} GB',
            'codecs   ' + ', '.join(f'{name} {n}' for name, n in self.codecs.most_common()),
        ]
        if self.num_ok:
            lines.append('mean spacing of key frames in a video:')
            most = max(self.spacings.values())
            for index, edge in enumerate((*_EDGES, float('inf'))):
                count = self.spacings[index]
                name = f'up to {edge:g} s' if edge < float('inf') else f'over {_EDGES[-1]:g} s'
                bar = '#' * -(-40 * count // most)
                lines.append(f'  {name:<12} {count:>8}  {bar}'.rstrip())
        return '\n'.join(lines)

    def hint(self) -> str | None:
        """Advice to make copies where key frames are rare, else None."""
        if not self.num_keyframes or self.seconds / self.num_keyframes <= 1:
            return None
        spacing = self.seconds / self.num_keyframes
        decoded = max(1.0, self.num_frames / self.num_keyframes / 2)
        gop = Encoding.gop
        return (
            f'Key frames are {spacing:.1f} s apart on average: to show one frame, a reader decodes '
            f'about {decoded:.0f}. In copies with a key frame every {gop} frames it decodes about '
            f'{gop // 2}, of fewer pixels: see --reencode.'
        )
