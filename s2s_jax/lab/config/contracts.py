"""Checks of what the user's own components return, before anything is written.

Functions are only traced, on shapes: what they compute is not checked.

Each check takes `name`, such as "model.name=mine:make", for messages, and `files`, the user's files
behind it, whose lines are named. It raises a LabError if a function fails, or does not return what
the lab needs.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from s2s_jax.batch import Batch
from s2s_jax.data.pairs import Pairs
from s2s_jax.data.splits import PreparedSplits
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.user_code import any_error_in_a_line
from s2s_jax.metrics import Mean
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.objectives import Objective
from s2s_jax.schedules import FeedbackSchedule, Schedule

_NUMBER = jax.ShapeDtypeStruct((), jnp.float32)
_STEP = jax.ShapeDtypeStruct((), jnp.int32)
_MEASURED = ("teacher_prob", "gradient_norm")


def check_splits(name: str, files: Iterable[Path], splits: Mapping[Any, Any]) -> None:
    """Checks the splits of a dataset: their names, and that each is `Pairs` of texts."""
    if isinstance(splits, PreparedSplits):
        return
    for split, pairs in splits.items():
        if not isinstance(split, str) or not split or "/" in split or split == "eval":
            raise LabError(
                f"{name} returns a split called {split!r}; a name is a text without a slash, and"
                ' not "eval", under which dev is measured'
            )
        if not isinstance(pairs, Pairs):
            raise LabError(
                f"{name} returns {type(pairs).__name__} as split {split!r}; make Pairs, with"
                " one_reference(sources, targets)"
            )
        columns = {"source": pairs.sources, "target": pairs.targets}
        columns["reference"] = [text for texts in pairs.references for text in texts]
        for column, texts in columns.items():
            for text in texts:
                _check_text(f"{name}: a {column} of split {split!r}", text)


def check_schedule(name: str, files: Iterable[Path], schedule: Schedule | FeedbackSchedule) -> None:
    """Checks that a schedule maps a traced step, and its state if it has one, to a number."""
    files = list(files)
    if isinstance(schedule, FeedbackSchedule):
        state = _traced(f"{name}: init", files, schedule.init)
        what = "teacher_prob"
        found = _traced(f"{name}: {what}", files, schedule.teacher_prob, _STEP, state)
    else:
        what = "the schedule"
        found = _traced(f"{name}: {what}", files, schedule, _STEP)
    if not _is_number(found):
        raise LabError(f"{name}: {what} returns {_told(found)}; it must return one number")


def check_feedback(
    name: str,
    files: Iterable[Path],
    schedule: FeedbackSchedule,
    objective: Objective,
    params: Params,
    batch: Batch,
) -> None:
    """Checks that a schedule can follow an objective's sums, and that its state stays alike.

    Args:
      name: see above.
      files: see above.
      schedule: the schedule, checked by `check_schedule`.
      objective: an objective, checked by `check_objective`.
      params: the shapes of the model's parameters.
      batch: the shapes of a batch.
    """
    files = list(files)
    _, sums = jax.eval_shape(objective, params, batch, _key(), _NUMBER)
    number: Any = _NUMBER
    sums |= dict.fromkeys(_MEASURED, Mean(number, number))
    state = jax.eval_shape(schedule.init)
    try:
        found = _traced(f"{name}: update", files, schedule.update, state, sums)
    except LabError as error:
        if files or not isinstance(error.__cause__, ValueError):
            raise
        raise LabError(f"{name}: {error.__cause__}") from error  # of a built-in schedule
    _check_same(f"{name}: the state after update", found, state)


def check_model(
    name: str, files: Iterable[Path], model: Seq2SeqModel, batch: Batch, vocab_size: int
) -> None:
    """Checks the functions of a model on a batch's shapes; see `Seq2SeqModel`."""
    files = list(files)
    rows, time = batch.target.shape
    if model.vocab_size != vocab_size:
        raise LabError(f"{name}: vocab_size is {model.vocab_size}; there are {vocab_size} targets")
    params = _traced(f"{name}: init", files, model.init, _key())
    for leaf in jax.tree.leaves(params):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            raise LabError(f"{name}: init returns a parameter {_told(leaf)}; they must be floats")
    source = batch.source, batch.source_mask
    _traced(f"{name}: encode", files, model.encode, params, *source, _key())
    memory = _traced(f"{name}: encode without dropout", files, model.encode, params, *source, None)
    carry = _traced(f"{name}: initial_carry", files, model.initial_carry, params, memory, time)
    for what, tree in {"the memory": memory, "the carry": carry}.items():
        for leaf in jax.tree.leaves(tree):
            if leaf.shape[:1] != (rows,):
                raise LabError(
                    f"{name}: {what} has a leaf {_told(leaf)}; its first axis must be the batch,"
                    f" here {rows}"
                )
    token = jax.ShapeDtypeStruct((rows,), jnp.int32)
    step = _traced(f"{name}: decode_step", files, model.decode_step, params, memory, carry, token)
    if not isinstance(step, tuple) or len(step) != 2:
        raise LabError(f"{name}: decode_step returns {_told(step)}; it must return carry, logits")
    _check_same(f"{name}: the carry after decode_step", step[0], carry)
    _check_shape(f"{name}: the logits of decode_step", step[1], (rows, vocab_size))
    tokens = batch.target
    sequence = _traced(
        f"{name}: decode_sequence", files, model.decode_sequence, params, memory, tokens
    )
    _check_shape(f"{name}: the logits of decode_sequence", sequence, (rows, time, vocab_size))


def check_objective(
    name: str, files: Iterable[Path], objective: Objective, params: Params, batch: Batch
) -> None:
    """Checks that an objective returns a loss and sums, among them "loss".

    Args:
      name: see above.
      files: see above.
      objective: the objective.
      params: the shapes of the model's parameters.
      batch: the shapes of a batch.
    """
    found = _traced(f"{name}: the objective", files, objective, params, batch, _key(), _NUMBER)
    if not isinstance(found, tuple) or len(found) != 2:
        raise LabError(
            f"{name}: the objective returns {_told(found)}; it must return loss, metric sums"
        )
    loss, sums = found
    if not _is_number(loss):
        raise LabError(f"{name}: the loss is {_told(loss)}; it must be one number")
    if not isinstance(sums, dict) or not all(isinstance(one, Mean) for one in sums.values()):
        raise LabError(f"{name}: the metric sums are {_told(sums)}; they must be a dict of Means")
    for key, mean in sums.items():
        if not isinstance(key, str) or key in _MEASURED:
            remedy = "the train step adds one" if key in _MEASURED else "names are texts"
            raise LabError(f"{name} returns a sum called {key!r}; {remedy}")
        if not all(map(_is_number, mean)):
            raise LabError(f"{name}: the sum {key!r} is {_told(mean)}; it must be of two numbers")
    if "loss" not in sums:
        others = ", ".join(map(repr, sums)) or "none"
        raise LabError(f"{name} returns no sum called 'loss'; it returns {others}")


def check_optimizer(
    name: str, files: Iterable[Path], optimizer: optax.GradientTransformation, params: Params
) -> None:
    """Checks that an optimiser's updates are like the parameters, and that its state stays alike.

    Args:
      name: see above.
      files: see above.
      optimizer: the optimiser.
      params: the shapes of the model's parameters.
    """
    files = list(files)
    state = _traced(f"{name}: init", files, optimizer.init, params)
    found = _traced(f"{name}: update", files, optimizer.update, params, state, params)
    if not isinstance(found, tuple) or len(found) != 2:
        raise LabError(f"{name}: update returns {_told(found)}; it must return updates, state")
    _check_same(f"{name}: updates", found[0], params)
    _check_same(f"{name}: the state after update", found[1], state)


def _traced(what: str, files: Iterable[Path], function: Callable[..., Any], *args: Any) -> Any:
    """The shapes of what a function returns."""
    with any_error_in_a_line(what, files):
        return jax.eval_shape(function, *args)


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def _is_number(found: Any) -> bool:
    is_array = isinstance(found, jax.ShapeDtypeStruct) and found.shape == ()
    return is_array and not jnp.issubdtype(found.dtype, jnp.complexfloating)


def _check_text(what: str, text: Any) -> None:
    if not isinstance(text, str):
        raise LabError(f"{what} is {text!r} of type {type(text).__name__}; it must be a text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise LabError(f"{what} is {text!a}, which cannot be written as UTF-8") from None


def _check_shape(what: str, found: Any, shape: tuple[int, ...]) -> None:
    if getattr(found, "shape", None) != shape:
        raise LabError(f"{what} are {_told(found)}; their shape must be {list(shape)}")


def _check_same(what: str, found: Any, wanted: Any) -> None:
    """Rejects a tree of other arrays than another."""
    if jax.tree.structure(found) != jax.tree.structure(wanted):
        raise LabError(f"{what}: {_told(found)}; it must be {_told(wanted)}")
    pairs = zip(jax.tree.leaves_with_path(found), jax.tree.leaves(wanted), strict=True)
    for (path, leaf), other in pairs:
        if (leaf.shape, leaf.dtype) != (other.shape, other.dtype):
            where = jax.tree_util.keystr(path)
            raise LabError(f"{what}{where}: {_told(leaf)}; it must be {_told(other)}")


def _told(tree: Any) -> str:
    """A tree with the type and the shape of each array.

    Example:
      >>> _told({"a": jax.ShapeDtypeStruct((2, 3), jnp.float32), "b": None})
      '{a: float32[2, 3], b: None}'
    """
    said = str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)).replace("'", "")
    return said if len(said) <= 120 else f"{said[:117]}..."
