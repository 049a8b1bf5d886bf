"""Samples converted by the device have the same bits as those of the host: every number type, order, norm, symmetry."""
import ctypes
import json
import os
import random
import re
import struct
import subprocess

from program import check, count_of, finish, folder, hdf5_caller, run, write_text

LIBRARY = os.path.join(os.environ["BUILD_DIR"], "lib", "libfieldnet.so")
FILES = 5

COMMON = """
seed: 11
data:
  train: {input: [%s], target: [%s]}
  validation: {input: [%s], target: [%s]}
%s
  readers: 3
model:
  layers:
    - conv: {channels: 4, kernel: 3}
    - batch_norm: {}
    - leaky_relu: 0.1
    - dropout: 0.3
    - conv: {channels: out, kernel: 3}
train: {epochs: 2, batch: 2, log_interval: 1}
optimizer: {name: adam, lr: 1.e-3}
compute: {threads: 1, backend: emulated}
report: {plots: false, tensorboard: false}
"""


# ---- files -----------------------------------------------------------------------------------------------------------

def numbers(seed, count, kind):
    """Of both signs, zeros of both signs among them, or all positive for unsigned types and logarithms."""
    generator = random.Random(seed)
    if kind in "bBhHiIqQ":
        low, high = {"b": (-100, 100), "B": (0, 200), "h": (-30000, 30000), "H": (0, 60000), "i": (-2**31, 2**31 - 1),
                     "I": (0, 2**32 - 1), "q": (-2**60, 2**60), "Q": (0, 2**62)}[kind]
        return [generator.randint(low, high) for _ in range(count)]
    values = [generator.gauss(0, 1) for _ in range(count)]
    values[::17] = [-0.0] * len(values[::17])
    values[5::19] = [3e-6] * len(values[5::19])  # subnormal in float16
    return values


def write_npy(path, shape, values, kind, order="<", fortran=False):
    """Letters of kind are struct's; values in the order they are to have in the file."""
    name = {"e": "f2", "f": "f4", "d": "f8", "b": "i1", "B": "u1", "h": "i2", "H": "u2", "i": "i4", "I": "u4",
            "q": "i8", "Q": "u8", "?": "b1"}[kind]
    head = "{'descr': '%s%s', 'fortran_order': %s, 'shape': (%s), }" % (
        order, name, fortran, ", ".join(str(n) for n in shape) + ",")
    head += " " * (-(len(head) + 11) % 64) + "\n"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode())
        file.write(struct.pack(order + str(len(values)) + kind, *values))


def write_hdf5(path, shape, values, kind, order="<", chunk=None, name="x", add=False):
    """One dataset, in chunks and deflated where chunk is given, in a file of its own or one more. bfloat16 is kind "g"."""
    library = ctypes.CDLL(LIBRARY)
    call, handle = hdf5_caller(library), ctypes.c_int64
    end = "LE" if order == "<" else "BE"
    names = {"f": "IEEE_F32", "d": "IEEE_F64", "b": "STD_I8", "B": "STD_U8", "h": "STD_I16", "H": "STD_U16",
             "i": "STD_I32", "q": "STD_I64", "e": "IEEE_F32", "g": "IEEE_F32"}
    kind_id = call("H5Tcopy", handle.in_dll(library, f"H5T_{names[kind]}{end}_g"))
    size = ctypes.c_size_t
    if kind in "eg":  # made of float32: fields first, then what is left over
        exponent, fraction = (5, 10) if kind == "e" else (8, 7)
        assert call("H5Tset_fields", handle(kind_id), size(15), size(fraction), size(exponent), size(0),
                    size(fraction), result=ctypes.c_int) >= 0
        assert call("H5Tset_precision", handle(kind_id), size(16), result=ctypes.c_int) >= 0
        assert call("H5Tset_size", handle(kind_id), size(2), result=ctypes.c_int) >= 0
        assert call("H5Tset_ebias", handle(kind_id), size(2 ** (exponent - 1) - 1), result=ctypes.c_int) >= 0
    if kind == "g":
        data = b"".join(struct.pack(order + "H", struct.unpack("<I", struct.pack("<f", v))[0] >> 16) for v in values)
    else:
        data = struct.pack(order + str(len(values)) + kind, *values)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    sizes = (ctypes.c_uint64 * len(shape))(*shape)
    file = call("H5Fopen", path.encode(), 1, handle(0)) if add else call("H5Fcreate", path.encode(), 2, handle(0), handle(0))
    space = call("H5Screate_simple", len(shape), sizes, None)
    create = handle(0)
    if chunk:
        create = handle(call("H5Pcreate", handle.in_dll(library, "H5P_CLS_DATASET_CREATE_ID_g")))
        call("H5Pset_chunk", create, len(shape), (ctypes.c_uint64 * len(shape))(*chunk))
        call("H5Pset_deflate", create, ctypes.c_uint(1))
    dataset = call("H5Dcreate2", handle(file), name.encode(), handle(kind_id), handle(space), handle(0), create, handle(0))
    assert dataset >= 0
    assert call("H5Dwrite", handle(dataset), handle(kind_id), handle(0), handle(0), handle(0), data,
                result=ctypes.c_int) >= 0
    for close, what in ("H5Dclose", dataset), ("H5Sclose", space), ("H5Tclose", kind_id), ("H5Fclose", file):
        call(close, handle(what))


def fields(folder, shape, kind, order="<", positive=False, hdf5=False, **how):
    """A file per sample; returns their pattern."""
    for index in range(FILES):
        values = numbers(hash_of(folder) + index, count_of(shape), kind)
        if positive:
            values = [abs(v) for v in values]
        if hdf5:
            write_hdf5(f"{folder}/{index}.h5", shape, values, kind, order, **how)
        else:
            write_npy(f"{folder}/{index}.npy", shape, values, kind, order, **how)
    return f"{folder}/*.{'h5' if hdf5 else 'npy'}"


def hash_of(text):
    return sum(ord(c) * 31 ** i for i, c in enumerate(text)) % 100003


# ---- runs ------------------------------------------------------------------------------------------------------------

def run_file(name, inputs, targets, data):
    sides = [", ".join(f"'{p}'" for p in side) for side in (inputs, targets)]
    write_text(f"{name}.yaml", COMMON % (*sides, *sides, "".join(f"  {line}\n" for line in data)))


def train(ranks, name, into, convert, code=0, **values):
    words = [w for k, v in values.items() for w in ("--set", f"{k.replace('__', '.')}={v}")]
    done = run(ranks, "train", f"{name}.yaml", "--set", f"folder={into}", "--set", f"data.convert={convert}", *words)
    check(done.code == code, f"{into}: exit code {done.code}, expected {code}", done.output)
    return done.output


def losses(into):
    with open(f"{into}/metrics.jsonl") as file:
        return [(e["event"], e.get("loss"), e.get("gradient_norm"), e.get("validation_loss"))
                for e in map(json.loads, file) if e["event"] in ("step", "epoch")]


def same(a, b):
    done = subprocess.run([os.environ["STATE_COMPARE"], f"{a}/checkpoint.h5", f"{b}/checkpoint.h5"],
                          capture_output=True, text=True)
    check(done.returncode == 0, f"{a} and {b}: states differ", done.stdout + done.stderr)
    one, two = losses(a), losses(b)
    check(one == two and len(one) >= 6, f"{a} and {b}: losses", f"{one}\n{two}")


def both(ranks, name, *said, tag="", **values):
    """Host and device; the device's start says of every field how it travels, in order."""
    host, device = (f"{name}{ranks}{tag}_{way}" for way in ("host", "device"))
    output = train(ranks, name, host, "host", **values)
    check("to the device" not in output, f"{host}: converts on the device", output)
    output = train(ranks, name, device, "device", **values)
    same(host, device)
    ways = re.findall(r"^.*data\.train\.\w+(?:\[\d\])?: (.*)$", output, re.M)
    check(len(ways) == len(said) and all(w.startswith(s) for w, s in zip(ways, said)), f"{device}: {ways}", output)
    check(output.count("per sample to the device") == 1, f"{device}: bytes", output)


EVERYTHING = ["crop: 8", "input_pad: 2", "augment: true", "shift: 3", "add_std: 0.1", "mul_std: 0.2"]


def floats():
    """Vectors and scalars, float64, big-endian float32, Fortran order; two ranks, micro-batches, late streams, bf16."""
    shape = (3, 12, 12, 12)
    inputs = [fields("a", shape, "d"), fields("b", (1,) + shape[1:], "f", ">", positive=True)]
    targets = [fields("c", shape, "e", fortran=True)]
    run_file("floats", inputs, targets, EVERYTHING + ["norm_options: {z: 0.5}", "input_norms: [cosmology.dis, log]",
                                                      "target_norms: cosmology.vel"])
    said = "float64, normalised on the device by cosmology.dis", "float32, normalised on the device by log", "float16"
    both(1, "floats", *said)
    both(2, "floats", *said)
    both(1, "floats", *said, tag="half", compute__precision="bf16", data__augment="false", data__shift="[1, 2, 3]")
    train(1, "floats", "micro_host", "host", train__accumulate=2, train__batch=1)
    for seed in 0, 1, 2, 3:
        os.environ["FIELDNET_EMULATED_ORDER"] = str(seed)
        train(1, "floats", f"micro{seed}", "device", train__accumulate=2, train__batch=1, data__prefetch=1 + seed)
        same("micro_host", f"micro{seed}")
    del os.environ["FIELDNET_EMULATED_ORDER"]
    output = train(1, "floats", "refused", "device", 2, compute__backend="cpu")
    check("data.convert" in output and "cpu" in output, "device without one", output)


def resumes():
    """In mid epoch, also the other way than before."""
    for ranks in 1, 2:
        for first, second in ("device", "device"), ("device", "host"), ("host", "device"):
            into = f"parts{ranks}_{first}_{second}"
            train(ranks, "floats", into, first, 75, train__stop_after_steps=2)
            train(ranks, "floats", into, second)
            same(f"floats{ranks}_host", into)


def integers():
    """In two dimensions with margins of their own; files of one field need not be of one type."""
    shape = (2, 14, 10)
    kinds = "bBhHiIqQ"
    inputs = [fields(f"int_{ord(k)}", shape, k, ">" if k in "HIq" else "<", fortran=k in "hQ") for k in kinds]
    write_npy("int_98/1.npy", shape, numbers(3, count_of(shape), "d"), "d")
    write_npy("int_98/2.npy", shape, [v > 0 for v in numbers(4, count_of(shape), "d")], "?")
    targets = [fields("int_t", shape, "f", "<")]
    run_file("integers", inputs, targets, ["crop: [6, 4]", "input_pad: [1, 2, 0, 3]", "augment: true", "shift: 2",
                                           "mul_std: 0.3", "input_vector: [auto, no, yes, no, no, yes, no, no]"])
    both(1, "integers", "int8 or float64 or uint8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
         "float32", optimizer__lr="1e-6")


def lines():
    """Whole fields of one axis, longer than they are: the halo goes round more than once."""
    inputs = [fields("line", (2, 9), "h")]
    run_file("lines", inputs, [fields("line_t", (2, 9), "d", ">")], ["input_pad: 20"])
    both(1, "lines", "int16", "float64")


def hdf5():
    """Types that HDF5 knows, deflated chunks, and every other norm."""
    shape = (1, 8, 8, 8)
    cases = [("d", ">", "log1p", True), ("e", "<", "exp", False), ("g", "<", "expm1", False), ("h", ">", "identity", False),
             ("B", "<", "log", True), ("f", "<", "torch.log1p", True), ("q", "<", "torch.log", True)]
    inputs = [fields(f"h5_{ord(k)}", shape, k, order, positive, hdf5=True, chunk=(1, 4, 8, 5) if k in "dg" else None)
              for k, order, _, positive in cases]
    target = fields("h5_t", (3, 8, 8, 8), "e", ">", hdf5=True)
    run_file("hdf5", inputs, [target], EVERYTHING + ["target_norms: exp", "norm_options: {eps: 1.e-3}",
                                                     f"input_norms: [{', '.join(c[2] for c in cases)}]"])
    names = {"d": "float64", "e": "float16", "g": "bfloat16", "h": "int16", "B": "uint8", "f": "float32", "q": "int64"}
    both(1, "hdf5", *(f"{names[c[0]]}, normalised on the device by {c[2]}" for c in cases), "float16")
    both(2, "hdf5", *(names[c[0]] for c in cases), "float16", train__batch=1)


def falls_back():
    """The norm of a plug-in is the host's, for its field alone; symmetries stay with the device."""
    done = subprocess.run(["cc", "-std=c11", "-shared", "-fPIC", f"-I{os.environ['SOURCE_DIR']}/include", "-o",
                           "plugin.so", f"{os.environ['SOURCE_DIR']}/configs/example_plugin.c", "-lm"])
    check(done.returncode == 0, "the plug-in")
    run_file("plugged", ["a/*.npy", "c/*.npy"], ["c/*.npy"],
             EVERYTHING + ["input_norms: [arsinh, dis]", "target_norms: arsinh"])
    with open("plugged.yaml", "a") as file:
        file.write(f"plugin: {os.getcwd()}/plugin.so\n")
    said = "float32 (the host normalises, for arsinh is a plug-in's)"
    both(1, "plugged", said, "float16, normalised on the device by dis", said)


def tests_and_predicts():
    """Crops in order, from planes that they share: figures and files of both ways."""
    found = []
    for way in "host", "device":
        words = ["--set", "folder=floats1_host", "--set", f"data.convert={way}", "--set", "test.overwrite=true",
                 "--set", "data.test.input=['a/*.npy', 'b/*.npy']", "--set", f"test.output=written_{way}"]
        for command in ["test", "--set", "data.test.target='c/*.npy'"], ["predict"]:
            done = run(1, command[0], "floats.yaml", *command[1:], *words)
            check(done.code == 0, f"{command[0]} {way}", done.output)
        files = sorted(os.path.join(path, name) for path, _, names in os.walk("floats1_host") for name in names
                       if f"written_{way}" in path and name.endswith(".npy"))
        found.append([open(name, "rb").read() for name in files])
        with open("floats1_host/test.csv", "rb") as file:
            found[-1].append(file.read())
    check(found[0] == found[1] and len(found[0]) >= FILES + 1, "tests and predictions", str([len(f) for f in found]))


CUBES = """
seed: 3
data:
  kind: cubes
  cubes: {file: %s.h5, train_seeds: 0-1, validation_seeds: 2, test_seeds: 3, window: 4, label_smoothing: 0.1, %s}
model:
  layers:
    - conv: {channels: 4, kernel: 4, stride: 2}
    - batch_norm: {}
    - leaky_relu: 0.1
    - linear: {channels: out}
loss: {name: bce_with_logits}
train: {epochs: 2, batch: 5, log_interval: 1}
optimizer: {name: adam, lr: 1.e-3}
compute: {threads: 1, backend: emulated}
report: {plots: false, tensorboard: false}
"""
EDGE = 12


def write_cubes(name, kind, order="<", chunk=None):
    values = numbers(hash_of(name), 8 * EDGE ** 3, kind)
    if kind in "bBhHiIqQ":
        values = [v % 100 for v in values]  # a small network is to stay finite
    write_hdf5(f"{name}.h5", (8, EDGE, EDGE, EDGE), values, kind, order, chunk, "cubes")
    write_hdf5(f"{name}.h5", (8,), [0, 0, 1, 1, 2, 2, 3, 3], "q", name="seed", add=True)
    write_hdf5(f"{name}.h5", (8,), [1, 0] * 4, "B", name="theory", add=True)


def cubes():
    """Slices and whole cubes of every type, finished by either; batches of 5 leave a short last one."""
    slices = "slices_per_cube: 12"
    cases = [("half", "e", "<", None, f"{slices}, remove_mean: true, newton_augmentation: 0.9", "slices: float16, turned on the device, "
              "their cube's mean taken away on the device, Newton cubes multiplied on the device", 2 * EDGE ** 2),
             ("bytes", "B", "<", (1, 5, 12, 12), f"{slices}, stride: 2, symmetry: all", "slices: uint8, turned on the device", 2 * EDGE ** 2),
             ("double", "d", "<", None, f"{slices}, symmetry: none", "slices: float32 (the host converts from <f8)", 4 * EDGE ** 2),
             ("brain", "g", ">", None, f"{slices}, compat: true", "slices: bfloat16, turned on the device", 2 * EDGE ** 2),
             ("single", "f", "<", None, "sample: cube, remove_mean: true", "cubes: float32, their cube's mean taken away on the device",
              4 * EDGE ** 3)]
    for name, kind, order, chunk, how, said, size in cases:
        write_cubes(name, kind, order, chunk)
        write_text(f"{name}.yaml", CUBES % (name, how))
        whole = {"train__batch": 1} if "sample: cube" in how else {}
        for ranks in (1, 2, 3) if name == "half" else (1 + (name == "double"),):
            train(ranks, name, f"{name}{ranks}_host", "host", **whole)
            output = train(ranks, name, f"{name}{ranks}_device", "device", **whole)
            same_cubes(f"{name}{ranks}_host", f"{name}{ranks}_device")
            check(re.search(rf"{re.escape(said)}$", output, re.M), f"{name}: way", output)
            check(output.count("per sample to the device") == 1, f"{name}: bytes", output)
        done = run(1, "bench", f"{name}.yaml", "--mode", "io", "--steps", "3", "--warmup", "1", "--json", f"{name}.json", "--set",
                   "data.convert=device", *(["--set", "train.batch=1"] if whole else []))
        check(done.code == 0, f"bench {name}", done.output)
        with open(f"{name}.json") as file:
            found = json.load(file)["modes"]["io"]["bytes_per_sample"]
        # Rows begin at multiples of 64; what a slice has of its own, and its label, take one each.
        check(found == (size + 63) // 64 * 64 + 128, f"bench {name}: {found} bytes per sample")
        done = run(1, "describe", f"{name}.yaml", "--backend", "emulated", "--assume", "sm_90")
        check(done.code == 0 and said in done.output, f"describe {name}", done.output)
    cubes_go_on()
    cubes_are_tested()


def same_cubes(a, b):
    done = subprocess.run([os.environ["STATE_COMPARE"], f"{a}/checkpoint.h5", f"{b}/checkpoint.h5"],
                          capture_output=True, text=True)
    check(done.returncode == 0, f"{a} and {b}: states differ", done.stdout + done.stderr)
    check(losses(a) == losses(b) and len(losses(a)) >= 4, f"{a} and {b}: losses", f"{losses(a)}\n{losses(b)}")


def cubes_go_on():
    """Stopped inside an epoch, also the other way than before; in orders of the device."""
    for ranks, first, second in (1, "device", "device"), (2, "device", "host"), (3, "host", "device"), (2, "device", "device"):
        into = f"half_parts{ranks}_{first}_{second}"
        train(ranks, "half", into, first, 75, train__stop_after_steps=2)
        train(ranks, "half", into, second)
        same_cubes(f"half{ranks}_host", into)
    for seed in 1, 2, 3:
        os.environ["FIELDNET_EMULATED_ORDER"] = str(seed)
        train(1, "half", f"half_order{seed}", "device", data__prefetch=seed)
        same_cubes("half1_host", f"half_order{seed}")
    del os.environ["FIELDNET_EMULATED_ORDER"]


def cubes_are_tested():
    """Scores of both ways, with and without the cubes' own means."""
    found = []
    for way in "host", "device":
        done = run(2, "test", "brain.yaml", "--set", "folder=brain1_host", "--set", f"data.convert={way}", "--set",
                   "test.overwrite=true", "--set", "test.saliency=1", "--set", "test.bootstrap=10")
        check(done.code == 0, f"test {way}", done.output)
        with open("brain1_host/test/scores.csv") as file:
            found.append(file.read())
    check(found[0] == found[1] and found[0].count("\n") > 2 * EDGE, "scores of cubes")


def made_narrow():
    """What converts a sample writes what a first layer of 16 bits reads: no kernel casts it."""
    for way, first, casts in ("device", "false", 0), ("host", "false", 1), ("device", "true", 0), ("host", "true", 0):
        done = run(1, "describe", "half.yaml", "--backend", "emulated", "--assume", "sm_90", "--set", f"data.convert={way}",
                   "--set", "compute.precision=bf16", "--set", f"compute.first_layer_f32={first}")
        check(done.code == 0, f"describe, {way}", done.output)
        found = len(re.findall(r"^ *\d+ +unary +input +bf16 ", done.output, re.M))
        check(found == casts, f"first_layer_f32: {first}, convert: {way}: {found} casts of the input", done.output)
    for ranks, precision in (1, "bf16"), (2, "f16"):
        for way in "host", "device":
            train(ranks, "half", f"narrow_{precision}_{way}", way, compute__precision=precision, compute__first_layer_f32="false")
        same_cubes(f"narrow_{precision}_host", f"narrow_{precision}_device")
    for mode in "synthetic", "full":
        done = run(1, "bench", "half.yaml", "--mode", mode, "--steps", "3", "--warmup", "1", "--set", "compute.precision=bf16",
                   "--set", "compute.first_layer_f32=false")
        check(done.code == 0, f"bench {mode} with a narrow input", done.output)


def says_bytes():
    """bench tells what a sample takes: 3 x 12^3 float64 and 12^3 float32 there, 3 x 8^3 float16 back."""
    for way, bytes in ("device", 12 ** 3 * (3 * 8 + 4) + 3 * 8 ** 3 * 2), ("host", 12 ** 3 * 4 * 4 + 3 * 8 ** 3 * 4):
        done = run(1, "bench", "floats.yaml", "--mode", "io", "--steps", "3", "--warmup", "1", "--set",
                   f"data.convert={way}", "--json", f"bench_{way}.json")
        check(done.code == 0, f"bench {way}", done.output)
        with open(f"bench_{way}.json") as file:
            found = json.load(file)["modes"]["io"]["bytes_per_sample"]
        check(found == bytes, f"bench {way}: {found} bytes per sample, expected {bytes}")
    done = run(1, "bench", "floats.yaml", "--mode", "full", "--steps", "4", "--warmup", "1")
    check(done.code == 0, "bench full", done.output)
    done = run(1, "describe", "floats.yaml", "--backend", "emulated", "--assume", "sm_90")
    check(done.code == 0 and "float64, normalised on the device by cosmology.dis" in done.output, "describe", done.output)


with folder():
    floats()
    resumes()
    integers()
    lines()
    hdf5()
    falls_back()
    tests_and_predicts()
    cubes()
    made_narrow()
    says_bytes()
finish()
