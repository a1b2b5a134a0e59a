#!/usr/bin/env python
"""Build environments that users have, run the test suite in each, and print a row for each.

    tests/environments/run.py [torch21 mmcv22 newest onedl] [--folder FOLDER]

Each NAME.txt here pins an environment; its first comment names the Python and the mmcv to build. A
clone of the checkout is installed and tested in it. Takes a quarter of an hour per environment on
two cores, and 8 GB of disk. `python3.10` to `python3.13` must be found, on the path or in pyenv.

    tests/environments/run.py --install

makes an environment as an mmdet user of torch 2.1 has it, installs a wheel of vito_mm with extras
by pip, and prints what that has added and whether it has changed anything.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
VERSIONS = ('torch', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'av', 'cv2')
BOUNDS = dict(mmdet='mmcv_maximum_version', mmseg='MMCV_MAX')
"""Names by which these packages refuse mmcv 2.2."""
FIGURES = """
import sys
from mmengine.config import Config
from vito_mm.launch import build_runner
cfg = Config.fromfile('configs/miniscenes/pretrain_r18.py')
data, cfg.work_dir = sys.argv[1:]
cfg.train_dataloader.update(batch_size=8, num_workers=1)
cfg.train_dataloader.dataset.update(data_root=data, ann_file='')
cfg.train_cfg.max_iters = 3
cfg.default_hooks.logger.interval = 1
cfg.launcher = 'none'
runner = build_runner(cfg)
runner.train()
losses = runner.message_hub.log_scalars['train/loss'].data[0]
print('losses', *(f'{float(loss):.4f}' for loss in losses))
"""


def run(*command: object, **options: object) -> subprocess.CompletedProcess:
    """Run a command, with its output on the screen unless it is to be captured."""
    words = [str(word) for word in command]
    print('$', ' '.join(words), file=sys.stderr, flush=True)
    return subprocess.run(words, text=True, **options)


def find_python(version: str) -> str:
    """An interpreter of a version, that runs."""
    pyenv = Path(os.environ.get('PYENV_ROOT', Path.home() / '.pyenv'), 'versions')
    candidates = [shutil.which(f'python{version}'), *pyenv.glob(f'{version}.*/bin/python')]
    for candidate in filter(None, candidates):
        done = run(candidate, '--version', capture_output=True)
        if f'Python {version}.' in done.stdout:
            return str(candidate)
    raise SystemExit(f'there is no Python {version}')


def make_venv(name: str, folder: Path, *wanted: object) -> tuple[Path, list[object]]:
    """Install pinned packages and mmcv.

    Args:
        name: Of the environment.
        folder: Where it lies, in ``venv``, with a clone of the checkout in ``clone``.
        *wanted: Packages, with what they need; by default all that are pinned.

    Returns:
        tuple: The interpreter, and the command that installs without dependencies.
    """
    pins = HERE / f'{name}.txt'
    head = (HERE / f'{name}.in').read_text()
    version, mmcv = re.match(r'# Python (\S+), (\S+):', head).groups()
    uv = shutil.which('uv') or Path(sys.executable).with_name('uv')
    venv, clone = folder / 'venv', folder / 'clone'
    python = venv / 'bin' / 'python'
    if not python.exists():
        run(uv, 'venv', '-q', '-p', find_python(version), venv, check=True)
    install = [uv, 'pip', 'install', '-q', '--compile-bytecode', '-p', venv]
    run(*install, *(('-c', pins, *wanted) if wanted else ('--no-deps', '-r', pins)), check=True)
    shutil.rmtree(clone, ignore_errors=True)
    run('git', 'clone', '-q', REPO, clone, check=True)
    run(python, clone / 'tools' / 'build_mmcv.py', mmcv, check=True, cwd=folder)
    return python, [*install, '--no-deps']


def install_wheel(folder: Path) -> None:
    """Install a wheel with extras into a torch 2.1 environment and print what that changes."""
    packages = ['torch', 'torchvision', 'numpy', 'opencv-python', 'setuptools', 'wheel', 'pip']
    packages += ['mmengine', 'mmdet', 'mmsegmentation', 'mmpretrain']
    python, _ = make_venv('torch21', folder, *packages)

    def installed() -> dict[str, str]:
        done = run(python, '-m', 'pip', 'list', '--format=json', capture_output=True, check=True)
        return {each['name']: each['version'] for each in json.loads(done.stdout)}

    before = installed()
    build = [python, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', folder / 'dist']
    run(*build, folder / 'clone', check=True)
    (wheel,) = (folder / 'dist').glob('vito_mm-*.whl')
    extras = '[pretrain,seg,det,lvis,video,safetensors,curation]'
    run(python, '-m', 'pip', 'install', '-q', f'{wheel}{extras}', check=True)
    after = installed()
    changed = [name for name in before if after.get(name) != before[name]]
    added = [f'{name} {after[name]}' for name in sorted(after.keys() - before.keys())]
    code = 'import mmcv.ops, torch, vito_mm; mmcv.ops.nms(torch.rand(9, 4), torch.rand(9), 0.5)'
    run(python, '-c', code, check=True, cwd=folder)
    run(python.with_name('vito-mm'), 'train', '--help', check=True, cwd=folder, capture_output=True)
    print(f'{len(before)} distributions before, changed: {changed or "none"}')
    print('added:', ', '.join(added))


def build(name: str, folder: Path) -> Path:
    """Build an environment with a clone of the checkout; returns its interpreter."""
    python, install = make_venv(name, folder)
    venv, clone = folder / 'venv', folder / 'clone'
    if name == 'mmcv22':
        for package, name in BOUNDS.items():  # as their users do
            (file,) = venv.glob(f'lib/python*/site-packages/{package}/__init__.py')
            file.write_text(file.read_text().replace(f"{name} = '2.2.0'", f"{name} = '2.3.0'"))
    run(*install, '--no-build-isolation', '-e', clone, check=True)
    return python


def test(python: Path, folder: Path) -> list[str]:
    """Run the suite and a short pre-training; returns versions, counts and losses."""
    clone = folder / 'clone'
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    code = f'import {", ".join(VERSIONS)}\n'
    code += f'print(*(module.__version__ for module in ({", ".join(VERSIONS)})))'
    versions = run(python, '-c', code, capture_output=True, cwd=clone, check=True).stdout.split()
    data = folder / 'miniscenes'
    if not data.exists():
        command = [python, 'tools/make_miniscenes.py', data, '--preset', 'tiny']
        run(*command, cwd=clone, check=True, capture_output=True)
    (folder / 'figures.py').write_text(FIGURES)
    command = [python, folder / 'figures.py', data / 'videos', folder / 'run']
    done = run(
        *command, cwd=clone, capture_output=True, env={**environment, 'PYTHONPATH': str(clone)}
    )
    losses = re.search(r'^losses (.*)', done.stdout, re.MULTILINE)
    with (folder / 'suite.log').open('w') as log:
        options = ['-q', '-n', '2', '--dist', 'loadfile', '-m', 'not slow']
        options += [f'--basetemp={folder / "tests"}', 'tests']
        run(python, '-m', 'pytest', *options, cwd=clone, env=environment, stdout=log)
    last = (folder / 'suite.log').read_text().strip().splitlines()[-1]
    return [*versions, losses[1] if losses else done.stderr[-500:], last.strip('= ')]


def main() -> None:
    """Build and test what the command line names."""
    names = [file.stem for file in sorted(HERE.glob('*.in'))]
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--install', action='store_true', help='see above')
    parser.add_argument('names', nargs='*', default=names, help='default: all')
    parser.add_argument('--folder', type=Path, default=REPO / 'work_dirs' / 'environments')
    args = parser.parse_args()
    if args.install:
        folder = args.folder.resolve() / 'install'
        folder.mkdir(parents=True, exist_ok=True)
        install_wheel(folder)
        return
    for name in args.names:
        folder = args.folder.resolve() / name
        folder.mkdir(parents=True, exist_ok=True)
        python = build(name, folder)
        row = [name, str(datetime.date.today()), *test(python, folder)]
        print('|', ' | '.join(row), '|', flush=True)


if __name__ == '__main__':
    main()
