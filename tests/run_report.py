"""fieldnet report: the page parses, holds what the run folders hold, and nothing of theirs can break it."""
import base64
import html.parser
import os
import re
import shutil
import xml.etree.ElementTree as tree

from program import check, finish, folder, run, small_run, succeed, write_text

RUN = small_run("tensorboard: false", ("train", "validation", "test"))
CUBES = """
seed: 3
data:
  kind: cubes
  cubes: {file: cubes.h5, train_seeds: 0-1, validation_seeds: 2, test_seeds: 3-5, window: 2, sample: cube}
model:
  layers:
    - conv: {channels: 4, kernel: 4, stride: 4}
    - leaky_relu: 0.2
    - linear: {channels: out}
loss: {name: bce_with_logits}
train: {epochs: 2, batch: 2, log_interval: 1}
optimizer: {lr: 1e-3}
compute: {threads: 1}
report: {tensorboard: false}
folder: classes
"""
VOID = {"meta", "br", "img"}


class page(html.parser.HTMLParser):
    """Read by both parsers: HTML's, which must close what it opens, and XML's, which gives the tree."""

    def __init__(self, path, *words, code=0):
        super().__init__()
        self.done = run(1, "report", *words, "-o", path)
        check(self.done.code == code, f"report {words}: exit code {self.done.code}", self.done.output)
        with open(path, encoding="utf-8") as file:
            self.text = file.read()
        self.open, self.tags = [], []
        self.feed(self.text)
        check(self.open == [], f"{path}: not closed", str(self.open))
        self.root = tree.fromstring(self.text.replace("<!DOCTYPE html>", "", 1))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        check(self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}")
        self.open.pop()

    def words(self):
        return "".join(self.root.itertext())

    def figure(self, title):
        for figure in self.root.iter("figure"):
            if "".join(figure.find("figcaption").itertext()) == title:
                return figure
        check(False, f"no figure '{title}'")
        return tree.Element("figure")

    def rows(self, after):
        """Cells of the first table behind a heading."""
        seen = False
        for element in self.root.iter():
            seen |= element.tag in ("h2", "h3") and "".join(element.itertext()).startswith(after)
            if seen and element.tag == "table":
                return [["".join(cell.itertext()) for cell in row] for row in element.iter("tr")]
        check(False, f"no table behind '{after}'")
        return []


def column(path, name):
    with open(path) as file:
        names, *rows = [line.strip().split(",") for line in file]
    return [float(row[names.index(name)]) for row in rows]


def lines_of(figure):
    return [path.get("d") for path in figure.iter("path") if path.get("class", "").startswith("line ")
            and path.get("d") != "M1 5H25"]


def check_self_contained(p, what):
    outside = [(tag, name, value) for tag, attributes in p.tags for name, value in attributes.items()
               if name in ("src", "href", "xlink:href", "data", "action") and not re.match(r"data:image/|#", value or "")]
    check(outside == [] and "script" not in dict(p.tags) and "url(http" not in p.text and "@import" not in p.text,
          f"{what}: needs something from outside", str(outside))


def check_one():
    p = page("one.html", "a")
    check_self_contained(p, "one run")
    loss = p.figure("Loss per epoch")
    dots = [circle for circle in loss.iter("circle")]
    check(len(dots) == 2 * 3 and [line.count("L") for line in lines_of(loss)] == [2, 2], "three epochs of two losses",
          str(lines_of(loss)))
    told = [float("".join(circle.itertext()).split(": ")[-1]) for circle in dots]
    wanted = column("a/metrics.csv", "train_loss") + column("a/metrics.csv", "validation_loss")
    check(all(abs(x - y) < 1e-5 * y for x, y in zip(told, wanted)), "losses of the curve", f"{told} {wanted}")
    heights = [float(circle.get("cy")) for circle in dots]
    check((heights[0] < heights[1]) == (wanted[0] > wanted[1]), "larger values are higher", str(heights))
    check(len(list(p.figure("Learning rate").iter("circle"))) == 12, "rates of 12 steps")
    overview = dict(zip(*p.rows("Overview")))
    check(overview["state"] == "finished" and overview["epochs"] == "3 of 3" and overview["ranks"] == "2" and
          abs(float(overview["best loss"].split()[0]) - min(wanted[3:])) < 1e-4 * wanted[3], "the overview", str(overview))

    pictures = {attributes["alt"]: attributes["src"] for tag, attributes in p.tags if tag == "img"}
    check({"loss.svg", "train_slices.png", "val_slices.png", "test_spectra.png"} <= set(pictures) and
          "loss.png" not in pictures, "figures of the folder", str(list(pictures)))
    for name, source in pictures.items():
        kind = "svg+xml" if name.endswith("svg") else "png"
        with open(f"a/plots/{name}", "rb") as file:
            check(source == f"data:image/{kind};base64," + base64.b64encode(file.read()).decode(), f"bytes of {name}")

    keys = dict(row for row in p.rows("Configuration"))
    check(keys["optimizer.lr"] == "0.001" and keys["train.batch"] == "2" and keys["data.crop"] == "[8]" and
          "leaky_relu: 0.1" in keys["model.layers"] and len(keys) > 80, "the configuration", str(keys))
    tests = p.rows("Losses on the test set")
    check([row[0] for row in tests] == ["file", "lpt2/000", "lpt2/001", "mean"] and
          abs(float(tests[3][1]) - column("a/test.csv", "loss")[2]) < 1e-5, "the test", str(tests))
    correlation = lines_of(p.figure("Correlation with the target, of output and (dashed) input"))
    check(correlation and correlation[0].count("L") == len(column("a/test_spectra.csv", "k")) - 1, "spectra")
    starts = p.rows("Starts and ends")
    check([row[0] for row in starts] == ["", "start", "end"] and starts[2][5] == "done", "starts and ends", str(starts))
    states = p.rows("States")
    check([row[0] for row in states[1:]] == ["state_3.h5", "state_2.h5", "state_1.h5"] and "newest" in states[1][3] and
          any("best" in row[3] for row in states[1:]), "states", str(states))
    check(os.uname().nodename[:20] in "".join(p.root.find(".//pre").itertext()) and "Warnings (0)" in p.words(),
          "where the ranks are", p.words()[-2000:])


def check_comparison():
    p = page("both.html", "a", "b", "--title", "two & <two>")
    check("two & <two>" in p.words() and p.root.find("head/title").text == "two & <two>", "the title")
    check_self_contained(p, "two runs")
    differing = p.rows("Keys that differ")
    check(differing == [["key", "a", "b"], ["train.on_nan", "stop", "skip"], ["optimizer.lr", "0.001", "0.01"]],
          "keys that differ", str(differing))
    loss = p.figure("Loss per epoch: training and (dashed) validation")
    check(len(lines_of(loss)) == 4 and [li.text or "".join(li.itertext()) for li in loss.iter("li")] == ["a", "b"],
          "curves of both", str(len(lines_of(loss))))
    best = [min(column(f"{name}/metrics.csv", "validation_loss")) for name in "ab"]
    bold = [row for row in p.root.iter("tr") if row.get("class") == "best"]
    check(len(bold) == 1 and "".join(bold[0][0].itertext()) == "ab"[best[1] < best[0]], "the best run", str(best))


def check_hostile():
    """Names and messages that would be markup, files that are torn, damaged, or not there."""
    name = "<b>&\"'x"
    shutil.copytree("a", name)
    with open(f"{name}/metrics.jsonl", "a") as file:
        file.write('{"event":"warning","time":"now","text":"</pre><script>alert(1)</script> \\u0001 \\ufffe end"}\n')
        file.write('{"event":"warning","time":"now","te')
    with open(f"{name}/metrics.jsonl", "ab") as file:
        file.write(b'\n{"event":"warning","text":"\xff\xfe"}\n')
    with open(f"{name}/steps.csv", "a") as file:
        file.write("13,4,1,1e9")
    write_text(f"{name}/plots/evil.svg", "<svg><script>alert(1)</script></svg>")
    p = page("hostile.html", name)
    check_self_contained(p, "a hostile run")
    check("<script" not in p.text and "</pre><script>alert(1)</script>" in p.words() and name in p.words(), "escaped")
    check("Warnings (1)" in p.words() or "Warnings (2)" in p.words(), "warnings")
    check(len(list(p.figure("Learning rate").iter("circle"))) == 12, "a torn line of a table counts")
    write_text(f"{name}/resolved.yaml", "a: [1, 2\nb: }")
    write_text(f"{name}/status.json", "{")
    os.remove(f"{name}/metrics.csv")
    p = page("damaged.html", name, "a", "empty")
    check("resolved.yaml" in p.words() and "status.json" in p.words() and "never started" in p.words(), "trouble is named")
    shutil.rmtree(name)


def check_long():
    """Many steps: drawn as means over bands, as long a page as few."""
    shutil.copytree("a", "long")
    with open("long/steps.csv") as file:
        head = file.readline()
    names = head.strip().split(",")
    with open("long/steps.csv", "w") as file:
        file.write(head)
        for step in range(50000):
            row = dict(step=step + 1, loss=3 if step % 2 else 1, lr=1e-3, samples_per_second=10 if step != 777 else "")
            file.write(",".join(str(row.get(name, "")) for name in names) + "\n")
    p = page("long.html", "long")
    figure = p.figure("Loss per step (training)")
    heights = {float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", lines_of(figure)[0])}
    band = [path.get("d") for path in figure.iter("path") if path.get("class", "").startswith("band")]
    low, high = (max, min)  # downwards on the page
    edges = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", band[0])]
    check(lines_of(figure)[0].count("L") == 399 and len(heights) <= 3 and high(edges) < min(heights) < low(edges),
          "a mean of 2 between 1 and 3", f"{heights} {set(edges)}")


def check_places():
    done = run(1, "report", "a")
    check(done.code == 0 and "wrote a/report.html" in done.output and run(1, "report", "a").code == 0,
          "into the folder, twice", done.output)
    write_text("mine.html", "precious")
    done = run(1, "report", "a", "-o", "mine.html")
    with open("mine.html") as file:
        check(done.code == 2 and "--force" in done.output and file.read() == "precious", "replaced another file", done.output)
    check(run(1, "report", "a", "--output", "mine.html", "--force").code == 0, "forced")
    os.makedirs("sweep/trials")
    os.symlink("../../a", "sweep/trials/t1")
    os.symlink("../../b", "sweep/trials/t2")
    done = run(1, "report", "sweep")
    check(done.code == 0 and "2 runs" in done.output and os.path.exists("sweep/report.html"), "a sweep", done.output)
    check(run(1, "report", "nowhere").code == 2, "a folder that does not exist")


def check_classes():
    succeed(1, "data", "synth", "cubes", "cubes.h5", "--seeds", "0-5", "--edge", "16", "--layout", "packed",
            "--difference", "0.5")
    write_text("classes.yaml", CUBES)
    succeed(1, "train", "classes.yaml")
    succeed(1, "test", "classes.yaml")
    p = page("classes.html", "classes")
    check_self_contained(p, "classes")
    rows = p.rows("Classes")
    check(any(row[0] == "cube.accuracy" for row in rows) and p.figure("Validation AUC") is not None, "classes", str(rows))
    names = [attributes["alt"] for tag, attributes in p.tags if tag == "img"]
    check("roc.png" in names and "confusion.png" in names, "figures of the test", str(names))


with folder():
    write_text("run.yaml", RUN)
    os.mkdir("empty")
    succeed(1, "data", "synth", "displacement", "--folder", "data", "--files", "2", "--edge", "16", "--box", "50")
    succeed(2, "train", "run.yaml", "--set", "folder=a")
    succeed(1, "train", "run.yaml", "--set", "folder=b", "--set", "optimizer.lr=0.01", "--set", "train.on_nan=skip")
    succeed(1, "test", "run.yaml", "--set", "folder=a")
    for part in (check_one, check_comparison, check_hostile, check_long, check_places, check_classes):
        part()
finish()
