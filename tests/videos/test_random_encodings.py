"""Files encoded by chance, against what a decoder gives that starts at the first frame."""

from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import write_video
from tests.helpers.video_kinds import MATRICES, set_matrix
from vito_mm.videos import decode_frames
from vito_mm.videos.backends import pyav_backend
from vito_mm.videos.prepare.integrity import inspect_video

CONTAINERS = {
    'libx264': ['mp4', 'mov', 'mkv', 'ts', 'flv'],
    'libx265': ['mp4', 'mkv', 'ts'],
    'libvpx-vp9': ['webm', 'mp4'],
    'libvpx': ['webm'],
    'mpeg4': ['mp4', 'mkv', 'avi'],
}
AS_SHOWN = {
    'none': lambda image: image,
    'mirrored': np.fliplr,
    'upside down': np.flipud,
    'turned by 180': lambda image: np.rot90(image, 2),
    'transposed': lambda image: image.swapaxes(0, 1),
    'turned clockwise': lambda image: np.rot90(image, -1),
    'turned counter-clockwise': np.rot90,
    'transversed': lambda image: np.rot90(image, 2).swapaxes(0, 1),
    'turned by 30 degrees': lambda image: image,
}
X264 = ['', 'open-gop=1', 'intra-refresh=1', 'b-pyramid=strict', 'cabac=0', 'ref=6']


def write_by_chance(rng: np.random.Generator, folder: Path) -> tuple[Path, dict]:
    codec = str(rng.choice(list(CONTAINERS), p=[0.5, 0.15, 0.15, 0.1, 0.1]))
    ending = str(rng.choice(CONTAINERS[codec]))
    num_frames = int(rng.integers(1, 140))
    times = np.arange(num_frames) / 25
    if ending != 'avi':  # which has neither
        if rng.random() < 0.4:
            steps = rng.choice([0.02, 0.04, 0.1, 0.7], num_frames - 1, p=[0.3, 0.5, 0.15, 0.05])
            times = np.concatenate([[0], np.cumsum(steps)])
        times = times + rng.choice([0, 1.48])
    options = {
        'libx264': {'bf': rng.integers(0, 5), 'x264-params': rng.choice(X264)},
        'libx265': {
            'x265-params': f'log-level=none:keyint={rng.integers(1, 60)}:'
            f'bframes={rng.integers(0, 5)}:open-gop={rng.integers(0, 2)}'
        },
        'mpeg4': {'bf': rng.integers(0, 3)},
    }.get(codec, {'lag-in-frames': rng.integers(0, 20), 'deadline': 'realtime'})
    arguments = dict(
        times=times.round(3),
        codec=codec,
        gop=int(rng.choice([1, 5, 12, 30, 250])),
        options={name: str(value) for name, value in options.items()},
    )
    if ending == 'mp4' and rng.random() < 0.3:
        arguments['container_options'] = {'movflags': 'frag_keyframe+empty_moov'}
    return write_video(folder / f'x.{ending}', **arguments), arguments


def changed_by_chance(rng: np.random.Generator, path: Path) -> tuple[Path, str]:
    """Cut, move, thin out, join or turn a file, or leave it as it is; and what was done."""
    kinds = ['none', 'none', 'front']
    if path.suffix in ('.mp4', '.mov', '.mkv', '.ts'):
        kinds += ['gap', 'moved']
    if path.suffix == '.ts':
        kinds += ['joined', 'joined']
    if path.suffix in ('.mp4', '.mov'):
        kinds += [f'matrix {name}' for name in MATRICES]
    kind = str(rng.choice(kinds))
    target = path.with_name(f'changed{path.suffix}')
    if kind == 'none':
        return path, kind
    if kind == 'joined':
        target.write_bytes(path.read_bytes() * 2)
    elif kind.startswith('matrix'):
        set_matrix(path.rename(target), MATRICES[kind[7:]][0])
    else:
        with av.open(str(path)) as source, av.open(str(target), 'w') as to:
            packets = [packet for packet in source.demux(video=0) if packet.size]
            if any(packet.dts is None for packet in packets):
                return path, 'none'
            stream = to.add_stream_from_template(source.streams.video[0])
            keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
            if kind == 'front':
                packets = packets[int(rng.integers(0, keys[-1] + 1)) :]
            elif kind == 'gap' and len(keys) > 2:  # a whole group of pictures
                first = int(rng.integers(1, len(keys) - 1))
                packets = packets[: keys[first]] + packets[keys[first + 1] :]
            elif kind == 'moved':
                shift = round(float(rng.uniform(0, 3)) / packets[0].time_base)
                for packet in packets:
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            for packet in packets:
                packet.stream = stream
                to.mux(packet)
    return target, kind


def any_key_frame(path: Path) -> bool:
    """Whether a file that was cut has one left."""
    with av.open(str(path)) as container:
        return any(packet.is_keyframe and packet.size for packet in container.demux(video=0))


def all_frames(path: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Times and pixels of every frame, from one decoder that starts at the beginning."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.is_keyframe]
        first = packets[0].pts
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = []
        for packet in container.demux(stream):
            with suppress(av.error.InvalidDataError):  # before the first key frame
                frames += stream.codec_context.decode(packet if packet.size else None)
        if path.suffix == '.avi':  # which has no times
            shown_at = np.arange(len(frames)) / 25
        else:
            # What is shown before the first key frame refers to what is not there.
            begin = next(i for i, frame in enumerate(frames) if frame.pts >= first)
            frames = frames[begin:]
            shown_at = np.array([frame.pts for frame in frames]) * float(stream.time_base)
            usual = np.median(np.diff(shown_at)) if len(frames) > 1 else 0.04
            for back in np.flatnonzero(np.diff(shown_at) < 0):  # a second recording
                shown_at[back + 1 :] += shown_at[back] + usual - shown_at[back + 1]
    return shown_at - shown_at[0], [frame.to_ndarray(format='rgb24') for frame in frames]


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(6))
def test_frames_are_those_of_a_decoder_that_starts_at_the_first(tmp_path, monkeypatch, seed):
    """Pixel by pixel, with packets in memory and with seeks, and as inspection counts them."""
    rng = np.random.default_rng(seed)
    in_memory = pyav_backend._IN_MEMORY
    for _ in range(40):
        path, arguments = write_by_chance(rng, tmp_path)
        path, kind = changed_by_chance(rng, path)
        message = f'{path.suffix} {kind} {arguments}'
        if not any_key_frame(path):
            assert inspect_video(path)['verdict'] == 'bad', message
            continue
        shown_at, pixels = all_frames(path)
        if kind.startswith('matrix'):
            pixels = [AS_SHOWN[kind[7:]](image) for image in pixels]
        row = inspect_video(path)
        assert (row['verdict'], row['num_frames']) == ('ok', len(pixels)), f'{row} {message}'
        height, width = pixels[0].shape[:2]
        assert (row['width'], row['height']) == (width, height), message
        monkeypatch.setattr(pyav_backend, '_IN_MEMORY', int(rng.choice([0, in_memory])))
        # A last frame without length lasts as long as most: of a long file, as most of its last.
        tolerance = 2e-3 if pyav_backend._IN_MEMORY else 0.1
        for _ in range(6):
            wanted = rng.uniform(0, shown_at[-1] + 0.03, int(rng.integers(1, 6)))
            durations = []
            frames, begins = decode_frames(
                path, lambda d, wanted=wanted, seen=durations: seen.append(d) or wanted
            )
            assert durations == [pytest.approx(row['seconds'], abs=tolerance)], message
            expected = np.searchsorted(shown_at, wanted + 1e-4, side='right') - 1
            np.testing.assert_allclose(begins, shown_at[expected], atol=2e-3, err_msg=message)
            for frame, index in zip(frames, expected, strict=True):
                assert np.array_equal(frame, pixels[index]), message
