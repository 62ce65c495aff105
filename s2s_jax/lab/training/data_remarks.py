"""What a run reports about its data when it starts, and records in its result."""

from typing import Any, NamedTuple

import numpy as np

from s2s_jax.batch import UNK
from s2s_jax.data.batching import Sequences
from s2s_jax.data.task import Task
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.keys import Overrides
from s2s_jax.lab.evaluation.scores import Scorer

_SIZE = "data.vocabulary_size"
_SHOWN = 40  # number of characters shown of a target


class DataRemarks(NamedTuple):
    """Remarks on a task's data.

    Attributes:
      lines: lines for the user; empty if there is nothing to report.
      counts: the entry "data" of `result.json`.
    """

    lines: list[str]
    counts: dict[str, Any]


def data_remarks(task: Task, scorer: Scorer) -> DataRemarks:
    """Inspects the data of a run, which is cheap if its token ids are cached.

    Args:
      task: the run's task.
      scorer: the scorer of its texts.
    """
    lines = [
        f"the {side} text of training gives {found:,} subwords, fewer than {_SIZE}={size}"
        for side, found, size in _smaller_vocabularies(task)
    ]
    training = task.training_tokens
    num_pairs = len(training) + training.num_dropped
    if training.num_dropped:
        lines.append(
            f"data.max_tokens={task.max_tokens} leaves out {training.num_dropped:,} of"
            f" {num_pairs:,} training pairs"
        )
    unknown = {}
    for split in (split for split in task.splits if split != "train"):
        tokens = task.tokens(split)
        unknown[split] = {
            "source": count_unknown(tokens.source),
            "target": count_unknown(tokens.target),
        }
        said = [
            f"{one['unknown']:,} of {one['tokens']:,} {side} tokens"
            f" ({100 * one['unknown'] / one['tokens']:.3g} %)"
            for side, one in unknown[split].items()
            if one["unknown"]
        ]
        if said:
            lines.append(f"unknown in {split}: {' and '.join(said)}")
    lost = task.not_given_back("dev")
    if lost.count:
        lines.append(
            f"{lost.count:,} of {lost.total:,} dev targets do not come back from their token ids,"
            f" for example number {lost.number}: {_shown(lost.text)} comes back as"
            f" {_shown(lost.decoded)}"
        )
    if scorer.remarks is not None:  # otherwise the dev texts need not be read
        lines += scorer.remarks(task.splits["dev"].references)
    counts = {
        "training_pairs": num_pairs,
        "left_out": training.num_dropped,
        "unknown": unknown,
        "dev_targets_not_given_back": lost.count,
    }
    return DataRemarks(lines, counts)


def check_vocabulary_size(task: Task, overrides: Overrides) -> None:
    """Rejects a vocabulary size from the command line that is too large for the training text.

    A size that an experiment file sets is only a maximum: a small text may give fewer subwords.

    Raises:
      LabError: the size is too large; the message gives the possible one.
    """
    for side, found, size in _smaller_vocabularies(task) if _SIZE in overrides else ():
        raise LabError(
            f"{_SIZE} is {size}, and the {side} text of training gives {found} subwords;"
            f" set it to {found} or less"
        )


def _smaller_vocabularies(task: Task) -> list[tuple[str, int, int]]:
    """(side, actual size, requested size) of each SentencePiece vocabulary that is too small."""
    source, target = task.vocabularies.source, task.vocabularies.target
    sides = [("source", source), ("target", target)]
    if task.vocabularies.are_one:
        sides = [("source and target", source)]
    return [
        (side, len(vocabulary), task.vocabulary_size)
        for side, vocabulary in sides
        if vocabulary.kind == "sentencepiece" and len(vocabulary) < task.vocabulary_size
    ]


def count_unknown(tokens: Sequences) -> dict[str, int]:
    """Counts the "unknown" tokens and all "tokens", both without the end symbols."""
    count = int(np.count_nonzero(tokens.ids == UNK))
    return {"unknown": count, "tokens": len(tokens.ids) - len(tokens)}


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
