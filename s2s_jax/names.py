"""Hints for error messages about names that do not exist."""

import difflib
import re
from collections.abc import Collection, Iterable

_NUM_LISTED = 20
_LIKENESS = 0.6
_OTHER_SECTION = 0.8
_SEPARATOR = re.compile(r"[./](?=[^\W\d])")  # between sections; a decimal point does not count


def check_known(what: str, word: str, known: Collection[str]) -> None:
    """Refuses an unknown name.

    Args:
      what: what it names, for the message.
      word: the name.
      known: the valid names, in the order in which they are listed.

    Raises:
      ValueError: it is not one of them; see `did_you_mean`.

    Example:
      >>> check_known("cell", "lstmm", ("lstm", "gru"))
      Traceback (most recent call last):
      ValueError: cell is 'lstmm'; did you mean 'lstm'? (one of lstm, gru)
    """
    if word not in known:
        raise ValueError(f"{what} is {word!r}; {did_you_mean(word, known)}")


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Ends an error message about an unknown name: the most similar option, and the valid ones.

    Args:
      word: what the user wrote; case does not matter. For names with sections, such as
        "train.num_steps" or "test/own/wer", the last parts are compared, and an option in another
        section has to be more similar to be suggested.
      options: the valid names, in the order in which they are listed.

    Returns:
      The end of a sentence such as f"cell is {word!r}; {did_you_mean(word, options)}". If there are
      more than twenty options, they are listed only if none is similar, and only the first twenty.

    Example:
      >>> did_you_mean("lstmm", ["lstm", "gru"])
      "did you mean 'lstm'? (one of lstm, gru)"
      >>> did_you_mean("transformer", ["lstm", "gru"])
      'it must be one of lstm, gru'
      >>> did_you_mean("train.num_step", ["train.num_steps", "train.batch_size"])
      "did you mean 'train.num_steps'? (one of train.num_steps, train.batch_size)"
      >>> did_you_mean("train.optimizer", ["train.num_steps", "train.batch_size"])
      'it must be one of train.num_steps, train.batch_size'
    """
    options = list(options)
    listed = ", ".join(options[:_NUM_LISTED]) + (", ..." if len(options) > _NUM_LISTED else "")
    likeness = {option: _likeness(str(word), option) for option in options}
    best = max(options, key=lambda option: likeness[option], default="")
    if not options or likeness[best][0] < _LIKENESS:
        return f"it must be one of {listed}" if options else "there is none"
    hint = f"did you mean {best!r}?"
    return hint if len(options) > _NUM_LISTED else f"{hint} (one of {listed})"


def _likeness(word: str, option: str) -> tuple[float, float]:
    """The similarity of the last parts, from 0 to 1; then, to break ties, of the whole names."""
    word, option = word.casefold(), option.casefold()
    *section, last = _SEPARATOR.split(word)
    *its_section, its_last = _SEPARATOR.split(option)
    weight = _OTHER_SECTION if section and section != its_section else 1.0
    return weight * _ratio(last, its_last), _ratio(word, option)


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
