"""Clients that measure: one stream, several at once, and several that ask again and again."""

import http.client
import json
import random
import statistics
import threading
import time
from urllib.parse import urlparse

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


def together(address, streams, tokens, seed, eod, more):
    """Tokens per second of streams that begin at once, and the median time to the first token; `more` are fields of each."""
    rng = random.Random(seed)
    bodies = [
        {"prompt": prompt(rng, 24), "max_tokens": tokens, "seed": i, "temperature": 1, "logit_bias": {str(eod): -100}} | more
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


def steady(address, streams, tokens, seconds, eod):
    """As many clients as streams, each with one request after the other, of different lengths: tokens per second, and the
    times to the first token of all requests that came while the others were being answered."""
    answers, over, started = [], time.time() + seconds, time.perf_counter()

    def client(seed):
        rng = random.Random(seed)
        is_first = True
        while time.time() < over:
            body = {
                "prompt": prompt(rng, 24), "max_tokens": rng.randint(1 if is_first else tokens // 2, tokens),
                "seed": seed, "temperature": 1, "logit_bias": {str(eod): -100},
            }
            answers.append((is_first, *stream(address, body)))
            is_first = False

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(1000, 1000 + streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waits = sorted(first for is_first, first, _, _ in answers if not is_first)
    return sum(used for _, _, used, _ in answers) / (time.perf_counter() - started), waits
