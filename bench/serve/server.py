"""Starts a server of this project for a script, and ends it."""

import contextlib
import signal
import subprocess


@contextlib.contextmanager
def server(binary, *flags):
    """The address of a server with these flags, while the block runs."""
    command = [binary, "serve", "--bind", "127.0.0.1:0", *map(str, flags)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise SystemExit(f"the server did not start: {' '.join(command)}")
        yield address, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        if process.wait(timeout=90) != 0:
            raise SystemExit(f"the server ended with {process.returncode}")
