"""bench: every mode on one and two ranks, its JSON, its comparison, its trace, steps on request, chains of steps."""
import json
import os
import subprocess

from program import FIELDNET, LIMIT, check, failures, finish, folder, run, succeed, write_text

STEPS = 3
RUN = """
seed: 3
model:
  layers:
    - conv: {channels: 4, kernel: 3}
    - batch_norm
    - leaky_relu: 0.1
    - conv: {channels: out, kernel: 3}
data:
  train: {input: 'data/lin/*.npy', target: 'data/lpt2/*.npy'}
  crop: 8
  input_pad: 2
train: {batch: 2, bucket_bytes: 256, first_bucket_bytes: 128}
optimizer: {lr: 1.e-4}
compute: {threads: 1}
"""


def bench(ranks, *options):
    return succeed(ranks, "bench", "run.yaml", "--steps", str(STEPS), "--warmup", "1", *options)


def measured(ranks, *options):
    bench(ranks, "--json", "out.json", *options)
    with open("out.json") as file:
        return json.load(file)


def near(a, b, part):
    return abs(a - b) <= part * max(abs(a), abs(b))


def check_steps(result, mode, ranks):
    """What must hold between the numbers of a mode with steps."""
    what = f"{mode} on {ranks} ranks"
    if not check(mode in result["modes"], f"{what}: the mode is in the file", str(result["modes"].keys())):
        return
    s = result["modes"][mode]
    check(len(s["steps_ascending"]) == STEPS and sorted(s["steps_ascending"]) == s["steps_ascending"],
          f"{what}: {STEPS} times in order", str(s["steps_ascending"]))
    check(s["step"] == s["steps_ascending"][STEPS // 2], f"{what}: the step is their median")
    phases = s["phases"]
    check(near(sum(phases.values()), s["step_mean"], 1e-6), f"{what}: phases add up to the step", str(s))
    check(all(t >= 0 for t in phases.values()), f"{what}: no phase is negative", str(phases))
    kernels = sum(k["seconds"] for k in s["kernels"])
    computing = phases["forward"] + phases["backward"]
    # of rank 0 and of the mean over ranks: only on one rank are they the same
    if ranks == 1:
        check(kernels <= computing, f"{what}: kernels are parts of forward and backward", f"{kernels} of {computing}")
    for key in ("seconds", "alone", "flops", "bytes", "bound", "least", "kernels"):
        parts, whole = sum(k[key] for k in s["kernels"]), sum(o[key] for o in s["operators"])
        check(near(parts, whole, 1e-6), f"{what}: operators are sums of kernels in {key}", f"{parts} {whole}")
    machine = result["machine"]
    for k in s["kernels"]:
        bytes_time = k["bytes"] / machine["copy_bytes_per_second"]
        bound = max(k["flops"] / machine["flops_per_second"], bytes_time)
        check(near(k["bound"], bound, 1e-6) and near(k["least"], max(k["alone"], bytes_time), 1e-6),
              f"{what}: bounds of {k['name']}", str(k))
    if ranks == 1:
        check(near(sum(k["alone"] for k in s["kernels"]), s["primitives"], 1e-6) and s["primitives"] > 0,
              f"{what}: the sum of primitives")
        check(phases["communication_exposed"] == 0 and s["communication"]["busy"] == 0,
              f"{what}: nothing to communicate", str(s["communication"]))
    else:
        c = s["communication"]
        check(c["busy"] > 0 and c["exposed_last_rank"] <= c["exposed"] <= c["exposed_first_rank"],
              f"{what}: communication", str(c))
        check(near(c["exposed"], phases["communication_exposed"], 1e-9) and
              near(c["hidden"], max(0, c["busy"] - c["exposed"]), 1e-6), f"{what}: hidden and exposed", str(c))
    check(near(s["samples_per_second"], 2 * ranks / s["step"], 1e-6), f"{what}: samples per second")
    waited = phases["input_wait"] + phases["feed"]
    check(waited > 0 if mode == "full" else waited == 0, f"{what}: input", str(phases))


def undisturbed(s):
    """What holds of steps of one rank when no other program took the processor in the middle of them."""
    computing = s["phases"]["forward"] + s["phases"]["backward"]
    return (sum(k["seconds"] for k in s["kernels"]) > 0.5 * computing and
            near(sum(k["least"] for k in s["kernels"]) + s["optimizer_least"], s["least"], 0.3))


def check_times(mode, *options):
    for _ in range(8):
        s = measured(1, *options)["modes"][mode]
        if undisturbed(s):
            return
    check(False, f"{mode}: kernels fill forward and backward, and the sum of what is least", str(s))


def check_modes():
    check_times("full")
    check_times("synthetic", "--mode", "synthetic")
    for ranks in (1, 2):
        check_steps(measured(ranks), "full", ranks)  # the default where there are data
        check_steps(measured(ranks, "--mode", "synthetic"), "synthetic", ranks)
        io = measured(ranks, "--mode", "io")["modes"]["io"]
        # a sample: 3 channels of 12^3 cells and 3 of 8^3, float32
        check(near(io["bytes_per_second"] / io["samples_per_second"], 4 * 3 * (12**3 + 8**3), 1e-6) and
              near(io["samples_per_second"], 2 * ranks / io["batch"], 1e-6), f"io on {ranks} ranks", str(io))
    comm = measured(2, "--mode", "comm")["modes"]["comm"]
    check(comm["sizes"] and comm["best"] in [s["bucket_bytes"] for s in comm["sizes"]] and
          min(s["seconds"] for s in comm["sizes"]) ==
          next(s["seconds"] for s in comm["sizes"] if s["bucket_bytes"] == comm["best"]), "comm", str(comm))
    check("shared memory" in comm["reduction"], "comm: what is measured", str(comm["reduction"]))
    total = comm["gradient_bytes"]
    # every rank sends the half that the other one adds, and the sum of its own half
    for narrow, (dtype, shared) in enumerate((("f32", 3), ("bf16", 1.5))):
        comm = measured(2, "--mode", "comm", "--set", "train.reduction=ranks", "--set", f"train.gradient_dtype={dtype}")["modes"]["comm"]
        check(all(near(s["sent_bytes"], total / (1 + narrow), 0.1) and s["shared_bytes"] == 0 for s in comm["sizes"]),
              f"bytes sent as {dtype}", str(comm))
        comm = measured(2, "--mode", "comm", "--set", "train.reduction=node", "--set", f"train.gradient_dtype={dtype}")["modes"]["comm"]
        check(all(near(s["shared_bytes"], shared * total, 0.1) and s["sent_bytes"] == 0 for s in comm["sizes"]),
              f"bytes shared as {dtype}", str(comm))
    every = measured(2, "--mode", "all")
    check(set(every["modes"]) == {"full", "synthetic", "io", "comm"}, "all modes", str(every["modes"].keys()))
    start = every["start"]
    check(all(v >= 0 for v in start.values()) and start["first_step"] > 0 and start["launch"] < LIMIT,
          "times of the start", str(start))
    inference = measured(1, "--inference", "--size", "12")["modes"]["synthetic"]
    check(inference["inference"] and inference["phases"]["backward"] == inference["phases"]["optimizer"] == 0
          < inference["phases"]["forward"], "inference", str(inference["phases"]))


def check_refusals():
    for ranks, words, message in (
            (1, ["--mode", "comm"], "needs several ranks"),
            (1, ["--mode", "fulll"], "did you mean 'full'"),
            (1, ["--mode", "io", "--synthetic"], "needs training data"),
            (2, ["--lockstep"], "takes one rank"),
            (1, ["--inference", "--mode", "full"], "goes with --mode synthetic"),
            (1, ["--from", "out.json"], "goes with --compare"),
            (1, ["--compare", "run.yaml", "--from", "run.yaml"], "bench --json wrote")):
        done = run(ranks, "bench", "run.yaml", *words)
        check(done.code == 2 and message in done.output, f"refused: {' '.join(words)}", f"{done.code} {done.output}")


def check_comparison():
    measured(1)
    output = bench(1, "--from", "out.json", "--compare", "out.json")
    ratios = [line.split()[-1] for line in output.splitlines() if line.startswith("  ")]
    check(len(ratios) > 8 and set(ratios) == {"1.000"}, "a file beside itself", output)
    with open("out.json") as file:
        older = json.load(file)
    older["host"] = 'another "host"\\'
    for row in older["modes"]["full"]["operators"]:
        row["seconds"] *= 2
    older["modes"]["full"]["step"] *= 4
    with open("older.json", "w") as file:
        json.dump(older, file)
    output = bench(1, "--from", "out.json", "--compare", "older.json")
    lines = {line.split()[0]: line.split()[-1] for line in output.splitlines() if line.startswith("  ")}
    check(lines.get("conv") == "0.500" and lines.get("total:") == "0.250" and 'another "host"' in output,
          "a file beside a slower one", output)
    check("total: step" in bench(1, "--compare", "older.json"), "a measurement beside a file")


def check_trace():
    bench(2, "--trace", "trace.json")
    with open("trace.json") as file:
        events = json.load(file)["traceEvents"]
    names = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    rows = {}
    for e in events:
        if e["ph"] == "X":
            rows.setdefault((e["pid"], e["tid"]), []).append((e["ts"], -e["dur"], e["cat"]))
    check(set(rows) == names and {pid for pid, _ in rows} == {0, 1}, "rows of the trace", str(names))
    for row, spans in rows.items():
        open_until, depths = [], set()
        for start, minus, category in sorted(spans):
            while open_until and open_until[-1] <= start + 0.002:  # microseconds to three digits
                open_until.pop()
            end = start - minus
            check(not open_until or end <= open_until[-1] + 0.002, f"trace: nested in row {row}", f"{start} {end}")
            open_until.append(end)
            depths.add((category, len(open_until)))
        if row[1] == 0:
            count = sum(category == "step" for _, _, category in spans)
            check(count == STEPS, f"trace: {STEPS} steps of rank {row[0]}", str(count))
            check(depths >= {("step", 1), ("phase", 2), ("kernel", 3)}, "trace: steps, phases, kernels", str(depths))
    categories = {e["cat"] for e in events if e["ph"] == "X"}
    check(categories >= {"step", "phase", "kernel", "communication", "input"}, "trace: kinds", str(categories))


def check_checkpoint(ranks, *options):
    what = f"saves on {ranks} ranks {' '.join(options)}"
    for _ in range(8):  # of a copy that no other program disturbs
        output = bench(ranks, "--checkpoint", "--json", "saves.json", "--set", "folder=saves", *options)
        with open("saves.json") as file:
            c = json.load(file)["checkpoint"]
        if c["snapshot"] < c["write"]:
            break
    # weights, biases, scale and shift with two moments each, running mean and variance, in float32; names beside
    least = 4 * (3 * (4 * 3 * 27 + 4 + 8 + 3 * 4 * 27 + 3) + 8)
    check(least < c["bytes"] < least + 60000, f"{what}: bytes", str(c))
    check(c["turns"] == STEPS and c["steps_per_turn"] > 1 and c["write"] > 0 and c["step"] > 0, f"{what}: times", str(c))
    check(c["background"] == (not options) and (c["snapshot"] > 0) and (c["snapshot"] < c["write"]), f"{what}: the copy", str(c))
    check(near(c["bytes_per_second"], c["bytes"] / c["write"], 1e-6) and near(c["stall_steps"], c["stall"] / c["step"], 1e-6)
          and c["within_one_step"] == (c["stall_steps"] <= 1), f"{what}: what follows from others", str(c))
    verdict = "yes" if c["within_one_step"] else "no"
    check(f"at most one step of stall: {verdict}" in output, f"{what}: the verdict", output)
    # what training waits for has to write: a save and a step are longer than the write
    if options:
        check(c["saving_step"] >= 0.5 * c["write"], f"{what}: the step waits for the write", str(c))
    check(not os.path.exists("saves"), f"{what}: nothing is left")


def check_saves():
    check_checkpoint(1)
    check_checkpoint(2)
    check_checkpoint(1, "--set", "checkpoint.background=false")
    os.makedirs("kept")
    bench(1, "--checkpoint", "--set", "folder=kept")
    check(os.listdir("kept") == [], "a run folder that was there stays as it was")
    done = run(1, "bench", "run.yaml", "--checkpoint", "--mode", "io")
    check(done.code == 2 and "--checkpoint goes without --mode" in done.output, "refused: a mode", done.output)


def check_lockstep():
    done = subprocess.run([FIELDNET, "bench", "run.yaml", "--lockstep", "--size", "12"], text=True,
                          input="step\nstep\nquit\n", capture_output=True, timeout=LIMIT)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    check(done.returncode == 0 and len(lines) == 3 and lines[0]["ready"] and
          all(line["seconds"] > 0 and line["peak_resident"] > 1e6 for line in lines[1:]),
          "steps on request", done.stdout + done.stderr)
    # weights and biases of two convolutions, scale and shift of the norm
    check(lines and lines[0]["parameters"] == 4 * 3 * 27 + 4 + 8 + 3 * 4 * 27 + 3, "parameters", str(lines[:1]))
    done = subprocess.run([FIELDNET, "bench", "run.yaml", "--lockstep", "--size", "12"], text=True,
                          input="stepp\n", capture_output=True, timeout=LIMIT)
    check(done.returncode == 2 and "expected the line step, steps N, primitives or quit" in done.stderr, "a wrong line", done.stderr)
    done = subprocess.run([FIELDNET, "bench", "run.yaml", "--lockstep", "--size", "12"], text=True,
                          input="steps 4\nsteps 0\n", capture_output=True, timeout=LIMIT)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    check(done.returncode == 2 and len(lines) == 2 and lines[1]["seconds"] > 0 and "host" not in lines[1],
          "the mean of steps, and none of no steps", done.stdout + done.stderr)


def chained(trace):
    """Steps of an emulated device, in the longest row of those between whose ends the host waited once at most, and only
    while the device had most of a backward pass left to run; and what was launched one by one in the row's last: what
    makes the inputs."""
    longest, row, waits, launched, last = 1, 1, [], set(), set()
    with open(trace) as file:
        for line in file:
            word, _, rest = line.strip().partition(" ")
            if word == "wait":
                waits.append(int(rest.split()[1]))
            elif word == "launch":
                launched.add(rest)
            elif word == "update":
                row = row + 1 if len(waits) <= 1 and min(waits, default=30) >= 30 else 1
                if row > longest:
                    longest, last = row, launched
                waits, launched = [], set()
    return longest, last


def check_chain():
    """On a device the steps that count are put one behind the other."""
    device = ["--set", "compute.backend=emulated"]
    os.environ["FIELDNET_EMULATED_TRACE"] = "trace"
    # What was read ahead, and the steps until host and device keep pace, come first; more batches than an epoch has.
    for mode, lead in ("full", 2 + 3), ("synthetic", 2):
        output = bench(1, "--mode", mode, "--steps", "6", "--json", "out.json", "--set", "data.prefetch=3", *device)
        check(chained("trace") == (lead + 6, {"convert"}), f"{mode}: steps in a chain",
              str(chained("trace")))
        with open("out.json") as file:
            s = json.load(file)["modes"][mode]
        check(f"samples      {s['samples_per_second']:10.3f} /s" in output and
              f"chain        {1e3 * s['chain']['step']:10.2f} ms" in output, f"{mode}: the table", output)
    done = subprocess.run([FIELDNET, "bench", "run.yaml", "--lockstep", "--size", "12", *device], text=True,
                          input="step\nsteps 7\nquit\n", capture_output=True, timeout=LIMIT)
    check(done.returncode == 0 and chained("trace") == (7, {"convert"}), "a chain on request", done.stderr)
    seconds = json.loads(done.stdout.splitlines()[2])
    check(0 < seconds["host"] < seconds["seconds"], "a chain on request: its times", done.stdout)
    del os.environ["FIELDNET_EMULATED_TRACE"]
    for ranks, options in (1, []), (1, ["--mode", "synthetic"]), (1, ["--inference", "--size", "12"]), (2, []):
        for mode, s in measured(ranks, "--steps", "1", *device, *options)["modes"].items():
            what, c = f"chain of {mode} on {ranks} ranks {' '.join(options)}", s["chain"]
            check(near(s["samples_per_second"], 2 * ranks / c["step"], 1e-6), f"{what}: samples per second", str(s))
            check(c["steps"] == 1 and c["device"] > 0 and 0 < c["host"] and
                  (ranks > 1 or c["host"] + c["input_wait"] <= c["step"]), f"{what}: times", str(c))
            check(c["input_wait"] > 0 if mode == "full" else c["input_wait"] == 0, f"{what}: input", str(c))
            check(c["launch_bound"] == (c["host"] >= 0.8 * c["device"]), f"{what}: launch bound", str(c))
            check(ranks > 1 or near(s["ratio"] * s["primitives"], c["step"], 1e-6), f"{what}: ratio", str(s))
    output = bench(1, "--from", "out.json", "--compare", "out.json")
    check([line.split()[-1] for line in output.splitlines() if "chain: step" in line] == ["1.000"], "chains beside each other", output)
    check("chain" not in measured(1, "--mode", "synthetic")["modes"]["synthetic"], "no chain on the host")



with folder():
    succeed(1, "data", "synth", "displacement", "--folder", "data", "--files", "2", "--edge", "16", "--box", "50")
    write_text("run.yaml", RUN)
    for part in (check_modes, check_refusals, check_comparison, check_trace, check_saves, check_lockstep, check_chain):
        if not failures:
            part()
finish()
