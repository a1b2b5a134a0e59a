"""Answers of the tools before torch is loaded, and the environment in which they load it."""

import os
import runpy
import subprocess
import sys
from argparse import SUPPRESS, Action, ArgumentParser, _SubParsersAction
from collections.abc import Iterator

import pytest
from _arguments import SHARED

from tests.conftest import REPO
from tests.helpers.processes import status_of_tool
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
    'prepare_bdd100k.py': 'folder',
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


IMPORTS = """
import sys, torch, mmcv, mmengine.runner, mmengine.evaluator
packages = lambda: {name.partition('.')[0] for name in sys.modules}
before = packages()
import vito_mm
print(*packages() - before)
print('vito_mm.probes.loading' in sys.modules)
import vito_mm.models, vito_mm.transfer
print(*packages() & {'mmpretrain', 'mmdet', 'mmseg'})
assert callable(vito_mm.load_encoder)
assert vito_mm.Encoder.__name__ == 'Encoder'
assert not hasattr(vito_mm, 'nothing')
"""


def test_importing_vito_mm_costs_no_more_than_mmengine_mmcv_and_torch():
    """Beyond what any program with MMEngine's runner imports, only small modules are loaded."""
    env = {**os.environ, 'PYTHONPATH': str(REPO), 'PYTHONWARNINGS': 'ignore'}
    done = subprocess.run(
        [sys.executable, '-c', IMPORTS], capture_output=True, text=True, env=env, check=True
    )
    imported, loading, libraries = done.stdout.split('\n')[:3]
    third_party = set(imported.split()) - set(sys.stdlib_module_names)
    assert {name for name in third_party if not name.startswith('_')} == {'vito_mm'}
    assert loading == 'False'
    assert libraries == ''


OLD = {
    'probe.py': ['knn random --data folder --image-size 64'],
    'show_attention.py': ['run.pth video.mp4 --config a.py'],
    'show_neighbours.py': ['run.pth --gallery folder --out a.png --config a.py'],
    'train.py': ['config.py --local-rank 1', 'config.py --local_rank 1'],
}
"""Earlier spellings."""
OWN_DEFAULTS = {
    ('browse_views.py', '--seed'),  # that of the config
    ('show_attention.py', '--out'),
    ('demo.py', '--work-dir'),
    ('probe.py', '--work-dir'),  # of davis and incontext
    ('probe.py', '--size'),
    ('transfer.py', '--work-dir'),
    ('transfer.py', '--cfg-options'),
    ('transfer.py', '--data'),
}
"""Options of single tools with another default than the shared one; a batch is one of its task."""
METAVARS = {'--out': {'FILE', 'PNG', 'JSON', 'PNG|MP4'}, '--data': {'PLACE', 'TASK=PLACE'}}
"""Of options that name files or folders of several kinds."""


def actions_of(parser: ArgumentParser) -> Iterator[Action]:
    """Arguments of a parser and of its sub-commands."""
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for inner in action.choices.values():
                yield from actions_of(inner)
        else:
            yield action


@pytest.mark.parametrize('tool', COMMANDS)
def test_shared_options_are_the_same_in_every_tool(tool, monkeypatch):
    for action in actions_of(parser_of(tool, monkeypatch)):
        for name in {*action.option_strings} & set(SHARED):
            if action.help == SUPPRESS:
                continue
            shared = SHARED[name]
            assert action.metavar in METAVARS.get(name, {shared.get('metavar')}), name
            if (tool, name) not in OWN_DEFAULTS and name != '--batch-size':
                assert action.default == shared.get('default'), name
            assert action.dest == name[2:].replace('-', '_') or name == '--videos'


@pytest.mark.parametrize('tool', COMMANDS)
def test_every_argument_is_explained_and_no_shared_meaning_has_another_name(tool, monkeypatch):
    """In capitals; a default stands in the help where there is one."""
    others = {'--image-size', '--output', '--num-workers', '--dir', '--folder', '--work_dir'}
    parser = parser_of(tool, monkeypatch)
    for action in actions_of(parser):
        if action.help == SUPPRESS:
            continue
        assert action.help, action
        assert not others & {*action.option_strings}
        if action.nargs != 0 and action.choices is None:
            assert action.metavar or action.option_strings, action
            assert (action.metavar or '').upper() == (action.metavar or ''), action
        shown = parser._get_formatter()._expand_help(action)
        if action.option_strings and type(action.default) in (int, float):
            assert f'(default: {action.default})' in shown


@pytest.mark.parametrize('tool', COMMANDS)
def test_help_fits_80_columns(tool, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    parsers = [parser_of(tool, monkeypatch)]
    for action in parsers[0]._actions:
        parsers += action.choices.values() if isinstance(action, _SubParsersAction) else []
    for parser in parsers:
        lines = parser.format_help().splitlines()
        assert not [line for line in lines if len(line) > 80 and not line.startswith('tools/')]


@pytest.mark.parametrize('tool', OLD)
def test_earlier_spellings_are_taken_and_not_shown(tool, monkeypatch):
    parser = parser_of(tool, monkeypatch)
    monkeypatch.undo()
    for words in OLD[tool]:
        option, value = words.split()[-2:]
        assert value in map(str, vars(parser.parse_args(words.split())).values())
        assert option not in parser.format_help()


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['show_neighbours.py', 'a.pth', '--videos', 'b', '--out', 'c.jpg'], 'must end in .png'),
        (['make_miniscenes.py', 'a', '--num-videos', '0'], 'must be 1 or more'),
        (['probe.py', 'knn', 'random', '--data', 'a', '--seed', '-1'], 'must be 0 or more'),
        (['show_attention.py', 'a.pth', 'b.mp4', '--fps', 'x'], "invalid float value: 'x'"),
    ],
)
def test_wrong_arguments_exit_with_2_and_the_usage(words, message, capsys):
    assert status_of_tool(*words) == 2
    told = capsys.readouterr().err
    assert told.startswith(f'usage: {words[0]}')
    assert message in told
