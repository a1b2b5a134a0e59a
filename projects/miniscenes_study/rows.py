"""Rows of the study, and the orderings that the paper found."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from vito_mm.transfer.tasks import RANDOM

VITO = 'vito'
SUPERVISED = 'supervised'
SOURCE = 'source'
ADAPTED = 'adapted'
ORACLE = 'oracle1'

Changes = Callable[[Config], dict[str, Any]]
"""Function from the base config to the settings of a row, for ``merge_from_dict``."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name (str): Name on the command line and of the folders.
        title (str): Name in tables.
        changes (Callable): Settings that differ from full VITO. Defaults to none.
        start (str): Row whose checkpoint of the same seed it starts from. Defaults to none.
        recipe (str): Config, relative to ``configs``, whose optimizer and target momentum it has.
            Defaults to that of full VITO.
    """

    name: str
    title: str
    changes: Changes = lambda base: {}
    start: str = ''
    recipe: str = ''


@dataclass(frozen=True)
class Ordering:
    """A row that the paper found better than another.

    Attributes:
        better (str): Name of the better row.
        worse (str): Name of the worse row.
        paper (str): Result of the paper.
    """

    better: str
    worse: str
    paper: str


def _one_scale(pooling: str) -> Changes:
    def changes(base: Config) -> dict[str, Any]:
        channels = base.model.neck.in_channels[-1]
        return {
            'model.backbone.out_indices': (3,),
            'model.neck.in_channels': (channels,),
            'model.neck.pooling': pooling,
            'model.projector.in_channels': channels,
        }

    return changes


def _sample(**settings: Any) -> Changes:
    stage = 'train_dataloader.dataset.pipeline.sample'
    return lambda base: {f'{stage}.{key}': value for key, value in settings.items()}


def _crop(smallest: float) -> Changes:
    views = 'train_dataloader.dataset.pipeline.augment.pipelines'
    crop = {f'{views}.{name}.crop.crop_ratio_range': (smallest, 1.0) for name in ('A1', 'A2')}
    return lambda base: crop


def _all(*changes: Changes) -> Changes:
    return lambda base: {key: value for part in changes for key, value in part(base).items()}


def _oracle(base: Config) -> dict[str, Any]:
    pipeline = 'train_dataloader.dataset.pipeline'
    views = f'{pipeline}.augment.pipelines'
    return {
        'custom_imports.imports': ['vito_mm', 'projects.miniscenes_study.oracle'],
        'model.backbone.type': 'OracleResNet',
        'model.data_preprocessor.type': 'OraclePreprocessor',
        f'{pipeline}.decode': dict(type='OracleFrames', world='attention'),
        f'{views}.A1.byol.type': 'OracleAugmentation',
        f'{views}.A2.byol.type': 'OracleAugmentation',
    }


_MOCLR = _all(_one_scale('average'), _sample(method='single'))

_RECIPE = 'vito/adapt_r50.py'


def _rate(lr: float) -> Changes:
    return lambda base: {'optim_wrapper.optimizer.lr': lr}


def _heads(base: Config) -> dict[str, Any]:
    """Train attention and projector alone, for a fifth of the steps."""
    frozen = 'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult'
    return {'train_cfg.max_iters': max(2, base.train_cfg.max_iters // 5), frozen: 0.0}


def _rest(base: Config) -> dict[str, Any]:
    """Train for the steps that ``_heads`` leaves."""
    steps = base.train_cfg.max_iters
    return {'train_cfg.max_iters': steps - max(2, steps // 5)}


ROWS = {
    row.name: row
    for row in (
        Row(RANDOM, 'random weights'),
        Row('moclr', 'MoCLR: single frames, crops from 0.08', _all(_MOCLR, _crop(0.08))),
        Row('moclr_crop040', 'MoCLR: single frames, crops from 0.4', _MOCLR),
        Row('average1', 'frames of video, last stage, average', _one_scale('average')),
        Row('attention1', 'frames of video, last stage, attention', _one_scale('attention')),
        Row(
            ORACLE,
            "frames of video, last stage, over the object's mask",
            _all(_one_scale('average'), _oracle),
        ),
        Row(
            'average2',
            'frames of video, two stages, average',
            lambda base: {'model.neck.pooling': 'average'},
        ),
        Row(VITO, 'VITO: frames of video, two stages, attention'),
        Row('single', 'VITO, all views from one frame', _sample(method='single')),
        Row('delta', 'VITO, views 0.75 s apart', _sample(method='delta', delta=0.75)),
        Row('uniform', 'VITO, one view in each part of the segment', _sample(method='uniform')),
        Row('segment128', 'VITO, segment of 1.28 s', _sample(segment=1.28)),
        Row('segment320', 'VITO, segment of 3.2 s', _sample(segment=3.2)),
        Row(SUPERVISED, "supervised, with the videos' labels"),
        Row(SOURCE, 'supervised, on other classes'),
        Row(ADAPTED, '- adapted', start=SOURCE, recipe=_RECIPE),
        Row('adapted_fast', '- adapted at three times the rate', _rate(3e-4), SOURCE, _RECIPE),
        Row('heads', '- its heads alone, a fifth of the steps', _heads, SOURCE, _RECIPE),
        Row('heads_first', '-- then all, the rest of the steps', _rest, 'heads', _RECIPE),
    )
}
"""Rows by name, in the order of the table. All have the same number of views and cost the same; the
paper's MoCLR has two views."""

ADAPTATION_ROWS = (RANDOM, VITO, SOURCE, ADAPTED, 'adapted_fast', 'heads', 'heads_first')
"""Rows of the preset ``adaptation``."""

ATTENTION_ROWS = (
    *(RANDOM, 'moclr', 'moclr_crop040', 'average1', 'attention1', ORACLE),
    *('average2', VITO, 'delta', 'uniform', 'segment128', SUPERVISED),
)
"""Rows of the preset ``attention``."""

STUDY_ROWS = tuple(row for row in ROWS if row not in (*ADAPTATION_ROWS[2:], ORACLE))
"""Rows of the other presets."""

MAIN_ROWS = (RANDOM, 'moclr', VITO, SUPERVISED)
"""Rows that go through the transfer suite."""

ORDERINGS = (
    Ordering(VITO, RANDOM, 'PASCAL 76.3 against 53.0'),
    Ordering(VITO, 'moclr', '+2.8 on PASCAL, both on VideoNet'),
    Ordering('moclr_crop040', 'moclr', '+1.7 on PASCAL, of VITO'),
    Ordering('average1', 'moclr_crop040', 'frames of video against single frames; not alone'),
    Ordering('attention1', 'average1', '+0.2 on PASCAL'),
    Ordering(ORACLE, 'average1', 'not published'),
    Ordering(ORACLE, 'attention1', 'not published'),
    Ordering('average2', 'average1', '+0.6 on PASCAL'),
    Ordering(VITO, 'attention1', '+1.0 on PASCAL'),
    Ordering(VITO, 'average2', 'not alone'),
    Ordering(VITO, 'single', 'not alone'),
    Ordering(VITO, 'delta', 'PASCAL 76.3 against 75.8'),
    Ordering(VITO, 'uniform', 'not published'),
    Ordering(VITO, 'segment128', '+1.0 on PASCAL'),
    Ordering(VITO, 'segment320', 'not published'),
    Ordering(SUPERVISED, VITO, 'PASCAL 71.3 against 75.5: the other way round'),
    Ordering(ADAPTED, SOURCE, 'not published'),
    Ordering(ADAPTED, VITO, 'not published'),
    Ordering('adapted_fast', ADAPTED, 'not published'),
    Ordering('heads', SOURCE, 'not published'),
    Ordering('heads_first', ADAPTED, 'not published'),
)
"""Comparisons of https://arxiv.org/abs/2210.06433, tables 1 to 4."""
