"""Probes and transfer suites fill one report, by the commands that users type."""

import csv
import json
import re
import shlex
import statistics
from argparse import _SubParsersAction
from types import SimpleNamespace

import pytest
import torch

from tests.docs.parsing import check_command
from tests.helpers.image_folders import write_classes
from tests.helpers.pages import Page
from tests.helpers.processes import run_tool
from tests.helpers.segmentation_world import write_world
from tests.tools.test_start_up import parser_of
from vito_mm.probes.loading import load_encoder, resnet
from vito_mm.transfer.options import SuiteOptions
from vito_mm.transfer.report.known_tests import KNOWN
from vito_mm.transfer.run import Outcome, Run
from vito_mm.transfer.tasks import TASKS
from vito_mm.utils.atomic import write_json
from vito_mm.utils.hashing import sha256_of_file

SCORES = {'random': (20.0, 21.0), 'tv': (30.5, 33.0)}
"""Of the suite, by seed."""


def write_suite(folder, checkpoint):
    """Leave what a suite leaves that has finished, without its checkpoints, configs and data."""
    options = SuiteOptions(folder, [], work_dir=folder, protocol='miniscenes')
    runs = []
    for label, scores in SCORES.items():
        for seed, score in enumerate(scores):
            place = folder / f'runs/pascal/{label}/default/seed{seed}'
            place.mkdir(parents=True)
            run = Run(TASKS['pascal'], label, None, (), seed, place)
            if label != 'random':
                run.checkpoint, run.checkpoint_sha256 = checkpoint, sha256_of_file(checkpoint)
            (place / 'config.py').write_text(
                "model = dict(backbone=dict(type='VITOResNet', depth=18, base_channels=16))\n"
                'train_dataloader = val_dataloader = dict(dataset=dict(data_root="nowhere"))\n'
            )
            run.note_start(options, ['tools/train.py', '--cfg-options', f'randomness.seed={seed}'])
            data = dict(name='nowhere', text='', digest='')
            outcome = Outcome(run, 'finished', score, {'mIoU': score}, 60.0, data=data)
            run.note_end(outcome, ['train'])
            runs.append(dict(folder=str(place.relative_to(folder)), **run.record()))
    content = dict(protocol='miniscenes', architecture='r50', commands=['one'], runs=runs)
    write_json(folder / 'suite.json', content)


@pytest.fixture(scope='module')
def filled(tmp_path_factory):
    """Two checkpoints, one of them in torchvision's layout, in three probes and a suite."""
    root = tmp_path_factory.mktemp('evaluation')
    images = write_classes(root / 'images', ['dark', 'grey', 'light'])
    config = write_world(root / 'world')
    file = root / 'thin.pth'
    torch.save(load_encoder(None, network=resnet(18, 16), seed=1).backbone.state_dict(), file)
    write_suite(root / 'suite', file)
    weights = ('random', f'tv={file}')
    report = ('--evaluation', root / 'report')
    knn = ('knn', *weights, '--data', images, '--size', 32, '--k', 3, *report)
    incontext = (*weights, '--config', config, '--size', 48, '--seeds', 2, *report)
    incontext += ('--memory', 40, '--neighbours', 3, '--work-dir', root / 'incontext')
    commands = {
        'knn 0': ('probe.py', *knn),
        'knn 1': ('probe.py', *knn, '--seed', 1),
        'linear': ('probe.py', 'linear', file, *knn[3:7], *report),
        'incontext': ('probe.py', 'incontext', *incontext),
    }
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, words in commands.items():
            out = root / f'{name}.json'
            place = ('--work-dir', root / name) if name != 'incontext' else ()
            run_tool(patch, *words, '--workers', 0, '--out', out, *place)
            found[name] = {x['checkpoint']: x for x in json.loads(out.read_text())['results']}
        words = ('--report-only', '--work-dir', root / 'suite', *report)
        with pytest.raises(SystemExit) as end:
            run_tool(patch, 'transfer.py', *words)
        assert not end.value.code
    return SimpleNamespace(root=root, file=file, folder=root / 'report', found=found, knn=knn)


def rows_of(folder):
    """Rows of the report by title and metric, a dict each by column."""
    tables = Page((folder / 'evaluation.html').read_text()).tables
    found = [
        dict(zip(table[0], row, strict=True))
        for table in tables
        if table[0][:2] == ['test', 'metric']
        for row in table[1:]
    ]
    return {(row['test'].partition('|')[0], row['metric']): row for row in found}


def test_figures_of_all_commands_are_in_one_report(filled):
    rows, found = rows_of(filled.folder), filled.found
    for label in ('random', 'tv'):
        known = [found[f'knn {seed}'][label]['top-1'] for seed in (0, 1)]
        expected = f'{statistics.mean(known):.1f} ± {statistics.stdev(known):.1f}|n = 2'
        assert rows['Nearest neighbours', 'top-1'][label] == expected
        row = found['incontext'][label]
        cell = rows['In-context segmentation', 'mIoU'][label]
        assert float(cell.split()[0]) == pytest.approx(row['mIoU'], abs=0.051)
        assert float(cell.split()[2].split('|')[0]) == pytest.approx(row['deviation'], abs=0.051)
        assert cell.endswith('n = 2')
        mean, deviation = statistics.mean(SCORES[label]), statistics.stdev(SCORES[label])
        assert rows['PASCAL VOC', 'mIoU'][label] == f'{mean:.1f} ± {deviation:.1f}|n = 2'
    # One column for a file, whatever the command and the label.
    assert list(rows['PASCAL VOC', 'mIoU'])[2:] == ['random', 'tv', 'published', 'ceiling']
    assert rows['Linear classifier', 'top-1']['random'] == '-|not run'
    known = found['linear'][str(filled.file)]['top-1']
    assert rows['Linear classifier', 'top-1']['tv'] == f'{known:.1f}|n = 1'
    assert {row['published'] for row in rows.values()} == {'-', '-|other data'}
    page = (filled.folder / 'evaluation.html').read_text()
    assert page.count('ResNet-18, width 16') >= 2
    assert sha256_of_file(filled.file)[:16] in page


def test_the_table_of_a_command_has_the_label_and_the_file_every_digit(filled):
    assert set(filled.found['knn 0']) == {'random', 'tv'}
    with (filled.folder / 'evaluation.csv').open(newline='') as file:
        lines = list(csv.DictReader(file))
    values = {
        (x['test'], x['checkpoint'], int(x['seed'])): float(x['value'])
        for x in lines
        if x['metric'] in ('top-1', 'mIoU')
    }
    assert len(values) == 4 + 1 + 4 + 4
    for seed in (0, 1):
        assert values['knn', 'tv', seed] == filled.found[f'knn {seed}']['tv']['top-1']
        assert values['pascal', 'tv', seed] == SCORES['tv'][seed]
    assert all(float(x['seconds']) > 0 and x['machine'] for x in lines if x['test'] != 'pascal')


def probes() -> dict:
    """Parsers of the sub-commands of probe.py."""
    with pytest.MonkeyPatch.context() as patch:
        parser = parser_of('probe.py', patch)
    (action,) = (x for x in parser._actions if isinstance(x, _SubParsersAction))
    return action.choices


def test_commands_for_what_is_missing_would_run(filled):
    markdown = (filled.folder / 'evaluation.md').read_text()
    block = markdown.split('## What was not run')[1].split('```')[1]
    commands = [shlex.split(line) for line in block.splitlines()[1:]]
    known = probes()
    commands = [words for words in commands if words[1] != 'tools/probe.py' or words[2] in known]
    assert len(commands) > 5
    for words in commands:
        check_command(words)
    (linear,) = (words for words in commands if words[2] == 'linear')
    assert linear[3:6] == ['random', '--data', str(filled.root / 'images')]
    assert {'--size', '--evaluation', '--depth=18', '--base-channels=16'} <= set(linear)
    assert '--out' not in linear
    assert 'davis' in {words[2] for words in commands}


def test_every_probe_has_its_place_in_the_report():
    known = probes()
    assert set(known) <= {name for tool, name in KNOWN if tool == 'probe'}
    assert all('--evaluation' in parser._option_string_actions for parser in known.values())


def test_what_is_wrong_is_said_before_anything_runs(filled, tmp_path, monkeypatch):
    folder = tmp_path / 'report/results'
    folder.mkdir(parents=True)
    (folder / 'a.json').write_text('{}')
    words = [*filled.knn[:-1], tmp_path / 'report', '--out', tmp_path / 'out.json']
    with pytest.raises(SystemExit, match=r'probe\.py knn: .*a\.json is no result'):
        run_tool(monkeypatch, 'probe.py', *words)
    assert not (tmp_path / 'out.json').exists()
    words = ('-c', 'random', '--work-dir', tmp_path / 'suite', '--evaluation', tmp_path / 'report')
    with pytest.raises(SystemExit) as end:
        run_tool(monkeypatch, 'transfer.py', *words)
    assert end.value.code == 2
    assert not (tmp_path / 'suite').exists()
    words = ['knn', f'a={filled.file}', f'b={filled.file}', *filled.knn[3:-1], tmp_path / 'new']
    with pytest.raises(SystemExit, match='comes twice'):
        run_tool(monkeypatch, 'probe.py', *words)


def test_no_table_of_a_probe_tells_what_is_for_the_report(filled):
    for rows in filled.found.values():
        for row in rows.values():
            assert not [key for key in row if re.search('report', key)]
