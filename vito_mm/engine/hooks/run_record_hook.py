"""Record of a run next to its logs: machine, versions, code and data."""

import math
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size, master_only
from mmengine.hooks import Hook
from mmengine.utils.dl_utils import collect_env

import vito_mm
from vito_mm.registry import HOOKS
from vito_mm.utils.atomic import write_json
from vito_mm.utils.provenance import git_revision, installed_versions

DATA_FINGERPRINT = 'data_fingerprint'
"""Name under which the message hub, and so a checkpoint, holds the hash of the data."""


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Write ``run.json``, the record of the run, next to the log and the config.

    Holds the command, package versions, the git revision of the code, MMEngine's description of the
    environment, seed, processes and batch, and for each data set its source, number of samples and
    of files, and the hash of its list (:meth:`vito_mm.datasets.VideoDataset.fingerprint`). Warns of
    a list that has files several times, and of one that changed before the run was resumed.
    """

    def before_train(self, runner) -> None:
        """Write the record."""
        data = list(_describe(runner.train_dataloader.dataset))
        hashes = [part.get('sha256') for part in data]
        before = runner.message_hub.runtime_info.get(DATA_FINGERPRINT)
        if before is not None and before != hashes:
            runner.logger.warning(
                f'the list of videos is not that of the run being resumed (sha256 {hashes}, before '
                f'{before}): the clips to come are others'
            )
        runner.message_hub.update_info(DATA_FINGERPRINT, hashes)
        for part in data:
            if part.get('files', math.inf) < part['samples']:
                runner.logger.warning(
                    f'{part["source"]} lists {part["files"]} files in {part["samples"]} rows: '
                    'clips of one file are no negatives of each other (model.head.mask_same_file)'
                )
        self._write(runner, data)

    @master_only
    def _write(self, runner, data: list[dict]) -> None:
        counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        batch_size = runner.train_dataloader.batch_size * get_world_size()
        record = dict(
            command=shlex.join(sys.argv),
            iteration=runner.iter,
            seed=runner.seed,
            processes=get_world_size(),
            clips_per_optimizer_step=batch_size * counts,
            versions={'vito_mm': vito_mm.__version__} | installed_versions(),
            git=git_revision(Path(vito_mm.__file__).parent),
            data=data,
            environment={key: str(value) for key, value in collect_env().items()},
        )
        write_json(Path(runner.log_dir) / 'run.json', record, indent=2)


def _describe(dataset: Any) -> Iterator[dict]:
    """The data sets within MMEngine's wrappers, ours with the hash of their lists."""
    if hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from _describe(part)
    elif hasattr(dataset, 'dataset'):
        yield from _describe(dataset.dataset)
    else:
        description = dict(type=type(dataset).__name__, samples=len(dataset))
        if hasattr(dataset, 'fingerprint'):
            source = getattr(dataset, 'ann_file', '') or dataset.data_root
            description |= dict(source=str(source), sha256=dataset.fingerprint())
            description |= dict(files=dataset.count_files())
        yield description
