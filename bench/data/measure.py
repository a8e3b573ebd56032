"""Times `tokenformer data prepare` beside Hugging Face's tokenizers, alternating, with as many threads.

    python measure.py TOKENFORMER TOKENIZER.json TEXT DIR ROUNDS [--threads 2]

TEXT is plain text in UTF-8; it becomes documents of about 4 KB in `DIR/text.jsonl.zst`. One side is the whole way from
that file to a dataset on the disk: decompression, JSON, the split, tokens, hashes, fsync. The other is `encode_batch_fast`
alone, on documents that are in memory already, 1,000 at a time. Before the first round the ids of both are compared.
Beside wall times, which other programs disturb, it prints the processor time of each side.
"""

import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path


def documents(text):
    """Paragraphs joined to about 4 KB."""
    found, size, parts = [], 0, []
    for paragraph in text.split("\n\n"):
        parts.append(paragraph)
        size += len(paragraph)
        if size > 4096:
            found.append("\n\n".join(parts))
            size, parts = 0, []
    found.append("\n\n".join(parts))
    return [document for document in found if document]


def write_jsonl(path, texts):
    import zstandard

    with zstandard.open(path, "wt", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def peak_of(process):
    """Peak resident bytes, looked up until the process ends: what `wait4` tells includes this program before exec."""
    peak = 0
    while True:
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            return peak
        lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
        if not lines:  # Ended, and not waited for yet.
            return peak
        peak = max(peak, int(lines[0].split()[1]) * 1024)
        time.sleep(0.02)


def prepare(args, threads):
    """Seconds, processor seconds and peak memory."""
    out = args.dir / "dataset"
    shutil.rmtree(out, ignore_errors=True)
    command = [args.tokenformer, "data", "prepare", "--input", args.dir / "text.jsonl.zst", "--out", out]
    command += ["--tokenizer", args.tokenizer]
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    child = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, env=environment)
    peak = peak_of(child.pid)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit("data prepare failed")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, peak


def tokens(path):
    """Ids of a token file; its layout is in `crates/data/src/tokens/mod.rs`."""
    data = path.read_bytes()
    width, (count,) = struct.unpack_from("<I", data, 12)[0], struct.unpack_from("<Q", data, 24)
    return struct.unpack_from(f"<{count}{'H' if width == 2 else 'I'}", data, 128)


def compare(args, tokenizer, texts):
    """Every document's ids, whichever split it went to."""
    eod = tokenizer.token_to_id("<|endoftext|>")
    ours = set()
    for split in ("train", "valid"):
        document = []
        for token in tokens(args.dir / "dataset" / f"{split}.tokens"):
            if token == eod:
                ours.add(tuple(document))
                document = []
            else:
                document.append(token)
    theirs = {tuple(found.ids) for found in tokenizer.encode_batch_fast(texts)}
    if ours != theirs:
        sys.exit(f"{len(ours ^ theirs)} documents differ")
    print(f"{len(texts)} documents, the same ids in all", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tokenformer")
    parser.add_argument("tokenizer")
    parser.add_argument("text", type=Path)
    parser.add_argument("dir", type=Path)
    parser.add_argument("rounds", type=int)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    os.environ |= {"RAYON_NUM_THREADS": str(args.threads), "TOKENIZERS_PARALLELISM": "true"}
    import tokenizers

    args.dir.mkdir(parents=True, exist_ok=True)
    texts = documents(args.text.read_text(encoding="utf-8"))
    write_jsonl(args.dir / "text.jsonl.zst", texts)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    tokenizer = tokenizers.Tokenizer.from_file(args.tokenizer)
    # A text never becomes a special token here.
    tokenizer.encode_special_tokens = True

    prepare(args, args.threads)
    compare(args, tokenizer, texts)
    ours, theirs, cpu_ratios, peaks = [], [], [], []
    for number in range(args.rounds):
        seconds, cpu, peak = prepare(args, args.threads)
        peaks.append(peak)
        start, cpu_start = time.perf_counter(), time.process_time()
        for at in range(0, len(texts), 1000):
            tokenizer.encode_batch_fast(texts[at : at + 1000])
        other, other_cpu = time.perf_counter() - start, time.process_time() - cpu_start
        cpu_ratios.append(other_cpu / cpu)
        ours.append(megabytes / seconds)
        theirs.append(megabytes / other)
        print(
            f"round {number + 1}: prepare {ours[-1]:.1f} MB/s, {cpu:.1f} s of processors; "
            f"tokenizers {theirs[-1]:.1f} MB/s, {other_cpu:.1f} s of processors",
            flush=True,
        )
    ratios = [a / b for a, b in zip(ours, theirs)]
    spread = lambda values: f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"
    print(f"{megabytes:.1f} MB of text, {args.threads} threads, tokenizers {tokenizers.__version__}")
    print(f"prepare MB/s {spread(ours)}, tokenizers MB/s {spread(theirs)}, ratio {spread(ratios)}")
    print(f"processor time of tokenizers to that of prepare {spread(cpu_ratios)}")
    print(f"peak memory of prepare {max(peaks) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
