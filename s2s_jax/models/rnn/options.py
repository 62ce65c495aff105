"""The options of the recurrent encoder-decoder, and their checks."""

from dataclasses import dataclass
from typing import get_args

from s2s_jax.models.network_functions import check_options
from s2s_jax.models.rnn.attention import AttentionKind
from s2s_jax.models.rnn.recurrent import Cell


@dataclass(frozen=True)
class RNNOptions:
    """The options of an `RNNEncoderDecoder`; `make_rnn_model` documents each of them.

    Raises:
      ValueError: a value is out of range, or options contradict each other.
    """

    source_vocab_size: int
    target_vocab_size: int
    hidden_size: int
    embedding_size: int
    cell: Cell
    num_encoder_layers: int
    num_decoder_layers: int
    bidirectional: bool
    attention: AttentionKind
    input_feeding: bool
    dropout: float
    tie_embeddings: bool
    dtype: str

    def __post_init__(self):
        check_options(
            self,
            {
                "cell": get_args(Cell),
                "attention": get_args(AttentionKind),
                "dtype": ("float32", "bfloat16"),
            },
            (
                "source_vocab_size",
                "target_vocab_size",
                "hidden_size",
                "embedding_size",
                "num_encoder_layers",
                "num_decoder_layers",
            ),
        )
        if self.bidirectional and self.hidden_size % 2:
            raise ValueError(
                f"hidden_size is {self.hidden_size}; a bidirectional encoder halves it, so it must"
                " be even"
            )
        if self.input_feeding and self.attention == "none":
            raise ValueError("input_feeding feeds the attentional vector; it needs an attention")
        if self.tie_embeddings and self.embedding_size != self.hidden_size:
            raise ValueError(
                f"tie_embeddings needs embedding_size equal to hidden_size;"
                f" they are {self.embedding_size} and {self.hidden_size}"
            )

    @property
    def directions(self) -> tuple[str, ...]:
        """The directions in which each encoder layer reads."""
        return ("forward", "backward") if self.bidirectional else ("forward",)
