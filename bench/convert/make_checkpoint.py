"""Makes a checkpoint in the published format with the shapes of the 1.5B model and random weights.

    python make_checkpoint.py DIR [--tokenizer tokenizer.json] [--layers 40]

Writes `pytorch_model.bin` (6.35 GB in f32), `1-5B_eval.yml` and a copy of the tokenizer.
"""

import argparse
import json
import shutil
from collections import OrderedDict
from pathlib import Path

import torch

VOCAB, WIDTH, HEADS, QKV, PROJ, FFN = 50304, 1536, 16, 1536, 1536, 6144
SITES = {
    "attention.query": QKV, "attention.key": QKV, "attention.value": QKV, "attention.proj": PROJ, "mlp": FFN,
}


def state_dict(layers):
    """Tensors by their published names."""
    generator = torch.Generator().manual_seed(0)
    normal = lambda rows, std: torch.empty(rows, WIDTH).normal_(std=std, generator=generator)
    tensors = OrderedDict({"sequential.0.word_embeddings.weight": normal(VOCAB, 0.02)})
    for block in range(layers):
        for site, tokens in SITES.items():
            name = f"sequential.{block + 2}.{site}"
            tensors[f"{name}.key_param_tokens"] = normal(tokens, 0.02)
            tensors[f"{name}.value_param_tokens"] = normal(tokens, 2 / (layers * WIDTH**0.5))
    tensors[f"sequential.{layers + 3}.norm.weight"] = torch.ones(WIDTH)
    tensors[f"sequential.{layers + 3}.norm.bias"] = torch.zeros(WIDTH)
    return tensors


def config(layers):
    """The keys of a published evaluation file that fix the architecture."""
    return {
        "pipe_parallel_size": 1, "model_parallel_size": 1, "num_layers": layers, "hidden_size": WIDTH,
        "num_attention_heads": HEADS, "qkv_slot_num": QKV, "proj_slot_num": PROJ, "ffn_slot_num": FFN,
        "seq_length": 2048, "max_position_embeddings": 2048, "pos_emb": "rotary", "rotary_pct": 0.25,
        "no_weight_tying": False, "norm": "layernorm_nonparam", "final_norm": "layernorm", "gpt_j_residual": False,
        "use_bias_in_attn_linear": False, "attention_config": [[["tokenformer"], layers]],
        "norm_activation_type": "l2_norm_gelu",
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--layers", type=int, default=40)
    args = parser.parse_args()
    args.dir.mkdir(parents=True, exist_ok=True)
    tensors = state_dict(args.layers)
    torch.save(tensors, args.dir / "pytorch_model.bin")
    (args.dir / "1-5B_eval.yml").write_text(json.dumps(config(args.layers), indent=2) + "\n")
    if args.tokenizer:
        shutil.copyfile(args.tokenizer, args.dir / "tokenizer.json")
    print(f"{len(tensors)} tensors, {sum(t.numel() for t in tensors.values())} parameters")


if __name__ == "__main__":
    main()
