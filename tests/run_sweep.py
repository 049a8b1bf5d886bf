"""fieldnet sweep plan, ask, tell, status, best, table, plot: a sweep worked on from outside, by hand."""
import csv
import io
import json
import os
import re
import struct
import subprocess
import time

from program import FIELDNET, check, finish, folder, noise, write_npy, write_text

RUN = """\
model:
  layers:
    - conv: {channels: 4, kernel: 3}
    - leaky_relu: 0.1
    - conv: {channels: out, kernel: 3}
data:
  train: {input: 'in_*.npy', target: 'out_*.npy'}
  validation: {input: 'in_*.npy', target: 'out_*.npy'}
  crop: 4
  input_pad: 2
train: {epochs: 9, batch: 2}
optimizer: {lr: 1.e-3}
compute: {threads: 1}
"""

SWEEP = """\
run: run.yaml
set: {checkpoint.keep_last: 1}
sweep:
  folder: trials
  seeds: 2
  parameters:
    optimizer.lr: {log: [1.e-4, 1.e-2], points: 3}
    train.batch: [2, 4]
  stop: {rule: median, min_trials: 2, min_epochs: 2}
"""

ASK = """\
run: run.yaml
sweep:
  method: ask
  folder: asked
  parameters:
    optimizer.name: [adam, sgd]
    optimizer.lr: {log: [1.e-4, 1.e-2]}
    optimizer.momentum: {uniform: [0, 1], when: {optimizer.name: sgd}}
"""


def sweep(action, file, *words, code=0):
    done = subprocess.run([FIELDNET, "sweep", action, file, *words], capture_output=True, text=True)
    check(done.returncode == code, f"sweep {action} {' '.join(words)}: code {done.returncode}, not {code}",
          done.stdout + done.stderr)
    return done.stdout if code == 0 else done.stderr


def ask(file, *words):
    return json.loads(sweep("ask", file, *words))


def tell(file, trial, *words, code=0):
    return sweep("tell", file, str(trial), *words, code=code).strip()


def rows(file):
    return list(csv.DictReader(io.StringIO(sweep("table", file))))


def plan():
    text = sweep("plan", "sweep.yaml", "--step-seconds", "2")
    check("12: 6 settings (grid) x 2 seeds" in text, "plan: trials", text)
    # 2 fields of 8^3 cells in crops of 4: 16 samples, in batches of 2 or 4, 9 epochs.
    check("steps     36 to 72 in 9 epochs" in text, "plan: steps", text)
    check("2 s per step (given): 1 min 12 s to 2 min 24 s for a trial, about 21 min 36 s for all of them, if none "
          "were stopped early" in text, "plan: time", text)
    # 4 3 27 + 4 and 3 4 27 + 3
    check("network   655 parameters" in text, "plan: parameters", text)
    check("\n    11    0.01      4     1\n" in text, "plan: table", text)
    check("2 that differ in size" in text, "plan: kinds", text)
    memory = next(line for line in text.splitlines() if line.startswith("memory"))
    for batch, number in ((2, 0), (4, 1)):
        done = subprocess.run([FIELDNET, "check", "run.yaml", "--set", f"train.batch={batch}"],
                              capture_output=True, text=True)
        together = next(line for line in done.stdout.splitlines() if "together" in line).split()
        check(f"{together[1]} {together[2].rstrip(',')}" in memory, f"plan: memory as in check, batch {batch}",
              memory + done.stdout)
    check(not os.path.exists("trials"), "plan writes nothing")


def by_hand():
    first = ask("sweep.yaml")
    check(first["id"] == 0 and first["attempt"] == 1, "first trial", str(first))
    check(first["settings"] == {"optimizer.lr": 0.0001, "train.batch": 2, "seed": 0}, "its settings", str(first))
    check(first["folder"] == "trials/trial_0000" and 'folder="trials/trial_0000"' in first["set"]
          and "checkpoint.keep_last=1" in first["set"] and "checkpoint.best=validation" in first["set"],
          "its --set texts", str(first))
    for trial in (0, 1):
        number = first["id"] if trial == 0 else ask("sweep.yaml")["id"]
        check(number == trial, "trials in order")
        for epoch in (1, 2, 3):
            check(tell("sweep.yaml", number, "--value", str(trial + 1 / epoch), "--epoch", str(epoch)) == "go", "go")
        check(tell("sweep.yaml", number, "--state", "finished", "--seconds", "6") == "finished", "finished")
    # Running means until epoch 2 are 0.75 and 1.75, their median 1.25.
    third = ask("sweep.yaml")["id"]
    check(tell("sweep.yaml", third, "--value", "1.5", "--epoch", "1") == "go", "before min_epochs")
    check(tell("sweep.yaml", third, "--value", "1.4", "--epoch", "2") == "stop", "worse than the median")
    check(tell("sweep.yaml", third, "--value", "0", "--epoch", "3") == "stop", "said again")
    fourth = ask("sweep.yaml")["id"]
    check(tell("sweep.yaml", fourth, "--state", "failed", "--message", "no, \"it\" broke") == "waiting", "failed once")
    fifth = ask("sweep.yaml")["id"]
    check(fifth == 4, "what failed comes last", str(fifth))
    check(tell("sweep.yaml", fifth, "--value", "nan", "--epoch", "1") == "go", "no value")
    check(tell("sweep.yaml", fifth, "--state", "released") == "waiting", "released")
    again = ask("sweep.yaml")
    check(again["id"] == fifth and again["attempt"] == 2, "what was released comes first", str(again))
    check("is not running but finished" in tell("sweep.yaml", 0, "--state", "finished", code=2), "no end twice")
    check("there is no trial 12" in tell("sweep.yaml", 12, "--value", "1", code=2), "no such trial")
    check("number of a trial" in tell("sweep.yaml", "x", "--value", "1", code=2), "no number")
    both = tell("sweep.yaml", 4, "--value", "1", "--epoch", "1", "--state", "finished", code=2)
    check("not both" in both, "not both", both)
    over = tell("sweep.yaml", 4, "--state", "over", code=2)
    check("--state is finished, failed or released" in over, "unknown state", over)


def looking():
    text = sweep("status", "sweep.yaml")
    check("finished 2, stopped 1, failed 0, running 1, waiting 8" in text, "status: counts", text)
    check("best 0.333333 in epoch 3 of trial 0 (finished): optimizer.lr=0.0001 train.batch=2 seed=0" in text,
          "status: best", text)
    check("trial 4     attempt 2" in text and "outside" in text, "status: who works", text)
    text = sweep("best", "sweep.yaml")
    # The mean over both seeds of the first setting: 1/3 and 4/3, deviation 1/sqrt(2).
    check("1. mean 0.833333 +- 0.71 of 2 seeds, best 0.333333, trial 0:" in text, "best: mean over seeds", text)
    check("fieldnet test run.yaml --set checkpoint.keep_last=1" in text
          and "--set test.state=trials/trial_0000/best.h5" in text, "best: how to test", text)
    table = rows("sweep.yaml")
    check(len(table) == 12, "table: a row per trial")
    check([r["state"] for r in table[:5]] == ["finished", "finished", "stopped", "waiting", "running"], "table: states")
    check(table[1] == {"trial": "1", "setting": "0", "seed": "1", "state": "finished", "attempts": "1", "epochs": "3",
                       "best": "1.333333333", "best_epoch": "3", "seconds": "6", "optimizer.lr": "0.0001",
                       "train.batch": "2", "folder": "trials/trial_0001"}, "table: a row", str(table[1]))
    sweep("table", "sweep.yaml", "--output", "table.csv")
    with open("table.csv") as file:
        check(file.read() == sweep("table", "sweep.yaml"), "table into a file")
    check(sweep("plot", "sweep.yaml").strip() == "trials/sweep.png", "plot: its name")
    with open("trials/sweep.png", "rb") as file:
        head = file.read(24)
    width, height = struct.unpack(">II", head[16:])
    check(head[:8] == b"\x89PNG\r\n\x1a\n" and width > 1000 and height > 300, "plot: a picture", f"{width} x {height}")
    sweep("plot", "sweep.yaml", "--output", "sweep.svg")
    with open("sweep.svg") as file:
        check("<svg" in file.read(), "plot as SVG")
    text = sweep("plan", "sweep.yaml")
    check("2.00 s per epoch (mean of 2 finished trials)" in text, "plan: measured time", text)
    # Two trials of trials.jsonl's lines are torn off in the middle: all others are read.
    with open("trials/trials.jsonl", "ab") as file:
        file.write(b'{"event":"report","tri')
    check("1 torn or damaged line in trials.jsonl ignored" in sweep("status", "sweep.yaml"), "status: torn line")


def outside_values():
    check("need 'method: ask'" in sweep("ask", "sweep.yaml", "--set", "optimizer.lr=1", code=2), "planned trials only")
    check(ask("ask.yaml") == {"id": None, "state": "done"}, "nothing was registered yet")
    one = ask("ask.yaml", "--json", '{"optimizer.name": "sgd", "optimizer.lr": 1e-3, "optimizer.momentum": 0.5}')
    check(one["id"] == 0 and one["settings"] ==
          {"optimizer.name": "sgd", "optimizer.lr": 0.001, "optimizer.momentum": 0.5}, "values of JSON", str(one))
    two = ask("ask.yaml", "--queue", "--set", "optimizer.name=adam", "--set", "optimizer.lr=0.002")
    check(two["id"] == 1 and two["attempt"] == 0, "registered only", str(two))
    check([r["state"] for r in rows("ask.yaml")] == ["running", "waiting"], "one is given, one waits")
    text = sweep("ask", "ask.yaml", "--set", "optimizer.name=sgd", "--set", "optimizer.lr=1", code=2)
    check("a value for 'optimizer.momentum' is missing" in text, "a value is missing", text)
    values = '{"optimizer.l": 1, "optimizer.lr": 1, "optimizer.name": "adam"}'
    check("did you mean 'optimizer.lr'?" in sweep("ask", "ask.yaml", "--json", values, code=2), "a name")
    check("no trial has a result yet" in sweep("best", "ask.yaml", code=3), "no result yet")
    check(tell("ask.yaml", 0, "--value", "0.25") == "finished", "one value is a result")
    check("1. 0.25, trial 0 (finished): optimizer.name=sgd" in sweep("best", "ask.yaml"), "the result")
    # What waits can be given, or trained by sweep run.
    check(ask("ask.yaml", "--lease", "0.1")["id"] == 1, "what waits is given")
    time.sleep(0.2)
    again = ask("ask.yaml")
    check(again["id"] == 1 and again["attempt"] == 2, "and again after its lease", str(again))
    check(ask("ask.yaml") == {"id": None, "state": "busy"}, "now for ever")


def far_away():
    """Results decades away leave the good ones apart on the paper; the best is a finished one, in the picture too."""
    write_text("far.yaml", ASK.replace("asked", "far").split("    optimizer.momentum")[0])
    for value in (*range(1, 9), 1e30):
        ask("far.yaml", "--json", '{"optimizer.name": "adam", "optimizer.lr": 1e-3}')
        tell("far.yaml", int(value) - 1 if value < 9 else 8, "--value", str(value))
    lost = ask("far.yaml", "--json", '{"optimizer.name": "adam", "optimizer.lr": 1e-3}')["id"]
    tell("far.yaml", lost, "--value", "0.5", "--epoch", "1")
    check("best 1 of trial 0 (finished):" in sweep("status", "far.yaml"), "status: the best of those that are finished")
    sweep("plot", "far.yaml", "--output", "far.svg")
    with open("far.svg") as file:
        text = file.read()
    # Dots are circles of four arcs, in the colour of finished trials, and in that of the best.
    dots = [(float(x), float(y)) for x, y in re.findall(
        r'<path[^>]*rgb\(0%, ?44.7\d*%, ?69.8\d*%\)[^>]* d="M ([0-9.]+) ([0-9.]+) C', text)]
    heights = sorted({round(y) for x, y in dots if x > 420 and y > 30})
    check(len(heights) == 8 and heights[-1] - heights[1] > 50, "plot: good results apart", str(heights))
    check(re.search(r'<path[^>]*rgb\(83.5\d*%, ?36.9\d*%, ?0%\)[^>]* d="M [0-9.]+ [0-9.]+ C', text), "plot: the best")


def mistakes():
    for name in ("sweep.parameters", "sweep.stop"):
        done = subprocess.run([FIELDNET, "help", name], capture_output=True, text=True)
        check(done.returncode == 2 and "fieldnet sweep --help" in done.stderr, f"help {name}", done.stderr)
    write_text("bad.yaml", SWEEP.replace("optimizer.lr:", "optimizer.rl:").replace("rule: median", "rule: mean"))
    text = sweep("plan", "bad.yaml", code=2)
    check("bad.yaml:7:5: unknown key 'optimizer.rl', did you mean 'optimizer.lr'?" in text, "a key", text)
    check("bad.yaml:9:16: rule: expected none, median or asha" in text, "a rule, in the same pass", text)
    check("did you mean plan" in sweep("plam", "sweep.yaml", code=2), "an action")
    check("cannot read the sweep: cannot open gone.yaml: No such file" in sweep("status", "gone.yaml", code=2), "a file")
    write_text("other.yaml", SWEEP.replace("1.e-2", "1.e-3"))
    check("give the changed sweep another folder" in sweep("status", "other.yaml", code=2), "another sweep's folder")
    # A run file that holds its sweep trains as if it did not.
    write_text("both.yaml", RUN + "sweep:\n  parameters: {optimizer.lr: [1, 2]}\n")
    check("2: 2 settings" in sweep("plan", "both.yaml"), "a section of the run file")
    done = subprocess.run([FIELDNET, "check", "both.yaml"], capture_output=True, text=True)
    check(done.returncode == 0, "which is a run file still", done.stderr)


with folder():
    for i in range(2):
        write_npy(f"in_{i}.npy", (3, 8, 8, 8), noise(i, 3 * 512))
        write_npy(f"out_{i}.npy", (3, 8, 8, 8), noise(9 + i, 3 * 512))
    write_text("run.yaml", RUN)
    write_text("sweep.yaml", SWEEP)
    write_text("ask.yaml", ASK)
    plan()
    by_hand()
    looking()
    outside_values()
    far_away()
    mistakes()
    finish()
