"""tools/bench-peers on small sizes: what it writes agrees with what it measured. Needs torch."""
import json
import os
import subprocess
import sys

from program import FIELDNET, check, finish, folder

TOOL = os.path.join(os.environ["SOURCE_DIR"], "tools", "bench-peers")
PYTHON = os.environ.get("FIELDNET_TORCH_PYTHON", "python3")


def has_torch():
    try:
        return subprocess.run([PYTHON, "-c", "import torch, numpy, h5py"],
                              capture_output=True).returncode == 0
    except OSError:
        return False


def run(*words):
    return subprocess.run([sys.executable, TOOL, "--fieldnet", FIELDNET, "--python", PYTHON, *words],
                          capture_output=True, text=True)


if not has_torch():
    print("skipped: no Python with torch here (FIELDNET_TORCH_PYTHON names one)")
    sys.exit(77)

with folder():
    with open("results.md", "w") as file:
        file.write("# Results\n\nbefore\n\n<!-- bench-peers: begin -->\nold\n<!-- bench-peers: end -->\n\nafter\n")
    done = run("--networks", "vnet,racoon16", "--variants", "stock,tuned", "--precisions", "f32",
               "--pairs", "3", "--warmup", "1", "--batch", "2", "--size", "64", "--width", "4",
               "--json", "peers.json", "--write", "results.md")
    if check(done.returncode == 0, "bench-peers runs", done.stdout + done.stderr):
        rows = json.load(open("peers.json"))
        rows = rows["rows"] if isinstance(rows, dict) else rows
        check(len(rows) == 2 * 2 * 2, "two networks, two tasks, two variants", str(len(rows)))
        for row in rows:
            name = f"{row['network']} {row['task']} {row['variant']}"
            if not check("failed" not in row, name + " ran", str(row.get("failed"))):
                continue
            ratios = sorted(b / a for a, b in row["seconds"])
            check(abs(ratios[1] - row["ratio"]) < 1e-9 * row["ratio"], name + ": the median of pairs")
            check(row["lowest"] <= row["ratio"] <= row["highest"], name + ": within its range")
            check(min(row["fieldnet_peak"], row["peer_peak"]) > 1e6, name + ": memory was read")
        text = open("results.md").read()
        check(text.startswith("# Results\n\nbefore\n") and text.endswith("\nafter\n"),
              "only its own section is replaced", text)
        check("old" not in text and text.count("| vnet |") == 4, "the section holds the table", text)
        check(PYTHON not in text, "where Python lies is not told")
    done = run("--networks", "vnet,nothing")
    check(done.returncode != 0 and "nothing: expected some of" in done.stderr, "an unknown network",
          done.stderr)
finish()
