"""Many machines: Ray Data streams the shards to actors, which write them to a disk they share."""

import logging
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..stage import Counts, Shard, Stage
from .local import run_shards as run_here


def run_shards(
    stage: Stage,
    shards: Sequence[Shard],
    workers: int,
    address: str | None = None,
    gpus: float = 0,
) -> Iterator[Counts]:
    """Work on shards in Ray actors, one shard in each at a time.

    Actors and shards that are lost with their machine are started again by Ray. Actors read videos
    in processes of their own, as one machine does.

    Args:
        stage (Stage): The stage, surveyed.
        shards (Sequence[Shard]): Shards on a disk that all machines share.
        workers (int): Cores of an actor, and its processes. There are as many actors as fit.
        address (str, optional): Cluster to join. Defaults to None: the one that RAY_ADDRESS names,
            else a new one on this machine.
        gpus (float): GPUs of an actor. Defaults to 0.

    Yields:
        Counts: Of the rows of a shard, as they come.

    Raises:
        ImportError: If Ray is not installed.
        ConnectionError: If there is no such cluster.
        ValueError: If no machine of the cluster has room for an actor.
    """
    if not shards:
        return
    ray = import_ray()
    if not ray.is_initialized():
        check_address(address or os.environ.get('RAY_ADDRESS'))
        on_term = signal.getsignal(signal.SIGTERM)
        ray.init(
            address=address,
            log_to_driver=False,
            include_dashboard=False,
            logging_level=logging.ERROR,
        )
        signal.signal(signal.SIGTERM, on_term)  # Ray has another of its own
    logging.getLogger('ray.data').setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    machines = [node['Resources'] for node in ray.nodes() if node['Alive']]
    fit = sum(_actors_on(machine, workers, gpus) for machine in machines)
    if fit < 1:  # Ray would wait for such a machine
        there = ', '.join(f'{m.get("CPU", 0):g} and {m.get("GPU", 0):g}' for m in machines)
        raise ValueError(
            f'no machine of the Ray cluster has {workers} cores (--workers) and {gpus:g} GPUs '
            f'(--gpus) for one actor; they have: {there}'
        )
    # Absolute: actors have other working folders.
    items = [
        dict(number=s.number, source=str(s.source.absolute()), target=str(s.target.absolute()))
        for s in shards
    ]
    results = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _Actor,
        fn_constructor_args=(stage, workers),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(fit, len(items))),
        num_cpus=workers,
        num_gpus=gpus or None,
    )
    for row in results.iter_rows():
        dropped = zip(row['reasons'], row['numbers'], strict=True)
        yield Counts(int(row['kept']), Counter({str(k): int(n) for k, n in dropped}))


def check_address(address: str | None, timeout: float = 20.0) -> None:
    """Raise a ConnectionError if nothing answers at ``HOST:PORT``, for which Ray would wait long.

    Words that Ray knows, such as ``'auto'``, are not checked. ``timeout`` is in seconds.
    """
    host, _, port = (address or '').rpartition('://')[2].rpartition(':')
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout).close()
    except OSError as error:
        raise ConnectionError(
            f'no Ray cluster answers at {address} ({error}): see --ray-address and RAY_ADDRESS'
        ) from None


def _actors_on(machine: dict[str, float], workers: int, gpus: float) -> int:
    fit = machine.get('CPU', 0) // workers
    return int(min(fit, machine.get('GPU', 0) // gpus) if gpus else fit)


class _Actor:
    """A stage where its shards are worked on; what it opens stays open from shard to shard."""

    def __init__(self, stage: Stage, workers: int) -> None:
        self.stage, self.workers = stage, workers

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        shard = Shard(
            int(batch['number'][0]), Path(str(batch['source'][0])), Path(str(batch['target'][0]))
        )
        counts = sum(run_here(self.stage, [shard], self.workers), Counts())
        return dict(
            kept=[counts.kept],
            reasons=[list(counts.dropped)],
            numbers=[list(counts.dropped.values())],
        )


def import_ray() -> ModuleType:
    """Import Ray with Ray Data; an ImportError says how to install it."""
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ImportError(
            'the engine "ray" needs Ray Data, which is not installed: pip install "vito_mm[ray]"'
        ) from error
    return ray
