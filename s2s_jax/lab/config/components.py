"""Components that a config names: built-ins, or the user's own functions as `module:function`.

The keyword arguments of such a function become the keys of its section in the config:

    def make_bag_model(source_vocab_size, target_vocab_size, *, size=16): ...

    --config.model.name=my_models:make_bag_model --config.model.size=8
"""

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optax
from ml_collections.config_dict import placeholder

from s2s_jax.data.catalog import LOADERS
from s2s_jax.feeding import RolloutOptions
from s2s_jax.lab.base.errors import LabError, is_for_the_user
from s2s_jax.lab.config.contracts import check_schedule, check_splits
from s2s_jax.lab.config.user_code import (
    ENVIRONMENT,
    Modules,
    line_in,
    printing_beside_results,
    where_in,
)
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.models.rnn import make_rnn_model
from s2s_jax.models.tabular import make_tabular_model
from s2s_jax.models.transformer import make_transformer_model
from s2s_jax.names import did_you_mean
from s2s_jax.objectives import (
    make_cross_entropy,
    make_minimum_risk,
    make_mixer,
    make_r_drop,
    make_reinforce,
    make_self_critical,
)
from s2s_jax.optimizers import OPTIMIZERS
from s2s_jax.schedules import FEEDBACK_SCHEDULES, SCHEDULES, FeedbackSchedule

DATA_KEYS: dict[str, Any] = {
    # Where datasets are prepared; "" is TFDS_DATA_DIR or ~/tensorflow_datasets.
    "data_dir": "",
    # "characters", "whitespace" or "sentencepiece", trained on the training split.
    "source_vocabulary": "characters",
    "target_vocabulary": "characters",
    # Whether source and target have one vocabulary, trained on both; they need one kind.
    "shared_vocabulary": False,
    # Maximum vocabulary size in ids; 0 for no limit, but sentencepiece needs one.
    "vocabulary_size": 0,
    # Number of fixed shapes (source_time, time); each one needs a compilation.
    "num_buckets": 4,
    # Training pairs with more tokens on either side are left out; 0 keeps all.
    "max_tokens": 0,
}
"""The keys that a config's data section has for every dataset, with their defaults."""

_ROLLOUT = {one.name for one in dataclasses.fields(RolloutOptions)}
_TYPES = (bool, int, float, str, tuple)


@dataclass(frozen=True)
class Kind:
    """A kind of component.

    Attributes:
      section: the config's section, whose `name` names the component and whose other keys are its
        options.
      built_in: functions by name.
      num_given: how many arguments the lab passes by position; the others are options.
      makes: what the function must return, in words.
      is_right: whether a value is of that kind.
      supplied: arguments that the lab passes by name to functions that have them, each with the
        config key that its value comes from; "rollout" is a whole section, as `RolloutOptions`.
      computed: arguments that the lab passes by name, computed from the data.
      reserved: keys that the section has for every component.
      check: (name, files, value) -> None; raises a LabError about the value that a user's own
        function has returned. See `contracts`, also for the kinds that need a batch.
    """

    section: str
    built_in: Mapping[str, Callable[..., Any]]
    num_given: int
    makes: str
    is_right: Callable[[Any], bool]
    supplied: Mapping[str, str] = field(default_factory=dict)
    computed: tuple[str, ...] = ()
    reserved: tuple[str, ...] = ("name",)
    check: Callable[[str, list[Path], Any], None] = lambda name, files, made: None


def _is_optimizer(made: Any) -> bool:
    return isinstance(made, optax.GradientTransformation | optax.GradientTransformationExtraArgs)


KINDS: dict[str, Kind] = {
    one.section: one
    for one in (
        Kind(
            "data",
            LOADERS,
            1,
            "a dict of splits",
            lambda made: isinstance(made, Mapping),
            reserved=("name", *DATA_KEYS),
            check=check_splits,
        ),
        Kind(
            "model",
            {
                "rnn": make_rnn_model,
                "transformer": make_transformer_model,
                "tabular": make_tabular_model,
            },
            2,
            "a Seq2SeqModel",
            lambda made: isinstance(made, Seq2SeqModel),
        ),
        Kind(
            "objective",
            {
                "cross_entropy": make_cross_entropy,
                "minimum_risk": make_minimum_risk,
                "reinforce": make_reinforce,
                "self_critical": make_self_critical,
                "mixer": make_mixer,
                "r_drop": make_r_drop,
            },
            1,
            "an objective, a function",
            callable,
            supplied={"rollout": "rollout", "label_smoothing": "train.label_smoothing"},
            computed=("unigram_probs",),
        ),
        Kind(
            "schedule",
            {**SCHEDULES, **FEEDBACK_SCHEDULES},
            0,
            "a schedule, a function of the step, or a FeedbackSchedule",
            lambda made: callable(made) or isinstance(made, FeedbackSchedule),
            supplied={"num_steps": "train.num_steps"},
            check=check_schedule,
        ),
        Kind(
            "train.optimizer",
            OPTIMIZERS,
            1,
            "an optax.GradientTransformation",
            _is_optimizer,
            supplied={"num_steps": "train.num_steps"},
        ),
    )
}
"""The kinds of components by their section of the config."""


@dataclass(frozen=True)
class Option:
    """An option of a component.

    Attributes:
      default: its value unless it is set.
      kind: the type of its values; None is also allowed if `default` is None.
      is_required: whether it has no default and must be set.
    """

    default: Any
    kind: type
    is_required: bool = False

    @property
    def key(self) -> Any:
        """The entry in a ConfigDict: the default, or a placeholder with the type."""
        return placeholder(self.kind) if self.default is None else self.default


@dataclass(frozen=True)
class Component:
    """A function that a config names, with the options that the config can set.

    Attributes:
      kind: its kind.
      name: its name in the config.
      function: the function to call.
      options: by name.
      supplied: the arguments that the lab passes by name, with their config keys.
      computed: the arguments that the lab computes from the data.
      modules: where it was found.
    """

    kind: Kind
    name: str
    function: Callable[..., Any]
    options: Mapping[str, Option]
    supplied: Mapping[str, str]
    computed: tuple[str, ...] = ()
    modules: Modules = ENVIRONMENT

    @property
    def is_built_in(self) -> bool:
        """Whether it is one of the lab's own."""
        return self.name in self.kind.built_in

    @property
    def files(self) -> list[Path]:
        """The user's own files behind it."""
        return [] if self.is_built_in else list(self.modules.files(self.name).values())

    def make(self, *given: Any, options: Mapping[str, Any]) -> Any:
        """Calls the function.

        Args:
          *given: the arguments that the lab passes by position.
          options: the arguments to pass by name.

        Raises:
          LabError: a required option is not set, or the function rejects a value, fails, or returns
            something of the wrong kind.
        """
        section = self.kind.section
        for name, option in self.options.items():
            if option.is_required and options.get(name) is None:
                raise LabError(f"{self.name} needs {section}.{name}, which is not set")
        try:
            with printing_beside_results():
                made = self.function(*given, **options)
        except (Exception, SystemExit) as error:
            if is_for_the_user(error):
                raise
            told = self._told(error)
            if told:
                raise LabError(told) from error
            raise
        if not self.kind.is_right(made):
            raise LabError(
                f"{section}.name={self.name} returns {type(made).__name__};"
                f" it must return {self.kind.makes}"
            )
        if not self.is_built_in:
            self.kind.check(f"{section}.name={self.name}", self.files, made)
        return made

    def _told(self, error: BaseException) -> str:
        """Why the function failed; "" if that is a mistake of ours."""
        section, first = self.kind.section, str(error).split(" ", 1)[0]
        if isinstance(error, ValueError):
            if first in _ROLLOUT and "rollout" in self.supplied:
                return f"rollout.{error}"
            if first in self.supplied:
                return f"{self.supplied[first].rpartition('.')[0]}.{error}"
            if first in self.options:
                return f"{section}.{error}"
            if self.is_built_in:
                return f"{section}: {error}"
        if self.is_built_in:
            return ""
        if type(error) is not ValueError or not first:
            return f"{section}.name={self.name} fails: {where_in(error, self.files)}"
        place = line_in(error, self.files)
        return f"{section}: {error}" + (f" ({place[0]}, line {place[1]})" if place else "")


def find_component(section: str, name: str, modules: Modules = ENVIRONMENT) -> Component:
    """Finds a component by its name.

    Args:
      section: its section in the config.
      name: of a built-in component, or `module:function`.
      modules: where modules are found.

    Raises:
      LabError: it does not exist, or a config cannot set its arguments.

    Example:
      >>> component = find_component("schedule", "constant")
      >>> component.options
      {'teacher_prob': Option(default=None, kind=<class 'float'>, is_required=True)}
      >>> float(component.make(options={"teacher_prob": 0.25})(0))
      0.25
    """
    kind = KINDS[section]
    key = f"{section}.name"
    if name in kind.built_in:
        function = kind.built_in[name]
    elif ":" in name:
        function = modules.find(key, name)
        if not callable(function):
            raise LabError(f"{key} is {name!r}, which is not a function")
    else:
        hint = did_you_mean(name, kind.built_in)
        raise LabError(f"{key} is {name!r}; {hint}; name your own as module:function")
    return Component(kind, name, function, *_signature(kind, name, function), modules=modules)


def built_in_options(section: str) -> dict[str, str]:
    """The built-in components of a section, each with its options and their defaults on one line.

    Example:
      >>> built_in_options("model")["tabular"]
      'length=4'
    """
    found = {}
    for name in KINDS[section].built_in:
        options = find_component(section, name).options.items()
        found[name] = ", ".join(
            option if about.is_required or about.default is None else f"{option}={about.default}"
            for option, about in options
        )
    return found


def _signature(
    kind: Kind, name: str, function: Callable[..., Any]
) -> tuple[dict[str, Option], dict[str, str], tuple[str, ...]]:
    """A function's options, and the arguments that the lab supplies and computes."""
    key = f"{kind.section}.name={name}"
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise LabError(f"{key} has no readable signature") from None
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, _EITHER)]
    takes_any = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    if len(positional) < kind.num_given and not takes_any:
        raise LabError(
            f"{key} takes {len(positional)} arguments by position; it must take {kind.num_given}"
        )
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # annotations may use names that only exist for type checkers
        hints = {}
    options: dict[str, Option] = {}
    supplied: dict[str, str] = {}
    computed: list[str] = []
    for one in parameters:
        if one in positional[: kind.num_given] or one.kind in (
            one.VAR_POSITIONAL,
            one.VAR_KEYWORD,
        ):
            continue
        if one.name in kind.supplied:
            supplied[one.name] = kind.supplied[one.name]
            continue
        if one.name in kind.computed:
            computed.append(one.name)
            continue
        if one.kind is one.POSITIONAL_ONLY:
            raise LabError(f"{key}: argument {one.name} can only be given by position")
        if one.name in kind.reserved:
            raise LabError(f"{key}: no option can be called {one.name}; rename the argument")
        options[one.name] = _option(key, one, hints.get(one.name, one.annotation))
    return options, supplied, tuple(computed)


_EITHER = inspect.Parameter.POSITIONAL_OR_KEYWORD


def _option(key: str, parameter: inspect.Parameter, hint: Any) -> Option:
    default = parameter.default
    is_required = default is parameter.empty
    if default is None or is_required:
        return Option(None, type_of(hint), is_required)
    check_storable(f"{key}: the default of {parameter.name} is", default)
    return Option(default, type(default))


def check_storable(what: str, value: Any) -> None:
    """Rejects a value of an option, except None, that `config.json` would not give back.

    Args:
      what: the start of the message, such as "model.size is".
      value: the value.

    Raises:
      LabError: it is of another type, or a number that is not finite.

    Example:
      >>> check_storable("model.size is", [8])
      Traceback (most recent call last):
      s2s_jax.lab.base.errors.LabError: model.size is [8] of type list; a config holds None, bools, finite numbers, strings, and tuples of these
    """  # noqa: E501
    if type(value) is tuple:
        for one in value:
            if one is not None:
                check_storable(f"{what} {value!r} with", one)
    elif type(value) not in _TYPES or (isinstance(value, float) and not math.isfinite(value)):
        kind = "" if isinstance(value, float) else f" of type {type(value).__name__}"
        raise LabError(
            f"{what} {value!r}{kind}; a config holds None, bools, finite numbers, strings, and"
            " tuples of these"
        )


def type_of(hint: Any) -> type:
    """The type of an option's values from its annotation; str if the annotation does not say.

    Of several types it is the first, but float if that is one of them, as in jax's ArrayLike.
    """
    parts = typing.get_args(hint) if _is_union(hint) else (hint,)
    for one in sorted(parts, key=lambda one: one is not float):
        plain = typing.get_origin(one) or one
        if plain is typing.Literal:
            plain = type(typing.get_args(one)[0])
        if plain in _TYPES:
            return plain
    return str


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)
