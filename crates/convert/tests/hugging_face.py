"""hugging_face.py logits FOLDER | neox FOLDER | gpt2 FOLDER: logits of a causal model by `transformers`.

`logits` loads the model of FOLDER and computes the logits [B, T, V] of FOLDER/tokens.safetensors. `neox` and `gpt2` save a
random model there first, and its tokens. The logits go to FOLDER/logits.safetensors.
"""

import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

verb, folder = sys.argv[1], pathlib.Path(sys.argv[2])
torch.manual_seed(0)


def make(model):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokens = torch.randint(model.config.vocab_size, (2, 17))
    save_file({"tokens": tokens.float()}, folder / "tokens.safetensors")


special = {"bos_token_id": 0, "eos_token_id": 0}
if verb == "neox":
    sizes = {"vocab_size": 61, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3}
    make(GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, **special, intermediate_size=100, max_position_embeddings=32)))
elif verb == "gpt2":
    sizes = {"vocab_size": 61, "n_embd": 48, "n_layer": 3, "n_head": 3, "n_positions": 32}
    make(GPT2LMHeadModel(GPT2Config(**sizes, **special, activation_function="gelu")))

model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
wrong = {key: names for key, names in info.items() if names and key != "error_msgs"}
assert not wrong, wrong
tokens = load_file(folder / "tokens.safetensors")["tokens"].long()
with torch.no_grad():
    logits = model.eval()(tokens).logits
save_file({"logits": logits.float().contiguous()}, folder / "logits.safetensors")
