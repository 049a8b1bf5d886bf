"""Training on cubes end to end: learns what can be learned, resumes, divides, fits into memory."""
import json
import os
import subprocess

from program import check, finish, folder, noise, run, succeed, write_datasets, write_text

EDGE = 64


def write_cubes(path, seeds, edge=EDGE):
    """Both theories of a seed are one random field, of which GR has a little more everywhere."""
    field = noise(5, 4099)  # repeated: neighbouring planes differ, as 4099 is prime
    count = edge ** 3

    def cubes():
        for seed in range(seeds):
            newton = (field[seed:] * (count // len(field) + 2))[:count]
            yield f"gr_seed{seed:04d}", type(field)("f", (x + 0.05 for x in newton))
            yield f"newton_seed{seed:04d}", newton

    write_datasets(path, (edge, edge, edge), cubes())


RUN = """
seed: 3
data:
  kind: cubes
  prefetch: 2
  cubes:
    file: cubes.h5
    train_seeds: 0-3
    validation_seeds: 4
    test_seeds: 5
    window: 4
    slices_per_cube: 48
loss: {{name: bce_with_logits}}
train: {{epochs: 2, batch: 16, log_interval: 1}}
optimizer: {{name: adam, lr: 1.e-3, betas: [0.5, 0.999], weight_decay: 1.e-11}}
compute: {{threads: 1}}
report: {{plots: false, tensorboard: false}}
{}
"""

RACOON = RUN.format("model: {name: racoon, options: {width: 4, dropout: 0.25}}")
# Batch statistics over all ranks and no dropout: what a step computes does not depend on who does it.
PLAIN = RUN.format("model: {name: racoon, options: {width: 4, dropout: 0}}").replace(
    "train: {", "train: {sync_batch_norm: true, ")


# Whole cubes through a network in three dimensions.
WHOLE = RUN.format("""model:
  layers:
    - conv: {channels: 4, kernel: 8, stride: 8}
    - leaky_relu: 0.2
    - linear: {channels: out}
""").replace("slices_per_cube: 48", "sample: cube")


def settings(**values):
    return [word for key, value in values.items()
            for word in ("--set", f"{key.replace('__', '.')}={value}")]


def train(ranks, file, into, **values):
    return succeed(ranks, "train", file, "--set", f"folder={into}", *settings(**values))


def events(into, kind):
    with open(f"{into}/metrics.jsonl") as file:
        return [e for e in map(json.loads, file) if e["event"] == kind]


def same_state(a, b, what):
    done = subprocess.run([os.environ["STATE_COMPARE"], f"{a}/checkpoint.h5", f"{b}/checkpoint.h5"],
                          capture_output=True, text=True)
    check(done.returncode == 0, f"{what}: states differ", done.stdout + done.stderr)


def learns_what_is_easy():
    """Newton cubes of zeros: more than 95 of 100 slices of a seed never seen are told apart."""
    for ranks in 1, 2:
        into = f"easy{ranks}"
        train(ranks, "racoon.yaml", into, data__cubes__newton_augmentation=0, train__epochs=3)
        last = events(into, "epoch")[-1]
        check(last["validation_accuracy"] > 0.95, f"{ranks} ranks learn too little", str(last))
        # Each wrong slice costs ln 2 at least, so loss and accuracy must fit together.
        check(last["validation_loss"] >= 0.693 * (1 - last["validation_accuracy"]),
              "accuracy does not go with the loss", str(last))


def whole_cubes():
    for ranks in 1, 2:
        into = f"whole_cubes{ranks}"
        train(ranks, "whole.yaml", into, data__cubes__newton_augmentation=0, train__batch=2, train__epochs=8)
        last = events(into, "epoch")[-1]
        check(last["validation_accuracy"] == 1 and last["step"] == 8 * 4 // ranks,
              f"whole cubes on {ranks} ranks", str(last))


def resumes_inside_an_epoch():
    """24 steps per epoch on one rank, 12 on two; stopped after 7, resumed, stopped in epoch 2."""
    for ranks in 1, 2:
        whole, parts = f"whole{ranks}", f"parts{ranks}"
        train(ranks, "racoon.yaml", whole)
        for stop in 7, 11:
            done = run(ranks, "train", "racoon.yaml", "--set", f"folder={parts}",
                       *settings(train__stop_after_steps=stop))
            check(done.code == 75, f"stop after {stop} steps: exit code {done.code}", done.output)
        train(ranks, "racoon.yaml", parts)
        same_state(whole, parts, f"{ranks} ranks, resumed")


def ranks_do_not_matter():
    """One step per epoch with all samples: the same step on 1, 2 and 3 ranks."""
    losses = {}
    for ranks in 1, 2, 3:
        into = f"ranks{ranks}"
        train(ranks, "plain.yaml", into, train__epochs=4, data__cubes__slices_per_cube=6,
              train__batch=48 // ranks)
        rows = events(into, "epoch")
        check(rows[-1]["step"] == 4, f"{ranks} ranks: one step per epoch", str(rows[-1]))
        losses[ranks] = [row[key] for row in rows for key in ("train_loss", "validation_loss")]
    for ranks in 2, 3:
        worst = max(abs(a - b) / a for a, b in zip(losses[1], losses[ranks]))
        check(worst < 1e-4, f"{ranks} ranks differ by {worst:.1e}",
              f"{losses[1]} -- {losses[ranks]}")


def other_ranks_go_on():
    """A state of two ranks inside an epoch goes on with one, and the other way round."""
    for first, second in (2, 1), (1, 2):
        into = f"moved{first}"
        done = run(first, "train", "plain.yaml", "--set", f"folder={into}",
                   *settings(train__stop_after_steps=5))
        check(done.code == 75, "stop on {first} ranks", done.output)
        train(second, "plain.yaml", into)
        check(events(into, "epoch")[-1]["epoch"] == 2, f"{first} then {second} ranks")


def needs_no_more_memory_for_more_cubes():
    """36 cubes through room for 8: resident memory as with 8 cubes, and no more epoch by epoch."""
    cube = 4 * EDGE ** 3
    write_cubes("many.h5", 20)
    usual = dict(data__cubes__file="many.h5", data__cubes__validation_seeds=18, data__cubes__test_seeds=19,
                 data__cubes__slices_per_cube=16, data__read_memory=8 * cube, train__epochs=4)
    for ranks in 1, 2:
        peak = {}
        for seeds in 4, 18:
            into = f"memory{ranks}_{seeds}"
            train(ranks, "racoon.yaml", into, data__cubes__train_seeds=f"0-{seeds - 1}", **usual)
            steps = events(into, "step")
            last = {e["epoch"]: e["memory_peak"] for e in steps}
            peak[seeds] = last[4]
            print(f"{ranks} ranks, {2 * seeds} cubes ({2 * seeds * cube / 1e6:.1f} MB): resident at most " +
                  ", ".join(f"{last[e] / 1e6:.1f} MB" for e in (1, 2, 3, 4)) + " by epoch", flush=True)
            # The program of the validation after epoch 1 takes some memory once.
            check(last[4] - last[2] < cube, f"{ranks} ranks: memory grows by epoch", str(last))
        # 28 MB of cubes more.
        check(peak[18] - peak[4] < 6 * cube, f"{ranks} ranks: memory grows with the set", str(peak))
    done = run(1, "train", "racoon.yaml", "--set", "folder=refused",
               *settings(**{**usual, "data__read_memory": 2 * cube}))
    check(done.code == 2 and "hold 2 cubes" in done.output and f"at least {4 * cube} bytes" in done.output,
          f"too little memory: exit code {done.code}", done.output)
    done = run(1, "bench", "racoon.yaml", "--mode", "io", *settings(**{**usual, "data__read_memory": 2 * cube}))
    check(done.code == 2 and "hold 2 cubes" in done.output, f"bench, too little memory: exit code {done.code}", done.output)


def refuses():
    for ranks in 1, 2:
        done = run(ranks, "train", "plain.yaml", "--set", "folder=refused",
                   *settings(data__cubes__train_seeds="0-3,77"))
        check(done.code == 3 and len(done.messages()) == 1 and "gr_seed0077" in done.output,
              f"missing seed on {ranks} ranks: exit code {done.code}", done.output)
        done = run(ranks, "train", "plain.yaml", "--set", "folder=refused",
                   *settings(data__cubes__test_seeds="3-5"))
        check(done.code == 2 and "seed 3 is in data.cubes.train_seeds too" in done.output,
              f"overlap on {ranks} ranks: exit code {done.code}", done.output)


def refuses_a_loss_of_nothing():
    done = run(1, "train", "racoon.yaml", *settings(folder="nothing", loss__name="cross_entropy"))
    check(done.code == 2 and "softmax is 1" in done.output and "bce_with_logits" in done.output, "softmax of one channel", done.output)
    output = succeed(2, "check", "racoon.yaml", *settings(loss__name="mse"))
    check(output.count("take them for logits") == 1, "a loss that makes no logits", output)
    check("take them for logits" not in succeed(1, "check", "racoon.yaml"), "warning about logits")


def a_batch_of_one_is_found_at_the_start():
    """PENGUIN's dense layers are normalised over the samples of a batch: one is too few. Of 384 samples."""
    penguin = settings(model__options="{width: 2}", model__name="penguin", data__cubes__validation_seeds="null")
    for ranks, batch, said in ((1, 383, "a rank's 384 samples, 383 at a time, leave a last batch of 1"),
                               (3, 127, "a rank's 128 samples, 127 at a time, leave a last batch of 1"),
                               (1, 1, "train.batch 1 is too small")):
        for command in "check", "train":
            done = run(ranks, command, "plain.yaml", *penguin, *settings(
                folder="one", train__batch=batch, train__sync_batch_norm="false"))
            check(done.code == 2 and said in done.output and "train.batch" in done.output and not os.path.exists("one"),
                  f"{command} with a batch of one on {ranks} ranks: exit code {done.code}", done.output)
    # Two ranks take 3 steps of 7 each; of the 342 samples left one rank's last batch would be one.
    usual = settings(folder="left", train__epochs=1, train__sync_batch_norm="false")
    stopped = run(2, "train", "plain.yaml", *penguin, *usual, *settings(train__batch=7, train__stop_after_steps=3))
    check(stopped.code == 75, "stopped after three steps", stopped.output)
    done = run(1, "train", "plain.yaml", *penguin, *usual, *settings(train__batch=31))
    check(done.code == 2 and "a rank's 342 samples, 31 at a time, leave a last batch of 1" in done.output,
          f"what is left of an epoch, exit code {done.code}", done.output)
    check([e["step"] for e in events("left", "step")] == [1, 2, 3], "a refused start took steps", str(events("left", "step")))
    succeed(1, "train", "plain.yaml", *penguin, *usual, *settings(train__batch=32))


with folder():
    write_cubes("cubes.h5", 6)
    write_text("racoon.yaml", RACOON)
    write_text("plain.yaml", PLAIN)
    write_text("whole.yaml", WHOLE)
    learns_what_is_easy()
    whole_cubes()
    resumes_inside_an_epoch()
    ranks_do_not_matter()
    other_ranks_go_on()
    needs_no_more_memory_for_more_cubes()
    refuses()
    refuses_a_loss_of_nothing()
    a_batch_of_one_is_found_at_the_start()
finish()
