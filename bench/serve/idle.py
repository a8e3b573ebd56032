"""Thousands of connections that say nothing: `python idle.py path/to/tokenformer MODEL_DIR [--connections 10000]`.

It opens them as fast as it can and keeps them. Meanwhile it asks for a text again and again: every answer must be the text, or
503 with Retry-After. When the idle connections have been closed, the server must answer again. Prints the server's memory
before, at its largest and at the end. It needs as many files as connections: `ulimit -n`.
"""

import argparse
import collections
import http.client
import json
import resource
import selectors
import socket
import threading
import time
from urllib.parse import urlparse

from load import resident_kib
from server import server


def ask(place):
    """`served`, `busy` for a clear 503, or what else happened."""
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    try:
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 2}))
        answer = connection.getresponse()
        body = json.loads(answer.read())
        if answer.status == 200 and body["choices"]:
            return "served"
        if answer.status == 503 and answer.headers["Retry-After"] and body["error"]["help"]:
            return "busy"
        return f"{answer.status} {body}"
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    finally:
        connection.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The server keeps the usual limit, as it would be started.
    with server(args.binary, "--model", args.model, "--threads", args.threads) as (address, pid):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, args.connections + 500), hard))
        place = urlparse(address)
        assert ask(place) == "served"
        before = resident_kib(pid)
        answers, most, over = collections.Counter(), [before], threading.Event()

        def watch():
            while not over.is_set():
                most.append(resident_kib(pid))
                time.sleep(0.02)

        def asking():
            while not over.is_set():
                answers[ask(place)] += 1
                time.sleep(0.05)

        threads = [threading.Thread(target=watch), threading.Thread(target=asking)]
        for thread in threads:
            thread.start()
        started = time.perf_counter()
        idle = [socket.create_connection((place.hostname, place.port), timeout=60) for _ in range(args.connections)]
        opened = time.perf_counter() - started
        # Each is told that there are too many, or closed when it has been idle for too long.
        told, selector = collections.Counter(), selectors.DefaultSelector()
        for connection in idle:
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(timeout=60):
                try:
                    first = key.fileobj.recv(4096)
                except OSError as error:
                    first = repr(error).encode()
                told[first.split(b"\r\n")[0].decode() or "closed"] += 1
                selector.unregister(key.fileobj)
                key.fileobj.close()
        ended = time.perf_counter() - started
        deadline = time.time() + 30
        while ask(place) != "served":
            assert time.time() < deadline, "the server does not answer any more"
            time.sleep(0.1)
        over.set()
        for thread in threads:
            thread.join()
        after = resident_kib(pid)
    mib = lambda kib: round(kib / 1024, 1)
    print(json.dumps({
        "connections": args.connections, "opened_after_s": round(opened, 1), "all_closed_after_s": round(ended, 1),
        "told": told, "requests_meanwhile": answers,
        "resident_mib": {"before": mib(before), "most": mib(max(most)), "after": mib(after)},
    }, indent=1))
    wrong = set(answers) - {"served", "busy"}
    assert not wrong, wrong


if __name__ == "__main__":
    main()
