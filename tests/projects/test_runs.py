"""The study as a user runs it, at a size that learns nothing."""

import json
import runpy
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from mmengine.config import Config

from projects.miniscenes_study.presets import PRESETS
from projects.miniscenes_study.rows import ORACLE
from projects.miniscenes_study.runs import (
    Study,
    probe,
    row_config,
    run_study,
    write_frames,
    write_random,
)
from tests.conftest import REPO
from vito_mm.videos import read_manifest


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tmp_path_factory.mktemp('tiny')


@pytest.mark.slow
def test_rows_are_run_once_and_a_report_is_written(tmp_path, data, monkeypatch, capsys):
    def run(*rows: str) -> int:
        words = ['--preset', 'tiny', '--work-dir', str(tmp_path), '--data', str(data)]
        words += ['--seeds', '1', '--transfer-rows', '--rows', *rows]
        monkeypatch.setattr(sys, 'argv', ['study.py', *words])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(REPO / 'benchmarks/study.py'), run_name='__main__')
        return end.value.code

    assert run('random', 'average1') == 0
    checkpoint = tmp_path / 'pretrain' / 'average1' / 'seed0' / 'iter_4.pth'
    written = checkpoint.stat().st_mtime_ns
    report = (tmp_path / 'report.md').read_text()
    assert '| random weights |' in report
    assert '| frames of video, last stage, average |' in report
    capsys.readouterr()

    assert run('average1', 'supervised') == 0
    assert 'Seed 0: 1 pre-training runs' in capsys.readouterr().out
    assert checkpoint.stat().st_mtime_ns == written
    assert len(json.loads((tmp_path / 'study.json').read_text())['commands']) == 2
    probe = json.loads((tmp_path / 'pretrain/supervised/seed0/probe.json').read_text())
    assert set(probe) == {'knn', 'linear'}

    config = tmp_path / 'configs' / 'average1.py'
    config.write_text(config.read_text().replace('batch_size=4', 'batch_size=5'))
    assert run('average1') == 1
    assert 'belongs to a study with other settings' in capsys.readouterr().err
    assert run('vitto') == 1
    assert 'unknown rows: vitto. Choose among random, moclr' in capsys.readouterr().err


@pytest.mark.slow
def test_a_row_starts_from_the_checkpoint_of_another(tmp_path, data):
    study = Study(REPO, tmp_path, data, PRESETS['tiny'], rows=['heads_first'], seeds=1)
    run_study(study, 'study.py')
    assert study.all_rows() == ['source', 'heads', 'heads_first']
    source, heads, last = (
        torch.load(study.checkpoint(row, 0))['state_dict'] for row in study.all_rows()
    )
    kept = [key for key in heads if key.startswith('backbone.') and 'num_' not in key]
    weights = [key for key in kept if 'running' not in key]
    assert all(torch.equal(heads[key], source[key]) for key in weights)
    assert not any(torch.equal(heads[key], source[key]) for key in set(kept) - set(weights))
    assert not torch.equal(last['backbone.conv1.weight'], heads['backbone.conv1.weight'])
    log = (study.folder('heads_first', 0) / 'console.log').read_text()
    assert f'keys from {study.checkpoint("heads", 0)}' in log
    labels = {row['label'] for row in read_manifest(study.source_data() / 'videos/manifest.jsonl')}
    assert labels == {0, 1, 2, 3}


@pytest.mark.slow
def test_random_weights_know_the_statistics_of_the_videos(tmp_path, data):
    from vito_mm.miniscenes import make_miniscenes
    from vito_mm.probes.loading import load_encoder, resnet

    make_miniscenes(data, 'tiny', progress=False)
    study = Study(REPO, tmp_path, data, PRESETS['tiny'])
    for seed, name in ((0, 'a'), (0, 'b'), (1, 'c')):
        write_random(study, seed, tmp_path / f'{name}.pth')
    a, b, c = (torch.load(tmp_path / f'{name}.pth')['state_dict'] for name in 'abc')
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a['backbone.conv1.weight'], c['backbone.conv1.weight'])
    # Activations stay of the size of one where they would double from block to block.
    frames = torch.randn(4, 3, 64, 64)
    calibrated = load_encoder(tmp_path / 'a.pth', network=resnet(18, 32)).backbone(frames)[-1]
    raw = load_encoder(None, network=resnet(18, 32)).backbone(frames)[-1]
    assert 0.3 < calibrated.std() < 3
    assert raw.std() > 2 * calibrated.std() or raw.std() < calibrated.std() / 2


@pytest.mark.slow
def test_dense_tests_of_a_row_are_those_of_the_demo(tmp_path, data):
    from projects.miniscenes_study.frozen import propagate_masks, segment_in_context
    from vito_mm.miniscenes import make_miniscenes

    make_miniscenes(data, 'tiny', progress=False)
    study = Study(REPO, tmp_path, data, replace(PRESETS['tiny'], objects=True))
    folder = study.folder('random', 0)
    folder.mkdir(parents=True)
    write_random(study, 0, folder / 'random.pth')
    found = probe(study, 'random', 0)
    assert set(found) == {'knn', 'linear', 'knn_own', 'knn_object', 'davis', 'in_context'}
    # The oracle was trained with features over the object; else it is as any other.
    study.config(ORACLE).parent.mkdir()
    row_config(study, ORACLE).dump(study.config(ORACLE))
    last = study.folder(ORACLE, 0) / 'iter_4.pth'
    last.parent.mkdir(parents=True)
    shutil.copy(folder / 'random.pth', last)
    (last.parent / 'last_checkpoint').write_text(str(last))
    assert probe(study, ORACLE, 0) == found | {'knn_own': found['knn_object']}

    networks = {'x': folder / 'random.pth'}
    masks = propagate_masks(data / 'davis', networks, tmp_path / 'a', 0)
    assert found['davis'] == pytest.approx(masks.scores[0])
    cfg = Config.fromfile(REPO / 'configs/miniscenes/seg_pascal.py')
    cfg.val_dataloader.dataset.data_root = str(data / 'voc')
    for part in cfg.train_dataloader.dataset.datasets:
        part.data_root = str(data / 'voc')
    context = segment_in_context(cfg, networks, tmp_path / 'b', 0)
    assert found['in_context'] == pytest.approx(context.scores[0])


def test_frames_lie_in_the_folder_of_their_class(tmp_path, data):
    from vito_mm.miniscenes import make_miniscenes

    make_miniscenes(data, 'tiny', progress=False)
    write_frames(data / 'videos', tmp_path / 'frames', 3)
    rows = list(read_manifest(data / 'videos' / 'manifest.jsonl'))
    expected = {
        f'{row["class_name"]}/{index:05d}_{number:02d}.png'
        for index, row in enumerate(rows)
        for number in range(3)
    }
    folder = tmp_path / 'frames'
    assert {str(file.relative_to(folder)) for file in folder.rglob('*.png')} == expected
