"""Whether the data of runs are there, and are what they were."""

import json

from s2s_jax.data.pairs import DataError
from s2s_jax.lab.base.files import to_json
from s2s_jax.lab.config.keys import Config
from s2s_jax.lab.runs.provenance import config_fingerprints
from s2s_jax.lab.runs.run_folder import RunFolder


class DataCheck:
    """Checks that the data of runs exist and are unchanged, once for each data section."""

    def __init__(self):
        self._found: dict[str, dict[str, str] | DataError] = {}

    def check(self, run: RunFolder, config: Config) -> list[str]:
        """Rejects a run whose data have changed; a run that did not record its data passes.

        Returns:
          A line for the user if the data are no longer available; otherwise no lines.

        Raises:
          LabError: the data have changed.
        """
        if run.provenance() is None:
            return []
        said_before = _section(config) in self._found
        found = self._find(config)
        if not isinstance(found, DataError):
            run.check_data(found)
            return []
        line = f"cannot tell whether the data of {run.folder} have changed: {found}"
        return [] if said_before else [line]

    def require(self, config: Config) -> None:
        """Checks that the data of a run to be trained can be found; prepares nothing.

        Raises:
          DataError: the data cannot be found; the message says why.
        """
        found = self._find(config)
        if isinstance(found, DataError):
            raise found

    def _find(self, config: Config) -> dict[str, str] | DataError:
        section = _section(config)
        if section not in self._found:
            try:
                self._found[section] = config_fingerprints(config)
            except DataError as error:
                self._found[section] = error
        return self._found[section]


def _section(config: Config) -> str:
    """The data section of a config as text, for lookup."""
    return json.dumps(to_json(config.data.to_dict()), sort_keys=True)
