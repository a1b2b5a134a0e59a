"""Base of the probes of a run: when they measure, and where their numbers go."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from vito_mm.checkpoint import NETWORKS
from vito_mm.probes.encoder import Encoder, undisturbed
from vito_mm.probes.image_folders import ProbeError
from vito_mm.utils.unwrap import unwrap


class ProbeHook(Hook):
    """Measure the model now and then without leaving a trace in the run.

    Subclasses define :meth:`prepare` and :meth:`measure`. Numbers get a line of their own in the
    log and in ``vis_data/scalars.json``, with the iteration after which they hold, and go to all
    backends of the visualizer (TensorBoard, Weights & Biases, ...) and, as ``probe/<name>``, to the
    message hub. MMEngine's training line would repeat them until the next measurement. With them
    go the seconds that the measurement took, as ``probe_seconds/<class of the hook>``.

    Args:
        interval (int): Iterations between measurements; there is one after the last iteration, too.
            Defaults to 1000.
        begin (bool): Measure before the first step as well: the score of random weights. Defaults
            to True.
        prefix (str): Put before the names of numbers and pictures, to tell probes apart: letters,
            digits, ``_``, ``-`` and ``.``, as loggers and file names take them. Defaults to ''.

    Raises:
        ValueError: If ``interval`` is not positive or ``prefix`` has other characters. Before the
            first step, if the data of a probe cannot be used. Later, what cannot be measured is a
            warning: no probe ends a run.
    """

    # After the target network has moved (40) and before MMEngine's timer (50): the time that a
    # measurement takes counts as `time` and in the estimate of the end, not as time for data.
    priority = 45

    def __init__(self, interval: int = 1000, begin: bool = True, prefix: str = '') -> None:
        self._check_positive(interval=interval)
        if not re.fullmatch(r'[\w.-]*', prefix, re.ASCII):
            raise ValueError(
                f'{self._field("prefix")} must be letters, digits, "_", "-" and ".", got {prefix!r}'
            )
        self.interval, self.begin, self.prefix = interval, begin, prefix
        self.measured: tuple[int, dict[str, float]] | None = None
        """The last measurement: iterations before it, and on the first rank its logged numbers."""

    def prepare(self, runner) -> None:
        """Look at the data before the first step; raises ProbeError if they cannot be used."""

    def measure(self, runner, step: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Measure the model, in evaluation mode, after ``step`` iterations. Called on all ranks.

        Returns:
            tuple: Numbers and pictures (RGB, uint8) by name; only those of the first rank count.

        Raises:
            ProbeError: On all ranks, if there is nothing to measure.
        """
        raise NotImplementedError

    def before_train(self, runner) -> None:
        """Prepare, and measure random weights."""
        try:
            self.prepare(runner)
            if self.begin and runner.iter == 0:
                self._measure(runner, 0)
        except ProbeError as error:
            raise ValueError(f'{self._field("data")}: {error}') from None

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Measure if it is time."""
        if self._is_time(runner):
            step = runner.iter + 1
            try:
                self._measure(runner, step)
            except ProbeError as error:
                runner.logger.warning(f'iteration {step}: {type(self).__name__}: {error}')

    def _is_time(self, runner) -> bool:
        return self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)

    def _measure(self, runner, step: int) -> None:
        start = time.perf_counter()
        with undisturbed(unwrap(runner.model)):
            numbers, pictures = self.measure(runner, step)
        numbers = {f'{self.prefix}{name}': value for name, value in numbers.items()}
        self.measured = step, numbers
        if is_main_process():
            self._report(runner, step, numbers, pictures, time.perf_counter() - start)

    def _report(self, runner, step: int, numbers: Mapping, pictures: Mapping, seconds: float):
        for name, value in numbers.items():
            runner.message_hub.update_scalar(f'probe/{name}', value)
        values = '  '.join(f'{name}: {value:.4f}' for name, value in numbers.items())
        runner.logger.info(f'Iter(probe) [{step}/{runner.max_iters}]  {values}  ({seconds:.1f} s)')
        # As LoggerHook does, with `iter` for backends that count calls instead of steps. mmdet's
        # analyze_logs takes a line for one of training unless a name with a slash comes first.
        cost = {f'probe_seconds/{self.prefix}{type(self).__name__}': seconds}
        runner.visualizer.add_scalars(
            dict(cost, **numbers, iter=step), step=step, file_path=f'{runner.timestamp}.json'
        )
        for name, picture in pictures.items():
            runner.visualizer.add_image(f'{self.prefix}{name}', picture, step=step)

    @classmethod
    def _field(cls, name: str) -> str:
        return f'{cls.__name__}.{name}'

    @classmethod
    def _check_positive(cls, **settings: float) -> None:
        for name, value in settings.items():
            if not value > 0:
                raise ValueError(f'{cls._field(name)} must be positive, got {value}')

    @classmethod
    def _check_choice(cls, name: str, value: str, known: Sequence[str]) -> None:
        if value not in known:
            raise ValueError(f'{cls._field(name)} must be one of {tuple(known)}, got {value!r}')


class EncoderProbeHook(ProbeHook):
    """Base of the probes of images by a network of the model; the ranks share the images.

    Args:
        network (str): 'online', or 'target' for the slowly moving copy. Defaults to 'online'.
        image_size (int): Side in pixels; the shorter side is resized to it and the centre is taken.
            Defaults to 224.
        batch_size (int): Images at a time on each rank. Defaults to 128.
        num_workers (int): Processes of each rank that read; 0 reads in the training process.
            Defaults to 4.
        seed (int): Seed of all choices. Defaults to 0.
        **kwargs: See :class:`ProbeHook`.
    """

    def __init__(
        self,
        network: str = 'online',
        image_size: int = 224,
        batch_size: int = 128,
        num_workers: int = 4,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_positive(image_size=image_size, batch_size=batch_size)
        self._check_choice('network', network, NETWORKS)
        self.network, self.image_size, self.seed = network, image_size, seed
        self.batch_size, self.num_workers = batch_size, num_workers

    def encoder(self, runner) -> Encoder:
        """The network of the model in training."""
        return Encoder.of_model(unwrap(runner.model), self.network)
