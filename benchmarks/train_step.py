#!/usr/bin/env python
"""How long an optimisation step takes, beside what bounds it and beside another library.

    python benchmarks/train_step.py [--batch-size 16] [--no-peer]

All variants take turns in one process, so that what else the machine does meets them alike:

- *backbone*, the limit: forward and backward pass of all views through the bare backbone, and
  forward pass without gradient through a second one. The loss is the sum of the feature maps.
  View by view like VITO, and all views in one pass; the faster of the two is the limit.
- *networks*: the same with attention pooling and projector, view by view.
- *VITO*: a step of configs/vito/pretrain_r50.py as the runner takes it, from 8-bit views in host
  memory to the moved target network.
- *lightly*: the same model from torchvision's ResNet and lightly's projector, loss, LARS and EMA,
  as its examples write it. What differs: views come normalised, as lightly's transforms leave them;
  ``NTXentLoss`` is symmetric and counts the other online projections among the negatives of a pair;
  running statistics are not copied to the target; no step is checked for values that are not
  finite.

Peak memory on a GPU is what PyTorch's allocator gives to a variant by its second step: networks,
views and optimizer included, what cuDNN tries in the first step not. On a CPU it is what the
resident memory of a process of its own grows by, allocator included.

On a GPU there is also *host ms*, the time until a step hands back to Python while the GPU goes on,
and *waits*, the calls in it that wait for the GPU.
"""

import argparse
import copy
import gc
import importlib.util
import multiprocessing
import shlex
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vito_mm.models.preprocessors.deferred import DeferredPreprocessor
from vito_mm.registry import MODELS
from vito_mm.utils.provenance import cpu_name, fact_text, installed_versions

REPO = Path(__file__).resolve().parents[1]

Step = Callable[[], None]


def load_recipe(args: argparse.Namespace) -> Config:
    """The shipped config with the depth and the precision that were asked for.

    Args:
        args: Command line.

    Returns:
        Config: Config of a run.
    """
    cfg = Config.fromfile(REPO / 'configs/vito/pretrain_r50.py')
    channels = (256, 512) if args.depth < 50 else (1024, 2048)
    cfg.model.backbone.depth = args.depth
    cfg.model.neck.in_channels = channels
    cfg.model.projector.in_channels = sum(channels)
    cfg.model.channels_last = args.channels_last
    cfg.model.micro_batch_size = args.micro_batch_size
    cfg.optim_wrapper.dtype = None if args.dtype == 'float32' else args.dtype
    return cfg


def build_vito(cfg: Config, args: argparse.Namespace) -> nn.Module:
    """The model as MMEngine's runner has it on one device.

    Args:
        cfg: Config of a run.
        args: Command line.

    Returns:
        nn.Module: Model on the device, its target network started.
    """
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model = revert_sync_batchnorm(model.to(args.device))
    model.start_target()
    if args.compile:
        compile_forward(model.backbone, model.target_net.module[0])
    return model


def compile_forward(*modules: nn.Module) -> None:
    """Compile forward passes in place, where :class:`Stopwatch` can still reach them."""
    for module in modules:
        module.forward = torch.compile(module.forward)


def make_views(args: argparse.Namespace) -> list[Tensor]:
    """Noise in place of views, in host memory, pinned as by the config's data loader.

    Args:
        args: Command line.

    Returns:
        list[Tensor]: One tensor (N, 3, H, W) a view, uint8.
    """
    shape = (args.batch_size, 3, args.size, args.size)
    views = [torch.randint(256, shape, dtype=torch.uint8) for _ in range(args.views)]
    return [view.pin_memory() for view in views] if args.device == 'cuda' else views


def to_device(views: list[Tensor], args: argparse.Namespace) -> list[Tensor]:
    """Move float views to the device, in the memory format of the networks."""
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    return [
        view.to(args.device, non_blocking=True).contiguous(memory_format=layout) for view in views
    ]


def normalised(views: list[Tensor]) -> list[Tensor]:
    """Views of about zero mean and unit deviation, float32."""
    return [(view.float() - 127.5) / 74 for view in views]


def precision(args: argparse.Namespace) -> AbstractContextManager:
    """Mixed precision if it was asked for."""
    dtype = torch.bfloat16
    return torch.autocast(args.device, dtype, enabled=args.dtype == 'bfloat16')


def bare_step(
    online: nn.Module, target: nn.Module, args: argparse.Namespace, one_pass: bool = False
) -> Step:
    """Forward and backward pass of one network and forward pass of another, and nothing else.

    Args:
        online: Network with gradient.
        target: Network without.
        args: Command line.
        one_pass: Whether all views make one batch.

    Returns:
        Step: A step.
    """
    views = to_device(normalised(make_views(args)), args)
    if one_pass:
        views = to_device([torch.cat(views)], args)

    def step() -> None:
        with precision(args):
            outputs = [output for view in views for output in online(view)]
            with torch.no_grad():
                for view in views:
                    target(view)
        sum(output.sum() for output in outputs).backward()
        online.zero_grad()

    return step


def backbone_step(args: argparse.Namespace, one_pass: bool = False) -> Step:
    """See the variant *backbone* above."""
    model = build_vito(load_recipe(args), args)
    return bare_step(model.backbone, model.target_net.module[0], args, one_pass)


def one_pass_step(args: argparse.Namespace) -> Step:
    """See the variant *backbone* above."""
    return backbone_step(args, one_pass=True)


def networks_step(args: argparse.Namespace) -> Step:
    """See the variant *networks* above."""
    model = build_vito(load_recipe(args), args)
    online = nn.Sequential(model.backbone, model.neck, model.projector)
    return bare_step(online, model.target_net.module, args)


class VITOStep:
    """A step of the shipped recipe, as in the first iteration of its warm-up.

    Args:
        args: Command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        cfg = load_recipe(args)
        self.model = build_vito(cfg, args)
        # Runner.build_optim_wrapper reads nothing of a runner but its model.
        self.optim_wrapper = Runner.build_optim_wrapper(
            SimpleNamespace(model=self.model), cfg.optim_wrapper
        )
        for group in self.optim_wrapper.param_groups:
            group['lr'] *= 1e-4  # as early in the warm-up
        samples = [DataSample() for _ in range(args.batch_size)]
        self.batch = dict(inputs=make_views(args), data_samples=samples)

    def __call__(self) -> None:
        self.model.train_step(self.batch, optim_wrapper=self.optim_wrapper)
        if self.optim_wrapper.skipped_last_step:
            raise RuntimeError('the step was left out, so that its time means nothing')
        self.model.update_target(0.0)


class PeerNetwork(nn.Module):
    """Backbone, attention pooling and projector, from torchvision, PyTorch and lightly.

    Args:
        depth: Depth of the ResNet.
    """

    def __init__(self, depth: int) -> None:
        import torchvision
        from lightly.models.modules.heads import ProjectionHead

        super().__init__()
        self.backbone = getattr(torchvision.models, f'resnet{depth}')()
        channels = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()
        self.attention = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c, 2 * c, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(2 * c, c, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(c, 1, 1, bias=False),
            )
            for c in (channels // 2, channels)
        )
        self.projector = ProjectionHead(
            [
                (channels * 3 // 2, 4096, nn.BatchNorm1d(4096), nn.ReLU(inplace=True), True),
                (4096, 256, None, None, False),
            ]
        )

    def feature_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of the last two stages."""
        net = self.backbone
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        x = net.layer3(net.layer2(net.layer1(x)))
        return x, net.layer4(x)

    def forward(self, x: Tensor) -> Tensor:
        """Projections of images."""
        pooled = []
        for attention, feature_map in zip(self.attention, self.feature_maps(x), strict=True):
            mask = attention(feature_map).flatten(2).softmax(dim=2)
            pooled.append((feature_map.flatten(2) * mask).sum(dim=2))
        return self.projector(torch.cat(pooled, dim=1))


def peer_step(args: argparse.Namespace) -> Step:
    """See the variant *lightly* above."""
    from lightly.loss import NTXentLoss
    from lightly.models.utils import (
        deactivate_requires_grad,
        get_weight_decay_parameters,
        update_momentum,
    )
    from lightly.utils.lars import LARS

    torch.manual_seed(0)
    online = PeerNetwork(args.depth).to(args.device)
    if args.channels_last:
        online.to(memory_format=torch.channels_last)
    target = copy.deepcopy(online)
    deactivate_requires_grad(target)
    if args.compile:
        for network in (online, target):
            network.feature_maps = torch.compile(network.feature_maps)
    decayed, not_decayed = get_weight_decay_parameters([online])
    optimizer = LARS(
        [dict(params=decayed), dict(params=not_decayed, weight_decay=0.0)],
        lr=4.8e-4,
        momentum=0.9,
        weight_decay=1e-6,
    )
    criterion = NTXentLoss(temperature=0.1)
    inputs = normalised(make_views(args))
    if args.device == 'cuda':
        inputs = [view.pin_memory() for view in inputs]
    pairs = [(i, j) for i in range(args.views) for j in range(args.views) if i != j]

    def step() -> None:
        update_momentum(online, target, m=0.99)
        with precision(args):
            views = to_device(inputs, args)
            projections = [online(view) for view in views]
            with torch.no_grad():
                targets = [target(view) for view in views]
            loss = sum(criterion(projections[i], targets[j]) for i, j in pairs)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


LIMITS = {'backbone': backbone_step, 'backbone, one pass': one_pass_step}
VARIANTS: dict[str, Callable[[argparse.Namespace], Step]] = {
    **LIMITS,
    'networks': networks_step,
    'VITO': VITOStep,
    'lightly': peer_step,
}


def now(args: argparse.Namespace) -> float:
    """Seconds on a clock, once the device has done what it was given."""
    if args.device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter()


def prepare(args: argparse.Namespace) -> None:
    """Settings of a process: the recipe's, and no log lines."""
    if not MMLogger.check_instance_created('train_step'):
        MMLogger.get_instance('train_step', log_level='ERROR')
    torch.backends.cudnn.benchmark = load_recipe(args).env_cfg.cudnn_benchmark


def resident_memory(field: str) -> int:
    """Memory of this process on Linux.

    Args:
        field: 'VmRSS' for now, 'VmHWM' for the peak.

    Returns:
        int: Bytes.
    """
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f'{field}:'))


def peak_memory(name: str, args: argparse.Namespace) -> int:
    """Peak memory of a variant on a CPU, for a process that has done nothing else.

    Args:
        name: Variant.
        args: Command line.

    Returns:
        int: Bytes.
    """
    prepare(args)
    before = resident_memory('VmRSS')
    step = VARIANTS[name](args)
    for _ in range(2):  # the first one makes the optimizer's state
        step()
    return resident_memory('VmHWM') - before


def measure_memory(names: list[str], args: argparse.Namespace) -> dict[str, int]:
    """Peak memory of all variants on a CPU, one process each.

    Args:
        names: Variants.
        args: Command line.

    Returns:
        dict[str, int]: Bytes.
    """
    context = multiprocessing.get_context('fork')  # which saves importing everything again
    peaks = {}
    for name in names:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            peaks[name] = pool.submit(peak_memory, name, args).result()
    return peaks


def build_step(name: str, args: argparse.Namespace) -> tuple[Step, int | None]:
    """Build a variant and, on a GPU, take two steps to see its peak memory.

    Args:
        name: Variant.
        args: Command line.

    Returns:
        tuple[Step, int | None]: The step, and bytes; None on a CPU, see :func:`peak_memory`.
    """
    if args.device != 'cuda':
        return VARIANTS[name](args), None
    before = torch.cuda.memory_allocated()
    step = VARIANTS[name](args)
    step()  # makes the optimizer's state, and cuDNN tries its algorithms
    torch.cuda.reset_peak_memory_stats()
    step()
    return step, torch.cuda.max_memory_allocated() - before


def measure_times(steps: dict[str, Step], args: argparse.Namespace) -> dict[str, list[float]]:
    """Time all variants in turns.

    Args:
        steps: Variants.
        args: Command line.

    Returns:
        dict[str, list[float]]: Seconds a step, one for each repeat.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(args.warmup):
            step()
    for _ in range(args.repeats):
        for name, step in steps.items():
            start = now(args)
            for _ in range(args.steps):
                step()
            times[name].append((now(args) - start) / args.steps)
    return times


def host_waits(step: Step, args: argparse.Namespace) -> tuple[float, int] | None:
    """Measure how long a step on a GPU keeps the host, and how often it waits for the GPU.

    Args:
        step: A step that has run before.
        args: Command line.

    Returns:
        tuple[float, int] | None: Median seconds until the step returns, begun on an idle GPU, and
        the number of calls that wait; None on a CPU.
    """
    if args.device != 'cuda':
        return None
    seconds = []
    for _ in range(args.repeats):
        start = now(args)
        step()
        seconds.append(time.perf_counter() - start)
    now(args)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode('default')
    waits = sum('synchronizing CUDA operation' in str(warning.message) for warning in caught)
    return statistics.median(seconds), waits


@dataclass(frozen=True)
class Measured:
    """Times of a variant: seconds a step, one for each repeat; peak memory in bytes; host waits."""

    times: list[float]
    peak: int | None = None
    host: tuple[float, int] | None = None

    @property
    def seconds(self) -> float:
        """Median seconds a step."""
        return statistics.median(self.times)


def measure(
    names: Sequence[str], args: argparse.Namespace
) -> tuple[dict[str, Measured], dict[str, Step]]:
    """Measure variants in this process.

    Args:
        names: Variants.
        args: Command line.

    Returns:
        tuple[dict[str, Measured], dict[str, Step]]: Figures and steps of the variants.
    """
    prepare(args)
    built = {name: build_step(name, args) for name in names}
    steps = {name: step for name, (step, _) in built.items()}
    times = measure_times(steps, args)
    found = {
        name: Measured(times[name], peak, host_waits(step, args))
        for name, (step, peak) in built.items()
    }
    return found, steps


def free_memory() -> None:
    """Give back what steps held that are gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Stopwatch:
    """Time of functions, less that of timed functions which they call.

    Args:
        args: Command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.seconds: Counter[str] = Counter()
        self._inner = [0.0]

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Time a method of an object from now on.

        Args:
            owner: The object.
            name: Name of the method.
            part: What its time is added to.
        """
        function = getattr(owner, name)

        def timed(*args, **kwargs):
            start = now(self.args)
            self._inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                elapsed = now(self.args) - start
                self.seconds[part] += elapsed - self._inner.pop()
                self._inner[-1] += elapsed

        setattr(owner, name, timed)


def measure_parts(step: VITOStep, args: argparse.Namespace) -> dict[str, float]:
    """Time the parts of VITO's step where they run, waiting for the device after each.

    Args:
        step: The step, whose methods stay timed.
        args: Command line.

    Returns:
        dict[str, float]: Median seconds of each part. With 'rest' they make up the step. What
        micro-batches compute again in the backward pass counts as forward.
    """
    watch = Stopwatch(args)
    model, optim_wrapper = step.model, step.optim_wrapper
    preprocessor = model.data_preprocessor
    if isinstance(preprocessor, DeferredPreprocessor):
        preprocessor = preprocessor.preprocessor
    parts = {
        'data preprocessor': (preprocessor, 'forward'),
        'backbone, forward': (model.backbone, 'forward'),
        'attention, forward': (model.neck, 'forward'),
        'projector, forward': (model.projector, 'forward'),
        'target, forward': (model.target_net, 'forward'),
        'loss, forward': (model.head, 'forward'),
        'backward': (optim_wrapper, 'backward'),
        'check of gradients': (optim_wrapper, 'step'),
        'optimizer': (optim_wrapper.optimizer, 'step'),
        'EMA': (model, 'update_target'),
    }
    for part, (owner, name) in parts.items():
        watch.watch(owner, name, part)
    runs = []
    for _ in range(args.repeats):
        watch.seconds.clear()
        start = now(args)
        step()
        whole = now(args) - start
        runs.append({**watch.seconds, 'rest': whole - sum(watch.seconds.values())})
    return {part: statistics.median(run[part] for run in runs) for part in (*parts, 'rest')}


@torch.no_grad()
def count_multiply_adds(args: argparse.Namespace) -> dict[str, float]:
    """Multiply-adds of a forward pass.

    Args:
        args: Command line.

    Returns:
        dict[str, float]: For an image, of each part of the network.
    """
    model = build_vito(
        load_recipe(args), argparse.Namespace(**{**vars(args), 'device': 'cpu', 'compile': False})
    )
    model.eval()
    data, counts = torch.zeros(1, 3, args.size, args.size), {}
    parts = dict(backbone=model.backbone, attention=model.neck, projector=model.projector)
    for name, module in parts.items():
        with FlopCounterMode(display=False) as counter:
            data = module(data)
        counts[name] = counter.get_total_flops() / 2
    return counts


def device_name(args: argparse.Namespace) -> str:
    """What computes, in words."""
    if args.device == 'cuda':
        return torch.cuda.get_device_name()
    return f'{cpu_name()}, {torch.get_num_threads()} threads'


def print_header(names: list[str], args: argparse.Namespace) -> None:
    """Print what is measured, on what."""
    packages = ['torch', 'torchvision', 'mmengine', 'mmpretrain']
    if 'lightly' in names:
        packages.append('lightly')
    command = shlex.join(['python', 'benchmarks/train_step.py', *sys.argv[1:]])
    print(f'command   {command}')
    print(f'device    {device_name(args)}')
    print(f'versions  {fact_text(installed_versions(packages))}')
    print(
        f'setting   ResNet-{args.depth}, {args.batch_size} clips x {args.views} views of '
        f'{args.size} px, {args.dtype}, {"channels last" if args.channels_last else "contiguous"}, '
        f'{"compiled backbone" if args.compile else "eager"}'
        + (f', micro-batches of {args.micro_batch_size}' if args.micro_batch_size else '')
    )
    print(
        f'times     medians of {args.repeats} repeats of {args.steps} steps, after {args.warmup} '
        'steps of warm-up'
    )


def print_variants(found: dict[str, Measured], args: argparse.Namespace) -> None:
    """Print the table of variants.

    Args:
        found: Figures by variant.
        args: Command line.
    """
    limit = min(found[name].seconds for name in LIMITS)
    on_gpu = args.device == 'cuda'
    print(
        f'\n{"variant":20}{"ms/step":>10}{"fastest":>10}{"slowest":>10}{"views/s":>10}'
        f'{"of limit":>10}{"of networks":>13}{"peak MiB":>10}'
        + (f'{"host ms":>10}{"waits":>7}' if on_gpu else '')
    )
    for name, one in found.items():
        print(
            f'{name:20}{one.seconds * 1e3:>10.1f}{min(one.times) * 1e3:>10.1f}'
            f'{max(one.times) * 1e3:>10.1f}{args.views * args.batch_size / one.seconds:>10.1f}'
            f'{limit / one.seconds:>10.1%}{found["networks"].seconds / one.seconds:>13.1%}'
            f'{one.peak / 2**20:>10.0f}'
            + (f'{one.host[0] * 1e3:>10.1f}{one.host[1]:>7}' if on_gpu else '')
        )
    print('of limit, of networks: share of their rate')


def print_parts(parts: dict[str, float], counts: dict[str, float]) -> None:
    """Print where the time of VITO's step goes.

    Args:
        parts: Seconds.
        counts: Multiply-adds of a forward pass of an image.
    """
    total, all_counts = sum(parts.values()), sum(counts.values())
    print(f'\n{"part of the VITO step":22}{"ms":>10}{"share":>9}{"G multiply-adds an image":>27}')
    for part, seconds in parts.items():
        count = counts.get(part.split(',')[0], all_counts if part.startswith('target') else 0)
        shown = f'{count / 1e9:.3f}' if count else ''
        print(f'{part:22}{seconds * 1e3:>10.1f}{seconds / total:>9.1%}{shown:>27}')
    print(f'{"sum":22}{total * 1e3:>10.1f}')
    share = counts['backbone'] / all_counts
    print(
        f'\nThe backbone makes {share:.1%} of the multiply-adds of a forward pass: what a step '
        "reaches of the limit\nif attention and projector run at the backbone's rate and the rest "
        'takes no time.'
    )


def parse_args(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line and settle what depends on the device.

    Args:
        words: Defaults to those of this process.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    on_gpu = torch.cuda.is_available()
    parser.add_argument('--batch-size', type=int, default=64 if on_gpu else 16, help='clips')
    parser.add_argument('--views', type=int, default=3)
    parser.add_argument('--size', type=int, default=224, help='side of a view in pixels')
    parser.add_argument('--depth', type=int, default=50, choices=(18, 34, 50, 101, 152))
    parser.add_argument(
        '--dtype', choices=('float32', 'bfloat16'), default='bfloat16' if on_gpu else 'float32'
    )
    parser.add_argument('--channels-last', action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument('--compile', action='store_true', help='compile the backbones')
    parser.add_argument('--micro-batch-size', type=int, help='of VITO, see there')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument(
        '--steps', type=int, default=5 if on_gpu else 1, help='steps in a row in a repeat'
    )
    parser.add_argument('--warmup', type=int, default=3 if on_gpu else 1, help='steps before')
    parser.add_argument('--no-peer', action='store_true', help='leave lightly out')
    args = parser.parse_args(words)
    args.device = 'cuda' if on_gpu else 'cpu'
    return args


def main() -> None:
    """Measure and print."""
    args = parse_args()
    names = list(VARIANTS)
    if args.no_peer or importlib.util.find_spec('lightly') is None:
        names.remove('lightly')
        if not args.no_peer:
            print('lightly is not installed and left out (pip install lightly)')
    print_header(names, args)
    # Forks come first: threads that PyTorch has started do not survive them.
    peaks = {} if args.device == 'cuda' else measure_memory(names, args)
    found, steps = measure(names, args)
    found = {name: replace(one, peak=peaks.get(name, one.peak)) for name, one in found.items()}
    print_variants(found, args)
    vito = steps['VITO']
    del steps
    print_parts(measure_parts(vito, args), count_multiply_adds(args))


if __name__ == '__main__':
    main()
