"""The demo's page: table, curves, attention masks and predictions in one HTML file."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from vito_mm.probes.loading import load_encoder
from vito_mm.transfer.jobs import Job
from vito_mm.transfer.report.pictures import (
    RUN_COLOURS,
    SCORE_SHOWN,
    Curve,
    draw_curves,
    draw_predictions,
    load_stills,
    predict,
    run_colours,
)
from vito_mm.transfer.run_folder import dumped_config, training_curve
from vito_mm.utils.markup import (
    Block,
    Heading,
    Listing,
    Paragraph,
    Picture,
    Table,
    to_html,
    to_markdown,
)
from vito_mm.videos import frames, read_manifest
from vito_mm.visualization.canvas import png_of
from vito_mm.visualization.strips import draw_strip

if TYPE_CHECKING:
    from .demo import DemoResult

PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmpretrain', 'mmsegmentation', 'mmdet', 'av', 'numpy')


def write_report(result: 'DemoResult', work_dir: Path, device: str) -> Path:
    """Write ``summary.html`` with everything in it, ``summary.md`` and the pictures as PNG.

    Args:
        result (DemoResult): What the demo found.
        work_dir (Path): Folder that gets the files.
        device (str): What it ran on.

    Returns:
        Path: The page.
    """
    from .demo import INITS, TASKS

    pictures = work_dir / 'pictures'
    pictures.mkdir(exist_ok=True)

    def picture(name: str, png: bytes, caption: str) -> Picture:
        (pictures / f'{name}.png').write_bytes(png)
        return Picture(png, caption)

    versions = ', '.join(f'{name} {version(name)}' for name in PACKAGES)
    durations = ', '.join(f'{name} {value:.0f} s' for name, value in result.seconds.items())
    rows = [
        [task, metric, f'{random:.1f}', f'{vito:.1f}', f'{vito - random:+.1f}']
        for task, metric, random, vito in result.rows
    ]
    title = 'VITO on MiniScenes'
    blocks: list[Block] = [
        Heading(title, 1),
        Table(('task', 'metric', 'random init', 'VITO', 'gain'), rows, text=(0, 1)),
        Paragraph('Percent; one run each, so differences of a few points may be chance.'),
        Listing(
            [
                f'Machine: {device}, Python {platform.python_version()}, {versions}',
                f'Durations: {durations}',
                *(f'Note: {note}' for note in result.notes),
            ]
        ),
        Heading('Pre-training'),
        picture(
            'pretraining',
            draw_pretraining(result.pretrain),
            'Loss of a pair, how often the own video is found among the batch, and the spread of '
            'the embeddings, which is 0 where they have collapsed.',
        ),
        picture(
            'attention',
            draw_attention(result.pretrain.checkpoint(), work_dir / 'videos.jsonl'),
            'Frames of clips, and the attention masks of stage 4 and stage 5 over them.',
        ),
        Heading('Fine-tuning'),
        picture('fine_tuning', draw_fine_tuning(result.runs), 'Training loss over steps.'),
    ]
    for task in TASKS:
        runs = {init: result.runs[task.name, init] for init in INITS}
        caption = (
            'Validation stills, their truth, and what is predicted after fine-tuning from random '
            'weights and from the VITO checkpoint.'
        )
        if task.package == 'mmdet':
            caption += f' Boxes with a score over {100 * SCORE_SHOWN:.0f} %.'
        blocks += [
            Heading(task.name, 3),
            picture(Path(task.config).stem, draw_runs(runs, task.package), caption),
        ]
    (work_dir / 'summary.md').write_text(to_markdown(blocks), encoding='utf-8')
    page = work_dir / 'summary.html'
    page.write_text(to_html(title, blocks), encoding='utf-8')
    return page


def draw_pretraining(job: Job) -> bytes:
    """Curves of the pre-training run."""
    curves = dict(
        pair_nll='InfoNCE per pair',
        top1_acc='own video found, %',
        embedding_std='spread of embeddings',
    )
    lines = job.scalars()
    return draw_curves(
        {
            title: [Curve('VITO', RUN_COLOURS[0], [training_curve(lines, key)])]
            for key, title in curves.items()
        }
    )


def draw_fine_tuning(runs: dict[tuple[str, str], Job]) -> bytes:
    """Training loss of every task from both initialisations."""
    colours = run_colours([init for _, init in runs])
    panels: dict[str, list[Curve]] = {}
    for (task, init), job in runs.items():
        curve = Curve(init, colours[init], [training_curve(job.scalars())])
        panels.setdefault(task, []).append(curve)
    return draw_curves(panels)


def draw_runs(runs: dict[str, Job], package: str) -> bytes:
    """Validation stills: truth, and what each run of a task predicts."""
    configs = {init: dumped_config(job.work_dir) for init, job in runs.items()}
    stills = load_stills(next(iter(configs.values())), package)
    predictions = {
        init: predict(configs[init], package, job.checkpoint(), stills)
        for init, job in runs.items()
    }
    (png,) = draw_predictions(stills, predictions)
    return png


def draw_attention(checkpoint: Path, manifest: Path, num_clips: int = 4) -> bytes:
    """Where the two scales look, on frames of some MiniScenes videos and of a real clip."""
    encoder = load_encoder(checkpoint, needs_attention=True)
    rows = read_manifest(manifest)
    real = [row for row in rows if 'label' not in row][:1]
    scenes = [row for row in rows if 'label' in row][: num_clips - len(real)]
    clips = [frames.spread(row, 3, frames.evaluation_view(128)).distinct() for row in scenes + real]
    masks = [encoder.masks(clip.frames) for clip in clips]
    title = 'Attention after pre-training, online network, 128 px'
    return png_of(draw_strip(clips, masks, title))
