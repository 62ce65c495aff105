"""What runs must have in common to share data and compiled programs, or to be one program."""

import json

from s2s_jax.lab.base.files import to_json
from s2s_jax.lab.config.keys import Config, component_of, flat_keys
from s2s_jax.lab.training.optimizers import has_traced_decay

_MAY_DIFFER = ("seed", "train.learning_rate")


def group_key(config: Config) -> str:
    """What must be equal in runs that share a program: all that shapes it, or its data.

    Everything but schedule, seed, learning rate, weight decay and, as long as it is not 0, the norm
    that gradients are clipped to.
    """
    values = {
        key: value
        for key, value in flat_keys(config).items()
        if key not in _MAY_DIFFER and not key.startswith("schedule.")
    }
    if has_traced_decay(component_of(config, "train.optimizer")):
        del values["train.optimizer.weight_decay"]
    values["train.clip_norm"] = bool(values["train.clip_norm"])
    return json.dumps(to_json(values), sort_keys=True)
