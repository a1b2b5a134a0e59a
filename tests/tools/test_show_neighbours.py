"""The command that draws nearest neighbours."""

import cv2
import pytest
import torch
import torchvision

from tests.conftest import REPO, write_video
from tests.helpers.processes import run_tool, shell
from tests.helpers.tiny_vito import save, tiny_vito
from vito_mm.videos import write_manifest

TOOL = REPO / 'tools/show_neighbours.py'


@pytest.fixture
def world(tmp_path):
    """A checkpoint, and two classes of three videos each, of which each class looks the same."""
    save(tmp_path / 'iter_7.pth', *tiny_vito())
    for name, texture in (('cat', 1), ('dog', 2)):
        for index in range(3):
            file = tmp_path / 'videos' / name / f'{index}.mp4'
            write_video(file, num_frames=20 + index, texture=texture)
    return tmp_path


def test_the_command_finds_the_other_videos_of_the_class(world):
    (world / 'videos' / 'dog' / 'bad \udcff.mp4').touch()
    out = world / 'new' / 'neighbours.png'
    gallery = ('--gallery', world / 'videos', '--size', 64, '--k', 2)
    done = shell(TOOL, world / 'iter_7.pth', *gallery, '--out', out)
    assert done.returncode == 0, done.stderr
    assert 'bad \\udcff.mp4: is empty' in done.stderr
    # Two others of three: by chance 2 of 5.
    assert '100% of 12 neighbours are of the class of the query, 40% would' in done.stdout
    assert '6 of 7 videos or images in the gallery, 18 frames' in done.stdout
    assert done.stdout.endswith(f'written to {out}\n')
    assert cv2.imread(str(out)).shape[1] > 3 * 160


def test_queries_may_be_images_and_the_gallery_a_manifest(world, monkeypatch, capsys):
    rows = [
        dict(path=f'videos/{name}/{index}.mp4', class_name=name)
        for name in ('cat', 'dog')
        for index in range(3)
    ]
    write_manifest(world / 'videos.jsonl', rows)
    (world / 'queries' / 'dog').mkdir(parents=True)
    capture = cv2.VideoCapture(str(world / 'videos' / 'dog' / '0.mp4'))
    cv2.imwrite(str(world / 'queries' / 'dog' / 'still.png'), capture.read()[1])
    run_tool(
        *(monkeypatch, TOOL.name),
        *(world / 'iter_7.pth', '--queries', world / 'queries', world / 'videos/cat/1.mp4'),
        *('--gallery', world / 'videos.jsonl', '--out', world / 'neighbours.png'),
        *('--size', 64, '--k', 3, '--frames', 1, '--workers', 1, '--pooling', 'attention'),
    )
    # The file named alone has no class, so that the still alone is judged.
    text = capsys.readouterr().out
    assert '2 queries, 6 of 6' in text
    assert '100% of 3 neighbours are of the class of the query, 50% would' in text


def test_without_labels_nothing_is_judged_and_any_resnet_will_do(world, monkeypatch, capsys):
    torch.save(torchvision.models.resnet18().state_dict(), world / 'resnet.pth')
    gallery = ('--gallery', world / 'videos', '--no-labels', '--num-queries', 2, '--size', 32)
    run_tool(
        monkeypatch, TOOL.name, world / 'resnet.pth', *gallery, '--out', world / 'neighbours.png'
    )
    text = capsys.readouterr().out
    assert text.startswith('2 queries')
    assert 'class' not in text
    pooling = ('--pooling', 'attention', '--out', world / 'out.png')
    with pytest.raises(SystemExit) as error:
        run_tool(monkeypatch, TOOL.name, world / 'resnet.pth', *gallery, *pooling)
    assert 'has no attention network' in str(error.value)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--gallery', 'nowhere'), "no file or folder 'nowhere'"),
        (('--gallery', 'empty'), "no video in 'empty'"),
        (('--gallery', 'bad'), '--gallery names no file that can be read'),
        (('--gallery', 'videos', '--queries', 'bad'), '--queries names no file that can be read'),
        (('--gallery', 'videos/cat/0.mp4'), 'there is no neighbour'),
    ],
)
def test_errors_are_told_without_a_traceback(world, monkeypatch, options, message):
    for name in ('empty', 'bad'):
        (world / name).mkdir()
    (world / 'bad' / 'a.mp4').write_text('<html>404</html>')
    monkeypatch.chdir(world)
    with pytest.raises(SystemExit) as error:
        run_tool(monkeypatch, TOOL.name, 'iter_7.pth', *options, '--out', 'out.png', '--size', 32)
    assert message in str(error.value)
    assert not (world / 'out.png').exists()
