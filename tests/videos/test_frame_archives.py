"""Videos that are kept as images are the same to training, preparation, curation and probes."""

import contextlib
import io
import json
import struct
import tarfile
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from tests.conftest import digits, frame_index, write_video
from tests.helpers.readers import READERS
from vito_mm.probes.labelled_images import labelled_frames
from vito_mm.videos import VideoReadError, decode_frames, write_manifest
from vito_mm.videos.frames import View, first, spread
from vito_mm.videos.images import read_rgb
from vito_mm.videos.prepare.integrity import inspect_video
from vito_mm.videos.prepare.preparation import prepare_videos

COUNT = 30
VIEW = View(48, 48)


def encoded(index: int, ending: str = '.jpg') -> bytes:
    return cv2.imencode(ending, digits(index))[1].tobytes()


def add(archive: tarfile.TarFile, name: str, data: bytes = b'', **attributes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for attribute, value in attributes.items():
        setattr(member, attribute, value)
    archive.addfile(member, io.BytesIO(data))


def hidden(write) -> None:
    """What macOS, Windows and others leave among images."""
    for name in ('._frame3.jpg', '.hidden.jpg', '__MACOSX/frame4.jpg', '.git/frame5.jpg'):
        write(name, encoded(77))
    write('Thumbs.db', b'x')
    write('notes.txt', b'x')


def write_folder(folder: Path, ending: str = '.jpg') -> Path:
    def write(name: str, data: bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    for index in range(COUNT):
        write(f'frame{index}{ending}', encoded(index, ending))
    hidden(write)
    return folder


def write_tar(path: Path, ending: str = '.jpg', prefix: str = './a/', **kwargs) -> Path:
    with tarfile.open(path, 'w', **kwargs) as archive:
        for index in reversed(range(COUNT)):
            add(archive, f'{prefix}frame{index}{ending}', encoded(index, ending))
        hidden(lambda name, data: add(archive, prefix + name, data))
    return path


def write_links(path: Path) -> Path:
    """Every third frame is a file, the others are links of both kinds to a frame before."""
    with tarfile.open(path, 'w') as archive:
        for index in range(COUNT):
            name = f'a/frame{index}.jpg'
            if index % 3 == 0:
                add(archive, name, encoded(index))
            elif index % 3 == 1:
                link = f'../a/frame{index - 1}.jpg'
                add(archive, name, type=tarfile.SYMTYPE, linkname=link)
            else:
                add(archive, name, type=tarfile.LNKTYPE, linkname=f'a/frame{index - 1}.jpg')
    return path


def seen(path: Path, fps: float | None = None) -> tuple[list[int], float]:
    """Numbers of all frames, and the length."""
    lengths = []

    def middles(seconds: float) -> np.ndarray:
        lengths.append(seconds)
        return (np.arange(COUNT) + 0.5) * seconds / COUNT

    frames, _ = decode_frames(path, middles, fps=fps)
    return [frame_index(frame) for frame in frames], lengths[0]


@pytest.mark.parametrize('fps', [None, 12.5])
@pytest.mark.parametrize(
    'make',
    [
        lambda folder: write_folder(folder / 'video ü'),
        lambda folder: write_folder(folder / 'video', '.png'),
        lambda folder: write_tar(folder / 'v.tar'),
        lambda folder: write_tar(folder / 'v.tar', '.png', '', format=tarfile.PAX_FORMAT),
        lambda folder: write_tar(folder / 'other_name.mp4', '.webp'),
    ],
    ids=['folder', 'folder of PNG', 'tar', 'tar of PNG', 'tar by content'],
)
def test_all_readers_agree_on_frames_kept_as_images(tmp_path, make, fps):
    path = make(tmp_path)
    rate = fps or 25
    assert seen(path, fps) == (list(range(COUNT)), pytest.approx(COUNT / rate))
    begins = decode_frames(path, lambda seconds: np.array([99.0, 0.0, 10.5 / rate]), fps=fps)[1]
    np.testing.assert_allclose(begins, [(COUNT - 1) / rate, 0, 10 / rate])
    row = inspect_video(path, check=True, fps=fps)
    told = {name: row.get(name) for name in ('verdict', 'fps', 'num_frames', 'width', 'height')}
    assert told == dict(verdict='ok', fps=rate, num_frames=COUNT, width=64, height=48)
    assert row['seconds'] == pytest.approx(COUNT / rate)
    assert [frame_index(f) for f in first(dict(path=path), 12, VIEW)] == list(range(12))
    assert len(first(dict(path=path), 99, VIEW)) == COUNT
    assert [frame_index(f) for f in spread(dict(path=path, fps=fps), 3, VIEW).frames] == [5, 15, 25]


def test_the_order_of_names_is_that_of_their_numbers(tmp_path):
    names = ['f9.jpg', 'f10.jpg', 'f010b.jpg', 'f100.jpg', 'g1.jpg']
    for index, name in enumerate(names):
        (tmp_path / name).write_bytes(encoded(index))
    frames, _ = decode_frames(tmp_path, lambda seconds: np.arange(5) / 25)
    assert [frame_index(frame) for frame in frames] == [0, 1, 2, 3, 4]


def test_preparation_keeps_the_rate_and_copies_frames(tmp_path):
    write_folder(tmp_path / 'folder')
    write_tar(tmp_path / 'a.tar')
    write_tar(tmp_path / 'b.tar')
    video = write_video(tmp_path / 'c.mp4', num_frames=50)
    (tmp_path / 'image.png').write_bytes(encoded(3, '.png'))
    rows = [
        dict(path='folder', fps=10, label='x'),
        dict(path='a.tar', fps=30000 / 1001),
        dict(path='b.tar'),
        dict(path=video.name, fps=7),
        dict(path='image.png'),
    ]
    write_manifest(tmp_path / 'in.jsonl', rows)
    out = tmp_path / 'out.jsonl'

    def prepared(**options) -> dict[str, dict]:
        prepare_videos(tmp_path / 'in.jsonl', out, workers=1, **options)
        found = [json.loads(line) for line in out.read_text().splitlines()]
        assert {row['verdict'] for row in found} == {'ok'}
        return {row.get('source', row['path']): row for row in found}

    found = prepared()
    rates = {path: row['fps'] for path, row in found.items()}
    assert rates == {
        'folder': 10,
        'a.tar': 30000 / 1001,
        'b.tar': 25,
        'c.mp4': 25,
        'image.png': 25,
    }
    assert found['folder']['seconds'] == 3
    assert found['folder']['label'] == 'x'
    assert found['image.png']['seconds'] == 0
    # Nothing is read again, but where the rate, a file or a name is another one.
    before = out.read_text()
    assert prepared() == found
    assert out.read_text() == before
    prepare_videos(tmp_path, tmp_path / 'tars.jsonl', workers=1, extensions=('.tar',))
    listed = [json.loads(line) for line in (tmp_path / 'tars.jsonl').read_text().splitlines()]
    assert [(row['path'], row['seconds']) for row in listed] == [('a.tar', 1.2), ('b.tar', 1.2)]
    rows[0]['fps'] = 15
    write_manifest(tmp_path / 'in.jsonl', rows)
    assert prepared()['folder']['seconds'] == 2
    (tmp_path / 'folder' / 'frame9.jpg').unlink()
    assert prepared()['folder']['num_frames'] == COUNT - 1
    # Copies show the same frames at the same times.
    out = tmp_path / 'copies.jsonl'
    copies = prepared(copies=tmp_path / 'copies')
    numbers, seconds = seen(tmp_path / copies['a.tar']['path'])
    assert numbers == list(range(COUNT))
    assert seconds == pytest.approx(COUNT * 1001 / 30000, abs=1e-3)
    assert copies['folder']['seconds'] == pytest.approx((COUNT - 1) / 15, abs=1e-3)
    with av.open(str(tmp_path / copies['a.tar']['path'])) as container:
        assert container.streams.video[0].average_rate == pytest.approx(30000 / 1001)


def test_links_within_a_tar_are_followed(tmp_path):
    numbers, seconds = seen(write_links(tmp_path / 'x.tar'))
    assert numbers == [index - index % 3 for index in range(COUNT)]
    assert seconds == pytest.approx(1.2)


def test_the_last_of_members_with_the_same_name_counts(tmp_path):
    with tarfile.open(tmp_path / 'x.tar', 'w') as archive:
        add(archive, '0.jpg', encoded(5))
        add(archive, './0.jpg', encoded(6))
    frames, _ = decode_frames(tmp_path / 'x.tar', lambda seconds: np.array([0, seconds]))
    assert [frame_index(frame) for frame in frames] == [6, 6]


@pytest.mark.parametrize(
    ('reason', 'name', 'attributes'),
    [
        ('names a file outside of the archive', '../x.jpg', {}),
        ('names a file outside of the archive', '/x.jpg', {}),
        ('names a file outside of the archive', 'a/../../x.jpg', {}),
        ('links to what the archive does not have', 'x.jpg', dict(type=b'2', linkname='/etc/x')),
        ('links to what the archive does not have', 'x.jpg', dict(type=b'2', linkname='../y.jpg')),
        ('links to what the archive does not have', 'x.jpg', dict(type=b'1', linkname='no.jpg')),
        ('links to what the archive does not have', 'x.jpg', dict(type=b'2', linkname='x.jpg')),
        ('a frame is no file', 'x.jpg', dict(type=tarfile.FIFOTYPE)),
        ('a frame is no file', 'x.jpg', dict(type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
        ('a frame is no file', 'x.jpg', dict(type=tarfile.DIRTYPE)),
    ],
)
def test_a_tar_that_leads_out_of_itself_is_refused(tmp_path, reason, name, attributes):
    path = tmp_path / 'x.tar'
    (tmp_path / 'y.jpg').write_bytes(encoded(0))
    with tarfile.open(path, 'w') as archive:
        add(archive, '0.jpg', encoded(0))
        add(archive, name, **attributes)
    with pytest.raises(VideoReadError) as error:
        seen(path)
    assert error.value.reason.startswith(f'{reason}: ')
    assert inspect_video(path)['reason'] == error.value.reason


@pytest.mark.parametrize('compression', ['gz', 'bz2', 'xz'])
def test_a_compressed_tar_is_named_with_the_remedy(tmp_path, compression):
    for name in (f'x.tar.{compression}', 'x.tar', 'x.mp4'):
        with tarfile.open(tmp_path / name, f'w:{compression}') as archive:
            add(archive, '0.jpg', encoded(0))
        with pytest.raises(VideoReadError, match=r'a compressed archive: .* without compression'):
            seen(tmp_path / name)


def test_a_tar_of_many_members_is_given_up_in_time(tmp_path):
    with tarfile.open(tmp_path / 'x.tar', 'w') as archive:
        for index in range(2000):
            add(archive, f'{index}.txt')
        add(archive, '0.jpg', encoded(0))
    with pytest.raises(VideoReadError, match='longer than the time limit'):
        decode_frames(tmp_path / 'x.tar', lambda seconds: np.zeros(1), time_limit=1e-4)


def test_a_damaged_tar_has_one_reason(tmp_path):
    data = write_tar(tmp_path / 'x.tar').read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        broken = bytearray(data[: rng.integers(600, len(data))])
        for place in rng.integers(0, len(broken), 8):
            broken[place] = rng.integers(256)
        # Headers begin at multiples of 512.
        broken[512 * rng.integers(len(broken) // 512) + rng.integers(512)] ^= 255
        (tmp_path / 'x.tar').write_bytes(broken)
        row = inspect_video(tmp_path / 'x.tar', check=True)
        assert '\n' not in row.get('reason', '')
        with contextlib.suppress(VideoReadError):
            seen(tmp_path / 'x.tar')


@pytest.mark.parametrize('fps', [0, -3, float('nan'), 'fast'])
def test_a_rate_that_is_none_is_named(tmp_path, fps):
    row = inspect_video(write_folder(tmp_path / 'x'), fps=fps)
    assert row['reason'] == f'fps in the manifest is no positive number: {fps!r}'


def animated(path: Path, image_format: str) -> Path:
    frames = [Image.fromarray(digits(index)) for index in range(50)]
    kwargs = dict(lossless=True) if image_format == 'WEBP' else {}
    frames[0].save(
        path, image_format, save_all=True, append_images=frames[1:], duration=40, **kwargs
    )
    return path


@pytest.mark.parametrize('name', ['x.gif', 'x.png', 'x.mp4', 'x.jpg'])
@pytest.mark.parametrize('image_format', ['GIF', 'PNG'])
def test_animated_images_are_videos_by_any_name(tmp_path, name, image_format):
    path = animated(tmp_path / name, image_format)
    frames, _ = decode_frames(path, lambda seconds: np.array([0, 0.5, 1.0, seconds]))
    assert [frame_index(frame) for frame in frames] == [0, 12, 25, 49]
    row = inspect_video(path)
    assert (row['verdict'], row['num_frames'], row['seconds']) == ('ok', 50, 2.0)


@pytest.mark.parametrize('name', ['x.webp', 'x.png', 'x.mp4'])
def test_an_animated_webp_is_an_error_that_says_so(tmp_path, name):
    path = animated(tmp_path / name, 'WEBP')
    for read in (*READERS.values(), read_rgb):
        with pytest.raises(VideoReadError, match='an animated image'):
            read(path)


@pytest.mark.parametrize('name', ['x.png', 'x.mp4', 'x.tar', 'x'])
@pytest.mark.parametrize('ending', ['.jpg', '.png', '.bmp', '.webp', '.tiff'])
def test_a_still_image_is_one_by_any_name(tmp_path, name, ending):
    path = tmp_path / name
    path.write_bytes(encoded(42, ending))
    frames, begins = decode_frames(path, lambda seconds: np.array([0.0, seconds, 5.0]))
    assert [frame_index(frame) for frame in frames] == [42] * 3
    assert begins.tolist() == [0, 0, 0]
    row = inspect_video(path)
    assert (row['verdict'], row['num_frames'], row['seconds']) == ('ok', 1, 0.0)
    assert np.array_equal(np.asarray(read_rgb(path)), frames[0])
    assert frame_index(spread(dict(path=path), 1, VIEW).frames[0]) == 42


def test_a_video_with_the_name_of_an_image_is_one(tmp_path):
    path = write_video(tmp_path / 'x.mp4', num_frames=COUNT).rename(tmp_path / 'x.jpg')
    assert seen(path)[0] == list(range(COUNT))


def test_raw_mjpeg_is_not_its_first_image(tmp_path):
    path = tmp_path / 'x.mjpeg'
    path.write_bytes(b''.join(encoded(index) for index in range(COUNT)))
    assert seen(path) == (list(range(COUNT)), pytest.approx(1.2))


def with_orientation(data: bytes, orientation: int) -> bytes:
    """A JPEG with this orientation in its EXIF data."""
    entry = struct.pack('>HHIHH', 0x0112, 3, 1, orientation, 0)
    exif = b'Exif\0\0MM\0*' + struct.pack('>IH', 8, 1) + entry + bytes(4)
    return data[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + data[2:]


UPRIGHT = {
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""What undoes an orientation of EXIF 2.3."""


@pytest.mark.parametrize('orientation', UPRIGHT)
def test_images_are_upright_and_rgb_for_training_and_probes(tmp_path, orientation):
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:16, :24], stored[:16, 24:], stored[16:, :24, 2] = 80, 160, 240  # BGR: red below
    path = tmp_path / 'x.jpg'
    path.write_bytes(with_orientation(cv2.imencode('.jpg', stored)[1].tobytes(), orientation))
    frame = decode_frames(path, lambda seconds: np.zeros(1))[0][0]
    assert np.array_equal(frame, np.asarray(read_rgb(path)))
    expected = UPRIGHT[orientation](stored)[..., ::-1]
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).mean() < 8
    row = inspect_video(path)
    assert (row['height'], row['width']) == frame.shape[:2]


@pytest.mark.parametrize('ending', ['.png', '.webp', '.bmp', '.tiff', '.jpg'])
@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', 'I;16', 'CMYK', '1'])
def test_training_and_probes_see_the_same_pixels(tmp_path, mode, ending):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    pixels = cv2.GaussianBlur(pixels, (9, 9), 0)
    try:
        if mode == 'I;16':
            made = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
        else:
            made = Image.fromarray(pixels).convert(mode)
        made.save(tmp_path / f'x{ending}')
    except (OSError, ValueError, KeyError):
        pytest.skip('no such images')
    frame = decode_frames(tmp_path / f'x{ending}', lambda seconds: np.zeros(1))[0][0]
    # Decoders of JPEG and the conversion of CMYK round.
    difference = np.abs(frame.astype(int) - np.asarray(read_rgb(tmp_path / f'x{ending}')))
    assert difference.max() <= 3


def test_hidden_files_are_no_labelled_images(tmp_path):
    for part in ('train', 'val'):
        for name in ('cat', 'dog', '.ipynb_checkpoints', '__MACOSX'):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for file in ('0.jpg', '._0.jpg', '.1.jpg'):
                (folder / file).write_bytes(encoded(0))
    images = labelled_frames(tmp_path, 24)
    assert images.classes == ('cat', 'dog')
    assert [file.name for file in images.train.files] == ['0.jpg', '0.jpg']
