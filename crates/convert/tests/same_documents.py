"""same_documents.py PREFIX PREFIX: both hold the same documents, in any order; read with numpy."""

import sys

import numpy as np

TYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}


def documents(prefix):
    index = open(prefix + ".idx", "rb").read()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, kind, sequences, entries = (int(np.frombuffer(index, t, 1, at)[0]) for t, at in [("<u8", 9), ("u1", 17), ("<u8", 18), ("<u8", 26)])
    assert version == 1
    sizes = np.frombuffer(index, "<i4", sequences, 34)
    pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    first = np.frombuffer(index, "<i8", entries, 34 + 12 * sequences)
    assert first[0] == 0 and first[-1] == sequences
    data = np.memmap(prefix + ".bin", mode="r", dtype=np.uint8)
    width = np.dtype(TYPES[kind]).itemsize
    tokens = [data[p : p + n * width].view(TYPES[kind]).tolist() for p, n in zip(pointers, sizes)]
    return [sum(tokens[a:b], []) for a, b in zip(first, first[1:])]


a, b = (documents(prefix) for prefix in sys.argv[1:])
assert sorted(a) == sorted(b)
print(f"{len(a)} documents")
