"""The UCF101 protocol on MiniScenes videos in class folders."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, DefaultScope

from tests.conftest import REPO
from tests.helpers.class_folder_videos import write_class_folders
from vito_mm.launch import build_runner
from vito_mm.probes.video_classifier import FrameAverageClassifier, PackClips, SampleClips
from vito_mm.utils.unwrap import unwrap
from vito_mm.videos.frames import View, read

SECONDS = 3.0  # of the preset's videos


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp('ucf')
    write_class_folders(root, SECONDS)
    return root


@pytest.fixture
def cfg(world):
    cfg = Config.fromfile(REPO / 'configs/protocols/ucf101_r50.py')
    cfg.model.backbone.update(depth=18, stem_channels=8, base_channels=8, checkpoint=None)
    cfg.model.update(in_channels=64, num_classes=2, dropout=0.0)
    for loader, name in ((cfg.train_dataloader, 'train'), (cfg.val_dataloader, 'test')):
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        dataset = loader.dataset.get('dataset', loader.dataset)
        dataset.update(data_root=str(world / 'UCF-101'))
        dataset.ann_file = str(world / f'ucfTrainTestlist/{name}list01.txt')
        dataset.pipeline[0].update(num_frames=4)
        dataset.pipeline[1].short_side = 64
        dataset.pipeline[2].size = 32
    cfg.train_dataloader.dataset.times = 2
    cfg.test_dataloader = cfg.val_dataloader
    cfg.val_evaluator.topk = 1
    cfg.train_cfg.update(max_epochs=2, val_interval=2)
    cfg.custom_hooks[0].epochs = 1
    cfg.launcher = 'none'
    return cfg


class Watch(Hook):
    """Copies weights and statistics of the backbone at the end of each epoch."""

    def __init__(self):
        self.states = []

    def before_train(self, runner):
        self.after_train_epoch(runner)

    def after_train_epoch(self, runner):
        state = unwrap(runner.model).state_dict()
        self.states.append({key: value.clone() for key, value in state.items()})


def test_it_trains_and_its_accuracy_is_that_of_ten_clips(cfg, world, tmp_path):
    cfg.work_dir, cfg.experiment_name = str(tmp_path), tmp_path.name
    runner = build_runner(cfg)
    watch = Watch()
    runner.register_hook(watch)
    runner.train()

    start, classifier_only, everything = watch.states

    def changed(a, b, part):
        return any(not torch.equal(a[k], b[k]) for k in a if k.startswith(part))

    assert not changed(start, classifier_only, 'backbone.')  # batch norm's statistics included
    assert changed(start, classifier_only, 'classifier.')
    assert changed(classifier_only, everything, 'backbone.layer1')

    # The accuracy, from frames that the frame reader reads.
    model = unwrap(runner.model).eval()
    right = []
    listed = (world / 'ucfTrainTestlist/testlist01.txt').read_text()
    for index, video in enumerate(listed.splitlines()):
        path = str(world / 'UCF-101' / video)
        starts = np.linspace(0, 1, 10) * (SECONDS - 4 / 16)
        times = (starts[:, None] + np.arange(4) / 16).ravel()
        frames = read({'path': path}, lambda *_, t=times: t, View(64, 64)).frames
        images = torch.from_numpy(frames).permute(0, 3, 1, 2)
        small = torch.nn.functional.interpolate(
            images.float(), size=36, mode='bilinear', antialias=True
        )[..., 2:34, 2:34].round()
        with torch.no_grad():
            normalised = (small - model.mean) / model.std
            pooled = model.backbone(normalised)[-1].mean(dim=(2, 3)).unflatten(0, (10, 4))
            scores = model.classifier(pooled.mean(dim=1)).softmax(dim=1).mean(dim=0)
        dataset = runner.val_dataloader.dataset
        sample = dataset[index]['data_samples']
        assert sample.video_path == path
        with torch.no_grad():
            predicted = model(dataset[index]['inputs'][None], [sample], mode='predict')[0]
        np.testing.assert_allclose(predicted.pred_score, scores, atol=2e-3)
        right.append(int(scores.argmax()) == index % 2)
    accuracy = runner.message_hub.get_scalar('val/accuracy/top1').current()
    assert accuracy == pytest.approx(100 * np.mean(right))


def test_moments_of_clips():
    many = SampleClips(3, 10, num_clips=3).transform({})
    np.testing.assert_allclose(many['segment_offsets'], [0, 0.1, 0.2])
    np.testing.assert_allclose(many['segment_start'], [0, 0.5, 1])
    assert many['segment'] == pytest.approx(0.3)
    drawn = {SampleClips(3, 10).transform({})['segment_start'] for _ in range(5)}
    assert len(drawn) == 5


def test_frames_of_a_clip_are_augmented_alike():
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    results = dict(
        imgs=[frame] * 6, segment_offsets=np.arange(3), gt_label=1, video_path='video.mp4'
    )
    clips = PackClips(32, crop_area=(0.08, 1.0)).transform(results)['inputs']
    assert clips.shape == (2, 3, 3, 32, 32)
    for clip in clips:
        assert torch.equal(clip[0], clip[1])
        assert torch.equal(clip[0], clip[2])
    assert not torch.equal(clips[0], clips[1])


def test_logits_are_those_of_the_mean_feature():
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = FrameAverageClassifier(
            dict(type='VITOResNet', depth=18, stem_channels=8, base_channels=8), 3, 64
        ).eval()
    clips = torch.randint(0, 256, (2, 1, 4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        found = model(clips)
        images = (clips.flatten(0, 2).float() - model.mean) / model.std
        means = model.backbone(images)[-1].mean(dim=(2, 3)).view(2, 4, 64).mean(dim=1)
        expected = means @ model.classifier[1].weight.T + model.classifier[1].bias
    torch.testing.assert_close(found[:, 0], expected)


def test_a_missing_video_is_named(cfg, world):
    part = cfg.val_dataloader.dataset
    part.ann_file = str(world / 'other.txt')
    (world / 'other.txt').write_text('class0/none.mp4\n')
    with pytest.raises(FileNotFoundError, match='none'):
        DATASETS.build(part)
