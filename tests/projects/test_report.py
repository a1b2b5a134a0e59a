"""Figures of the study's report, against a computation by hand."""

import json
import math

import pytest

from projects.miniscenes_study.objects import ATTENTION
from projects.miniscenes_study.presets import PRESETS
from projects.miniscenes_study.report import Difference, difference, read_scores, write_report
from projects.miniscenes_study.runs import Study, StudyError
from tests.conftest import REPO


def make_study(folder, probes: dict) -> Study:
    for row, values in probes.items():
        for seed, (knn, linear) in enumerate(values):
            place = folder / 'pretrain' / row / f'seed{seed}'
            place.mkdir(parents=True)
            (place / 'probe.json').write_text(json.dumps(dict(knn=knn, linear=linear)))
    record = dict(commands=['benchmarks/study.py'], machine='a machine', versions={}, git='abc')
    (folder / 'study.json').write_text(json.dumps(record))
    return Study(REPO, folder, folder / 'data', PRESETS['cpu'])


def test_differences_are_of_the_same_seeds():
    better, worse = {0: 60.0, 1: 63.0, 2: 66.0, 3: 99.0}, {0: 50.0, 1: 52.0, 2: 57.0, 7: 0.0}
    found = difference(better, worse)
    assert found.mean == pytest.approx((10 + 11 + 9) / 3)
    assert found.error == pytest.approx(1 / math.sqrt(3))  # deviation 1 over three seeds
    assert found.seeds == 3
    assert difference({0: 5.0, 1: 6.0}, {0: 1.0, 1: 2.0}) == (4.0, None, 2)
    assert difference({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(('seeds', 'critical'), [(3, 4.303), (4, 3.182), (5, 2.776), (10, 2.262)])
def test_verdicts_keep_to_the_tables_of_students_t(seeds, critical):
    for sign, word in ((1, 'yes'), (-1, 'reversed')):
        assert Difference(sign * (critical + 0.001), 1.0, seeds).verdict == word
        assert Difference(sign * (critical - 0.001), 1.0, seeds).verdict == 'open'
    assert Difference(4.0, None, 2).verdict == 'open'


def test_tables_tell_mean_deviation_and_what_shows(tmp_path):
    study = make_study(
        tmp_path,
        {
            'random': [(30.0, 40.0), (32.0, 41.0), (31.0, 42.0)],
            'moclr': [(50.0, 60.0), (54.0, 60.0), (52.0, 60.0)],
            'vito': [(60.0, 59.0), (63.0, 61.0), (63.0, 60.0)],
        },
    )
    page = write_report(study)
    text = (tmp_path / 'report.md').read_text()
    assert '| random weights | 31.0 ± 1.0 (n = 3) | 41.0 ± 1.0 (n = 3) |' in text
    assert '62.0 ± 1.7 (n = 3)' in text
    (line,) = [line for line in text.splitlines() if line.startswith('| vito over moclr')]
    # Gains 10, 9, 11: 10 with a standard error of 0.58. Linear: -1, 1, 0.
    assert line.endswith('| +10.0 ± 0.6 (yes) | +0.0 ± 0.6 (open) |')
    assert 'vito over attention1' not in text  # the other row was not run
    assert page.read_text().count('<img') == 1
    assert (tmp_path / 'probes.png').read_bytes()[:4] == b'\x89PNG'
    rows = (tmp_path / 'report.csv').read_text().splitlines()
    assert len(rows) == 1 + 3 * 3 * 2
    assert 'kNN,vito,1,63.0' in rows


def test_seeds_of_another_machine_count_too(tmp_path):
    attention = f'{ATTENTION}stage 5, step 100'
    for name, first, knn in (('a', 0, 50.0), ('b', 2, 53.0)):
        (tmp_path / name).mkdir()
        make_study(tmp_path / name, {})
        for seed, plus in ((first, 0.0), (first + 1, 2.0)):
            for row, better in (('average2', 0.0), ('vito', 6.0 + plus)):
                place = tmp_path / name / 'pretrain' / row / f'seed{seed}'
                place.mkdir(parents=True)
                scores = {'knn': knn + better, attention: 20.0 + knn}
                (place / 'probe.json').write_text(json.dumps(scores))
    one, two = (
        Study(REPO, tmp_path / name, tmp_path, PRESETS['attention'], seeds=2, first_seed=first)
        for name, first in (('a', 0), ('b', 2))
    )
    write_report(one)
    write_report(two, read_scores([tmp_path / 'a' / 'report.csv']))
    text = (tmp_path / 'b' / 'report.md').read_text()
    # Gains 6, 8, 6, 8: a deviation of 1.155, so 0.58 over four seeds.
    (line,) = [line for line in text.splitlines() if line.startswith('| vito over average2')]
    assert line.endswith('| +7.0 ± 0.6 (yes) |')
    assert '71.5 ± 1.7 (n = 4)' in text  # the attention
    with pytest.raises(StudyError, match='seed 0 of average2 again'):
        write_report(one, read_scores([tmp_path / 'a' / 'report.csv']))


def test_scores_of_others_are_read_or_refused_by_name(tmp_path):
    (tmp_path / 'other.csv').write_text('path,label\na.mp4,1\n')
    for name in ('other.csv', 'nowhere.csv'):
        with pytest.raises(StudyError, match=name):
            read_scores([tmp_path / name])


def test_an_empty_folder_has_no_report(tmp_path):
    study = Study(REPO, tmp_path, tmp_path, PRESETS['cpu'])
    with pytest.raises(StudyError, match='no study in'):
        write_report(study)
