"""The tutorial, a notebook whose outputs are committed."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest

from tests.conftest import REPO

NOTEBOOK = REPO / 'docs' / 'tutorial.ipynb'


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [each for cell in notebook.cells for each in cell.get('outputs', ())]


def scores(notebook: nbformat.NotebookNode) -> list[float]:
    """Box mAP of the detector that starts from VITO and of the one from random weights."""
    texts = [each['data']['text/plain'] for each in outputs(notebook) if 'data' in each]
    (found,) = filter(None, (re.match(r"\{'VITO': (\S+), 'random': (\S+)\}", t) for t in texts))
    return [float(number) for number in found.groups()]


def test_the_outputs_are_of_a_run_and_name_no_place():
    notebook = nbformat.read(NOTEBOOK, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [each for each in outputs(notebook) if each.output_type == 'error']
    assert not re.search(r'/(home|root|work|tmp)/', NOTEBOOK.read_text())
    vito, random = scores(notebook)
    assert vito > random


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    """About a quarter of an hour on two cores."""
    nbclient = pytest.importorskip('nbclient')
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    monkeypatch.setenv('PATH', path)
    notebook = nbformat.read(NOTEBOOK, 4)
    place = {'metadata': {'path': str(tmp_path)}}
    nbclient.NotebookClient(
        notebook, timeout=3600, kernel_name='python3', resources=place
    ).execute()
    vito, random = scores(notebook)
    assert vito > random + 0.05
