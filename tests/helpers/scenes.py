"""Videos of scenes that can be told apart, and copies of them as the web makes them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from tests.helpers.frame_videos import encode
from vito_mm.curation.running import Running, import_table, run_stage
from vito_mm.curation.stage import Stage
from vito_mm.curation.tables import Row, read_table
from vito_mm.videos.manifest import to_line


def scene(seed: int, time: float, size: tuple[int, int], contrast: float = 1.0) -> np.ndarray:
    """A frame of clouds that move to the left, RGB, the same for all sizes."""
    clouds = np.random.default_rng(seed).integers(0, 256, (9, 60, 3)).astype(np.float32)
    start = 4 * time % 40
    window = np.float32([[1, 0, -start], [0, 1, 0]])
    part = cv2.warpAffine(clouds, window, (60, 9), borderMode=cv2.BORDER_REFLECT)[:, :12]
    picture = cv2.resize(part, size, interpolation=cv2.INTER_CUBIC)
    return (30 + contrast * (picture - 30)).clip(0, 255).astype(np.uint8)


def write_scene(
    path: Path,
    seed: int | Sequence[int],
    seconds: float = 2.0,
    fps: int = 10,
    size: tuple[int, int] = (128, 96),
    codec: str = 'libx264',
    crf: int = 18,
    contrast: float = 1.0,
    mirrored: bool = False,
) -> Path:
    """Write a video of a scene, or of several in turn."""
    seeds = [seed] if isinstance(seed, int) else list(seed)
    count = round(seconds * fps)
    frames = [
        scene(seeds[i * len(seeds) // count], i / fps, size, contrast)[:, :: -1 if mirrored else 1]
        for i in range(count)
    ]
    return write_frames(path, frames, fps, codec, crf)


def write_frames(
    path: Path, frames: Sequence[np.ndarray], fps: int, codec: str = 'libx264', crf: int = 18
) -> Path:
    """Write a video of frames."""
    options = {'libx264': {'preset': 'ultrafast'}, 'libvpx-vp9': {'b': '0', 'cpu-used': '8'}}
    return encode(path, frames, fps, codec, crf=str(crf), **options[codec])


def copy_video(
    source: Path, target: Path, size: tuple[int, int], codec: str = 'libx264', crf: int = 30
) -> Path:
    """Decode a video and encode it again."""
    with av.open(str(source)) as container:
        fps = round(float(container.streams.video[0].average_rate))
        frames = [
            cv2.resize(frame.to_ndarray(format='rgb24'), size, interpolation=cv2.INTER_AREA)
            for frame in container.decode(video=0)
        ]
    return write_frames(target, frames, fps, codec, crf)


def run_on(
    stage: Stage,
    rows: Sequence[Row],
    folder: Path,
    rows_per_shard: int = 3,
    **settings: Any,
) -> list[Row]:
    """Run a stage on a table of rows; the rows of its table."""
    folder.mkdir(parents=True, exist_ok=True)
    running = Running(**dict(workers=2) | settings)
    (folder / 'rows.jsonl').write_bytes(b''.join(map(to_line, rows)))
    import_table(folder / 'rows.jsonl', folder / 'table', running, rows_per_shard)
    run_stage(stage, folder / 'table', folder / stage.name, running)
    return list(read_table(folder / stage.name))


def as_json(rows: Sequence[Row]) -> list[str]:
    """Rows to compare, whatever the order of their columns."""
    return [json.dumps(row, sort_keys=True) for row in rows]
