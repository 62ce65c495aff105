"""The recurrent encoder-decoder with attention, as the functions of `Seq2SeqModel`."""

from s2s_jax.models.interface import Features, Replay, Seq2SeqModel, Vectors
from s2s_jax.models.network_functions import NetworkFunctions
from s2s_jax.models.rnn.attention import AttentionKind
from s2s_jax.models.rnn.encoder_decoder import RNNEncoderDecoder
from s2s_jax.models.rnn.options import RNNOptions
from s2s_jax.models.rnn.recurrent import Cell


def make_rnn_model(
    source_vocab_size: int,
    target_vocab_size: int,
    *,
    hidden_size: int = 256,
    embedding_size: int = 128,
    cell: Cell = "lstm",
    num_encoder_layers: int = 1,
    num_decoder_layers: int = 1,
    bidirectional: bool = True,
    attention: AttentionKind = "general",
    input_feeding: bool = False,
    dropout: float = 0.0,
    tie_embeddings: bool = False,
    dtype: str = "float32",
) -> Seq2SeqModel:
    """Makes a recurrent encoder-decoder.

        m = encoder(source)                       one state per source token
        h_t = layers(h_{t-1}, [emb(x_t); a_{t-1}])  a_{t-1} with input feeding only
        a_t = tanh(C [context(h_t, m); h_t])      h_t itself without attention
        p(y_t | x_<=t) = softmax(O a_t + b)

    Luong et al. 2015 (arXiv:1508.04025). Dropout masks for the embeddings and for the output of
    each layer are drawn once per sequence (Gal & Ghahramani 2016, arXiv:1512.05287).

    Args:
      source_vocab_size: number of source ids.
      target_vocab_size: number of target ids.
      hidden_size: of every decoder layer, and of an encoder layer's two directions together.
      embedding_size: of source and target embeddings.
      cell: "lstm" or "gru".
      num_encoder_layers: at least 1.
      num_decoder_layers: at least 1.
      bidirectional: whether each encoder layer reads in both directions, with hidden_size / 2 each.
      attention: "none", "dot", "general" (Luong) or "additive" (Bahdanau).
      input_feeding: whether the attentional vector is fed to the next step, along with the token.
      dropout: rate in [0, 1).
      tie_embeddings: whether the output layer is the target embedding's transpose.
      dtype: "float32" or "bfloat16", for the computation; parameters and softmax stay float32.

    Returns:
      The model's functions.

    Raises:
      ValueError: a value is out of range, or options contradict each other.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = make_rnn_model(10, 12, hidden_size=8, embedding_size=4)
      >>> params = model.init(jax.random.key(0))
      >>> source, mask = jnp.ones((2, 5), jnp.int32), jnp.ones((2, 5), bool)
      >>> memory = model.encode(params, source, mask, None)
      >>> model.decode_sequence(params, memory, jnp.ones((2, 3), jnp.int32)).shape
      (2, 3, 12)
    """
    options = RNNOptions(
        source_vocab_size=source_vocab_size,
        target_vocab_size=target_vocab_size,
        hidden_size=hidden_size,
        embedding_size=embedding_size,
        cell=cell,
        num_encoder_layers=num_encoder_layers,
        num_decoder_layers=num_decoder_layers,
        bidirectional=bidirectional,
        attention=attention,
        input_feeding=input_feeding,
        dropout=dropout,
        tie_embeddings=tie_embeddings,
        dtype=dtype,
    )

    functions = NetworkFunctions(lambda values: RNNEncoderDecoder(options, values))
    of = functions.of
    start = of(RNNEncoderDecoder.initial_carry)
    return Seq2SeqModel(
        init=functions.init,
        encode=of(RNNEncoderDecoder.encode),
        initial_carry=lambda params, memory, max_length: start(params, memory),
        decode_step=of(RNNEncoderDecoder.decode_step),
        decode_sequence=of(RNNEncoderDecoder.decode_sequence),
        vocab_size=target_vocab_size,
        attention_weights=None if attention == "none" else of(RNNEncoderDecoder.attention_weights),
        features=Features(
            sequence=of(RNNEncoderDecoder.features),
            output=of(RNNEncoderDecoder.output_layer),
        ),
        # With input feeding, a step's input is known only once the previous step is computed.
        replay=None
        if input_feeding
        else Replay(
            step=of(RNNEncoderDecoder.trace_step),
            sequence=of(RNNEncoderDecoder.trace_sequence),
            replay=of(RNNEncoderDecoder.replay),
        ),
        vectors=Vectors(
            table=of(RNNEncoderDecoder.target_table),
            step=of(RNNEncoderDecoder.vector_step),
            sequence=of(RNNEncoderDecoder.vector_features),
        ),
    )
