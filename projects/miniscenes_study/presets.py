"""Sizes of the study: on a CPU, on a GPU, and for tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vito_mm.transfer.tasks import RANDOM, TASKS

from .rows import ADAPTATION_ROWS, ADAPTED, ATTENTION_ROWS, MAIN_ROWS, SOURCE, STUDY_ROWS, VITO


@dataclass(frozen=True)
class StudyPreset:
    """Size of the study.

    Attributes:
        world (str): Preset of MiniScenes.
        folder (str): Folder of it, in ``data``.
        base (str): Config of full VITO, relative to ``configs``.
        supervised (str): Config of the upper line, relative to ``configs``.
        image_size (int): Side of the images of the probes and of all crops, in pixels.
        views (int): Number of views of a clip.
        settings (Mapping[str, Any]): Changes to the config of every pre-training.
        transfer (tuple[str, ...]): Settings of the transfer suite, as its ``--cfg-options``.
        frames (int): Number of frames of each video for the upper line.
        rows (tuple[str, ...]): Rows to pre-train, unless the command names others.
        transfer_rows (tuple[str, ...]): Rows to transfer as well, likewise.
        modes (tuple[str, ...]): Treatments of the backbone in the transfer.
        tasks (tuple[str, ...]): Tasks of the transfer, unless the command names others.
        seeds (int): Number of seeds, likewise.
        objects (bool): Also probe features that are pooled over the object, and measure how much of
            the attention lies on it.
        classes (tuple[int, ...], optional): Classes of the world. Defaults to all.
        source (tuple[int, ...], optional): Classes of another such world, with whose labels the row
            ``source`` is trained.
    """

    world: str
    folder: str
    base: str
    supervised: str
    image_size: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    transfer: tuple[str, ...] = ()
    views: int = 3
    frames: int = 16
    rows: tuple[str, ...] = STUDY_ROWS
    transfer_rows: tuple[str, ...] = MAIN_ROWS
    modes: tuple[str, ...] = ('fine-tuned', 'frozen')
    tasks: tuple[str, ...] = tuple(TASKS)
    seeds: int = 3
    objects: bool = False
    classes: tuple[int, ...] | None = None
    source: tuple[int, ...] | None = None


_R50 = (
    *('model.backbone.depth=50', 'model.backbone.stem_channels=64'),
    'model.backbone.base_channels=64',
    *(f'{task}:model.decode_head.in_channels=2048' for task in ('pascal', 'ade20k')),
    *(f'{task}:model.neck.in_channels=[256,512,1024,2048]' for task in ('coco', 'lvis')),
)

PRESETS = {
    'cpu': StudyPreset(
        world='demo',
        folder='miniscenes',
        base='miniscenes/pretrain_r18.py',
        supervised='miniscenes/supervised_r18.py',
        image_size=64,
        settings={'train_cfg.max_iters': 400, 'train_dataloader.num_workers': 1},
    ),
    'gpu': StudyPreset(
        world='study',
        folder='study',
        base='miniscenes/pretrain_r50_study.py',
        supervised='miniscenes/supervised_r50.py',
        image_size=112,
        transfer=_R50,
    ),
    'adaptation': StudyPreset(
        world='demo',
        folder='miniscenes_4_to_7',
        base='miniscenes/pretrain_r18.py',
        supervised='miniscenes/supervised_r18.py',
        image_size=48,
        views=2,
        settings={
            'train_cfg.max_iters': 200,
            'train_dataloader.batch_size': 32,
            'train_dataloader.num_workers': 1,
        },
        rows=ADAPTATION_ROWS,
        transfer_rows=(VITO, SOURCE, ADAPTED),
        modes=('fine-tuned',),
        tasks=('pascal',),
        classes=(4, 5, 6, 7),
        source=(0, 1, 2, 3),
    ),
    'attention': StudyPreset(
        world='attention',
        folder='attention',
        base='miniscenes/pretrain_r18_stride16.py',
        supervised='miniscenes/supervised_r18_stride16.py',
        image_size=96,
        views=2,
        settings={'train_cfg.max_iters': 1200, 'train_dataloader.num_workers': 1},
        transfer=(
            *('model.backbone.stem_channels=16', 'model.backbone.base_channels=16'),
            'pascal:model.decode_head.in_channels=128',
        ),
        rows=ATTENTION_ROWS,
        transfer_rows=(RANDOM, 'average1', 'attention1', 'average2', VITO),
        tasks=('pascal',),
        seeds=5,
        objects=True,
    ),
    'tiny': StudyPreset(
        world='tiny',
        folder='tiny',
        base='miniscenes/pretrain_r18.py',
        supervised='miniscenes/supervised_r18.py',
        image_size=64,
        settings={
            'train_cfg.max_iters': 4,
            'train_dataloader.batch_size': 4,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
        },
        transfer=(
            *(f'{task}:train_cfg.max_iters=2' for task in ('pascal', 'ade20k')),
            *(f'{task}:train_cfg.val_interval=2' for task in ('pascal', 'ade20k')),
        ),
        frames=2,
        source=(0, 1, 2, 3),
    ),
}
"""``cpu`` is the demo's network and takes an hour to an hour and a half on two cores, ``gpu`` is
ResNet-50 at 112 px. ``adaptation`` goes on from weights that were trained with labels on the other
four classes, at 48 px and with two views. ``attention`` is a narrow network of stride 16 at 96 px
on small objects, where it can matter where a network looks. ``tiny`` learns nothing and is for
tests."""
