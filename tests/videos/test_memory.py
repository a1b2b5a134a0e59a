"""Memory of a process that reads videos all day."""

import pytest

from tests.conftest import write_video
from tests.helpers import faulty_videos as faulty
from tests.helpers.with_torchcodec import run_python
from vito_mm.videos import BACKENDS

READ = """
import ctypes, sys
from pathlib import Path
import numpy as np
from vito_mm.videos import VideoReadError, decode_frames

def own():
    # Memory of the process itself, without what the C library keeps for later, whose amount is left
    # to chance, and without pages of libraries, which come and go.
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path('/proc/self/status').read_text().splitlines()
    fields = dict(line.split(':', 1) for line in lines)
    return sum(int(fields[name].split()[0]) for name in ('RssAnon', 'VmSwap')) / 1024

backend, files = sys.argv[1], sys.argv[2:]
rng = np.random.default_rng(0)
for clip in range(10_001):
    try:
        decode_frames(files[clip % len(files)], lambda s: rng.uniform(0, s, 3), backend)
    except VideoReadError:
        pass
    if clip in (2000, 10_000):
        print(own())
"""


@pytest.mark.slow
@pytest.mark.parametrize('backend', BACKENDS)
def test_memory_stays_flat_over_ten_thousand_clips(tmp_path, backend):
    """Whole and broken files of several sizes and codecs in turn."""
    files = [
        write_video(tmp_path / 'a.mp4', num_frames=50),
        write_video(tmp_path / 'b.mp4', num_frames=50, size=(160, 120), gop=50),
        write_video(tmp_path / 'c.webm', num_frames=25, codec='libvpx-vp9'),
        write_video(tmp_path / 'd.mkv', num_frames=25),
    ]
    for name, make in (('e.mp4', faulty.truncated_data), ('f.mp4', faulty.audio_only)):
        make(tmp_path / name)
        files.append(tmp_path / name)
    shown = run_python(backend, tmp_path / 'ffmpeg', '-c', READ, backend, *files)
    early, late = map(float, shown.split())
    # torchcodec 0.11.1 itself loses about 1 kB a clip where sizes change.
    allowed = 25 if backend == 'torchcodec' else 2
    assert late - early < allowed, f'{late - early:.0f} MB in 8,000 clips'
