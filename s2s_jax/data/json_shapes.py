"""Reads back JSON that was written by us, and checks its shape.

A shape is described by Python values:

    str, bool, int, float     a value of that type; any finite number is a float, a bool is no int
    dict, list                an object or a list of anything
    None                      null
    {"a": shape, "b?": shape} an object with "a", optionally "b", and any other keys
    {...: shape}              an object whose other values all have that shape
    [shape]                   a list whose items have that shape
    (shape, shape)            one of these
    frozenset({"x", "y"})     one of these texts
"""

import json
import math
from collections.abc import Mapping
from typing import Any

_MAX_DEPTH = 64
_WORDS: Mapping[Any, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    dict: "an object",
    list: "a list",
    None: "null",
}


def parse(content: bytes | str, shape: Any = object) -> Any:
    """Parses JSON and checks its shape.

    Args:
      content: the JSON; bytes are UTF-8.
      shape: see the module's docstring; `object` for anything.

    Raises:
      ValueError: it is incomplete or has another shape; the message says in one line what and
        where.

    Example:
      >>> parse('{"step": 3}', {"step": int})
      {'step': 3}
      >>> parse('{"stop": 3}', {"step": int})
      Traceback (most recent call last):
      ValueError: step is missing
    """
    try:
        text = content.decode() if isinstance(content, bytes) else content
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
        if "\\u" in text:  # half of a character may be among them, which no file could hold
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise ValueError(f"{half} is half of a character") from None
    check(value, shape)
    return value


def check(value: Any, shape: Any, place: str = "") -> None:
    """Checks that a JSON value has a shape.

    Args:
      value: what was read.
      shape: see the module's docstring.
      place: the name of the value in messages.

    Raises:
      ValueError: it has another shape; the message says where, and what is there.
    """
    if not place:
        _check_depth(value)
    if isinstance(shape, dict):
        _require(isinstance(value, dict), value, "an object", place)
        _check_object(value, shape, place)
    elif isinstance(shape, list):
        _require(isinstance(value, list), value, "a list", place)
        for number, item in enumerate(value):
            check(item, shape[0], f"{place}[{number}]")
    elif not _is(value, shape):
        _require(False, value, _described(shape), place)


def _check_object(value: dict[str, Any], shape: dict[Any, Any], place: str) -> None:
    front = f"{place}." if place else ""
    named = set()
    for key, inner in shape.items():
        if key is ...:
            continue
        name = key.removesuffix("?")
        named.add(name)
        if name in value:
            check(value[name], inner, f"{front}{name}")
        elif name == key:
            raise ValueError(f"{front}{name} is missing")
    if ... in shape:
        for name, item in value.items():
            if name not in named:
                check(item, shape[...], f"{front}{name}")


def _is(value: Any, shape: Any) -> bool:
    """Whether a value has a shape other than an object with keys or a list of items."""
    if isinstance(shape, tuple):
        return any(_matches(value, one) for one in shape)
    if isinstance(shape, frozenset):
        return isinstance(value, str) and value in shape
    if shape is None:
        return value is None
    if isinstance(value, bool):
        return shape in (bool, object)
    if shape is float:
        return isinstance(value, int | float) and _is_finite(value)
    return isinstance(value, shape)


def _matches(value: Any, shape: Any) -> bool:
    try:
        check(value, shape, "it")
    except ValueError:
        return False
    return True


def _require(holds: bool, value: Any, wanted: str, place: str) -> None:
    if not holds:
        said = json.dumps(value, ensure_ascii=True)
        said = said if len(said) <= 40 else f"{said[:37]}..."
        raise ValueError(f"{place or 'it'} is {said}, not {wanted}")


def _described(shape: Any) -> str:
    if isinstance(shape, tuple):
        return " or ".join(map(_described, shape))
    if isinstance(shape, frozenset):
        return "one of " + ", ".join(sorted(shape))
    if isinstance(shape, dict | list):
        return _WORDS[type(shape)]
    return _WORDS[shape]


def _check_depth(value: Any) -> None:
    """Refuses values that are nested so deeply that recursive code would fail on them."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        inside = [one for one in level if isinstance(one, dict | list)]
        level = [
            item for one in inside for item in (one.values() if isinstance(one, dict) else one)
        ]


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # more digits than Python reads
        digits = len(text.removeprefix("-"))
        raise ValueError(f"a whole number of {digits} digits is too long") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer that is too large for a float
        return False


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
