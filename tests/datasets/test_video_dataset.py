"""From video files to views, through the shipped pipeline."""

import copy
import os

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image

from tests.conftest import REPO, frame_index
from vito_mm.datasets import AugmentViews, DecodeFrames, Draw, SampleFrames, VideoDataset
from vito_mm.videos import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, decode_frames, write_manifest

DECODE = [dict(type='SampleFrames'), dict(type='DecodeFrames')]


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')


@pytest.fixture
def pipeline():
    return Config.fromfile(REPO / 'configs/vito/pretrain_r50.py').train_dataloader.dataset.pipeline


def test_folder_gives_three_views_of_each_video(video_folder, pipeline):
    dataset = VideoDataset(data_root=str(video_folder), pipeline=pipeline)
    assert len(dataset) == 6
    item = dataset[2]
    assert [view.shape for view in item['inputs']] == [(3, 224, 224)] * 3
    assert {view.dtype for view in item['inputs']} == {torch.uint8}
    sample = item['data_samples']
    assert sample.video_path == str(video_folder / '2.mp4')
    assert sample.skipped_videos == []
    assert sample.frame_times.shape == (3,)


def test_manifest_brings_labels_and_relative_paths(video_folder):
    write_manifest(
        video_folder / 'manifest.jsonl',
        [dict(path=f'{i}.mp4', label=i % 2, title='x') for i in range(6)],
    )
    dataset = VideoDataset(data_root=str(video_folder), ann_file='manifest.jsonl', pipeline=DECODE)
    row = dataset[3]
    assert (row['gt_label'], row['title']) == (1, 'x')
    assert row['video_path'] == str(video_folder / '3.mp4')
    # A manifest outside of the data root, and one without any root.
    moved = video_folder.parent / 'list.jsonl'
    os.rename(video_folder / 'manifest.jsonl', moved)
    dataset = VideoDataset(data_root=str(video_folder), ann_file=str(moved), pipeline=DECODE)
    assert dataset[3]['video_path'] == str(video_folder / '3.mp4')
    write_manifest(video_folder / 'here.jsonl', [dict(path='0.mp4')])
    # The configs of this package name a data root, which a manifest elsewhere need not care for.
    for data_root in ('', 'data/videos'):
        dataset = VideoDataset(data_root, str(video_folder / 'here.jsonl'), pipeline=DECODE)
        assert dataset[0]['video_path'] == str(video_folder / '0.mp4')


def test_views_lie_within_the_segment_anywhere_in_the_video(make_video):
    path = make_video(num_frames=120, fps=25)
    steps = [SampleFrames(num_views=3, segment=1.0), DecodeFrames()]
    np.random.seed(0)
    seen = []
    for _ in range(60):
        results = dict(video_path=str(path))
        for step in steps:
            results = step.transform(results)
        indices = [frame_index(frame) for frame in results['imgs']]
        assert max(indices) - min(indices) <= 25
        np.testing.assert_allclose(results['frame_times'] * 25, indices, atol=1e-3)
        seen += indices
    assert min(seen) < 10
    assert max(seen) > 110


def test_a_video_shorter_than_the_segment_is_used_whole(make_video):
    path = make_video(num_frames=10, fps=25)
    np.random.seed(0)
    seen = set()
    for _ in range(30):
        results = SampleFrames(num_views=3, segment=2.56).transform(dict(video_path=str(path)))
        seen |= {frame_index(frame) for frame in DecodeFrames().transform(results)['imgs']}
    assert seen == set(range(10))


def add(value: int):
    return lambda results: {**results, 'img': results['img'] + value}


def test_pipelines_alternate_over_the_views_and_named_stages_run_in_order():
    frames = [np.zeros((2, 2, 3))] * 3
    views = AugmentViews([[add(1)], [add(10)]]).transform(dict(imgs=frames))['img']
    assert [view[0, 0, 0] for view in views] == [1, 10, 1]
    named = AugmentViews(dict(A1=dict(a=add(1), b=None, c=add(10)), A2=None, A3=dict(a=add(10))))
    views = named.transform(dict(imgs=frames))['img']
    assert [view[0, 0, 0] for view in views] == [11, 10, 11]
    for empty in ([], dict(A1=None)):
        with pytest.raises(ValueError, match='at least one pipeline'):
            AugmentViews(empty)


def broken(folder):
    (folder / 'empty.mp4').touch()
    (folder / 'page.mp4').write_text('<html>404</html>')


def test_an_unreadable_video_is_replaced_and_reported(video_folder):
    broken(video_folder)
    dataset = VideoDataset(data_root=str(video_folder), pipeline=DECODE)
    np.random.seed(0)
    for index in range(len(dataset)):
        row = dataset[index]
        assert len(row['imgs']) == 3
        name = dataset.get_data_info(index)['video_path'].rsplit('/')[-1]
        if name in ('empty.mp4', 'page.mp4'):
            path, reason = row['skipped_videos'][0]
            assert path.endswith(name)
            assert reason
        else:
            assert row['skipped_videos'] == []


def test_no_readable_video_is_an_error_that_lists_reasons(tmp_path):
    broken(tmp_path)
    dataset = VideoDataset(data_root=str(tmp_path), pipeline=DECODE)
    with pytest.raises(RuntimeError) as caught:
        dataset[0]
    message = str(caught.value)
    for part in ('empty.mp4: is empty', 'page.mp4: ', '2 videos', 'manifest'):
        assert part in message


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        (dict(), ValueError, 'data_root'),
        (dict(data_root='nowhere'), FileNotFoundError, 'nowhere'),
        (dict(ann_file='nowhere.jsonl'), FileNotFoundError, r'nowhere\.jsonl'),
        (dict(data_root='x', max_attempts=0), ValueError, 'max_attempts'),
    ],
)
def test_bad_settings_are_named(kwargs, error, message):
    with pytest.raises(error, match=message):
        VideoDataset(**kwargs)
    with pytest.raises(ValueError, match='num_views must be at least 2'):
        SampleFrames(num_views=1)
    with pytest.raises(ValueError, match='pipelines'):  # as of mmpretrain's MultiView
        AugmentViews([dict(type='BYOLAugmentation')])


@pytest.mark.parametrize(
    'given', [dict(data_prefix=dict(video='train')), dict(filter_cfg={}), dict(serialize_data=True)]
)
def test_what_means_nothing_here_is_refused(video_folder, given):
    with pytest.raises(TypeError, match=next(iter(given))):
        VideoDataset(data_root=str(video_folder), **given)


@pytest.mark.parametrize('extensions', ['.JPG', ('.jpg',), ['.Jpg']])
def test_endings_are_one_or_several_in_any_case(tmp_path, extensions):
    for name in ('a.jpg', 'b.JPG', 'mask.png', 'notes.zip', 'x.mpg'):
        (tmp_path / name).touch()
    dataset = VideoDataset(data_root=str(tmp_path), extensions=extensions)
    names = [os.path.basename(dataset.get_data_info(i)['video_path']) for i in range(len(dataset))]
    assert names == ['a.jpg', 'b.JPG']


def test_an_address_as_root_is_not_replaced_by_files_near_the_manifest(tmp_path):
    (tmp_path / 'a.mp4').touch()
    write_manifest(tmp_path / 'm.jsonl', [dict(path='a.mp4')])
    dataset = VideoDataset(data_root='s3://bucket/videos', ann_file=str(tmp_path / 'm.jsonl'))
    assert dataset.get_data_info(0)['video_path'] == 's3://bucket/videos/a.mp4'


def test_a_subset_is_described_as_itself(video_folder):
    rows = [dict(path=f'{i}.mp4', start=part) for i in range(3) for part in (0.0, 1.0)]
    write_manifest(video_folder / 'm.jsonl', rows)
    root = dict(data_root=str(video_folder), ann_file='m.jsonl')
    whole = VideoDataset(**root)
    subsets = [VideoDataset(**root, indices=chosen) for chosen in (2, -2, [0, 1, 4])]
    subsets.append(whole.get_subset([0, 2, 4]))
    assert [len(subset) for subset in subsets] == [2, 2, 3, 3]
    assert [subset.count_files() for subset in (whole, *subsets)] == [3, 1, 1, 2, 3]
    assert [s.get_data_info(-1)['video_path'][-5:] for s in subsets] == [
        *('0.mp4', '2.mp4', '2.mp4', '2.mp4'),
    ]
    assert len({subset.fingerprint() for subset in (whole, *subsets)}) == 5
    assert VideoDataset(**root, indices=2).fingerprint() == subsets[0].fingerprint()


def test_a_folder_has_one_fingerprint_however_it_is_written(video_folder, monkeypatch):
    found = {VideoDataset(data_root=str(video_folder) + end).fingerprint() for end in ('', '/')}
    monkeypatch.chdir(video_folder)
    found |= {VideoDataset(data_root=root).fingerprint() for root in ('.', './')}
    assert len(found) == 1
    assert VideoDataset(data_root=str(video_folder), indices=2).fingerprint() not in found


def test_workers_open_their_own_readers_and_draw_different_clips(video_folder, pipeline):
    """Two forked workers, as in training: no dead-lock, and no two views alike."""
    pipeline = copy.deepcopy(pipeline)
    loader = Runner.build_dataloader(
        dict(
            batch_size=3,
            num_workers=2,
            sampler=dict(type=DefaultSampler, shuffle=False),
            collate_fn=dict(type='default_collate'),
            dataset=dict(type='VideoDataset', data_root=str(video_folder), pipeline=pipeline),
        ),
        seed=0,
    )
    batches = list(loader)
    times = [tuple(s.frame_times) for batch in batches for s in batch['data_samples']]
    assert len(set(times)) == 6
    assert [tuple(view.shape) for view in batches[0]['inputs']] == [(3, 3, 224, 224)] * 3


def test_an_image_is_a_video_of_one_frame(tmp_path, make_video):
    """Pixels as OpenCV reads them, once a view; found by its ending, alone or beside videos."""
    images = {}
    for name in ('a/one.JPG', 'b/zwei ö.png'):
        image = np.random.default_rng(len(images)).integers(0, 256, (20, 30, 3), np.uint8)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(cv2.imencode(name[-4:].lower(), image)[1].tobytes())
        images[str(tmp_path / name)] = cv2.imread(str(tmp_path / name))
    video = make_video('c/clip.mp4')
    dataset = VideoDataset(data_root=str(tmp_path), pipeline=DECODE, extensions=IMAGE_EXTENSIONS)
    assert len(dataset) == 2
    for index in range(2):
        row = dataset[index]
        for view in row['imgs']:
            np.testing.assert_array_equal(view, images[row['video_path']])
        assert row['frame_times'].tolist() == [0, 0, 0]
    both = (*VIDEO_EXTENSIONS, *IMAGE_EXTENSIONS)
    mixed = VideoDataset(data_root=str(tmp_path), pipeline=DECODE, extensions=both)
    assert [mixed[i]['video_path'] for i in range(3)] == [*sorted(images), str(video)]
    write_manifest(tmp_path / 'list.jsonl', [dict(path='c/clip.mp4'), dict(path='a/one.JPG')])
    listed = VideoDataset(data_root=str(tmp_path), ann_file='list.jsonl', pipeline=DECODE)
    assert listed[1]['imgs'][0].shape == (20, 30, 3)


@pytest.mark.parametrize('name', ['x.bmp', 'x.tiff'])
def test_a_still_may_hold_the_marks_of_jpeg(tmp_path, name):
    """A pixel of BMP, the strips of TIFF: two JPEG files in a row would be a video."""
    pixels = np.random.default_rng(0).integers(0, 255, (192, 256, 3), np.uint8)
    pixels[0, :2] = (0xFF, 0xD9, 0xFF), (0, 0, 0xD8)  # FF D9 FF D8 in BMP's order
    Image.fromarray(pixels).save(
        tmp_path / name, **dict(compression='jpeg') if name[2:] == 'tiff' else {}
    )
    assert b'\xff\xd9\xff\xd8' in (tmp_path / name).read_bytes()
    with Image.open(tmp_path / name) as image:
        expected = np.array(image)
    frames, _ = decode_frames(tmp_path / name, lambda duration: np.zeros(1))
    np.testing.assert_array_equal(frames[0], expected)


@pytest.mark.parametrize('method', ['single', 'delta', 'marginal'])
def test_fixed_moments_belong_to_the_video(video_folder, method):
    """The ablations of the paper with one pair, or one frame, per video."""
    sample = dict(type='SampleFrames', num_views=2, segment=1.0, method=method, fixed=True)
    if method == 'delta':
        sample['delta'] = 0.5
    steps = [sample, dict(type='DecodeFrames')]
    dataset = VideoDataset(data_root=str(video_folder), pipeline=steps)
    times = [[dataset[i]['frame_times'].tolist() for _ in range(3)] for i in range(6)]
    assert all(again == first for first, *rest in times for again in rest)
    assert len({str(first) for first, *_ in times}) >= 4


def test_a_part_of_a_video_is_a_row(tmp_path, make_video):
    """Frames come from the part alone, and all of it; a part that is not there is told."""
    make_video('long.mp4', num_frames=100)
    rows = [
        dict(path='long.mp4', start=1.0, end=2.0),
        dict(path='long.mp4', start=3.0),
        dict(path='long.mp4', start=4.5),
        dict(path='long.mp4', start=3, end=2),
    ]
    write_manifest(tmp_path / 'm.jsonl', rows)
    dataset = VideoDataset(ann_file=str(tmp_path / 'm.jsonl'), pipeline=DECODE, max_attempts=1)
    np.random.seed(0)
    for index, (low, high) in enumerate([(1.0, 2.0), (3.0, 4.0)]):
        draws = [dataset[index] for _ in range(60)]
        times = np.concatenate([row['frame_times'] for row in draws])
        assert low - 0.04 <= times.min() < low + 0.1
        assert high - 0.15 < times.max() < high
        shown = [frame_index(frame) for row in draws for frame in row['imgs']]
        np.testing.assert_allclose(times * 25, shown, atol=1e-3)
    with pytest.raises(RuntimeError, match=r'the part from start=.* is not within its 4\.00 s'):
        dataset[2]
    with pytest.raises(RuntimeError, match=r'm\.jsonl, line 4: end is 2, before start \(3\)'):
        dataset[3]


def test_fixed_moments_are_uniform_over_the_videos():
    """And those of the video alone, whichever draw of the stream asks."""
    sample = SampleFrames(num_views=2, segment=1.0, fixed=True)
    drawn = []
    for index in range(2000):
        first = sample.transform(dict(sample_idx=index))
        again = sample.transform(dict(sample_idx=Draw(index, seed=1, number=7 * index)))
        assert first['segment_start'] == again['segment_start']
        np.testing.assert_array_equal(first['segment_offsets'], again['segment_offsets'])
        drawn.append([first['segment_start'], *first['segment_offsets']])
    for column in np.transpose(drawn):
        np.testing.assert_allclose(
            np.quantile(column, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.05
        )
    np.testing.assert_allclose(np.corrcoef(np.transpose(drawn)), np.eye(3), atol=0.1)
