"""What the lab says to its user when it cannot go on."""

import difflib
from collections.abc import Iterable


class LabError(ValueError):
    """One line for the user: what is wrong, where, and what to do.

    The command line prints it on stderr and ends with exit code 2, without a traceback.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def nearest(word: str, options: Iterable[str]) -> str:
    """The end of an error message that offers the option most like a mistyped word.

    Args:
      word: what the user wrote.
      options: what there is.

    Returns:
      " Did you mean 'x'?", or "" where no option is near.

    Example:
      >>> nearest("lineer", ["linear", "exponential"])
      " Did you mean 'linear'?"
      >>> nearest("zebra", ["linear", "exponential"])
      ''
    """
    options = list(options)
    folded = {option.casefold(): option for option in reversed(options)}
    matches = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return f" Did you mean '{folded[matches[0]]}'?" if matches else ""
