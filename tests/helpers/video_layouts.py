"""Video files of every kind that decoders trip over, with the times of their frames."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.conftest import REPO, frame_index, write_video

EVEN = np.arange(100) / 25
_steps = np.random.default_rng(0).choice([0.02, 0.04, 0.12, 0.8], 99, p=[0.4, 0.4, 0.15, 0.05])
UNEVEN = np.concatenate([[0], np.cumsum(_steps)]).round(3)

NO_KEY_FRAMES = 'intra refresh, no key frames'
"""Layout of which decord and torchcodec give later frames, as they start at no earlier one."""

LAYOUTS: dict[str, tuple[str, dict]] = {
    'no B-frames': ('mp4', dict(options={'bf': '0'})),
    'B-frames': ('mp4', dict(gop=30, options={'bf': '3'})),
    'one key frame': ('mp4', dict(gop=250, options={'bf': '3', 'sc_threshold': '0'})),
    'all-intra': ('mp4', dict(gop=1)),
    'open GOP': ('mp4', dict(options={'bf': '3', 'x264-params': 'open-gop=1'})),
    NO_KEY_FRAMES: ('mkv', dict(options={'x264-params': 'intra-refresh=1'})),
    'varying rate': ('mp4', dict(times=UNEVEN)),
    'varying rate, mkv': ('mkv', dict(times=UNEVEN)),
    'late start': ('mp4', dict(times=EVEN + 1.48)),
    'late start, mkv': ('mkv', dict(times=EVEN + 1.48)),
    'late start, ts': ('ts', dict(times=EVEN + 1.48)),
    'turned by 90': ('mp4', dict(rotation=90)),
    'turned by 180': ('mp4', dict(rotation=180)),
    'turned by -90': ('mp4', dict(rotation=-90)),
    'odd size': ('mp4', dict(size=(63, 47), pix_fmt='yuv444p')),
    'odd size, VP9': ('mkv', dict(size=(63, 47), codec='libvpx-vp9')),
    '10 bit': ('mp4', dict(pix_fmt='yuv420p10le')),
    'HEVC, 10 bit': (
        'mp4',
        dict(
            codec='libx265',
            pix_fmt='yuv420p10le',
            options={'x265-params': 'log-level=none:keyint=12'},
        ),
    ),
    'VP9': ('webm', dict(codec='libvpx-vp9', options={'lag-in-frames': '16'})),
    'VP8 with hidden frames': (
        'webm',
        dict(codec='libvpx', gop=50, options={'lag-in-frames': '16', 'auto-alt-ref': '1'}),
    ),
    'MPEG-4': ('mp4', dict(codec='mpeg4', options={'bf': '2'})),
    'MPEG-4, avi': ('avi', dict(codec='mpeg4')),
    'MPEG-4 with B-frames, avi': ('avi', dict(codec='mpeg4', options={'bf': '2'})),
    'H.264, avi': ('avi', dict(gop=30, options={'bf': '2'})),
    'MPEG-2': (
        'mpg',
        dict(codec='mpeg2video', options={'bf': '2', 'qmin': '1', 'qmax': '2'}),
    ),
    'flv': ('flv', dict()),
    'fragmented': (
        'mp4',
        dict(container_options={'movflags': 'frag_keyframe+empty_moov+default_base_moof'}),
    ),
    'audio is longer': ('mkv', dict(seconds_of_audio=8.0)),
}
"""Ending and arguments of ``write_video``, by what is special."""


def frame_times(name: str) -> np.ndarray:
    """When the frames are shown, in seconds from the first one."""
    times = LAYOUTS[name][1].get('times', EVEN)
    return times - times[0]


def write_layouts(folder: Path) -> dict[str, Path]:
    """Write a file of each kind."""
    return {
        name: write_video(folder / f'{index}.{ending}', **arguments)
        for index, (name, (ending, arguments)) in enumerate(LAYOUTS.items())
    }


def wanted_times(name: str) -> list[np.ndarray]:
    """Times to ask for: the end and beyond, the start, a boundary, then at random."""
    times = frame_times(name)
    rng = np.random.default_rng(0)
    draws = [rng.uniform(0, times[-1] + 0.03, 3) for _ in range(12)]
    return [np.array([times[-1] + 1000, 0.0, times[50] + 1e-3, times[50]]), *draws]


def misplaced(name: str, path: Path, backend: str) -> list[str]:
    """Frames that are not those on screen at the wanted times; empty if all is well."""
    from vito_mm.videos import decode_frames

    times, problems = frame_times(name), []
    arguments = LAYOUTS[name][1]
    for wanted in wanted_times(name):
        frames, begins = decode_frames(path, lambda duration, wanted=wanted: wanted, backend)
        expected = np.searchsorted(times, wanted + 1e-4, side='right') - 1
        upright = [np.rot90(frame, -arguments.get('rotation', 0) // 90) for frame in frames]
        found = [frame_index(frame) for frame in upright]
        shape = arguments.get('size', (64, 48))[::-1]
        if found != expected.tolist() or {frame.shape[:2] for frame in upright} != {shape}:
            problems.append(f'at {wanted}: frames {found} of {shape}, expected {expected}')
        if np.abs(begins - times[expected]).max() > 2e-3:
            problems.append(f'at {wanted}: begin at {begins}, expected {times[expected]}')
    return problems


def environment_of_torchcodec(folder: Path) -> dict[str, str]:
    """Environment in which torchcodec finds FFmpeg: that of PyAV's wheel, under its usual names."""
    import av

    wheel = Path(av.__file__).parents[1] / 'av.libs'
    folder.mkdir(exist_ok=True)
    for file in wheel.glob('lib*.so.*'):
        name, _, version = file.name.partition('-')
        major = version.partition('.so.')[2].split('.')[0]
        link = folder / f'{name}.so.{major}'
        if not link.exists():
            link.symlink_to(file)
    return os.environ | {'LD_LIBRARY_PATH': f'{folder}:{wheel}', 'PYTHONPATH': str(REPO)}


def run_in_process(backend: str, folder: Path, environment: dict[str, str]) -> str:
    """Problems that a backend has with the files of a folder, found by another process."""
    command = [sys.executable, '-m', 'tests.helpers.video_layouts', backend, str(folder)]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=REPO, env=environment, timeout=600
    )
    return result.stdout + (result.stderr[-2000:] if result.returncode else '')


if __name__ == '__main__':  # in a process of its own: backend, folder
    written = sorted(Path(sys.argv[2]).iterdir(), key=lambda file: int(file.stem))
    files = dict(zip(LAYOUTS, written, strict=True))
    for layout, file in files.items():
        if layout == NO_KEY_FRAMES:
            continue
        for problem in misplaced(layout, file, sys.argv[1]):
            print(f'{layout}: {problem}')
