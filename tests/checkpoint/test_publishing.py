"""Published files: a folder that timm loads, its card, and fine-tuned models alone."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from PIL import Image
from safetensors import safe_open
from torchvision.models import resnet18, resnet50

from tests.helpers.processes import run_tool
from tests.helpers.tiny_vito import save, tiny_vito
from vito_mm.checkpoint import Checkpoint, CheckpointError, export_backbone, load_backbone
from vito_mm.checkpoint.publishing import export_to_hub, publish_model
from vito_mm.probes.loading import load_encoder

RECORD = dict(
    command='tools/train.py configs/vito/pretrain_r50.py --work-dir /home/somebody/run',
    iteration=0,
    seed=3,
    processes=8,
    clips_per_optimizer_step=256,
    versions=dict(vito_mm='0.2.0', torch='2.11.0'),
    git='0123abcd',
    data=[
        dict(
            type='VideoDataset',
            samples=1000,
            files=900,
            source='/home/somebody/videos.jsonl',
            sha256='fedc',
        )
    ],
    environment={'sys.platform': 'linux', 'GPU 0,1,2,3,4,5,6,7': 'NVIDIA A100', 'GCC': 'gcc 12'},
)


def write_run(folder: Path, started: str, iteration: int, lines: list[dict]) -> None:
    """A start of a run as it is recorded in the folder of its checkpoints."""
    (folder / started / 'vis_data').mkdir(parents=True)
    record = RECORD | dict(iteration=iteration, seed=iteration)
    (folder / started / 'run.json').write_text(json.dumps(record))
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    (folder / started / 'vis_data/scalars.json').write_text(text)


@pytest.fixture
def trained(checkpoints, tmp_path):
    """A training checkpoint of iteration 30, in its folder with the records of three starts."""
    folder = tmp_path / 'run'
    probe = [dict(knn_top1=float(step), iter=step, step=step) for step in (0, 20, 30, 40)]
    step = dict(loss=1.5, time=0.1, iter=30, step=30)
    write_run(folder, '20250101_000000', 0, [*probe[:2], step])
    write_run(folder, '20250102_000000', 25, probe[2:])
    write_run(folder, '20250103_000000', 35, [])
    (folder / 'iter_30.pth').symlink_to(checkpoints['training'])
    return folder / 'iter_30.pth'


@pytest.mark.parametrize('which', ['online', pytest.param('target', marks=pytest.mark.slow)])
def test_timm_computes_the_features_of_the_encoder(which, trained, tmp_path, monkeypatch):
    exported = export_to_hub(trained, tmp_path / 'new/out', which)
    assert sorted(file.name for file in (tmp_path / 'new/out').iterdir()) == [
        *('README.md', 'config.json', 'model.safetensors')
    ]
    assert [folder.name for folder in (tmp_path / 'new').iterdir()] == ['out']
    model = timm.create_model(f'local-dir:{tmp_path / "new/out"}', pretrained=True).eval()
    assert model.num_classes == 0
    assert model.num_features == exported['config']['num_features'] == 512

    image = np.random.default_rng(0).integers(0, 256, (260, 300, 3), dtype=np.uint8)
    data = timm.data.resolve_model_data_config(model)
    assert data['mean'] == pytest.approx((0.485, 0.456, 0.406))
    assert data['std'] == pytest.approx((0.229, 0.224, 0.225))
    transform = timm.data.create_transform(**data, is_training=False)
    with torch.no_grad():
        found = model(transform(Image.fromarray(image)).unsqueeze(0))
    expected = load_encoder(trained, which)([image])
    torch.testing.assert_close(found, expected.cpu(), rtol=1e-5, atol=1e-5)

    # What is downloaded of the Hub are the files of the folder.
    monkeypatch.setattr(
        'timm.models._hub.hf_hub_download',
        lambda repo_id, filename, **_: str(tmp_path / 'new/out' / filename),
    )
    hub = timm.create_model('hf-hub:owner/out', pretrained=True)
    assert hub.pretrained_cfg['mean'] == model.pretrained_cfg['mean']
    assert all(torch.equal(v, hub.state_dict()[k]) for k, v in model.state_dict().items())


def test_the_folder_is_a_checkpoint_like_any_other(trained, tmp_path, online):
    export_to_hub(trained, tmp_path / 'out')
    encoder = load_encoder(tmp_path / 'out/model.safetensors')
    weights = encoder.backbone.state_dict()
    assert torch.equal(weights['conv1.weight'], online.conv1.weight)
    export_to_hub(tmp_path / 'out/model.safetensors', tmp_path / 'again')
    first, second = (
        Checkpoint.read(tmp_path / f'{name}/model.safetensors').meta for name in ('out', 'again')
    )
    assert first == second
    assert first['source'] == 'iter_30.pth'  # no folder of this machine


def test_the_card_says_what_is_recorded(trained, tmp_path):
    export_to_hub(trained, tmp_path / 'out')
    card = (tmp_path / 'out/README.md').read_text()
    for said in (
        'library_name: timm',
        Checkpoint.read(trained).sha256,
        'iterations of training: 30',
        '`videos.jsonl`, VideoDataset, 1000 samples of 900 files',
        '`tools/train.py configs/vito/pretrain_r50.py --work-dir run`',
        'clips per optimizer step: 256, seed: 25',  # of the start that led to iteration 30
        'processes: 8, system: linux, GPUs: NVIDIA A100',
        'vito_mm 0.2.0',
        '0123abcd',
        '| knn_top1 | 30 | 30 |',
        "timm.create_model('hf-hub:OWNER/out'",
    ):
        assert said in card
    assert 'loss' not in card
    assert 'somebody' not in card
    assert 'assumed' not in card
    licence = re.search(r'## Licence\n\n(.*)', card)[1]
    assert 'Not chosen' in licence
    assert not re.search(r'^license:', card, re.M)


def test_the_card_says_what_is_not_known(checkpoints, tmp_path):
    export_to_hub(checkpoints['torchvision'], tmp_path / 'out')
    card = (tmp_path / 'out/README.md').read_text()
    for said in ('iterations of training: not known', 'No record of the run', 'assumed'):
        assert said in card


def test_what_timm_cannot_be_is_refused(tmp_path, checkpoints, monkeypatch):
    model, text = tiny_vito()
    save(tmp_path / 'narrow.pth', model, text)
    with pytest.raises(CheckpointError, match='16 channels'):
        export_to_hub(tmp_path / 'narrow.pth', tmp_path / 'out')
    for layout in ('timm', 'torchvision'):
        with pytest.raises(CheckpointError, match='16 channels'):
            export_backbone(tmp_path / 'narrow.pth', tmp_path / 'out.pth', layout=layout)
    export_backbone(
        tmp_path / 'narrow.pth', tmp_path / 'narrow_detectron2.pth', layout='detectron2'
    )
    pixels = dict(mean=[1.0] * 3, std=[1.0] * 3, channel_order='bgr')
    turned = dict(state_dict=resnet18().state_dict(), meta=dict(preprocessing=pixels))
    torch.save(turned, tmp_path / 'turned.pth')
    with pytest.raises(CheckpointError, match='BGR'):
        export_to_hub(tmp_path / 'turned.pth', tmp_path / 'out')
    assert not [file for file in tmp_path.iterdir() if file.name.startswith('out')]

    (tmp_path / 'out').mkdir()
    export_to_hub(checkpoints['training'], tmp_path / 'out')
    with pytest.raises(CheckpointError, match='exists'):
        export_to_hub(checkpoints['training'], tmp_path / 'out')


def test_what_is_declared_is_published(checkpoints, tmp_path):
    declare = ['mean=127.5,127.5,0', 'std=255,255,51', 'channel_order=rgb']
    exported = export_to_hub(checkpoints['torchvision'], tmp_path / 'out', declare=declare)
    pixels = json.loads((tmp_path / 'out/config.json').read_text())['pretrained_cfg']
    assert (pixels['mean'], pixels['std']) == ([0.5, 0.5, 0.0], [1.0, 1.0, 0.2])
    assert exported['meta']['preprocessing']['mean'] == [127.5, 127.5, 0.0]
    card = (tmp_path / 'out/README.md').read_text()
    assert 'mean [0.5, 0.5, 0.0]' in card
    with pytest.raises(CheckpointError, match='BGR'):
        export_to_hub(checkpoints['torchvision'], tmp_path / 'bgr', declare=['channel_order=bgr'])
    assert not (tmp_path / 'bgr').exists()


def test_a_resnet50_of_torchvision_in_another_folder(tmp_path, monkeypatch):
    """Whether it is the public MoCLR is told by the digest of the file."""
    source = resnet50()
    torch.save(source.state_dict(), tmp_path / 'resnet50.pth')
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    exported = export_to_hub(tmp_path / 'resnet50.pth', tmp_path / 'out')
    assert (exported['config']['architecture'], exported['meta']['source']) == (
        'resnet50',
        'resnet50.pth',
    )
    assert torch.equal(exported['state_dict']['conv1.weight'], source.conv1.weight)


def test_no_folder_of_the_machine_of_an_earlier_export_is_published(trained, tmp_path):
    export_backbone(trained, tmp_path / 'exported.pth')
    export_to_hub(tmp_path / 'exported.pth', tmp_path / 'out')
    published = Checkpoint.read(tmp_path / 'out/model.safetensors').meta
    assert published['source'] == 'iter_30.pth'


def test_a_folder_is_complete_or_not_there(checkpoints, tmp_path, monkeypatch):
    from vito_mm.checkpoint import publishing

    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(publishing, 'model_card', full)
    with pytest.raises(OSError, match='No space'):
        export_to_hub(checkpoints['training'], tmp_path / 'out')
    assert not list(tmp_path.iterdir())


def test_the_layout_timm_says_its_own_range_too(checkpoints, tmp_path):
    export_backbone(checkpoints['training'], tmp_path / 'a.safetensors', layout='timm')
    with safe_open(tmp_path / 'a.safetensors', 'pt') as file:
        meta = json.loads(file.metadata()['vito_mm'])
    wanted = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    assert meta['pretrained_cfg'] == wanted
    assert Checkpoint.read(tmp_path / 'a.safetensors').preprocessing['mean'][0] == 123.675


def test_commands(trained, tmp_path, monkeypatch, capsys):
    run_tool(
        monkeypatch, 'export_checkpoint.py', '--layout', 'huggingface', trained, tmp_path / 'o'
    )
    assert 'huggingface layout' in capsys.readouterr().out
    assert json.loads((tmp_path / 'o/config.json').read_text())['architecture'] == 'resnet18'
    run_tool(monkeypatch, 'export_checkpoint.py', '--model', trained, tmp_path / 'whole.pth')
    assert 'complete model' in capsys.readouterr().out
    whole = torch.load(tmp_path / 'whole.pth', weights_only=True)
    assert 'projector.fc0.weight' in whole['state_dict']
    words = ('--model', '--layout', 'timm', trained, tmp_path / 'x.pth')
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, 'export_checkpoint.py', *words)
    assert '--model keeps' in capsys.readouterr().err


@pytest.mark.parametrize('words', [('--declare', 'padding=same'), ('--config', 'config.py')])
def test_what_a_complete_model_does_not_use_is_an_error(
    words, trained, tmp_path, monkeypatch, capsys
):
    out = tmp_path / 'x.pth'
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, 'export_checkpoint.py', trained, out, '--model', *words)
    assert '--model keeps' in capsys.readouterr().err
    assert not out.exists()


def test_where_nothing_can_be_written_one_line_says_so(trained, tmp_path, monkeypatch):
    def run(*words):
        with pytest.raises(SystemExit) as error:
            run_tool(monkeypatch, 'export_checkpoint.py', trained, *words)
        return str(error.value)

    assert 'safetensors' in run(tmp_path / 'out.safetensors', '--model')
    (tmp_path / 'folder').mkdir()
    for words in ((), ('--model',)):
        line = run(tmp_path / 'folder', *words)
        assert 'directory' in line
        assert str(tmp_path / 'folder') in line
    assert sorted(file.name for file in tmp_path.iterdir()) == ['folder', 'run']


# Fine-tuned models

BACKBONE = dict(
    type='ResNet', depth=18, base_channels=16, stem_channels=16, norm_cfg=dict(type='BN')
)
PIXELS = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
SEGMENTER = dict(
    default_scope='mmseg',
    model=dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', **PIXELS, size=(64, 64)),
        backbone=BACKBONE,
        decode_head=dict(
            type='FCNHead',
            in_channels=128,
            channels=16,
            num_classes=3,
            norm_cfg=dict(type='BN'),
            loss_decode=dict(type='CrossEntropyLoss'),
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    ),
    test_pipeline=[dict(type='LoadImageFromNDArray'), dict(type='PackSegInputs')],
)
DETECTOR = dict(
    default_scope='mmdet',
    model=dict(
        type='RetinaNet',
        data_preprocessor=dict(type='DetDataPreprocessor', **PIXELS, pad_size_divisor=32),
        backbone=BACKBONE,
        neck=dict(type='FPN', in_channels=[16, 32, 64, 128], out_channels=16, num_outs=5),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=3,
            in_channels=16,
            stacked_convs=1,
            feat_channels=16,
            anchor_generator=dict(
                type='AnchorGenerator',
                octave_base_scale=4,
                scales_per_octave=1,
                ratios=[1.0],
                strides=[4, 8, 16, 32, 64],
            ),
        ),
        test_cfg=dict(
            nms_pre=100, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10
        ),
    ),
    test_dataloader=dict(
        dataset=dict(
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(96, 64)),
                dict(type='PackDetInputs'),
            ],
        )
    ),
)
CLASSES = ('sky', 'tree', 'cow')


def fine_tuned(config: dict, file: Path) -> Path:
    """What MMEngine's runner saves of a model, with objects of numpy and of its own."""
    from mmengine.registry import MODELS, DefaultScope

    cfg = Config(config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    palette = np.arange(9, dtype=np.uint8).reshape(3, 3)
    meta = dict(
        epoch=1,
        iter=30,
        cfg=cfg.pretty_text,
        seed=np.int64(5),
        dataset_meta=dict(classes=CLASSES, palette=palette),
        hooks=HistoryBuffer([1.0], [1]),
    )
    content = dict(
        meta=meta,
        state_dict=model.state_dict(),
        message_hub=dict(log_scalars={'train/loss': HistoryBuffer([1.0, 2.0], [1, 1])}),
        optimizer=dict(state={}, param_groups=[dict(lr=np.float64(0.1))]),
    )
    torch.save(content, file)
    return file


@pytest.mark.parametrize(('config', 'library'), [(SEGMENTER, 'mmseg'), (DETECTOR, 'mmdet')])
def test_a_published_model_predicts_what_the_checkpoint_does(config, library, tmp_path):
    file = fine_tuned(config, tmp_path / 'best.pth')
    publish_model(file, tmp_path / 'new/model.pth')
    content = torch.load(tmp_path / 'new/model.pth', weights_only=True)
    assert content.keys() == {'state_dict', 'meta'}
    meta = content['meta']
    palette = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert meta['dataset_meta'] == dict(classes=CLASSES, palette=palette)
    assert (meta['seed'], meta['iter'], meta['hooks']) == (5, 30, None)
    original = torch.load(file, weights_only=False)
    assert meta['cfg'] == original['meta']['cfg']
    versions = original['state_dict']._metadata
    assert content['state_dict']._metadata == versions  # of modules

    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    before, after = (
        predicted(library, config, path, image) for path in (file, tmp_path / 'new/model.pth')
    )
    assert len(before) > 1
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def predicted(library: str, config: dict, file: Path, image: np.ndarray) -> list[torch.Tensor]:
    if library == 'mmseg':
        from mmseg.apis import inference_model, init_model

        model = init_model(Config(config), str(file), device='cpu')
        assert tuple(model.dataset_meta['classes']) == CLASSES
        result = inference_model(model, image)
        assert len(result.pred_sem_seg.data.unique()) > 1
        return [result.seg_logits.data, result.pred_sem_seg.data]
    from mmdet.apis import inference_detector, init_detector

    model = init_detector(Config(config), str(file), palette='random', device='cpu')
    assert tuple(model.dataset_meta['classes']) == CLASSES
    found = inference_detector(model, image).pred_instances
    assert len(found) == 10
    return [found.bboxes, found.scores, found.labels]


def test_only_what_mmengine_wrote_is_published(checkpoints, tmp_path):
    with pytest.raises(CheckpointError, match='no checkpoint of MMEngine'):
        publish_model(checkpoints['torchvision'], tmp_path / 'out.pth')
    published = publish_model(checkpoints['training'], tmp_path / 'out.pth')
    assert published['meta']['iter'] == 30
    from mmdet.models.backbones import ResNet

    assert load_backbone(ResNet(18), tmp_path / 'out.pth', 'target').complete
