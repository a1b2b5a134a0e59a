"""The command line of tools/transfer.py."""

from tests.helpers.processes import status_of_tool
from vito_mm.transfer import runner
from vito_mm.transfer.options import SuiteOptions
from vito_mm.transfer.tasks import TASKS


def options_of(monkeypatch, *words: object) -> SuiteOptions:
    """Options that the command would run."""
    found = []
    monkeypatch.setattr(runner, 'run_suite', lambda options, *rest: found.append(options))
    status_of_tool('transfer.py', *words)
    return found[0]


def test_options_that_are_given_twice_add_up(monkeypatch):
    words = '-c a.pth --tasks coco --labels 1% --layer-decay 0.8 --gpus 0 --sweep lr=1'
    more = '-c b.pth c.pth --tasks lvis --labels 10% --layer-decay 0.9 --gpus 1 --sweep wd=1'
    found = options_of(monkeypatch, *words.split(), *more.split())
    assert found.checkpoints == ['a.pth', 'b.pth', 'c.pth']
    assert found.tasks == ['coco', 'lvis']
    assert found.labels == ['1%', '10%']
    assert found.layer_decay == ['0.8', '0.9']
    assert found.gpus == [0, 1]
    assert found.sweep == ['lr=1', 'wd=1']


def test_defaults_are_those_of_the_options(monkeypatch):
    found = options_of(monkeypatch, '-c', 'a.pth')
    assert (found.tasks, found.labels, found.layer_decay) == ([*TASKS], ['100%'], [])
