"""The report on all tests of all checkpoints: figures, columns, what is next to them, its files."""

import csv
import json
import multiprocessing
import os
import re
import shutil
import statistics

import numpy as np
import pytest
from PIL import Image

from tests.helpers.pages import Page
from tests.helpers.segmentation_world import write_world
from vito_mm.probes import davis, incontext
from vito_mm.transfer.report import evaluation
from vito_mm.transfer.report.data_identity import (
    DataIdentity,
    identify_data_sets,
    identify_place,
    identify_places,
)
from vito_mm.transfer.report.evaluation import write_evaluation
from vito_mm.transfer.report.known_tests import KNOWN, SECTIONS
from vito_mm.transfer.report.results import (
    Network,
    Result,
    ResultsError,
    put_results,
    read_results,
)
from vito_mm.transfer.tasks import TASKS
from vito_mm.utils.configs import read_config
from vito_mm.utils.file_lock import file_lock

VITO = Network('vito', 'ckpt/vito.pth', 64 * 'a', name='ResNet-50')
OTHER = Network('other', 'ckpt/other.pth', 64 * 'b', name='ResNet-50')
RANDOM = Network('random', 'random', name='ResNet-50', options=('--depth=50',))
TOY = DataIdentity('data/toy', '3 classes, 9 images', 'd1')


def result(test='knn', network=VITO, seed=0, data=TOY, tool='probe', **changes):
    metrics = dict.fromkeys(KNOWN[tool, test].metrics, 50.0) or {'clean': 50.0}
    known = dict(
        title=KNOWN[tool, test].title,
        settings={},
        metrics=metrics,
        seconds=2.0,
        command=('tools/probe.py', test, 'CHECKPOINTS', '--data', 'data/toy'),
    )
    return Result(tool, test, data=data, network=network, seed=seed, **(known | changes))


def report(folder, *results):
    """The page, the Markdown, and the lines of the CSV after some results."""
    put_results(folder, results)
    page = write_evaluation(folder)
    assert page == folder / 'evaluation.html'
    with (folder / 'evaluation.csv').open(encoding='utf-8', newline='') as file:
        lines = list(csv.DictReader(file))
    return Page(page.read_text()), (folder / 'evaluation.md').read_text(), lines


def rows_of(page):
    """Rows of all sections, a dict each by column; the test without data and settings."""
    found = []
    for table in page.tables:
        if table[0][:2] == ['test', 'metric']:
            found += [dict(zip(table[0], row, strict=True)) for row in table[1:]]
    return [row | dict(test=row['test'].partition('|')[0]) for row in found]


def missing_of(page):
    """Checkpoints that lack a test, by title and data."""
    table = next(t for t in page.tables if t[0] == ['section', 'test', 'data', 'checkpoints'])
    return {(title, data): checkpoints for _, title, data, checkpoints in table[1:]}


def test_seeds_add_up_to_mean_and_deviation(tmp_path):
    rng = np.random.default_rng(0)
    scores = {network: (40 + 10 * rng.random(3)).tolist() for network in (VITO, RANDOM)}
    results = [
        result(network=network, seed=seed, metrics={'top-1': score})
        for network, values in scores.items()
        for seed, score in enumerate(values)
    ]
    results.append(result(network=OTHER, seed=1, metrics={'top-1': 44.25, 'L2': 0.1}))
    page, markdown, lines = report(tmp_path, *results[:2])
    assert rows_of(page)[0]['vito'].endswith('n = 2')
    page, markdown, lines = report(tmp_path, *results[2:])  # a later command
    (row,) = rows_of(page)
    assert list(row)[2:] == ['random', 'vito', 'other', 'published', 'ceiling']
    for network, values in scores.items():
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        assert row[network.label] == f'{mean:.1f} ± {deviation:.1f}|n = 3'
        assert f'{mean:.1f} ± {deviation:.1f} (n = 3)' in markdown
    assert row['other'] == '44.2 †|n = 1'
    assert (row['published'], row['ceiling']) == ('-', '-')
    found = {
        (x['checkpoint'], int(x['seed'])): float(x['value'])
        for x in lines
        if x['metric'] == 'top-1'
    }
    assert found == {(r.network.label, r.seed): r.metrics['top-1'] for r in results}
    assert {x['checkpoint'] for x in lines if x['metric'] == 'L2'} == {'other'}
    # The same once more takes the place of what was there.
    page, *_ = report(tmp_path, result(network=OTHER, seed=1, metrics={'top-1': 60.0}))
    assert rows_of(page)[0]['other'] == '60.0 †|n = 1'


def test_other_data_and_other_settings_are_other_rows(tmp_path):
    other_data = DataIdentity('data/toy', '3 classes, 9 images', 'd2')
    page, *_ = report(
        tmp_path,
        result(),
        result(network=OTHER, data=other_data),
        result(network=OTHER, settings={'k': 5}),
    )
    assert [(row['vito'], row['other']) for row in rows_of(page)] == [
        ('50.0|n = 1', '-|not run'),
        ('-|not run', '50.0|n = 1'),
        ('-|not run', '50.0|n = 1'),
    ]
    assert 'data/toy, 3 classes, 9 images, k 5' in page.text


def test_a_checkpoint_is_known_by_its_content(tmp_path):
    renamed = Network('best', 'elsewhere/best.pth', VITO.sha256, name='ResNet-50')
    retrained = Network('best', 'elsewhere/best.pth', 64 * 'c', name='ResNet-50')
    target = Network('best', 'elsewhere/best.pth', VITO.sha256, 'target', 'ResNet-50')
    small = Network('random', 'random', name='ResNet-18')
    page, *_ = report(tmp_path, result(), result('linear', renamed, seed=1, time=1e12))
    assert list(rows_of(page)[0])[2:-2] == ['best']
    page, *_ = report(tmp_path, *(result(network=n) for n in (retrained, target, small, RANDOM)))
    assert list(rows_of(page)[0])[2:-2] == [
        *('random, ResNet-18', 'random, ResNet-50', 'best, aaaaaaaa', 'best, cccccccc'),
        'best, target',
    ]


@pytest.mark.parametrize(
    ('test', 'data', 'metric', 'own', 'best', 'ceiling'),
    [
        ('davis', 'DAVIS 2017', 'J mean', davis.PUBLISHED['VITO ResNet-50'][0], 67.0, None),
        ('davis', 'DAVIS 2017', 'J&F', None, None, 72.7),
        ('incontext', 'PASCAL VOC', 'mIoU', None, max(incontext.PUBLISHED.values()), None),
        ('linear-segmentation', 'ADE20K', 'mIoU', None, None, 47.0),
        ('ucf101', 'UCF101', 'top-1', 85.3, None, None),
    ],
)
def test_published_figures_are_next_to_the_same_data_and_protocol_alone(
    test, data, metric, own, best, ceiling, tmp_path
):
    public = DataIdentity(data, digest='x')
    results = dict(
        fitting=result(test, data=public),
        toy=result(test),
        changed=result(test, data=public, settings={'protocol': 'crw'}),
    )
    page, *_ = report(tmp_path / 'fitting', results['fitting'])
    row = next(row for row in rows_of(page) if row['metric'] == metric)
    for value, column in ((own, 'published'), (best, 'published'), (ceiling, 'ceiling')):
        if value is not None:
            assert f'{value:.1f}' in row[column]
    for name, reason in (('toy', 'data'), ('changed', 'settings')):
        page, *_ = report(tmp_path / name, results[name])
        rows = rows_of(page)
        assert {row['ceiling'] for row in rows} == {'-'}
        assert all(row['published'] == f'-|other {reason}' for row in rows)
        assert len(page.tables) > 8  # all that is published is at the end


def test_figures_of_the_paper_are_next_to_its_own_network(tmp_path):
    voc = DataIdentity('PASCAL VOC', digest='x')
    swin = Network('swin', 'swin.pth', 64 * 'e', name='Swin-S')
    small = Network('small', 'small.pth', 64 * 'f', name='ResNet-18')
    said = {}
    for network in (VITO, swin, small):
        one = result('pascal', network, data=voc, tool='transfer', settings={'protocol': 'paper'})
        page, *_ = report(tmp_path / network.label, one)
        said[network.label] = rows_of(page)[0]['published']
    assert ('76.3' in said['vito'], '81.3' in said['swin']) == (True, True)
    assert said['small'] == '-|other network'


def test_figures_of_other_protocols_are_next_to_their_network(tmp_path):
    ade20k = DataIdentity('ADE20K', digest='x')
    said = {}
    for name in ('upernet_ade20k', 'linear_ade20k'):
        settings = {'config': f'{name}.py'}
        one = result(name, data=ade20k, tool='transfer', settings=settings)
        page, *_ = report(tmp_path / name, one)
        said[name] = rows_of(page)[0]['published']
    # By hand: the best ResNet-50 of PooDLe's table, and no ViT-S.
    assert '43.0' in said['upernet_ade20k']
    assert '16.5' in said['linear_ade20k']
    small = Network('small', 'small.pth', 64 * 'f', name='ResNet-18')
    one = result('upernet_ade20k', small, data=ade20k, tool='transfer', settings=settings)
    page, *_ = report(tmp_path / 'small', one)
    assert rows_of(page)[0]['published'] == '-|other network'


def test_what_was_not_run_is_named_with_the_command(tmp_path):
    results = (
        result('knn', VITO),
        result('knn', RANDOM),
        result('linear', VITO),
        result('classify', VITO),
        result(
            'linear', Network('mine', 'ckpt/x.pth', 64 * 'd', 'target', 'R', ('--which', 'target'))
        ),
    )
    page, markdown, _ = report(tmp_path, *results)
    missing = missing_of(page)
    toy = 'data/toy, 3 classes, 9 images'
    assert missing['Nearest neighbours', toy] == 'mine, target'
    assert missing['Linear classifier', toy] == 'random'
    assert missing['Classifier of the file', toy] == 'mine, target'  # random weights have none
    assert missing[KNOWN['probe', 'davis'].title, '-'] == 'random, vito, mine, target'
    assert {TASKS[name].title for name in TASKS} <= {title for title, _ in missing}
    commands = markdown.split('```')[1].splitlines()
    assert 'python tools/probe.py knn mine=ckpt/x.pth --data data/toy --which target' in commands
    assert 'python tools/probe.py linear random --data data/toy --depth=50' in commands
    where = f'--evaluation {tmp_path}'
    assert any(c.startswith('python tools/probe.py davis') and where in c for c in commands)
    assert (
        f'python tools/probe.py davis random ckpt/vito.pth --data /data/DAVIS {where}' in commands
    )
    assert (
        'python tools/transfer.py --checkpoints random ckpt/vito.pth mine=ckpt/x.pth --tasks '
        f'pascal {where}'
    ) in commands


def test_a_report_has_all_sections_and_every_figure_of_tests_without_a_list(tmp_path):
    figures = {'clean': 60.0, 'mCE': 71.5, 'pm-10': float('nan')}
    page, *_ = report(tmp_path, result('robustness', metrics=figures))
    assert all(f'{name}\n' in page.text + '\n' for name in SECTIONS[:-1])
    assert [(row['metric'], row['vito']) for row in rows_of(page)] == [
        ('clean', '60.0|n = 1'),
        ('mCE', '71.5|n = 1'),
        ('pm-10', '-|not finite'),
    ]
    unknown = Result('probe', 'new', 'new', TOY, {}, VITO, 0, {'score': 1.0}, 1.0, ('new',))
    own = Result('transfer', 'cells', 'Cells', TOY, {}, VITO, 0, {'mIoU': 2.0}, 1.0, ('own',))
    page, *_ = report(tmp_path, unknown, own)
    tests = [row['test'] for row in rows_of(page)]
    assert tests == ['Cells', *['Robustness of a classifier'] * 3, 'new']


def test_all_seeds_of_a_suite_take_the_place_of_earlier_ones(tmp_path):
    first = [result('pascal', tool='transfer', seed=seed) for seed in (0, 1, 2)]
    put_results(tmp_path, [*first, result()], all_seeds=True)
    put_results(tmp_path, [result('pascal', tool='transfer', seed=7)], all_seeds=True)
    assert [(r.test, r.seed) for r in read_results(tmp_path)] == [('knn', 0), ('pascal', 7)]


def test_seeds_of_another_suite_stay(tmp_path):
    for suite, seeds in (('a', (0, 1, 2)), ('b', (3, 4)), ('a', (0, 5))):
        results = [result(seed=seed, suite=suite) for seed in seeds]
        put_results(tmp_path, results, all_seeds=True)
    found = sorted((each.suite, each.seed) for each in read_results(tmp_path))
    assert found == [('a', 0), ('a', 5), ('b', 3), ('b', 4)]


def test_what_was_found_on_the_disk_keeps_the_seconds_that_it_took(tmp_path):
    put_results(tmp_path, [result(seconds=90.0)])
    put_results(tmp_path, [result(seconds=0.1)])
    assert read_results(tmp_path)[0].seconds == 90.0
    put_results(tmp_path, [result(seconds=0.1, metrics={'top-1': 1.0})])
    assert read_results(tmp_path)[0].seconds == 0.1


def _write(folder, number):
    for seed in range(5):
        network = Network(f'n{number}', f'{number}.pth', str(number) * 64, name='ResNet-50')
        put_results(folder, [result(network=network, seed=seed)])
        write_evaluation(folder)


def test_writers_at_the_same_time_lose_nothing(tmp_path):
    fork = multiprocessing.get_context('fork')
    writers = [fork.Process(target=_write, args=(tmp_path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    with (tmp_path / 'evaluation.csv').open(newline='') as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(read_results(tmp_path)) == 20
    left = {path.name for path in tmp_path.iterdir()}
    assert left - {'evaluation.lock'} == {
        'results',
        *(f'evaluation.{ending}' for ending in ('html', 'md', 'csv')),
    }


def test_a_writer_that_does_not_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, '_WAIT', 0.05)
    error = pytest.raises(ResultsError, match=f'process {os.getpid()}')
    with file_lock(tmp_path / 'evaluation.lock', RuntimeError), error:
        write_evaluation(tmp_path)
    assert write_evaluation(tmp_path).is_file()


@pytest.mark.parametrize(
    'change',
    [
        lambda content: 'no JSON',
        lambda content: '[1]',
        lambda content: '{"format": "another"}',
        lambda content: json.dumps(content | dict(more=1)),
        lambda content: json.dumps(content | dict(metrics={'top-1': 'high'})),
        lambda content: json.dumps(content | dict(metrics=[1])),
        lambda content: json.dumps(content | dict(seed='first')),
        lambda content: json.dumps({k: v for k, v in content.items() if k != 'network'}),
    ],
)
def test_a_file_that_is_no_result_is_named(change, tmp_path):
    put_results(tmp_path, [result()])
    (file,) = (tmp_path / 'results').iterdir()
    file.write_text(change(json.loads(file.read_text())))
    with pytest.raises(ResultsError, match=f'{file.name} is no result'):
        write_evaluation(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / 'a.json').write_text('{}')
    with pytest.raises(ResultsError, match='takes a folder'):
        read_results(tmp_path / 'a.json')


def test_results_of_two_machines_are_copied_together(tmp_path):
    put_results(tmp_path / 'a', [result(seed=0)])
    put_results(tmp_path / 'b', [result(seed=1, metrics={'top-1': 52.0})])
    shutil.copytree(tmp_path / 'b', tmp_path / 'a', dirs_exist_ok=True)
    page, *_ = report(tmp_path / 'a')
    assert rows_of(page)[0]['vito'] == '51.0 ± 1.4|n = 2'


def write_images(folder, names, level=0):
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (8, 8 + level)).save(file)
    return folder


def test_data_are_known_by_their_files_and_not_by_their_place(tmp_path):
    names = [f'{part}/{kind}/{i}.png' for part in ('train', 'val') for kind in 'ab' for i in (1, 2)]
    first = identify_place(write_images(tmp_path / 'here/set', names))
    assert (first.name, first.text) == ('here/set', '2 classes, 4 images')
    assert identify_place(write_images(tmp_path / 'there/set', names)).digest == first.digest
    fewer = identify_place(write_images(tmp_path / 'fewer/set', names[1:]))
    others = identify_place(write_images(tmp_path / 'others/set', names, level=50))
    plain = identify_place(write_images(tmp_path / 'plain', ['1.png', 'x/2.png']))
    assert plain.text == '2 files'
    both = identify_places(dict(val=tmp_path / 'plain', imagenet_a=tmp_path / 'fewer/set'))
    assert both.name == f'imagenet a: fewer/set, val: {tmp_path.name}/plain'
    assert len({x.digest for x in (first, fewer, others, plain, both)}) == 5
    manifest = tmp_path / 'videos.csv'
    manifest.write_text('path,label\n')
    assert identify_place(manifest).name.endswith('videos.csv')


def test_davis_is_known_by_its_sequences(tmp_path):
    names = ['bike-packing', 'blackswan', *(f's{i}' for i in range(28))]
    listed = tmp_path / 'ImageSets/2017/val.txt'
    listed.parent.mkdir(parents=True)
    listed.write_text('\n'.join(names))
    for kind in ('Annotations', 'JPEGImages'):
        write_images(tmp_path / kind / '480p', [f'{name}/00000.png' for name in names])
    found = identify_place(tmp_path)
    assert (found.name, found.text) == ('DAVIS 2017', '30 sequences')
    for kind in ('Annotations', 'JPEGImages'):  # other masks, other frames
        write_images(tmp_path / kind / '480p', ['s3/00000.png'], level=40)
        before, found = found, identify_place(tmp_path)
        assert found.digest != before.digest
    listed.write_text('\n'.join(names[:-1]))
    assert identify_place(tmp_path).name != 'DAVIS 2017'


def test_data_of_a_config_are_known_by_class_and_images(tmp_path):
    cfg = read_config(write_world(tmp_path / 'world'))
    sets = [cfg[f'{part}_dataloader'].dataset for part in ('train', 'val')]
    found = identify_data_sets(*sets)
    assert (found.name, found.text) == (f'{tmp_path.name}/world', '4 images')
    shutil.copytree(tmp_path / 'world', tmp_path / 'copy')
    text = json.dumps([part.to_dict() for part in sets])
    moved = json.loads(text.replace(str(tmp_path / 'world'), str(tmp_path / 'copy')))
    assert identify_data_sets(*moved).digest == found.digest
    # VOC's 1,449 images of a list.
    voc = dict(moved[1], type='PascalVOCDataset', ann_file='val.txt')
    (tmp_path / 'copy/val.txt').write_text('\n'.join(map(str, range(1449))))
    assert identify_data_sets(moved[0], voc).name == 'PASCAL VOC'
    assert identify_data_sets(moved[0], dict(voc, type='BaseSegDataset')).name != 'PASCAL VOC'


def test_every_known_test_has_a_section_and_a_title_of_its_own():
    assert {test.section for test in KNOWN.values()} == {*SECTIONS[:-1]}
    assert len({test.title for test in KNOWN.values()}) == len(KNOWN)
    for (tool, name), test in KNOWN.items():
        assert re.match(rf'tools/{tool}\.py .*\b{name}\b.* CHECKPOINTS', test.command) or (
            tool == 'transfer' and test.command.endswith(f'--tasks {name}')
        )
