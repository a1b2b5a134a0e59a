"""Video object segmentation on MiniScenes in the layout of DAVIS, by the command."""

import json
import re
import shutil
import sys
from pathlib import Path

import av
import cv2
import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import REPO
from tests.helpers.processes import run_tool
from vito_mm.miniscenes import make_miniscenes
from vito_mm.miniscenes.presets import get_preset
from vito_mm.miniscenes.sequences import render_sequence
from vito_mm.probes.davis import (
    Sequence2017,
    draw_frames,
    find_sequences,
    read_mask,
    score_sequence,
    summary,
)
from vito_mm.probes.image_folders import ProbeError
from vito_mm.probes.loading import load_encoder, resnet
from vito_mm.probes.video_object_metric import score_objects
from vito_mm.transfer.report.results import read_results
from vito_mm.videos.writing import write_video


@pytest.fixture(scope='module')
def davis(tmp_path_factory):
    root = tmp_path_factory.mktemp('scenes')
    made = make_miniscenes(root, 'tiny', seed=3, workers=0, tasks=('davis', 'voc'), progress=False)
    # Short, for the tests.
    for kind in ('JPEGImages', 'Annotations'):
        for folder in (root / 'davis' / kind / '480p').iterdir():
            for file in sorted(folder.iterdir())[4:]:
                file.unlink()
    return made


@pytest.fixture
def copied(davis, tmp_path):
    shutil.copytree(davis['davis'], tmp_path / 'davis')
    return tmp_path / 'davis'


@pytest.fixture
def checkpoint(tmp_path):
    network = load_encoder(None, network=resnet(18, 16), seed=1).backbone
    torch.save({'state_dict': network.state_dict()}, tmp_path / 'weights.pth')
    return tmp_path / 'weights.pth'


def decoded(file):
    """Frames of a video that browsers play, RGB."""
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ('h264', 'yuv420p')
        return [frame.to_ndarray(format='rgb24').astype(int) for frame in container.decode(stream)]


def test_videos_need_pyav_before_any_probe(davis, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'av', None)
    words = ('random', '--data', davis['davis'], '--work-dir', tmp_path / 'out', '--write-videos')
    with pytest.raises(SystemExit, match='needs PyAV: pip install'):
        run_tool(monkeypatch, 'probe.py', 'davis', *words)
    assert not (tmp_path / 'out').exists()


def test_frames_of_odd_sides_lose_a_line_in_videos(tmp_path):
    rng = np.random.default_rng(0)
    image, mask = tmp_path / '0.png', tmp_path / 'masks/0.png'
    pixels = rng.integers(0, 256, (35, 27, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(image)
    mask.parent.mkdir()
    Image.fromarray(np.zeros((35, 27), np.uint8)).save(mask)
    (drawn,) = draw_frames(Sequence2017('odd', [image], [mask], 1), mask.parent)
    np.testing.assert_array_equal(drawn, pixels[:34, :26])
    assert write_video(tmp_path / 'a.mp4', [drawn], 24) == 1
    assert decoded(tmp_path / 'a.mp4')[0].shape == (34, 26, 3)


def test_the_layout_holds_the_scenes(davis):
    for index, sequence in enumerate(find_sequences(davis['davis'])):
        rendered = list(render_sequence(get_preset('tiny'), 3, index))
        assert sequence.num_objects == rendered[0][1].max() >= 2
        for file, (_, mask) in zip(sequence.masks, rendered[:4], strict=True):
            np.testing.assert_array_equal(read_mask(file), mask)


def test_objects_hide_each_other_and_come_back():
    for index in range(2):
        masks = [mask for _, mask in render_sequence(get_preset('demo'), 0, index)]
        counts = np.array([[(mask == n).sum() for n in (1, 2)] for mask in masks])
        assert (counts[0] > 50).all()
        # Somewhere an object is seen less than before and afterwards.
        least = counts.argmin(axis=0)
        assert any(
            counts[i, n] < 0.6 * min(counts[:i, n].max(), counts[i:, n].max())
            for n, i in enumerate(least)
            if 0 < i < len(masks) - 1
        )


def test_scores_are_those_of_the_masks_that_it_writes(
    davis, copied, checkpoint, tmp_path, monkeypatch, capsys
):
    words = ('davis', checkpoint, 'random', '--data', davis['davis'], '--size', 72)
    words += ('--work-dir', tmp_path / 'out', '--out', tmp_path / 'found.json', '--write-videos')
    run_tool(monkeypatch, 'probe.py', *words)
    table = capsys.readouterr().out
    rows = json.loads((tmp_path / 'found.json').read_text())['results']
    name = f'{tmp_path.name}_weights'
    for label, row in zip((name, 'random'), rows, strict=True):
        scores = []
        for sequence in find_sequences(davis['davis']):
            folder = tmp_path / 'out' / 'masks' / label / sequence.name
            found = [np.array(Image.open(folder / file.name)) for file in sequence.masks]
            truth = [read_mask(file) for file in sequence.masks]
            np.testing.assert_array_equal(found[0], truth[0])
            scores += score_objects(truth, found, sequence.num_objects)
        assert row['J mean'] == pytest.approx(100 * np.mean([j.mean for j, _ in scores]))
        assert row['F mean'] == pytest.approx(100 * np.mean([f.mean for _, f in scores]))
        assert row['J&F'] == pytest.approx((row['J mean'] + row['F mean']) / 2)
        assert f'{row["J&F"]:.1f}' in table
    page = (tmp_path / 'out' / 'davis.html').read_text()
    assert page.count('<img') == 2
    assert 'VITO ResNet-50' in page
    shown = re.findall(r'<video [^>]*src="([^"]*)"', page)
    assert len(shown) == 4
    seen = set()
    colours = np.uint8(255 * np.array(matplotlib.colormaps['tab10'].colors))
    for address in shown:
        folder, sequence = (tmp_path / 'out' / address).parent, Path(address).stem
        frames = decoded(folder / f'{sequence}.mp4')
        assert len(frames) == 4
        for number, found in enumerate(frames):
            frame = cv2.imread(f'{davis["davis"]}/JPEGImages/480p/{sequence}/{number:05d}.jpg')
            masks = tmp_path / 'out/masks' / folder.name / sequence
            objects = np.array(Image.open(masks / f'{number:05d}.png'))[..., None]
            mixed = frame[..., ::-1] / 3 + 2 / 3 * colours[objects[..., 0]]
            expected = np.where(objects == 0, frame[..., ::-1], mixed)
            assert found.shape == expected.shape
            assert np.abs(found - expected).mean() < 8
            # The colours of objects, away from their edges, which are blurred. Where features of a
            # processor leave a few pixels of an object, the codec mixes them with what is around.
            for value in (1, 2):
                inside = cv2.erode(np.uint8(objects == value), np.ones((7, 7), np.uint8)) > 0
                if inside.sum() >= 16:
                    seen.add((address, value))
                    means = found[inside].mean(axis=0), expected[inside].mean(axis=0)
                    np.testing.assert_allclose(*means, atol=12)
    assert len(seen) > len(shown)

    # The same command has nothing to do, a lost part is made again, other settings are refused.
    record = tmp_path / 'out' / f'{name}.json'
    kept = json.loads(record.read_text())
    lost = dict(kept, parts={k: v for k, v in kept['parts'].items() if k != 'scene-001'})
    kept['parts']['scene-000']['objects'][0]['J']['mean'] = lost['parts']['scene-000']['objects'][
        0
    ]['J']['mean'] = 0.125
    record.write_text(json.dumps(lost))
    removed = tmp_path / 'out/masks/random/scene-001/00002.png'
    removed.unlink()
    lost_video = tmp_path / 'out/videos/random/scene-000.mp4'
    lost_video.unlink()
    run_tool(monkeypatch, 'probe.py', *words)
    assert removed.is_file()
    assert len(decoded(lost_video)) == 4
    again = json.loads(record.read_text())
    assert summary(again['parts']) == pytest.approx(summary(kept['parts']))
    with pytest.raises(SystemExit, match='settings'):
        run_tool(monkeypatch, 'probe.py', *words, '--radius', 3)
    # Where the data lie does not matter, and what they are does.
    run_tool(monkeypatch, 'probe.py', *words, '--data', copied)
    assert json.loads(record.read_text()) == again
    Image.new('RGB', (96, 72)).save(copied / 'JPEGImages/480p/scene-001/00002.jpg')
    with pytest.raises(SystemExit, match='another data:'):
        run_tool(monkeypatch, 'probe.py', *words, '--data', copied)
    # Random weights of another network are others.
    network = load_encoder(None, network=resnet(18, 8), seed=1).backbone
    torch.save({'state_dict': network.state_dict()}, tmp_path / 'narrow.pth')
    with pytest.raises(SystemExit, match=r'random\.json.*checkpoint'):
        run_tool(monkeypatch, 'probe.py', 'davis', tmp_path / 'narrow.pth', *words[2:])


def test_in_context_segmentation_by_the_command(davis, tmp_path, monkeypatch, capsys):
    voc = shutil.copytree(davis['voc'], tmp_path / 'voc')
    words = ('incontext', 'random', '--depth', 18, '--base-channels', 16, '--size', 64)
    words += ('--config', REPO / 'configs/miniscenes/seg_pascal.py', '--seed', 5, '--seeds', 2)
    words += ('--evaluation', tmp_path / 'report')
    words += ('--memory', 40, '--neighbours', 3, '--layer', 'res3', '--workers', 0)
    words += ('--work-dir', tmp_path / 'out', '--out', tmp_path / 'found.json', '--cfg-options')
    words += tuple(
        f'{part}.data_root={voc}'
        for part in (
            'train_dataloader.dataset.datasets.0',
            'train_dataloader.dataset.datasets.1',
            'val_dataloader.dataset',
        )
    )
    run_tool(monkeypatch, 'probe.py', *words)
    row = json.loads((tmp_path / 'found.json').read_text())['results'][0]
    record = tmp_path / 'out' / 'random.json'
    kept = json.loads(record.read_text())
    parts = kept['parts']
    scores = [parts[f'seed {seed}']['mIoU'] for seed in (5, 6)]
    assert {result.seed for result in read_results(tmp_path / 'report')} == {5, 6}
    assert row['mIoU'] == pytest.approx(np.mean(scores))
    assert row['deviation'] == pytest.approx(np.std(scores, ddof=1))
    assert parts['seed 5']['patches'] == [36, 64]  # 12 images of 3 patches each

    # All four validation images are shown, so the score is that of the pictures.
    found, truth = [], []
    names = (voc / 'ImageSets/Segmentation/val.txt').read_text().split()
    pictures = sorted((tmp_path / 'out/predictions/random').iterdir())
    for name, picture in zip(names, pictures, strict=True):
        with Image.open(voc / f'SegmentationClass/{name}.png') as image:
            labels = np.array(image)
        truth.append(cv2.resize(labels, (64, 64), interpolation=cv2.INTER_NEAREST_EXACT))
        with Image.open(picture) as image:
            found.append(np.array(image))
    found, truth = (np.stack(each)[np.stack(truth) != 255] for each in (found, truth))
    pairs = [(found == number, truth == number) for number in range(21)]
    ious = [100 * (a & b).sum() / (a | b).sum() for a, b in pairs if (a | b).any()]
    assert scores[0] == pytest.approx(np.mean(ious))
    page = (tmp_path / 'out' / 'incontext.html').read_text()
    assert page.count('<img') == 1
    assert 'DINO ViT-S/16' in page
    lines = [line.split(',') for line in (tmp_path / 'out/incontext.csv').read_text().splitlines()]
    assert [line[:2] for line in lines[1:]] == [['random', '5'], ['random', '6']]
    assert [float(line[2]) for line in lines[1:]] == pytest.approx(scores)
    iou = parts['seed 6']['IoU']['background']
    assert float(lines[2][lines[0].index('background')]) == pytest.approx(iou)

    # What is kept is not computed again, unless a picture is lost.
    for name in parts:
        parts[name]['mIoU'] = 12.5
    record.write_text(json.dumps(kept))
    run_tool(monkeypatch, 'probe.py', *words)
    assert json.loads(record.read_text()) == kept
    assert '12.5' in (tmp_path / 'out' / 'incontext.html').read_text()
    pictures[1].unlink()
    run_tool(monkeypatch, 'probe.py', *words)
    again = json.loads(record.read_text())['parts']
    assert [again[name]['mIoU'] for name in parts] == [pytest.approx(scores[0]), 12.5]
    assert pictures[1].is_file()
    image = next((voc / 'JPEGImages').iterdir())
    image.write_bytes(image.read_bytes() + bytes(9))
    with pytest.raises(SystemExit, match='another data:'):
        run_tool(monkeypatch, 'probe.py', *words)


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        (lambda root: (root / 'ImageSets/2017/val.txt').unlink(), 'val.txt'),
        (lambda root: (root / 'ImageSets/2017/val.txt').write_text('\n'), 'no sequence'),
        (lambda root: (root / 'Annotations/480p/scene-001/00003.png').unlink(), '00003'),
        (lambda root: shutil.rmtree(root / 'JPEGImages/480p/scene-001'), 'scene-001'),
    ],
)
def test_missing_data_are_named(copied, change, word):
    change(copied)
    with pytest.raises(ProbeError, match=word):
        find_sequences(copied)


@pytest.mark.parametrize('content', [b'', b'cut'])
def test_images_that_cannot_be_read_are_named(copied, content):
    first = find_sequences(copied)[0]
    encoder = load_encoder(None, network=resnet(18, 16), device='cpu')
    frame, mask = first.frames[1], first.masks[1]
    frame.write_bytes(content)
    for use in (
        lambda: score_sequence(encoder, first),
        lambda: list(draw_frames(first, mask.parent)),
    ):
        with pytest.raises(ProbeError, match=str(frame)):
            use()
    mask.write_bytes(content and mask.read_bytes()[:90])
    with pytest.raises(ProbeError, match=str(mask)):
        find_sequences(copied)


@pytest.mark.parametrize(
    ('number', 'mask', 'word'),
    [
        (0, np.zeros((72, 96), np.uint8), 'no object'),
        (2, np.full((72, 96), 9, np.uint8), '9 objects'),
        (2, np.ones((70, 96), np.uint8), '96 x 70'),
        (0, np.zeros((72, 96, 3), np.uint8), 'mode RGB'),
    ],
)
def test_masks_that_cannot_be_are_named(copied, number, mask, word):
    Image.fromarray(mask).save(copied / f'Annotations/480p/scene-000/{number:05d}.png')
    with pytest.raises(ProbeError, match=word):
        find_sequences(copied)
