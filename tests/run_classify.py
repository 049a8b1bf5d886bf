"""fieldnet test on cubes: what it writes, against sums done here; early stopping of training."""
import csv
import json
import math
import os

from program import check, finish, folder, noise, read_hdf5, run, snapshot, succeed, write_datasets, write_text

EDGE, SEEDS, SLICES = 64, 6, 3 * 64
SHIFT = 0.05  # of GR cubes, which alone tells the classes apart

RUN = """
seed: 3
model: {name: racoon, options: {width: 4, dropout: 0.25}}
loss: {name: bce_with_logits}
data:
  kind: cubes
  cubes:
    file: cubes.h5
    train_seeds: 0-2
    validation_seeds: 3
    test_seeds: 4-5
    slices_per_cube: 32
    newton_augmentation: 0.9
train: {epochs: 3, batch: 24, log_interval: 100}
optimizer: {name: adam, lr: 2.e-3, betas: [0.5, 0.999]}
compute: {threads: 1}
"""


def write_cubes(path, change=None):
    """Each seed a field of its own; `change`: (dataset, cell, amount) added to one cell."""
    field = noise(5, 4099)

    def cubes():
        for seed in range(SEEDS):
            newton = (field[seed:] * (EDGE ** 3 // len(field) + 2))[:EDGE ** 3]
            for name, shift in (f"gr_seed{seed:04d}", SHIFT), (f"newton_seed{seed:04d}", 0):
                cube = type(field)("f", (x + shift for x in newton))
                if change and change[0] == name:
                    cube[change[1]] += change[2]
                yield name, cube

    write_datasets(path, (EDGE, EDGE, EDGE), cubes())


def settings(**values):
    return [word for key, value in values.items()
            for word in ("--set", f"{key.replace('__', '.')}={value}")]


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def files_of(path):
    found = {}
    for name in os.listdir(path):
        with open(os.path.join(path, name), "rb") as file:
            found[name] = file.read()
    return found


def near(found, wanted, what, tolerance=1e-6):
    check(abs(found - wanted) <= tolerance * max(1, abs(wanted)), what, f"{found}, expected {wanted}")


def area(positive, negative):
    """Brute force: how often a positive sample scores above a negative one."""
    right = sum((a > b) + 0.5 * (a == b) for a in positive for b in negative)
    return right / (len(positive) * len(negative))


def every_rank_count_writes_the_same():
    """One, two and three ranks, the last two with uneven shares: the same bytes in every file."""
    first = None
    for ranks in 1, 2, 3:
        output = succeed(ranks, "test", "run.yaml", *settings(
            test__overwrite="true", test__saliency=2, test__saliency_seeds="4,5"))
        check("cubes by mean logit" in output and "cube mean" in output, "table", output)
        found = files_of("run/test")
        first = first or found
        wrong = [name for name in first if found.get(name) != first[name]]
        check(not wrong and len(found) == len(first), f"{ranks} ranks write other files", str(wrong))


def scores_are_complete():
    """Every slice of the test's cubes exactly once, the two forms of the table agree."""
    table = rows("run/test/scores.csv")
    wanted = {(seed, theory, axis, position) for seed in (4, 5) for theory in ("gr", "newton")
              for axis in range(3) for position in range(EDGE)}
    found = [(int(r["seed"]), r["theory"], int(r["axis"]), int(r["position"])) for r in table]
    check(len(found) == 4 * SLICES and set(found) == wanted, "slices are missing or there twice")
    for name in "seed", "label", "axis", "position", "logit", "probability", "logit_no_mean":
        shape, values = read_hdf5("run/test/scores.h5", name)
        check(shape == (4 * SLICES,), f"shape of {name}", str(shape))
        worst = max(abs(a - float(r[name])) for a, r in zip(values, table))
        check(worst < 1e-6, f"{name} of scores.h5 and scores.csv differ", str(worst))
    for r in table:
        near(float(r["probability"]), 1 / (1 + math.exp(-float(r["logit"]))), "probability")
        check((r["theory"] == "gr") == (r["label"] == "1"), "label of a theory")
    return table


def report_is_what_the_scores_say(table):
    with open("run/test/report.json") as file:
        report = json.load(file)
    value = {k: v["value"] for k, v in report["judged"]["network"]["statistics"].items()}
    logits = [(float(r["logit"]), int(r["label"])) for r in table]
    right = sum((x >= 0) == (y == 1) for x, y in logits)
    near(value["slice.accuracy"], right / len(logits), "accuracy of slices")
    near(value["slice.auc"], area([x for x, y in logits if y], [x for x, y in logits if not y]), "area")
    near(value["slice.loss"], sum(math.log1p(math.exp(-x if y else x)) for x, y in logits) / len(logits), "loss")
    confusion = report["judged"]["network"]["confusion"]["slice"]
    near(confusion["true_positive"], sum(x >= 0 and y == 1 for x, y in logits), "true positives")
    means = {}
    for r in table:
        means.setdefault((r["seed"], r["theory"]), []).append(float(r["logit"]))
    for cube in rows("run/test/cubes.csv"):
        x = means[cube["seed"], cube["theory"]]
        near(float(cube["mean_logit"]), sum(x) / SLICES, "mean logit of a cube")
        check(int(cube["positive_slices"]) == sum(v >= 0 for v in x), "votes of a cube")
    pairs = [sum(means[seed, "gr"]) > sum(means[seed, "newton"]) for seed in ("4", "5")]
    near(value["pair.mean"], sum(pairs) / 2, "pairs")
    wins = [a > b for s in ("4", "5") for a, b in zip(means[s, "gr"], means[s, "newton"])]
    near(value["pair.slices"], sum(wins) / len(wins), "pairs of slices")
    for seed in rows("run/test/seeds.csv"):
        check(float(seed["pair_by_mean"]) in (0, 0.5, 1), "pair of a seed")
    return report


def baseline_is_the_mean(report):
    """The means differ by SHIFT: the baseline is never wrong, and knows nothing once they are gone."""
    judged = report["judged"]
    near(judged["baseline"]["statistics"]["cube.accuracy"]["value"], 1, "baseline")
    near(judged["baseline_no_mean"]["statistics"]["cube.auc"]["value"], 0.5, "baseline without means")
    check(judged["baseline"]["fit"]["sign"] == 1 and judged["baseline"]["fit"]["cubes"] == 6, "fit")
    gr, newton = (read_hdf5("cubes.h5", f"{theory}_seed0004")[1] for theory in ("gr", "newton"))
    means = [float(r["cube_mean"]) for r in rows("run/test/cubes.csv")[:2]]
    near(means[0], math.fsum(gr) / EDGE ** 3, "mean of a GR cube", 1e-9)
    near(means[1], 0.9 * math.fsum(newton) / EDGE ** 3, "mean of a Newton cube, factor applied", 1e-9)


def means_removed_by_hand():
    """A run with data.cubes.remove_mean scores as the second pass of one without."""
    table = rows("run/test/scores.csv")
    succeed(1, "test", "run.yaml", *settings(folder="removed", test__state="run/checkpoint.h5",
                                             data__cubes__remove_mean="true"))
    other = rows("removed/test/scores.csv")
    check(all(a["logit_no_mean"] == b["logit"] for a, b in zip(table, other)), "means removed")
    check("logit_no_mean" not in other[0], "a second pass where means are removed already")


def gradients_are_slopes():
    """A cell moved by h changes the logits of its three slices; their sum by h times the gradient."""
    axes = (17, 40, 5)
    cell = (axes[0] * EDGE + axes[1]) * EDGE + axes[2]
    shape, gradient = read_hdf5("run/test/saliency_gr_seed0004.h5", "gradient")
    check(shape == (EDGE, EDGE, EDGE), "shape of a cube's gradient", str(shape))
    largest = max(range(EDGE ** 3), key=lambda i: abs(gradient[i]))
    for at in cell, largest:
        sums = []
        for h in 0.02, -0.02:
            write_cubes("moved.h5", ("gr_seed0004", at, h))
            succeed(2, "test", "run.yaml", *settings(
                folder="moved", test__state="run/checkpoint.h5", test__overwrite="true",
                data__cubes__file="moved.h5", test__baseline_seeds=0, test__without_mean="false",
                test__bootstrap=0, report__plots="false"))
            sums.append(math.fsum(float(r["logit"]) for r in rows("moved/test/scores.csv")
                                  if (r["seed"], r["theory"]) == ("4", "gr")))
        slope = (sums[0] - sums[1]) / 0.04
        check(abs(slope - gradient[at]) < 0.02 * abs(gradient[largest]), "gradient of a cube",
              f"cell {at}: {gradient[at]}, finite difference {slope}")
    shape, maps = read_hdf5("run/test/saliency.h5", "gradient")
    check(shape == (4, 1, EDGE, EDGE), "shape of the maps", str(shape))


def keeps_what_is_there():
    before = snapshot("run")
    done = run(2, "test", "run.yaml")
    check(done.code == 2 and len(done.messages()) == 1 and "test.overwrite" in done.output,
          f"replaces without being asked: exit code {done.code}", done.output)
    check(snapshot("run") == before, "a refused test changed files")
    done = run(2, "test", "run.yaml", *settings(test__saliency_seeds="4,9", test__overwrite="true"))
    check(done.code == 2 and "seed 9 is not among" in done.output, "a seed that is not there", done.output)
    done = run(1, "predict", "run.yaml")
    check(done.code == 2 and "fieldnet test" in done.output, "predict on cubes", done.output)


def epochs_of(path):
    with open(f"{path}/metrics.jsonl") as file:
        return [e for e in map(json.loads, file) if e["event"] == "epoch"]


def stale_epoch(events, patience):
    """The first epoch that is `patience` after the best one so far; None: not among these."""
    best = None
    for event in events:
        if best is None or event["validation_auc"] > best["validation_auc"]:
            best = event
        if event["epoch"] - best["epoch"] >= patience:
            return event["epoch"]
    return None


def stops_early():
    """Hardly learning, a run soon has stale epochs. Started again, it is still over; with more patience
    it goes on counting from where it was."""
    stale = settings(folder="stale", train__epochs=40, checkpoint__best="auc", optimizer__lr="1e-30")
    for ranks, patience in (2, 2), (1, 2), (2, 3):
        output = succeed(ranks, "train", "run.yaml", *stale, *settings(train__stop_patience=patience))
        check("early after epoch" in output and "no better auc" in output, "message of an early stop", output)
        events = epochs_of("stale")
        check(events[-1]["epoch"] == stale_epoch(events, patience) == len(events),
              f"patience {patience}: stopped after epoch {events[-1]['epoch']}", str(events))
    output = succeed(2, "train", "run.yaml", *settings(
        folder="enough", train__epochs=20, checkpoint__best="accuracy", train__stop_threshold=0.01))
    check(len(epochs_of("enough")) == 1 and "reached train.stop_threshold" in output, "threshold", output)
    with open("enough/metrics.csv") as file:
        head, row = file.read().split()
    names = dict(zip(head.split(","), row.split(",")))
    event = epochs_of("enough")[0]
    for name in "accuracy", "auc", "f1":
        near(float(names["validation_" + name]), event["validation_" + name], f"{name} in metrics.csv")
        check(0 <= event["validation_" + name] <= 1, name)


def metrics_do_not_depend_on_ranks():
    """The validation of an untrained network: the same numbers on 1 and 3 ranks."""
    found = []
    for ranks in 1, 3:
        succeed(ranks, "train", "run.yaml", *settings(
            folder=f"ranks{ranks}", train__epochs=1, optimizer__lr="1e-30", train__sync_batch_norm="true",
            train__batch=24 // ranks, data__cubes__slices_per_cube=4))
        found.append(epochs_of(f"ranks{ranks}")[0])
    for name in "accuracy", "auc", "f1":
        near(found[0]["validation_" + name], found[1]["validation_" + name], f"{name} on 1 and 3 ranks", 5e-3)


with folder():
    write_cubes("cubes.h5")
    write_text("run.yaml", "folder: run\n" + RUN)
    succeed(2, "train", "run.yaml", *settings(report__plots="false"))
    every_rank_count_writes_the_same()
    scores = scores_are_complete()
    baseline_is_the_mean(report_is_what_the_scores_say(scores))
    means_removed_by_hand()
    gradients_are_slopes()
    keeps_what_is_there()
    stops_early()
    metrics_do_not_depend_on_ranks()
finish()
