"""Identity of a run, wherever its data lies."""

import pytest
from mmengine.config import Config

from vito_mm.transfer.identity import moved_data, without_places


def config_of(root: str) -> Config:
    """Loaders and an evaluator as configs write them: paths made of the root and a text."""
    below = root if root.endswith('/') else f'{root}/'
    leaf = dict(
        type='CocoDataset',
        data_root=root,
        ann_file='annotations/a.json',
        data_prefix=dict(img='train/', seg=''),
    )
    return Config(
        dict(
            train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=leaf)),
            val_dataloader=dict(dataset=leaf),
            val_evaluator=dict(type='CocoMetric', ann_file=below + 'annotations/a.json'),
        )
    )


ROOTS = ['data/coco', 'data/coco/', './data/coco', 'data/./coco', 'data//coco/', '.', './', '/d/c/']


@pytest.mark.parametrize('root', ROOTS)
def test_data_is_moved_however_the_root_is_written(root):
    slash = '/' if root.endswith('/') else ''
    assert moved_data(config_of(root), '/new/') == {
        'train_dataloader.dataset.dataset.data_root': f'/new{slash}',
        'val_dataloader.dataset.data_root': f'/new{slash}',
        'val_evaluator.ann_file': '/new/annotations/a.json',
    }


def test_what_only_begins_like_the_root_is_not_moved():
    cfg = config_of('./data/coco')
    cfg.val_evaluator.ann_file = 'data/coco2/a.json'
    cfg.val_evaluator.outfile_prefix = '../data/coco/x'
    assert 'val_evaluator.ann_file' not in moved_data(cfg, '/new')
    assert 'val_evaluator.outfile_prefix' not in moved_data(cfg, '/new')
    assert moved_data(config_of(''), '/new') == {}


@pytest.mark.parametrize('root', ROOTS)
def test_a_config_is_the_same_wherever_its_data_lies(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = config_of(root)
    here = without_places(cfg.to_dict())
    assert here['val_evaluator']['ann_file'] == '<data 0>/annotations/a.json'
    assert here['val_dataloader']['dataset']['data_root'] == '<data 0>'
    assert here['val_dataloader']['dataset']['data_prefix'] == dict(img='train/', seg='')
    cfg.merge_from_dict(moved_data(cfg, str(tmp_path / 'elsewhere')))
    assert without_places(cfg.to_dict()) == here
