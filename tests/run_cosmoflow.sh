#!/bin/bash
# configs/cosmoflow.yaml is the network of MLPerf HPC: its number of parameters, and the operations of
# a training step that the benchmark's rules count (192 GFLOP a sample).
set -u
found=$("$FIELDNET" describe "$SOURCE_DIR/configs/cosmoflow.yaml" --size 128 --channels 4,4 --json) || exit 1
python3 - "$found" <<'END'
import json, sys
d = json.loads(sys.argv[1])
edges, channels = 128, [4, 32, 64, 128, 256, 512]
parameters = forward = first = 0
for inside, outside in zip(channels, channels[1:]):
    parameters += inside * outside * 27 + outside
    flops = 2 * inside * outside * 27 * edges ** 3
    forward, first = forward + flops, first or flops
    edges //= 2
for inside, outside in [(512 * 4 ** 3, 128), (128, 64), (64, 4)]:
    parameters += inside * outside + outside
    forward += 2 * inside * outside
assert d["parameters"] == parameters == 8907556, (d["parameters"], parameters)
assert d["forward_flops"] == forward, (d["forward_flops"], forward)
# three times the forward pass, but for the gradient of the input, which nobody wants
training = 3 * forward - first
assert abs(d["training_flops"] / training - 1) < 1e-6, (d["training_flops"], training)
assert round(d["training_flops"] / 1e9) == 192, d["training_flops"]
END
