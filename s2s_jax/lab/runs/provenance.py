"""What a result depends on besides its config: data, vocabularies, JAX's switches, versions."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2s_jax.data.files import fingerprint
from s2s_jax.data.splits import fingerprints_of
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.files import to_json
from s2s_jax.lab.base.versions import versions
from s2s_jax.lab.config.user_code import content_of

if TYPE_CHECKING:
    from s2s_jax.data.task import Task, Vocabularies
    from s2s_jax.lab.config.keys import Config

PROVENANCE_FILE = "provenance.json"

STARTED_FROM = {
    "workdir": str,
    "step": int,
    "parameters": str,
    "updates": int,
    "target_tokens": (int, None),
    "wall_seconds": float,
}
"""The shape of the record of another run that a run started from, or had as its teacher.

It is in that file and in `result.json`.

"step" is that of the checkpoint, "parameters" the fingerprint of what it held. The others count all
training there up to then, including that of the runs which that one started from or learnt from in
turn.
"""

PROVENANCE = {
    "data": {...: str},
    "vocabularies": {"source": str, "target": str},
    "switches": {...: (str, bool, int, None)},
    "versions": {...: str},
    "code?": {...: {"file": str, "fingerprint": str}},
    "started_from?": (STARTED_FROM, None),
    "teacher?": (STARTED_FROM, None),
}
"""The shape of that file; see `s2s_jax.data.json_shapes`."""

_SWITCHES = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_high_dynamic_range_gumbel",
    "jax_random_seed_offset",
    "jax_threefry_partitionable",
)
"""JAX settings that change what a program computes or samples."""

_WHERE = ("data.data_dir", "data.folder")
"""Keys that say where data are, not what they are."""


@dataclass(frozen=True)
class Provenance:
    """What a run's result depends on besides its config.

    Attributes:
      data: from `s2s_jax.data.splits.fingerprints_of`.
      vocabularies: "source" and "target" -> fingerprint.
      switches: JAX's settings by name.
      versions: by package.
      code: the user's own modules: path relative to the folder they were imported from -> "file",
        the original path, and "fingerprint", of its content.
      started_from: the run whose parameters it started from, see `STARTED_FROM`; None for a start
        from scratch.
      teacher: the run that is its teacher, likewise; None without one, or if it is the truth.
    """

    data: Mapping[str, str]
    vocabularies: Mapping[str, str]
    switches: Mapping[str, Any]
    versions: Mapping[str, str]
    code: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    started_from: Mapping[str, Any] | None = None
    teacher: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls,
        task: Task,
        files: Mapping[str, Path] | None = None,
        started_from: Mapping[str, Any] | None = None,
        teacher: Mapping[str, Any] | None = None,
    ) -> Provenance:
        """The provenance of a run that starts now.

        Args:
          task: the run's task.
          files: the user's own files, from `user_files`.
          started_from: see `Provenance`.
          teacher: likewise.
        """
        code = {
            name: {"file": str(path), "fingerprint": fingerprint(content_of(path))}
            for name, path in (files or {}).items()
        }
        data, vocabularies = (
            fingerprints_of(task.splits),
            vocabulary_fingerprints(task.vocabularies),
        )
        return cls(data, vocabularies, switches(), versions(), code, started_from, teacher)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Provenance:
        """The inverse of `to_dict`; the record's shape must have been checked."""
        names = (one.name for one in fields(cls))
        return cls(**{name: record[name] for name in names if name in record})

    def to_dict(self) -> dict[str, Any]:
        """The record for `provenance.json`."""
        record = asdict(self)
        for name in ("started_from", "teacher"):
            if record[name] is None:
                del record[name]
        return record


def distinct_records(*records: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The records that there are, see `STARTED_FROM`; those of the same parameters count once.

    Example:
      >>> first, other = {"parameters": "1a", "updates": 10}, {"parameters": "2b", "updates": 5}
      >>> [one["updates"] for one in distinct_records(first, None, other, dict(first))]
      [10, 5]
    """
    found: dict[str, Mapping[str, Any]] = {}
    for one in records:
        if one is not None:
            found.setdefault(one["parameters"], one)
    return list(found.values())


def switches() -> dict[str, Any]:
    """The current JAX settings that results depend on."""
    import jax  # imported here because comparing runs does not need JAX

    return {name: getattr(jax.config, name, None) for name in _SWITCHES}


def config_fingerprints(config: Config) -> dict[str, str]:
    """The current fingerprints of the data that a config names; prepares nothing.

    Raises:
      LabError, DataError: the data cannot be found.
    """
    from s2s_jax.data.splits import unprepared
    from s2s_jax.lab.config.keys import component_of, component_options

    component = component_of(config, "data")
    with unprepared():
        options = component_options(config, component)
        return fingerprints_of(component.make(config.data.data_dir, options=options))


def vocabulary_fingerprints(vocabularies: Vocabularies) -> dict[str, str]:
    """The fingerprints of the "source" and "target" vocabularies."""
    sides = {"source": vocabularies.source, "target": vocabularies.target}
    return {side: fingerprint(one.to_bytes()) for side, one in sides.items()}


def belongings(
    config: Config,
    vocabularies: Mapping[str, str],
    data: Mapping[str, str] | None,
    code: Mapping[str, Mapping[str, str]],
) -> dict[str, str]:
    """What a checkpoint depends on, stored with its arrays: readable name -> fingerprint.

    Args:
      config: the run's config; the keys that say where its data are do not count.
      vocabularies: from `vocabulary_fingerprints`.
      data: from `fingerprints_of`; None if not known.
      code: see `Provenance`.
    """
    from s2s_jax.lab.config.keys import flat_keys

    values = {key: value for key, value in flat_keys(config).items() if key not in _WHERE}
    found = {"config": fingerprint(json.dumps(to_json(values), sort_keys=True))}
    found |= {f"{side} vocabulary": value for side, value in sorted(vocabularies.items())}
    if code:
        found["code"] = fingerprint(
            sorted((name, one["fingerprint"]) for name, one in code.items())
        )
    return found if data is None else found | {"data": fingerprint(sorted(data.items()))}


def differing_data(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Which data differ, in words: "data", or "data (dev, test)"; "" if they are the same.

    Example:
      >>> differing_data({"train": "1a", "test": "2b"}, {"train": "1a", "test": "3c"})
      'data (test)'
    """
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if not names or "all" in names:
        return "data" if names else ""
    return f"data ({', '.join(names)})"


def differing_vocabularies(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Which vocabularies differ, in words; "" if they are the same.

    Example:
      >>> differing_vocabularies({"source": "1a", "target": "2b"}, {"source": "1a", "target": "3c"})
      'vocabulary (target)'
    """
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    return f"vocabulary ({', '.join(names)})" if names else ""


def differing_code(there: Mapping[str, Mapping[str, str]], here: Mapping[str, str]) -> list[str]:
    """The user's files that differ, sorted by path.

    Args:
      there: `code` of a run's provenance.
      here: path -> current fingerprint.

    Example:
      >>> differing_code({"bag.py": {"file": "/bag.py", "fingerprint": "1a"}}, {"bag.py": "2b"})
      ['bag.py']
    """
    before = {name: about["fingerprint"] for name, about in there.items()}
    return [name for name in sorted(before | dict(here)) if before.get(name) != here.get(name)]


def differing_switches(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The switches that differ, in words; unknown ones are ignored.

    Example:
      >>> differing_switches({"jax_enable_x64": True}, {"jax_enable_x64": False})
      ['jax_enable_x64 is True there and False here']
    """
    return [
        f"{name} is {there[name]!r} there and {here[name]!r} here"
        for name in here
        if name in there and there[name] != here[name]
    ]


def differing_versions(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """The versions that differ, in words; "" for none.

    Example:
      >>> differing_versions({"jax": "0.10.2", "numpy": "2.4"}, {"jax": "0.10.3", "numpy": "2.4"})
      'jax 0.10.2, now 0.10.3'
    """
    return ", ".join(
        f"{name} {there.get(name, 'none')}, now {here.get(name, 'none')}"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    )


def told_apart(provenances: Sequence[Provenance | None]) -> list[dict[str, Any]]:
    """What distinguishes runs that were trained on different data, code or with other switches.

    Returns:
      For each run the values, by name, in which the runs differ: the fingerprints "data",
      "vocabularies" and "code", and switches. Empty for a run whose provenance is not known. Code
      differs if runs have different versions of a file, but not if only some have the file.
    """
    versions: dict[str, set[str]] = defaultdict(set)
    for one in provenances:
        for name, about in (one.code if one else {}).items():
            versions[name].add(about["fingerprint"])
    edited = sorted(name for name, found in versions.items() if len(found) > 1)
    told = [
        {}
        if one is None
        else {
            "data": fingerprint(sorted(one.data.items())),
            "vocabularies": fingerprint(sorted(one.vocabularies.items())),
            "code": fingerprint(
                [(name, one.code[name]["fingerprint"]) for name in edited if name in one.code]
            ),
            **one.switches,
        }
        for one in provenances
    ]
    known = [one for one in told if one]
    varied = [name for name in (known or [{}])[0] if len({one.get(name) for one in known}) > 1]
    return [{name: one[name] for name in varied if name in one} for one in told]


def check_lanes() -> None:
    """Rejects a random generator whose numbers change if several runs are one program.

    Raises:
      LabError: the generator is not threefry, which gives the same numbers under `jax.vmap`.
    """
    impl = switches()["jax_default_prng_impl"]
    if impl != "threefry2x32":
        raise LabError(
            f"jax_default_prng_impl is {impl!r}: several runs in one program would draw different"
            " random numbers than separate runs; leave out --population, or unset"
            " JAX_DEFAULT_PRNG_IMPL"
        )
