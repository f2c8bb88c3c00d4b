#!/usr/bin/env python3
"""Makes the file of `codec eval --visqol FILE` (and CODEC_VISQOL): the speech quality mapper of ViSQOL v3 in 0.5 MB, from the
TFLite file that the package visqol-python comes with.

    pip install visqol-python[lattice] && python visqol_lattice.py visqol.lattice

The source is model/lattice_tcditugenmeetpackhref_ls2_nl60_lr12_bs2048_learn.005_ep2400_train1_7_raw.tflite of
https://github.com/google/visqol (Apache-2.0, Copyright Google LLC), a calibrated lattice ensemble. Changed: only what the
function needs is kept (its graph is a fixed form), and the values of the lattices are rounded to 16 bits.

Layout, little-endian:
  8 bytes "VISQOLv3"
  for each of 85 features (21 fvnsim, 21 fvnsim10, 21 fstdnsim, 21 fvdegenergy, tau):
    f32 keypoints[19], f32 reciprocal lengths[19], u32 units, f32 matrix[units][20] (a bias, then a step for each length)
  for each of 60 lattices: 12 pairs (u8 feature, u8 unit), the slowest axis first
  f32 lowest, f32 step; for each lattice u16 values[4096]: lowest + step * value
  f32 linear[60]
  f32 keypoints[9], f32 reciprocal lengths[9], f32 matrix[10]
  u32 CRC-32 (that of zlib) of all before it
"""
import os, struct, sys, zlib
if len(sys.argv) != 2:
    sys.exit("usage: visqol_lattice.py FILE")
import numpy as np, visqol
from ai_edge_litert.interpreter import Interpreter, OpResolverType

folder = os.path.join(os.path.dirname(visqol.__file__), "model")
path = os.path.join(folder, next(f for f in os.listdir(folder) if f.endswith(".tflite")))
it = Interpreter(path, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
it.allocate_tensors()
ops = it._get_ops_details()
name = {t["index"]: t["name"] for t in it.get_tensor_details()}
maker = {t: o for o in ops for t in o["outputs"]}
value = lambda i: it.get_tensor(i)

def up(tensor, *kinds):
    """The operation of the last kind on the way up from a tensor through first inputs of those kinds."""
    for kind in kinds:
        op = maker[tensor]
        assert op["op_name"] == kind, (op["op_name"], kind)
        tensor = op["inputs"][0]
    return op

def piecewise(tensor):
    """Keypoints, reciprocal lengths, matrix of a piecewise linear function, and the tensor of its input."""
    dense = up(tensor, "FULLY_CONNECTED")
    ramp = maker[maker[dense["inputs"][0]]["inputs"][1]]
    scaled = up(ramp["outputs"][0], "RELU", "MINIMUM", "MUL")
    shifted = maker[scaled["inputs"][0]]
    return value(shifted["inputs"][1]), value(scaled["inputs"][1]), value(dense["inputs"][1]), shifted["inputs"][0]

features = [f"fvnsim{b}" for b in range(21)] + [f"fvnsim10_{b}" for b in range(21)] + \
    [f"fstdnsim{b}" for b in range(21)] + [f"fvdegenergy{b}" for b in range(21)] + ["tau"]
inputs = next(iter(it._get_full_signature_list().values()))["inputs"]
units, tables = {}, [None] * 85
for op in ops:
    if op["op_name"] != "SPLIT":
        continue
    result = op["inputs"][1]
    if maker[result]["op_name"] == "ADD":  # where an input may be missing: missing * value + (1 - missing) * function
        result = maker[maker[result]["inputs"][1]]["inputs"][1]
    *table, source = piecewise(result)
    source = maker[source]["inputs"][0]
    feature = next(i for i, f in enumerate(features) if inputs[f] == source)
    tables[feature] = table
    for unit, output in enumerate(op["outputs"]):
        units[output] = (feature, unit)
for op in ops:  # a feature with one unit is not split
    if op["op_name"] == "FULLY_CONNECTED" and value(op["inputs"][1]).shape == (1, 20):
        *table, source = piecewise(op["outputs"][0])
        feature = next(i for i, f in enumerate(features) if inputs[f] == maker[source]["inputs"][0])
        tables[feature] = table
        result = op["outputs"][0]
        users = [o for o in ops if result in o["inputs"]]
        if users[0]["op_name"] == "MUL":
            result = next(o for o in ops if users[0]["outputs"][0] in o["inputs"])["outputs"][0]
        units[result] = (feature, 0)
assert all(t is not None for t in tables)

def corner(tensor):
    """Which unit of which feature an axis of a lattice has."""
    hat = maker[up(tensor, "EXPAND_DIMS")["inputs"][0]]
    assert hat["op_name"] == "SUB"
    return units[up(maker[hat["inputs"][1]]["inputs"][0], "ABS", "SUB")["inputs"][0]]

outer = ops[-1]
out_points, out_scale, out_matrix, mixed = piecewise(outer["outputs"][0])
mix = maker[mixed]
lattices = []
for result in maker[mix["inputs"][0]]["inputs"]:
    dense = maker[result]
    product = up(dense["inputs"][0], "RESHAPE")["inputs"][0]
    axes = []
    while True:
        op = maker[product]
        axes.append(corner(op["inputs"][1]))
        if maker[op["inputs"][0]]["op_name"] == "EXPAND_DIMS":
            axes.append(corner(op["inputs"][0]))
            break
        product = up(op["inputs"][0], "RESHAPE")["inputs"][0]
    lattices.append((axes[::-1], value(dense["inputs"][1]).ravel()))
assert len(lattices) == 60 and all(len(a) == 12 and len(v) == 4096 for a, v in lattices)

f32 = lambda v: np.asarray(v, "<f4").tobytes()
out = bytearray(b"VISQOLv3")
for points, scale, matrix in tables:
    assert points.shape == scale.shape == (19,) and matrix.shape[1] == 20
    out += f32(points) + f32(scale) + struct.pack("<I", len(matrix)) + f32(matrix)
for axes, _ in lattices:
    out += bytes(n for axis in axes for n in axis)
every = np.concatenate([v for _, v in lattices]).astype(np.float64)
low, step = every.min(), (every.max() - every.min()) / 65535
out += f32([low, step]) + np.round((every - low) / step).astype("<u2").tobytes()
out += f32(value(mix["inputs"][1]).ravel()) + f32(out_points) + f32(out_scale) + f32(out_matrix.ravel())
out += struct.pack("<I", zlib.crc32(out))

def evaluate(x):
    held = []
    for (points, scale, matrix), v in zip(tables, x):
        held.append(matrix @ np.concatenate([[1.0], np.clip((v - points) * scale, 0, 1)]))
    results = []
    for axes, values in lattices:
        v = values.astype(np.float64)
        for f, u in axes:
            w = np.clip(held[f][u], 0, 1)
            v = v.reshape(2, -1)
            v = (1 - w) * v[0] + w * v[1]
        results.append(v[0])
    m = value(mix["inputs"][1]).ravel() @ np.array(results)
    return float(out_matrix.ravel() @ np.concatenate([[1.0], np.clip((m - out_points) * out_scale, 0, 1)]))

rng = np.random.default_rng(1)
run = it.get_signature_runner("predict")
worst = 0
for _ in range(50):
    x = np.concatenate([rng.uniform(0.2, 1, 21), rng.uniform(0, 1, 21), rng.uniform(0, .4, 21), rng.uniform(0, 60, 21), [0.5]])
    want = float(run(**{f: np.array([v], np.float32) for f, v in zip(features, x)})["predictions"].ravel()[0])
    worst = max(worst, abs(want - evaluate(x)))
if worst > 1e-3:
    sys.exit(f"what was extracted differs from the model by {worst}: this version of it has another form")
with open(sys.argv[1], "wb") as f:
    f.write(out)
print(f"{sys.argv[1]}: {len(out)} bytes; {worst:.1e} is the worst difference from the model, before values are rounded")
