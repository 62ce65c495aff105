"""Translation of parallel text in a folder: train.en, train.de, val.en, ... (also .gz).

    s2s train --config=experiments/parallel_text.py:linear --workdir=runs/text \
        --config.data.folder=FOLDER

English to German, unless --config.data.source_language and --config.data.target_language are set.
"""

from s2s_jax.lab.config import Config, base_config, sweep_schedules


def get_config(schedule: str = "teacher_forcing") -> Config:
    """The experiment; the argument names the schedule."""
    config = base_config("parallel_text", schedule)
    config.data.source_language = "en"
    config.data.target_language = "de"
    translation_settings(config)
    config.data.vocabulary_size = 6000
    return config


def translation_settings(config: Config) -> None:
    """Sets what translation experiments share: subwords, a larger model, BLEU."""
    config.data.source_vocabulary = "sentencepiece"
    config.data.target_vocabulary = "sentencepiece"
    config.data.num_buckets = 6
    config.data.max_tokens = 60
    config.model.hidden_size = 512
    config.model.embedding_size = 256
    config.model.input_feeding = True
    config.model.dropout = 0.3
    config.train.batch_size = 64
    config.train.num_steps = 10_000
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 500
    config.train.label_smoothing = 0.1
    config.eval.every = 1000
    config.eval.batch_size = 128
    config.eval.scores = "translation"


def sweep():
    """Four schedules with three seeds each."""
    return sweep_schedules(num_seeds=3)
