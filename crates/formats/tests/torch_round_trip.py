"""Checks a file of torch_round_trip.rs and saves it again: python torch_round_trip.py FILE COPY"""

import sys
from collections import OrderedDict

import torch

path, copy = sys.argv[1:]
expected = {
    "z.weight": (torch.float32, [3, 4]),
    "a.half": (torch.float16, [70_000]),
    "bf": (torch.bfloat16, [2, 1, 2]),
    "scalar": (torch.float32, []),
    "empty": (torch.float32, [0, 7]),
}
for mmap in [False, True]:
    state = torch.load(path, weights_only=True, mmap=mmap)
    assert isinstance(state, OrderedDict)
    assert list(state) == list(expected)
    for name, (dtype, shape) in expected.items():
        tensor = state[name]
        assert tensor.dtype == dtype and list(tensor.shape) == shape and tensor.is_contiguous()
        values = (torch.arange(tensor.numel()) % 256) * 0.25 - 1.0
        assert torch.equal(tensor.float().reshape(-1), values), name
        assert mmap or tensor.data_ptr() % 64 == 0 or tensor.numel() == 0
torch.save(state, copy)
print(f"PyTorch {torch.__version__} reads {path}")
