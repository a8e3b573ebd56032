"""The checks of run.sh: `check.py FOLDER PROGRAM PART...`. Needs nothing but Python and mpiexec in PATH."""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

WORK, PROGRAM, PARTS = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
RUNS = WORK / "runs"
ENV = {**os.environ, "RUST_BACKTRACE": "0"}
GROWTH = """
[[grow]]
at_step = {at}
ffn = "+{more}"
qkv = "+{less}"
layers = 1
"""


def say(text):
    print(text, flush=True)


def data():
    """A dataset of a text that this script makes up."""
    folder = WORK / "data"
    if not folder.exists():
        rng = random.Random(1)
        words = ["".join(rng.choice("abcdefghijklmnop") for _ in range(rng.randint(2, 7))) for _ in range(400)]
        lines = [" ".join(words[min(rng.randrange(400), rng.randrange(400))] for _ in range(9)) for _ in range(12000)]
        text = WORK / "text.txt"
        text.write_text(".\n".join(lines))
        make = [PROGRAM, "data", "prepare", "--tokenizer", "bytes", "--input", text, "--out", folder]
        subprocess.run(list(map(str, make)), check=True, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder


# A model whose update takes milliseconds, for what is about processes.
MINIATURE = 'preset = "nano"\nwidth = 32\nlayers = 2\nheads = 2\ncontext = 32\nslots = { qkv = 16, proj = 16, ffn = 48 }'


def recipe(name, preset, steps, accumulate, batch, growth=True, every=5):
    path = WORK / f"{name}.toml"
    model = MINIATURE if preset == "miniature" else f'preset = "{preset}"'
    grow = GROWTH.format(at=steps // 2, more=32, less=16) if growth else ""
    path.write_text(
        f"""seed = 7
[data]
dir = "{data()}"
[model]
{model}
[train]
steps = {steps}
batch = {batch}
accumulate = {accumulate}
[schedule]
lr = 2e-3
warmup_steps = 5
[eval]
every = {every}
tokens = 2048
[sample]
tokens = 8
[checkpoint]
every = {every}
keep = 2
[log]
every = 2
{grow}"""
    )
    return path


def pictures():
    """A recipe on pictures that the program makes, with everything random on."""
    folder = WORK / "pictures"
    if not folder.exists():
        make = [PROGRAM, "data", "make", "fractals", "--classes", "4", "--per-class", "20", "--test-per-class", "2", "--size", "16"]
        make += ["--valid", "0.2", "--out", folder]
        subprocess.run(list(map(str, make)), check=True, env=ENV, capture_output=True)
    path = WORK / "pictures.toml"
    path.write_text(
        f"""seed = 7
[data]
dir = "{folder}"
[model]
preset = "vit-cifar"
width = 32
layers = 2
heads = 2
slots = {{ qkv = 16, proj = 16, ffn = 48 }}
input = {{ patch = [4, 4], width = 16, height = 16 }}
[images.augment]
crop = {{ kind = "padded", pixels = 2 }}
mix = {{ mixup_alpha = 0.8, cutmix_alpha = 1.0 }}
smoothing = 0.1
[train]
steps = 10
batch = 4
accumulate = 4
drop_path = 0.1
[ema]
decay = 0.9
[eval]
every = 5
[checkpoint]
every = 5
[[grow]]
at_step = 5
ffn = "+16"
"""
    )
    return path


KINDS = os.environ.get("MOMENTS", "every,owner").split(",")


def moments_on(kind):
    return [] if kind == "every" else ["--set", f"ranks.moments={kind}"]


def command(ranks, recipe, out, *more):
    train = [PROGRAM, "train", "--config", recipe, "--out", out, "--threads", "1", *more]
    return list(map(str, train if ranks == 1 else ["mpiexec", "-n", ranks, *train]))


def start(ranks, recipe, out, *more, log=None):
    log = open(log or f"{out}.log", "a")
    return subprocess.Popen(
        command(ranks, recipe, out, *more), env=ENV, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )


def train(ranks, recipe, out, *more, expect=0):
    code = start(ranks, recipe, out, *more).wait()
    if code != expect:
        say(pathlib.Path(f"{out}.log").read_text()[-2000:])
        sys.exit(f"FAILED: {ranks} ranks ended with {code}")


def fresh(name):
    folder = RUNS / name
    shutil.rmtree(folder, ignore_errors=True)
    pathlib.Path(f"{folder}.log").unlink(missing_ok=True)
    RUNS.mkdir(exist_ok=True)
    return folder


def remains(run):
    """What must be equal in equal runs: checkpoints and records without times."""
    files = {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted((run / "checkpoints").rglob("*"))
        if path.is_file()
    }
    records = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record.get("kind") != "note":
            times = ("step_ms", "tokens_per_s", "images_per_s", "waiting")
            records.append({key: value for key, value in record.items() if key not in times})
    return files, records


def same(run, whole, what):
    (files, records), (expected, expected_records) = remains(run), remains(whole)
    wrong = [name for name in expected if files.get(name) != expected[name]]
    if wrong or records != expected_records:
        sys.exit(f"FAILED: {what}: {wrong or 'records'} differ in {run} and {whole}")
    say(f"  equal: {what} ({len(expected)} files, {len(records)} records)")


def bytes_part():
    say("== bytes: 1, 2 and 4 ranks, a growth in the middle ==")
    for preset, steps, batch in [("nano", 8, 1), ("tiny", 4, 1)]:
        config = recipe(preset, preset, steps, 4, batch)
        one = fresh(f"{preset}-1")
        train(1, config, one)
        for ranks in (2, 4):
            for moments in KINDS:
                run = fresh(f"{preset}-{ranks}-{moments}")
                train(ranks, config, run, *moments_on(moments))
                same(run, one, f"{preset}, {ranks} ranks, moments on {moments}")
    config, one = pictures(), fresh("pictures-1")
    train(1, config, one)
    for ranks in (2, 4):
        run = fresh(f"pictures-{ranks}")
        train(ranks, config, run)
        same(run, one, f"pictures, {ranks} ranks")


def losses(run):
    return [record["loss"] for record in remains(run)[1] if record["kind"] in ("train", "eval")]


def tokens_part():
    say("== tokens: a part of each site's parameter tokens on every rank, a growth in the middle ==")
    divided = ["--set", "ranks.tokens=divided"]
    for preset, steps in [("nano", 8), ("tiny", 4)]:
        config = recipe(f"tokens-{preset}", preset, steps, 2, 1)
        one = fresh(f"tokens-{preset}-1")
        train(1, config, one)
        for ranks in (2, 4):
            run = fresh(f"tokens-{preset}-{ranks}")
            train(ranks, config, run, *divided)
            far = max(abs(a / b - 1) for a, b in zip(losses(run), losses(one), strict=True))
            exact = all(r["max_logit_diff"] == 0 for r in remains(run)[1] if r["kind"] == "grow")
            say(f"  {preset}, {ranks} ranks: losses within {far:.1e} of one process, exact growth: {exact}")
            if far > 1e-6 or not exact:
                sys.exit("FAILED")
            if ranks == 2:
                first = fresh(f"tokens-{preset}-again")
                train(2, config, first, *divided)
                same(first, run, f"{preset}, twice on 2 ranks")
        # What ranks with parts have written is whole.
        subprocess.run([PROGRAM, "verify", str(run)], check=True, env=ENV, capture_output=True)


def launch_part():
    say("== launch: the ranks of one machine ==")
    config = recipe("launch", "miniature", 12, 4, 2)
    one, run = fresh("launch-1"), fresh("launch-2")
    train(1, config, one)
    made = [PROGRAM, "launch", "-n", "2", "--", "train", "--config", str(config), "--out", str(run), "--threads", "1"]
    subprocess.run(made, check=True, env=ENV, capture_output=True)
    same(run, one, "launch -n 2")


def processes(out):
    """Process numbers of the ranks that train into a folder, not of their guards, by rank."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().split(b"\0")
            environ = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if line[0] == PROGRAM.encode() and str(out).encode() in line and b"TOKENFORMER_GUARDED=1" in environ:
            names = (b"PMI_RANK=", b"OMPI_COMM_WORLD_RANK=")
            rank = [entry for entry in environ if entry.startswith(names)]
            if rank:
                found[int(rank[0].split(b"=")[1])] = int(folder.name)
    return found


def wait_for(text, log, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        if log.exists() and re.search(text, log.read_text()):
            return True
        time.sleep(0.02)
    return False


def kill_part(trials=None):
    trials = trials or int(os.environ.get("TRIALS", "50"))
    say(f"== kill: {trials} trials of SIGKILL on a random rank at a random moment, then other numbers of ranks ==")
    rng = random.Random(int(os.environ.get("SEED", "3")))
    config = recipe("kill", "miniature", 24, 4, 2, every=3)
    whole = fresh("kill-whole")
    began = time.time()
    train(1, config, whole)
    took = max(time.time() - began, 0.5)
    named, slowest, hit = 0, 0.0, 0
    for trial in range(trials):
        run = fresh("kill-run")
        log = pathlib.Path(f"{run}.log")
        world = rng.choice([2, 4])
        job = start(world, config, run, *moments_on(rng.choice(KINDS)))
        if not wait_for("connected by", log):
            sys.exit("FAILED: the ranks do not start")
        time.sleep(rng.uniform(0, took))
        ranks = processes(run)
        if ranks and job.poll() is None:
            rank = rng.choice(sorted(ranks))
            try:
                os.kill(ranks[rank], signal.SIGKILL)
            except ProcessLookupError:
                pass
            at = time.time()
            try:
                code = job.wait(30)
            except subprocess.TimeoutExpired:
                sys.exit("FAILED: the job goes on 30 s after a rank was killed")
            slowest = max(slowest, time.time() - at)
            if code != 0:
                hit += 1
                # The message takes a moment to come through the launcher.
                named += bool(re.search(rf"rank {rank} of {world} .* was killed by signal 9", log.read_text()))
        else:
            job.wait()
        left = processes(run)
        if left:
            time.sleep(1)
            left = processes(run)
        if left:
            sys.exit(f"FAILED: processes are left: {left}")
        then = rng.choice([1, 2, 3, 4])
        train(then, config, run, *moments_on(rng.choice(KINDS)))
        files, records = remains(run)
        expected, expected_records = remains(whole)
        final = [name for name in expected if "step-00000024" in name]
        wrong = [name for name in final if files.get(name) != expected[name]]
        if wrong or records != expected_records:
            sys.exit(f"FAILED: trial {trial}: {wrong or 'records'} differ after a kill on {world} ranks and {then} ranks")
        if trial % 10 == 9:
            say(f"  {trial + 1} trials: {hit} kills hit a run, {named} named the rank, slowest end {slowest:.2f} s")
    say(f"  all {trials} end with the bytes of the whole run; {hit} kills hit, {named} named, slowest end {slowest:.2f} s")


def signals_part():
    say("== signals: SIGTERM and Ctrl-C to mpiexec ==")
    config = recipe("signals", "miniature", 400, 4, 2, every=200)
    whole = fresh("signals-whole")
    train(1, config, whole)
    for name in ("SIGTERM", "SIGINT"):
        run = fresh(f"signals-{name}")
        log = pathlib.Path(f"{run}.log")
        job = start(2, config, run)
        assert wait_for(r"step +1[0-9]/|step 1[0-9]|connected by", log), log.read_text()
        time.sleep(1.0)
        os.kill(job.pid, getattr(signal, name))
        code = job.wait(30)
        text = log.read_text()
        stopped = re.search(r"stopped after (\d+) steps", text)
        say(f"  {name}: exit code {code}, {stopped.group(0) if stopped else 'not stopped: ' + text[-300:]}")
        if code != 0 or not stopped:
            sys.exit(f"FAILED: {name}")
        train(4, config, run)
        same_final(run, whole, name)


def same_final(run, whole, what):
    files, records = remains(run)
    expected, expected_records = remains(whole)
    newest = max(name.split("/")[1] for name in expected if "step-" in name)
    wrong = [name for name in expected if newest in name and files.get(name) != expected[name]]
    if wrong or records != expected_records:
        sys.exit(f"FAILED: {what}: {wrong or 'records'} differ")
    say(f"  equal at the end: {what}")


def hosts_part():
    say("== hosts: two network namespaces, TCP between them ==")
    run_ip = lambda *words: subprocess.run(["ip", *words], capture_output=True, text=True)
    if os.geteuid() != 0 or run_ip("netns", "add", "tf-a").returncode != 0:
        say("  not run: network namespaces need root and `ip netns`")
        return
    try:
        setup = [
            "netns add tf-b",
            "link add tf-va netns tf-a type veth peer name tf-vb netns tf-b",
            "-n tf-a addr add 10.77.0.1/24 dev tf-va",
            "-n tf-b addr add 10.77.0.2/24 dev tf-vb",
            "-n tf-a link set tf-va up",
            "-n tf-b link set tf-vb up",
            "-n tf-a link set lo up",
            "-n tf-b link set lo up",
        ]
        for line in setup:
            made = run_ip(*line.split())
            if made.returncode != 0:
                say(f"  not run: ip {line}: {made.stderr.strip()}")
                return
        # mpiexec runs in the first namespace, and starts its proxies through this instead of ssh.
        shell = WORK / "enter"
        shell.write_text(
            "#!/bin/bash\n"
            "# A remote shell for namespaces: HOST COMMAND...\n"
            'while [[ "$1" == -* ]]; do shift; done\n'
            'host=$1; shift\n'
            'case $host in 10.77.0.1) name=tf-a;; 10.77.0.2) name=tf-b;; *) exit 9;; esac\n'
            'exec ip netns exec $name /bin/bash -c "$*"\n'
        )
        shell.chmod(0o755)
        config = recipe("hosts", "miniature", 20, 4, 2)
        one = fresh("hosts-1")
        train(1, config, one)
        for ranks in (2, 4):
            run = fresh(f"hosts-{ranks}")
            hosts_job(shell, ranks, config, run, None)
            same(run, one, f"{ranks} ranks on two hosts")
        say("  cutting the link")
        long = recipe("hosts-long", "miniature", 10000000, 4, 2, growth=False, every=100)
        run = fresh("hosts-cut")
        hosts_job(shell, 2, long, run, cut)
        checked = subprocess.run([PROGRAM, "verify", str(run)], capture_output=True, text=True, env=ENV)
        say(f"  the checkpoint verifies: {checked.returncode == 0}")
        if checked.returncode != 0:
            sys.exit(f"FAILED: {checked.stdout}{checked.stderr}")
    finally:
        for name in ("tf-a", "tf-b"):
            run_ip("netns", "del", name)


def cut(job, log, run):
    if not wait_for("connected by", log):
        sys.exit("FAILED: the ranks do not start: " + log.read_text())
    end = time.time() + 60
    while time.time() < end and not (run / "latest").exists():
        time.sleep(0.1)
    time.sleep(1)
    subprocess.run(["ip", "-n", "tf-b", "link", "set", "tf-vb", "down"], check=True)
    began = time.time()
    while time.time() - began < 45 and processes_of(run):
        time.sleep(0.1)
    took = time.time() - began
    lost = re.findall(r"rank \d+ \([^)]*\) has given no sign of life for \d+ s", log.read_text())
    say(f"  all ranks have ended {took:.1f} s after the cut; messages: {lost}")
    if processes_of(run) or took > 30 or not lost:
        sys.exit("FAILED: " + log.read_text()[-3000:])


def processes_of(run):
    return processes(run)


def hosts_job(shell, ranks, config, run, during):
    log = pathlib.Path(f"{run}.log")
    mpiexec = shutil.which("mpiexec")
    train = [PROGRAM, "train", "--config", config, "--out", run, "--threads", "1"]
    job = ["ip", "netns", "exec", "tf-a", mpiexec, "-launcher", "ssh", "-launcher-exec", shell]
    job += ["-hosts", "10.77.0.1,10.77.0.2", "-localhost", "10.77.0.1", "-n", ranks, "-ppn", max(1, ranks // 2), *train]
    # Both namespaces are one machine, whose memory MPI would share instead.
    env = {**ENV, "FI_PROVIDER": "tcp", "UCX_TLS": "tcp,self", "MPIR_CVAR_NOLOCAL": "1"}
    with open(log, "a") as out:
        process = subprocess.Popen(
            list(map(str, job)), env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
        if during:
            during(process, log, run)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                say("  mpiexec itself waits for the lost host and is ended by this script")
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            return
        code = process.wait()
    if code != 0:
        say(log.read_text()[-2000:])
        sys.exit(f"FAILED: {ranks} ranks on two hosts ended with {code}")


def speed_part():
    say("== speed: 2 ranks of 1 thread against 1 rank of 2 threads, in turn ==")
    seconds = float(os.environ.get("SECONDS_EACH", "0"))
    for preset, steps, batch, rounds in [("tiny", 40, 8, 3), ("small", 8, 4, 2), ("150m", 2, 1, 1)]:
        if os.environ.get("PRESETS") and preset not in os.environ["PRESETS"].split(","):
            continue
        config = recipe(f"speed-{preset}", preset, steps, 2, batch, growth=False, every=0)
        found = {}
        for turn in range(rounds):
            for way in ("1x2", "2x1", "2x1-fast"):
                run = fresh(f"speed-{preset}-{way}")
                quiet = ["--set", "sample.tokens=0", "--set", "eval.tokens=256", "--set", "log.every=1"]
                if way == "1x2":
                    made = [PROGRAM, "train", "--config", config, "--out", run, "--threads", "2", *quiet]
                else:
                    reduce = "fast" if way.endswith("fast") else "ordered"
                    made = command(2, config, run, *quiet, "--set", f"ranks.reduce={reduce}")
                log = open(f"{run}.log", "a")
                subprocess.run(list(map(str, made)), check=True, env=ENV, stdout=log, stderr=log)
                lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
                times = [line["step_ms"] for line in lines if line.get("kind") == "train"][1:]
                found.setdefault(way, []).append(sorted(times)[len(times) // 2])
                if way != "1x2":
                    rows = [line.split(",") for line in (run / "ranks.csv").read_text().splitlines()[1:]]
                    rows = [row for row in rows if int(row[0]) > 1]
                    split = [sum(float(row[i]) for row in rows) / len(rows) for i in (-3, -2)]
                    found.setdefault(way + " computing, waiting", []).append([round(x, 1) for x in split])
        median = {way: sorted(times)[len(times) // 2] for way, times in found.items() if "," not in way}
        say(f"  {preset}: ms per step {found}")
        for way in ("2x1", "2x1-fast"):
            say(f"  {preset}: {way} reaches {median['1x2'] / median[way]:.2f} of the speed of 1x2")


def plan_part():
    say("== plan: what `plan cluster` says of 2 ranks from the speed of one, beside 2 ranks, in turn ==")
    quiet = ["--set", "sample.tokens=0", "--set", "eval.tokens=256", "--set", "log.every=1"]

    def step_ms(ranks, config, name):
        run = fresh(name)
        with open(f"{run}.log", "a") as log:
            subprocess.run(command(ranks, config, run, *quiet), check=True, env=ENV, stdout=log, stderr=log)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        times = sorted(line["step_ms"] for line in lines if line.get("kind") == "train")
        return times[len(times) // 2]

    sums = subprocess.run(["mpiexec", "-n", "2", PROGRAM, "bench", "sums", "--json"], check=True, env=ENV, capture_output=True, text=True)
    rate = max(row["bytes"] / row["sum_ms"] * 1e3 for row in json.loads(sums.stdout)["messages"])
    for preset, steps, batch in [("tiny", 12, 8), ("small", 4, 4)]:
        config = recipe(f"plan-{preset}", preset, steps, 2, batch, growth=False, every=0)
        plan = [PROGRAM, "plan", "cluster", "--preset", preset, "--node", "cpu", "--inside-rate", f"{rate:.0f}", "--windows", str(2 * batch)]
        plan += ["--reduce", "ordered", "--json", "--ranks"]
        tell = lambda ranks, flops: json.loads(
            subprocess.run([*plan, str(ranks), "--flop-rate", f"{flops:.0f}"], check=True, env=ENV, capture_output=True, text=True).stdout
        )
        ratios = []
        for turn in range(3):
            one, two = step_ms(1, config, f"plan-{preset}-1"), step_ms(2, config, f"plan-{preset}-2")
            flops = tell(1, 1e9)[0]["compute_s"] * 1e9 / (one / 1e3)
            planned = 1e3 * tell(2, flops)[0]["step_s"]
            ratios.append(planned / two)
            say(f"  {preset}: one rank {one:.0f} ms, {flops / 1e9:.0f} GFLOP/s; two are planned {planned:.0f} ms and take {two:.0f} ms")
        say(f"  {preset}: planned over measured {sorted(ratios)[1]:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def sums_part():
    say("== sums: `bench sums` beside MPI_Allreduce of a C program, in turn ==")
    peer = WORK / "allreduce"
    source = pathlib.Path(__file__).with_name("allreduce.c")
    subprocess.run(["mpicc", "-O2", source, "-o", peer], check=True)
    run = lambda *words: subprocess.run(list(map(str, words)), check=True, env=ENV, capture_output=True, text=True).stdout
    ours, theirs = {}, {}
    for _ in range(5):
        found = json.loads(run("mpiexec", "-n", 2, PROGRAM, "bench", "sums", "--json"))
        for row in found["messages"]:
            ours.setdefault(row["bytes"], []).append(row["sum_ms"])
        for line in run("mpiexec", "-n", 2, peer, 7).splitlines():
            size, ms = line.split()
            theirs.setdefault(int(size), []).append(float(ms))
    median = lambda times: sorted(times)[len(times) // 2]
    for size in ours:
        a, b = median(ours[size]), median(theirs[size])
        spread = f"{min(ours[size]):.3f} to {max(ours[size]):.3f}"
        say(f"  {size} bytes: {a:.3f} ms ({spread}), {size / a / 1e6:.2f} GB/s; the C program {b:.3f} ms, {size / b / 1e6:.2f} GB/s")


def main():
    RUNS.mkdir(parents=True, exist_ok=True)
    data()
    parts = {
        "bytes": bytes_part,
        "tokens": tokens_part,
        "kill": kill_part,
        "hosts": hosts_part,
        "signals": signals_part,
        "launch": launch_part,
        "speed": speed_part,
        "sums": sums_part,
        "plan": plan_part,
    }
    for part in PARTS:
        if part not in parts:
            sys.exit(f"unknown part {part}: {', '.join(parts)}")
        parts[part]()
    say("all checks passed")


main()
