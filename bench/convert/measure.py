"""Times `tokenformer convert` beside a copy of the same file, alternating, each with a sync at its end.

    python measure.py TOKENFORMER DIR warm|cold ROUNDS

DIR is what `make_checkpoint.py` wrote. `cold` drops the system's cache of files before each run and needs root; `warm`
reads the checkpoint once before each. Prints each run, the medians, and the peak memory of the conversion; the converted
model stays in DIR/model.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path


def run(command):
    """Seconds until the command's files are on the disk, and its peak resident bytes."""
    start = time.perf_counter()
    child = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command[0]} ended with {child.returncode}")
    os.sync()
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def prepare(source, cache):
    os.sync()
    if cache == "cold":
        Path("/proc/sys/vm/drop_caches").write_text("3")
        return
    with open(source, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def main():
    binary, folder, cache, rounds = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    source, copy, model = folder / "pytorch_model.bin", folder / "copy.bin", folder / "model"
    convert = [binary, "convert", "--from", source, "--config", folder / "1-5B_eval.yml", "--to", model]
    size = source.stat().st_size
    ratios, speeds, peaks = [], {"cp": [], "convert": []}, []
    for number in range(rounds):
        times = {}
        # The order alternates too, so that neither always follows the other.
        for name in ("cp", "convert") if number % 2 == 0 else ("convert", "cp"):
            copy.unlink(missing_ok=True)
            if name == "convert":
                shutil.rmtree(model, ignore_errors=True)
            prepare(source, cache)
            times[name], peak = run(["cp", source, copy] if name == "cp" else convert)
            speeds[name].append(size / times[name] / 1e6)
            if name == "convert":
                peaks.append(peak)
        ratios.append(times["cp"] / times["convert"])
        print(
            f"round {number + 1}, {cache}: cp {times['cp']:.1f} s {speeds['cp'][-1]:.0f} MB/s, "
            f"convert {times['convert']:.1f} s {speeds['convert'][-1]:.0f} MB/s, ratio {ratios[-1]:.2f}, "
            f"peak {peaks[-1] / 1e6:.0f} MB",
            flush=True,
        )
    copy.unlink(missing_ok=True)
    spread = lambda values: f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"
    print(f"cp MB/s {spread(speeds['cp'])}, convert MB/s {spread(speeds['convert'])}, convert/cp {spread(ratios)}")
    print(f"peak memory of convert {max(peaks) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
