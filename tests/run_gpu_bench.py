"""tools/gpu-bench without a GPU: what it writes agrees with what it measured, it goes on where it was, and
programs beside it may be slow, out of memory or other networks."""
import json
import os
import subprocess
import sys

from program import FIELDNET, check, finish, folder

TOOL = os.path.join(os.environ["SOURCE_DIR"], "tools", "gpu-bench")


# Takes the place of a Python with PyTorch: every variant has another fate.
PEER = """#!{python}
import json, sys, time
if sys.argv[1] == "-c":
    sys.exit(0)
def answer(**fields):
    print(json.dumps(fields), flush=True)
line = sys.stdin.readline()
if not line:
    sys.exit(0)
order = json.loads(line)
open("orders.txt", "a").write(order["precision"] + " " + order["variant"] + "\\n")
if order["variant"] == "compile":
    time.sleep(600)
if order["variant"] == "channels-last":
    answer(failed="out of memory: tried to allocate 2.00 GiB")
    sys.exit(0)
answer(ready=True, parameters={parameters} + (order["variant"] == "autotune"), version="9.9", device="none", cuda="99", cudnn="9")
for line in sys.stdin:
    answer(seconds=0.5, peak_resident=1)
"""


def run(*words):
    return subprocess.run([sys.executable, TOOL, "--fieldnet", FIELDNET, "--backend", "emulated", "--python", "none",
                           "--networks", "vnet104", "--size", "44", "--batch", "1", "--width", "1", "--pairs", "3", "--chain", "4", "--warmup", "1", "--calls",
                           "5", "--files", "2", "--json", "gpu.json", "--program", "one", *words], capture_output=True, text=True)


def load():
    with open("gpu.json") as file:
        return json.load(file)


def beside(*words):
    done = run(*words, "--resume")
    rows = {(r["precision"], r["variant"]): r for r in load()["rows"] if r["task"] == "training"}
    check(done.returncode == 0, "beside others", done.stdout + done.stderr)
    # What tells most comes first: bf16, in which channels last are PyTorch's best; max-autotune last of all.
    found = open("orders.txt").read().split("\n")[:-1]
    check(found == ["bf16 channels-last", "bf16 compile", "bf16 eager", "f32 eager", "f32 channels-last", "f32 compile",
                    "bf16 autotune", "f32 autotune"], "the order", str(found))
    for precision in "f32", "bf16":
        eager = rows[precision, "eager"]
        check(abs(eager["peer"] - 0.5) < 1e-9 and abs(0.5 / eager["fieldnet"] / eager["ratio"] - 1) < 0.5 and
              eager["torch"]["version"] == "9.9", "a program beside it", str(eager))
        check("out of memory" in rows[precision, "channels-last"]["failed"], "memory", str(rows))
        check(rows[precision, "compile"]["failed"] == "took more than 20 s", "a program that is too slow", str(rows))
        check("not the same network" in rows[precision, "autotune"]["failed"], "another network", str(rows))
    # What failed is not tried again unless it is asked for, what there is not either.
    done = run(*words, "--resume")
    check(done.returncode == 0 and len(open("orders.txt").readlines()) == 8, "nothing is left", done.stdout + done.stderr)
    run(*words, "--resume", "--retry", "--variants", "autotune,eager")
    check(open("orders.txt").read().split("\n")[8:-1] == ["bf16 autotune", "f32 autotune"], "what failed, again")


with folder():
    with open("results.md", "w") as file:
        file.write("# Results\n\nbefore\n\n<!-- gpu-bench: begin -->\nold\n<!-- gpu-bench: end -->\n\nafter\n")
    done = run("--precisions", "f32", "--tasks", "training", "--write", "results.md")
    if check(done.returncode == 0, "gpu-bench runs", done.stdout + done.stderr):
        first = load()["rows"]
        check(len(first) == 1 and "failed" not in first[0], "one row", str(first))
        row = first[0]
        check(sorted(row["seconds"])[1] == row["fieldnet"], "the median of the steps")
        check(0 < row["primitives"] < row["fieldnet"], "library calls are a part of the step", str(row))
        check(0 < row["host"] < row["fieldnet"] and not row["launch_bound"], "the host puts a step on its way", str(row))
        goals = {g["goal"]: g for g in load()["goals"]}
        found = goals["vnet104, training, f32: step over its calls of cuDNN and cuBLASLt"]
        check(abs(found["found"] - row["fieldnet"] / row["primitives"]) < 1e-9 and
              found["met"] == (found["found"] <= 1.10), "the goal of library calls", str(found))
        cosmoflow = goals["samples/s of CosmoFlow in training, 16 bits"]
        check(cosmoflow["found"] is None and not cosmoflow["met"], "what was not measured is not met", str(cosmoflow))
        text = open("results.md").read()
        check(text.startswith("# Results\n\nbefore\n") and text.endswith("\nafter\n") and "old" not in text,
              "only its own section is replaced", text)
        check("medians of 3 chains of 4 steps" in text, "how it was timed is told", text)
        check(FIELDNET not in text, "where the program lies is not told")
        done = run("--precisions", "f32,f16", "--tasks", "training,input", "--resume", "--minutes", "0")
        check(done.returncode == 3 and load()["rows"] == first, "nothing is begun when time is over", done.stderr)
        done = run("--precisions", "f32,f16", "--tasks", "training,input", "--resume")
        rows = load()["rows"]
        check(done.returncode == 0 and rows[:1] == first, "what is there is kept", done.stdout + done.stderr)
        check([(r["task"], r["precision"]) for r in rows] ==
              [("training", "f32"), ("training", "f16"), ("input", "f32"), ("input", "f16")], "what is missing is measured")
        for row in rows[2:]:
            check(abs(row["ratio_input"] - row["fieldnet"] / row["without_input"]) < 1e-12, "input", str(row))
        check([line for line in open("results.md") if line.startswith("| vnet104 |")] != [], "rows")
        parameters = first[0]["ready"]["parameters"]
        with open("peer", "w") as file:
            file.write(PEER.format(python=sys.executable, parameters=parameters))
        os.chmod("peer", 0o755)
        beside("--python", os.path.abspath("peer"), "--tasks", "training", "--precisions", "f32,bf16", "--limit", "20", "--ahead")

        # Another program: its rows take the place of those that were there. Nothing measured: the same table.
        done = run("--precisions", "f32", "--tasks", "training", "--resume", "--program", "two")
        rows = load()["rows"]
        check(done.returncode == 0 and [r["program"] for r in rows].count("two") == 1 and
              rows[-1]["seconds"] != first[0]["seconds"], "another program is measured again", str(rows))
        kept = sum(r["program"] == "one" for r in rows)
        run("--report", "--write", "report.md")
        check(f"Rows of an earlier program: {kept} of {len(rows)}." in open("report.md").read(), "rows of another program are told")
        others = load()
        others["rows"] += [dict(rows[-1], device="Other GPU")]
        others["devices"]["Other GPU"] = "Other GPU, 1.2, 3 MiB"
        with open("gpu.json", "w") as file:
            json.dump(others, file)
        before = open("gpu.json").read()
        done = run("--report", "--write", "report.md")
        text = open("report.md").read()
        check(done.returncode == 0 and open("gpu.json").read() == before and "Other GPU, 1.2, 3 MiB; " in text and
              text.count("| goal | asked |") == 2, "a table for every device", done.stderr + text)
        check("--program" not in text and "gpu.json" not in text, "the command tells nothing of this call", text)
    done = run("--precisions", "f99")
    check(done.returncode != 0 and "f99" in done.stderr, "an unknown precision", done.stderr)
finish()
