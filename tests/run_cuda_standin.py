"""The cuda backend on stand-ins for NVIDIA's libraries (tests/standin): what it does on the processor.

Operators, golden vectors, training as on the processor, the same bits after a restart, engines that fail, timing and its file, and every
error that a node can have: one message with the remedy, and the exit status of its kind.
"""
import glob
import gzip
import json
import os
import re
import subprocess
import sys

BUILD = os.environ["BUILD_DIR"]
if not os.path.exists(f"{BUILD}/standin/standin_main"):
    print("skipped: this build has no cuda backend")
    sys.exit(77)
os.environ["FIELDNET"] = f"{BUILD}/standin/standin_main"
os.environ["LD_LIBRARY_PATH"] = f"{BUILD}/standin"
from program import check, finish, folder, noise, run, write_datasets, write_npy, write_text  # noqa: E402 (reads FIELDNET)

RUN = """
seed: 7
folder: run
data:
  train: {input: 'in/*.npy', target: 'out/*.npy'}
  crop: 8
  input_pad: 2
model:
  layers:
    - conv: {channels: 4, kernel: 3}
    - batch_norm
    - leaky_relu: 0.1
    - dropout: 0.3
    - conv: {channels: out, kernel: 3}
train: {epochs: 2, batch: 2, log_interval: 1}
optimizer: {name: adam, lr: 1.e-3}
compute: {threads: 1, backend: cuda}
report: {plots: false, tensorboard: false}
"""


# A classifier whose dense layers have every activation.
DENSE = """
seed: 7
data:
  kind: cubes
  cubes: {file: cubes.h5, train_seeds: 0-1, slices_per_cube: 12}
model:
  layers:
    - linear: {channels: 6}
    - relu
    - linear: {channels: 5}
    - leaky_relu: 0.1
    - linear: {channels: 4}
    - tanh
    - linear: {channels: 3, bias: false}
    - relu
    - linear: {channels: out}
loss: {name: bce_with_logits}
train: {epochs: 2, batch: 8, log_interval: 1}
optimizer: {name: adam, lr: 1.e-3}
compute: {threads: 1, backend: cuda}
report: {plots: false, tensorboard: false}
"""


def train(into, code=0, ranks=1, environment=None, config="run.yaml", **values):
    words = [w for key, value in values.items() for w in ("--set", f"{key.replace('__', '.')}={value}")]
    added = dict(environment or {}, FIELDNET_CACHE=os.path.abspath(f"cache_{into}"))
    os.environ.update(added)
    done = run(ranks, "train", config, "--set", f"folder={into}", *words)
    for name in added:
        del os.environ[name]
    check(done.code == code, f"{into}: exit code {done.code}, expected {code}", done.output)
    return done


def steps(into):
    with open(f"{into}/metrics.jsonl") as file:
        return [e for e in map(json.loads, file) if e["event"] == "step"]


def same_steps(a, b, loss, norm, expected=24):
    one, two = steps(a), steps(b)
    check(len(one) == len(two) == expected, f"{a} and {b}: {len(one)} and {len(two)} steps")
    for x, y in zip(one, two):
        for name, part in ("loss", loss), ("gradient_norm", norm):
            if not check(abs(x[name] - y[name]) <= part * abs(x[name]),
                         f"{a} and {b}, step {x['step']}: {name} {x[name]} and {y[name]}"):
                return


def same_state(a, b):
    done = subprocess.run([os.environ["STATE_COMPARE"], f"{a}/checkpoint.h5", f"{b}/checkpoint.h5"],
                          capture_output=True, text=True)
    check(done.returncode == 0, f"{a} and {b}: states differ", done.stdout + done.stderr)


def engines(log):
    """How often each engine of cuDNN and each epilogue of cuBLASLt ran."""
    count = {}
    if not os.path.exists(log):
        return count
    with open(log) as file:
        for line in file:
            name = line.strip().split(",")[0]
            count[name] = count.get(name, 0) + 1
    return count


def operators():
    """Every operator in every precision; in TF32 too, which must be allowed to be used."""
    for mode, lines in ("test", ["f32", "bf16", "f16"]), ("tf32", ["f32"]):
        done = subprocess.run([f"{BUILD}/standin/standin_test_op", mode], capture_output=True, text=True)
        found = re.findall(r"^cuda +(\w+) *: (\d+) cases, \d+ on own kernels, 0 failed", done.stdout, re.M)
        check(done.returncode == 0 and [name for name, _ in found] == lines and all(int(n) > 500 for _, n in found),
              f"test_op {mode}", done.stdout + done.stderr)
    # A lost device costs the case that lost it: the rest is tested by a new process.
    done = subprocess.run([f"{BUILD}/standin/standin_test_op", "test", "conv", "cuda", "f32"], capture_output=True, text=True,
                          env={**os.environ, "STANDIN_FAIL": "3000 700"})
    lost = done.stdout.count("in a new process")
    found = re.findall(r"^cuda +f32 *: (\d+) cases, \d+ on own kernels, (\d+) failed", done.stdout, re.M)
    check(done.returncode == 1 and lost >= 2 and len(found) == 1 and int(found[0][0]) >= 100 and int(found[0][1]) == lost ==
          done.stdout.count("\nFAIL ") + done.stdout.startswith("FAIL "), "a device that is lost", done.stdout + done.stderr)


    # strided tensors, in one call and where bias and activation are left to fieldnet
    for fused in "", "fuse 0123":
        done = subprocess.run([f"{BUILD}/standin/standin_test_gpu_library"], capture_output=True, text=True,
                              env=dict(os.environ, STANDIN_ENGINES=fused))
        check(done.returncode == 0 and re.search(r"^cuda: \d\d\d+ cases", done.stdout, re.M),
              f"strided tensors, engines '{fused}'", done.stdout + done.stderr)


def golden_vectors():
    source = os.path.join(os.environ["SOURCE_DIR"], "tests", "golden")
    for packed in sorted(glob.glob(f"{source}/*.h5.gz")):
        name = os.path.basename(packed)[:-len(".h5.gz")]
        with gzip.open(packed) as file, open(f"{name}.h5", "wb") as plain:
            plain.write(file.read())
        done = run(1, "verify", f"{source}/{name}.yaml", f"{name}.h5", "--set", "compute.backend=cuda")
        check(done.code == 0 and "all within their limits" in done.output, f"golden vector {name}", done.output)


def trains():
    train("cpu", compute__backend="cpu")
    done = train("cuda", report__verbosity="detail")
    check("recorded" not in done.output, "everything that is to be recorded is", done.output)
    same_steps("cpu", "cuda", 1e-5, 1e-4)
    train("plain", compute__graphs="no")
    same_state("cuda", "plain")
    train("parts", code=75, train__stop_after_steps=5)
    train("parts")
    same_state("cuda", "parts")
    train("two", ranks=2, compute__share_devices="true")
    train("two_cpu", ranks=2, compute__backend="cpu")
    same_steps("two_cpu", "two", 1e-5, 1e-4, 12)
    for precision in "tf32", "bf16", "f16":
        train(precision, compute__precision=precision)
        same_steps("cuda", precision, {"tf32": 1e-5}.get(precision, 0.02), 0.1)
        if precision != "tf32":
            train(f"{precision}_first", compute__precision=precision, compute__first_layer_f32="false")
            same_steps("cuda", f"{precision}_first", 0.02, 0.1)
            check(steps(precision)[0]["loss"] != steps(f"{precision}_first")[0]["loss"], f"{precision}: the first layer")


def engines_are_chosen():
    """Deterministic runs take cuDNN's first; a plan that cannot be made is passed over, one that fails makes way for
    the next, by name; what cannot be recorded runs plainly; the results are the same."""
    def chosen(into, expected, code=0, **values):
        done = train(into, code, environment=dict(values.pop("environment", {}), STANDIN_LOG=f"{into}.log"), **values)
        used = engines(f"{into}.log")
        check(set(used) == expected, f"{into}: engines {used}, expected {expected}", done.output)
        same_state("cuda", into) if used else same_steps("cuda", into, 1e-5, 1e-4)
        return done

    chosen("first", {"engine 0"})
    chosen("built", {"engine 3"}, environment={"STANDIN_ENGINES": "build 0"})
    done = chosen("failing", {"engine 3"}, environment={"STANDIN_ENGINES": "fail 0"})
    check("engine 0 of cuDNN failed (CUDNN_STATUS_EXECUTION_FAILED), engine 3 takes its place" in done.output,
          "a plan that fails is named", done.output)
    done = chosen("unrecorded", {"engine 0"}, environment={"STANDIN_ENGINES": "record 0123"}, report__verbosity="detail")
    check("steps are not recorded" in done.output, "a plan that cannot be recorded", done.output)
    done = chosen("own", set(), environment={"STANDIN_ENGINES": "build 0123"}, report__verbosity="detail")
    check("own, slower kernel" in done.output, "no engine at all", done.output)
    done = chosen("none", set(), environment={"STANDIN_ENGINES": "fail 0123"})
    check("slower kernel: engine 3 of cuDNN failed" in done.output,
          "every engine fails when it runs", done.output)


def products_have_epilogues():
    """Bias and ReLU are cuBLASLt's, bias and leaky ReLU fieldnet's; without epilogues all is fieldnet's, to the same bits."""
    default, relu, bias, relu_bias = (f"epilogue {n}" for n in (1, 2, 4, 6))  # of cublasLtEpilogue_t
    def logged(into, **environment):
        train(into, config="dense.yaml", environment=dict(environment, STANDIN_LOG=f"{into}.log"))
        return {name: n for name, n in engines(f"{into}.log").items() if name.startswith("epilogue")}

    train("dense_cpu", config="dense.yaml", compute__backend="cpu")
    found = logged("dense")
    check(set(found) == {default, relu, bias, relu_bias} and found[bias] == 2 * found[relu_bias] == 2 * found[relu],
          f"epilogues of a training run: {found}")
    same_steps("dense_cpu", "dense", 1e-5, 1e-4, 12)
    found = logged("dense_plain", STANDIN_EPILOGUES="0")
    check(set(found) == {default}, f"epilogues that the library has not: {found}")
    same_state("dense", "dense_plain")


def chains_are_launch_bound():
    """Here the host is the device: putting a step on its way is all of its time, and bench says so."""
    synthetic = ["--mode", "synthetic"]  # readers may take the processor
    for options in (synthetic, [*synthetic, "--set", "compute.precision=f16", "--set", "compute.graphs=no"],
                    ["--inference", "--size", "12"]):
        done = run(1, "bench", "run.yaml", "--steps", "4", "--json", "bench.json", *options)
        check(done.code == 0 and ": launch bound" in done.output, f"bench {' '.join(options)}", done.output)
        with open("bench.json") as file:
            found = json.load(file)
        (s,) = found["modes"].values()
        c = s["chain"]
        check(c["launch_bound"] and 0.8 * c["device"] <= c["host"] <= c["step"], "the host's part of a step", str(c))
        check(abs(s["samples_per_second"] * c["step"] - 2) < 1e-6, "samples per second of the chain", str(s))


def times_are_kept():
    """Timing may choose any engine; what it chose is in the file, by device, library and shape, and is taken again."""
    train("timed", environment={"STANDIN_LOG": "timed.log"}, compute__deterministic="false")
    files = glob.glob("cache_timed/algorithms.txt")
    lines = open(files[0]).read().splitlines() if check(len(files) == 1, "a file of algorithms") else []
    check(len(lines) >= 5 and all(line.startswith("Stand-in, cuDNN 9.19.0, conv") for line in lines),
          "keys of the file of algorithms", "\n".join(lines))
    changed = [line.split("\t") for line in lines]
    with open(files[0], "w") as file:
        for key, _, _ in changed:
            file.write(f"{key}\t1\t3=11 .\n")
    os.makedirs("cache_again", exist_ok=True)
    os.replace(files[0], "cache_again/algorithms.txt")
    train("again", environment={"STANDIN_LOG": "again.log"}, compute__deterministic="false")
    check(engines("again.log") == {"engine 1": sum(engines("again.log").values())}, "what the file says is taken")
    os.makedirs("cache_other", exist_ok=True)
    with open("cache_other/algorithms.txt", "w") as file:
        for key, _, _ in changed:
            file.write(f"{key.replace('9.19.0', '9.18.0')}\t1\t3=11 .\n")
    train("other", environment={"STANDIN_LOG": "other.log", "STANDIN_ENGINES": "build 1"}, compute__deterministic="false")
    check(open("cache_other/algorithms.txt").read().count("9.19.0") == len(lines), "another version is timed anew")


def errors_are_clear():
    def one_error(into, code, environment, *words, ranks=1, **values):
        done = train(into, code, ranks, environment, **values)
        messages = done.messages()
        check(len(messages) == 1 and all(word in messages[0] for word in words),
              f"{into}: one message with {words}", done.output)
        check(done.output.count("GPU 0 of") <= 1, f"{into}: the message comes once", done.output)

    one_error("no_driver", 10, {"STANDIN_DRIVER": "0"}, "has no NVIDIA driver", "--gpus all", "compute.backend: cpu")
    one_error("old_driver", 10, {"STANDIN_DRIVER": "11080"}, "knows CUDA up to 11.8", "update the driver", "cuda-compat")
    one_error("no_device", 10, {"STANDIN_DEVICES": "0"}, "no GPU of", "CUDA_VISIBLE_DEVICES", "--gpus-per-task")
    one_error("old_device", 10, {"STANDIN_CAPABILITY": "70"}, "compute capability 7.0", "needs 8.0")
    one_error("few", 10, {"STANDIN_DEVICES": "2"}, "3 ranks on this node and 2 devices", "compute.share_devices", ranks=3)
    one_error("one", 10, {}, "another rank uses GPU 0", "compute.share_devices: true", ranks=2)
    one_error("memory", 6, {"STANDIN_MEMORY": "200000"}, "has no memory for", "of 200", "precision: bf16", "train.batch")
    one_error("memory2", 6, {"STANDIN_MEMORY": "200000"}, "has no memory for", ranks=2, compute__share_devices="true")
    one_error("locked", 6, {"STANDIN_LOCKED": "1000"}, "to be locked", "ulimit -l")
    # 214: an error of its memory that the GPU reports; 700: an illegal address
    for ranks in 1, 2:
        one_error(f"lost{ranks}", 10, {"STANDIN_FAIL": f"{900 // ranks} 214"}, "failed", "cudaErrorECCUncorrectable", "Xid",
                  "goes on from its last state", ranks=ranks, compute__share_devices="true")
    one_error("address", 10, {"STANDIN_FAIL": "700 700"}, "a kernel went wrong", "gpu-check --sanitize")
    one_error("early", 10, {"STANDIN_FAIL": "1 214"}, "cudaErrorECCUncorrectable")
    # It goes on from its last state, as the message says.
    train("lost", 10, environment={"STANDIN_FAIL": "900 214"}, checkpoint__every_minutes=1e-9)
    train("lost", checkpoint__every_minutes=1e-9)
    train("never", checkpoint__every_minutes=1e-9)
    same_state("lost", "never")


with folder():
    for kind, seed in ("in", 1), ("out", 2):
        for index in range(3):
            write_npy(f"{kind}/{index}.npy", (2, 16, 16, 16), noise(10 * seed + index, 2 * 16 ** 3))
    write_text("run.yaml", RUN)
    write_text("dense.yaml", DENSE)
    write_datasets("cubes.h5", (16, 16, 16), ((f"{theory}_seed{seed:04d}", noise(seed + 7 * len(theory), 16 ** 3))
                                              for theory in ("gr", "newton") for seed in range(2)))
    operators()
    golden_vectors()
    trains()
    engines_are_chosen()
    products_have_epilogues()
    times_are_kept()
    chains_are_launch_bound()
    errors_are_clear()
finish()
