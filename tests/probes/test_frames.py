"""What probes read: which frames, which parts, and what becomes of files that cannot be read."""

import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import frame_index
from tests.helpers.frame_videos import SIZE, centre, write_frames, write_rows, write_videos
from tests.helpers.image_folders import write_classes
from vito_mm.probes.frames import ImageFiles, VideoFrames, collect, summarised
from vito_mm.probes.image_folders import ProbeError
from vito_mm.probes.labelled_images import labelled_frames


def test_moments_are_the_frames_on_screen(tmp_path):
    """3.2 s in 16 frames; offsets of 1 s leave room of 2.2 s for the first frame."""
    folder = write_frames(tmp_path / 'a', 16, seed=0)
    rows = [dict(video_path=str(folder), fps=5), dict(video_path=str(folder), fps=5, start=1.0)]
    moments = VideoFrames(rows, [0.0, 0.4, 1.0], [0.5, 1.0], SIZE)
    for row, expected in enumerate([(5, 7, 10), (11, 13, 15)]):
        index, frames = moments[row]
        assert index == row
        for frame, number in zip(frames, expected, strict=True):
            pixels = centre(folder / f'{number:03d}.png')
            assert np.array_equal(frame.numpy()[..., ::-1], pixels)


def test_moments_of_a_video_file_within_its_part(make_video):
    path = str(make_video(num_frames=100, fps=25))
    rows = [dict(video_path=path), dict(video_path=path, start=1.0, end=2.0)]
    moments = VideoFrames(rows, [0.0], [0.5, 0.5], 48)
    found = [frame_index(moments[row][1][0].numpy()[..., ::-1]) for row in (0, 1)]
    assert found == [50, 37]


def test_images_are_resized_and_cut_as_by_torchvision(tmp_path):
    from torchvision import transforms

    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / 'a.png')
    _, frames = ImageFiles([tmp_path / 'a.png'], 24)[0]
    bicubic = transforms.InterpolationMode.BICUBIC
    view = transforms.Compose([transforms.Resize(24, bicubic), transforms.CenterCrop(24)])
    np.testing.assert_array_equal(frames[0], np.asarray(view(Image.fromarray(image))))


@pytest.mark.parametrize('workers', [0, 2])
def test_what_cannot_be_read_is_skipped_and_summarised(tmp_path, workers):
    good, short = (write_frames(tmp_path / name, n, 0) for name, n in (('a', 16), ('b', 5)))
    (tmp_path / 'page.mp4').write_text('<html>404</html>')
    paths = [good, tmp_path / 'gone', short, tmp_path / 'page.mp4', good]
    rows = [dict(video_path=str(path), fps=5) for path in paths]
    state = torch.get_rng_state()
    found = collect(
        VideoFrames(rows, [0.0, 2.0], [0.0] * 5, SIZE),
        lambda indices, frames: frames.float().mean((2, 3, 4)),
        batch_size=2,
        num_workers=workers,
    )
    assert torch.equal(state, torch.get_rng_state())
    assert found.indices.tolist() == [0, 4]
    assert found.features.shape == (2, 2)
    assert torch.equal(found.features[0], found.features[1])
    assert [item.too_short for item in found.skipped] == [False, True, False]
    text = summarised(found.skipped)
    assert text.startswith('1 too short and 2 unreadable (')
    assert f'{short}: 1.00 s, 2 s are wanted' in text


class Deadly(ImageFiles):
    """Ends the process that reads, as a crashing decoder does."""

    def read(self, index: int):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_reader_that_is_killed_ends_a_probe_and_not_the_process():
    handler = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(ProbeError, match='a process that reads images was killed'):
        collect(Deadly([None] * 4, SIZE), lambda indices, frames: frames, 2, 1)
    assert signal.getsignal(signal.SIGCHLD) is handler


def test_videos_of_each_class_are_on_both_sides_whatever_the_order(tmp_path):
    manifest = write_videos(tmp_path / 'videos', frames=1)
    images = labelled_frames(manifest, SIZE)
    assert images.classes == ('0', '1', '2')
    assert images.train_labels.bincount().tolist() == [4, 4, 4]
    assert images.val_labels.bincount().tolist() == [1, 1, 1]

    def sides(images) -> list[set]:
        return [{row['video_path'] for row in part.rows} for part in (images.train, images.val)]

    assert not set.intersection(*sides(images))
    assert sides(labelled_frames(manifest, SIZE)) == sides(images)
    assert any(sides(labelled_frames(manifest, SIZE, seed=s)) != sides(images) for s in (1, 2, 3))
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text(''.join(lines[::-1]))
    assert sides(labelled_frames(manifest, SIZE)) == sides(images)


def test_parts_of_one_video_stay_on_one_side(tmp_path):
    rows = [
        dict(path=f'{video}.mp4', label=f'class {video % 2}', start=part, end=part + 1)
        for video in range(10)
        for part in range(3)
    ]
    images = labelled_frames(write_rows(tmp_path / 'list.jsonl', rows), SIZE)
    paths = [{row['video_path'] for row in part.rows} for part in (images.train, images.val)]
    assert [len(part) for part in paths] == [8, 2]
    assert not set.intersection(*paths)
    assert (len(images.train), len(images.val)) == (24, 6)


def test_at_most_so_many_images_are_drawn_the_same_ones_every_time(tmp_path):
    folder = write_classes(tmp_path / 'images', ['a', 'b'], images=6)
    images, again = (labelled_frames(folder, SIZE, max_images=5) for _ in range(2))
    assert images.train.files == again.train.files
    assert (len(images.train), len(images.val)) == (5, 5)
    for file, label in zip(images.train.files, images.train_labels, strict=True):
        assert file.parent.name == images.classes[label]


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ([dict(path='a.mp4'), dict(path='b.mp4')], '0 different values of "label"'),
        ([dict(path='a.mp4', label=1), dict(path='b.mp4', label=1)], '1 different values'),
        ([dict(path='a.mp4', label=1), dict(path='b.mp4', label=2)], 'no class .* two videos'),
        ([dict(label=1)], r'list\.jsonl, line 1: no "path"'),
    ],
)
def test_manifests_without_two_classes_are_refused(tmp_path, rows, message):
    manifest = write_rows(tmp_path / 'list.jsonl', rows)
    with pytest.raises(ProbeError, match=message):
        labelled_frames(manifest, SIZE)
