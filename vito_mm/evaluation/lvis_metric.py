"""LVIS evaluation that runs on the current numpy."""

import re
import tempfile
from collections import OrderedDict, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.evaluation.metrics import LVISMetric
from mmengine.fileio import load
from mmengine.logging import MMLogger
from pycocotools import mask as mask_utils

from vito_mm.evaluation.annotations import Uses, problems

MAX_DETECTIONS = 300
"""Detections of one image that count, over all categories (LVIS rules)."""

_IGNORED = 1e11
"""An area beyond all ranges, so that whatever matches it is neither right nor wrong."""

ITEMS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'APr', 'APc', 'APf')


class FasterLVISMetric(LVISMetric):
    """mmdet's LVISMetric with faster-coco-eval in the place of the lvis package's evaluation.

    The lvis package 0.5.3 uses ``np.float``, which numpy 1.24 removed. Keywords, collected results
    and the names of the metrics (``lvis/bbox_AP``, ``lvis/segm_AP50``, ...) are those of mmdet.

    The rules are those of LVIS (https://www.lvisdataset.org/rules): the 300 best detections of an
    image count; a detection of a category that is neither annotated nor listed as absent in the
    image is left out; an unmatched one of a category that is not exhaustively annotated is ignored.

    Ids may be any numbers or texts, 0 among them. Different from mmdet's class, values are not
    rounded; areas (``segm_APs`` and so on) are those of masks, as in detectron2, not of boxes; an
    empty result scores 0; ``ann_file`` is required; proposals are not evaluated.

    Args:
        ann_file (str): LVIS annotation file.
        metric (str | list[str]): ``'bbox'``, ``'segm'`` or both. Defaults to 'bbox'.
        metric_items (Sequence[str], optional): Which of AP, AP50, AP75, APs, APm, APl, APr, APc,
            APf to report. Defaults to None, which reports all.
        **kwargs: As in mmdet's ``LVISMetric``; ``classwise=True`` adds ``{name}_precision``
            with ``_`` for what is neither letter nor digit in the name.

    Raises:
        ImportError: If faster-coco-eval is not installed.
        ValueError: If ``metric`` or ``metric_items`` holds anything else, or the file has faults
            that would be met after the validation, see :func:`.annotations.problems`.
    """

    def __init__(
        self,
        ann_file: str,
        metric: str | list[str] = 'bbox',
        metric_items: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        try:
            import faster_coco_eval  # noqa: F401
        except ImportError:
            raise ImportError(
                'FasterLVISMetric needs faster-coco-eval. Run: pip install "vito_mm[lvis]"'
            ) from None
        super().__init__(ann_file=ann_file, metric=metric, metric_items=metric_items, **kwargs)
        if unknown := set(self.metrics) - {'bbox', 'segm'}:
            raise ValueError(f"metric must be 'bbox', 'segm' or both, got {sorted(unknown)}")
        if unknown := set(metric_items or ()) - set(ITEMS):
            raise ValueError(f'metric_items must be among {ITEMS}, got {sorted(unknown)}')
        uses = Uses(metric='lvis', masks='segm' in self.metrics)
        if faults := problems(self._lvis_api.dataset, uses):
            raise ValueError(f'{ann_file} cannot be measured by: {"; ".join(faults)}')

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate image and predictions of every validated image, as ``process`` collects them.

        Returns:
            dict[str, float]: Metrics in [0, 1] by name; -1 where no annotation belongs to it.
        """
        logger = MMLogger.get_current_instance()
        predictions = [prediction for _, prediction in results]
        self.cat_ids = self._lvis_api.get_cat_ids()
        self.img_ids = self._lvis_api.get_img_ids()
        with tempfile.TemporaryDirectory() as folder:
            prefix = self.outfile_prefix or str(Path(folder) / 'results')
            files = self.results2json(predictions, prefix)
            if self.format_only:
                logger.info(f'results are saved in {Path(prefix).parent}')
                return OrderedDict()
            detections = {metric: load(files[metric]) for metric in self.metrics}

        metrics: dict[str, float] = OrderedDict()
        for metric in self.metrics:
            logger.info(f'Evaluating {metric}...')
            metrics.update(self._average_precisions(detections[metric], metric, logger))
        return metrics

    def _average_precisions(
        self, detections: list[dict], metric: str, logger: MMLogger
    ) -> dict[str, float]:
        from faster_coco_eval import COCO, COCOeval_faster

        truth, detections = _evaluated(self._lvis_api.dataset, detections, metric)
        ground_truth = COCO(truth)
        evaluation = COCOeval_faster(
            ground_truth,
            ground_truth.loadRes(detections),
            iouType=metric,
            lvis_style=True,
            print_function=logger.info,
        )
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.iouThrs = np.atleast_1d(self.iou_thrs)
        evaluation.evaluate()
        evaluation.accumulate()

        # (IoU threshold, recall, category, area, maximum of detections)
        precision = evaluation.eval['precision'][..., 0]
        categories = dict(zip('rcf', evaluation.freq_groups, strict=True))
        areas = {name[0]: i for i, name in enumerate(evaluation.params.areaRngLbl)}
        values = {}
        for item in self.metric_items or ITEMS:
            part, kind = precision[..., 0], item.removeprefix('AP')
            if kind.isdigit():
                part = part[np.isclose(evaluation.params.iouThrs, int(kind) / 100)]
            elif kind in categories:
                part = part[:, :, categories[kind]]
            elif kind:
                part = precision[..., areas[kind]]
            values[f'{metric}_{item}'] = _mean(part, absent=-1.0)
        logger.info(', '.join(f'{name} {value:.4f}' for name, value in values.items()))
        if self.classwise:
            for index, category in enumerate(truth['categories']):
                # bow_(weapon), for one: loggers take no parentheses.
                name = re.sub(r'[\W_]+', '_', category['name'], flags=re.ASCII).strip('_')
                values[f'{name}_precision'] = _mean(precision[:, :, index, 0], absent=np.nan)
        return values


def _evaluated(dataset: dict, detections: list[dict], metric: str) -> tuple[dict, list[dict]]:
    """Annotations and detections that count, by the rules of lvis 0.5.3, for faster-coco-eval.

    All ids are numbered anew from 1, in the order of the old ones: the latter takes integers alone,
    and 0 for unmatched. What it would treat otherwise is settled here: which detections count,
    annotations and detections without an area, and annotations that are to be ignored.

    Args:
        dataset (dict): Content of an LVIS annotation file; not changed.
        detections (list[dict]): In COCO's result format.
        metric (str): ``'bbox'`` or ``'segm'``. For the latter, areas are those of masks.
    """
    images = _numbered(image['id'] for image in dataset['images'])
    categories = _numbered(category['id'] for category in dataset['categories'])
    known = {number: category for category, number in categories.items()}

    annotations = []
    # Categories that an image is annotated for: present, and known to be absent.
    judged = {
        images[image['id']]: {categories.get(each) for each in image['neg_category_ids']} - {None}
        for image in dataset['images']
    }
    for annotation in dataset['annotations']:
        image = images.get(annotation['image_id'])
        category = categories.get(annotation['category_id'])
        if image is None or category is None or not 0 < annotation['area'] < np.inf:
            continue
        judged[image].add(category)
        own = dict(annotation, id=len(annotations) + 1, image_id=image, category_id=category)
        if own.pop('ignore', 0):
            own['area'] = _IGNORED
        own.pop('iscrowd', None)
        annotations.append(own)

    by_image = defaultdict(list)
    for detection in detections:
        by_image[images[detection['image_id']]].append(detection)
    counted = []
    for image, group in by_image.items():
        group.sort(key=lambda detection: detection['score'], reverse=True)
        for detection in group[:MAX_DETECTIONS]:
            category = categories[detection['category_id']]
            shape = detection['bbox' if metric == 'bbox' else 'segmentation']
            area = shape[2] * shape[3] if metric == 'bbox' else mask_utils.area(shape)
            if category in judged[image] and 0 < area < np.inf:
                counted.append(dict(detection, image_id=image, category_id=category))
                if metric == 'segm':
                    del counted[-1]['bbox']  # or areas would be those of boxes

    by_id = {category['id']: category for category in dataset['categories']}
    return dict(
        images=[
            dict(
                id=images[image['id']],
                height=image['height'],
                width=image['width'],
                neg_category_ids=list(judged[images[image['id']]]),
                not_exhaustive_category_ids=[
                    categories[each]
                    for each in image['not_exhaustive_category_ids']
                    if each in categories
                ],
            )
            for image in dataset['images']
        ],
        annotations=annotations,
        categories=[dict(by_id[known[number]], id=number) for number in sorted(known)],
    ), counted


def _numbered(ids: Iterable[Hashable]) -> dict[Hashable, int]:
    """Numbers from 1 for ids, in their order; ties in the score go by that of images."""
    ordered = sorted(set(ids), key=lambda each: (isinstance(each, str), each))
    return {each: number for number, each in enumerate(ordered, 1)}


def _mean(values: np.ndarray, absent: float) -> float:
    """Mean over what could be measured; the evaluation marks the rest by -1."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else absent
