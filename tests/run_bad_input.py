"""Bad input, one by one, on 1 and 2 ranks: one clear message that names the thing, the right exit
code on all ranks, within seconds, and nothing created, changed or lost."""
import ctypes
import json
import os
import shutil
import subprocess
import sys
import time

from program import (LIMIT, check, command, finish, folder, noise, run, snapshot, succeed, write_hdf5,
                     write_npy, write_text)

CONFIG, DATA, DIVERGED, CHECKPOINT, MEMORY, UNSUPPORTED, DEVICE = 2, 3, 4, 5, 6, 8, 10
EDGE = 8

BASE = """folder: run
model:
  layers:
    - conv: {channels: 4, kernel: 1}
    - relu
    - conv: {channels: out, kernel: 1}
data:
  train: {input: "in/*.npy", target: "tgt/*.npy"}
  test: {input: "in/*.npy", target: "tgt/*.npy"}
train: {epochs: 1, batch: 2}
optimizer: {lr: 0.001}
compute: {threads: 1}
report: {plots: false, tensorboard: false}
"""

VNET = """folder: run
model:
  name: vnet
  options: {width: 4}
data:
  train: {input: "wide/*.npy", target: "wide/*.npy"}
  crop: 12
  input_pad: 17
train: {epochs: 1, batch: 1}
optimizer: {lr: 0.001}
"""


def expect(name, arguments, code, patterns, text=BASE, ranks=(2,), seconds=100):
    """`arguments`: command and --set settings; `patterns` must all be in the output."""
    write_text("run.yaml", text)
    before = snapshot()
    for size in ranks:
        done = run(size, arguments[0], "run.yaml",
                   *[word for setting in arguments[1:] for word in ("--set", setting)])
        title = f"{name} on {size} rank{'s' if size > 1 else ''}"
        check(done.code == code, f"{title}: expected exit code {code}, found {done.code}", done.output)
        absent = [pattern for pattern in patterns if pattern not in done.output]
        check(not absent, f"{title}: {absent} not in the message", done.output)
        check(len(done.messages()) == 1, f"{title}: expected one message, found {len(done.messages())}",
              done.output)
        check(done.seconds < seconds, f"{title}: took {done.seconds:.0f} s")
        after = snapshot()
        changed = [path for path in set(before) | set(after) if before.get(path) != after.get(path)]
        check(not changed, f"{title}: files appeared, changed or went", str(sorted(changed)))
        before = after


def expect_no_gpu():
    """A build without the CUDA toolkit, or with it on a node without a driver; not where one is."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        write_text("run.yaml", BASE)
        output = run(1, "train", "run.yaml", "--set", "compute.backend=cuda").output
        built = "was made without the CUDA toolkit" not in output
        expect("cuda, built" if built else "cuda, not built", ["train", "compute.backend=cuda"],
               DEVICE if built else UNSUPPORTED, ["NVIDIA driver", "compute.backend: cpu"] if built else ["CUDA toolkit", "cpu"])


def cube(name, seed, channels=1, edge=EDGE, **how):
    shape = (channels, edge, edge, edge)
    write_npy(name, shape, noise(seed, channels * edge**3), **how)


def make_fields():
    for i in range(8):
        cube(f"in/{i}.npy", i)
        cube(f"tgt/{i}.npy", 100 + i)
    cube("wide/0.npy", 1, edge=12)
    cube("wide/1.npy", 2, edge=12)


def configuration():
    expect("misspelt key", ["train"], CONFIG, ["run.yaml:11:1", "'optimiser'", "did you mean 'optimizer'"],
           BASE.replace("optimizer:", "optimiser:"), ranks=(1, 2))
    expect("wrong type", ["train"], CONFIG, ["run.yaml:10:27", "batch", "integer", "two", "^"],
           BASE.replace("batch: 2", "batch: two"), ranks=(1,))
    expect("duplicate key", ["train"], CONFIG, ["run.yaml:15:1", "seed", "twice", "line 12"],
           BASE.replace("compute:", "seed: 1\ncompute:") + "seed: 2\n", ranks=(1,))
    expect("missing run file key", ["train"], CONFIG, ["data.train.input"],
           BASE.replace('  train: {input: "in/*.npy", target: "tgt/*.npy"}\n', ""), ranks=(1,))
    expect("precision f64", ["train", "compute.precision=f64"], CONFIG, ["compute.precision", "f64", "bf16"], ranks=(1,))
    expect("unknown backend", ["train", "compute.backend=cppu"], CONFIG, ["cppu", "did you mean 'cpu'"])
    expect_no_gpu()
    expect("unknown optimizer", ["train", "optimizer.name=adamm"], CONFIG, ["adamm", "did you mean 'adam"],
           ranks=(1,))
    expect("unknown loss", ["train", "loss.name=msse"], CONFIG, ["msse", "did you mean 'mse'"], ranks=(1,))
    expect("unknown norm", ["train", "data.input_norms=cosmology.diss"], CONFIG,
           ["cosmology.diss", "did you mean 'cosmology.dis'"])
    expect("unknown layer", ["train"], CONFIG, ["run.yaml:5:7", "relo", "did you mean 'relu'"],
           BASE.replace("- relu", "- relo"))
    # Its parameters would have a path for a name in a state: better now than after an epoch.
    expect("slash in the name of a layer", ["train"], CONFIG, ["run.yaml:4:7", "'a/b.weight'", "slash"],
           BASE.replace("- conv: {channels: 4, kernel: 1}", "- {name: a/b, conv: {channels: 4, kernel: 1}}"))
    write_text("run.yaml", BASE.replace("- conv: {channels: 4, kernel: 1}",
                                        "- {name: 'a\"b\\c', conv: {channels: 4, kernel: 1}}"))
    described = json.loads(run(1, "describe", "run.yaml", "--json").output)
    check(described["layers"][0]["name"] == 'a"b\\c', "odd names in JSON", str(described["layers"][0]))
    expect("unknown model", ["train", "model.name=vnett"], CONFIG, ["vnett", "did you mean 'vnet'"],
           VNET, ranks=(1,))
    expect("unknown option of a model", ["train"], CONFIG, ["run.yaml:4:13", "widht", "did you mean 'width'"],
           VNET.replace("width", "widht").replace("pad: 17", "pad: 16"))


def sizes():
    # 12 + 2 * 17 = 46 cells: not 0 modulo 4
    expect("crop that does not fit the network", ["train"], CONFIG,
           ["run.yaml:7:9", "46 cells", "0 modulo 4", "at least 44", "44 and 48"], VNET, ranks=(1, 2))
    expect("crop too small for the network", ["train", "data.input_pad=2"], CONFIG,
           ["run.yaml:7:9", "16 cells", "at least 44", "smallest size is 44"], VNET)
    expect("target pad that is off by half a cell", ["train", "data.input_pad=18", "data.target_pad=[0,1,0,1,0,1]"],
           CONFIG, ["data.target_pad", "must be even"], VNET)
    expect("crop with too many axes", ["train", "data.crop=[4,4]"], CONFIG, ["data.crop", "2"])
    stages()
    expect("more ranks than samples", ["train"], CONFIG, ["fewer than 2 ranks", "run.yaml:8:18"],
           BASE.replace("in/*.npy", "in/0.npy").replace("tgt/*.npy", "tgt/0.npy"), ranks=(2,))


def stages():
    """A validation set that the network of the training set cannot take."""
    text = BASE.replace("  test:", '  validation: {input: "val/*.npy", target: "valtgt/*.npy"}\n  test:')
    position = "run.yaml:9:23"
    for name, channels, edge in (("smaller", 1, 4), ("larger", 1, 12), ("with other channels", 2, EDGE)):
        cube("val/0.npy", 1, channels, edge)
        cube("valtgt/0.npy", 2, 1, edge)
        patterns = [position, "data.validation.input", f"[{channels}, {edge}, {edge}, {edge}] -> [1, {edge}",
                    f"data.train are [1, {EDGE}, {EDGE}, {EDGE}] -> [1, {EDGE}"]
        expect(f"validation fields {name}", ["train"], CONFIG, patterns + (["data.crop"] if channels == 1 else []),
               text, ranks=(1, 2))
        done = run(1, "check", "run.yaml")
        check(done.code == CONFIG and "1 problem:" in done.output and all(p in done.output for p in patterns),
              f"check of validation fields {name}: exit code {done.code}", done.output)
    # a crop makes them equal
    cube("val/0.npy", 1, 1, 12)
    cube("valtgt/0.npy", 2, 1, 12)
    succeed(2, "train", "run.yaml", "--set", "folder=run_val", "--set", "data.crop=4")
    shutil.rmtree("run_val")
    shutil.rmtree("val")
    shutil.rmtree("valtgt")


def files():
    def one(name, patterns, path="in/6.npy", text=BASE, arguments=("train",), ranks=(2,)):
        expect(name, list(arguments), DATA, patterns, text, ranks)

    def damaged(name, change, patterns, path="in/6.npy", **how):
        shutil.copy(path, "kept")
        os.remove(path)
        change(path)
        one(name, patterns, path, **how)
        if os.path.isdir(path):
            os.rmdir(path)
        else:
            os.remove(path)
        shutil.move("kept", path)

    one("empty glob", ["nothing/*.npy"], text=BASE.replace("in/*.npy", "nothing/*.npy"))
    one("missing file", ["in/none.npy"], text=BASE.replace("in/*.npy", "in/none.npy"))
    damaged("broken link", lambda path: os.symlink("nowhere", path), ["in/6.npy", "No such file"])
    damaged("folder instead of a file", os.mkdir, ["in/6.npy", "directory"])
    damaged("zero bytes", lambda path: open(path, "w").close(), ["in/6.npy", "0 bytes"])
    damaged("text instead of numbers", lambda path: write_text(path, "a,b,c\n1,2,3\n" * 9), ["in/6.npy", "npy"])
    damaged("truncated npy", lambda path: (cube(path, 1), os.truncate(path, 1000)), ["in/6.npy", "truncated", "1000"])
    damaged("wrong channel count in the 7th file", lambda path: cube(path, 1, channels=2),
            ["in/6.npy has 2 channels", "expected 1"])
    damaged("wrong edge of a target", lambda path: cube(path, 1, edge=6), ["tgt/3.npy", "[6, 6, 6]", "[8, 8, 8]"],
            path="tgt/3.npy")
    os.rename("tgt/4.npy", "kept")
    one("unequal lists", ["has 8 fields", "has 7", "in/4.npy"])
    os.rename("kept", "tgt/4.npy")


def hdf5():
    os.makedirs("h5", exist_ok=True)
    for i in range(4):
        write_hdf5(f"h5/{i}.h5", "/fields/a", (1, EDGE, EDGE, EDGE), noise(i, EDGE**3))
    text = BASE.replace("in/*.npy", "h5/*.h5").replace("tgt/*.npy", "tgt/[0-3].npy")
    write_text("run.yaml", text)
    succeed(2, "train", "run.yaml", "--set", "folder=run_h5")
    expect("no such dataset", ["train"], DATA, ["h5/0.h5", "/fields/b", "/fields/a"],
           text.replace("h5/*.h5", "h5/*.h5:/fields/b"))
    size = os.path.getsize("h5/2.h5")
    os.truncate("h5/2.h5", size - 500)
    expect("truncated HDF5", ["train"], DATA, ["h5/2.h5", "truncated"], text)
    shutil.copy("run_h5/state_1.h5", "h5/2.h5")
    expect("several datasets and none named", ["train"], DATA, ["h5/2.h5", "datasets", "/model/0.weight"], text)
    shutil.rmtree("h5")


def accepted():
    """Byte orders and axis orders are not errors, and give the same numbers."""
    os.makedirs("other", exist_ok=True)
    for i in range(8):
        values = noise(i, EDGE**3)
        turned = [values[(x * EDGE + y) * EDGE + z] for z in range(EDGE) for y in range(EDGE) for x in range(EDGE)]
        write_npy(f"other/{i}.npy", (1, EDGE, EDGE, EDGE), turned if i % 2 else values,
                  order=">" if i % 4 < 2 else "<", fortran=bool(i % 2))
    write_text("run.yaml", BASE)
    succeed(1, "train", "run.yaml", "--set", "folder=run_plain")
    succeed(1, "train", "run.yaml", "--set", "folder=run_other", "--set", "data.train.input=other/*.npy")
    plain, other = open("run_plain/metrics.csv").read(), open("run_other/metrics.csv").read()
    without_times = lambda text: [line.split(",")[:4] for line in text.splitlines()]
    check(without_times(plain) == without_times(other), "byte and axis order change the loss", plain + other)
    # A network that changes nothing has no values in memory to plan.
    succeed(1, "train", "run.yaml", "--set", "folder=run_same", "--set", "model.layers=[save: same]")


def checkpoints():
    expect("test without a state", ["test"], CHECKPOINT, ["no state in folder run", "train first"])
    expect("predict without a state", ["predict"], CHECKPOINT, ["no state in folder run"])
    expect("named state missing", ["test", "test.state=none.h5"], CHECKPOINT, ["none.h5", "test.state=none.h5"])
    expect("start state missing", ["train", "train.load_state=none.h5"], CHECKPOINT, ["none.h5", "train.load_state"])
    with open("run_plain/state_1.h5", "rb") as file:
        good = file.read()
    middle = len(good) // 2
    for name, bad in (("flipped byte", good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1:]),
                      ("cut", good[:middle]), ("empty", b""), ("not HDF5", b"hello" * 100)):
        with open("bad.h5", "wb") as file:
            file.write(bad)
        expect(f"state: {name}", ["test", "test.state=bad.h5"], CHECKPOINT, ["bad.h5"], ranks=(2,))
        expect(f"start state: {name}", ["train", "train.load_state=bad.h5"], CHECKPOINT, ["bad.h5"], ranks=(1,))
    os.remove("bad.h5")
    expect("test crops that leave holes", ["test", "test.state=run_plain/state_1.h5", "data.crop=4", "data.crop_step=6"],
           CONFIG, ["data.crop_step=6", "holes"])
    expect("state of another network", ["test", "test.state=run_plain/state_1.h5"], CHECKPOINT,
           ["run_plain/state_1.h5", "0.weight", "[4, 1, 1, 1, 1]", "[5, 1, 1, 1, 1]"],
           BASE.replace("channels: 4", "channels: 5"))
    expect("state without a moving average", ["test", "test.state=run_plain/state_1.h5", "test.use_ema=true"],
           CHECKPOINT, ["run_plain/state_1.h5", "average"])


def outputs_that_are_not_finite():
    values = noise(1, EDGE**3)
    values[17] = float("nan")
    write_npy("nan.npy", (1, EDGE, EDGE, EDGE), values)
    write_text("run.yaml", BASE)
    output = succeed(2, "predict", "run.yaml", "--set", "test.state=run_plain/state_1.h5", "--set", "folder=run_nan",
                     "--set", "data.test.input=[nan.npy]")
    check("1 of 1 outputs have cells that are not finite" in output and "nan.npy" in output, "a NaN is told of", output)


def other_commands():
    """One message, that names what is wrong."""
    write_text("text.h5", "this is not HDF5\n")
    write_text("run.yaml", BASE)
    os.makedirs("empty", exist_ok=True)
    for words, code, patterns in (
            (["export", "run.yaml"], CONFIG, ["unknown command 'export' (fieldnet --help"]),
            (["data", "synth"], CONFIG, ["displacement or cubes, found nothing"]),
            (["data", "synth", "foo", "x"], CONFIG, ["found 'foo'"]),
            (["data", "synth", "displacement", "x"], CONFIG, ["unexpected argument 'x'", "--folder"]),
            (["data", "inspect", "text.h5"], DATA, ["text.h5"]),
            (["data", "inspect", "empty"], DATA, ["empty: Is a directory", "empty/*.npy"]),
            (["sweep", "plan", "none.yaml"], CONFIG, ["none.yaml: No such file"]),
            (["verify", "run.yaml", "none.h5"], DATA, ["cannot open none.h5: No such file"]),
            (["verify", "run.yaml", "text.h5"], DATA, ["cannot open text.h5 as HDF5"]),
            (["report", "empty"], CONFIG, ["empty holds no run"]),
            (["report", "run_plain", "--output", "none/page.html"], DATA, ["cannot write none/page.html: No such"])):
        done = run(1, *words)
        name = " ".join(words)
        check(done.code == code and len(done.messages()) == 1, f"{name}: exit code {done.code}", done.output)
        check(len(done.output.splitlines()) == 1 and all(p in done.output for p in patterns), f"{name}: message", done.output)
    check(not os.listdir("empty"), "a report of nothing was written")


def plugins():
    expect("no such plug-in", ["train", "plugin=./none.so"], CONFIG, ["none.so"])
    write_text("text.so", "this is not a library\n")
    expect("plug-in that is no library", ["train", "plugin=./text.so"], CONFIG, ["text.so"], ranks=(2,))
    compiler = shutil.which("cc")
    if not compiler:
        print("skipped: a plug-in without the symbol needs a C compiler")
        return
    write_text("empty.c", "int nothing_here;\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", "empty.so", "empty.c"], check=True)
    expect("plug-in without the symbol", ["train", "plugin=./empty.so"], CONFIG, ["empty.so", "fieldnet_register"])


def folders():
    write_text("occupied", "a file where the folder should be\n")
    expect("run folder is a file", ["train", "folder=occupied"], CHECKPOINT, ["occupied"])
    expect("run folder below a file", ["train", "folder=occupied/run"], CHECKPOINT, ["occupied"], ranks=(1,))
    os.makedirs("taken/resolved.yaml")
    expect("configuration cannot be written", ["train", "folder=taken"], CHECKPOINT, ["taken/resolved.yaml"], ranks=(1, 2))
    expect("output folder is a file", ["test", "test.state=run_plain/state_1.h5", "folder=run_out",
                                       f"test.output={os.getcwd()}/occupied"], CONFIG, ["occupied"])
    check(not os.path.exists("run_out"), "a failed test left its folder")


def absurd():
    """Sizes beyond all memory are told in bytes; a batch beyond all samples is all samples."""
    write_text("run.yaml", BASE)
    huge = "train.batch=9223372036854775807"
    for ranks in (1, 2):
        for settings in ([huge], ["train.batch=8"]):
            done = run(ranks, "train", "run.yaml", "--set", f"folder=run_{len(settings[0])}", "--set", settings[0],
                       "--set", "train.accumulate=9223372036854775807")
            check(done.code == 0, f"batch beyond all samples on {ranks} ranks: exit code {done.code}", done.output)
        rows = [[line.split(",")[:4] for line in open(f"run_{len(s)}/metrics.csv")] for s in (huge, "train.batch=8")]
        check(rows[0] == rows[1], "a batch beyond all samples is not all samples", str(rows))
        check(rows[0][1][:2] == ["1", "1"], "one step for all samples", str(rows))
        shutil.rmtree(f"run_{len(huge)}")
        shutil.rmtree("run_13")
    done = run(1, "check", "run.yaml", "--set", huge)
    check(done.code == 0 and "batches read ahead 32.77 kB" in done.output and "1 of 8 x 1 samples" in done.output,
          f"check of a batch beyond all samples: exit code {done.code}", done.output)
    # 4 + 2 * 2000 cells along each axis
    expect("more than all memory", ["train", huge, "data.crop=4", "data.input_pad=2000"], MEMORY, ["bytes", "GB"], ranks=(1, 2))
    done = run(1, "check", "run.yaml", "--set", huge, "--set", "data.crop=4", "--set", "data.input_pad=2000")
    check(done.code == MEMORY and "1 problem:" in done.output and "TB (" in done.output and "can be had" in done.output,
          f"check of more than all memory: exit code {done.code}", done.output)


def narrowed():
    """A target larger than the network's output is legal; that its rim is not used is told once."""
    write_text("run.yaml", BASE)
    told = "only the central 4 x 4 x 4 of the target's {0} x {0} x {0} cells are used"
    for pad, wanted in ((0, 0), (1, 1)):
        for ranks, name, more in ((2, "train", []), (1, "check", []), (1, "train", ["--set", "train.epochs=3"])):
            done = run(ranks, name, "run.yaml", "--set", "data.crop=4", "--set", f"data.target_pad={pad}", *more)
            lines = [line for line in done.output.splitlines() if "only the central" in line]
            title = f"{name} with target pad {pad} on {ranks} ranks"
            check(done.code == 0 and len(lines) == wanted, f"{title}: exit code {done.code}", done.output)
            check(all(told.format(4 + 2 * pad) in line and "data.target_pad=1" in line for line in lines), title, str(lines))
            shutil.rmtree("run", ignore_errors=True)


def overflow():
    """One rank's gradient overflows while its loss does not: one cell of 1e24 and weights near 1e-6."""
    values = noise(3, EDGE**3)
    values[100] = 1e24
    for i in range(4):
        write_npy(f"big/{i}.npy", (1, EDGE, EDGE, EDGE), values if i == 3 else noise(i, EDGE**3))
    write_text("run.yaml", BASE.replace("in/*.npy", "big/*.npy").replace("tgt/*.npy", "tgt/[0-3].npy")
               .replace("    - conv: {channels: 4, kernel: 1}\n    - relu\n", "")
               .replace("model:\n", "model:\n  init_weight_std: 1.0e-5\n"))
    settings = ["--set", "data.shuffle=false"]
    for name, ranks, more, who in (("one step", 2, [], 1), ("batch by batch", 4, ["train.batch=1"], 3)):
        done = run(ranks, "train", "run.yaml", *settings, *[w for m in more for w in ("--set", m)])
        check(done.code == DIVERGED, f"overflow, {name}: exit code {done.code}", done.output)
        check(f"the gradient of rank {who} is not finite, though its loss is; first bad gradient: 0.weight" in done.output,
              f"overflow, {name}: message", done.output)
        shutil.rmtree("run", ignore_errors=True)
    done = run(2, "train", "run.yaml", *settings, "--set", "train.on_nan=skip")
    check(done.code == 0 and "the gradient of rank 1 is not finite" in done.output and "step skipped" in done.output,
          f"overflow skipped: exit code {done.code}", done.output)
    shutil.rmtree("run", ignore_errors=True)
    shutil.rmtree("big")


def shrinking(kind, ranks):
    """A file is cut in the middle of training."""
    os.makedirs("cut", exist_ok=True)
    for i in range(4):
        if kind == "npy":
            cube(f"cut/{i}.npy", i, edge=32)
        else:
            write_hdf5(f"cut/{i}.h5", "/a", (1, 32, 32, 32), noise(i, 32**3))
        cube(f"cuttgt/{i}.npy", i, edge=32)
    write_text("run.yaml", BASE.replace("in/*.npy", f"cut/*.{kind}").replace("tgt/*.npy", "cuttgt/*.npy"))
    shutil.rmtree("run", ignore_errors=True)
    process = subprocess.Popen(
        command(ranks, "train", "run.yaml", "--set", "train.epochs=100000", "--set", "data.crop=8",
                "--set", "checkpoint.keep_last=2", "--set", "train.batch=32"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    start = time.monotonic()
    while not os.path.exists("run/checkpoint.h5") and time.monotonic() - start < LIMIT and process.poll() is None:
        time.sleep(0.05)
    os.truncate(f"cut/2.{kind}", 5000)
    cut = time.monotonic()
    try:
        output, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output = process.communicate()[0] + "\n[time limit]"
    title = f"{kind} file cut in the middle of training on {ranks} ranks"
    check(process.returncode == DATA, f"{title}: exit code {process.returncode}", output)
    check(output.count("\nfieldnet: ") + output.startswith("fieldnet: ") == 1 and f"cut/2.{kind}" in output,
          f"{title}: message", output)
    check(time.monotonic() - cut < 100, f"{title}: took {time.monotonic() - cut:.0f} s")
    check(os.path.exists("run/checkpoint.h5"), f"{title}: the state is gone")
    shutil.rmtree("run", ignore_errors=True)
    shutil.rmtree("cut")
    shutil.rmtree("cuttgt")


with folder():
    make_fields()
    parts = sys.argv[1:]
    for part in (configuration, sizes, files, hdf5, accepted, checkpoints, outputs_that_are_not_finite, other_commands,
                 plugins, folders, absurd, narrowed, overflow):
        if not parts or part.__name__ in parts or (part is accepted and ("checkpoints" in parts or "folders" in parts)):
            start = time.monotonic()
            part()
            print(f"{part.__name__}: {time.monotonic() - start:.1f} s", flush=True)
    for kind in ("npy", "h5"):
        for ranks in (1, 2):
            if not parts or "shrinking" in parts:
                shrinking(kind, ranks)
finish()
