"""Answers of the tools before torch is loaded, and the environment in which they load it."""

import os
import runpy
import subprocess
import sys
from argparse import ArgumentParser

import pytest

from tests.conftest import REPO
from vito_mm.checkpoint.export import LAYOUTS
from vito_mm.checkpoint.matching import NETWORKS
from vito_mm.curation.pipeline import BY_EMBEDDING, BY_TITLE
from vito_mm.miniscenes import PRESETS as SCENE_PRESETS
from vito_mm.miniscenes import TASKS as SCENE_TASKS
from vito_mm.transfer.tasks import PROTOCOLS, TASKS
from vito_mm.videos import VIDEO_EXTENSIONS
from vito_mm.videos.file_checks import MAX_PIXELS
from vito_mm.videos.prepare.reencoding import PRESETS, Encoding

COMMANDS = {
    'browse_views.py': 'config.py',
    'check_checkpoint.py': 'config.py',
    'curate_videonet.py': 'videos.jsonl work_dir',
    'demo.py': '',
    'export_checkpoint.py': 'in.pth out.pth',
    'make_miniscenes.py': 'folder',
    'prepare_videos.py': 'folder --out manifest.jsonl',
    'probe.py': 'knn random --data folder',
    'show_attention.py': 'run.pth video.mp4',
    'show_neighbours.py': 'run.pth --gallery folder --out picture.png',
    'test.py': 'config.py run.pth',
    'train.py': 'config.py',
    'transfer.py': '--checkpoints random',
}
"""The shortest command line that each tool takes."""

LOOK = """
import contextlib, io, os, runpy, sys

class Torch(BaseException):
    pass

class Watch:
    def find_spec(self, name, *_):
        if name == 'torch':
            raise Torch(os.environ.get('GOMP_SPINCOUNT'))

sys.meta_path.insert(0, Watch())
given = dict(os.environ)
tool, *words = sys.argv[1:]
sys.path.insert(0, os.path.dirname(tool))
for line in ['--help', '--no-such-option', ' '.join(words)]:
    sys.argv = [tool, *line.split()]
    try:
        out = io.TextIOWrapper(io.BytesIO())
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            runpy.run_path(tool, run_name='__main__')
    except SystemExit as error:
        print(error.code)
    except Torch as torch:
        print(*torch.args)
"""


def look(tool: str, **environment: str) -> list[str]:
    """Exit status with --help and with a wrong option, then the spin count at torch's import."""
    unset = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')
    env = {key: value for key, value in os.environ.items() if key not in unset}
    done = subprocess.run(
        [sys.executable, '-c', LOOK, str(REPO / 'tools' / tool), *COMMANDS[tool].split()],
        capture_output=True,
        text=True,
        env=env | {'PYTHONPATH': str(REPO), **environment},
        check=True,
    )
    return done.stdout.split()


def test_every_tool_has_its_command():
    tools = {path.name for path in (REPO / 'tools').glob('[a-z]*.py')}
    assert tools - set(COMMANDS) <= {'environment.py', 'build_mmcv.py'}


@pytest.mark.skipif(os.path.exists('/dev/nvidiactl'), reason='with a GPU nothing is set')
@pytest.mark.parametrize('tool', COMMANDS)
def test_tools_answer_without_torch_and_set_the_spin_count_before_it(tool):
    """OpenMP reads the count once, when torch is loaded: waiting threads must not spin for long."""
    assert look(tool) == ['0', '2', '10000']


@pytest.mark.skipif(os.path.exists('/dev/nvidiactl'), reason='with a GPU nothing is set')
@pytest.mark.parametrize(
    ('given', 'expected'),
    [({'GOMP_SPINCOUNT': '7'}, '7'), ({'OMP_WAIT_POLICY': 'ACTIVE'}, 'None')],
)
def test_a_given_spin_count_or_policy_stays(given, expected):
    assert look('train.py', **given)[2] == expected


def parser_of(tool: str, monkeypatch: pytest.MonkeyPatch) -> ArgumentParser:
    """The parser of a tool."""
    found = []

    def parse_args(self, *args):
        found.append(self)
        raise SystemExit

    monkeypatch.setattr(ArgumentParser, 'parse_args', parse_args)
    with pytest.raises(SystemExit):
        runpy.run_path(str(REPO / 'tools' / tool), run_name='__main__')
    return found[0]


@pytest.mark.parametrize(
    ('tool', 'choices', 'defaults'),
    [
        ('export_checkpoint.py', dict(which=NETWORKS, layout=(*LAYOUTS, 'huggingface')), {}),
        ('show_attention.py', dict(which=NETWORKS), {}),
        ('show_neighbours.py', dict(which=NETWORKS), {}),
        ('transfer.py', dict(protocol=PROTOCOLS), dict(tasks=[*TASKS])),
        ('make_miniscenes.py', dict(preset=sorted(SCENE_PRESETS), tasks=SCENE_TASKS), {}),
        (
            'curate_videonet.py',
            dict(stages=dict.fromkeys([*BY_TITLE, *BY_EMBEDDING, 'report'])),
            {},
        ),
        (
            'prepare_videos.py',
            dict(preset=PRESETS),
            dict(
                extensions=VIDEO_EXTENSIONS,
                max_pixels=MAX_PIXELS,
                short_side=Encoding.short_side,
                gop=Encoding.gop,
                crf=Encoding.crf,
                preset=Encoding.preset,
            ),
        ),
    ],
)
def test_choices_and_defaults_are_those_of_the_library(tool, choices, defaults, monkeypatch):
    """The tools repeat them, as importing the library takes seconds."""
    parser = parser_of(tool, monkeypatch)
    actions = {action.dest: action for action in parser._actions}
    assert {name: tuple(actions[name].choices) for name in choices} == {
        name: tuple(values) for name, values in choices.items()
    }
    assert {name: actions[name].default for name in defaults} == defaults


def test_stages_of_curation_are_those_of_the_library():
    tool = runpy.run_path(str(REPO / 'tools/curate_videonet.py'))
    assert (tool['BY_TITLE'], tool['BY_EMBEDDING']) == (BY_TITLE, BY_EMBEDDING)


def test_importing_vito_mm_costs_no_more_than_mmengine_mmcv_and_torch():
    """Beyond what any program with MMEngine's runner imports, only small modules are loaded."""
    code = (
        'import sys, torch, mmcv, mmengine.runner, mmengine.evaluator; '
        'packages = lambda: {name.partition(".")[0] for name in sys.modules}; before = packages(); '
        'import vito_mm; print(*packages() - before)'
    )
    env = {**os.environ, 'PYTHONPATH': str(REPO)}
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, env=env, check=True
    )
    third_party = set(done.stdout.split()) - set(sys.stdlib_module_names)
    assert {name for name in third_party if not name.startswith('_')} == {'vito_mm'}
