"""Model cards: what is recorded of a checkpoint, and what is not."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .checkpoint import Checkpoint

Record = Mapping[str, Any]


def model_card(
    checkpoint: Checkpoint,
    meta: Record,
    config: Record,
    weights: Mapping[str, Tensor],
    name: str,
) -> str:
    """Write the card of a backbone as Markdown with Hugging Face's header.

    Data, settings, machine and versions are those of ``run.json``, in the folder of the checkpoint
    or in that of the log below it; probes those in the log. Of folders on this machine only the
    last part is told.

    Args:
        checkpoint (Checkpoint): The file that was exported.
        meta (Mapping): Its metadata, see :func:`.export_backbone`.
        config (Mapping): The content of ``config.json``.
        weights (Mapping[str, Tensor]): What is published.
        name (str): Name of the model.
    """
    folder = Path(checkpoint.path).absolute().parent
    step = meta.get('step')
    run = _record_of_run(folder, step)
    parts = [
        _HEADER.format(name=name, **config),
        _section('Weights', _weights(checkpoint, meta, weights)),
        _USE.format(name=name),
        _section('Input', _input(meta, config)),
        _section('Training', _training(run) if run else [_NO_RECORD]),
        _probes(folder, step),
        _section('Limits', _limits(meta, run)),
        _LICENCE,
    ]
    return '\n'.join(parts)


_HEADER = """---
library_name: timm
pipeline_tag: image-feature-extraction
tags:
- image-feature-extraction
- timm
- vito_mm
# license: to be filled in by whoever publishes this model
---

# {name}

Image encoder: the backbone of a checkpoint, `{architecture}` of timm without a classifier,
{num_features} features per image. Exported by vito_mm.
"""

_USE = """## Use

```python
import timm

# 'hf-hub:OWNER/{name}', or 'local-dir:FOLDER' for a copy on this machine
model = timm.create_model('hf-hub:OWNER/{name}', pretrained=True).eval()
data = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**data, is_training=False)
features = model(transform(image).unsqueeze(0))  # image: PIL, RGB
```
"""

_NO_RECORD = (
    'No record of the run (`run.json`) was next to the checkpoint: data, settings and machine are '
    'not known.'
)

_OF_PROBES = (
    'Measured during training, as the documentation of vito_mm describes ("Watch a run"). On which '
    'data is not recorded.'
)

_LICENCE = """## Licence

Not chosen yet. Whoever publishes this model fills it in, here and as `license` at the top, and
minds the terms of the videos and of any weights that training started from.
"""


def _section(title: str, lines: list[str]) -> str:
    return '\n'.join([f'## {title}', '', *(f'- {line}' for line in lines), ''])


def _weights(checkpoint: Checkpoint, meta: Record, weights: Mapping[str, Tensor]) -> list[str]:
    step = meta.get('step')
    return [
        f'file: `{Path(checkpoint.path).name}`, SHA-256 `{checkpoint.sha256}`',
        f'network: {meta["which"]}',
        f'iterations of training: {"not known" if step is None else step}',
        f'numbers: {sum(value.numel() for value in weights.values()):,} in {len(weights)} tensors',
    ]


def _input(meta: Record, config: Record) -> list[str]:
    pixels = config['pretrained_cfg']
    assumed = meta['preprocessing'].get('assumed')
    return [
        f'RGB, pixels in [0, 1], mean {pixels["mean"]}, std {pixels["std"]}'
        + (" (ImageNet's, assumed: the checkpoint does not tell)" if assumed else ''),
        f'evaluation: {pixels["input_size"][1]} pixels from the centre of an image scaled by '
        f'1 / {pixels["crop_pct"]}, {pixels["interpolation"]}; the usual one, not tuned',
    ]


def _record_of_run(folder: Path, step: int | None) -> Record:
    """The record of the start that led to a step: the last one before it."""
    found: Record = {}
    for file in sorted([*folder.glob('run.json'), *folder.glob('*/run.json')]):
        record = json.loads(file.read_text(encoding='utf-8'))
        if step is None or record.get('iteration', 0) <= step:
            found = record
    return found


def _training(run: Record) -> list[str]:
    def said(key: str) -> Any:
        return run.get(key, 'not known')

    environment = run.get('environment', {})
    gpus = [value for key, value in environment.items() if re.fullmatch(r'GPU [\d,]+', key)]
    versions = ', '.join(f'{name} {number}' for name, number in run.get('versions', {}).items())
    return [
        f'command: `{_without_folders(said("command"))}`',
        *(f'data: {_data(part)}' for part in run.get('data', ())),
        f'clips per optimizer step: {said("clips_per_optimizer_step")}, seed: {said("seed")}',
        f'processes: {said("processes")}, system: {environment.get("sys.platform", "not known")}, '
        f'GPUs: {", ".join(gpus) or "none"}',
        f'versions: {versions or "not known"}',
        f'revision of the code: {said("git") or "none, an installed package"}',
    ]


def _data(part: Record) -> str:
    source = f'`{Path(part["source"]).name}`, ' if 'source' in part else ''
    files = f' of {part["files"]} files' if 'files' in part else ''
    digest = f', SHA-256 of the list `{part["sha256"]}`' if 'sha256' in part else ''
    return f'{source}{part["type"]}, {part["samples"]} samples{files}{digest}'


def _probes(folder: Path, step: int | None) -> str:
    numbers = dict(_measured(folder, step))
    if not numbers:
        return _section('Probes', ['none are recorded'])
    rows = [f'| {name} | {value:.4g} | {at} |' for name, (at, value) in numbers.items()]
    head = ['| number | value | iteration |', '|---|---|---|']
    return '\n'.join(['## Probes', '', _OF_PROBES, '', *head, *rows, ''])


def _measured(folder: Path, step: int | None) -> Iterator[tuple[str, tuple[int, float]]]:
    """Numbers of probes in the logs up to a step, in the order of time."""
    for file in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in map(json.loads, file.read_text(encoding='utf-8').splitlines()):
            # Lines of training have the time of a step.
            if 'time' in line or 'step' not in line or (step is not None and line['step'] > step):
                continue
            for name, value in line.items():
                if name not in ('iter', 'step'):
                    yield name, (line['step'], value)


def _limits(meta: Record, run: Record) -> list[str]:
    return [
        'the features are not evaluated beyond what this card lists',
        'the contents of the training data, and biases that come from them, are not described'
        if run
        else 'the training data are not known',
        *(['input normalisation is assumed'] if meta['preprocessing'].get('assumed') else []),
    ]


def _without_folders(text: str) -> str:
    return re.sub(r'(?<![\w.])~?/(?:[^\s/\'"]+/)+', '', text)
