"""The demo's page: table, curves, attention masks and predictions in one HTML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vito_mm.probes.loading import load_encoder
from vito_mm.transfer.jobs import Job
from vito_mm.transfer.run_folder import dumped_config, training_curve
from vito_mm.transfer.tasks import TASKS, Task
from vito_mm.utils.provenance import conditions, conditions_text
from vito_mm.utils.report import (
    Block,
    Heading,
    Listing,
    Paragraph,
    Picture,
    Table,
    write_document,
)
from vito_mm.videos import frames, read_manifest
from vito_mm.visualization.canvas import png_of
from vito_mm.visualization.curves import RUN_COLOURS, Curve, draw_curves, run_colours
from vito_mm.visualization.predictions import SCORE_SHOWN, draw_predictions, load_samples, predict
from vito_mm.visualization.strips import draw_strip

from .frozen import Frozen


def write_report(
    work_dir: Path,
    rows: Sequence[tuple[str, str, float, float]],
    pretrain: Job,
    frozen: Sequence[Frozen],
    runs: Mapping[str, Mapping[str, Job]],
    notes: Sequence[str],
) -> Path:
    """Write ``summary.html`` with everything in it, ``summary.md`` and the pictures as PNG.

    Args:
        work_dir (Path): Folder of the files, with ``videos.jsonl``.
        rows (Sequence[tuple]): Task, metric, value from random weights, value from VITO.
        pretrain (Job): The pre-training run.
        frozen (Sequence[Frozen]): Results of frozen features.
        runs (Mapping): Fine-tuning runs by name of the task and initialisation.
        notes (Sequence[str]): Further conditions, such as durations.

    Returns:
        Path: The page.
    """
    pictures = work_dir / 'pictures'
    pictures.mkdir(exist_ok=True)

    def picture(name: str, png: bytes, caption: str) -> Picture:
        (pictures / f'{name}.png').write_bytes(png)
        return Picture(png, caption)

    cells = [
        [task, metric, f'{random:.1f}', f'{vito:.1f}', f'{vito - random:+.1f}']
        for task, metric, random, vito in rows
    ]
    blocks: list[Block] = [
        Table(('task', 'metric', 'random init', 'VITO', 'gain'), cells, text=(0, 1)),
        Paragraph('Percent; one run each, so differences of a few points may be chance.'),
        Heading('Pre-training'),
        picture(
            'pretraining',
            draw_pretraining(pretrain),
            'Loss of a pair, how often the own video is found among the batch, and the spread of '
            'the embeddings, which is 0 where they have collapsed.',
        ),
        picture(
            'attention',
            draw_attention(pretrain.checkpoint(), work_dir / 'videos.jsonl'),
            'Frames of clips, and the attention masks of stage 4 and stage 5 over them.',
        ),
        Heading('Frozen features'),
    ]
    for found in frozen:
        if found.pictures:
            blocks.append(Heading(found.task, 3))
        for number, png in enumerate(found.pictures):
            name = f'frozen_{found.task.split()[0].lower()}_{number}'
            blocks.append(picture(name, png, found.caption))
    blocks += [
        Heading('Fine-tuning'),
        picture('fine_tuning', draw_fine_tuning(runs), 'Training loss over steps.'),
    ]
    for name, task_runs in runs.items():
        task = TASKS[name]
        caption = (
            'Validation stills, their ground truth, and predictions after fine-tuning from random '
            'weights and from the VITO checkpoint.'
        )
        if task.package == 'mmdet':
            caption += f' Boxes with a score over {100 * SCORE_SHOWN:.0f} %.'
        stem = Path(task.configs['miniscenes']).stem
        blocks += [Heading(task.title, 3), picture(stem, draw_runs(task_runs, task), caption)]
    blocks += [Heading('Conditions'), Listing([*conditions_text(conditions()), *notes])]
    return write_document(work_dir, 'VITO on MiniScenes', blocks, name='summary')


def draw_pretraining(job: Job) -> bytes:
    """Draw curves of the pre-training run."""
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


def draw_fine_tuning(runs: Mapping[str, Mapping[str, Job]]) -> bytes:
    """Draw the training loss of every task from both initialisations."""
    colours = run_colours([init for task_runs in runs.values() for init in task_runs])
    return draw_curves(
        {
            TASKS[name].title: [
                Curve(init, colours[init], [training_curve(job.scalars())])
                for init, job in task_runs.items()
            ]
            for name, task_runs in runs.items()
        }
    )


def draw_runs(runs: Mapping[str, Job], task: Task) -> bytes:
    """Draw validation stills with ground truth and the prediction of each run of a task."""
    configs = {init: dumped_config(job.work_dir) for init, job in runs.items()}
    samples = load_samples(next(iter(configs.values())), task.package)
    predictions = {
        init: predict(configs[init], job.checkpoint(), samples) for init, job in runs.items()
    }
    (png,) = draw_predictions(samples, predictions)
    return png


def draw_attention(checkpoint: Path, manifest: Path, num_clips: int = 4) -> bytes:
    """Draw the attention of both scales on frames of MiniScenes videos and of a real clip."""
    encoder = load_encoder(checkpoint, needs_attention=True)
    rows = read_manifest(manifest)
    real = [row for row in rows if 'label' not in row][:1]
    scenes = [row for row in rows if 'label' in row][: num_clips - len(real)]
    clips = [frames.spread(row, 3, frames.evaluation_view(128)).distinct() for row in scenes + real]
    masks = [encoder.masks(clip.frames) for clip in clips]
    title = 'Attention after pre-training, online network, 128 px'
    return png_of(draw_strip(clips, masks, title))
