"""Configs by the names that users have for them."""

import pytest

from vito_mm.utils.configs import read_config


@pytest.mark.parametrize(
    'name',
    [
        'gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py',
        'legacy_1.x/retinanet_r50_fpn_1x_coco_v1.py',
    ],
)
def test_folders_of_a_package_may_have_any_name(name):
    pytest.importorskip('mmdet')
    assert read_config(f'mmdet::{name}').model.backbone.type == 'ResNet'


def test_a_config_that_is_not_there_is_told_with_similar_names_and_the_reason():
    pytest.importorskip('mmdet')
    name = 'mmdet::gn+ws/faster-rcnn_r50_fpn_gn-ws-al_1x_coco.py'
    with pytest.raises(FileNotFoundError, match=r"did you mean 'mmdet::gn\+ws/faster.*: ") as found:
        read_config(name)
    assert f"mean '{name}'" not in str(found.value)
    with pytest.raises(FileNotFoundError, match='no_such_package'):
        read_config('no_such_package::a/b.py')
