"""The choice near reference images, against one that takes turns in a plain loop."""

import pickle

import cv2
import numpy as np
import pytest

from tests.curation.test_embedding import SIZE, resnet18, write_pretraining
from tests.helpers.colours import read_frames, write_noise
from tests.helpers.scenes import run_on
from vito_mm.curation.embedding import Embed
from vito_mm.curation.reference_selection import SelectByEmbedding, choose, compare
from vito_mm.curation.running import Running, run_stage
from vito_mm.curation.stage import StageError
from vito_mm.curation.tables import TableError, read_table

WIDTH = 12
SIZES = (2, 9, 17, 30)
"""Videos near each of the four kinds of reference images."""


def units(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def world(tmp_path):
    """Reference images of four kinds, and videos that look like them more or less."""
    rng = np.random.default_rng(0)
    kinds = np.eye(WIDTH)[:4]
    reference = units(np.repeat(kinds, 20, axis=0) + 0.05 * rng.normal(size=(80, WIDTH)))
    np.save(tmp_path / 'reference.npy', reference)
    videos = np.repeat(kinds, SIZES, axis=0)
    videos = units(videos + 0.2 * rng.random((len(videos), 1)) * rng.normal(size=videos.shape))
    videos = videos[rng.permutation(len(videos))].round(5)
    rows = [
        dict(path=f'/videos/{index}.mp4', embedding=video.tolist(), mine=index)
        for index, video in enumerate(videos)
    ]
    # One that looks exactly like another, and one that an earlier stage could not embed.
    rows.insert(20, rows[3] | dict(path='/videos/again.mp4'))
    rows.insert(30, dict(path='/videos/none.mp4', mine=-1))
    return rows, reference


def take_turns(rows, keep):
    """Indices of the rows that are kept, by a plain loop over what the stage wrote."""
    queues = {}
    for index, row in enumerate(rows):
        if 'cluster' in row:
            queues.setdefault(row['cluster'], []).append((-row['similarity'], index))
    queues = [sorted(queues[cluster]) for cluster in sorted(queues)]
    kept = []
    while len(kept) < keep and any(queues):
        for queue in queues:
            if queue and len(kept) < keep:
                kept.append(queue.pop(0)[1])
    return sorted(kept)


def kept_of(rows):
    return [index for index, row in enumerate(rows) if 'dropped' not in row]


@pytest.mark.parametrize('keep', [1, 30, 1000])
def test_clusters_take_turns_with_their_most_similar_videos(tmp_path, world, keep):
    rows, reference = world
    stage = SelectByEmbedding(str(tmp_path / 'reference.npy'), keep, clusters=4, seed=3)
    found = run_on(stage, rows, tmp_path, 7)
    assert [row['mine'] for row in found] == [row['mine'] for row in rows]
    partition = {}
    for row in found:
        if row['path'] == '/videos/none.mp4':
            assert row['dropped'] == 'has no embedding'
            continue
        video = np.array(row['embedding'])
        cosines = reference @ video / np.linalg.norm(video)
        assert row['similarity'] == pytest.approx(cosines.max(), abs=1e-6)
        partition.setdefault(row['cluster'], set()).add(int(video[:4].argmax()))
        assert row.get('dropped') in (None, 'not among the nearest')
    assert sorted(partition) == [0, 1, 2, 3]
    assert sorted(partition.values(), key=min) == [{0}, {1}, {2}, {3}]
    assert kept_of(found) == take_turns(found, keep)
    assert len(kept_of(found)) == min(keep, sum(SIZES) + 1)


def test_small_clusters_leave_their_share_to_the_others(tmp_path, world):
    rows, _ = world
    stage = SelectByEmbedding(str(tmp_path / 'reference.npy'), 32, clusters=4)
    found = run_on(stage, rows, tmp_path)
    kinds = [int(np.argmax(found[index]['embedding'][:4])) for index in kept_of(found)]
    counts = np.bincount(kinds, minlength=4)
    assert counts[0] == 2
    assert counts[1] in (9, 10)
    assert counts.sum() == 32
    assert abs(counts[2] - counts[3]) <= 1


def test_shards_workers_and_formats_change_nothing(tmp_path, world):
    rows, _ = world
    results = []
    for per_shard, workers in ((3, 2), (100, 1), (1, 1)):
        stage = SelectByEmbedding(str(tmp_path / 'reference.npy'), 20, clusters=6, seed=1)
        folder = tmp_path / str(per_shard)
        results.append(run_on(stage, rows, folder, per_shard, workers=workers))
    assert results[0] == results[1] == results[2]
    assert len(kept_of(results[0])) == 20


def test_there_are_no_more_clusters_than_reference_images_and_a_share_may_be_kept(tmp_path, world):
    rows, reference = world
    np.save(tmp_path / 'few.npy', reference[[0, 25, 45]].astype(np.float32) * 7)
    stage = SelectByEmbedding(str(tmp_path / 'few.npy'), fraction=0.5, clusters=100)
    found = run_on(stage, rows, tmp_path)
    assert {row['cluster'] for row in found if 'cluster' in row} == {0, 1, 2}
    assert max(row['similarity'] for row in found if 'similarity' in row) <= 1
    assert len(kept_of(found)) == round(0.5 * (sum(SIZES) + 1))


def test_rows_that_an_earlier_stage_dropped_are_left_out(tmp_path, world):
    rows, _ = world
    first = SelectByEmbedding(str(tmp_path / 'reference.npy'), 25, clusters=4)
    found = run_on(first, rows, tmp_path, 9)
    kept = [found[index]['mine'] for index in kept_of(found)]
    second = SelectByEmbedding(str(tmp_path / 'reference.npy'), 10, clusters=4, seed=1)
    run_stage(second, tmp_path / first.name, tmp_path / 'second', Running(workers=1))
    again = list(read_table(tmp_path / 'second'))
    assert [row['mine'] for row in again] == kept
    assert kept_of(again) == take_turns(again, 10)


def test_videos_are_compared_with_all_centres_and_references():
    rng = np.random.default_rng(0)
    videos, centres, reference = (units(rng.normal(size=(n, 5))) for n in (11, 4, 40))
    cluster, similarity = compare(videos, centres, reference)
    for index, video in enumerate(videos):
        assert cluster[index] == max(range(4), key=lambda k: centres[k] @ video)
        assert similarity[index] == round(max(other @ video for other in reference), 6)


def test_turns_on_random_tables_are_those_of_the_loop():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = rng.integers(1, 30)
        cluster, similarity = rng.integers(-1, 5, n), rng.integers(0, 4, n) / 4
        keep = int(rng.integers(1, 35))
        rows = [
            dict(cluster=c, similarity=s) if c >= 0 else {}
            for c, s in zip(cluster, similarity, strict=True)
        ]
        assert np.flatnonzero(choose(cluster, similarity, keep)).tolist() == take_turns(rows, keep)


def test_images_are_embedded_as_the_videos_were(tmp_path):
    """Videos whose frames are among the reference images come first."""
    checkpoint = write_pretraining(tmp_path / 'vito.pth', resnet18(0), resnet18(1))
    paths = [write_noise(tmp_path / f'{i}.mp4', (64, 64), 1, seed=i) for i in range(6)]
    (tmp_path / 'images').mkdir()
    for index in (1, 4):
        image = read_frames(paths[index])[0]
        cv2.imwrite(str(tmp_path / f'images/{index}.png'), image[:, :, ::-1])
    embed = Embed(checkpoint, size=SIZE)
    run_on(embed, [dict(path=str(path)) for path in paths], tmp_path)
    settings = dict(reference=str(tmp_path / 'images'), keep=2)
    stage = SelectByEmbedding(**settings, embed=embed)
    run_stage(stage, tmp_path / 'embed', tmp_path / 'out', Running(workers=1))
    found = list(read_table(tmp_path / 'out'))
    assert kept_of(found) == [1, 4]
    assert [found[i]['similarity'] for i in (1, 4)] == pytest.approx([1, 1], abs=1e-5)
    assert found[1]['cluster'] != found[4]['cluster']
    identity = stage.identity()
    assert identity['which'] == 'online'
    assert len(pickle.dumps(stage)) < 3000
    cv2.imwrite(str(tmp_path / 'images/more.png'), np.zeros((64, 64, 3), np.uint8))
    assert stage.identity() != identity
    with pytest.raises(ValueError, match='--backbone'):
        SelectByEmbedding(**settings).check_settings()


def test_embeddings_of_another_length_are_told(tmp_path, world):
    rows, _ = world
    rows[5] = rows[5] | dict(embedding=[0.5] * 4)
    stage = SelectByEmbedding(str(tmp_path / 'reference.npy'), 5)
    message = r'/videos/5\.mp4 has 4 numbers, and those of the reference .*reference\.npy have 12'
    with pytest.raises(TableError, match=message):
        run_on(stage, rows, tmp_path)


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        (dict(keep=None), ValueError, 'either'),
        (dict(fraction=0.5), ValueError, 'either'),
        (dict(keep=None, fraction=1.5), ValueError, '--fraction 1.5'),
        (dict(reference='gone.npy'), StageError, r'gone\.npy cannot be read'),
        (dict(reference='odd.npy'), StageError, r'odd\.npy holds no embeddings'),
        (dict(reference='gone', embed=Embed('a.pth')), StageError, 'no image'),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, world, changes, error, message):
    np.save(tmp_path / 'odd.npy', np.full((3, 4), np.nan))
    settings = dict(reference='reference.npy', keep=5) | changes
    settings['reference'] = str(tmp_path / settings['reference'])
    with pytest.raises(error, match=message):
        SelectByEmbedding(**settings).check_settings()
