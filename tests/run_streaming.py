"""Test and prediction of fields in tiles of any size, through files: the same fields as whole, in
memory that does not grow with the field."""
import array
import os
import sys

from program import (FIELDNET, check, command, finish, folder, noise, read_hdf5, read_npy, run, succeed,
                     write_hdf5, write_npy, write_text)

QUIET = ["report.plots=false", "report.tensorboard=false", "compute.threads=1", "test.overwrite=true"]


def words(settings):
    return [word for setting in (*QUIET, *settings) for word in ("--set", setting)]


def fieldnet(ranks, what, *settings):
    return succeed(ranks, what, "run.yaml", *words(settings))


def difference(a, b):
    """Largest, relative to the largest value."""
    if not check(a[0] == b[0], f"shapes {a[0]} and {b[0]}"):
        return 1
    return max(abs(x - y) for x, y in zip(a[1], b[1])) / max(abs(x) for x in b[1])


def losses(name):
    with open(f"{name}/test.csv") as file:
        return [row.split(",") for row in file.read().split()]


NETS = """folder: %s
model: {name: %s, options: {width: 4, depth: 1}}
data:
  train: {input: "in/*.npy", target: "out/*.npy"}
  test: {input: "in/*.npy", target: "out/*.npy"}
  crop: 8
  input_pad: %d
train: {epochs: 1, batch: 3}
optimizer: {lr: 0.01}
"""


def tiles():
    """The tile that is chosen, others, one rank or three: the same outputs and losses."""
    edge = 32
    for f in range(2):
        for side in ("in", "out"):
            write_npy(f"{side}/{f}.npy", (2, edge, edge, edge), noise(f + (side == "out") * 9, 2 * edge**3, 2))
    for net, pad in (("vnet", 8), ("unet", 10)):
        write_text("run.yaml", NETS % (net, net, pad))
        fieldnet(1, "train", "data.crop=16")
        fieldnet(1, "test", "test.tile=0", "test.output=crops")
        crops, crop_losses = read_npy(f"{net}/crops/out/1_out.npy"), losses(net)
        for name, ranks, settings in (("chosen", 1, []), ("chosen on 3 ranks", 3, []), ("16", 1, ["test.tile=16"]),
                                      ("unequal", 2, ["test.tile=[32,8,16]"]),
                                      ("streamed", 1, ["test.spectra=false"]),
                                      ("streamed crops", 2, ["test.spectra=false", "test.tile=0"]),
                                      ("unfolded", 1, ["compute.fold_norms=false"]),
                                      ("checked", 1, ["compute.check=true"]),
                                      ("bf16", 1, ["compute.precision=bf16"])):
            said = fieldnet(ranks, "test", "test.output=tiles", "report.verbosity=detail", *settings)
            found = read_npy(f"{net}/tiles/out/1_out.npy")
            worst = difference(found, crops)
            limit = 2e-2 if name == "bf16" else 2e-6
            check(worst <= limit, f"{net}, {name}: differs by {worst:.2g}")
            for row, expected in zip(losses(net)[1:], crop_losses[1:]):
                for a, b in zip(row[1:], expected[1:]):
                    check(abs(float(a) - float(b)) <= (limit + 1e-6) * abs(float(b)), f"{net}, {name}: loss {a}, not {b}")
            if name in ("chosen", "bf16"):
                check("crops of 32 x 32 x 32 cells" in said, f"{net}: no larger tile was chosen", said)
            if ranks == 3:  # two files for three ranks: those that share a file need a tile each
                check("crops of 32 x 32 x 32" not in said, f"{net}: one tile for two ranks", said)
        alone = ["data.test.target=null"]
        fieldnet(1, "predict", "test.output=npy", *alone)
        fieldnet(2, "predict", "test.output=hdf5", "test.format=hdf5", *alone)
        predicted = read_npy(f"{net}/npy/1_out.npy")
        check(difference(predicted, crops) <= 2e-6, f"{net}: prediction and test differ")
        check(difference(read_hdf5(f"{net}/hdf5/1_out.h5", "output"), predicted) <= 2e-6, f"{net}: HDF5 and npy differ")
    # inputs in one packed dataset, streamed
    both = array.array("f")
    for f in range(2):
        both.extend(read_npy(f"in/{f}.npy")[1])
    write_hdf5("packed.h5", "/x", (2, 2, edge, edge, edge), both)
    fieldnet(1, "predict", "test.output=packed", "data.test.input=packed.h5:/x", "test.tile=8", *alone)
    check(difference(read_npy(f"{net}/packed/1_out.npy"), predicted) <= 2e-6, "packed input")
    # what cannot be keeps data.crop, or is told
    for settings in (["data.crop_step=8"], ["data.crop=[8,8,16]", "data.crop_start=0"]):
        said = fieldnet(1, "test", "report.verbosity=detail", "test.output=kept", *settings)
        check("crops of" not in said, f"{settings}: another tile was chosen", said)
    for tile, told in (("[8,8]", "test.tile has 2 values"), ("[8,0,8]", "stands alone"), ("-8", "test.tile")):
        done = run(1, "test", "run.yaml", *words([f"test.tile={tile}"]))
        check(done.code == 2 and told in done.output, f"test.tile={tile}: exit code {done.code}", done.output)


def leftovers():
    """A prediction that cannot be written is an error and leaves no file."""
    net = "vnet"
    write_text("run.yaml", NETS % ("vnet", "vnet", 8))
    os.makedirs(f"{net}/broken", exist_ok=True)
    os.chmod(f"{net}/broken", 0o500)
    done = run(1, "predict", "run.yaml", *words(["test.output=broken", "data.test.target=null"]))
    os.chmod(f"{net}/broken", 0o700)
    if os.getuid() != 0:
        check(done.code == 3 and "0_out.npy" in done.output, f"no room: exit code {done.code}", done.output)
        check(os.listdir(f"{net}/broken") == [], "files were left", str(os.listdir(f"{net}/broken")))


def peak(*arguments):
    """Largest resident memory of the program, bytes."""
    process = os.spawnv(os.P_NOWAIT, FIELDNET, command(1, *arguments))
    _, status, usage = os.wait4(process, 0)
    check(status == 0, f"{arguments}: status {status}")
    return usage.ru_maxrss * 1024


def memory():
    """Fields four times as long need no more memory, whatever the formats."""
    write_text("run.yaml", """folder: run_memory
model: {layers: [{conv: {channels: 4, kernel: 3}}, {batch_norm: {}}, {conv: {channels: out, kernel: 1}}]}
data:
  train: {input: "short.npy", target: "short.npy"}
  crop: [32, 32, 32]
  input_pad: 1
train: {epochs: 1, batch: 1}
optimizer: {lr: 0.001}
""")
    plane = noise(1, 64 * 64)
    for name, length in (("short", 256), ("long", 1024)):
        write_npy(f"{name}.npy", (3, length, 64, 64), plane * (3 * length))
        write_hdf5(f"{name}.h5", "x", (3, length, 64, 64), plane * (3 * length))
    bytes_of = lambda length: 3 * length * 64 * 64 * 4
    fieldnet(1, "train")
    for source in ("npy", "h5"):
        for target in ("npy", "hdf5"):
            found = [peak("predict", "run.yaml", *words([
                "test.output=" + name, f"data.test.input={name}.{source}", f"test.format={target}"]))
                for name in ("short", "long")]
            print(f"{source} to {target}: {found[0] / 2**20:.0f} and {found[1] / 2**20:.0f} MiB, fields of "
                  f"{bytes_of(256) / 2**20:.0f} and {bytes_of(1024) / 2**20:.0f} MiB", flush=True)
            check(found[1] - found[0] < (bytes_of(1024) - bytes_of(256)) / 6, f"{source} to {target}: memory grew")
    shape, values = read_npy("run_memory/long/long_out.npy")
    check(shape == (3, 1024, 64, 64), f"shape {shape}")
    short = read_npy("run_memory/short/short_out.npy")[1]
    cells = 64 * 64  # all planes of the input are alike, so are those of the output
    for c in range(3):
        worst = max(abs(x - y) for x, y in zip(values[(c * 1024 + 500) * cells:(c * 1024 + 600) * cells],
                                               short[c * 256 * cells:(c * 256 + 100) * cells]))
        check(worst < 1e-5, f"channel {c}: differs by {worst:.2g}")


with folder():
    for part in (tiles, leftovers, memory):
        if len(sys.argv) < 2 or part.__name__ in sys.argv[1:]:
            part()
finish()
