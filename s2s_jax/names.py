"""Names that a user writes: what to say about one that does not exist."""

import difflib
from collections.abc import Iterable

_NUM_LISTED = 20


def nearest(word: str, options: Iterable[str]) -> str:
    """Ends an error message about an unknown name: the option most like it, and what there is.

    Args:
      word: what the user wrote; case does not matter.
      options: what there is, in the order in which it is listed.

    Returns:
      The end of a sentence such as f"cell is {word!r}; {nearest(word, options)}". More than twenty
      options are listed only where none is near, and then the first twenty.

    Example:
      >>> nearest("lstmm", ["lstm", "gru"])
      "did you mean 'lstm'? (one of lstm, gru)"
      >>> nearest("transformer", ["lstm", "gru"])
      'it must be one of lstm, gru'
    """
    options = list(options)
    listed = ", ".join(options[:_NUM_LISTED]) + (", ..." if len(options) > _NUM_LISTED else "")
    folded = {option.casefold(): option for option in reversed(options)}
    matches = difflib.get_close_matches(str(word).casefold(), folded, n=1)
    if not matches:
        return f"it must be one of {listed}" if options else "there is none"
    hint = f"did you mean {folded[matches[0]]!r}?"
    return hint if len(options) > _NUM_LISTED else f"{hint} (one of {listed})"
