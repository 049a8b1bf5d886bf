"""fieldnet data stats, pack, verify, inspect and synth cubes, beside numpy and h5py: values, ranks,
kills and everything that can be wrong with the sources."""
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

try:
    import h5py
    import numpy as np
except ImportError:
    other = "/usr/bin/python3"  # a distribution's packages are there
    if os.path.exists(other) and not os.environ.get("FIELDNET_TRIED"):
        os.environ["FIELDNET_TRIED"] = "1"
        os.execv(other, [other, os.path.abspath(__file__)])
    print("skipped: numpy and h5py are not installed")
    sys.exit(77)

from program import LIMIT, check, command, finish, folder, run, succeed

CONFIG, DATA, VERIFY = 2, 3, 7
EDGE = 12
SEEDS = range(5)
THEORIES = ("gr", "newton")


def raw_path(root, seed, theory, snap):
    return f"{root}/seed{seed:04d}/{theory}/{theory}_snap{snap}_phi.h5"


def raw(root, seed, theory, snap):
    with h5py.File(raw_path(root, seed, theory, snap)) as file:
        return file["data"][...]


def put_raw(root, seed, theory, snap, cells, **storage):
    path = raw_path(root, seed, theory, snap)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=cells, **storage)


def contents(path):
    """Every dataset and attribute of a file, comparable."""
    found = {}

    def visit(name, item):
        for key, value in item.attrs.items():
            found[name, key] = np.asarray(value).tobytes()
        if isinstance(item, h5py.Dataset):
            found[name] = (str(item.dtype), item.shape, item[...].tobytes())

    with h5py.File(path) as file:
        visit("/", file)
        file.visititems(visit)
    return found


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & (2**64 - 1)
    return value


def expect(name, code, patterns, *arguments, ranks=(2,), seconds=100, prepare=None):
    for size in ranks:
        if prepare:
            prepare()
        done = run(size, "data", *arguments)
        title = f"{name} on {size} ranks"
        check(done.code == code, f"{title}: expected exit code {code}, found {done.code}", done.output)
        for pattern in patterns:
            check(pattern in done.output, f"{title}: '{pattern}' is not in the message", done.output)
        check(len(done.messages()) == 1, f"{title}: expected one message", done.output)
        check(done.seconds < seconds, f"{title}: took {done.seconds:.0f} s")


def synthetic():
    amount = ["--edge", str(EDGE), "--difference", "0.05", "--mean-offset", "0.02", "--box", "200"]
    for size, root in (1, "set"), (3, "other"):
        succeed(size, "data", "synth", "cubes", root, "--seeds", "0-4", "--snap", "004", *amount)
        succeed(size, "data", "synth", "cubes", root, "--seeds", "0-4", "--snap", "002", "--redshift", "10",
                *amount)
    for seed in SEEDS:
        pair = [raw("set", seed, theory, "004") for theory in THEORIES]
        for theory, cells in zip(THEORIES, pair):
            check(open(raw_path("set", seed, theory, "004"), "rb").read() ==
                  open(raw_path("other", seed, theory, "004"), "rb").read(),
                  "a synthetic cube depends on the number of ranks")
        std = pair[1].std()
        check(abs(pair[1].mean()) < 1e-12 * std, "a Newtonian potential has a mean")
        check(1e-6 < std < 1e-4, f"potential of unphysical size: {std}")
        difference = pair[0] - pair[1]
        check(abs(difference.mean() / std - 0.02) < 1e-12, "--mean-offset is not the offset")
        check(abs(difference.std() / std - 0.05) < 1e-12, "--difference is not the rms of the difference")
    check(not np.array_equal(raw("set", 0, "gr", "004"), raw("set", 1, "gr", "004")), "seeds are alike")
    with h5py.File(raw_path("set", 0, "gr", "004")) as file:
        check(file["data"].dtype == "<f8" and file["data"].chunks == (EDGE,) * 3, "raw files differ in kind")
    expect("raw files that exist", DATA, ["exists"], "synth", "cubes", "set", "--seeds", "4-5", "--snap", "004")
    check(not os.path.exists("set/seed0005"), "something was written beside files that exist")


def statistics():
    cubes = np.array([raw("set", s, t, "004") for s in range(3) for t in THEORIES])
    mean = cubes.mean()
    variance = ((cubes - mean) ** 2).mean()
    texts = set()
    for size in 1, 2, 3, 4:
        succeed(size, "data", "stats", "set", f"s{size}.h5", "--snap", "004,002", "--redshift", "1,10",
                "--seeds", "0-4", "--train-seeds", "0-2")
        with h5py.File(f"s{size}.h5") as file:
            group = file["snap004"]
            texts.add(open(f"s{size}.h5", "rb").read())
            check(abs(group.attrs["mean"] - mean) < 1e-13 * np.sqrt(variance), "mean is not numpy's")
            check(abs(group.attrs["variance"] / variance - 1) < 1e-13, "variance is not numpy's")
            check(group.attrs["std"] == np.sqrt(group.attrs["variance"]), "std")
            check(group.attrs["seeds"] == b"0-2" and group.attrs["redshift"] == 1, "record of statistics")
            check(list(group["values"]) == [group.attrs[k] for k in ("mean", "std", "variance")], "values")
            check(np.allclose(group["mean"], cubes.mean(axis=(1, 2, 3)), rtol=0, atol=1e-19), "means of cubes")
            check(np.allclose(group["variance"], cubes.var(axis=(1, 2, 3)), rtol=1e-13), "variances of cubes")
            check(file["snap002"].attrs["redshift"] == 10, "redshift of the second snap")
    check(len(texts) == 1, "statistics depend on the number of ranks")
    return mean


PACKS = {
    "plain": [],
    "original": ["--layout", "original"],
    "chunks": ["--chunk", "3,5,12,7"],
    "gzip": ["--compress", "3", "--chunk", "1,5,12,7"],
    "double": ["--dtype", "f64", "--chunk", "1,4,12,12"],
    "centred": ["--remove-mean"],
}


def packed(path, seed, theory):
    with h5py.File(path) as file:
        if "cubes" not in file:
            return file[f"{theory}_seed{seed:04d}"][...]
        row = list(zip(file["seed"][...], file["theory"][...])).index((seed, theory == "gr"))
        return file["cubes"][row]


def prepared():
    for name, options in PACKS.items():
        for size in 1, 3:
            path = f"{name}{size}.h5"
            succeed(size, "data", "pack", "set", path, "--snap", "004", "--seeds", "0-4", "--statistics", "s1.h5",
                    "--redshift", "1", *options)
            check(same_bytes(path, f"{name}1.h5"), f"{name}: the file depends on the number of ranks")
            check(not [f for f in os.listdir() if f.startswith(path + ".")], f"{name}: something is left over")
        succeed(2, "data", "verify", path, "set")
        succeed(1, "data", "verify", path)
        with h5py.File(path) as file:
            a = dict(file.attrs)
            order = [n for n in file] if name == "original" else list(zip(file["seed"], file["theory"]))
            want = ([f"{t}_seed{s:04d}" for t in THEORIES for s in SEEDS] if name == "original"
                    else [(s, t == "gr") for s in SEEDS for t in THEORIES])
            check(order == want, f"{name}: order of cubes", str(order))
            check(a["complete"] == 1 and a["redshift"] == 1 and a["statistics_seeds"] == b"0-2", f"{name}: record")
            check(a["remove_mean"] == (name == "centred"), f"{name}: remove_mean")
            source = fnv(raw("set", 0, "gr", "004").tobytes())
            stored = (file["gr_seed0000"].attrs["source_checksum"] if name == "original"
                      else file["source_checksum"][0])
            check(int(stored) == source, f"{name}: source checksum")
            if name == "original":
                check(all(d.chunks is None and d.id.get_offset() for d in file.values()), "original: contiguous")
        for seed in SEEDS:
            for theory in THEORIES:
                cells = raw("set", seed, theory, "004")
                if name == "centred":  # numpy sums in another order
                    want = (cells - cells.mean()) / a["std"]
                    good = np.allclose(packed(path, seed, theory), want, rtol=0, atol=1e-6)
                else:
                    want = (cells - a["mean"]) / a["std"]
                    want = want if name == "double" else want.astype("f4")
                    good = np.array_equal(packed(path, seed, theory), want)
                check(good, f"{name}: {theory} of seed {seed} is not what numpy makes")
    # statistics computed on the way, and random cubes straight into a file: the same
    succeed(2, "data", "pack", "set", "computed.h5", "--snap", "004", "--seeds", "0-4", "--train-seeds", "0-2",
            "--redshift", "1")
    check(same_bytes("computed.h5", "plain1.h5"), "statistics computed while packing differ")
    succeed(3, "data", "synth", "cubes", "synth.h5", "--layout", "packed", "--seeds", "0-4", "--train-seeds", "0-2",
            "--edge", str(EDGE), "--difference", "0.05", "--mean-offset", "0.02", "--box", "200")
    a, b = contents("synth.h5"), contents("plain1.h5")
    check(a["cubes"] == b["cubes"] and a["/", "mean"] == b["/", "mean"], "random cubes straight into a file differ")
    succeed(1, "data", "pack", "set", "asis.h5", "--snap", "004", "--seeds", "1,3", "--statistics", "none",
            "--dtype", "f64")
    check(np.array_equal(packed("asis.h5", 3, "newton"), raw("set", 3, "newton", "004")), "cubes as they are")
    expect("training seeds not told", CONFIG, ["--train-seeds"], "pack", "set", "x.h5", "--snap", "004",
           "--seeds", "0-4")


def growth(z, omega_m):
    """Flat LCDM by quadrature: D ~ H(a) int da / (a H)^3 (Heath 1977)."""
    def factor(a):
        x = np.linspace(0, a, 200001)[1:]
        hubble = np.sqrt(omega_m / x**3 + 1 - omega_m)
        y = 1 / (x * hubble) ** 3
        return hubble[-1] * (y.sum() - y[-1] / 2) * (x[1] - x[0])
    return factor(1 / (1 + z)) / factor(1)


def differences():
    factors = [growth(z, 0.3) * (1 + z) for z in (10, 1)]
    with open("table.txt", "w") as file:
        file.write("# z D\n")
        for z in np.linspace(20, 0, 81):
            file.write(f"{z} {growth(z, 0.3):.15g}\n")
    for name, option, tolerance in ("lcdm", "lcdm:0.3", 1e-9), ("table", "table.txt", 1e-5):
        arguments = ["--difference", "002,004", "--redshift", "10,1", "--growth", option]
        succeed(2, "data", "stats", "set", f"s_{name}.h5", *arguments, "--seeds", "0-1")
        succeed(2, "data", "pack", "set", f"d_{name}.h5", *arguments, "--seeds", "0-4", "--dtype", "f64",
                "--statistics", f"s_{name}.h5")
        succeed(1, "data", "verify", f"d_{name}.h5", "set", "--sample", "3")
        want = [raw("set", s, t, "002") / factors[0] - raw("set", s, t, "004") / factors[1]
                for s in range(2) for t in THEORIES]
        with h5py.File(f"d_{name}.h5") as file:
            mean, std = file.attrs["mean"], file.attrs["std"]
            check(np.allclose(file.attrs["growth"], factors, rtol=tolerance), f"{name}: growth factors")
            check(abs(std / np.std(want) - 1) < 100 * tolerance, f"{name}: std of differences")
            check(np.allclose(file["cubes"][3] * std + mean, want[3], rtol=0, atol=1e3 * tolerance * std),
                  f"{name}: differences")
    expect("a redshift outside the table", DATA, ["table.txt", "outside"], "stats", "set", "x.h5", "--difference",
           "002,004", "--redshift", "30,1", "--growth", "table.txt", "--seeds", "0")


def same_bytes(a, b):
    return open(a, "rb").read() == open(b, "rb").read()


def progress():
    try:
        with open("killed.h5.progress", "rb") as file:
            return file.read()
    except OSError:
        return b""


def kill_once(arguments, delay):
    """Killed `delay` after this start has written something, or not at all if the job is done before."""
    before = progress()
    process = subprocess.Popen(command(2, "data", *arguments), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    begun = time.monotonic()
    while process.poll() is None and progress() == before and time.monotonic() < begun + LIMIT:
        time.sleep(0.002)
    time.sleep(delay)
    # The ranks before their launcher, in groups of their own, could say anything.
    try:
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            ranks = [int(rank) for rank in file.read().split()]
    except OSError:
        ranks = []
    for pid in [*ranks, process.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()
    return os.path.exists("killed.h5.progress")


def killed():
    """Killed again and again while cubes are written, started again each time: the same bytes in the
    end as those of a job that was not."""
    seeds, random_delay = "0-29", random.Random(5)
    succeed(2, "data", "synth", "cubes", "many", "--seeds", seeds, "--edge", "48")
    for name, options in ("packed", []), ("gzip", ["--compress", "6"]), ("original", ["--layout", "original"]):
        arguments = ["pack", "many", "killed.h5", "--snap", "000", "--seeds", seeds, "--train-seeds", "0-4", *options]
        succeed(2, "data", *[a if a != "killed.h5" else f"whole_{name}.h5" for a in arguments])
        interrupted = 0
        for start in range(60):
            if start >= 6 and interrupted > 0:
                break
            if os.path.exists("killed.h5") and not os.path.exists("killed.h5.progress"):
                os.unlink("killed.h5")  # done before it was killed
            if not kill_once(arguments, random_delay.uniform(0, 0.15)):
                continue
            interrupted += 1
            if os.path.exists("killed.h5"):
                done = run(1, "data", "verify", "killed.h5")
                check(done.code == DATA and "incomplete" in done.output, f"{name}: half a file was read", done.output)
        print(f"{name}: killed {interrupted} times while cubes were written", flush=True)
        check(interrupted > 0, f"{name}: never killed while cubes were written")
        if os.path.exists("killed.h5.progress") or not os.path.exists("killed.h5"):
            output = succeed(2, "data", *arguments)
            kept = re.search(r"(\d+) cubes were there", output)
            print(f"{name}: {kept.group(1) if kept else 0} cubes kept", flush=True)
        check(same_bytes("killed.h5", f"whole_{name}.h5"), f"{name}: not the file of a single start")
        check(sorted(f for f in os.listdir() if f.startswith("killed")) == ["killed.h5"], f"{name}: leftovers")
        expect(f"{name}: a finished file", DATA, ["killed.h5 exists"], *arguments)
        os.unlink("killed.h5")
    half_done()


def half_done():
    """A record of the progress file believed only if the bytes are there."""
    shutil.copytree("set", "late")
    cells = raw("late", 4, "newton", "004")
    broken = cells.copy()
    broken[1, 2, 3] = np.nan
    put_raw("late", 4, "newton", "004", broken)
    arguments = ["pack", "late", "late.h5", "--snap", "004", "--seeds", "0-4", "--statistics", "s1.h5"]
    expect("NaN in a raw cube", DATA, ["newton_snap004", "seed0004", "[1, 2, 3]"], *arguments)
    check(os.path.exists("late.h5.progress"), "the cubes before the bad one were lost")
    expect("other options", CONFIG, ["other options", "remove mean"], *arguments, "--remove-mean")
    with h5py.File("late.h5") as file:
        offset = file["cubes"].id.get_offset()
    with open("late.h5", "r+b") as file:
        file.seek(offset + 100)
        file.write(b"junk")
    put_raw("late", 4, "newton", "004", cells, chunks=(EDGE,) * 3)
    output = succeed(2, "data", *arguments)
    check("8 cubes were there" in output, "which cubes were believed", output)
    check(contents("late.h5")["cubes"] == contents("plain1.h5")["cubes"], "a damaged cube was believed")


def wrong_sources():
    arguments = ["pack", "bad", "bad.h5", "--snap", "004", "--seeds", "0-4", "--statistics", "s1.h5"]

    def fresh():
        shutil.rmtree("bad", ignore_errors=True)
        shutil.copytree("set", "bad")

    def missing():
        fresh()
        shutil.rmtree("bad/seed0002")

    def shape():
        fresh()
        put_raw("bad", 3, "gr", "004", np.zeros((EDGE, EDGE, EDGE - 1)))

    def kind():
        fresh()
        put_raw("bad", 3, "gr", "004", np.zeros((EDGE,) * 3, dtype="i4"))

    def short():
        fresh()
        os.truncate(raw_path("bad", 1, "newton", "004"), 5000)

    def folder_is_file():
        fresh()
        shutil.rmtree("bad/seed0003")
        open("bad/seed0003", "w").close()

    def closed():
        fresh()
        os.chmod("bad/seed0003", 0)

    expect("a missing seed", DATA, ["seed0002/gr", "seed0002/newton"], *arguments, ranks=(1,), prepare=missing)
    expect("a missing seed", DATA, ["seed0002"], *arguments, ranks=(3,), prepare=missing)
    expect("a wrong shape", DATA, ["seed0003", "[12, 12, 12]", "[12, 12, 11]"], *arguments, prepare=shape)
    expect("integers", DATA, ["seed0003", "<i4"], *arguments, prepare=kind)
    expect("a truncated cube", DATA, ["seed0001", "truncated"], *arguments, prepare=short)
    expect("a file for a folder", DATA, ["seed0003", "Not a directory"], *arguments, prepare=folder_is_file)
    if os.geteuid() != 0:
        expect("a closed folder", DATA, ["seed0003", "Permission denied"], *arguments, prepare=closed)
        os.chmod("bad/seed0003", 0o700)
    fresh()
    check(not [f for f in os.listdir() if f.startswith("bad.h5")], "something was left of what could not begin")
    full_disk()


def full_disk():
    """Files may not become as large as this one would."""
    limit, before = 20 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)
    arguments = ["pack", "many", "full.h5", "--snap", "000", "--seeds", "0-29", "--statistics", "0,1e-5", "--dtype", "f64"]
    for extra in [], ["--compress", "1"]:
        for ranks in 1, 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            try:
                done = run(ranks, "data", *arguments, *extra)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            check(done.code == DATA and "no room" in done.output and "full.h5" in done.output,
                  f"no room {extra} on {ranks} ranks: exit code {done.code}", done.output)
            check(len(done.messages()) == 1, f"no room {extra}: one message", done.output)
            check(not os.path.exists("full.h5"), "no room: a file without room was left")
        output = succeed(2, "data", *arguments, *extra)
        check(not extra or "60 cubes were there" in output, "cubes compressed before were lost", output)
        os.unlink("full.h5")


def compared():
    shutil.copy("plain1.h5", "changed.h5")
    with h5py.File("changed.h5", "r+") as file:
        file["cubes"][3, 4, 5, 6] += 0.5
    expect("a changed cell", VERIFY, ["1 of 10 cubes", "newton_seed0001", "1 cells", "[4, 5, 6]", "0.5", "checksum"],
           "verify", "changed.h5", "set")
    expect("a changed cell, without sources", VERIFY, ["newton_seed0001", "not those that were written"], "verify",
           "changed.h5")
    succeed(1, "data", "verify", "changed.h5", "set", "--sample", "1")
    shutil.copytree("set", "moved")
    cells = raw("moved", 2, "gr", "004")
    put_raw("moved", 2, "gr", "004", cells + 1e-6)
    expect("a changed source", VERIFY, ["gr_seed0002", "1728 cells", "not the one that was packed"], "verify",
           "original3.h5", "moved")
    os.unlink(raw_path("moved", 4, "gr", "004"))
    expect("a missing source", DATA, ["gr_snap004"], "verify", "original3.h5", "moved")
    os.truncate("changed.h5", 40000)
    expect("a prepared file cut short", DATA, ["changed.h5"], "verify", "changed.h5", "set")


def inspected():
    output = succeed(1, "data", "inspect", "gzip1.h5", "--png", "plane.png", "--slice", "1,3")
    for text in "chunks [1, 5, 12, 7], shuffle, gzip 3", "complete = 1", 'statistics_seeds = "0-2"', "/source_checksum":
        check(text in output, f"inspect: {text}", output)
    check(open("plane.png", "rb").read(8) == b"\x89PNG\r\n\x1a\n", "inspect: no picture")
    with h5py.File("many.h5", "w") as file:
        for i in range(2000):
            file[f"gr_seed{i:04d}"] = np.full((2, 2, 2), i, dtype="f4")
        file["gr_seed0000"][0, 0, 0] = np.nan
    output = succeed(1, "data", "inspect", "many.h5")
    check("2000 x <f4 [2, 2, 2], contiguous" in output, "inspect: summary", output)
    check("(1 not finite)" in output, "inspect: NaN", output)
    check(len(output.splitlines()) < 100, "inspect: thousands of datasets are not summarised")


def real_pair():
    path = os.path.join(os.environ.get("FIELDNET_DATA", ""), "gevolution_phi")
    if not os.path.isdir(path):
        print("skipped: the real pair is not there")
        return
    pattern = ["--pattern", "{theory}_lcdm_snap{snap}_phi.h5"]
    succeed(2, "data", "pack", path, "real.h5", "--snap", "000", "--seeds", "0", "--train-seeds", "all", *pattern)
    succeed(2, "data", "verify", "real.h5", path)
    with h5py.File("real.h5") as file:
        gr, newton, std = file["cubes"][0].astype("f8"), file["cubes"][1].astype("f8"), file.attrs["std"]
        # cubes page, 2.11
        check(abs(gr.mean() - newton.mean() - 1.0e-2) < 5e-4, "the offset of the real pair")
        check(abs((gr - newton).std() - 1.4e-4) < 2e-5, "the difference of the real pair")
        check(abs(std - 1.0872e-5) < 1e-9, "the std of the real pair")


with folder():
    synthetic()
    statistics()
    prepared()
    differences()
    killed()
    wrong_sources()
    compared()
    inspected()
    real_pair()
finish()
