#!/usr/bin/env bash
# transformers 5.20.2: the "dynamic" rotary embedding keeps the frequencies of the longest input so far. Expected from memory:
# the frequencies are a function of the length of the input. Seen: 3000 tokens get those of 3000 in a fresh module, and those of
# 4096 after a call with 4096; a call below the trained length resets them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "transformers==5.20.2" "torch==2.13.0" "numpy==2.2.6"
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding


def rotary():
    recipe = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    config = LlamaConfig(hidden_size=64, num_attention_heads=1, max_position_embeddings=2048, rope_parameters=recipe)
    return LlamaRotaryEmbedding(config)


def slowest(module, length):
    module(torch.zeros(1, length, 64), torch.arange(length)[None])
    return module.inv_freq[-1].item()


fresh = {length: slowest(rotary(), length) for length in (2000, 3000, 4096)}
module = rotary()
seen = [(length, slowest(module, length)) for length in (4096, 3000, 2000, 3000)]
print("each in a fresh module:", fresh)
print("one after the other:   ", seen)
assert len(set(fresh.values())) == 3
assert seen[1][1] == fresh[4096] != fresh[3000], "3000 after 4096 is as in a fresh module"
assert seen[2][1] == fresh[2000]
assert seen[3][1] == fresh[3000]
PYTHON
