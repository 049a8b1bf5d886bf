"""Training on a GPU: like the processor, the same bits after a restart, two ranks on one GPU. Skipped without one."""
import json
import os
import subprocess
import sys

from program import check, finish, folder, noise, run, write_datasets, write_npy, write_text

COMMON = """
seed: 7
data:
  train: {input: 'in/*.npy', target: 'out/*.npy'}
  crop: 8
  input_pad: %d
train: {epochs: %d, batch: 2, log_interval: 1}
optimizer: {name: adam, lr: 1.e-3}
compute: {threads: 1, deterministic: true}
report: {plots: false, tensorboard: false}
"""
FILES = {
    "vnet.yaml": COMMON % (8, 2) + "model: {name: vnet, options: {width: 8, depth: 1}}\n",
    "layers.yaml": COMMON % (2, 2) + """model:
  layers:
    - conv: {channels: 8, kernel: 3}
    - batch_norm
    - leaky_relu: 0.1
    - dropout: 0.3
    - conv: {channels: out, kernel: 3}
""",
    "cubes.yaml": """
seed: 7
data:
  kind: cubes
  cubes: {file: cubes.h5, train_seeds: 0-1, window: 4, remove_mean: true, newton_augmentation: 0.9}
model:
  layers:
    - conv: {channels: 8, kernel: 4, stride: 2}
    - batch_norm
    - leaky_relu: 0.1
    - linear: {channels: out}
loss: {name: bce_with_logits}
train: {epochs: 1, batch: 7, log_interval: 1}
optimizer: {name: adam, lr: 1.e-3}
compute: {threads: 1, deterministic: true}
report: {plots: false, tensorboard: false}
""",
}


def train(ranks, file, into, backend, code=0, **values):
    words = [w for key, value in values.items() for w in ("--set", f"{key.replace('__', '.')}={value}")]
    done = run(ranks, "train", file, "--set", f"folder={into}", "--set", f"compute.backend={backend}", *words)
    check(done.code == code, f"{into}: exit code {done.code}, expected {code}", done.output)
    return done


def has_gpu():
    done = run(1, "train", "layers.yaml", "--set", "folder=try", "--set", "compute.backend=cuda")
    if done.code in (8, 10):
        print(f"skipped: {done.output.strip().splitlines()[-1]}")
        return False
    return True


def steps(into):
    with open(f"{into}/metrics.jsonl") as file:
        return [e for e in map(json.loads, file) if e["event"] == "step"]


def same_steps(a, b, loss, norm, least):
    """Losses and norms of gradients within these parts of themselves."""
    one, two = steps(a), steps(b)
    check(len(one) == len(two) >= least, f"{a} and {b}: {len(one)} and {len(two)} steps")
    for x, y in zip(one, two):
        for name, part in ("loss", loss), ("gradient_norm", norm):
            if not check(abs(x[name] - y[name]) <= part * abs(x[name]),
                         f"{a} and {b}, step {x['step']}: {name} {x[name]} and {y[name]}"):
                return


def same_state(a, b):
    done = subprocess.run([os.environ["STATE_COMPARE"], f"{a}/checkpoint.h5", f"{b}/checkpoint.h5"],
                          capture_output=True, text=True)
    check(done.returncode == 0, f"{a} and {b}: states differ", done.stdout + done.stderr)


def trains_like_the_processor():
    """20 steps and more; sums are float32 on both, in another order."""
    for name in "vnet", "layers":
        train(1, f"{name}.yaml", f"{name}_cpu", "cpu")
        train(1, f"{name}.yaml", f"{name}_cuda", "cuda")
        same_steps(f"{name}_cpu", f"{name}_cuda", 1e-4, 1e-2, 20)


def repeats_and_resumes():
    for name in "vnet", "layers":
        train(1, f"{name}.yaml", f"{name}_again", "cuda")
        same_state(f"{name}_cuda", f"{name}_again")
        train(1, f"{name}.yaml", f"{name}_plain", "cuda", compute__graphs="no")
        same_state(f"{name}_cuda", f"{name}_plain")
        train(1, f"{name}.yaml", f"{name}_parts", "cuda", code=75, train__stop_after_steps=2)
        train(1, f"{name}.yaml", f"{name}_parts", "cuda")
        same_state(f"{name}_cuda", f"{name}_parts")


def converts_samples():
    """Fields turned, shifted and scaled by the device as the host does it: the same bits."""
    values = dict(data__augment="true", data__shift="4", data__add_std="0.1", data__mul_std="0.1",
                  data__input_norms="cosmology.dis", data__target_norms="cosmology.vel")
    for way in "host", "device":
        train(1, "layers.yaml", f"convert_{way}", "cuda", data__convert=way, **values)
    same_state("convert_host", "convert_device")
    # slices of cubes; inputs in the type of the first layer, written by who converts or by a cast
    for precision in "f32", "bf16", "f16":
        for way in "host", "device":
            train(1, "cubes.yaml", f"cubes_{precision}_{way}", "cuda", data__convert=way, compute__precision=precision,
                  compute__first_layer_f32="false")
        same_state(f"cubes_{precision}_host", f"cubes_{precision}_device")


def two_ranks_on_one_gpu():
    """Its own choice where there is one GPU; more ranks than GPUs are an error unless meant."""
    one = dict(os.environ)
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    done = train(2, "layers.yaml", "refused", "cuda", code=10)
    check("compute.share_devices" in done.output, "2 ranks, 1 GPU: no remedy", done.output)
    train(2, "layers.yaml", "cpu2", "cpu")
    train(2, "layers.yaml", "cuda2", "cuda", compute__share_devices="true")
    same_steps("cpu2", "cuda2", 1e-4, 1e-2, 10)
    # gradients rounded on the GPU and on the processor; the same bits whoever adds
    narrow = dict(compute__share_devices="true", train__gradient_dtype="bf16", train__bucket_bytes=300, train__first_bucket_bytes=100)
    train(2, "layers.yaml", "cpu_narrow", "cpu", train__gradient_dtype="bf16")
    train(2, "layers.yaml", "cuda_narrow", "cuda", **narrow)
    same_steps("cpu_narrow", "cuda_narrow", 1e-2, 5e-2, 10)
    train(2, "layers.yaml", "cuda_sent", "cuda", train__reduction="ranks", **narrow)
    same_state("cuda_narrow", "cuda_sent")
    os.environ.clear()
    os.environ.update(one)


with folder():
    for kind, seed in ("in", 1), ("out", 2):
        for index in range(3):
            write_npy(f"{kind}/{index}.npy", (3, 16, 16, 16), noise(10 * seed + index, 3 * 16 ** 3))
    for name, text in FILES.items():
        write_text(name, text)
    write_datasets("cubes.h5", (16, 16, 16), ((f"{theory}_seed{seed:04d}", noise(100 + 2 * seed + i, 16 ** 3))
                                              for seed in range(2) for i, theory in enumerate(("gr", "newton"))))
    if not has_gpu():
        os.chdir("/")
        sys.exit(77)
    trains_like_the_processor()
    repeats_and_resumes()
    converts_samples()
    two_ranks_on_one_gpu()
finish()
