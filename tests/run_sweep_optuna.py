"""tools/optuna_sweep.py: Optuna chooses trials, the sweep's store keeps them, a second call knows the first's."""
import csv
import importlib.util
import io
import os
import subprocess
import sys

from program import FIELDNET, check, finish, folder, noise, write_npy, write_text

for module in ("optuna", "yaml"):
    if importlib.util.find_spec(module) is None:
        print(f"skipped: {module} is not installed")
        sys.exit(77)

TOOL = os.path.join(os.environ["SOURCE_DIR"], "tools", "optuna_sweep.py")
RUN = """\
model:
  layers:
    - conv: {channels: 4, kernel: 3}
    - leaky_relu: 0.1
    - conv: {channels: out, kernel: 3}
data:
  train: {input: 'in_*.npy', target: 'in_*.npy'}
  validation: {input: 'in_*.npy', target: 'in_*.npy'}
  crop: 4
  input_pad: 2
train: {epochs: 3, batch: 2}
optimizer: {lr: 1.e-3}
compute: {threads: 1}
report: {plots: false, tensorboard: false}
"""
SWEEP = """\
run: run.yaml
sweep:
  method: ask
  folder: asked
  parameters:
    optimizer.name: [adam, sgd]
    optimizer.lr: {log: [1.e-4, 1.e-2]}
    optimizer.momentum: {uniform: [0, 0.9], when: {optimizer.name: sgd}}
    train.batch: {integer: [1, 4]}
  stop: {rule: asha, min_epochs: 1, reduction: 2}
"""


def tool(*words):
    done = subprocess.run([sys.executable, TOOL, "sweep.yaml", "--fieldnet", FIELDNET, *words],
                          capture_output=True, text=True)
    check(done.returncode == 0, "the tool", done.stdout + done.stderr)
    return done.stdout


def table():
    text = subprocess.run([FIELDNET, "sweep", "table", "sweep.yaml"], capture_output=True, text=True, check=True).stdout
    return list(csv.DictReader(io.StringIO(text)))


with folder():
    for i in range(2):
        write_npy(f"in_{i}.npy", (1, 8, 8, 8), noise(i, 512))
    write_text("run.yaml", RUN)
    write_text("sweep.yaml", SWEEP)
    output = tool("--trials", "4", "--seed", "1")
    rows = table()
    check(len(rows) == 4 and all(r["state"] in ("finished", "stopped") for r in rows), "four trials", str(rows))
    check(any(r["state"] == "finished" for r in rows), "one at least to the end", str(rows))
    for r in rows:
        check(1e-4 <= float(r["optimizer.lr"]) <= 1e-2 and 1 <= int(r["train.batch"]) <= 4, "in range", str(r))
        check((r["optimizer.momentum"] != "") == (r["optimizer.name"] == "sgd"), "conditions hold", str(r))
        with open(f"{r['folder']}/metrics.csv") as file:
            losses = [float(line["validation_loss"]) for line in csv.DictReader(file)]
        check(abs(min(losses) - float(r["best"])) <= 1e-6 * abs(min(losses)), "the store has what the run wrote",
              f"{losses} {r['best']}")
        check(len(losses) == int(r["epochs"]) and (len(losses) == 3) >= (r["state"] == "finished"), "epochs", str(r))
    best = min(float(r["best"]) for r in rows if r["state"] == "finished")
    check(f"1. {best:.6g}" in output, "the best is printed", output)
    before = rows
    tool("--trials", "2", "--workers", "2")
    check(table()[:4] == before and len(table()) == 6, "a second call adds to the first", str(table()))
    finish()
