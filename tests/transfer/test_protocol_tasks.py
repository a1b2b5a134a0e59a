"""The protocols of PooDLe, Midway and BDD100K's model zoo as tasks of the suite."""

import ast
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from tests.conftest import REPO
from tests.helpers.bdd100k import write_bdd100k
from tests.transfer.conftest import problems
from vito_mm.evaluation.bdd100k import convert_labels
from vito_mm.launch import parse_options
from vito_mm.transfer.options import setting_words, split_tasks
from vito_mm.transfer.plan import make_plan
from vito_mm.transfer.report.published import PROTOCOL_PUBLISHED
from vito_mm.transfer.tasks import PROTOCOL_TASKS, TASKS, Task
from vito_mm.utils.configs import read_config

PROTOCOLS = REPO / 'configs/protocols'


@pytest.fixture(scope='module')
def layouts(tmp_path_factory) -> dict[str, Path]:
    """Data folders with an image of each split, by data set."""
    root = tmp_path_factory.mktemp('layouts')
    rng = np.random.default_rng(0)

    def write(image: str, mask: str, classes: int) -> None:
        for name, shape, high in ((image, (48, 96, 3), 256), (mask, (48, 96), classes)):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / name), rng.integers(0, high, shape, dtype=np.uint8))

    for split in ('training', 'validation'):
        write(f'ade/images/{split}/a.jpg', f'ade/annotations/{split}/a.png', 151)
    for split in ('train', 'val'):
        parts = (f'{kind}/{split}/city/a_{kind}' for kind in ('leftImg8bit', 'gtFine'))
        image, mask = (f'cityscapes/{part}' for part in parts)
        write(f'{image}.png', f'{mask}_labelTrainIds.png', 19)
    convert_labels(write_bdd100k(root / 'bdd100k'))
    return dict(ade20k=root / 'ade', cityscapes=root / 'cityscapes', bdd100k=root / 'bdd100k')


def data_of(layouts: dict[str, Path], names) -> list[str]:
    return [f'{name}={layouts[name.rpartition("_")[2]]}' for name in names]


@pytest.mark.parametrize(
    'names',
    [
        ['linear_ade20k', 'upernet_cityscapes', 'linear_bdd100k', 'faster_rcnn_bdd100k'],
        pytest.param([*PROTOCOL_TASKS], marks=pytest.mark.slow),
    ],
    ids=len,
)
def test_every_protocol_is_planned_by_its_name(options, layouts, names):
    runs = make_plan(options(tasks=names, data=data_of(layouts, names))).runs
    assert [run.task.name for run in runs] == names
    for run in runs:
        task, is_detection = run.task, 'rcnn' in run.task.name
        assert task.title == PROTOCOL_TASKS[task.name]
        expected = ('mmdet', 'coco/bbox_mAP', 100) if is_detection else ('mmseg', 'mIoU', 1)
        assert (task.package, task.metric, task.scale) == expected
        cfg = read_config(run.config_file)  # as tools/train.py does
        cfg.merge_from_dict(parse_options(setting_words(run.cfg_options)))
        assert cfg.model.backbone.type == 'VITOResNet'
        assert bool(cfg.model.backbone.get('frozen')) == task.name.startswith('linear')
        root = str(layouts[task.name.rpartition('_')[2]])
        assert cfg.train_dataloader.dataset.data_root.startswith(root)
        assert Task.from_record(task.record()) == task


def test_names_of_protocols():
    files = {file.stem for file in PROTOCOLS.glob('*.py')}
    assert files - {'ucf101_r50'} == {*PROTOCOL_TASKS}
    assert not {*PROTOCOL_TASKS} & {*TASKS}
    assert split_tasks(['coco', 'linear_ade20k']) == dict(coco='', linear_ade20k='linear_ade20k.py')
    with pytest.raises(ValueError, match=r'linear_ade20k .*another name'):
        split_tasks(['linear_ade20k=mine.py'])


def test_what_is_missing_is_named(options, layouts):
    (found,) = problems(options(tasks=['uppernet_ade20k'], data=[]))
    assert "'upernet_ade20k'" in found
    labels = layouts['bdd100k'] / 'labels/det_20'
    setting = f'val_evaluator.ann_file={labels}/gone.json'
    words = dict(data=data_of(layouts, ['faster_rcnn_bdd100k']), cfg_options=[setting])
    (found,) = problems(options(tasks=['faster_rcnn_bdd100k'], **words))
    assert 'BDD100K, Faster R-CNN' in found
    assert 'gone.json' in found


@pytest.mark.parametrize('name', PROTOCOL_TASKS)
def test_the_command_of_the_docstring_runs_the_complete_batch(name):
    file = PROTOCOLS / f'{name}.py'
    cfg, text = Config.fromfile(file), ast.get_docstring(ast.parse(file.read_text()))
    package = 'mmdet' if 'rcnn' in name else 'mmseg'
    command = f'mim train {package} configs/protocols/{name}.py --gpus '
    gpus = int(text.partition(command)[2].split()[0])
    batch = dict(ade20k=16, cityscapes=8).get(name.rpartition('_')[2], 32 if 'rcnn' in name else 8)
    assert cfg.auto_scale_lr.base_batch_size == batch == gpus * cfg.train_dataloader.batch_size
    last, loop = cfg.param_scheduler[-1], cfg.train_cfg
    assert last.end == (loop.max_epochs if last.by_epoch else loop.max_iters)


def test_published_rows_are_of_protocols_and_in_their_configs():
    assert {key for row in PROTOCOL_PUBLISHED for key in row.scores} <= {*PROTOCOL_TASKS}
    for row in PROTOCOL_PUBLISHED:
        assert row.source
        assert row.network
        for key, score in row.scores.items():
            text = (PROTOCOLS / f'{key}.py').read_text()
            assert (f'{score}' in text) == (row.network == 'ResNet-50')
