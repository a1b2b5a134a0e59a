"""Results of evaluations, from any number of commands, in one folder: a file for each.

Several commands may write at the same time, on one machine or on several, and files of another
folder may be copied in.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vito_mm.transfer.report.data_identity import DataIdentity
from vito_mm.transfer.tasks import RANDOM
from vito_mm.utils.atomic import write_json

FORMAT = 'vito_mm evaluation 1'
"""First entry of each file."""


@dataclass(frozen=True)
class Network:
    """Weights that were evaluated.

    Attributes:
        label (str): Name in tables.
        file (str): As it was named on the command line, ``'random'`` for random weights.
        sha256 (str): Hash of the file, empty for random weights.
        which (str): ``'online'`` or ``'target'`` network of the file.
        name (str): Of the network, such as ``'ResNet-50'``; empty where it is not known.
        options (tuple[str, ...]): Words of the command line of the probes that name the network.
    """

    label: str
    file: str
    sha256: str = ''
    which: str = 'online'
    name: str = ''
    options: tuple[str, ...] = ()

    @property
    def identity(self) -> tuple[str, ...]:
        """What decides which weights these are; those of random weights follow from the seed."""
        return (self.sha256, self.which) if self.sha256 else (RANDOM, self.name)


@dataclass(frozen=True)
class Result:
    """Figures of one test, one network and one seed.

    Attributes:
        tool (str): ``'probe'`` or ``'transfer'``.
        test (str): Sub-command of the probes, or name of the task.
        title (str): Of the test in tables.
        data (DataIdentity): Data that were learnt from and measured on.
        settings (Mapping): Settings other than the defaults that decide the figures.
        network (Network): Weights that were evaluated.
        seed (int): Seed.
        metrics (Mapping[str, float | None]): Figures; None for those that are not finite.
        seconds (float): Duration.
        command (tuple[str, ...]): Words of the command, ``CHECKPOINTS`` in place of the weights.
        conditions (Mapping): See :func:`vito_mm.utils.provenance.conditions`.
        remark (str): Shown with the figure, such as the best point of a sweep.
        time (float): Seconds since 1970 when it was there.
        suite (str): Identity of the transfer suite that it is of; empty for probes.
    """

    tool: str
    test: str
    title: str
    data: DataIdentity
    settings: Mapping[str, Any]
    network: Network
    seed: int
    metrics: Mapping[str, float | None]
    seconds: float
    command: tuple[str, ...]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    remark: str = ''
    time: float = field(default_factory=time.time)
    suite: str = ''

    @property
    def row(self) -> str:
        """Identity of the test: results with the same one can be compared."""
        parts = (self.tool, self.test, self.settings, self.data.name, self.data.digest)
        return json.dumps(parts, sort_keys=True)

    @property
    def file_name(self) -> str:
        """Name of its file, the same for the same test, network and seed."""
        identity = json.dumps([self.row, self.network.identity, self.seed])
        digest = hashlib.sha256(identity.encode('utf-8', 'surrogatepass')).hexdigest()
        return f'{self.tool}-{digest[:24]}.json'


class ResultsError(ValueError):
    """A folder whose results cannot be read; the message names the file and the remedy."""


def read_results(folder: Path) -> list[Result]:
    """Read all results of a folder, the oldest first; a folder that is not there has none.

    Raises:
        ResultsError: If the folder is a file, or a file in it is no result.
    """
    place = _place(folder)
    found: dict[str, Result] = {}
    for file in sorted(place.glob('[!.]*.json')):
        try:
            content = json.loads(file.read_text(encoding='utf-8'))
            result = _from_json(content)
        except FileNotFoundError:  # another command has just replaced it
            continue
        except (ValueError, TypeError, AttributeError, KeyError):
            raise ResultsError(
                f'{file} is no result of an evaluation, or is damaged: move it away, or name '
                'another folder by --evaluation'
            ) from None
        known = found.get(result.file_name)
        if known is None or known.time < result.time:
            found[result.file_name] = result
    return sorted(found.values(), key=lambda result: result.time)


def _from_json(content: Any) -> Result:
    """Read a result; an error of some kind tells that it is none."""
    if content.pop('format') != FORMAT:
        raise ValueError
    options = tuple(content['network'].pop('options'))
    content['network'] = Network(**content['network'], options=options)
    content['data'] = DataIdentity(**content['data'])
    content['command'] = tuple(content['command'])
    result = Result(**content)
    named = (vars(each).values() for each in (result.network, result.data))
    texts = [result.tool, result.test, result.title, result.remark, result.suite]
    texts += [*result.command, *options]
    texts += [value for values in named for value in values if value is not options]
    figures = [value for value in result.metrics.values() if value is not None]
    numbers = [result.seed, result.seconds, result.time, *figures]
    kinds = [(texts, str), (numbers, (int, float)), ([result.settings, result.conditions], dict)]
    if not all(isinstance(value, kind) for values, kind in kinds for value in values):
        raise TypeError
    return result


def put_results(folder: Path, results: Iterable[Result], all_seeds: bool = False) -> None:
    """Keep results, in place of those of the same test, network and seed.

    Args:
        folder (Path): Made if needed.
        results (Iterable[Result]): Results.
        all_seeds (bool): They are all that their suite has of their tests and networks: its other
            seeds go. Defaults to False.
    """
    place = _place(folder)
    place.mkdir(parents=True, exist_ok=True)
    results = list(results)
    known = {result.file_name: result for result in read_results(folder)}
    for result in results:
        metrics = {
            name: value if isinstance(value, int) or math.isfinite(value or 0.0) else None
            for name, value in result.metrics.items()
        }
        content = dict(format=FORMAT, **asdict(result)) | dict(metrics=metrics)
        before = known.get(result.file_name)
        if before and before.metrics == metrics:  # found on the disk, which took no time
            content['seconds'] = max(result.seconds, before.seconds)
        write_json(place / result.file_name, content, allow_nan=False, default=os.fspath)
    if all_seeds:
        kept = {result.file_name for result in results}
        owners = {(result.suite, result.row, result.network.identity) for result in results}
        for result in known.values():
            owner = (result.suite, result.row, result.network.identity)
            if owner in owners and result.file_name not in kept:
                (place / result.file_name).unlink(missing_ok=True)


def resnet_name(depth: int, width: int = 64) -> str:
    """Name a ResNet by its depth, and by the channels of its first stage where they are not 64."""
    return f'ResNet-{depth}' + ('' if width == 64 else f', width {width}')


def _place(folder: Path) -> Path:
    place = Path(folder) / 'results'
    for path in (Path(folder), place):
        if path.exists() and not path.is_dir():
            raise ResultsError(f'{path} is a file: --evaluation takes a folder')
    return place
