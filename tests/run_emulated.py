"""Training on the emulated device: equal to the CPU, the same bits in every order and after a restart, clear ends."""
import json
import os
import re
import subprocess

from program import check, finish, folder, noise, run, succeed, write_npy, write_text

COMMON = """
seed: 7
data:
  train: {input: 'in/*.npy', target: 'out/*.npy'}
  crop: 8
  input_pad: %d
train: {epochs: 2, batch: 2, log_interval: 1}
optimizer: {name: adam, lr: 1.e-3}
compute: {threads: 1, backend: emulated}
report: {plots: false, tensorboard: false}
"""

VNET = COMMON % 8 + "model: {name: vnet, options: {width: 4, depth: 1}}\n"

LAYERS = COMMON % 2 + """model:
  layers:
    - conv: {channels: 4, kernel: 3}
    - batch_norm: {}
    - leaky_relu: 0.1
    - dropout: 0.3
    - conv: {channels: out, kernel: 3}
"""

# What lies beside the parameters: sums of micro-batches, averaged weights, statistics to go back to.
BESIDE = dict(train__batch=2, train__accumulate=2, train__ema_decay=0.9, train__on_nan="skip",
              optimizer__name="nadam")
SMALL_BUCKETS = dict(train__bucket_bytes=300, train__first_bucket_bytes=100)


def settings(values):
    return [word for key, value in values.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


def train(ranks, file, into, code=0, **values):
    done = run(ranks, "train", file, "--set", f"folder={into}", *settings(values))
    check(done.code == code, f"{into}: exit code {done.code}, expected {code}", done.output)
    return done


def with_environment(function, *arguments, environment, **values):
    os.environ.update(environment)
    try:
        return function(*arguments, **values)
    finally:
        for name in environment:
            del os.environ[name]


def steps(into):
    with open(f"{into}/metrics.jsonl") as file:
        return [e for e in map(json.loads, file) if e["event"] == "step"]


def same_steps(a, b, loss, norm):
    """Losses and norms within these parts of themselves."""
    one, two = steps(a), steps(b)
    check(len(one) == len(two) and len(one) > 0, f"{a} and {b}: numbers of steps")
    for x, y in zip(one, two):
        for name, part in ("loss", loss), ("gradient_norm", norm), ("gradient_first", norm), ("gradient_last", norm):
            if not check(abs(x[name] - y[name]) <= part * abs(x[name]),
                         f"{a} and {b}, step {x['step']}: {name} {x[name]} and {y[name]}"):
                return


def same_state(a, b):
    done = subprocess.run([os.environ["STATE_COMPARE"], f"{a}/checkpoint.h5", f"{b}/checkpoint.h5"],
                          capture_output=True, text=True)
    check(done.returncode == 0, f"{a} and {b}: states differ", done.stdout + done.stderr)


def trains_like_the_processor():
    """24 steps. Both round float32 sums in their own order; the cpu backend's differ more, and one kink that is met in
    another branch changes a gradient by a thousandth."""
    for name, ranks, values in (("vnet", 1, {}), ("layers", 1, BESIDE), ("layers", 2, SMALL_BUCKETS),
                                ("layers", 2, dict(train__sync_batch_norm="true", **BESIDE))):
        host, emulated = (f"{name}{ranks}_{len(values)}_{b}" for b in ("reference", "emulated"))
        train(ranks, f"{name}.yaml", host, compute__backend="reference", **values)
        train(ranks, f"{name}.yaml", emulated, **values)
        same_steps(host, emulated, 1e-5, 1e-4)


def narrow_types():
    """24 steps in 16 bits and TF32 stay near those in float32; f16 finds its loss scale, and states keep it."""
    beside = dict(BESIDE, optimizer__name="adam")
    for precision, part in ("tf32", 1e-3), ("bf16", 0.02), ("f16", 0.005):
        train(1, "layers.yaml", precision, compute__precision=precision, **beside)
    train(1, "layers.yaml", "f32", **beside)
    for precision, part in ("tf32", 1e-3), ("bf16", 0.02), ("f16", 0.005):
        same_steps("f32", precision, part, 0.1)
    check(steps("f32")[0]["loss"] != steps("f16")[0]["loss"], "f16 computes in f32")
    train(1, "layers.yaml", "f16_parts", code=75, compute__precision="f16", train__stop_after_steps=3, **beside)
    train(1, "layers.yaml", "f16_parts", compute__precision="f16", **beside)
    same_state("f16", "f16_parts")
    # 2 (y - t) / cells, times 65536, exceeds 65504 for targets of this size: steps are left out until the scale fits.
    done = train(1, "layers.yaml", "f16_large", compute__precision="f16", data__train__target="large/*.npy",
                 report__verbosity="detail")
    left_out = done.output.count("gradients exceed f16")
    check(2 <= left_out <= 12 and len(steps("f16_large")) == 24 and steps("f16_large")[-1]["gradient_norm"] > 0,
          f"{left_out} steps left out", done.output)
    done = run(1, "train", "layers.yaml", "--set", "folder=f16_cpu", "--set", "compute.precision=f16", "--set",
               "compute.backend=cpu")
    check(done.code in (2, 8) and "compute.precision" in done.output, "f16 on cpu is refused", done.output)


def order_does_not_matter():
    """Another order of what events leave open, and no replay: the same bits."""
    train(1, "layers.yaml", "order0", **BESIDE)
    for seed in 1, 2:
        with_environment(train, 1, "layers.yaml", f"order{seed}", environment={"FIELDNET_EMULATED_ORDER": str(seed)},
                         **BESIDE)
        same_state("order0", f"order{seed}")
    train(1, "layers.yaml", "plain", compute__graphs="no", **BESIDE)
    same_state("order0", "plain")
    train(2, "layers.yaml", "two0", **SMALL_BUCKETS)
    with_environment(train, 2, "layers.yaml", "two1", environment={"FIELDNET_EMULATED_ORDER": "3"}, **SMALL_BUCKETS)
    same_state("two0", "two1")
    # 24 samples in 12 batches on two ranks: their weights in the mean are one half, whoever multiplies
    train(2, "layers.yaml", "direct", train__allreduce="device", **SMALL_BUCKETS)
    same_state("two0", "direct")
    with_environment(train, 2, "layers.yaml", "single", environment={"FIELDNET_MPI_THREADS": "single"}, **SMALL_BUCKETS)
    same_state("two0", "single")
    # of two ranks the sum is the same whoever adds
    for adder in "mpi", "ranks", "node":
        train(2, "layers.yaml", f"two_{adder}", train__reduction=adder, **SMALL_BUCKETS)
        same_state("two0", f"two_{adder}")


def skips_as_the_processor_does():
    """Steps that are not finite: the same ones, for the same reasons, as where the host decides before it goes on; then
    the same bits after a restart, in another order, and kernel by kernel."""
    def said(done):
        return re.findall(r"warning: (step .*; step skipped)", done.output)

    for ranks, values in (1, {}), (1, BESIDE), (2, BESIDE):
        beside = dict(values, train__on_nan="skip", data__train__target="infinite/*.npy")
        name = f"skips{ranks}_{len(values)}"
        host = said(train(ranks, "layers.yaml", f"{name}_host", compute__backend="reference", **beside))
        there = said(train(ranks, "layers.yaml", name, **beside))
        check(host == there and len(host) > 0, f"{name}: steps skipped", f"{host} and {there}")
        train(ranks, "layers.yaml", f"{name}_parts", code=75, train__stop_after_steps=3, **beside)
        train(ranks, "layers.yaml", f"{name}_parts", **beside)
        same_state(name, f"{name}_parts")
        with_environment(train, ranks, "layers.yaml", f"{name}_order", environment={"FIELDNET_EMULATED_ORDER": "7"},
                         compute__graphs="no", **beside)
        same_state(name, f"{name}_order")
    # One batch's gradient overflows, though its loss does not; the next step is on its way when that is found out.
    beside = dict(data__train__input="overflow/*.npy", data__shuffle="false", model__init_weight_std=1e-5,
                  optimizer__lr=1e-9)
    for backend in "reference", "emulated":
        for ranks in 1, 2:
            done = train(ranks, "one.yaml", f"overflow_{backend}{ranks}", 4, compute__backend=backend, **beside)
            check("step 5 (epoch 1): the gradient of rank 0 is not finite, though its loss is; first bad gradient: 0.weight"
                  in done.output, f"a gradient that overflows, {backend}, {ranks} ranks", done.output)


def never_waits_for_all():
    """Between the launches of two steps the host waits once, for what became of the step before, while the device has a
    whole backward pass to run. With micro-batches it waits for room to write inputs, too. From the third step on all is
    replayed, the network and the end of the step, but for inputs, sums of micro-batches and norms for the report."""
    for name, values in ("plain", dict(train__log_interval=5)), ("beside", BESIDE), ("f16", dict(compute__precision="f16")):
        with_environment(train, 1, "vnet.yaml", f"traced_{name}", environment={"FIELDNET_EMULATED_TRACE": "trace"},
                         **values)
        updates, waits, launches, replays = 0, [], set(), 0
        per_epoch = 6 if values is BESIDE else 12
        plain = {"convert", "sum_squares", "sum_squares_finish"} | ({"add_scaled"} if values is BESIDE else set())
        for line in open("trace"):
            if line.startswith("launch"):
                launches.add(line[7:].strip())
                continue
            if line.startswith("replay"):
                replays += 1
                continue
            if line.startswith("update"):
                if updates % per_epoch:
                    check(0 < len(waits) <= (4 if values is BESIDE else 1) and min(waits) >= 100,
                          f"{name}, step {updates + 1}: the device had left {waits}")
                check(updates < 2 or (launches <= plain and replays == (3 if values is BESIDE else 2)),
                      f"{name}, step {updates + 1}: {replays} replays, {sorted(launches)} launched")
                updates, waits, launches, replays = updates + 1, [], set(), 0
            else:
                waits.append(int(line.split()[2]))
        check(updates == 2 * per_epoch, f"{updates} steps traced")


def resumes():
    for ranks in 1, 2:
        train(ranks, "layers.yaml", f"whole{ranks}", **BESIDE)
        train(ranks, "layers.yaml", f"parts{ranks}", code=75, train__stop_after_steps=2, **BESIDE)
        train(ranks, "layers.yaml", f"parts{ranks}", **BESIDE)
        same_state(f"whole{ranks}", f"parts{ranks}")


def narrow_gradients():
    """Gradients rounded to bf16 on the device: near those in float32, the same bits whoever adds and in every order."""
    beside = dict(SMALL_BUCKETS, train__gradient_dtype="bf16", report__verbosity="detail")
    done = train(2, "layers.yaml", "wide", **SMALL_BUCKETS)
    check("as f32 in" in done.output and "shared memory" in done.output, "what is summed is told", done.output)
    done = train(2, "layers.yaml", "narrow", **beside)
    check("as bf16 in" in done.output, "bf16 is told", done.output)
    same_steps("wide", "narrow", 0.01, 0.05)
    check(steps("wide")[-1]["loss"] != steps("narrow")[-1]["loss"], "bf16 gradients are float32")
    train(2, "layers.yaml", "narrow_sent", train__reduction="ranks", **beside)
    same_state("narrow", "narrow_sent")
    for name, environment in ("order", {"FIELDNET_EMULATED_ORDER": "5"}), ("single", {"FIELDNET_MPI_THREADS": "single"}):
        with_environment(train, 2, "layers.yaml", f"narrow_{name}", environment=environment, **beside)
        same_state("narrow", f"narrow_{name}")
    train(2, "layers.yaml", "narrow_parts", code=75, train__stop_after_steps=3, **beside)
    train(2, "layers.yaml", "narrow_parts", **beside)
    same_state("narrow", "narrow_parts")
    train(2, "layers.yaml", "narrow_cpu", compute__backend="cpu", **beside)
    same_steps("narrow_cpu", "narrow", 0.01, 0.05)
    # one rank's infinite loss stops both
    done = train(2, "layers.yaml", "infinite", 4, data__train__target="infinite/*.npy", **beside)
    check("not finite" in done.output, "what is not finite is seen", done.output)


def averages_are_tested():
    """A test of averaged weights on the device finds what the processor finds."""
    found = []
    for backend in "cpu", "emulated":
        output = succeed(1, "test", "layers.yaml", *settings(dict(
            folder="whole1", data__test__input="in/*.npy", data__test__target="out/*.npy", test__use_ema="true",
            test__overwrite="true", compute__backend=backend)))
        found.append([float(x) for x in re.findall(r"\d+\.\d{3,}", output)])
    check(len(found[0]) == len(found[1]) >= 12 and all(abs(x - y) <= 2e-5 * x for x, y in zip(*found)),
          "tests on cpu and emulated", str(found))


def fails_clearly():
    def one_error(done, *words):
        messages = done.messages()
        check(len(messages) == 1 and all(word in messages[0] for word in words), f"one error with {words}", done.output)

    one_error(with_environment(train, 1, "layers.yaml", "memory", 6, environment={"FIELDNET_EMULATED_MEMORY": "100000"}),
              "device", "train.batch", "100000")
    for ranks in 1, 2:
        one_error(with_environment(train, ranks, "layers.yaml", f"lost{ranks}", 10,
                                   environment={"FIELDNET_EMULATED_LOST": "700"}), "device does not answer")
    done = with_environment(train, 2, "layers.yaml", "few", 10, environment={"FIELDNET_EMULATED_DEVICES": "1"})
    one_error(done, "2 ranks on this node and 1 device", "compute.share_devices")
    with_environment(train, 2, "layers.yaml", "shared", environment={"FIELDNET_EMULATED_DEVICES": "1"},
                     compute__share_devices="true", train__epochs=1)
    # A run whose device was lost goes on from its last state.
    done = with_environment(train, 1, "layers.yaml", "again", 10, environment={"FIELDNET_EMULATED_LOST": "1200"},
                            checkpoint__every_minutes=1e-9)
    train(1, "layers.yaml", "again", checkpoint__every_minutes=1e-9)
    train(1, "layers.yaml", "never", checkpoint__every_minutes=1e-9)
    same_state("again", "never")


with folder():
    for kind, seed in ("in", 1), ("out", 2):
        for index in range(3):
            write_npy(f"{kind}/{index}.npy", (3, 16, 16, 16), noise(10 * seed + index, 3 * 16 ** 3))
    for index in range(3):
        write_npy(f"large/{index}.npy", (3, 16, 16, 16), noise(30 + index, 3 * 16 ** 3, 3e4))
    for index in range(3):
        write_npy(f"infinite/{index}.npy", (3, 16, 16, 16), noise(10 * index, 3 * 16 ** 3, 1e30 if index == 2 else 1))
    spike = noise(3, 3 * 16 ** 3)
    spike[100] = 3e23
    for index in range(3):
        write_npy(f"overflow/{index}.npy", (3, 16, 16, 16), spike if index == 1 else noise(index, 3 * 16 ** 3))
    write_text("vnet.yaml", VNET)
    write_text("one.yaml", COMMON % 0 + "model: {layers: [{conv: {channels: out, kernel: 1}}]}\n")
    write_text("layers.yaml", LAYERS)
    trains_like_the_processor()
    narrow_types()
    order_does_not_matter()
    skips_as_the_processor_does()
    never_waits_for_all()
    resumes()
    narrow_gradients()
    averages_are_tested()
    fails_clearly()
finish()
