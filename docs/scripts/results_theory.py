"""How results.py compares a sweep whose truth is known with the predictions of theory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from results_sweeps import Sweep

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.figures import make_styles, new_figure
from s2s_jax.lab.base.metric_catalog import CATALOG
from s2s_jax.lab.base.seed_statistics import Estimate, estimate
from s2s_jax.lab.comparison.differences import ScheduleDifference, find_differences, sentence
from s2s_jax.lab.comparison.plots import curve, draw_curves, finish_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from s2s_jax.lab.runs.collect import FinishedRun

MEASURED, PREDICTED = "eval/kl_to_truth", "eval/kl_predicted"


@dataclass(frozen=True)
class TheoryRow:
    """One schedule, compared with the optimum that theory predicts for it.

    Attributes:
      schedule: its label.
      teacher_prob: at the end of the training.
      predicted: nats; exact, and the same for all seeds.
      measured: nats, over seeds.
      excess: measured minus predicted, over seeds.
    """

    schedule: str
    teacher_prob: float
    predicted: float
    measured: Estimate
    excess: Estimate

    @property
    def is_met(self) -> bool:
        """Whether the measured interval contains the prediction."""
        return abs(self.excess.mean) <= self.excess.half_width


def theory_rows(sweep: Sweep) -> list[TheoryRow]:
    """Every schedule of a sweep against theory, the highest `teacher_prob` first.

    Raises:
      LabError: a run has no distance from the truth, or theory no prediction for it.
    """
    found = []
    for label, members in sweep.runs.by_schedule.items():
        for metric in (MEASURED, PREDICTED):
            missing = [run for run in members if math.isnan(run.metrics.get(metric, math.nan))]
            if missing:
                raise LabError(f"{missing[0].folder} has no {metric}; see docs/theory.md")
        measured = [run.metrics[MEASURED] for run in members]
        predicted = [run.metrics[PREDICTED] for run in members]
        excess = [one - other for one, other in zip(measured, predicted, strict=True)]
        found.append(
            TheoryRow(
                label, _last_teacher_prob(members), sum(predicted) / len(predicted),
                estimate(measured), estimate(excess),
            )
        )  # fmt: skip
    return sorted(found, key=lambda row: -row.teacher_prob)


def differences(sweep: Sweep, rows: Sequence[TheoryRow]) -> list[ScheduleDifference]:
    """Every schedule against that of the highest `teacher_prob`, by the distance measured."""
    return find_differences(sweep.runs, [MEASURED], rows[0].schedule)


def to_markdown(rows: Sequence[TheoryRow]) -> str:
    """The table: what theory predicts, what was measured, and by how much it is more."""
    show = CATALOG.describe(MEASURED).show
    labels = ["teacher_prob", "n", "predicted", "measured", "measured minus predicted"]
    labels += ["95 % t-interval", "prediction in it"]
    cells = [
        [
            f"{row.teacher_prob:g}",
            str(row.measured.num_values),
            show(row.predicted),
            f"{show(row.measured.mean)} ± {show(row.measured.half_width)}",
            show(row.excess.mean, signed=True),
            f"[{show(row.excess.mean - row.excess.half_width)},"
            f" {show(row.excess.mean + row.excess.half_width)}]",
            "yes" if row.is_met else "no",
        ]
        for row in rows
    ]
    lines = [labels, [":--", *["--:"] * (len(labels) - 1)], *cells]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    about = (
        "KL(P‖Q) from the true distribution, in nats per sequence, at the last step; mean ± half"
        " the 95 % t-interval over n seeds. The prediction is computed and exact: it is the optimum"
        " that scheduled sampling has with unlimited data, time and capacity"
        " ([theory.md](theory.md))."
    )
    return f"{table}\n\n{about}\n"


def find_conclusions(
    rows: Sequence[TheoryRow], against: Sequence[ScheduleDifference]
) -> tuple[list[str], list[str]]:
    """What can be concluded about the measured distances, and what cannot.

    Args:
      rows: of `theory_rows`.
      against: of `differences`.
    """
    can = [sentence(row) for row in against if row.differs]
    cannot = [sentence(row) for row in against if not row.differs]
    for row in rows:
        where = (
            f"teacher_prob {row.teacher_prob:g}: predicted {_show(row.predicted)}, measured"
            f" {_show(row.measured.mean)} ± {_show(row.measured.half_width)} nats at"
            f" n={row.measured.num_values}"
        )
        if row.is_met:
            can.append(f"{where}: no difference from the prediction is seen.")
        else:
            more = "more" if row.excess.mean > 0 else "less"
            cannot.append(
                f"that training ended at the optimum. {where}: {more} than predicted, by"
                f" {_show(abs(row.excess.mean))} ± {_show(row.excess.half_width)} nats."
            )
    apart = [
        one.measured.mean + one.measured.half_width
        < other.measured.mean - other.measured.half_width
        for one, other in pairwise(rows)
    ]
    shown = ", ".join(
        f"{_show(row.measured.mean)} ± {_show(row.measured.half_width)} at {row.teacher_prob:g}"
        for row in rows
    )
    counts = sorted({row.measured.num_values for row in rows})
    order = (
        "the measured distance grows wherever teacher_prob falls, neighbouring 95 % t-intervals"
        f" not overlapping: {shown} (nats, n={' to '.join(map(str, counts))})."
    )
    (can if all(apart) else cannot).append(order if all(apart) else f"that {order}")
    predicted = {row.schedule: row.predicted for row in rows}
    for row in against:
        found, expected = row.difference, predicted[row.schedule] - predicted[row.baseline]
        text = (
            f"{row.schedule}: damage against {row.baseline} predicted {expected:+.4f}, measured"
            f" {found.value:+.4f} [{_show(found.low)}, {_show(found.high)}] nats at"
            f" n={found.num_seeds}"
        )
        if found.low <= expected <= found.high:
            can.append(f"{text}: as predicted.")
        else:
            can.append(f"{text}: {'more' if found.value > expected else 'less'} than predicted.")
    return can, cannot


def theory_figure(sweep: Sweep, rows: Sequence[TheoryRow]) -> Figure:
    """The distance from the truth over `teacher_prob` and over the steps, and the prediction."""
    figure, (panel, steps) = new_figure(1, 2, (9.6, 4.1))
    probs = [row.teacher_prob for row in rows]
    panel.plot(
        probs, [row.predicted for row in rows], "--", color="0.35", linewidth=1.4,
        marker="_", markersize=16, markeredgewidth=2, label="predicted",
    )  # fmt: skip
    styles = dict(
        zip(sweep.runs.by_schedule, make_styles(len(sweep.runs.by_schedule)), strict=True)
    )
    for row in rows:
        style, members = styles[row.schedule], sweep.runs.by_schedule[row.schedule]
        values = [run.metrics[MEASURED] for run in members]
        spread = np.linspace(-0.012, 0.012, len(values))
        panel.plot(
            row.teacher_prob + 0.03 + spread, values, style.marker, color=style.color,
            markersize=4, markerfacecolor="none",
        )  # fmt: skip
        panel.errorbar(
            row.teacher_prob, row.measured.mean, yerr=row.measured.half_width, fmt=style.marker,
            color=style.color, markersize=6, capsize=4, linewidth=1.6,
        )  # fmt: skip
    panel.set_xlabel("teacher_prob")
    panel.set_ylabel(CATALOG.describe(MEASURED).axis_label)
    panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
    panel.legend(frameon=False, fontsize=9)
    panel.set_title("at the end; open marks: seeds", fontsize=10)
    draw_curves(steps, sweep.runs, MEASURED)
    for row in rows:
        steps.axhline(row.predicted, color=styles[row.schedule].color, linewidth=0.9, linestyle=":")
    steps.set_title("over the training; dotted: predicted", fontsize=10)
    finish_steps(
        figure, [steps], "Mean over seeds, bars: 95 % t-interval; band: lowest to highest seed"
    )
    return figure


def _show(value: float) -> str:
    return CATALOG.describe(MEASURED).show(value)


def _last_teacher_prob(members: list[FinishedRun]) -> float:
    _, values = curve(members, "train/teacher_prob")
    if not values.size or math.isnan(values[0, -1]):
        raise LabError(f"{members[0].folder} has logged no train/teacher_prob")
    return float(values[0, -1])
