"""The two shapes that everything is timed at, and the batches of them."""

from dataclasses import dataclass

import numpy as np
import optax

from s2s_jax.batch import EOS, NUM_RESERVED, Batch
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.models.rnn import make_rnn_model


@dataclass(frozen=True)
class Bucket:
    """A batch shape and what is in such a batch.

    Attributes:
      source_time: tokens of the longest source, EOS counted.
      time: tokens of the longest target.
      frequency: batches of this shape in an epoch.
      source_tokens: mean number of tokens in a row's source; the rest is padding.
      tokens: mean number of tokens in a row's target.
    """

    source_time: int
    time: int
    frequency: int
    source_tokens: float
    tokens: float


@dataclass(frozen=True)
class Shape:
    """A model's sizes and its batches'.

    Attributes:
      name: "g2p" or "mt".
      batch_size: rows of a batch.
      hidden_size: of the decoder, and of the encoder's two directions together.
      embedding_size: of source and target embeddings.
      source_vocab_size: number of source ids.
      target_vocab_size: number of target ids.
      buckets: the batch shapes.
    """

    name: str
    batch_size: int
    hidden_size: int
    embedding_size: int
    source_vocab_size: int
    target_vocab_size: int
    buckets: tuple[Bucket, ...]

    @property
    def commonest(self) -> Bucket:
        """The bucket with the most batches."""
        return max(self.buckets, key=lambda bucket: bucket.frequency)


# An epoch of the training split of CMUdict in batches of 128: make_task(load_splits("cmudict")),
# training_batches(num_buckets=10, batch_size=128, seed=0), then every batch's shape and the sums of
# its masks counted. 891 batches of 113,578 pairs; 31 source ids, and 43 target ids there.
_CMUDICT = (
    Bucket(6, 5, 117, 5.355, 4.497),
    Bucket(7, 6, 147, 6.685, 5.735),
    Bucket(8, 7, 178, 7.658, 6.630),
    Bucket(9, 8, 149, 8.671, 7.497),
    Bucket(10, 9, 117, 9.671, 8.398),
    Bucket(11, 10, 80, 10.714, 9.329),
    Bucket(12, 11, 47, 11.701, 10.227),
    Bucket(13, 12, 28, 12.494, 11.021),
    Bucket(16, 14, 24, 13.902, 12.295),
    Bucket(21, 20, 4, 15.949, 14.807),
)

G2P = Shape("g2p", 128, 256, 128, 31, 42, _CMUDICT)
MT = Shape("mt", 64, 512, 128, 8000, 8000, (Bucket(24, 24, 1, 24.0, 24.0),))
SHAPES = (G2P, MT)

TINY_G2P = Shape("g2p", 4, 8, 6, 9, 10, (Bucket(4, 3, 2, 3.5, 2.5), Bucket(5, 5, 1, 4.5, 4.0)))
TINY_MT = Shape("mt", 3, 8, 8, 20, 20, (Bucket(4, 4, 1, 4.0, 4.0),))


def shapes(quick: bool) -> tuple[Shape, ...]:
    """Both shapes; with `quick` small ones of the same names, which show that a benchmark runs."""
    return (TINY_G2P, TINY_MT) if quick else SHAPES


def make_model(shape: Shape, dtype: str = "float32") -> Seq2SeqModel:
    """The recurrent model of a shape: bidirectional LSTM, LSTM, general attention, no dropout."""
    return make_rnn_model(
        shape.source_vocab_size,
        shape.target_vocab_size,
        hidden_size=shape.hidden_size,
        embedding_size=shape.embedding_size,
        dtype=dtype,
    )


def make_optimizer() -> optax.GradientTransformation:
    """Adam after clipping the norm, here and in the peers."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))


def make_batch(shape: Shape, bucket: Bucket, seed: int = 0) -> Batch:
    """Random ids in rows as long as the bucket's are on average.

    Args:
      shape: its batch size and vocabularies.
      bucket: the batch's lengths.
      seed: of the ids.

    Returns:
      A batch of numpy arrays.
    """
    generator = np.random.default_rng(seed)

    def side(time: int, mean: float, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
        longer = round((mean - int(mean)) * shape.batch_size)
        lengths = int(mean) + (np.arange(shape.batch_size) < longer)
        mask = np.arange(time) < lengths[:, None]
        ids = generator.integers(NUM_RESERVED, vocab_size, mask.shape, np.int32)
        ids[np.arange(shape.batch_size), lengths - 1] = EOS
        return np.where(mask, ids, 0).astype(np.int32), mask

    return Batch(
        *side(bucket.source_time, bucket.source_tokens, shape.source_vocab_size),
        *side(bucket.time, bucket.tokens, shape.target_vocab_size),
    )


def forward_flops(shape: Shape, bucket: Bucket) -> int:
    """Floating-point operations of the matrix products of one forward pass, 2 a multiply-add.

    Every cell of the batch counts, padding too, since it is computed; embeddings are look-ups and
    count nothing, and where the vocabulary has fewer rows than the batch has cells it is what is
    projected. A training step does three times as many: the backward pass has two products
    for each one here. The rollout of scheduled sampling is not counted: it is what sampling costs,
    no part of what training needs.
    """
    hidden, embedding = shape.hidden_size, shape.embedding_size
    source_cells = shape.batch_size * bucket.source_time
    cells = shape.batch_size * bucket.time
    half = hidden // 2
    source_inputs = min(source_cells, shape.source_vocab_size)
    inputs = min(cells, shape.target_vocab_size)
    encoder = 2 * (source_inputs * embedding + source_cells * half) * 4 * half  # two directions
    bridge = 2 * shape.batch_size * hidden * hidden
    keys = source_cells * hidden * hidden
    decoder = (inputs * embedding + cells * hidden) * 4 * hidden
    attention = 2 * cells * bucket.source_time * hidden  # scores, context
    combine = cells * 2 * hidden * hidden
    output = cells * hidden * shape.target_vocab_size
    return 2 * (encoder + bridge + keys + decoder + attention + combine + output)
