"""What the tests in Python share: field files, run files, the program and its exit. Standard library only."""
import array
import ctypes
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

FIELDNET = os.environ["FIELDNET"]
MPIRUN = os.environ["MPIRUN"]
BUILD_DIR = os.environ["BUILD_DIR"]
LIBRARY = os.path.join(BUILD_DIR, "lib", "libfieldnet.so")

failures = []
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def check(condition, what, detail=""):
    if not condition:
        failures.append(what)
        print(f"FAILED: {what}{': ' if detail else ''}{detail[-2500:]}", flush=True)
    return bool(condition)


def finish():
    print(f"{len(failures)} failures" if failures else "all as expected")
    sys.exit(1 if failures else 0)


class folder:
    """A new current directory, removed at the end."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="fieldnet_")
        os.chdir(self.path)
        return self.path

    def __exit__(self, *_):
        os.chdir("/")
        shutil.rmtree(self.path, ignore_errors=True)


def count_of(shape):
    count = 1
    for size in shape:
        count *= size
    return count


def write_npy(path, shape, values, order="<", fortran=False):
    """Values in the order they are to have in the file."""
    assert len(values) == count_of(shape)
    head = "{'descr': '%sf4', 'fortran_order': %s, 'shape': (%s), }" % (
        order, fortran, ", ".join(str(n) for n in shape) + ("," if len(shape) == 1 else ""))
    head += " " * (-(len(head) + 11) % 64) + "\n"
    data = array.array("f", values)
    if order == ">":
        data.byteswap()
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + data.tobytes())


def read_npy(path):
    with open(path, "rb") as file:
        raw = file.read()
    length = int.from_bytes(raw[8:10], "little")
    head = eval(raw[10:10 + length].decode())
    assert head["descr"] == "<f4" and not head["fortran_order"], head
    values = array.array("f")
    values.frombytes(raw[10 + length:])
    assert len(values) == count_of(head["shape"])
    return head["shape"], values


def noise(seed, count, scale=1.0):
    generator = random.Random(seed)
    return array.array("f", (generator.gauss(0, scale) for _ in range(count)))


def write_hdf5(path, dataset, shape, values):
    """Through the library's own writer, which h5py and h5dump read."""
    library = ctypes.CDLL(LIBRARY)
    data = (ctypes.c_float * len(values))(*values)
    status = library.fn_hdf5_write(path.encode(), dataset.encode(), data, len(shape),
                                   (ctypes.c_int64 * len(shape))(*shape))
    assert status == 0, path


def hdf5_caller(library):
    """call(name, arguments ..., result=type): functions of the HDF5 library itself."""
    call = lambda name, *arguments, result=ctypes.c_int64: (
        setattr(getattr(library, name), "restype", result), getattr(library, name)(*arguments))[1]
    call("H5open")
    return call


def write_datasets(path, shape, datasets):
    """A new file with float32 root datasets of one shape, contiguous: pairs (name, values)."""
    library = ctypes.CDLL(LIBRARY)
    call = hdf5_caller(library)
    handle = ctypes.c_int64
    sizes = (ctypes.c_uint64 * len(shape))(*shape)
    file = call("H5Fcreate", path.encode(), 2, handle(0), handle(0))  # 2: truncate
    space = call("H5Screate_simple", len(shape), sizes, None)
    kind = handle.in_dll(library, "H5T_IEEE_F32LE_g")
    native = handle.in_dll(library, "H5T_NATIVE_FLOAT_g")
    for name, values in datasets:
        assert len(values) == count_of(shape)
        data = call("H5Dcreate2", handle(file), name.encode(), kind, handle(space), handle(0), handle(0), handle(0))
        cells = (ctypes.c_float * len(values)).from_buffer(values)
        assert call("H5Dwrite", handle(data), native, handle(0), handle(0), handle(0), cells) >= 0, name
        call("H5Dclose", handle(data))
    call("H5Sclose", handle(space))
    call("H5Fclose", handle(file))


def read_hdf5(path, dataset):
    """(shape, values as floats), through the HDF5 library itself."""
    library = ctypes.CDLL(LIBRARY)
    call = hdf5_caller(library)
    file = call("H5Fopen", path.encode(), 0, ctypes.c_int64(0))
    assert file >= 0, path
    data = call("H5Dopen2", ctypes.c_int64(file), dataset.encode(), ctypes.c_int64(0))
    assert data >= 0, f"{path}:{dataset}"
    space = call("H5Dget_space", ctypes.c_int64(data))
    ndim = call("H5Sget_simple_extent_ndims", ctypes.c_int64(space), result=ctypes.c_int)
    sizes = (ctypes.c_uint64 * max(ndim, 1))()
    call("H5Sget_simple_extent_dims", ctypes.c_int64(space), sizes, None)
    shape = tuple(sizes[:ndim])
    values = (ctypes.c_float * count_of(shape))()
    native = ctypes.c_int64.in_dll(library, "H5T_NATIVE_FLOAT_g")
    assert call("H5Dread", ctypes.c_int64(data), native, ctypes.c_int64(0), ctypes.c_int64(0),
                ctypes.c_int64(0), values) >= 0
    call("H5Sclose", ctypes.c_int64(space))
    call("H5Dclose", ctypes.c_int64(data))
    call("H5Fclose", ctypes.c_int64(file))
    return shape, array.array("f", values)


def write_text(path, text):
    with open(path, "w") as file:
        file.write(text)


def small_run(report, stages=("train", "validation")):
    """Three epochs of a small network on data/lin and data/lpt2; `report` is that section's inside."""
    files = {"train": "*", "validation": "000", "test": "*"}
    data = "".join(f"  {stage}: {{input: 'data/lin/{files[stage]}.npy', target: 'data/lpt2/{files[stage]}.npy'}}\n"
                   for stage in stages)
    return f"""
seed: 7
model:
  layers:
    - conv: {{channels: 4, kernel: 3}}
    - leaky_relu: 0.1
    - conv: {{channels: out, kernel: 3}}
data:
{data}  crop: 8
  input_pad: 2
train: {{epochs: 3, batch: 2, log_interval: 1}}
optimizer: {{name: adam, lr: 1e-3}}
compute: {{threads: 1}}
report: {{{report}}}
"""


def command(ranks, *arguments):
    line = [FIELDNET, *arguments]
    return line if ranks == 1 else [MPIRUN, "-n", str(ranks), *line]


class outcome:
    def __init__(self, code, output, seconds):
        self.code, self.output, self.seconds = code, output, seconds

    def messages(self):
        """Errors that the program itself printed, one per message."""
        return re.findall(r"^fieldnet: (?!warning).*", self.output, re.M)


# After a rank that ends with a failure mpirun sleeps for a second before it makes sure that all others have ended. The program's
# ranks have all said and saved what they had to by then.
IMPATIENT = {name: "0" for name in ("OMPI_MCA_odls_base_sigkill_timeout", "PRTE_MCA_odls_base_sigkill_timeout")}


# Seconds that a run may take: many, for machines that do much else. What hangs is noticed all the same.
LIMIT = 600


def run(ranks, *arguments, limit=LIMIT):
    start = time.monotonic()
    process = subprocess.Popen(command(ranks, *arguments), stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace", env={**os.environ, **IMPATIENT},
                               start_new_session=True)
    try:
        output, _ = process.communicate(timeout=limit)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, code = process.communicate()[0] + "\n[time limit]", 124
    except SystemExit:  # this test is ended
        os.killpg(process.pid, 9)
        raise
    return outcome(code, output, time.monotonic() - start)


def succeed(ranks, *arguments, limit=LIMIT):
    done = run(ranks, *arguments, limit=limit)
    check(done.code == 0, f"{' '.join(arguments)} on {ranks} ranks: exit code {done.code}", done.output)
    return done.output


def snapshot(root="."):
    """Names, sizes and times of everything below."""
    found = {}
    for path, names, files in os.walk(root):
        for name in names + files:
            full = os.path.join(path, name)
            info = os.lstat(full)
            found[full] = (info.st_size, info.st_mtime_ns if name in files else 0)
    return found
