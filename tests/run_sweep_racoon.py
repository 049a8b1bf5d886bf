"""configs/sweeps: both are planned as they are; a small one like the first is run, and finds what makes the classes
easy to tell: Newton cubes that were multiplied by 0."""
import csv
import io
import os
import re

from program import check, finish, folder, succeed, write_text

SWEEPS = os.path.join(os.environ["SOURCE_DIR"], "configs", "sweeps")


def smaller(text):
    """The shipped file with a smaller network, fewer slices and fewer values."""
    changes = {r"run: .*": f"run: {SWEEPS}/../racoon.yaml",
               r"model.options.width: 32": "model.options.width: 4\n  data.cubes.slices_per_cube: 8\n"
                                           "  report.plots: false\n  report.tensorboard: false\n  compute.threads: 1",
               r"train.epochs: 50": "train.epochs: 6",
               r"(newton_augmentation: )\[.*\]": r"\1[0, 1]",
               r"(dropout: )\[.*\]": r"\1[0, 0.5]",
               r"\{log: .*\}": "{log: [1.e-3, 1.e-2], points: 2}"}
    for pattern, new in changes.items():
        text, count = re.subn(pattern, new, text)
        check(count == 1, f"the shipped file has one {pattern}", str(count))
    return text


with folder():
    succeed(1, "data", "synth", "cubes", "data_z0.h5", "--layout", "packed", "--seeds", "0-5", "--edge", "64")
    text = succeed(1, "sweep", "plan", f"{SWEEPS}/racoon.yaml")
    check("120: 120 settings (grid) x 1 seed" in text, "plan of racoon.yaml", text)
    text = succeed(1, "sweep", "plan", f"{SWEEPS}/racoon_search.yaml")
    check("128: 64 settings (sobol) x 2 seeds" in text, "plan of racoon_search.yaml", text)
    with open(f"{SWEEPS}/racoon.yaml") as file:
        write_text("small.yaml", smaller(file.read()))
    succeed(2, "sweep", "run", "small.yaml")
    rows = list(csv.DictReader(io.StringIO(succeed(1, "sweep", "table", "small.yaml"))))
    check(len(rows) == 8 and all(r["state"] == "finished" and r["epochs"] == "6" and r["attempts"] == "1" for r in rows),
          "8 trials finished", str(rows))
    by_factor = {factor: [float(r["best"]) for r in rows if r["data.cubes.newton_augmentation"] == factor]
                 for factor in ("0", "1")}
    check(max(by_factor["0"]) == 1, "empty cubes are told from others without a mistake", str(by_factor))
    check(max(by_factor["1"]) < 0.8, "equal ones are not", str(by_factor))
    text = succeed(1, "sweep", "best", "small.yaml")
    check("largest accuracy, 8 settings" in text and "  1. 1 in epoch" in text
          and "newton_augmentation=0" in text.splitlines()[1], "the best", text)
    succeed(1, "sweep", "plot", "small.yaml")
    check(os.path.getsize("racoon_sweep/sweep.png") > 10000, "the plot")
    finish()
