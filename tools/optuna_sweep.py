#!/usr/bin/env python3
"""Let Optuna choose the trials of a sweep with `method: ask`.

    tools/optuna_sweep.py SWEEP.yaml --trials 40
    tools/optuna_sweep.py SWEEP.yaml --trials 40 --launch "mpirun -n 4" --sampler tpe
    tools/optuna_sweep.py SWEEP.yaml --trials 40 --workers 8 --launch "srun --exclusive -n 4"

Ranges, metric and direction are those of the sweep file. Each trial is registered with `fieldnet
sweep ask`, trained with `fieldnet train` in its own folder, and its epochs are told to the sweep
(and its stopping rule) and to Optuna as they come. Results stay in the sweep's store: a later call
reads them and goes on, `fieldnet sweep best|table|plot SWEEP.yaml` show them.

Needs optuna and PyYAML.
"""
import argparse
import concurrent.futures
import csv
import io
import json
import math
import os
import shlex
import subprocess
import sys
import threading
import time

try:
    import optuna
    import yaml
except ImportError as error:
    sys.exit(f"{error.name} is not installed: pip install optuna pyyaml")

RESUMABLE = 75  # exit code of a training that was stopped with its state saved
HALTED = 76  # so by a halt file
AGAIN = (1, 5, 9)  # of failures that another start may mend; below 0: killed
KEYS = {"train": "train_loss", "validation": "validation_loss", "accuracy": "validation_accuracy",
        "auc": "validation_auc", "f1": "validation_f1"}


class Sweep:
    """The sweep file as far as an optimizer needs it; fieldnet checks it."""

    def __init__(self, program, path):
        self.program, self.path = program, path
        with open(path) as file:
            section = yaml.safe_load(file)["sweep"]
        if section.get("method") != "ask":
            sys.exit(f"{path}: trials chosen outside need sweep.method: ask")
        self.parameters = section["parameters"]
        self.metric = section.get("metric", "validation")
        up = self.metric not in ("train", "validation")
        self.direction = section.get("direction", "maximize" if up else "minimize")

    def call(self, action, *arguments):
        done = subprocess.run([self.program, "sweep", action, self.path, *arguments],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip() or f"fieldnet sweep {action} failed")
        return done.stdout

    def tell(self, trial, *arguments):
        return self.call("tell", str(trial), *arguments).strip()


def choices_of(value):
    if isinstance(value, list):
        return value
    return value.get("choices") if isinstance(value, dict) else None


def distribution(value):
    """The range of one parameter in Optuna's words. Choices are texts: lists have no hash."""
    choices = choices_of(value)
    if choices is not None:
        return optuna.distributions.CategoricalDistribution([json.dumps(c) for c in choices])
    for kind in ("uniform", "log", "integer", "log_integer"):
        if kind in value:
            low, high = (float(v) for v in value[kind])
            log = kind.startswith("log")
            if "integer" in kind:
                return optuna.distributions.IntDistribution(int(low), int(high), log=log)
            return optuna.distributions.FloatDistribution(low, high, log=log)
    sys.exit(f"no range in {value}")


def exists(value, chosen):
    """Whether a parameter exists, given those above it."""
    when = value.get("when") if isinstance(value, dict) else None
    for path, wanted in (when or {}).items():
        wanted = wanted if isinstance(wanted, list) else [wanted]
        if path not in chosen or chosen[path] not in wanted:
            return False
    return True


def suggest(sweep, trial):
    chosen = {}
    for path, value in sweep.parameters.items():
        if not exists(value, chosen):
            continue
        d = distribution(value)
        if isinstance(d, optuna.distributions.CategoricalDistribution):
            chosen[path] = json.loads(trial.suggest_categorical(path, d.choices))
        elif isinstance(d, optuna.distributions.IntDistribution):
            chosen[path] = trial.suggest_int(path, d.low, d.high, log=d.log)
        else:
            chosen[path] = trial.suggest_float(path, d.low, d.high, log=d.log)
    return chosen


def remember(sweep, study):
    """Tell the study what the store knows from earlier calls."""
    for row in csv.DictReader(io.StringIO(sweep.call("table"))):
        if row["state"] not in ("finished", "stopped") or not row["best"]:
            continue
        params, distributions = {}, {}
        for path, value in sweep.parameters.items():
            if row[path] == "":
                continue
            d = distribution(value)
            known = yaml.safe_load(row[path])
            if isinstance(d, optuna.distributions.CategoricalDistribution):
                known = json.dumps(known)
            params[path] = d.to_external_repr(d.to_internal_repr(known))
            distributions[path] = d
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions,
                                                  value=float(row["best"])))


class Epochs:
    """Lines that a training appends to metrics.jsonl, whole ones only."""

    def __init__(self, folder, key):
        self.path, self.key, self.offset = os.path.join(folder, "metrics.jsonl"), key, 0

    def new(self):
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return
        end = data.rfind(b"\n") + 1
        self.offset += end
        for line in data[:end].splitlines():
            event = json.loads(line)
            if event.get("event") == "epoch":
                value = event.get(self.key)
                yield event["epoch"], math.nan if value is None else float(value)


class Stopped(Exception):
    """The rule of the sweep ends the trial."""


def follow(sweep, asked, process, epochs, trial):
    """Tell epochs until the training ends; its exit code."""
    told = None
    while True:
        code = process.poll()
        for epoch, value in epochs.new():
            told = sweep.tell(asked["id"], "--value", repr(value), "--epoch", str(epoch))
            if math.isfinite(value):
                trial.report(value, epoch)
            if told != "go":
                # A file of this name asks all ranks to save and leave.
                halt = os.path.join(asked["folder"], "halt")
                open(halt, "w").close()
                process.wait()
                os.remove(halt)
                raise Stopped(told)
        if code is not None:
            return code
        time.sleep(0.2)


def train(sweep, options, asked, trial):
    command = shlex.split(options.launch) + [sweep.program, "train", asked["run"]]
    for text in asked["set"]:
        command += ["--set", text]
    command += ["--set", "run.halt_file=halt"]
    os.makedirs(asked["folder"], exist_ok=True)
    begin = time.monotonic()
    epochs = Epochs(asked["folder"], KEYS[sweep.metric])
    with open(os.path.join(asked["folder"], "trial.log"), "ab") as log:
        code, failures = RESUMABLE, 0
        while code == RESUMABLE or ((code in AGAIN or code < 0) and failures < options.attempts):
            process = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                code = follow(sweep, asked, process, epochs, trial)
            finally:
                if process.poll() is None:
                    process.terminate()
            failures += code != RESUMABLE
            if code == 0:
                sweep.tell(asked["id"], "--state", "finished", "--seconds",
                           f"{time.monotonic() - begin:.3f}")
                return
    if code == HALTED:
        sweep.tell(asked["id"], "--state", "released")
        raise RuntimeError("halted, and given back to the sweep")
    sweep.tell(asked["id"], "--state", "failed", "--message", f"exit code {code}")
    raise RuntimeError(f"trial {asked['id']} failed with exit code {code}")


def result_of(sweep, number):
    for row in csv.DictReader(io.StringIO(sweep.call("table"))):
        if int(row["trial"]) == number:
            return float(row["best"]) if row["best"] else math.nan
    return math.nan


def work(sweep, options, study, lock):
    with lock:  # one study, several threads
        trial = study.ask()
        chosen = suggest(sweep, trial)
    asked = json.loads(sweep.call("ask", "--json", json.dumps(chosen)))
    try:
        train(sweep, options, asked, trial)
        end = "finished"
    except Stopped as stop:
        end = "stopped early" if str(stop) == "stop" else "lost"
    except RuntimeError as error:
        with lock:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        print(f"trial {asked['id']}: {error}", flush=True)
        return
    value = result_of(sweep, asked["id"])
    with lock:
        if math.isfinite(value):
            study.tell(trial, value)
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    print(f"trial {asked['id']} {end}: {sweep.metric} {value:.6g}, {chosen}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", help="sweep file with method: ask")
    parser.add_argument("--trials", type=int, default=20, help="trials of this call (20)")
    parser.add_argument("--workers", type=int, default=1, help="trials side by side (1)")
    parser.add_argument("--launch", default="", help='what starts a training, e.g. "mpirun -n 4"')
    parser.add_argument("--attempts", type=int, default=3, help="failures of a training after which to give up (3)")
    parser.add_argument("--sampler", choices=("tpe", "random", "cmaes"), default="tpe")
    parser.add_argument("--seed", type=int, help="of the sampler")
    parser.add_argument("--fieldnet", default=os.environ.get("FIELDNET", "fieldnet"))
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sweep = Sweep(options.fieldnet, options.sweep)
    sampler = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler,
               "cmaes": optuna.samplers.CmaEsSampler}[options.sampler](seed=options.seed)
    study = optuna.create_study(direction=sweep.direction, sampler=sampler)
    remember(sweep, study)
    lock = threading.Lock()
    with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
        for future in [pool.submit(work, sweep, options, study, lock)
                       for _ in range(options.trials)]:
            future.result()
    print(sweep.call("best"), end="")


if __name__ == "__main__":
    main()
