"""fieldnet test and predict against a second computation in Python: convolution, norms, losses,
spectra and the place of every cell; and against themselves: tiles, ranks, batches, formats."""
import array
import cmath
import csv
import math
import os
import shutil
import sys
import time

from program import (check, count_of, finish, folder, noise, read_hdf5, read_npy, run, snapshot, succeed,
                     write_hdf5, write_npy, write_text)

QUIET = ["report.plots=false", "report.tensorboard=false", "compute.threads=1", "test.overwrite=true"]


def fieldnet(ranks, what, *settings, file="run.yaml"):
    words = [word for setting in (*QUIET, *settings) for word in ("--set", setting)]
    return succeed(ranks, what, file, *words)


def table(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def same(name, a, b, relative=0.0):
    """Equal fields; relative to the largest value."""
    if not check(a[0] == b[0], f"{name}: shapes {a[0]} and {b[0]}"):
        return
    scale = max(abs(x) for x in b[1])
    worst = max(abs(x - y) for x, y in zip(a[1], b[1]))
    check(worst <= relative * scale, f"{name}: differ by {worst / scale:.2g} of the largest value")


def near(name, a, b, relative):
    check(abs(a - b) <= relative * abs(b), f"{name}: {a!r} is not {b!r}")


# ---- the second computation ---------------------------------------------------------------------


def cells_of(size):
    indices = [()]
    for n in size:
        indices = [index + (i,) for index in indices for i in range(n)]
    return indices


def convolve(field, size, weight, bias, kernel):
    """Periodic convolution, kernel cells from -kernel // 2; field: a list per channel, weight
    [out, in, kernel...] flat, as PyTorch lays it out."""
    indices, taps = cells_of(size), cells_of([kernel] * len(size))
    number = {index: i for i, index in enumerate(indices)}
    out = []
    for o in range(len(bias)):
        values = [bias[o]] * len(indices)
        for c, channel in enumerate(field):
            for t, tap in enumerate(taps):
                w = weight[(o * len(field) + c) * len(taps) + t]
                for i, index in enumerate(indices):
                    values[i] += w * channel[number[tuple(
                        (x + k - kernel // 2) % n for x, k, n in zip(index, tap, size))]]
        out.append(values)
    return out


def channels_of(shape, values):
    cells = count_of(shape[1:])
    return [list(values[c * cells:(c + 1) * cells]) for c in range(shape[0])]


def fourier(values, size):
    """Discrete Fourier transform, axis by axis."""
    values = [complex(v) for v in values]
    stride = 1
    for n in reversed(size):
        turn = [cmath.exp(-2j * math.pi * k / n) for k in range(n)]
        for start in range(len(values)):
            if start // stride % n:
                continue
            line = values[start:start + n * stride:stride]
            values[start:start + n * stride:stride] = [
                sum(x * turn[k * i % n] for i, x in enumerate(line)) for k in range(n)]
        stride *= n
    return values


def spectra(a, b, size):
    """Modes, power of a and b and cross power per bin i < |n| <= i + 1, summed over channels."""
    bins = min(size) // 2
    modes, power = [0] * bins, [[0.0] * bins for _ in range(3)]
    transforms = [(fourier(x, size), fourier(y, size)) for x, y in zip(a, b)]
    for i, index in enumerate(cells_of(size)):
        length = math.sqrt(sum((k if 2 * k <= n else k - n) ** 2 for k, n in zip(index, size)))
        bin_ = math.ceil(length) - 1
        if length == 0 or bin_ >= bins:
            continue
        modes[bin_] += 1
        for x, y in transforms:
            power[0][bin_] += abs(x[i]) ** 2
            power[1][bin_] += abs(y[i]) ** 2
            power[2][bin_] += (x[i] * y[i].conjugate()).real
    return modes, [[p / m for p, m in zip(line, modes)] for line in power]


def mean_square(a, b):
    return sum((x - y) ** 2 for p, q in zip(a, b) for x, y in zip(p, q)) / sum(len(p) for p in a)


# ---- one network that Python can follow, in 1, 2 and 3 dimensions -----------------------------


def followed(spatial, edge, ranks, packed=False):
    """conv 3 from 3 input channels in two fields to 2 + 1 output channels, norms on both sides."""
    name = f"{spatial}d{'p' if packed else ''}"
    size, files, unit = (edge,) * spatial, 3, 2.5
    stored = [[], []]
    for f in range(files):
        for side, channels in ((0, 2), (0, 1), (1, 2), (1, 1)):
            values = noise(17 * f + 5 * side + channels, channels * edge**spatial, unit)
            stored[side].append(channels_of((channels, *size), values))
            if not packed:
                write_npy(f"{name}/{'in' if side == 0 else 'out'}{channels}/{f}/dis.npy", (channels, *size), values)
    if packed:
        for i, (side, channels) in enumerate(((0, 2), (0, 1), (1, 2), (1, 1))):
            values = array.array("f")
            for f in range(files):
                for c in stored[side][2 * f + i % 2]:
                    values.extend(c)
            write_hdf5(f"{name}_{side}{channels}.h5", "/group/fields", (files, channels, *size), values)
        pattern = lambda side, channels: f"{name}_{side}{channels}.h5:/group/fields"
    else:
        pattern = lambda side, channels: f"{name}/{'in' if side == 0 else 'out'}{channels}/*/dis.npy"
    lists = [f'["{pattern(side, 2)}", "{pattern(side, 1)}"]' for side in (0, 1)]
    write_text("run.yaml", f"""folder: run_{name}
model:
  layers:
    - conv: {{channels: out, kernel: 3}}
data:
  input_norms: [cosmology.dis, identity]
  target_norms: [cosmology.dis, identity]
  norm_options: {{dis_std: {unit}}}
  train: {{input: {lists[0]}, target: {lists[1]}}}
  test: {{input: {lists[0]}, target: {lists[1]}}}
  crop: {[edge // 2] * spatial}
  input_pad: 1
train: {{epochs: 2, batch: 2, ema_decay: 0.9}}
optimizer: {{lr: 0.01}}
test: {{box_size: 100}}
""")
    fieldnet(1, "train")
    fieldnet(ranks, "test", "train.batch=3")  # 2^spatial crops: a short batch at the end
    state = f"run_{name}/state_2.h5"
    losses, rows = table(f"run_{name}/test.csv"), table(f"run_{name}/test_spectra.csv")
    power = [[0.0] * (edge // 2) for _ in range(3)]
    for average in (False, True):
        group = "/ema" if average else "/model"
        if average:
            fieldnet(1, "test", "test.use_ema=true", "test.output=averaged")
        weight, bias = (read_hdf5(state, f"{group}/0.{part}")[1] for part in ("weight", "bias"))
        for f in range(files):
            raw = stored[0][2 * f] + stored[0][2 * f + 1]
            target = stored[1][2 * f] + stored[1][2 * f + 1]
            # growth factor 1 at redshift 0: the norm divides by dis_std
            normed = [[x / unit for x in c] for c in raw[:2]] + raw[2:]
            output = convolve(normed, size, weight, bias, 3)
            loss = mean_square(output, [[x / unit for x in c] for c in target[:2]] + target[2:])
            output = [[x * unit for x in c] for c in output[:2]] + output[2:]
            for channels, part in ((2, output[:2]), (1, output[2:])):
                where = f"run_{name}/{'averaged' if average else 'outputs'}/" + (
                    f"{name}_1{channels}/group/fields/{f}_out.npy" if packed else f"out{channels}/{f}/dis_out.npy")
                if check(os.path.exists(where), f"{where} was not written"):
                    same(where, read_npy(where), ((channels, *size), sum(part, [])), 1e-6)
            if average:
                continue
            near(f"{name} file {f}: loss", float(losses[f]["loss"]), loss, 1e-6)
            near(f"{name} file {f}: physical loss", float(losses[f]["loss_physical"]), mean_square(output, target), 1e-6)
            near(f"{name} file {f}: loss of the input", float(losses[f]["input_loss_physical"]),
                 mean_square(raw, target), 1e-6)
            modes, found = spectra(output, target, size)
            for line, more in zip(power, found):
                for b, value in enumerate(more):
                    line[b] += value / files
    near(f"{name}: mean loss", float(losses[-1]["loss"]), sum(float(r["loss"]) for r in losses[:-1]) / files, 1e-6)
    scale = 100.0**spatial / edge ** (2 * spatial)
    for b, row in enumerate(rows):
        near(f"{name} bin {b}: modes", float(row["modes"]), modes[b], 0)
        near(f"{name} bin {b}: power of the output", float(row["power_output"]), scale * power[0][b], 1e-5)
        near(f"{name} bin {b}: power of the target", float(row["power_target"]), scale * power[1][b], 1e-5)
        near(f"{name} bin {b}: transfer", float(row["transfer"]), math.sqrt(power[0][b] / power[1][b]), 1e-5)
        check(abs(float(row["correlation"]) - power[2][b] / math.sqrt(power[0][b] * power[1][b])) < 1e-5,
              f"{name} bin {b}: correlation {row['correlation']}")
    check(len(rows) == edge // 2, f"{name}: {len(rows)} bins")


def dimensions():
    followed(1, 16, 1)
    followed(2, 12, 2)
    followed(3, 8, 3)
    followed(2, 8, 2, packed=True)
    check(sorted(os.listdir("run_1d/outputs")) == ["out1", "out2"], "names of outputs",
          str(os.listdir("run_1d/outputs")))


# ---- tiles, ranks, formats ----------------------------------------------------------------------

TILES = """folder: run_tiles
model: {name: vnet, options: {width: 4}}
data:
  train: {input: "lin/*/dis.npy", target: "nonlin/*/dis.npy"}
  validation: {input: "lin/*/dis.npy", target: "nonlin/*/dis.npy"}
  test: {input: "lin/*/dis.npy", target: "nonlin/*/dis.npy"}
  input_norms: cosmology.dis
  target_norms: cosmology.dis
  crop: 24
  input_pad: 20
train: {epochs: 1, batch: 4}
optimizer: {lr: 0.001}
"""


def fields_below(folder_name):
    found = {}
    for path, _, files in os.walk(folder_name):
        for name in files:
            full = os.path.join(path, name)
            found[os.path.relpath(full, folder_name)] = read_npy(full)
    return found


def equal_folders(name, a, b, relative=0.0):
    first, second = fields_below(a), fields_below(b)
    if check(first and sorted(first) == sorted(second), f"{name}: {sorted(first)} and {sorted(second)}"):
        for path in first:
            same(f"{name}: {path}", first[path], second[path], relative)


def tiles():
    edge = 48
    for f, sim in enumerate(("simA", "simB")):
        write_npy(f"lin/{sim}/dis.npy", (1, edge, edge, edge), noise(f, edge**3, 5))
        write_npy(f"nonlin/{sim}/dis.npy", (1, edge, edge, edge), noise(10 + f, edge**3, 5))
    write_text("run.yaml", TILES)
    fieldnet(2, "train")
    fieldnet(1, "test", "test.output=tiled")
    expected = ["nonlin/simA/dis_out.npy", "nonlin/simB/dis_out.npy"]
    check(sorted(fields_below("run_tiles/tiled")) == expected, "names of outputs", str(os.listdir("run_tiles/tiled")))
    fieldnet(1, "test", "data.crop=48", "train.batch=1", "test.output=whole")
    equal_folders("tiles and the whole field", "run_tiles/tiled", "run_tiles/whole", 3e-7)
    for ranks in (2, 3):
        fieldnet(ranks, "test", f"test.output=ranks{ranks}")
        equal_folders(f"{ranks} ranks and 1", f"run_tiles/ranks{ranks}", "run_tiles/tiled")
    # without the folder of the targets the inputs' names are relative to their own
    fieldnet(2, "predict", "test.output=predicted", "data.test.target=null")
    for sim in ("simA", "simB"):
        same(f"predict and test: {sim}", read_npy(f"run_tiles/predicted/{sim}/dis_out.npy"),
             read_npy(f"run_tiles/tiled/nonlin/{sim}/dis_out.npy"))
    # more margin than needed: the surplus must not be pasted over the neighbours' cells
    write_text("wide.yaml", open("run.yaml").read().replace("crop: 24", "crop: [24, 48, 48]").replace(
        "input_pad: 20", "input_pad: [22, 22, 20, 20, 20, 20]"))
    fieldnet(1, "test", "test.output=wide", "train.batch=1", file="wide.yaml")
    fieldnet(1, "predict", "test.output=wider", "data.test.target=null", "train.batch=1", file="wide.yaml")
    for sim in ("simA", "simB"):
        same(f"predict and test with a wide margin: {sim}", read_npy(f"run_tiles/wider/{sim}/dis_out.npy"),
             read_npy(f"run_tiles/wide/nonlin/{sim}/dis_out.npy"))
    fieldnet(1, "predict", "test.output=hdf5", "data.test.target=null", "test.format=hdf5")
    same("HDF5 and npy", read_hdf5("run_tiles/hdf5/simA/dis_out.h5", "output"),
         read_npy("run_tiles/predicted/simA/dis_out.npy"))
    said = fieldnet(2, "predict", "test.output=other", "data.test.target=null", "data.target_norms=identity")
    check(said.count("data.target_norms is not as in training: [identity] was") == 1, "changed norm: no warning", said)
    said = fieldnet(2, "test", "test.output=other", "data.target_norms=log")
    check(said.count("the loss is not finite") == 1, "loss that is not finite: no warning", said)
    # a part of the field: zeros elsewhere
    fieldnet(2, "test", "test.output=part", "data.crop_start=[0,24,0]", "data.crop_stop=[24,48,24]",
             "train.batch=1")
    for sim in ("simA", "simB"):
        part, whole = (read_npy(f"run_tiles/{f}/nonlin/{sim}/dis_out.npy")[1] for f in ("part", "tiled"))
        inside = lambda x, y, z: x < 24 and y >= 24 and z < 24
        wrong = sum(part[i] != (whole[i] if inside(*index) else 0)
                    for i, index in enumerate(cells_of((edge,) * 3)))
        check(wrong == 0, f"part of a field: {wrong} cells are wrong in {sim}")


def validation():
    """Every sample once, whatever the division: 5 files of 3 crops on 1 to 4 ranks, batches of 2."""
    for f in range(5):
        for side in ("vin", "vout"):
            write_npy(f"{side}/{f}.npy", (1, 12), noise(f + (side == "vout") * 50, 12))
    write_text("run.yaml", """folder: run_val
model: {layers: [{conv: {channels: out, kernel: 3, pad: 1}}]}
data:
  train: {input: "vin/*.npy", target: "vout/*.npy"}
  validation: {input: "vin/*.npy", target: "vout/*.npy"}
  test: {input: "vin/*.npy", target: "vout/*.npy"}
  crop: 4
  input_pad: 2
train: {epochs: 1, batch: 2}
optimizer: {name: sgd, lr: 1.0e-30}
""")
    values = []
    for ranks in (1, 2, 3, 4):
        fieldnet(ranks, "train", f"folder=run_val{ranks}")
        values.append(float(table(f"run_val{ranks}/metrics.csv")[-1]["validation_loss"]))
        near(f"validation on {ranks} ranks", values[-1], values[0], 1e-6)
    fieldnet(2, "test", "folder=run_val1")
    # zeros at the margin of a crop spoil its outer cells, which must not be pasted over good ones
    fieldnet(2, "predict", "folder=run_val1", "data.test.target=null", "test.output=predicted")
    for f in range(5):
        same(f"predict and test with an output larger than the crop, file {f}",
             read_npy(f"run_val1/predicted/{f}_out.npy"), read_npy(f"run_val1/outputs/vout/{f}_out.npy"))
    near("validation and test", float(table("run_val1/test.csv")[-1]["loss"]), values[0], 1e-6)


def super_resolution():
    """Twice the resolution: a 1x1 convolution of a linear resampling that Python repeats."""
    edge, files = 8, 2
    for f in range(files):
        write_npy(f"coarse/{f}.npy", (1, edge, edge), noise(f, edge**2))
        write_npy(f"fine/{f}.npy", (1, 2 * edge, 2 * edge), noise(9 + f, 4 * edge**2))
    write_text("run.yaml", """folder: run_sr
model:
  layers:
    - resample: {factor: 2, narrow: true}
    - conv: {channels: out, kernel: 1}
data:
  train: {input: "coarse/*.npy", target: "fine/*.npy"}
  test: {input: "coarse/*.npy", target: "fine/*.npy"}
  scale_factor: 2
  crop: 4
  input_pad: 1
train: {epochs: 1, batch: 2}
optimizer: {lr: 0.01}
""")
    fieldnet(1, "train")
    fieldnet(2, "test")
    weight, bias = (read_hdf5("run_sr/state_1.h5", f"/model/1.{part}")[1][0] for part in ("weight", "bias"))
    for f in range(files):
        coarse, fine = read_npy(f"coarse/{f}.npy")[1], read_npy(f"fine/{f}.npy")[1]
        # cell i of the fine grid lies at (i + 1/2) / 2 - 1/2 of the coarse one
        taps = lambda i: [((i - 1) // 2 % edge, 0.25 if i % 2 == 0 else 0.75), ((i + 1) // 2 % edge, 0.75 if i % 2 == 0 else 0.25)]
        output = [bias + weight * sum(u * v * coarse[x * edge + y] for x, u in taps(i) for y, v in taps(j))
                  for i in range(2 * edge) for j in range(2 * edge)]
        same(f"super-resolution, file {f}", read_npy(f"run_sr/outputs/fine/{f}_out.npy"), ((1, 2 * edge, 2 * edge), output), 1e-6)
        upsampled = [(x - bias) / weight for x in output]
        near("super-resolution: loss of the input", float(table("run_sr/test.csv")[f]["input_loss_physical"]),
             mean_square([upsampled], [fine]), 1e-5)
        near("super-resolution: loss", float(table("run_sr/test.csv")[f]["loss"]), mean_square([output], [fine]), 1e-6)
    rows = table("run_sr/test_spectra.csv")
    check(len(rows) == edge, f"super-resolution: {len(rows)} bins of the fine grid, expected {edge}")


def overwriting():
    """What a test or a prediction wrote stays unless asked; refused before anything is computed."""
    for f in range(2):
        for side in ("oin", "oout"):
            write_npy(f"{side}/{f}.npy", (1, 12), noise(f + (side == "oout") * 50, 12))
    write_text("run.yaml", """folder: run_over
model: {layers: [{conv: {channels: out, kernel: 3}}]}
data:
  train: {input: "oin/*.npy", target: "oout/*.npy"}
  test: {input: "oin/*.npy", target: "oout/*.npy"}
  crop: 4
  input_pad: 1
train: {epochs: 1, batch: 2}
optimizer: {lr: 0.01}
report: {plots: false, tensorboard: false}
""")
    fieldnet(1, "train")

    def refused(what, named, *settings):
        before = snapshot("run_over")
        for ranks in (1, 2):
            done = run(ranks, what, "run.yaml", *[word for setting in settings for word in ("--set", setting)])
            title = f"{what} {settings} on {ranks} ranks"
            check(done.code == 2 and len(done.messages()) == 1, f"{title}: exit code {done.code}", done.output)
            check(f"run_over/{named} exists" in done.output and "test.overwrite" in done.output,
                  f"{title}: {named} is not named", done.output)
            check("weights of" not in done.output, f"{title}: refused late", done.output)
        check(snapshot("run_over") == before, f"{what} {settings}: files changed")

    succeed(2, "test", "run.yaml")  # not asked, for there is nothing to overwrite
    refused("test", "test.csv")
    refused("test", "test.csv", "test.output=elsewhere")
    os.remove("run_over/test.csv")
    refused("test", "test_spectra.csv")
    os.remove("run_over/test_spectra.csv")
    refused("test", "outputs/oout/0_out.npy")
    os.remove("run_over/outputs/oout/0_out.npy")
    refused("test", "outputs/oout/1_out.npy")
    succeed(1, "test", "run.yaml", "--set", "test.write_fields=false")
    alone = ["--set", "data.test.target=null"]
    succeed(1, "predict", "run.yaml", *alone)  # under other names: those of the inputs
    refused("predict", "outputs/0_out.npy", "data.test.target=null")
    succeed(1, "predict", "run.yaml", *alone, "--set", "test.format=hdf5")
    succeed(1, "predict", "run.yaml", *alone, "--set", "test.output=more")
    values = read_npy("run_over/more/0_out.npy")
    write_npy("run_over/more/0_out.npy", (1, 12), [0.0] * 12)
    succeed(1, "predict", "run.yaml", *alone, "--set", "test.output=more", "--set", "test.overwrite=true")
    same("overwritten on demand", read_npy("run_over/more/0_out.npy"), values)
    # always deterministic, and that is what is told
    for given, told in (([], "precision f32, deterministic"),
                        (["--set", "compute.deterministic=false"], "compute.deterministic: false has no effect")):
        said = succeed(1, "predict", "run.yaml", *alone, "--set", "test.output=more", "--set", "test.overwrite=true",
                       "--set", "report.verbosity=detail", *given)
        check(told in said, f"{told}: not told", said)
        same(f"{told}: outputs", read_npy("run_over/more/0_out.npy"), values)


with folder():
    for part in (overwriting, dimensions, tiles, validation, super_resolution):
        if len(sys.argv) < 2 or part.__name__ in sys.argv[1:]:
            start = time.monotonic()
            part()
            print(f"{part.__name__}: {time.monotonic() - start:.1f} s", flush=True)
finish()
