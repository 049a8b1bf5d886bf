"""tools/gpu-bench without a GPU: what it writes agrees with what it measured, and it goes on where it was."""
import json
import os
import subprocess
import sys

from program import FIELDNET, check, finish, folder

TOOL = os.path.join(os.environ["SOURCE_DIR"], "tools", "gpu-bench")


def run(*words):
    return subprocess.run([sys.executable, TOOL, "--fieldnet", FIELDNET, "--backend", "emulated", "--python", "none",
                           "--networks", "vnet104", "--size", "44", "--batch", "1", "--width", "1", "--pairs", "3", "--chain", "4", "--warmup", "1", "--calls",
                           "5", "--files", "2", "--json", "gpu.json", *words], capture_output=True, text=True)


def load():
    with open("gpu.json") as file:
        return json.load(file)


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
    done = run("--precisions", "f99")
    check(done.returncode != 0 and "f99" in done.stderr, "an unknown precision", done.stderr)
finish()
