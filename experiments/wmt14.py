"""WMT14 German to English, from TFDS; meant for a GPU or TPU.

    s2s train --config=experiments/wmt14.py:inverse_sigmoid --workdir=runs/wmt14

The data must be prepared beforehand, on a machine with TensorFlow; the first run says how.
"""

from experiments.parallel_text import translation_settings
from s2s_jax.lab.config import Config, base_config, sweep_schedules


def get_config(schedule: str = "teacher_forcing") -> Config:
    """The experiment; the argument names the schedule."""
    config = base_config("tfds_translation", schedule)
    config.data.tfds_name = "wmt14_translate/de-en"
    translation_settings(config)
    config.data.vocabulary_size = 16_000
    config.model.hidden_size = 1024
    config.model.embedding_size = 512
    config.model.num_encoder_layers = 2
    config.model.num_decoder_layers = 2
    config.model.dtype = "bfloat16"
    config.train.batch_size = 256
    config.train.num_steps = 200_000
    config.train.warmup_steps = 4000
    config.eval.every = 5000
    return config


def sweep():
    """Four schedules with three seeds each."""
    return sweep_schedules(num_seeds=3)
