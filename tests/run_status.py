"""fieldnet status: every state that a run can be in, seen from its folder while it runs and after."""
import json
import os
import shutil
import signal
import subprocess
import time

from program import FIELDNET, LIMIT, check, command, finish, folder, run, small_run, snapshot, succeed, write_text

RUN = small_run("plots: false, tensorboard: false, status_interval: 0.1")
STEPS = 8  # 2 files of 8 crops, two at a time


def train(into, *settings):
    words = ["train", "run.yaml", "--set", f"folder={into}"]
    for setting in settings:
        words += ["--set", setting]
    return words


def status(*words, code=0):
    done = run(1, "status", *words, "--json")
    check(done.code == code, f"status {' '.join(words)}: exit code {done.code}, not {code}", done.output)
    return [json.loads(line) for line in done.output.splitlines()]


def table(*words):
    return run(1, "status", *words).output


def last_row(into):
    with open(f"{into}/metrics.csv") as file:
        names, *rows = [line.strip().split(",") for line in file]
    return dict(zip(names, rows[-1]))


def check_damage():
    """Of files as a lost machine leaves them, the table tells what it can, and of the other runs everything."""
    noise = os.urandom(3000)
    damages = {"status.json": [b"", b'{"state": "running", "ho', noise, b"[1, 2]", b'{"state": 5, "epochs": 1e300, "step": "x"}'],
               "metrics.csv": [b"", noise, bytes(3000), b"epoch,step\n\0\0\0\n1,8\n", b"\n\n\n5\n"],
               "metrics.jsonl": [b"", noise, bytes(3000)], "steps.csv": [noise, bytes(3000)], "resolved.yaml": [b"", noise]}
    for name, contents in damages.items():
        for content in contents:
            shutil.copytree("whole", "hurt", symlinks=True)
            with open(f"hurt/{name}", "wb") as file:
                file.write(content)
            what = f"{name} of {len(content)} bytes ({content[:20]!r})"
            done = run(1, "status", "hurt", "whole", "--json")
            check(done.code in (0, 3), f"{what}: exit code {done.code}", done.output)
            seen = [json.loads(line) for line in done.output.splitlines()]
            check([s["run"] for s in seen] == ["hurt", "whole"] and seen[1]["state"] == "finished", what, done.output)
            check(seen[0]["state"] in ("finished", "stopped") and (done.code == 0 or name in seen[0]["note"]), what, done.output)
            done = run(1, "report", "hurt", "whole", "-o", "hurt.html")
            check(done.code == 0, f"report, {what}: exit code {done.code}", done.output)
            shutil.rmtree("hurt")
    os.remove("hurt.html")


def check_ends():
    os.mkdir("empty")
    seen = status("empty")[0]
    check(seen["state"] == "never started" and seen["step"] is None, "an empty folder", str(seen))
    for words, message in ((["nowhere"], "nowhere does not exist"), (["run.yaml"], "run.yaml is not a folder"),
                           ([], "missing arguments"), (["empty", "--watch", "0"], "--watch")):
        done = run(1, "status", *words)
        check(done.code == 2 and message in done.output, f"status {words}: refused", done.output)

    succeed(2, *train("whole"))
    before = snapshot("whole")
    seen, row = status("whole")[0], last_row("whole")
    check(seen["state"] == "finished" and seen["exit_code"] == 0 and seen["ranks"] == 2, "a finished run", str(seen))
    check((seen["epochs_done"], seen["epochs"], seen["step"], seen["epoch_steps"]) == (3, 3, 3 * STEPS // 2, STEPS // 2),
          "counts of a finished run", str(seen))
    check(seen["validation_loss"] == float(row["validation_loss"]) and seen["train_loss"] == float(row["train_loss"]) and
          seen["best_epoch"] in (1, 2, 3) and seen["best_loss"] <= seen["validation_loss"], "losses", f"{seen} {row}")
    check(abs(seen["saved"] - os.stat("whole/checkpoint.h5").st_mtime) < 0.01 and 0 <= seen["since_saved"] < 60,
          "the age of the state", str(seen))
    check(seen["host"] == os.uname().nodename and seen["started"] < seen["updated"] <= time.time() + 1, "where and when")
    check(snapshot("whole") == before, "looking left traces")
    check_damage()
    os.remove("whole/status.json")
    check(status("whole")[0]["state"] == "finished", "a finished run of an older version")

    check(run(1, *train("cut", "train.stop_after_steps=11")).code == 75, "stopped")
    seen = status("cut")[0]
    check((seen["state"], seen["exit_code"], seen["epochs_done"], seen["epoch_step"]) == ("stopped", 75, 1, 3),
          "a stopped run", str(seen))
    check("1.3/3" in table("cut") and "11/24" in table("cut") and "stopped" in table("cut"), "its line", table("cut"))
    # A start that is refused is none of this run's history.
    check(run(1, *train("cut", "model.layers=[{conv: {channels: out, kernel: 3}}]")).code == 2, "another network")
    check(status("cut")[0]["state"] == "stopped", "a refused start changed the state")

    check(run(1, *train("bad", "optimizer.name=sgd", "optimizer.lr=1e30")).code == 4, "diverges")
    seen = status("bad", code=9)[0]
    check(seen["state"] == "failed" and seen["exit_code"] == 4 and "not finite" in seen["message"], "a failed run", str(seen))
    check("exit code 4: step" in table("bad"), "the line of a failed run", table("bad"))
    status("whole", "bad", code=9)


def start(*words):
    return subprocess.Popen(command(1, *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(into, condition, what):
    seen, until = None, time.monotonic() + LIMIT
    while time.monotonic() < until:
        time.sleep(0.1)
        if os.path.isdir(into):
            seen = json.loads(run(1, "status", into, "--json").output)
            if condition(seen):
                return seen
    return check(False, what, str(seen)) or seen


def freeze(pid):
    """Stop a process, and wait until none of its threads is on its way any more, writing a file perhaps."""
    os.kill(pid, signal.SIGSTOP)
    moving = True
    while moving:
        time.sleep(0.01)
        moving = False
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat") as file:
                moving = moving or file.read().rpartition(")")[2].split()[0] != "T"


def check_while_running():
    process = start(*train("live", "train.epochs=100000", "train.log_interval=5"))
    try:
        first = wait_for("live", lambda s: s["state"] == "running" and s["epochs_done"] and s["eta"], "it never ran")
        check(first["pid"] == process.pid and first["exit_code"] is None and first["eta"] > 0 and
              first["samples_per_second"] > 0 and first["validation_loss"] is not None, "a running run", str(first))
        later = wait_for("live", lambda s: s["step"] > first["step"], "no progress was seen")
        check(later["updated"] > first["updated"] and later["started"] == first["started"], "it gets on", str(later))
        for _ in range(300):  # replaced whole: never half a file
            with open("live/status.json") as file:
                json.load(file)
        check(run(1, *train("live")).code == 2, "a second run in the folder was not refused")
        check(status("live")[0]["pid"] == process.pid, "the second run wrote over the first one's status")

        # On another machine the lock may not show: then only silence tells.
        with open("live/status.json") as file:
            told = json.load(file)
        for silent, machine, expected in ((0, "other", "running"), (40, "other", "running"), (100, "other", "dead"),
                                          (0, told["machine"], "dead")):
            for wrong in (0, -3600, 3600):  # seconds that the clock of the other machine is ahead
                os.makedirs("far", exist_ok=True)
                last = time.time() - silent
                write_text("far/status.json", json.dumps(dict(told, machine=machine, updated=last + wrong, stepped=last + wrong)))
                os.utime("far/status.json", (last, last))
                seen = status("far", code=9 if expected == "dead" else 0)[0]
                check(seen["state"] == expected and not seen["note"], f"silent for {silent} s on {machine}, clock {wrong} s ahead",
                      table("far"))

        freeze(process.pid)  # still there, and holds its lock
        with open("live/status.json") as file:
            told = json.load(file)
        last = time.time() - 500
        write_text("live/status.json", json.dumps(dict(told, updated=last)))
        os.utime("live/status.json", (last, last))
        seen = status("live")[0]
        check(seen["state"] == "running" and "no sign of life for 8 min" in str(seen["note"]), "a stopped process", str(seen))
        write_text("live/status.json", json.dumps(dict(told, updated=time.time(), stepped=time.time() - 700,
                                                       started=time.time() - 900)))
        check("no step for 11 min" in table("live"), "a run that hangs", table("live"))
    finally:
        process.kill()
        process.wait()
    check(status("live", code=9)[0]["state"] == "dead", "a killed run")
    with open("live/metrics.csv") as file:
        done = len(file.readlines()) - 1
    done = run(1, *train("live", f"train.epochs={done + 1}"))
    check(done.code == 0 and status("live")[0]["state"] == "finished", "the next start", done.output)


def check_lost_rank():
    """The job that the watchdog ends cannot say how it ended, but its last words are kept."""
    process = subprocess.Popen(command(2, *train("lost", "train.epochs=100000", "run.hang_timeout=8")),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = wait_for("lost", lambda s: s["state"] == "running" and s["epochs_done"], "it never ran")
    ranks = [int(word) for word in subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()]
    other = [pid for pid in ranks if pid != first["pid"]]
    if not check(len(ranks) == 2 and len(other) == 1, "the ranks' processes", f"{ranks} {first['pid']}"):
        process.kill()
        return
    os.kill(other[0], signal.SIGSTOP)
    try:
        process.wait(LIMIT)
    finally:
        os.kill(other[0], signal.SIGKILL)
        process.kill()
    seen = status("lost", code=9)[0]
    check(seen["state"] == "dead" and "rank 1" in seen["message"] and "hang_timeout" in seen["message"], "a lost rank", str(seen))
    check("hang_timeout" in table("lost"), "its line", table("lost"))


def check_warnings():
    check(run(1, *train("warned", "optimizer.name=sgd", "optimizer.lr=1e30", "train.on_nan=skip")).code == 0, "skips steps")
    seen = status("warned")[0]
    with open("warned/metrics.jsonl") as file:
        events = [json.loads(line) for line in file]
    texts = [event["text"] for event in events if event["event"] == "warning"]
    check(seen["state"] == "finished" and seen["warnings"] == len(texts) and texts[-1] == seen["message"] and
          sum("step skipped" in text for text in texts) == 3 * STEPS - 1,  # the first step is still good
          "warnings are counted and kept", f"{seen} {texts}")
    succeed(1, "report", "warned")
    with open("warned/report.html") as file:
        page = file.read()
    check(f"Warnings ({len(texts)})" in page and page.count("step skipped") == 3 * STEPS - 1, "warnings in the report")


def check_many():
    for name in ("trial_10", "trial_2", "notes"):
        os.makedirs(f"sweep/trials/{name}")
    for name in ("trial_10", "trial_2"):
        shutil.copy("cut/status.json", f"sweep/trials/{name}")
    seen = [s["run"] for s in status("sweep/", "empty")]
    check(seen == ["sweep/trials/trial_2", "sweep/trials/trial_10", "empty"], "a sweep stands for its trials", str(seen))
    lines = table("sweep").splitlines()
    check(len(lines) == 3 and lines[0].split()[:2] == ["run", "state"] and "\033" not in lines[1], "its table", str(lines))
    write_text("sweep/trials/trial_2/status.json", "{\"state\": \"runn")
    done = run(1, "status", "sweep")
    check(done.code == 3 and "trial_2/status.json" in done.output, "a damaged file", done.output)


def check_watch():
    process = start(*train("seen", "train.epochs=400"))
    wait_for("seen", lambda s: s["state"] == "running" and s["step"], "it never ran")
    process.send_signal(signal.SIGSTOP)  # not to be over before somebody looks
    watch = subprocess.Popen([FIELDNET, "status", "seen", "--watch", "0.2", "--json"], stdout=subprocess.PIPE, text=True)
    first = watch.stdout.readline()
    process.send_signal(signal.SIGCONT)
    output = first + watch.communicate(timeout=LIMIT)[0]
    code = process.wait()
    seen = [json.loads(line) for line in output.splitlines()]
    steps = [s["step"] for s in seen]
    check(code == 0 and watch.returncode == 0 and len(seen) > 1 and seen[0]["state"] == "running" and
          seen[-1]["state"] == "finished" and steps == sorted(steps) and steps[0] < steps[-1] == 400 * STEPS,
          "watched to its end", f"{code} {watch.returncode} {steps}")


with folder():
    write_text("run.yaml", RUN)
    succeed(1, "data", "synth", "displacement", "--folder", "data", "--files", "2", "--edge", "16", "--box", "50")
    for part in (check_ends, check_while_running, check_lost_rank, check_warnings, check_many, check_watch):
        part()
finish()
