#!/usr/bin/env python3
"""Makes expected.json: what the reference implementation says of the signals that signals.rs makes by the same closed forms.

    python make.py SCORE.PY

SCORE.PY is `audio/score.py` of the shared data folder; it needs numpy, soxr, soundfile, pystoi, pesq and visqol-python[lattice].
"""
import importlib.util, json, os, sys, types
import numpy as np, soundfile as sf, tempfile

def noise(n, seed):
    """A linear congruential generator (Knuth's MMIX), its upper 32 bits as -1 to 1."""
    out, state = np.empty(n), seed
    for i in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out[i] = (state >> 32) / 2**31 - 1
    return out

def voice(rate, seconds, scrambled=False):
    """Syllables of gliding harmonics under two formants, with hiss between them."""
    t = np.arange(int(rate * seconds)) / rate
    phase = 2 * np.pi * 120 * t - 30 / 0.7 * np.cos(2 * np.pi * 0.7 * t)
    x = np.zeros(len(t))
    for k in range(1, 25):
        f = 120.0 * k
        level = 1 / (1 + ((f - 600) / 250) ** 2) + 0.5 / (1 + ((f - 1900) / 300) ** 2)
        x += level * np.sin(k * phase + (2.4 * k * k if scrambled else 0))
    syllable = np.maximum(np.sin(2 * np.pi * 1.7 * t), 0) ** 0.5
    hiss = np.maximum(np.sin(2 * np.pi * 1.7 * t + 2.2), 0) ** 2
    return 0.18 * x * syllable + 0.05 * hiss * noise(len(t), 7)

def low_pass(x, a, times):
    for _ in range(times):
        y, held = np.empty(len(x)), 0.0
        for i, v in enumerate(x):
            held += a * (v - held)
            y[i] = held
        x = y
    return x

def late(x, n):
    return np.concatenate([np.zeros(n), x])

def cases():
    x = voice(16000, 4)
    t = np.arange(len(x)) / 16000
    chirp = 0.5 * np.sin(2 * np.pi * (200 * t + 400 * t * t))
    gap = x.copy(); gap[16000:22000] = 0
    yield "identical", 16000, x, x
    yield "noisy", 16000, x, x + 0.01 * noise(len(x), 3)
    yield "louder_noise", 16000, x, x + 0.1 * noise(len(x), 4)
    yield "dull", 16000, x, low_pass(x, 0.5, 3)
    yield "coarse", 16000, x, np.round(x * 16) / 16
    yield "clipped", 16000, x, np.tanh(8 * x) / 4
    yield "late_and_soft", 16000, x, late(0.5 * x, 137)
    yield "early", 16000, x, x[211:] + 0.02 * noise(len(x) - 211, 5)
    yield "scrambled_and_late", 16000, x, late(voice(16000, 4, True), 800)
    yield "gap", 16000, x, gap
    yield "cut_off", 16000, x, x[:52000]
    yield "chirp", 16000, chirp, low_pass(chirp, 0.4, 2)
    y = voice(24000, 4)
    yield "at_24_khz", 24000, y, low_pass(y, 0.6, 2) + 0.01 * noise(len(y), 6)

spec = importlib.util.spec_from_file_location("score", sys.argv[1])
score = importlib.util.module_from_spec(spec); spec.loader.exec_module(score)

# What ViSQOL finds on the way to its opinion score, which needs no lattice.
found = []
def visqol(ref, deg, rate, mode):
    if not hasattr(visqol, "api"):
        from visqol import VisqolApi
        visqol.api = VisqolApi(); visqol.api.create(mode=mode, use_lattice_model=True)
    found.append(visqol.api.measure_from_arrays(ref, deg, rate))
    return float(found[-1].moslqo)
score.visqol = visqol
# Those whose bands are compared: nothing is resampled or delayed.
banded = ("noisy", "coarse", "gap")
rounded = lambda row: [round(float(v), 6) for v in row]

def estoi(ref_path, deg_path):
    """pystoi adds noise so that nothing is divided by zero, and where the decoded signal is silent the noise is all there is: the
    mean over seeds, and their range."""
    from pystoi import stoi
    (r, a), (d, b) = score.load(ref_path), score.load(deg_path)
    r, d = score.res(r, a, 16000), score.res(d, b, 16000)
    d = score.align(r, d, 16000, 300)[0]
    values = []
    for seed in range(12):
        np.random.seed(seed)
        values.append(stoi(r, d, 16000, extended=True))
    return float(np.mean(values)), float(np.ptp(values))

expected = {}
with tempfile.TemporaryDirectory() as folder:
    for name, rate, ref, deg in cases():
        paths = []
        for part, x in (("ref", ref), ("deg", deg)):
            # 16 bits, rounded half up, so that both sides read the same numbers.
            held = np.clip(np.floor(x * 32767 + 0.5), -32768, 32767).astype(np.int16)
            paths.append(os.path.join(folder, part + ".wav")); sf.write(paths[-1], held, rate, subtype="PCM_16")
        options = types.SimpleNamespace(max_delay=300, no_visqol=False, rate=rate if rate != 16000 else 0, audio=False)
        row = score.score(*paths, options)
        row["estoi"], row["estoi_range"] = estoi(*paths)
        row["nsim"] = float(found[-1].vnsim)
        expected[name] = {k: (round(v, 6) if isinstance(v, float) else v) for k, v in row.items() if k not in ("pesq", "xc")}
        if name in banded:
            of = {"mean": "fvnsim", "low": "fvnsim10", "deviation": "fstdnsim", "level": "fvdegenergy"}
            expected[name]["bands"] = {k: rounded(getattr(found[-1], v)) for k, v in of.items()}
        print(name, expected[name])
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "expected.json"), "w") as f:
    f.write("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in expected.items()) + "\n}\n")
