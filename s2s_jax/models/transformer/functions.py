"""The Transformer as the functions of `Seq2SeqModel`."""

from s2s_jax.models.interface import Features, Seq2SeqModel, Vectors
from s2s_jax.models.network_functions import NetworkFunctions
from s2s_jax.models.transformer.encoder_decoder import TransformerEncoderDecoder
from s2s_jax.models.transformer.options import (
    Activation,
    NormPlace,
    Positions,
    TransformerOptions,
)


def make_transformer_model(
    source_vocab_size: int,
    target_vocab_size: int,
    *,
    hidden_size: int = 256,
    num_heads: int = 4,
    mlp_size: int = 1024,
    num_encoder_layers: int = 3,
    num_decoder_layers: int = 3,
    dropout: float = 0.1,
    positions: Positions = "sinusoidal",
    max_length: int = 0,
    norm: NormPlace = "pre",
    activation: Activation = "relu",
    tie_embeddings: bool = False,
    share_embeddings: bool = False,
    dtype: str = "float32",
) -> Seq2SeqModel:
    """Makes a Transformer encoder-decoder.

        x = sqrt(H) emb(tokens) + positions
        encoder layer: x += attention(norm(x));   x += mlp(norm(x))
        decoder layer: x += attention(norm(x_<=t));   x += attention over the encoder;   x += mlp
        p(y_t | x_<=t) = softmax(O norm(x_t) + b)

    Vaswani et al. 2017 (arXiv:1706.03762). A step keeps the keys and values of the steps before it
    in its carry, which has room for the longest target. Dropout is applied to the embeddings and to
    each part of a layer before it is added.

    Args:
      source_vocab_size: number of source ids.
      target_vocab_size: number of target ids.
      hidden_size: H, of embeddings and layers.
      num_heads: attention heads, which divide hidden_size among them.
      mlp_size: inner size of the feed-forward networks.
      num_encoder_layers: at least 1.
      num_decoder_layers: at least 1.
      dropout: rate in [0, 1).
      positions: "sinusoidal", "learned" or "rotary" (Su et al. 2021, arXiv:2104.09864).
      max_length: with learned positions, the longest source or target in tokens; otherwise 0.
      norm: "pre" (before each part and at the end, as above) or "post" (after each sum).
      activation: "relu", "gelu" or "swiglu".
      tie_embeddings: whether the output layer is the target embedding's transpose, O = E^T/sqrt(H).
      share_embeddings: whether source and target have one embedding; they need one vocabulary.
      dtype: "float32" or "bfloat16", for the computation; parameters, norms and softmax stay
        float32.

    Returns:
      The model's functions.

    Raises:
      ValueError: a value is out of range, or options contradict each other.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = make_transformer_model(10, 12, hidden_size=8, mlp_size=16, num_heads=2)
      >>> params = model.init(jax.random.key(0))
      >>> source, mask = jnp.ones((2, 5), jnp.int32), jnp.ones((2, 5), bool)
      >>> memory = model.encode(params, source, mask, None)
      >>> model.decode_sequence(params, memory, jnp.ones((2, 3), jnp.int32)).shape
      (2, 3, 12)
    """
    options = TransformerOptions(
        source_vocab_size=source_vocab_size,
        target_vocab_size=target_vocab_size,
        hidden_size=hidden_size,
        num_heads=num_heads,
        mlp_size=mlp_size,
        num_encoder_layers=num_encoder_layers,
        num_decoder_layers=num_decoder_layers,
        dropout=dropout,
        positions=positions,
        max_length=max_length,
        norm=norm,
        activation=activation,
        tie_embeddings=tie_embeddings,
        share_embeddings=share_embeddings,
        dtype=dtype,
    )

    functions = NetworkFunctions(lambda values: TransformerEncoderDecoder(options, values))
    of = functions.of
    return Seq2SeqModel(
        init=functions.init,
        encode=of(TransformerEncoderDecoder.encode),
        initial_carry=of(TransformerEncoderDecoder.initial_carry),
        decode_step=of(TransformerEncoderDecoder.decode_step),
        decode_sequence=of(TransformerEncoderDecoder.decode_sequence),
        vocab_size=target_vocab_size,
        attention_weights=of(TransformerEncoderDecoder.attention_weights),
        features=Features(
            sequence=of(TransformerEncoderDecoder.features),
            output=of(TransformerEncoderDecoder.output_layer),
        ),
        vectors=Vectors(
            table=of(TransformerEncoderDecoder.target_table),
            step=of(TransformerEncoderDecoder.vector_step),
            sequence=of(TransformerEncoderDecoder.vector_features),
        ),
        max_length=max_length if positions == "learned" else None,
    )
