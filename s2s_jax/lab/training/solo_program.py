"""A run that trains alone: its state on the device, and the compiled update that moves it."""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from s2s_jax.data.batching import TrainingBatches
from s2s_jax.lab.training.compilation import CompiledInTurn
from s2s_jax.lab.training.compiled_update import CompiledUpdate, are_finite, shape_of, zero_sums
from s2s_jax.lab.training.lane import Progress, Reading, StepInput
from s2s_jax.lab.training.optimizers import Scalars


class SoloProgram:
    """The device's side of one run; see `Programs`.

    Metrics are added up on the device and fetched one step late, when the device is already at work
    on the next.

    Args:
      update: of the run's `group_key`.
      start: where the run goes on.
      scalars: the run's.
      batches: the run's.
      report: takes a line of progress.
    """

    def __init__(
        self,
        update: CompiledUpdate,
        start: Progress,
        scalars: Scalars,
        batches: TrainingBatches,
        report: Callable[[str], None],
    ):
        self._update, self._batches, self._report = update, batches, report
        self._no_sums = zero_sums(update.template)
        self._state, self._sums = start
        self._scalars = jax.device_put(jax.tree.map(np.float32, scalars))
        self._bad_step: jax.Array | np.ndarray = np.full((), -1, np.int32)
        self._compiled: CompiledInTurn | None = None

    def compile(self) -> None:
        """Compiles the step for the first shape, and begins with the others."""
        shapes = self._batches.shapes_from(int(self._state.step))
        if missing := self._update.missing(shapes):
            self._report(f"compiling the train step for {len(missing)} batch shapes ...")
        self._compiled = self._update.compile(shapes)
        self._compiled[shapes[0]]  # waits; nothing can begin without it

    @property
    def compile_seconds(self) -> float:
        """How long training has waited for the compiler."""
        return self._compiled.seconds_waited if self._compiled else 0.0

    def advance(self, inputs: Mapping[int, StepInput]) -> None:
        """Starts an update."""
        assert self._compiled is not None
        batch, teacher_prob = inputs[0]
        self._state, self._sums, self._bad_step = self._compiled[shape_of(batch)](
            self._state, self._sums, self._bad_step, batch, teacher_prob, self._scalars
        )

    def close(self) -> None:
        """Compiles no more."""
        if self._compiled is not None:
            self._compiled.close()

    def take_sums(self, numbers: Sequence[int]) -> Reading:
        """What was added up; it begins anew."""
        sums, bad_step = self._sums, self._bad_step
        self._sums = self._no_sums
        return lambda number: (sums, int(bad_step))

    def progress(self, number: int) -> Progress:
        """Where the run is."""
        return Progress(self._state, self._sums)

    def first_bad_step(self, number: int) -> int:
        """The first step that was not finite."""
        bad_step = int(self._bad_step)
        # The last update can leave parameters that only the next step would find out.
        if bad_step >= 0 or are_finite(self._state.params):
            return bad_step
        return int(self._state.step)
