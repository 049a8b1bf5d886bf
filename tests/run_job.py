"""fieldnet job without a scheduler: the script as bash and sbatch would take it, with sbatch, srun, squeue and scontrol that only
note what they were asked. tests/run_slurm.sh runs the same on a cluster."""
import os
import shlex
import subprocess

from program import FIELDNET, check, finish, folder, run, succeed, write_text

RUN = """
folder: my runs/50% of it's
model: {layers: [{conv: {channels: out, kernel: 1}}]}
data:
  train: {input: 'in/*.npy', target: 'out/*.npy'}
optimizer: {lr: 1e-3}
"""
FOLDER = "my runs/50% of it's"
HALTED, RESUMABLE = 76, 75
STUBS = {
    "sbatch": 'echo "$@" >>"$NOTES/sbatch"; echo "$(wc -l <"$NOTES/sbatch");cluster"',
    "srun": 'printf "%s\\n" "$@" >"$NOTES/srun"; echo "$FIELDNET_JOB_END" >"$NOTES/end"; exit "$(cat "$NOTES/code")"',
    "squeue": 'cat "$NOTES/squeue"',
    "scontrol": 'echo "$@" >>"$NOTES/scontrol"',
}


def note(name):
    path = f"notes/{name}"
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return file.read().splitlines()


def make_stubs():
    os.mkdir("bin")
    os.mkdir("notes")
    for name, body in STUBS.items():
        write_text(f"bin/{name}", f"#!/bin/bash\n{body}\n")
        os.chmod(f"bin/{name}", 0o755)
    os.environ["NOTES"] = os.path.abspath("notes")
    write_text("notes/squeue", "2031-05-06T07:08:09\n")
    write_text("notes/code", "0\n")


def script(*options):
    done = run(1, "job", "run.yaml", *options, "--output", "job.sh")
    check(done.code == 0, f"job {options}: exit code {done.code}", done.output)
    with open("job.sh") as file:
        return file.read()


def directives(text):
    """{option: value} of the lines that sbatch reads, which end at the first command."""
    found = {}
    for line in text.splitlines()[1:]:
        if line and not line.startswith("#"):
            break
        if line.startswith("#SBATCH "):
            words = shlex.split(line[len("#SBATCH "):])
            check(len(words) == 1, "a directive of several words", line)
            name, _, value = words[0].partition("=")
            found[name.lstrip("-")] = value
    return found


def start(code, **environment):
    """The script as a job; its exit code and what scontrol was asked."""
    write_text("notes/code", f"{code}\n")
    if os.path.exists("notes/scontrol"):
        os.remove("notes/scontrol")
    path = os.path.abspath("bin") + os.pathsep + os.environ["PATH"]
    job = subprocess.run(["bash", "job.sh"], env={**os.environ, "PATH": path, "SLURM_JOB_ID": "7", **environment},
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check(job.returncode == code, f"exit code {job.returncode} of a script whose run ended with {code}", job.stdout)
    return note("scontrol")


def check_words():
    odd = ["a b", "it's", "$HOME", '"x"', "back\\slash", "*", ";exit 9", "`date`", "é"]
    quoted = [text.replace("'", "''") for text in odd]
    sets = [word for text in quoted for word in ("--set", f"data.train.target='{text}'")]
    text = script("--name", 'two "words"', "--nodes", "3", "--gpus-per-node", "4", "--cpus-per-rank", "8", "--time", "1-02:00",
                  "--mem", "64G", "--account", "a b", *sets)
    found = directives(text)
    check(found["job-name"] == 'two "words"' and found["account"] == "a b", "words in directives", str(found))
    check(found["chdir"] == os.getcwd() and found["output"] == f"{os.getcwd()}/{FOLDER}".replace("%", "%%") + "/slurm-%j.out",
          "folders in directives", str(found))
    check((found["nodes"], found["ntasks-per-node"], found["gpus-per-node"], found["cpus-per-task"], found["mem"], found["time"]) ==
          ("3", "4", "4", "8", "64G", "1-02:00"), "numbers", str(found))
    start(0)
    given = note("srun")
    check("--mpi=pmix" in given and "--kill-on-bad-exit=1" in given and "--cpus-per-task=8" in given, "srun", str(given))
    first = given.index(os.path.realpath(FIELDNET))
    check(given[first + 1:] == ["train", "run.yaml", *sets], "what the ranks are given", str(given))
    check(note("end") == [subprocess.run(["date", "-d", "2031-05-06T07:08:09", "+%s"], stdout=subprocess.PIPE,
                                         text=True).stdout.strip()], "the end of the job", str(note("end")))
    write_text("notes/squeue", "NONE\n")
    start(0)
    check(note("end") == [""], "a job without an end", str(note("end")))


def check_codes():
    script("--retries", "2")
    failures = f"{FOLDER}/job-failures"
    check(start(RESUMABLE) == ["requeue 7"], "a stopped run is put back")
    for code in (0, 2, 3, 4, 8, HALTED):
        check(start(code) == [], f"exit code {code} ends the job")
    for attempt, code in enumerate((1, 9, 137)):
        check(start(code) == (["requeue 7"] if attempt < 2 else []), f"crash {attempt + 1}")
    check(not os.path.exists(failures), "a new submission counts anew")
    check(start(1) == ["requeue 7"], "a crash after that")
    check(start(RESUMABLE) == ["requeue 7"] and not os.path.exists(failures), "progress ends the count of crashes")
    check(start(1) == ["requeue 7"] and start(HALTED) == [] and not os.path.exists(failures), "so does a halt file")


def check_times():
    for time, warning in (("12:00:00", 300), ("10", 120), ("00:04:00", 48), ("2-0", 300), ("1", 12), ("UNLIMITED", 300)):
        found = directives(script("--time", time))
        check(found["signal"] == f"USR1@{warning}", f"the signal with --time {time}", str(found))
    check(directives(script("--time", "1", "--warning", "45"))["signal"] == "USR1@45", "a signal of one's own")
    check(directives(script())["signal"] == "USR1@300", "no time")
    for words, message in ((["--time", "5", "--warning", "300"], "when the job starts"), (["--time", "soon"], "--time: expected"),
                           (["--time", "1:2:3:4"], "--time: expected"), (["--name", "a\nb"], "line break"),
                           (["--launcher", "mpiexec"], "srun or mpirun"), (["--command", "tain"], "train, test or predict"),
                           (["--site", "nowhere"], "nowhere"), (["--nodes", "0"], "--nodes"), (["--chain", "0"], "--chain")):
        done = run(1, "job", "run.yaml", *words, "--output", "wrong.sh")
        check(done.code == 2 and message in done.output and not os.path.exists("wrong.sh"), f"job {words}: refused", done.output)


def check_submission():
    os.environ["PATH"] = os.path.abspath("bin") + os.pathsep + os.environ["PATH"]
    write_text("site", "#SBATCH --constraint=big\nmodule load mpi\n")
    out = succeed(1, "job", "run.yaml", "--chain", "3", "--site", "site", "--submit")
    name = f"{FOLDER}/job.sbatch"
    check(note("sbatch") == [f"--parsable {name}", f"--parsable --dependency=afterany:1 {name}", f"--parsable --dependency=afterany:2 {name}"],
          "a chain", str(note("sbatch")))
    check("submitted job 3 after 2" in out, "what it tells", out)
    with open(name) as file:
        text = file.read()
    found = directives(text)
    check(found["constraint"] == "big" and "no-requeue" in found and "scontrol requeue" not in text and "\nmodule load mpi\n" in text,
          "site file and chain", text)
    write_text("bin/sbatch", "#!/bin/bash\necho 'no such partition' >&2\nexit 1\n")
    done = run(1, "job", "run.yaml", "--submit")
    check(done.code == 2 and "no such partition" in done.output and "sbatch refused" in done.output, "a refusal", done.output)
    os.environ["PATH"] = os.path.dirname(subprocess.run(["which", "bash"], stdout=subprocess.PIPE, text=True).stdout) + "/nowhere"
    done = run(1, "job", "run.yaml", "--submit")
    check(done.code == 8 and "sbatch cannot be started" in done.output, "no SLURM here", done.output)


with folder():
    write_text("run.yaml", RUN)
    make_stubs()
    check_words()
    check_codes()
    check_times()
    check_submission()
finish()
