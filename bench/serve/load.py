"""Throughput, time to first token, and an hour's worth of rude clients, on one machine.

    python load.py speed path/to/tokenformer MODEL_DIR [--streams 16] [--tokens 64] [--rounds 3] [--threads 2]
    python load.py soak path/to/tokenformer MODEL_DIR [--seconds 600] [--threads 2]

`speed` compares streams at once with one alone, in turn, and prints tokens per second, the ratio, and the median time to the
first token of each. `soak` lets clients join, leave, send half a body and read slowly; it prints the server's memory after a
warm-up and at the end, and every answer that a well-behaved client did not deserve.
"""

import argparse
import http.client
import json
import random
import socket
import statistics
import threading
import time
from urllib.parse import urlparse

from server import server

WORDS = "the of and to in a is that it was for on are as with his they at be this from have or by one had not but what".split()


def prompt(rng, words):
    return " ".join(rng.choice(WORDS) for _ in range(words))


def stream(address, body):
    """Seconds to the first token, the tokens and the seconds in all, of one text."""
    place = urlparse(address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=600)
    started = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body | {"stream": True, "stream_options": {"include_usage": True}}))
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{response.status} {response.read(500)!r}")
    first, used = None, 0
    for line in response:
        if line.startswith(b"data: {"):
            first = first or time.perf_counter() - started
            message = json.loads(line[6:])
            if "error" in message:
                raise RuntimeError(message["error"]["message"])
            used = message.get("usage", {}).get("completion_tokens", used)
    return first, used, time.perf_counter() - started


def together(address, streams, tokens, seed, eod):
    rng = random.Random(seed)
    bodies = [
        {"prompt": prompt(rng, 24), "max_tokens": tokens, "seed": i, "temperature": 1, "logit_bias": {str(eod): -100}}
        for i in range(streams)
    ]
    answers = [None] * streams

    def run(i):
        answers[i] = stream(address, bodies[i])

    started = time.perf_counter()
    threads = [threading.Thread(target=run, args=(i,)) for i in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    return sum(a[1] for a in answers) / seconds, statistics.median(a[0] for a in answers)


def end_of_document(address):
    """The number of the token that ends documents: what an empty prompt begins with."""
    place = urlparse(address)
    connection = http.client.HTTPConnection(place.hostname, place.port)
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "", "max_tokens": 0, "echo": True, "logprobs": 0}))
    return json.loads(connection.getresponse().read())["choices"][0]["logprobs"]["token_ids"][0]


def speed(args):
    alone, many = [], []
    with server(args.binary, "--model", args.model, "--threads", args.threads, "--precision", args.precision) as (address, _):
        eod = end_of_document(address)
        together(address, 1, 8, 99, eod)
        for round in range(args.rounds):
            alone.append(together(address, 1, args.tokens, 2 * round, eod))
            many.append(together(address, args.streams, args.tokens, 2 * round + 1, eod))
    ratios = [m[0] / a[0] for m, a in zip(many, alone)]
    waits = [m[1] / a[1] for m, a in zip(many, alone)]
    print(json.dumps({
        "tokens_per_s_of_one": [round(a[0], 1) for a in alone],
        f"tokens_per_s_of_{args.streams}": [round(m[0], 1) for m in many],
        "ratio": [round(r, 2) for r in ratios], "median_ratio": round(statistics.median(ratios), 2),
        "first_token_ms_of_one": [round(1000 * a[1]) for a in alone],
        f"first_token_ms_of_{args.streams}": [round(1000 * m[1]) for m in many],
        "first_token_ratio": [round(w, 2) for w in waits],
    }))


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
    args = parser.parse_args()
    (speed if args.what == "speed" else soak)(args)


if __name__ == "__main__":
    main()
