"""tools/scaling: limits of the model that are known, its buckets against the program's, and the tables of docs/scaling.md."""
import importlib.machinery
import importlib.util
import json
import math
import os
import re
import shlex
import subprocess
import sys

from program import check, finish, folder, run, succeed, write_text

SOURCE_DIR = os.environ["SOURCE_DIR"]
TOOL = os.path.join(SOURCE_DIR, "tools", "scaling")
sys.dont_write_bytecode = True
loader = importlib.machinery.SourceFileLoader("scaling", TOOL)
scaling = importlib.util.module_from_spec(importlib.util.spec_from_loader("scaling", loader))
loader.exec_module(scaling)

RUN = """
model:
  layers:
    - conv: {channels: 16, kernel: 3}
    - leaky_relu: 0.1
    - conv: {channels: 64, kernel: 3}
    - leaky_relu: 0.1
    - conv: {channels: 64, kernel: 3}
    - leaky_relu: 0.1
    - conv: {channels: out, kernel: 3}
data: {crop: 8, input_pad: 4}
train: {batch: 2}
optimizer: {name: adam, lr: 1e-3}
compute: {threads: 1}
"""


def near(a, b, tolerance=1e-9):
    return abs(a - b) <= tolerance * max(abs(a), abs(b), 1e-300)


def bench(name):
    with open(os.path.join(SOURCE_DIR, "docs", "scaling", name + ".json")) as file:
        return json.load(file)


def check_sums():
    size, bandwidth = 1e8, 1e10
    wide = scaling.network(0, bandwidth)
    # every byte leaves a rank (P - 1) / P times in the reduction and once more in the distribution
    check(near(wide.ring(size, 2), size / bandwidth) and near(wide.ring(size, 1 << 20), 2 * size / bandwidth, 1e-5),
          "ring: from one to two times size / bandwidth")
    check(near(wide.halving(size, 1024), wide.ring(size, 1024), 1e-9), "halving moves what the ring moves")
    check(near(wide.tree(size, 1024), 20 * size / bandwidth), "tree: up and down ten levels with all of it")
    far = scaling.network(1e-6)
    check(near(far.ring(size, 1024), 2046e-6) and near(far.halving(size, 1024), 20e-6) and near(far.small(1024), 20e-6),
          "latency: every rank in turn, or every level")
    adding = scaling.network(summing=1e9)
    check(near(adding.ring(size, 1 << 20), 0.1, 1e-5) and near(adding.tree(size, 16), 0.4), "additions")
    both = scaling.network(3e-6, 1e10, node_ranks=4, node_latency=1e-6, node_link=1e11)
    check(near(both.small(4), 4e-6) and near(both.small(8), 10e-6), "inside a node and between nodes")
    check(near(both.halving(size, 8), 2 * (1e-6 + 5e-4) + 2 * (1e-6 + 2.5e-4) + 2 * (3e-6 + 1.25e-3)), "halving over nodes")
    check(near(both.ring(size, 4), 6e-6 + 1.5e-3) and near(both.ring(size, 8), 42e-6 + 1.75e-2), "the ring waits for its slowest hop")
    parts = scaling.network(0, bandwidth, node_ranks=4, node_link=1e12)
    check(near(parts.node(size, 4096), 2 * (size / 4) / bandwidth, 1e-3), "nodes: every rank of a node sends its part there and back")
    check(parts.node(size, 4) == 0 and near(scaling.network(summing=1e9, node_ranks=4).node(size, 4), 0.3),
          "memory of a node: written, added, read")
    check(near(wide.ranks(size, 1024), wide.halving(size, 1024), 1e-9) and near(wide.node(size, 1024), wide.ranks(size, 1024), 1e-9),
          "what moves does not depend on how where every node has one rank")
    check(near(scaling.network(gap=1e-6).ranks(size, 1024), 2046e-6) and
          near(scaling.network(gap=1e-6, node_ranks=4).node(size, 1024), 510e-6), "messages: one for every rank, or node")
    halved = scaling.network(0, bandwidth, staging=1e10, wire=2)
    check(near(halved.allreduce(size, 8, "ranks"), scaling.network(0, bandwidth, staging=1e10).allreduce(size, 8, "ranks") / 2) and
          halved.allreduce(size, 8, "tree") == scaling.network(0, bandwidth, staging=1e10).allreduce(size, 8, "tree"),
          "half the bytes for who adds by himself")
    for algorithm in scaling.ALGORITHMS:
        check(both.allreduce(size, 1, algorithm) == 0, f"{algorithm}: one rank has nothing to sum")
        times = [both.allreduce(size, p, algorithm) for p in (2, 4, 8, 64, 1024)]
        check(times == sorted(times), f"{algorithm}: more ranks take longer", str(times))


def check_overlap():
    sizes = scaling.bucket_sizes(8e6)
    check(near(sum(sizes), 8e6) and sizes[0] == 1 << 20 and max(sizes[1:]) == 1e6, "buckets", str(sizes))
    busy, exposed = scaling.overlapped(0, sizes, [1e-3] * len(sizes))
    check(near(busy, exposed), "without a backward pass nothing is hidden")
    for backward in (1e-4, 1e-2, 1):
        busy, exposed = scaling.overlapped(backward, sizes, [1e-3] * len(sizes))
        check(near(busy, 1e-3 * len(sizes)) and 1e-3 - 1e-12 <= exposed <= busy + 1e-12, f"hidden behind {backward} s", f"{exposed}")
    check(near(scaling.overlapped(1, sizes, [1e-3] * len(sizes))[1], 1e-3), "the last bucket is never hidden")
    check(near(scaling.overlapped(1e-2, sizes, [2e-3] * len(sizes))[1], 2e-3 * len(sizes) + 1e-2 * sizes[0] / 8e6 - 1e-2),
          "a network slower than the backward pass starts with the first bucket")


def check_steps():
    for name in ("vnet", "racoon"):
        measured = bench(name)
        mode = "full" if "full" in measured["modes"] else "synthetic"
        work = scaling.workload(measured)
        plain = scaling.model(work, scaling.network())
        one = plain.step(1)
        check(near(one["step"], measured["modes"][mode]["step"], 1e-6) and one["exposed"] == one["jitter"] == one["input"] == 0,
              f"{name}: one rank takes what was measured", str(one))
        check(all(near(row["efficiency"], 1) for row in plain.weak([1, 2, 64, 1024])), f"{name}: nothing assumed, nothing lost")
        assumed = scaling.workload(measured, flops=1e14, bandwidth=2e12, launch=4e-6)
        rates = [k["flops"] / 1e14 for k in measured["modes"][mode]["kernels"]]
        check(assumed.forward + assumed.backward >= sum(rates) and assumed.fixed > 0, f"{name}: bounds of another device")
        settings = dict(latency=5e-6, link=4e10, node_ranks=4, node_latency=3e-6, node_link=2e11, summing=5e10, staging=5e10)
        made = scaling.model(assumed, scaling.network(**settings), jitter=0.01, rank_read=5e9, file_system=1e11,
                             save_every=1200, save_stall=0.5)
        rows = made.weak([1 << i for i in range(11)])
        steps = [row["step"] for row in rows]
        check(steps == sorted(steps) and all(0 < row["efficiency"] <= 1 for row in rows), f"{name}: weak scaling falls", str(steps))
        check(all(row["exposed"] <= row["busy"] + 1e-15 for row in rows), f"{name}: no more is exposed than is summed")
        check(near(rows[-1]["samples"], min(1e11 / made.sample_bytes / (1 + 0.5 / 1200), rows[-1]["samples"]), 1e-6),
              f"{name}: no faster than the file system")
        faster = scaling.model(assumed, scaling.network(**dict(settings, link=8e10)), jitter=0.01, rank_read=5e9, file_system=1e11)
        check(all(b["step"] <= a["step"] for a, b in zip(rows, faster.weak([1 << i for i in range(11)]))), f"{name}: a faster link")
        strong = made.strong([1 << i for i in range(11)], 256)
        check([row["ranks"] for row in strong] == [1 << i for i in range(9)] and strong[-1]["batch"] == 1,
              f"{name}: as many ranks as samples")
        check(near(strong[0]["efficiency"], 1) and all(row["efficiency"] <= 1 + 1e-12 for row in strong), f"{name}: strong scaling")
        check(near(made.step(1)["step"] / scaling.model(assumed, made.net, jitter=0.01, rank_read=5e9, file_system=1e11)
                   .step(1)["step"], 1 + 0.5 / 1200), f"{name}: time of states")


def check_cores():
    """One kernel that computes for a second, three at the memory's rate; no optimizer to speak of."""
    made = {"threads": 1, "ranks": 1, "machine": {"copy_bytes_per_second": 1e10}, "modes": {"synthetic": {
        "step": 2.0, "phases": {"optimizer": 0.0}, "optimizer_least": 0.0,
        "kernels": [{"kernels": 1, "seconds": 1.0, "bytes": 1e6}, {"kernels": 3, "seconds": 1.0, "bytes": 1e10}]}}}
    free = scaling.cores(made)
    check(near(free.step(1)["step"], 2) and near(free.step(64)["step"], 2 / 64), "cores that each have their own memory")
    bound = scaling.cores(made, node_copy=4e10, barrier=1e-3)
    step = bound.step(16)
    check(near(step["step"], 1 / 16 + 1 / 4 + 5 * 4e-3) and near(step["barriers"], 5 * 4e-3),
          "four cores' worth of memory, a barrier of four levels after each of five kernels", str(step))
    check(near(step["memory"], 1 / 4 + 3 * 4e-3), "what waits for memory", str(step))
    made["threads"] = 2
    try:
        scaling.cores(made)
        check(False, "a bench of two threads is taken for one")
    except ValueError:
        pass


def check_program():
    """What the program writes today is what the tool reads; and it cuts gradients as the tool thinks."""
    with folder():
        write_text("run.yaml", RUN)
        succeed(1, "bench", "run.yaml", "--mode", "synthetic", "--size", "16", "--steps", "2", "--warmup", "1", "--json", "one.json")
        done = subprocess.run([TOOL, "one.json", "--latency", "1e-6", "--link", "1e10", "--ranks", "8", "--strong", "4"],
                              capture_output=True, text=True)
        check(done.returncode == 0 and done.stdout.count("\n| 8 |") == 2 and done.stdout.count("\n| 4 |") == 3, "a measurement of today",
              done.stdout + done.stderr)
        succeed(2, "bench", "run.yaml", "--mode", "comm", "--size", "16", "--steps", "1", "--json", "two.json")
        with open("two.json") as file:
            comm = json.load(file)["modes"]["comm"]
        # bench tries larger ones, too, than a run would be given for so few gradients
        small = [tried for tried in comm["sizes"] if tried["bucket_bytes"] <= scaling.BUCKET_LEAST]
        check(small, "no size of buckets that training would take was tried", str(comm))
        for tried in small:
            wanted = tried["bucket_bytes"]
            cut = scaling.bucket_sizes(comm["gradient_bytes"], min(1 << 20, wanted), wanted)
            check(len(cut) == tried["buckets"] > 1, f"buckets of {wanted} bytes", f"{len(cut)} {tried}")
        write_text("other.json", "{}")
        done = subprocess.run([TOOL, "other.json"], capture_output=True, text=True)
        check(done.returncode == 2 and "fieldnet bench --json" in done.stderr, "another file is refused", done.stderr)
        done = subprocess.run([TOOL, "one.json", "--cores", "4", "--measured", "one.json"], capture_output=True, text=True)
        rows = re.findall(r"^\| (\d+) \|.* \| ([\d.]*) \|$", done.stdout, re.M)
        check([row[0] for row in rows] == ["1", "2", "4"] and bool(rows[0][1]) and not rows[1][1], "cores of a measurement of today",
              done.stdout + done.stderr)


def check_document():
    with open(os.path.join(SOURCE_DIR, "docs", "scaling.md")) as file:
        text = file.read()
    shown = re.findall(r"<!-- begin: (tools/scaling [^\n]*) -->\n(.*?)<!-- end -->", text, re.S)
    check(len(shown) >= 2, "docs/scaling.md has no generated part")
    for line, part in shown:
        done = subprocess.run([TOOL] + shlex.split(line)[1:], capture_output=True, text=True, cwd=SOURCE_DIR)
        check(done.returncode == 0 and done.stdout.strip() == part.strip(), f"docs/scaling.md differs from the output of {line}",
              done.stdout + done.stderr)


for check_part in (check_sums, check_overlap, check_steps, check_cores, check_program, check_document):
    check_part()
finish()
