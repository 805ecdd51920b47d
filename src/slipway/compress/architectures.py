"""The families of models that can be pruned and distilled: how each differs from the plain llama.

All are decoders with RMSNorm, rotary positions, grouped-query attention and a gated SiLU network.
"""

from slipway.types import Record

_LAYER = (
    "attn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_output.weight",
    "ffn_norm.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
)


class Architecture(Record, frozen=True, kw_only=True):
    """`interleaved`: GGUF keeps the rows of queries and keys in pairs (2i, 2i+1), as llama does;
    the others keep halves (i, i + d/2), as Hugging Face does. `class_name` is Hugging Face's.
    """

    name: str
    class_name: str
    model_type: str
    interleaved: bool = False
    biases: bool = False  # of queries, keys and values
    head_norms: bool = False  # of queries and keys

    @property
    def tensors(self) -> tuple[str, ...]:
        """What each layer has, without its `blk.N.`."""
        biases = ("attn_q.bias", "attn_k.bias", "attn_v.bias") if self.biases else ()
        norms = ("attn_q_norm.weight", "attn_k_norm.weight") if self.head_norms else ()
        return (*_LAYER, *biases, *norms)


ARCHITECTURES = {
    each.name: each
    for each in (
        Architecture(
            name="llama", class_name="LlamaForCausalLM", model_type="llama", interleaved=True
        ),
        Architecture(name="qwen2", class_name="Qwen2ForCausalLM", model_type="qwen2", biases=True),
        Architecture(
            name="qwen3", class_name="Qwen3ForCausalLM", model_type="qwen3", head_norms=True
        ),
    )
}

# GGUF's names beside Hugging Face's; `blk.N.` is `model.layers.N.` there
NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_q.bias": "self_attn.q_proj.bias",
    "attn_k.bias": "self_attn.k_proj.bias",
    "attn_v.bias": "self_attn.v_proj.bias",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
