"""The options of the Transformer, and their checks."""

from dataclasses import dataclass
from typing import Literal, get_args

from s2s_jax.models.network_functions import check_options

Positions = Literal["sinusoidal", "learned", "rotary"]
NormPlace = Literal["pre", "post"]
Activation = Literal["relu", "gelu", "swiglu"]


@dataclass(frozen=True)
class TransformerOptions:
    """The options of a `TransformerEncoderDecoder`; `make_transformer_model` documents each.

    Raises:
      ValueError: a value is out of range, or options contradict each other.
    """

    source_vocab_size: int
    target_vocab_size: int
    hidden_size: int
    num_heads: int
    mlp_size: int
    num_encoder_layers: int
    num_decoder_layers: int
    dropout: float
    positions: Positions
    max_length: int
    norm: NormPlace
    activation: Activation
    tie_embeddings: bool
    share_embeddings: bool
    dtype: str

    def __post_init__(self):
        check_options(
            self,
            {
                "positions": get_args(Positions),
                "norm": get_args(NormPlace),
                "activation": get_args(Activation),
                "dtype": ("float32", "bfloat16"),
            },
            (
                "source_vocab_size",
                "target_vocab_size",
                "hidden_size",
                "num_heads",
                "mlp_size",
                "num_encoder_layers",
                "num_decoder_layers",
            ),
        )
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"num_heads is {self.num_heads}; it must divide hidden_size, {self.hidden_size}"
            )
        if self.positions == "rotary" and self.head_size % 2:
            raise ValueError(
                f"positions is 'rotary'; it needs heads of even size, and hidden_size / num_heads"
                f" is {self.head_size}"
            )
        if self.positions == "sinusoidal" and self.hidden_size % 2:
            raise ValueError(
                f"positions is 'sinusoidal'; it needs an even hidden_size, not {self.hidden_size}"
            )
        if self.positions == "learned" and self.max_length < 1:
            raise ValueError(
                "positions is 'learned'; set max_length, the longest sequence in tokens"
            )
        if self.positions != "learned" and self.max_length:
            raise ValueError(
                f"max_length is {self.max_length}; it has no effect with positions"
                f" {self.positions!r}, leave it at 0"
            )
        if self.share_embeddings and self.source_vocab_size != self.target_vocab_size:
            raise ValueError(
                "share_embeddings needs one vocabulary for source and target;"
                f" they have {self.source_vocab_size} and {self.target_vocab_size} ids"
                " (set data.shared_vocabulary)"
            )

    @property
    def head_size(self) -> int:
        """The size of an attention head's queries, keys and values."""
        return self.hidden_size // self.num_heads
