"""Running the study: pre-training, probes and transfer, each once, resumable at any point."""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from vito_mm.checkpoint.config_parts import placed_datasets
from vito_mm.launch import list_stages
from vito_mm.miniscenes.make import RECORD, make_miniscenes
from vito_mm.transfer.jobs import Job, gpu_names, run_jobs, say
from vito_mm.transfer.options import SuiteOptions
from vito_mm.transfer.run import Outcome
from vito_mm.transfer.run_folder import last_checkpoint
from vito_mm.transfer.runner import outcomes_in, run_suite
from vito_mm.transfer.tasks import RANDOM, TASKS
from vito_mm.utils.atomic import write_json, written_aside
from vito_mm.utils.cores import count_cores
from vito_mm.utils.provenance import conditions
from vito_mm.utils.quiet import quiet_logger

from .objects import ProbeObjects
from .presets import StudyPreset
from .rows import ORACLE, ROWS, SOURCE, SUPERVISED

FROZEN = 'frozen'
MODES = {
    'fine-tuned': (),
    FROZEN: ('model.backbone.frozen_stages=4', 'model.backbone.norm_eval=True'),
}
"""Treatments of the backbone in the transfer suite, with their settings."""

FROZEN_RANDOM = 'random_weights'
"""Label of frozen random weights; the suite's own word for them means no file."""

_CALIBRATION = 32
"""Number of batches for the batch-norm statistics of random weights."""


class StudyError(RuntimeError):
    """The study cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Study:
    """A study in a folder.

    Attributes:
        repo (Path): Folder with ``configs`` and ``tools``.
        work_dir (Path): Folder of all outputs.
        data (Path): Folder of MiniScenes.
        preset (StudyPreset): Its size.
        rows (Sequence[str]): Rows that are pre-trained.
        transfer_rows (Sequence[str]): Rows that are transferred as well.
        tasks (Sequence[str]): Tasks of the transfer.
        seeds (int): Number of seeds of each row, of pre-training and of transfer alike.
        first_seed (int): The first of them.
        amp (bool): Pre-train in bfloat16 on a CPU too.
        jobs (int): Number of parallel runs.
    """

    repo: Path
    work_dir: Path
    data: Path
    preset: StudyPreset
    rows: Sequence[str] = tuple(ROWS)
    transfer_rows: Sequence[str] = ()
    tasks: Sequence[str] = tuple(TASKS)
    seeds: int = 3
    jobs: int = 1
    first_seed: int = 0
    amp: bool = False

    @property
    def seed_numbers(self) -> range:
        """The seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)

    def folder(self, row: str, seed: int) -> Path:
        """Folder of a pre-training."""
        return self.work_dir / 'pretrain' / row / f'seed{seed}'

    def config(self, row: str) -> Path:
        """File of the complete config of a row."""
        return self.work_dir / 'configs' / f'{row}.py'

    def checkpoint(self, row: str, seed: int) -> Path | None:
        """Checkpoint of a finished pre-training, None where there is none yet."""
        folder = self.folder(row, seed)
        if row == RANDOM:
            file = folder / 'random.pth'
            return file if file.is_file() else None
        file = last_checkpoint(folder)
        steps = Config.fromfile(self.config(row)).train_cfg.max_iters
        return file if file is not None and file.name == f'iter_{steps}.pth' else None

    def all_rows(self) -> list[str]:
        """Rows that are pre-trained, in the order of the table, and those that they start from."""
        wanted = {*self.rows, *self.transfer_rows}
        for row in reversed(ROWS.values()):  # a start stands before what starts from it
            if row.name in wanted and row.start:
                wanted.add(row.start)
        return [row for row in ROWS if row in wanted]

    def source_data(self) -> Path:
        """Folder of the world of :data:`.rows.SOURCE`."""
        return self.data.with_name(f'{self.data.name}_source')

    def runs(self) -> Iterator[tuple[str, int]]:
        """Rows and seeds."""
        for seed in self.seed_numbers:
            yield from ((row, seed) for row in self.all_rows())

    def suite(self, mode: str, seed: int) -> Path:
        """Folder of the transfer of one seed."""
        return self.work_dir / 'transfer' / mode / f'seed{seed}'


def run_study(study: Study, command: str) -> None:
    """Run what is missing.

    Args:
        study (Study): The study.
        command (str): Command line, for the record.

    Raises:
        StudyError: If the folder belongs to a study with other settings, or a row is unknown.
        JobError: If a pre-training fails; what has finished stays.
    """
    unknown = [row for row in (*study.rows, *study.transfer_rows) if row not in ROWS]
    if unknown:
        raise StudyError(f'unknown rows: {", ".join(unknown)}. Choose among {", ".join(ROWS)}')
    make_miniscenes(study.data, study.preset.world, classes=study.preset.classes)
    for row in {SUPERVISED, SOURCE} & {*study.all_rows()}:
        data = study.data
        if row == SOURCE:
            data = study.source_data()
            make_miniscenes(data, study.preset.world, tasks=['videos'], classes=study.preset.source)
        write_frames(data / 'videos', data / 'frames', study.preset.frames)
    _write_configs(study)
    _note(study, command)
    # Seed by seed: a first table is there early, and what comes later narrows it.
    for seed in study.seed_numbers:
        _pretrain(study, seed)
        _probe(study, seed)
        _transfer(study, seed, command)


def row_config(study: Study, row: str) -> Config:
    """Build the complete config of a row; random weights have the base's.

    Args:
        study (Study): The study.
        row (str): Name of the row.

    Returns:
        Config: Without bases.
    """
    configs = study.repo / 'configs'
    preset = study.preset
    videos = study.data.absolute() / 'videos'
    if row in (SUPERVISED, SOURCE):
        data = study.source_data() if row == SOURCE else study.data
        cfg = Config.fromfile(configs / preset.supervised)
        cfg.merge_from_dict(
            {
                'train_dataloader.dataset.data_root': str(data.absolute() / 'frames'),
                'train_dataloader.dataset.pipeline.1.scale': preset.image_size,
            }
        )
        cfg.merge_from_dict(dict(preset.settings))
    else:
        cfg = Config.fromfile(configs / preset.base)
        dataset = cfg.train_dataloader.dataset
        dataset.data_root = str(videos)
        dataset.pipeline.sample.num_views = preset.views
        for pipeline in dataset.pipeline.augment.pipelines.values():
            pipeline.crop.scale = preset.image_size
        cfg.merge_from_dict(dict(preset.settings))
        if ROWS[row].recipe:
            recipe = Config.fromfile(configs / ROWS[row].recipe)
            cfg.optim_wrapper = recipe.optim_wrapper
            cfg.model.base_momentum = recipe.model.base_momentum
        cfg.merge_from_dict(ROWS[row].changes(cfg))
    steps = cfg.train_cfg.max_iters
    warm_up, decay = cfg.param_scheduler
    warm_up.end = min(warm_up.end, max(1, steps // 5))
    decay.update(T_max=steps - warm_up.end, begin=warm_up.end, end=steps)
    # The last checkpoint is enough: a run takes minutes here, hours on a GPU at most. Attention is
    # looked at along the way.
    kept = -1 if preset.objects else 1
    cfg.default_hooks.checkpoint.update(interval=max(1, steps // 4), max_keep_ckpts=kept)
    list_stages(cfg)
    return cfg


def _write_configs(study: Study) -> None:
    """Write a file per row; an earlier study in the folder must have had the same."""
    folder = study.work_dir / 'configs'
    folder.mkdir(parents=True, exist_ok=True)
    for row in (row for row in study.all_rows() if row != RANDOM):
        file = study.config(row)
        text = row_config(study, row).pretty_text
        if file.is_file() and file.read_text() != text:
            raise StudyError(
                f'{file} belongs to a study with other settings. Choose another --work-dir, or '
                f'remove {study.work_dir / "pretrain" / row} and this file'
            )
        with written_aside(file) as unfinished:
            unfinished.write_text(text)


def _note(study: Study, command: str) -> None:
    """Record the command, after those of earlier calls, and the conditions."""
    file = study.work_dir / 'study.json'
    known = json.loads(file.read_text()) if file.is_file() else {}
    commands = [*known.get('commands', []), command]
    record = dict(commands=list(dict.fromkeys(commands)), **conditions())
    write_json(file, record)


def _pretrain(study: Study, seed: int) -> None:
    while missing := [row for row in study.all_rows() if study.checkpoint(row, seed) is None]:
        starts = [ROWS[row].start for row in missing]
        _pretrain_rows(
            study,
            seed,
            [row for row, start in zip(missing, starts, strict=True) if start not in missing],
        )


def _pretrain_rows(study: Study, seed: int, rows: Sequence[str]) -> None:
    """Pre-train rows whose starts are there."""
    jobs = []
    # On a GPU it would put rows without mixed precision into float16.
    amp = ['--amp'] if study.amp and not torch.cuda.is_available() else []
    for row in rows:
        folder = study.folder(row, seed)
        if row == RANDOM:
            folder.mkdir(parents=True, exist_ok=True)
            write_random(study, seed, folder / 'random.pth')
            continue
        command = [sys.executable, str(study.repo / 'tools' / 'train.py'), str(study.config(row))]
        command += ['--work-dir', str(folder), '--resume', *amp]
        command += ['--cfg-options', f'randomness.seed={seed}']
        if start := ROWS[row].start:
            command.append(f'load_from={study.checkpoint(start, seed)}')
        jobs.append(Job(f'{row}/seed{seed}', command, folder, kind='pretrain'))
    if jobs:
        say(f'Seed {seed}: {len(jobs)} pre-training runs, {study.jobs} at a time')
        gpus = gpu_names(torch.cuda.device_count()) or [None]
        places = [
            {'CUDA_VISIBLE_DEVICES': gpu} if gpu is not None else {}
            for gpu in (gpus[i % len(gpus)] for i in range(study.jobs))
        ]
        run_jobs(jobs, study.jobs, max(1, count_cores() // study.jobs), places)


def write_random(study: Study, seed: int, file: Path) -> None:
    """Write a checkpoint of random weights with batch-norm statistics of the videos.

    Without them the activations of a frozen random backbone would grow from block to block.

    Args:
        study (Study): The study.
        seed (int): Seed of the weights and of the clips.
        file (Path): File to write.
    """
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner, set_random_seed

    from vito_mm.registry import MODELS

    cfg = row_config(study, RANDOM)
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False, pin_memory=False)
    set_random_seed(seed)
    scope = DefaultScope.overwrite_default_scope('mmpretrain')
    with scope, quiet_logger('WARNING'), torch.no_grad():
        model = MODELS.build(dict(cfg.model, init_cfg=None))
        model.init_weights()
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=seed)
        model.backbone.train()
        for module in model.backbone.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.momentum = None  # a plain mean over the batches
        for _, batch in zip(range(_CALIBRATION), loader, strict=False):
            for view in model.data_preprocessor(batch, training=True)['inputs']:
                model.backbone(view)
    weights = {f'backbone.{key}': value for key, value in model.backbone.state_dict().items()}
    with written_aside(file) as unfinished:
        torch.save(dict(state_dict=weights, meta=dict(seed=seed)), unfinished)


def _probe(study: Study, seed: int) -> None:
    """Probe the frozen features of every checkpoint."""
    for row in study.all_rows():
        file = study.folder(row, seed) / 'probe.json'
        if file.is_file():
            continue
        found = probe(study, row, seed)
        write_json(file, found)
        say(f'  {row}/seed{seed}: ' + ', '.join(f'{k} {v:.1f}' for k, v in found.items()))


def probe(study: Study, row: str, seed: int) -> dict[str, float]:
    """Measure accuracies of frozen features on the probe images, in percent.

    Args:
        study (Study): The study.
        row (str): Row.
        seed (int): Seed.

    Returns:
        dict[str, float]: ``knn`` and ``linear``; with the preset's ``objects`` also ``knn_own``
        (features pooled as in pre-training), ``knn_object``, ``davis`` (J&F), ``in_context`` (mIoU)
        and the share of the attention on the object, such as ``'attention of stage 5, step 100'``.
    """
    from vito_mm.probes.features import labelled_features
    from vito_mm.probes.knn import knn_top1
    from vito_mm.probes.linear_classifier import linear_accuracy
    from vito_mm.probes.loading import load_encoder, resnet

    backbone = Config.fromfile(study.repo / 'configs' / study.preset.base).model.backbone
    network = resnet(backbone.depth, backbone.get('base_channels', 64))
    if 'strides' in backbone:
        network['strides'] = backbone.strides
    checkpoint = study.checkpoint(row, seed)
    encoder = load_encoder(checkpoint, network=network)
    found = labelled_features(encoder, study.data / 'probe', study.preset.image_size)
    scores = dict(knn=knn_top1(*found), linear=linear_accuracy(*found).top1)
    if study.preset.objects:
        objects = ProbeObjects.read(study.data / 'probe', study.preset)
        attends = row_config(study, row).model.get('neck', {}).get('pooling') == 'attention'
        scores['knn_own'] = scores['knn']
        if attends and row != RANDOM:
            for file in sorted(checkpoint.parent.glob('iter_*.pth')):
                step = int(file.stem.removeprefix('iter_'))
                attention = load_encoder(file, needs_attention=True)
                if file.name == checkpoint.name:
                    scores['knn_own'] = objects.knn_attended(attention)
                for stage, share in objects.attention(attention).items():
                    scores[f'{stage}, step {step}'] = share
        scores['knn_object'] = objects.knn(encoder)
        if row == ORACLE:
            scores['knn_own'] = scores['knn_object']
        scores |= _dense(study, row, seed, network)
    return scores


def _dense(study: Study, row: str, seed: int, network: dict[str, Any]) -> dict[str, float]:
    """Propagate masks and segment in context by frozen features, as the demo does."""
    from .frozen import propagate_masks, segment_in_context

    cfg = Config.fromfile(study.repo / 'configs' / TASKS['pascal'].configs['miniscenes'])
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        for _, dataset in placed_datasets(loader.dataset, ''):
            dataset.data_root = str(study.data / 'voc')
    folder, networks = study.folder(row, seed), {row: study.checkpoint(row, seed)}
    place = folder / 'davis'
    masks = propagate_masks(study.data / 'davis', networks, place, seed, network=network)
    in_context = segment_in_context(cfg, networks, folder / 'incontext', seed, network=network)
    return dict(davis=masks.scores[0], in_context=in_context.scores[0])


def _transfer(study: Study, seed: int, command: str) -> None:
    for mode in study.preset.modes if study.transfer_rows else ():
        options = suite_options(study, mode, seed)
        if run_suite(options, command, estimate=False):
            raise StudyError(
                f'a transfer run did not finish, see above and {options.work_dir}; the same '
                'command goes on from here'
            )


def suite_options(study: Study, mode: str, seed: int) -> SuiteOptions:
    """Build the options of the transfer suite for a mode of :data:`MODES` and a seed."""
    folders = dict(pascal='voc', ade20k='ade20k', coco='coco', lvis='lvis')
    return SuiteOptions(
        study.repo,
        [_start_of(study, mode, row, seed) for row in study.transfer_rows],
        tasks=study.tasks,
        seeds=1,
        first_seed=seed,
        protocol='miniscenes',
        work_dir=study.suite(mode, seed),
        cfg_options=[*study.preset.transfer, *MODES[mode]],
        data=[f'{task}={study.data / folders[task]}' for task in study.tasks],
        jobs=study.jobs,
    )


def _start_of(study: Study, mode: str, row: str, seed: int) -> str:
    """Name the start of a transfer for the suite.

    For a trained backbone random weights are the library's own: mmseg and mmdet begin with
    residual branches of zero, from which they learn faster.
    """
    if row == RANDOM and mode != FROZEN:
        return RANDOM
    return f'{FROZEN_RANDOM if row == RANDOM else row}={study.checkpoint(row, seed)}'


def write_frames(videos: Path, out: Path, count: int) -> None:
    """Write equally spaced frames of labelled videos as an image folder.

    Args:
        videos (Path): Folder of the videos of MiniScenes.
        out (Path): Folder with a sub-folder per class. Replaced unless made from the same.
        count (int): Number of frames per video.
    """
    import cv2

    from vito_mm.videos import decode_frames, read_manifest

    videos = videos.resolve()  # rows of a manifest name files from the current folder otherwise
    done = out / 'frames.json'
    made_from = dict(count=count, videos=json.loads((videos / RECORD).read_text()))
    if done.is_file() and json.loads(done.read_text()) == made_from:
        return
    shutil.rmtree(out, ignore_errors=True)
    rows = list(read_manifest(videos / 'manifest.jsonl'))
    for index, row in enumerate(rows):
        folder = out / row['class_name']
        folder.mkdir(parents=True, exist_ok=True)
        times = row['seconds'] * (np.arange(count) + 0.5) / count
        frames, _ = decode_frames(
            videos / row['path'], lambda _, times=times: times, channel_order='bgr'
        )
        for number, frame in enumerate(frames):
            cv2.imwrite(str(folder / f'{index:05d}_{number:02d}.png'), frame)
    write_json(done, made_from)


def probes_of(study: Study) -> dict[str, dict[int, dict[str, float]]]:
    """Read the results of the probes by row and seed."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for row, seed in study.runs():
        file = study.folder(row, seed) / 'probe.json'
        if file.is_file():
            found.setdefault(row, {})[seed] = json.loads(file.read_text())
    return found


def transfers_of(study: Study) -> dict[str, list[Outcome]]:
    """Read the outcomes of the transfer suite by mode, of all seeds."""
    return {
        mode: [
            outcome
            for seed in study.seed_numbers
            if (study.suite(mode, seed) / 'suite.json').is_file()
            for outcome in outcomes_in(study.suite(mode, seed))
        ]
        for mode in MODES
    }


def record_of(study: Study) -> dict[str, Any]:
    """Read the commands and conditions of :func:`run_study`."""
    file = study.work_dir / 'study.json'
    if not file.is_file():
        raise StudyError(f'there is no study in {study.work_dir} yet')
    return json.loads(file.read_text())


def jobs_of_machine() -> int:
    """Number of parallel runs: of GPUs, or without any of cores."""
    return torch.cuda.device_count() or count_cores()
