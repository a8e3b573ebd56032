"""Throughput, time to first token, and ten minutes of rude clients, on one machine.

    python load.py speed path/to/tokenformer MODEL_DIR [--streams 16] [--tokens 64] [--rounds 3] [--threads 2]
        [--stage 1] [--peer eager,compile] [--steady 20] [--wait]
    python load.py soak path/to/tokenformer MODEL_DIR [--seconds 600] [--threads 2]

`speed` compares streams at once with one alone, in turn, and prints tokens per second, the ratio, and the median time to the
first token of each. With `--stage` each round also has one and all streams of the first stages alone, with `--peer` a loop in
PyTorch (`peer.py`); the server then does nothing. `--steady` adds so many seconds of clients that ask again and again.
`soak` lets clients join, leave, send half a body and read slowly; it prints the server's memory after a
warm-up and at the end, and every answer that a well-behaved client did not deserve.
"""

import argparse
import contextlib
import http.client
import json
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlparse

from client import end_of_document, prompt, steady, stream, together
from server import server


@contextlib.contextmanager
def peer(mode, args):
    """A function that lets the loop in PyTorch make one round, while the block runs."""
    flags = ["--mode", mode, "--streams", args.streams, "--tokens", args.tokens, "--threads", args.threads]
    command = [sys.executable, Path(__file__).parent / "peer.py", *flags]
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"the loop in PyTorch did not start: {mode}")

    def round():
        process.stdin.write("\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    try:
        yield round
    finally:
        process.stdin.close()
        process.wait()


def spread(values):
    digits = 1 if max(values) >= 20 else 3
    return {"median": round(statistics.median(values), digits), "all": [round(value, digits) for value in values]}


def ratios(over, under):
    return spread([a / b for a, b in zip(over, under, strict=True)])


def speed(args):
    flags = ["--model", args.model, "--threads", args.threads, "--precision", args.precision]
    rows = {}
    with contextlib.ExitStack() as stack:
        address, _ = stack.enter_context(server(args.binary, *flags))
        peers = {mode: stack.enter_context(peer(mode, args)) for mode in args.peer}
        eod = end_of_document(address)
        if args.wait:
            print("everything has started; a line on standard input begins", file=sys.stderr, flush=True)
            sys.stdin.readline()
        measure = {"one": (1, {}), "all": (args.streams, {})}
        if args.stage:
            measure |= {"stage_one": (1, {"stage": args.stage}), "stage_all": (args.streams, {"stage": args.stage})}
        for name, (streams, more) in measure.items():
            together(address, streams, 8, 99, eod, more)
        for round in range(args.rounds):
            for number, (name, (streams, more)) in enumerate(measure.items()):
                rate, first = together(address, streams, args.tokens, 10 * round + number, eod, more)
                rows.setdefault(f"tokens_per_s_{name}", []).append(rate)
                rows.setdefault(f"first_token_ms_{name}", []).append(1000 * first)
            for mode, loop in peers.items():
                rows.setdefault(f"tokens_per_s_peer_{mode}", []).append(loop())
        if args.steady:
            rate, waits = steady(address, args.streams, args.tokens, args.steady, eod)
            lone = [1000 * together(address, 1, 2, 5000 + i, eod, {})[1] for i in range(15)]
            median = 1000 * statistics.median(waits)
            rows["steady"] = {
                "tokens_per_s": rate, "requests": len(waits), "first_token_ms_median": median,
                "first_token_ms_p90": 1000 * waits[len(waits) * 9 // 10], "first_token_ms_of_one": statistics.median(lone),
                "ratio": median / statistics.median(lone),
            }
    out = {name: value if isinstance(value, dict) else spread(value) for name, value in rows.items()}
    every = rows["tokens_per_s_all"]
    out["all_over_one"] = ratios(every, rows["tokens_per_s_one"])
    out["first_token_all_over_one"] = ratios(rows["first_token_ms_all"], rows["first_token_ms_one"])
    if args.stage:
        for what in ("one", "all"):
            out[f"stage_{what}_over_{what}"] = ratios(rows[f"tokens_per_s_stage_{what}"], rows[f"tokens_per_s_{what}"])
    for mode in args.peer:
        out[f"all_over_peer_{mode}"] = ratios(every, rows[f"tokens_per_s_peer_{mode}"])
    print(json.dumps({"streams": args.streams, "tokens": args.tokens, "precision": args.precision} | out, indent=1))


def resident_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def soak(args):
    wrong, counts, over = [], {}, time.time() + args.seconds

    def polite(address, rng):
        stream(address, {"prompt": prompt(rng, rng.randint(1, 60)), "max_tokens": rng.randint(1, 60), "truncate": True, "n": rng.choice([1, 1, 2])})

    def leaving(address, rng):
        place = urlparse(address)
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
        connection.request("POST", "/v1/completions", json.dumps({"prompt": prompt(rng, 20), "max_tokens": 80, "stream": True, "truncate": True}))
        connection.getresponse().read(rng.randint(1, 400))
        connection.close()

    def half(address, rng):
        place = urlparse(address)
        with socket.create_connection((place.hostname, place.port), timeout=60) as raw:
            raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{\"prompt\": \"a")
            time.sleep(rng.random())

    def slow(address, rng):
        place = urlparse(address)
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=120)
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 30, "stream": True, "logprobs": 5}))
        response = connection.getresponse()
        while response.read(200):
            time.sleep(0.05)

    def client(address, seed):
        rng = random.Random(seed)
        while time.time() < over:
            kind = rng.choice([polite, polite, polite, leaving, half, slow])
            try:
                kind(address, rng)
                counts[kind.__name__] = counts.get(kind.__name__, 0) + 1
            except Exception as error:
                wrong.append(f"{kind.__name__}: {error!r}")
            time.sleep(rng.random() * 0.2)

    with server(args.binary, "--model", args.model, "--threads", args.threads, "--cache-mib", 64) as (address, pid):
        threads = [threading.Thread(target=client, args=(address, seed)) for seed in range(24)]
        for thread in threads:
            thread.start()
        # By then the pool has filled and every size of batch has occurred.
        time.sleep(args.seconds / 4)
        marks = []
        while any(thread.is_alive() for thread in threads):
            marks.append(resident_kib(pid))
            time.sleep(1)
        time.sleep(2)
        end = resident_kib(pid)
    middle = statistics.median(marks[: max(1, len(marks) // 4)])
    late = statistics.median(marks[-max(1, len(marks) // 4):])
    print(json.dumps({"requests": counts, "wrong": wrong[:10], "wrong_count": len(wrong), "resident_mib": {
        "after_warm_up": round(middle / 1024, 1), "last_quarter": round(late / 1024, 1), "idle_at_end": round(end / 1024, 1)},
        "growth": round(late / middle - 1, 4)}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["speed", "soak"])
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--stage", type=int, help="of a model that has grown")
    parser.add_argument("--peer", type=lambda text: text.split(","), default=[], help="eager, compile, or both")
    parser.add_argument("--wait", action="store_true", help="for a line, before measuring: for a machine that is quiet then")
    parser.add_argument("--steady", type=int, default=0, help="seconds")
    args = parser.parse_args()
    (speed if args.what == "speed" else soak)(args)


if __name__ == "__main__":
    main()
