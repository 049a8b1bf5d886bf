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


UNLABELLED = "of today, 2.h5"  # a name that needs quotes in CSV


def write_unlabelled():
    """Cubes of the test once more: one file under other names, one of a single cube."""
    source = {name: read_hdf5("cubes.h5", name)[1] for name in ("newton_seed0005", "gr_seed0004", "gr_seed0005")}
    os.mkdir("new")
    write_datasets(f"new/{UNLABELLED}", (EDGE,) * 3, [("b", source["newton_seed0005"]), ("a", source["gr_seed0004"])])
    write_datasets("new/of today, 1.h5", (EDGE,) * 3, [("data", source["gr_seed0005"])])
    return [("new/of today, 1.h5", "0", "data", ("5", "gr")), (f"new/{UNLABELLED}", "0", "a", ("4", "gr")),
            (f"new/{UNLABELLED}", "1", "b", ("5", "newton"))]


def predicts_what_a_test_scores():
    """Cubes without labels get the logits that a test gives the same cubes with labels, on any number of ranks."""
    wanted = write_unlabelled()
    # Batches of one size on any number of ranks: of another, convolutions may round in another way.
    plain = settings(test__state="run/checkpoint.h5", data__cubes__newton_augmentation=1, train__batch=16)
    succeed(1, "test", "run.yaml", *plain, *settings(folder="plain", test__baseline_seeds=0, test__without_mean="false",
                                                     test__bootstrap=0, report__plots="false"))
    cubes = {(r["seed"], r["theory"]): r for r in rows("plain/test/cubes.csv")}
    slices = {}
    for r in rows("plain/test/scores.csv"):
        slices.setdefault((r["seed"], r["theory"]), []).append(r)
    new = settings(folder="plain", data__cubes__predict="new/*.h5")
    for ranks, read in (1, "auto"), (2, "auto"), (3, "collective"):
        output = succeed(ranks, "predict", "run.yaml", *plain, *new, *settings(test__output=f"by{ranks}", data__read=read))
        check("3 cubes of 2 files" in output and "called by mean logit" in output, "summary of predictions", output)
        check(files_of(f"plain/by{ranks}") == files_of("plain/by1"), f"{ranks} ranks predict something else")
    table = rows("plain/by1/predictions.csv")
    check([(r["file"], r["cube"], r["name"]) for r in table] == [w[:3] for w in wanted], "rows of predictions", str(table))
    shape, logits = read_hdf5("plain/by1/predictions.h5", "logit")
    check(shape == (3, SLICES), "logits of predictions", str(shape))
    for i, (row, (_, _, name, key)) in enumerate(zip(table, wanted)):
        check(row["mean_logit"] == cubes[key]["mean_logit"] and row["deviation"] == cubes[key]["deviation"]
              and row["positive_samples"] == cubes[key]["positive_slices"], f"prediction of {name}", str(row))
        check([float(r["logit"]) for r in slices[key]] == [float(f"{x:.9g}") for x in logits[i * SLICES:(i + 1) * SLICES]],
              f"logits of {name}")
        probability = 1 / (1 + math.exp(-float(row["mean_logit"])))
        near(float(row["probability_gr"]), probability, f"probability of {name}")
        near(float(row["probability_newton"]), 1 - probability, f"other probability of {name}")
        check(row["predicted"] == ("gr" if probability >= 0.5 else "newton") and row["seed"] == "", f"class of {name}", str(row))
        check((row["predicted_by_vote"] == "gr") == (2 * int(row["positive_samples"]) >= SLICES), f"vote of {name}", str(row))
    for name in "axis", "position":
        found = [int(x) for x in read_hdf5("plain/by1/predictions.h5", name)[1]]
        check(found == [int(r[name]) for r in slices["4", "gr"]], f"{name} of predictions")
    predicts_from_the_run(plain, cubes)
    refuses_to_predict(plain)


def predicts_from_the_run(plain, cubes):
    """Without data.cubes.predict: the test's cubes, or all of the file. Values for another loss; labels are not looked at."""
    succeed(2, "predict", "run.yaml", *plain, *settings(folder="plain", test__output="seeds"))
    table = rows("plain/seeds/predictions.csv")
    check([r["mean_logit"] for r in table] == [r["mean_logit"] for r in cubes.values()], "predictions of test_seeds", str(table))
    check([r["name"] for r in table] == [f"{t}_seed000{s}" for s in (4, 5) for t in ("gr", "newton")], "names", str(table))
    output = succeed(1, "predict", "run.yaml", *settings(
        test__output="all", train__batch=16, data__cubes__test_seeds="null", loss__name="mse", data__cubes__newton_augmentation=0.5))
    table = rows("run/all/predictions.csv")
    check(len(table) == 2 * SEEDS and set(table[0]) == {"file", "cube", "name", "seed", "samples", "value", "deviation"},
          "predictions of a whole file", str(table[:1]))
    value = {r["name"]: r["value"] for r in table}
    check(value["newton_seed0005"] == cubes["5", "newton"]["mean_logit"], "a label was used for a prediction")
    check("newton_augmentation goes by labels" in output, "warning about a factor", output)


def refuses_to_predict(plain):
    write_datasets("raw.h5", (EDGE,) * 3, [("phi", noise(6, EDGE ** 3, 1e-5))])
    output = succeed(1, "predict", "run.yaml", *plain, *settings(folder="plain", test__output="raw", data__cubes__predict="raw.h5"))
    check("raw.h5: cube phi has mean" in output and "standardised" in output, "cells as a simulation has them", output)
    write_datasets("small.h5", (32,) * 3, [("phi", noise(6, 32 ** 3))])
    write_datasets("flat.h5", (EDGE, EDGE), [("map", noise(6, EDGE ** 2))])
    before = snapshot("plain")
    for what, files, code, said in (
            ("a file that is not there", "[raw.h5, gone.h5]", 3, "no file matches gone.h5"),
            ("a folder that is not there", "gone/*.h5", 3, "there is no folder gone"),
            ("no HDF5", "run.yaml", 3, "run.yaml as HDF5"), ("a folder", "new", 3, "not a regular file"),
            ("no cubes", "flat.h5", 3, "it holds /map"), ("another size", "small.h5", 2, "32 cells"),
            ("several sizes", "[raw.h5, small.h5]", 3, "small.h5 holds cubes of 32 x 32 x 32 cells, raw.h5 of 64 x 64 x 64")):
        for ranks in (1, 2) if what == "several sizes" else (1,):
            done = run(ranks, "predict", "run.yaml", *plain, *settings(folder="plain", test__output="no", data__cubes__predict=files))
            check(done.code == code and len(done.messages()) == 1 and said in done.output, f"predict: {what}",
                  f"exit code {done.code}\n{done.output}")
    done = run(1, "predict", "run.yaml", *plain, *settings(folder="plain", test__output="by1", data__cubes__predict="raw.h5"))
    check(done.code == 2 and "test.overwrite" in done.output, "predictions replaced without being asked", done.output)
    check({k: v for k, v in snapshot("plain").items() if "/no" not in k} == {k: v for k, v in before.items()},
          "a refused prediction left something")
    output = run(1, "check", "run.yaml", *settings(data__cubes__predict="[raw.h5, small.h5]"))
    check(output.code == 3 and "small.h5 holds cubes of 32" in output.output, "check of files to be predicted", output.output)
    output = succeed(2, "check", "run.yaml", *settings(data__cubes__predict="new/*.h5"))
    check("to be predicted: 3 cubes in 2 files" in output, "check of files to be predicted", output)


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
    predicts_what_a_test_scores()
    stops_early()
    metrics_do_not_depend_on_ranks()
finish()
