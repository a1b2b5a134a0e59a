"""What a file computes: files in the public layouts, in every library, against the port itself."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torchvision.models import resnet18

import vito_mm  # noqa: F401  registers and publishes
from tests.helpers.processes import run_tool
from tests.helpers.public_port import SUPERVISED_INPUT, Port, write_moclr, write_port
from tests.helpers.tiny_vito import save, tiny_vito
from vito_mm.checkpoint import (
    Checkpoint,
    CheckpointError,
    check_config,
    conventions,
    export_backbone,
    load_backbone,
    load_pretraining,
    origins,
)

SAME = dict(conv_cfg=dict(type='Conv2dAdaptivePadding'))
LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')
DILATED = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
CAFFE_INPUT = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)


@pytest.fixture(scope='module')
def port(tmp_path_factory):
    """The port with attention and its file."""
    file = tmp_path_factory.mktemp('port') / 'weights.pth'
    return write_port(file), file


@pytest.fixture
def moclr(tmp_path, monkeypatch):
    write_moclr(tmp_path / 'moclr.pth', monkeypatch)
    return tmp_path / 'moclr.pth'


def build(library, **keywords):
    part = dict(
        type='VITOResNet', depth=50, base_channels=4, stem_channels=4, out_indices=(0, 1, 2, 3)
    )
    with DefaultScope.overwrite_default_scope(library):
        return MODELS.build(part | keywords)


@torch.no_grad()
def assert_features_of(port, backbone, sizes):
    backbone.eval()
    for height, width in sizes:
        images = torch.randn(1, 3, height, width)
        for found, wanted in zip(backbone(images), port.stages(images), strict=True):
            assert (found - wanted).norm() < 1e-5 * wanted.norm(), (height, width)


@pytest.mark.parametrize('library', LIBRARIES)
def test_one_line_gives_the_features_of_the_port(library, port):
    model, file = port
    backbone = build(library, checkpoint=str(file), **SAME)
    backbone.init_weights()
    assert_features_of(model, backbone, [(224, 224), (225, 225), (256, 256), (480, 854)])


@pytest.mark.parametrize('library', LIBRARIES)
def test_and_so_it_is_with_dilations(library, port):
    _, file = port
    model = Port(**DILATED)
    model.load_state_dict(torch.load(file))
    backbone = build(library, checkpoint=str(file), **SAME, **DILATED)
    backbone.init_weights()
    assert_features_of(model, backbone, [(224, 224), (97, 130)])


@pytest.mark.parametrize('library', LIBRARIES)
def test_a_plain_resnet_computes_others_and_is_refused(library, port):
    model, file = port
    with pytest.raises(CheckpointError, match=r"conv_cfg=dict\(type='Conv2dAdaptivePadding'\)"):
        build(library, checkpoint=str(file)).init_weights()
    backbone = build(library)
    before = backbone.conv1.weight.clone()
    with pytest.raises(CheckpointError, match='Conv2dAdaptivePadding'):
        load_backbone(backbone, file)
    assert torch.equal(backbone.conv1.weight, before)
    allowed = build(library, checkpoint=str(file), allow_partial=True)
    allowed.init_weights()
    assert_features_of(model, allowed, [(225, 225)])
    with pytest.raises(AssertionError):
        assert_features_of(model, allowed, [(224, 224)])


def test_allowed_differences_are_warned_of(port, monkeypatch):
    lines = []
    monkeypatch.setattr('vito_mm.checkpoint.loading.print_log', lambda line, *_: lines.append(line))
    load_backbone(build('mmdet'), port[1], allow_partial=True)
    assert 'licence unconfirmed' in lines[1]
    assert 'Conv2dAdaptivePadding' in lines[2]
    assert len(lines) == 3


def test_deformable_layers_cannot_do_it(port):
    dcn = dict(type='DCNv2', deform_groups=1, fallback_on_stride=False)
    keywords = dict(dcn=dcn, stage_with_dcn=(False, True, True, True))
    with pytest.raises(CheckpointError, match=r'deformable .* take no conv_cfg'):
        load_backbone(build('mmdet', **keywords), port[1])
    with pytest.raises(AssertionError, match='conv_cfg must be None for DCN'):
        build('mmdet', **keywords, **SAME)
    load_backbone(build('mmdet', **keywords), port[1], allow_partial=True)


@pytest.mark.parametrize(
    ('changes', 'line'),
    [
        (dict(style='caffe'), r"style='pytorch'"),
        (dict(norm_cfg=dict(type='BN', eps=1e-3)), r"norm_cfg=dict\(type='BN', eps=1e-05\)"),
        (dict(norm_cfg=dict(type='SyncBN', eps=1e-3)), r"type='SyncBN', eps=1e-05"),
    ],
)
def test_other_settings_are_refused_with_the_line_to_write(changes, line, port):
    with pytest.raises(CheckpointError, match=line):
        load_backbone(build('mmseg', **SAME, **changes), port[1])


def config(backbone, preprocessor=SUPERVISED_INPUT):
    head = dict(type='FCNHead', in_channels=128, channels=4, num_classes=3, num_convs=1)
    return Config(
        dict(
            default_scope='mmseg',
            custom_imports=dict(imports=['vito_mm']),
            model=dict(
                type='EncoderDecoder',
                backbone=dict(depth=50, base_channels=4, stem_channels=4) | backbone,
                decode_head=head,
                data_preprocessor=dict(type='SegDataPreProcessor') | preprocessor,
            ),
        )
    )


def test_the_check_of_a_config_gives_the_same_verdict(port):
    ours = dict(type='VITOResNet', checkpoint=str(port[1]))
    stock = dict(type='ResNet', init_cfg=dict(type='Pretrained', checkpoint=str(port[1])))
    for backbone in (ours, stock):
        check = check_config(config(backbone | SAME))
        assert (check.match.complete, check.warnings, check.assumed) == (True, [], '')
        assert 'licence unconfirmed' in check.notice
        with pytest.raises(CheckpointError, match='Conv2dAdaptivePadding'):
            check_config(config(backbone))
    wrong = dict(mean=[123.675, 116.28, 103.53], std=[1.0] * 3, bgr_to_rgb=True)
    for preprocessor in (CAFFE_INPUT, wrong):
        with pytest.raises(CheckpointError, match=r'std=\[58\.395, 57\.12, 57\.375\], bgr_to_rgb'):
            check_config(config(ours | SAME, preprocessor))
    check = check_config(config(ours | dict(allow_partial=True), CAFFE_INPUT))
    assert len(check.warnings) == 2


def test_the_input_is_judged_when_training_starts(port):
    ours = dict(type='VITOResNet', checkpoint=str(port[1])) | SAME
    for preprocessor, fails in ((SUPERVISED_INPUT, False), (CAFFE_INPUT, True)):
        with DefaultScope.overwrite_default_scope('mmseg'):
            model = MODELS.build(config(ours, preprocessor).model)
        if fails:
            with pytest.raises(CheckpointError, match='channels arrive as BGR'):
                model.init_weights()
        else:
            model.init_weights()


# By what a file is known


def changed(file, folder, change):
    weights = torch.load(file)
    change(weights)
    torch.save(weights, folder / 'changed.pth')
    return Checkpoint.read(folder / 'changed.pth').conventions


def test_the_public_file_is_known_by_its_content(port, tmp_path):
    found = Checkpoint.read(port[1]).conventions
    assert (found.padding, found.assumed) == ('same', ())
    torch.save({'state_dict': torch.load(port[1])}, tmp_path / 'any name.tar')
    assert Checkpoint.read(tmp_path / 'any name.tar').conventions == found
    for change in (
        lambda weights: weights.pop('avgpool.module_list.2.bias'),
        lambda weights: weights.pop('layer3.1.bn2.bias'),
        lambda weights: weights.update({'avgpool.module_list.4.weight': torch.ones(1, 3, 1, 1)}),
        lambda weights: weights.update({'fc.weight': torch.ones(7, 3)}),
        lambda weights: weights.update({'extra.weight': torch.ones(1)}),
    ):
        assert set(changed(port[1], tmp_path, change).assumed) == set(conventions.FIELDS)


def test_the_other_one_is_known_by_its_digest(moclr, tmp_path):
    assert Checkpoint.read(moclr).conventions == origins.MOCLR
    with pytest.raises(CheckpointError, match='MoCLR checkpoint'):
        load_backbone(build('mmdet'), moclr)
    load_backbone(build('mmdet', **SAME), moclr)
    found = changed(moclr, tmp_path, lambda weights: weights['fc.bias'].add_(1))
    assert found.padding == 'symmetric'
    assert 'padding' in found.assumed


def test_of_unknown_files_it_is_assumed_and_only_warned_of(tmp_path, monkeypatch):
    write_port(tmp_path / 'unknown.pth', attention=False)
    lines = []
    monkeypatch.setattr('vito_mm.checkpoint.loading.print_log', lambda line, *_: lines.append(line))
    load_backbone(build('mmdet'), tmp_path / 'unknown.pth')
    (line,) = lines
    for word in ('assumed', 'symmetric padding', '3x3', 'eps 1e-05', 'RGB'):
        assert word in line
    lines.clear()
    load_backbone(build('mmdet', **SAME), tmp_path / 'unknown.pth')
    assert '--declare padding=same' in lines[1]
    load_backbone(build('mmdet', conv_cfg=dict(type='ConvWS')), tmp_path / 'unknown.pth')
    assert 'standardise' in lines[3]


def test_what_is_assumed_of_resnets_is_not_of_other_architectures(tmp_path, monkeypatch):
    """EfficientNet has SAME padding without a declaration; what is declared holds for it, too."""
    source = MODELS.build(dict(type='mmpretrain.EfficientNet', arch='b0'))
    torch.save(source.state_dict(), tmp_path / 'own.pth')
    lines = []
    monkeypatch.setattr('vito_mm.checkpoint.loading.print_log', lambda line, *_: lines.append(line))
    load_backbone(source, tmp_path / 'own.pth')
    (line,) = lines
    assert 'RGB' in line
    assert 'padding' not in line
    file = Checkpoint.read(tmp_path / 'own.pth')
    known = dict(state_dict=file.state_dict)
    for padding, fails in (('same', False), ('symmetric', True)):
        known['meta'] = dict(conventions=file.conventions.declare([f'padding={padding}']).to_meta())
        torch.save(known, tmp_path / f'{padding}.pth')
        if fails:
            with pytest.raises(CheckpointError, match='same padding on all sides'):
                load_backbone(source, tmp_path / f'{padding}.pth')
        else:
            load_backbone(source, tmp_path / f'{padding}.pth')


def test_a_declared_order_is_that_of_mean_and_std(tmp_path):
    """Alone it turns the usual ones; those that are given are in it already."""
    file = write_file(tmp_path)
    declare = Checkpoint.read(file).conventions.declare
    mean, std = [103.53, 116.28, 123.675], [57.375, 57.12, 58.395]
    found = declare(['channel_order=bgr'])
    assert found.preprocessing == dict(mean=mean, std=std, channel_order='bgr')
    for order in (('channel_order=bgr', 'mean=1,2,3'), ('mean=1,2,3', 'channel_order=bgr')):
        found = declare(order).preprocessing
        assert found == dict(mean=[1.0, 2.0, 3.0], std=std, channel_order='bgr')
    assert declare(['channel_order=rgb']).preprocessing['mean'] == mean[::-1]

    export_backbone(file, tmp_path / 'bgr.pth', declare=['channel_order=bgr'])
    for values, fails in ((mean, False), (mean[::-1], True)):
        settings = dict(type='mmdet.DetDataPreprocessor', mean=values, std=std, bgr_to_rgb=False)
        preprocessor = MODELS.build(settings)
        if fails:
            with pytest.raises(CheckpointError, match='data preprocessor'):
                load_backbone(build('mmdet'), tmp_path / 'bgr.pth', preprocessor=preprocessor)
        else:
            load_backbone(build('mmdet'), tmp_path / 'bgr.pth', preprocessor=preprocessor)


def test_what_a_user_declares_is_known(tmp_path, port):
    model = write_port(tmp_path / 'unknown.pth', attention=False)
    exported = export_backbone(
        tmp_path / 'unknown.pth',
        tmp_path / 'declared.pth',
        declare=['padding=same', 'eps=1e-5', 'mean=0,0,0', 'std=255,255,255', 'channel_order=bgr'],
    )
    assert exported['meta']['preprocessing'] == dict(
        mean=[0.0] * 3, std=[255.0] * 3, channel_order='bgr'
    )
    with pytest.raises(CheckpointError, match='Conv2dAdaptivePadding'):
        load_backbone(build('mmdet'), tmp_path / 'declared.pth')
    backbone = build('mmdet', **SAME)
    load_backbone(backbone, tmp_path / 'declared.pth')
    assert_features_of(model, backbone, [(64, 64)])
    assert Checkpoint.read(tmp_path / 'declared.pth').conventions.assumed == (
        'stride_in',
        'convolution',
    )
    for file, wrong, reason in (
        ('unknown.pth', 'padding=full', "one of .*'same'"),
        ('unknown.pth', 'eps=7', 'small number'),
        ('unknown.pth', 'channel_order=gbr', "'rgb' or 'bgr'"),
        ('unknown.pth', 'colour=red', 'declares nothing'),
        ('unknown.pth', 'mean=0.485,0.456,0.406', r'\[0, 255\]'),
        ('unknown.pth', 'std=0.229,0.224,0.225', r'\[0, 255\]'),
        ('unknown.pth', 'std=0,0,0', r'\[0, 255\]'),
        ('unknown.pth', 'mean=124,116', 'one finite number or three'),
        ('unknown.pth', 'mean=', 'one finite number or three'),
        ('unknown.pth', 'std=nan,57,57', 'one finite number or three'),
        (port[1], 'padding=symmetric', 'known'),
    ):
        with pytest.raises(ValueError, match=reason):
            Checkpoint.read(tmp_path / file).conventions.declare([wrong])


def test_a_declaration_on_the_command_line(tmp_path, monkeypatch, capsys):
    write_port(tmp_path / 'unknown.pth', attention=False)
    words = (tmp_path / 'unknown.pth', tmp_path / 'declared.safetensors', '--declare')
    run_tool(monkeypatch, 'export_checkpoint.py', *words, 'padding=same', 'stride_in=1x1')
    assert '"padding": "same"' in capsys.readouterr().out
    found = Checkpoint.read(tmp_path / 'declared.safetensors').conventions
    assert (found.padding, found.stride_in) == ('same', '1x1')
    with pytest.raises(SystemExit, match='declares nothing'):
        run_tool(monkeypatch, 'export_checkpoint.py', *words, 'colour=red')


@pytest.mark.parametrize('layout', ['openmmlab', 'torchvision', 'timm', 'detectron2'])
def test_exports_keep_them_and_layouts_without_such_padding_are_warned_of(
    layout, checkpoints, tmp_path, monkeypatch
):
    lines = []
    monkeypatch.setattr('vito_mm.checkpoint.export.print_log', lambda line, *_: lines.append(line))
    known = tmp_path / 'known.pth'
    export_backbone(checkpoints['torchvision'], known, declare=['padding=same'])
    export_backbone(known, tmp_path / 'out.pth', layout=layout)
    found = Checkpoint.read(tmp_path / 'out.pth').conventions
    assert found == Checkpoint.read(known).conventions
    assert (found.padding, 'padding' in found.assumed) == ('same', False)
    assert 'Conv2dAdaptivePadding' in lines[1]
    assert ('computes other features' in lines[1]) == (layout != 'openmmlab')
    with pytest.raises(CheckpointError, match='Conv2dAdaptivePadding'):
        load_backbone(resnet18(), tmp_path / 'out.pth')


def test_an_export_says_whose_weights_they_are(port, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr('vito_mm.checkpoint.export.print_log', lambda line, *_: lines.append(line))
    export_backbone(port[1], tmp_path / 'out.pth')
    assert 'licence unconfirmed' in lines[0]
    assert Checkpoint.read(tmp_path / 'out.pth').conventions == origins.VITO


def stored(tmp_path, text, **meta):
    weights = {f'backbone.{key}': value for key, value in Port(False).state_dict().items()}
    file = tmp_path / 'iter_7.pth'
    torch.save(dict(state_dict=weights, meta=dict(meta, iter=7, cfg=text)), file)
    return Checkpoint.read(file).conventions


def test_a_stored_config_tells(tmp_path):
    """As MMEngine dumps it in fine-tuning with mmseg and mmdet."""
    backbone = dict(type='VITOResNet', style='caffe', norm_cfg=dict(type='BN', eps=1e-3)) | SAME
    model = dict(type='EncoderDecoder', backbone=backbone)
    model['data_preprocessor'] = dict(type='SegDataPreProcessor') | CAFFE_INPUT
    found = stored(tmp_path, Config(dict(model=model)).pretty_text)
    assert (found.padding, found.stride_in, found.eps, found.assumed) == ('same', '1x1', 1e-3, ())
    assert found.preprocessing == dict(
        mean=CAFFE_INPUT['mean'], std=CAFFE_INPUT['std'], channel_order='bgr'
    )
    detector = dict(type='FasterRCNN', backbone=dict(type='mmdet.ResNet'))
    model = dict(type='SoftTeacher', detector=detector)
    outer = dict(type='MultiBranchDataPreprocessor', data_preprocessor=CAFFE_INPUT)
    found = stored(tmp_path, Config(dict(model=model | dict(data_preprocessor=outer))).pretty_text)
    assert (found.padding, found.stride_in, found.eps) == ('symmetric', '3x3', 1e-5)
    assert found.assumed == ()
    assert found.preprocessing['channel_order'] == 'bgr'


def test_a_stored_config_that_tells_nothing_is_no_obstacle(tmp_path):
    two = dict(a=dict(backbone=dict(type='ResNet')), b=dict(backbone=dict(type='ResNet') | SAME))
    for text in ('', 'model = 1', f'model = {two!r}', 'model = open("x", "w")'):
        found = stored(tmp_path, text)
        assert set(found.assumed) == set(conventions.FIELDS)
    swin = dict(backbone=dict(type='SwinTransformer'))
    assert 'eps' in stored(tmp_path, f'model = {swin!r}').assumed
    swin['backbone']['norm_cfg'] = dict(type='LN', eps=1e-6)
    found = stored(tmp_path, f'model = {swin!r}')
    assert (found.eps, 'eps' in found.assumed) == (1e-6, False)
    known = dict(mean=[0.0], std=[1.0], channel_order='rgb')
    assert stored(tmp_path, '', preprocessing=known).preprocessing == known


def test_metadata_of_another_version(tmp_path):
    export_backbone(write_file(tmp_path), tmp_path / 'out.pth')
    content = torch.load(tmp_path / 'out.pth')
    content['meta']['conventions']['padding'] = 'mirror'
    torch.save(content, tmp_path / 'out.pth')
    with pytest.raises(CheckpointError, match='does not know'):
        load_backbone(build('mmdet'), tmp_path / 'out.pth')


def write_file(folder):
    write_port(folder / 'unknown.pth', attention=False)
    return folder / 'unknown.pth'


# What a network computes


@pytest.mark.parametrize(
    ('part', 'eps', 'usual'),
    [
        (dict(type='mmseg.VisionTransformer', embed_dims=8, num_heads=1, num_layers=1), 1e-5, 1e-6),
        (dict(type='mmpretrain.VisionTransformer', arch='deit-tiny'), 1e-6, 1e-6),
        (dict(type='mmpretrain.ConvNeXt', arch='atto'), 1e-6, 1e-6),
        (dict(type='mmdet.SwinTransformer', embed_dims=8, num_heads=(1, 1, 1, 1)), 1e-5, 1e-5),
    ],
)
def test_epsilons_of_transformers(part, eps, usual, tmp_path):
    backbone = MODELS.build(part)
    weights = backbone.state_dict()
    found = conventions.conventions_of(backbone, weights)
    assert (found.eps, found.padding, found.stride_in) == (eps, None, None)
    torch.save(weights, tmp_path / 'weights.pth')
    file = Checkpoint.read(tmp_path / 'weights.pth')
    warnings = conventions.require_same_features(file, backbone, weights)
    assert len(warnings) == (eps != usual)
    assert all('eps=1e-06' in text for text in warnings)


def test_only_what_gets_weights_counts():
    plugin = dict(
        cfg=dict(type='ContextBlock', ratio=1 / 4),
        stages=(False, True, True, True),
        position='after_conv3',
    )
    backbone = build('mmdet', plugins=[plugin], norm_cfg=dict(type='BN', eps=1e-3))
    found = conventions.conventions_of(backbone, Port(False).state_dict())
    assert found.eps == 1e-3


# Pre-training that starts from a file

TINY = dict(type='ResNet', depth=50, base_channels=4, stem_channels=4, out_indices=(2, 3))


def test_pretraining_starts_from_the_public_file_with_the_same_line(port):
    model, _ = tiny_vito(TINY, (64, 128))
    with pytest.raises(CheckpointError, match='Conv2dAdaptivePadding'):
        load_pretraining(model, port[1])
    model, _ = tiny_vito(TINY | SAME, (64, 128))
    load_pretraining(model, port[1])
    assert torch.equal(model.backbone.conv1.weight, port[0].conv1.weight)
    model.data_preprocessor.mean += 50
    with pytest.raises(CheckpointError, match='data preprocessor'):
        load_pretraining(model, port[1])


def test_a_complete_model_of_other_conventions_is_refused(tmp_path):
    model, text = tiny_vito(TINY | SAME, (64, 128))
    file = save(tmp_path / 'iter_7.pth', model, text)
    load_pretraining(model, file)
    with pytest.raises(CheckpointError, match='Conv2dAdaptivePadding'):
        load_pretraining(tiny_vito(TINY, (64, 128))[0], file)


def test_a_complete_model_in_integers_is_refused(tmp_path):
    model, text = tiny_vito(TINY, (64, 128))
    content = torch.load(save(tmp_path / 'iter_7.pth', model, text), weights_only=False)
    weights = content['state_dict']
    content['state_dict'] = {
        key: (value * 100).to(torch.int8) if key.startswith('projector.') else value
        for key, value in weights.items()
    }
    torch.save(content, tmp_path / 'integers.pth')
    with pytest.raises(CheckpointError, match=r'no floating-point weights.*projector'):
        load_pretraining(model, tmp_path / 'integers.pth')
