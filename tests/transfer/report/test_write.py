"""Reports against numbers computed by hand, and of runs that are broken in every way."""

import base64
import csv
import json
import re
import statistics
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.pages import Page
from vito_mm.transfer.report.published import PUBLISHED
from vito_mm.transfer.report.write import write_report
from vito_mm.transfer.run import Outcome, Run
from vito_mm.transfer.tasks import TASKS, Task

COMMAND = 'python tools/transfer.py --checkpoint vito=a.pth'
MORE = f'{COMMAND} moclr=b.pth'
NOWHERE = Path('/nowhere/at/all')


def outcome(task='pascal', label='vito', seed=0, score=None, state='finished', lr=None, **kwargs):
    work_dir = kwargs.pop('work_dir', NOWHERE)
    settings = () if lr is None else (('lr', lr),)
    run = Run(TASKS.get(task, task), label, None, settings, seed, work_dir)
    return Outcome(run, state, score, **kwargs)


def report(outcomes, folder, protocol='miniscenes', architecture='r50'):
    """Page, Markdown and lines of the CSV."""
    page = write_report(outcomes, folder, protocol, [COMMAND, MORE], architecture)
    assert page == folder / 'report.html'
    assert sorted(p.name for p in folder.iterdir()) == ['report.csv', 'report.html', 'report.md']
    with (folder / 'report.csv').open(encoding='utf-8', newline='') as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(outcomes)
    markdown = (folder / 'report.md').read_text(encoding='utf-8')
    return Page(page.read_text(encoding='utf-8')), markdown, lines


def test_numbers_are_those_of_a_computation_by_hand(tmp_path):
    rng = np.random.default_rng(0)
    scores = {
        (task, label, lr): (50 + 10 * rng.random(3)).tolist()
        for task in ('pascal', 'coco')
        for label in ('vito', 'random')
        for lr in (0.01, 0.02, 0.04)
    }
    outcomes = [
        outcome(task, label, seed, score, lr=lr, seconds=10.0, metrics={'aAcc': 1.0 + seed})
        for (task, label, lr), values in scores.items()
        for seed, score in enumerate(values)
    ]
    page, markdown, lines = report(outcomes, tmp_path)

    best = {
        (task, label): max(
            (values for key, values in scores.items() if key[:2] == (task, label)),
            key=statistics.mean,
        )
        for task, label, _ in scores
    }
    expected = {}
    for label in ('random', 'vito'):
        expected[label] = []
        for task in ('pascal', 'coco'):
            values = best[task, label]
            text = f'{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}'
            gain = statistics.mean(values) - statistics.mean(best[task, 'random'])
            expected[label].append((text, 'n = 3' + (f', {gain:+.1f}' if label == 'vito' else '')))
    summary = page.tables[0]
    assert summary[0] == ['checkpoint', 'PASCAL VOC, mIoU', 'COCO, box mAP']
    for row, (label, cells) in zip(summary[1:], expected.items(), strict=True):
        assert row == [label, *(f'{text}|{note}' for text, note in cells)]
        line = ' | '.join([label, *(f'{text} ({note})' for text, note in cells)])
        assert f'| {line} |' in markdown

    for task, table in zip(('pascal', 'coco'), page.tables[1:3], strict=True):
        assert table[0][:6] == ['checkpoint', 'lr', 'mean', 'deviation', 'n', 'single runs']
        for label, lr, *rest, remark in table[1:]:
            values = scores[task, label, float(lr)]
            assert rest == [
                f'{statistics.mean(values):.1f}',
                f'{statistics.stdev(values):.1f}',
                *('3', ', '.join(f'{value:.1f}' for value in values)),
            ]
            assert ('best' in remark) == (values == best[task, label])

    for line, source in zip(lines, outcomes, strict=True):
        assert float(line['score']) == source.score
        assert (line['task'], line['checkpoint']) == (source.run.task.name, source.run.label)
        assert float(line['lr']) == source.run.settings[0][1]
        assert (line['state'], line['seed']) == ('finished', str(source.run.seed))
        assert float(line['aAcc']) == 1.0 + source.run.seed


def test_best_of_a_tie_is_the_first_and_an_edge_asks_for_a_wider_sweep(tmp_path):
    scores = {0.1: 30.0, 0.02: 30.0, 0.004: 20.0}
    _, markdown, _ = report([outcome(score=s, lr=lr) for lr, s in scores.items()], tmp_path)
    assert '| **vito** | **0.02** | **30.0** |' in markdown
    assert '| vito | 0.1 | 30.0 |' in markdown
    assert 'iden the sweep' not in markdown
    scores[0.02] = 29.0
    _, markdown, _ = report([outcome(score=s, lr=lr) for lr, s in scores.items()], tmp_path)
    assert '| **vito** | **0.1** | **30.0** |' in markdown
    assert 'vito: widen the sweep, lr 0.1 is the highest that was tried.' in markdown
    assert 'lies at its edge: PASCAL VOC: vito' in markdown
    # A failed point beyond the best belongs to the sweep.
    outcomes = [outcome(score=s, lr=lr) for lr, s in scores.items()]
    outcomes.append(outcome(lr=1.0, state='failed', message='loss is nan'))
    assert 'iden the sweep' not in report(outcomes, tmp_path)[1]


def test_the_best_point_has_all_seeds_where_one_has(tmp_path):
    outcomes = [outcome(seed=i, score=20.0, lr=0.1) for i in range(2)]
    outcomes.append(outcome(seed=0, score=30.0, lr=0.2))
    outcomes.append(outcome(seed=1, state='failed', lr=0.2))
    page, *_ = report(outcomes, tmp_path)
    assert page.tables[0][1] == ['vito', '20.0 ± 0.0|n = 2']
    page, *_ = report(outcomes[2:], tmp_path)
    assert page.tables[0][1] == ['vito', '30.0 ‡|n = 1']


@pytest.mark.parametrize(
    ('outcomes', 'cells'),
    [
        ([outcome(score=31.26)], ['31.3|n = 1']),
        ([outcome(seed=i, score=31.25 + 0.02 * i) for i in range(3)], ['31.27 ± 0.02|n = 3']),
        # Without random weights there is no gain.
        ([outcome(score=31.0), outcome(label='b', score=32.0)], ['31.0|n = 1', '32.0|n = 1']),
    ],
)
def test_means_deviations_and_gains_are_shown_where_they_are_known(outcomes, cells, tmp_path):
    page, markdown, _ = report(outcomes, tmp_path)
    assert [row[1] for row in page.tables[0][1:]] == cells
    assert 'random' not in page.text
    assert markdown.count(' ± ') == 1 + any('±' in cell for cell in cells)


def test_failed_and_missing_runs_are_marked_and_listed(tmp_path):
    outcomes = [
        outcome(seed=0, score=30.0),
        outcome(seed=1, state='failed', seconds=12, message='x\n' * 50 + 'out of <memory> ```'),
        outcome(seed=2, state='waiting'),
        *(outcome(label='random', seed=seed, score=20.0 + seed) for seed in range(3)),
        outcome(label='gone', state='failed', message='no such file'),
        outcome(label='odd', score=float('nan')),
        outcome('coco', 'random', score=10.0),
    ]
    page, markdown, lines = report(outcomes, tmp_path)
    cells = {row[0]: row[1:] for row in page.tables[0][1:]}
    assert cells['vito'] == ['30.0 †‡|n = 1, +9.0', '-|no run']
    assert cells['random'] == ['21.0 ± 1.0|n = 3', '10.0|n = 1']
    assert cells['gone'] == ['-|0 of 1 run finished', '-|no run']
    assert cells['odd'][0] == '-|0 of 1 run finished'
    assert '† fewer runs; ‡ 1 failed; ‡ 1 waiting' in markdown
    assert 'PASCAL VOC, vito, seed 1: failed after 12 s.' in markdown
    assert '````text\n...\nx\n' in markdown
    assert 'out of <memory> ```\n````' in markdown
    assert '- PASCAL VOC, vito, seed 2' in markdown
    assert 'PASCAL VOC, odd, seed 0: finished without a score' in markdown
    assert lines[1]['message'].count('\n') == 50
    assert (lines[2]['state'], lines[2]['score']) == ('waiting', '')


def test_nothing_in_a_label_or_message_is_markup(tmp_path):
    label = 'a|b <script>alert(1)</script> & "x" *y* `z` $w$ _v_'
    outcomes = [
        outcome(label=label, score=30.0, lr=0.1),
        outcome(label='half \ud800', state='failed', message='</pre><img src=x> \x00'),
    ]
    page, markdown, lines = report(outcomes, tmp_path)
    assert page.tables[0][1] == [label, '30.0|n = 1']
    assert not {tag for tag, *_ in page.attributes} & {'script', 'img', 'a', 'link', 'iframe'}
    assert r'a\|b \<script\>alert(1)\</script\> \& "x" \*y\* \`z\` \$w\$ \_v\_' in markdown
    assert lines[0]['checkpoint'] == label


def test_conditions_and_durations(tmp_path):
    outcomes = [outcome(seed=i, score=1.0, seconds=3600.0 * (i + 1)) for i in range(3)]
    message = f'{Path.cwd()}/configs/x.py and {Path.home()}/y'
    outcomes.append(outcome(seed=3, state='failed', message=message))
    page, markdown, lines = report(outcomes, tmp_path)
    assert f'{COMMAND}\n{MORE}' in page.text
    assert f'{COMMAND}\n{MORE}\n' in markdown
    for word in ('torch 2', 'mmengine 0', 'Python 3', 'Git revision', 'logical cores'):
        assert word in page.text
        assert word in markdown
    assert ['PASCAL VOC', '3 of 4', '2 h 00 min', '6 h 00 min'] in page.tables[-1]
    assert lines[3]['message'] == 'configs/x.py and ~/y'
    for text in (page.text, markdown):
        assert str(Path.cwd()) not in text
        assert str(NOWHERE) not in text


def conditions_of(markdown: str) -> dict[str, str]:
    """Facts of the last section, by what they are of."""
    lines = markdown.split('## Conditions')[1].splitlines()
    return dict(line[2:].split(': ', 1) for line in lines if line.startswith('- '))


def test_conditions_are_those_of_the_runs(tmp_path):
    old, new = (
        dict(machine=f'Linux, 4 x {gpu}', versions=dict(Python='3.11', torch='2.0'), git='abc')
        for gpu in ('A100', 'H100')
    )
    runs = [outcome(seed=seed, score=1.0, conditions=old) for seed in range(5)]
    waiting = outcome(seed=9, state='waiting')
    found = conditions_of(report([*runs, waiting], tmp_path)[1])
    assert found == {
        'Protocol': 'miniscenes',
        'Machine': 'Linux, 4 x A100',
        'Versions': 'Python 3.11, torch 2.0',
        'Git revision of vito_mm': 'abc',
    }

    # Only what differs is told apart; a run of an older suite has not noted its machine.
    runs.append(outcome('coco', state='failed', conditions=new))
    runs.append(outcome('lvis', score=1.0, conditions=dict(versions=old['versions'])))
    found = conditions_of(report([*runs, waiting], tmp_path)[1])
    first = '; '.join(f'PASCAL VOC, vito, seed {seed}' for seed in range(3))
    assert found[f'Machine of 5 runs ({first} and 2 more)'] == 'Linux, 4 x A100'
    assert found['Machine of 1 run (COCO, vito, seed 0)'] == 'Linux, 4 x H100'
    unknown = found['Machine of 1 run (LVIS, vito, seed 0)']
    assert unknown.startswith('not recorded; when this report was written: ')
    assert 'logical cores' in unknown
    assert found['Versions'] == 'Python 3.11, torch 2.0'
    assert any(key.endswith('of 6 runs (' + first + ' and 3 more)') for key in found)


def test_without_runs_there_is_a_report_with_the_gpus_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'Some GPU')
    text = report([], tmp_path)[0].text
    assert 'logical cores, 4 x Some GPU' in text
    assert 'Transfer to 0 tasks' in text


def test_names_of_settings_and_metrics_do_not_hide_columns(tmp_path):
    run = Run(TASKS['coco'], 'vito', None, (('seed', 7), ('lr', 'low')), 1, NOWHERE)
    result = Outcome(run, 'finished', 12.5, {'score': 1.0, 'lr': 2.0, 'coco/bbox_mAP': 0.125})
    _, _, (line,) = report([result], tmp_path)
    expected = dict(seed='1', score='12.5', lr='low') | {'sweep.seed': '7', 'metric.score': '1.0'}
    assert expected | {'metric.lr': '2.0', 'coco/bbox_mAP': '0.125'} == {
        key: line[key] for key in [*expected, 'metric.lr', 'coco/bbox_mAP']
    }


def test_published_rows():
    rows = [(row.method, row.data, row.epochs, *row.scores.values()) for row in PUBLISHED['r50']]
    assert len(rows) == 15
    known = (row for found in PUBLISHED.values() for row in found)
    assert all(tuple(row.scores) == ('pascal', 'ade20k', 'coco', 'lvis') for row in known)
    assert rows[0] == ('random init', '', None, 53.0, 27.9, 39.0, 21.1)
    assert rows[9] == ('VITO', 'VideoNet', 200, 75.5, 39.2, 43.6, 25.6)
    assert [tuple(row.scores.values()) for row in PUBLISHED['swin_s']] == [
        *((81.3, 46.1, 49.8, 33.5), (78.6, 43.7, 48.4, 32.7), (81.4, 46.1, 50.4, 33.1))
    ]
    assert rows[13] == ('DINO', 'ImageNet', 300, 76.1, 39.0, 44.3, 26.4)


def test_published_rows_stand_apart_and_only_where_they_tell_something(tmp_path):
    outcomes = [outcome(score=70.0), outcome('lvis', score=20.0)]
    page, markdown, lines = report(outcomes, tmp_path / 'paper', 'paper')
    assert page.tables[0][1:] == [['vito', '70.0|n = 1', '20.0|n = 1']]
    assert page.tables[1][0] == ['method', 'data', 'epochs', 'PASCAL VOC, mIoU', 'LVIS, box mAP']
    assert page.tables[1][-1] == ['VITO', 'VideoNet', '300', '76.3', '25.7']
    assert 'arXiv:2210.06433' in markdown
    assert 'None of these numbers was measured here' in page.text
    assert len(lines) == 2
    page, markdown, _ = report(outcomes, tmp_path / 'swin', 'paper', 'swin_s')
    assert page.tables[1][1:] == [
        ['VITO', 'VideoNet', '-', '81.3', '33.5'],
        ['MoCLR', 'ImageNet', '-', '78.6', '32.7'],
        ['DetCon', 'ImageNet', '-', '81.4', '33.1'],
    ]
    assert 'ResNet' not in markdown
    _, markdown, _ = report(outcomes, tmp_path / 'stock', 'stock')
    assert 'Not comparable with the runs above' in markdown
    _, markdown, _ = report(outcomes, tmp_path / 'miniscenes')
    assert '76.3' not in markdown


OWN = Task('cells', 'cells', 'mmdet', 'coco/bbox_mAP', 'box mAP', 100.0, 'c.py', ('coco/segm_mAP',))


def test_tasks_of_users_and_parts_of_the_labels(tmp_path):
    """Columns for complete labels, a table by the part; each part has its own best and gain."""
    rng = np.random.default_rng(0)
    tasks = dict.fromkeys((1.0, 10.0, 100.0))
    scores = {
        (part, label, lr, seed): 50 * rng.random()
        for part in tasks
        for label in ('random', 'vito')
        for lr in (0.1, 0.2)
        for seed in range(3)
    }
    outcomes = [
        outcome(OWN.variant(part), label, seed, score, lr=lr, metrics={'coco/segm_mAP': seed / 10})
        for (part, label, lr, seed), score in scores.items()
    ]
    outcomes.append(outcome('lvis', score=20.0))
    page, markdown, lines = report(outcomes, tmp_path, 'paper')

    def best(part, label):
        found = [[scores[part, label, lr, seed] for seed in range(3)] for lr in (0.1, 0.2)]
        return max(found, key=statistics.mean)

    def cell(part, label):
        values = best(part, label)
        text = f'{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}|n = 3'
        gain = statistics.mean(values) - statistics.mean(best(part, 'random'))
        return text + (f', {gain:+.1f}' if label == 'vito' else '')

    assert page.tables[0][0] == ['checkpoint', 'LVIS, box mAP', 'cells, box mAP']
    assert page.tables[0][2] == ['vito', '20.0|n = 1', cell(100.0, 'vito')]
    assert page.tables[1] == [
        ['checkpoint', '1 %', '10 %', '100 %'],
        *([label, *(cell(part, label) for part in tasks)] for label in ('random', 'vito')),
    ]
    assert page.tables[2][0] == ['method', 'data', 'epochs', 'LVIS, box mAP']  # the paper's alone
    section = page.tables[-2]
    assert section[0][-2:] == ['coco/segm_mAP', 'remark']
    assert {row[-2] for row in section[1:]} == {'10.0'}  # the mean of 0, 10 and 20 %
    assert [value for _, name, value in page.attributes if name == 'alt'] == [
        'cells by the part of the labels. Thin: single seeds, bold: their mean.'
    ]
    assert {line['task'] for line in lines} == {'lvis', 'cells', 'cells@1%', 'cells@10%'}
    assert markdown.startswith('# Transfer to 2 tasks, protocol paper')
    assert report(outcomes[:-1], tmp_path / 'own', 'paper')[1].startswith('# Transfer to 1 task\n')


def write_log(folder, losses, metric, values):
    """A log of two evaluations in one work dir."""
    lines = [dict(loss=loss, step=step + 1) for step, loss in enumerate(losses)]
    half = len(lines) // 2
    lines.insert(half, {metric: values[0], 'step': half})
    lines.append({metric: values[1], 'step': len(losses)})
    file = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def test_page_shows_curves_and_predictions_and_refers_to_nothing(segmenter, detector, tmp_path):
    write_log(segmenter[0], [3.0, 2.0, 1.0, 0.5], 'mIoU', (10.0, 20.0))
    write_log(detector[0], [3.0, 2.0, 1.0, 0.5], 'coco/bbox_mAP', (0.1, 0.2))
    removed = tmp_path / 'removed'
    write_log(removed, [3.0, 2.0], 'mIoU', (1.0, 2.0))
    torn = tmp_path / 'torn'
    torn.mkdir()
    (torn / 'iter_2.pth').write_bytes(b'no checkpoint')
    (torn / 'last_checkpoint').write_text(str(torn / 'iter_2.pth'))
    (torn / 'config.py').write_text((segmenter[0] / 'seg_pascal.py').read_text())
    write_log(tmp_path / 'short', [], 'mIoU', (1.0, 2.0))
    outcomes = [
        outcome('pascal', 'short', 0, 20.0, work_dir=tmp_path / 'short'),
        outcome('pascal', 'random', 0, 20.0, work_dir=segmenter[0]),
        outcome('pascal', 'random', 1, 21.0, work_dir=segmenter[0]),
        outcome('pascal', 'removed', 3, 20.0, work_dir=removed),
        outcome('pascal', 'torn', 0, 20.0, work_dir=torn),
        outcome('coco', 'random', 0, 20.0, work_dir=detector[0]),
    ]
    page, markdown, _ = report(outcomes, tmp_path / 'report')
    pictures = [value for tag, name, value in page.attributes if name == 'src']
    assert len(pictures) == 4  # curves and predictions of two tasks
    for picture in pictures:
        kind, content = picture.split(',', 1)
        assert kind == 'data:image/png;base64'
        content = np.frombuffer(base64.b64decode(content, validate=True), np.uint8)
        assert cv2.imdecode(content, cv2.IMREAD_COLOR) is not None
    text = (tmp_path / 'report' / 'report.html').read_text()
    text = re.sub(r'data:image/png;base64,[^"]*', '', text)
    assert not re.search(r'(?i)https?:|//[a-z]|<link|<script|@import|url\(|srcset', text)
    captions = [value for _, name, value in page.attributes if name == 'alt']
    assert 'box mAP of each evaluation' in captions[2]
    assert 'thin: single seeds, bold: their mean' in captions[0]
    assert '(seed 0)' in captions[1]
    for where in (page.text, markdown):
        assert 'predictions of removed, seed 3: its folder holds no checkpoint (any more)' in where
        assert 'Not shown: predictions of torn, seed 0: UnpicklingError' in where
        assert 'curve of torn, seed 0: its log is not there' in where
        assert 'curve of short, seed 0: it ended before its loss was logged' in where


def test_a_data_set_that_is_gone_is_named(segmenter, tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    text = (segmenter[0] / 'seg_pascal.py').read_text()
    (folder / 'seg_pascal.py').write_text(re.sub(r"data_root='[^']*'", "data_root='gone'", text))
    (folder / 'iter_2.pth').symlink_to(segmenter[0] / 'iter_2.pth')
    (folder / 'last_checkpoint').write_text('iter_2.pth')
    _, markdown, _ = report([outcome(score=1.0, work_dir=folder)], tmp_path / 'report')
    (line,) = (line for line in markdown.splitlines() if 'Not shown: no predictions: ' in line)
    assert 'gone/ImageSets' in line
