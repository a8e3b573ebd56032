"""same_weights.py ORIGINAL.bin EXPORT...: each export holds the original's tensors, rounded to its own type.

Reads .bin files with torch.load(weights_only=True). Reads .safetensors files and folders of them with the safetensors
package where there is one, and else by its specification.
"""

import json
import pathlib
import sys

import torch

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def safetensors(path):
    try:
        from safetensors.torch import load_file

        return load_file(path)
    except ImportError:
        pass
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, info in json.loads(data[8:start]).items():
        if name != "__metadata__":
            a, b = info["data_offsets"]
            flat = torch.frombuffer(bytearray(data[start + a : start + b]), dtype=TYPES[info["dtype"]])
            tensors[name] = flat.reshape(info["shape"])
    return tensors


def load(path):
    if path.is_dir():
        index = json.loads((path / "model.safetensors.index.json").read_text())
        tensors = {}
        for file in sorted(set(index["weight_map"].values())):
            tensors.update(safetensors(path / file))
        assert set(tensors) == set(index["weight_map"])
        return tensors
    if path.suffix == ".safetensors":
        return safetensors(path)
    return torch.load(path, weights_only=True, map_location="cpu")


original = load(pathlib.Path(sys.argv[1]))
for path in map(pathlib.Path, sys.argv[2:]):
    exported = load(path)
    assert set(exported) == set(original), path
    for name, tensor in original.items():
        assert torch.equal(exported[name], tensor.to(exported[name].dtype)), (path, name)
    print(f"{path.name}: {len(exported)} tensors of {next(iter(exported.values())).dtype}")
