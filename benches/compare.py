#!/usr/bin/env python3
"""compare.py [--threads N] [--seconds S] [CASE ...]: whole models beside PyTorch and ONNX Runtime, in one run.

    pip install torch transformers encodec snac onnx onnxruntime
    python benches/compare.py > table.md

Every case is run in turn: ours, PyTorch eager, ONNX Runtime; fp32, one call on one signal, the median of five runs after a
warm-up. Figures are seconds of compute per second of audio; what counts is the ratios. The peers' weights are random, scaled so that
activations stay normal; speed does not depend on them. ONNX Runtime runs the networks alone, without the codebook search.
"""
import argparse, io, json, math, os, statistics, subprocess, sys, time, types

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("cases", nargs="*", default=["encodec_24khz", "hificodec_24k_320d", "dac_16khz", "dac_24khz", "dac_44khz"])
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--seconds", type=float, default=10)
parser.add_argument("--no-onnx", action="store_true")
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)
import numpy as np
import onnxruntime
import torch
import torch.nn.utils.parametrize
from torch import nn

torch.set_num_threads(args.threads)


def calm(module):
    """Weights scaled by their fan-in, weight norm folded."""
    generator = torch.Generator().manual_seed(0)
    for m in module.modules():
        if hasattr(m, "weight_g"):
            nn.utils.remove_weight_norm(m)
        if nn.utils.parametrize.is_parametrized(m, "weight"):
            nn.utils.parametrize.remove_parametrizations(m, "weight")
    with torch.no_grad():
        for name, p in list(module.named_parameters()) + list(module.named_buffers()):
            if not p.is_floating_point() or "norm" in name:
                continue
            if "embed" in name or "codebook" in name:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.5 if p.dim() == 2 else torch.ones_like(p))
            elif name.endswith(("alpha", "usage")):
                p.fill_(1)
            elif p.dim() >= 2:
                p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(p[0].numel()))
            elif "bias" in name:
                p.zero_()
    return module.eval()


class ResBlock(nn.Module):
    """HiFi-GAN's first kind of residual block (Kong et al. 2020)."""

    def __init__(self, channels, kernel, dilations):
        super().__init__()
        conv = lambda d: nn.Conv1d(channels, channels, kernel, dilation=d, padding=(kernel * d - d) // 2)
        self.first, self.second = nn.ModuleList(map(conv, dilations)), nn.ModuleList(conv(1) for _ in dilations)

    def forward(self, x):
        for a, b in zip(self.first, self.second):
            x = x + b(nn.functional.leaky_relu(a(nn.functional.leaky_relu(x, 0.1)), 0.1))
        return x


class HifiDecoder(nn.Module):
    def __init__(self, rates, kernels, width=512):
        super().__init__()
        self.pre, self.ups, self.blocks = nn.Conv1d(512, width, 7, padding=3), nn.ModuleList(), nn.ModuleList()
        for i, (u, k) in enumerate(zip(rates, kernels)):
            self.ups.append(nn.ConvTranspose1d(width >> i, width >> (i + 1), k, u, padding=(k - u) // 2))
            self.blocks.append(nn.ModuleList(ResBlock(width >> (i + 1), r, (1, 3, 5)) for r in (3, 7, 11)))
        self.post = nn.Conv1d(width >> len(rates), 1, 7, padding=3)

    def forward(self, x):
        x = self.pre(x)
        for up, blocks in zip(self.ups, self.blocks):
            x = up(nn.functional.leaky_relu(x, 0.1))
            x = sum(b(x) for b in blocks) / 3
        return torch.tanh(self.post(nn.functional.leaky_relu(x)))


class HifiEncoder(nn.Module):
    def __init__(self, rates, kernels, width=32):
        super().__init__()
        self.pre, self.downs, self.blocks, self.norms = nn.Conv1d(1, width, 7, padding=3), nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i, (u, k) in enumerate(zip(reversed(rates), reversed(kernels))):
            c = width << (i + 1)
            self.downs.append(nn.Conv1d(c // 2, c, k, u, padding=(k - u) // 2))
            self.blocks.append(nn.ModuleList(ResBlock(c, r, (1, 3, 5)) for r in (11, 7, 3)))
            self.norms.append(nn.ModuleList(nn.GroupNorm(c // 16, c, eps=1e-6) for _ in range(3)))
        self.post = nn.Conv1d(512, 512, 3, padding=1)

    def forward(self, x):
        x = self.pre(x)
        for down, blocks, norms in zip(self.downs, self.blocks, self.norms):
            x, total = down(nn.functional.leaky_relu(x, 0.1)), 0
            for block, norm in zip(blocks, norms):
                total = norm(total + block(x))
            x = total / 3
        return self.post(nn.functional.leaky_relu(x))


def peer(case):
    """Sample rate, the networks (encoder, decoder), and encode and decode as the library has them."""
    if case == "encodec_24khz":
        stub = "torchaudio" not in sys.modules  # encodec wants it for reading files alone
        if stub:
            sys.modules["torchaudio"] = types.ModuleType("torchaudio")
        from encodec import EncodecModel
        if stub:
            del sys.modules["torchaudio"]
        m = EncodecModel.encodec_model_24khz(pretrained=False)
        m.set_target_bandwidth(6.0)
        calm(m)
        return 24000, m.encoder, m.decoder, m.encode, m.decode
    if case.startswith("dac"):
        from transformers import DacConfig, DacModel
        rate, ratios, books = {
            "dac_16khz": (16000, [2, 4, 5, 8], 12),
            "dac_24khz": (24000, [2, 4, 5, 8], 32),
            "dac_44khz": (44100, [2, 4, 8, 8], 9),
        }[case]
        m = calm(DacModel(DacConfig(downsampling_ratios=ratios, n_codebooks=books, sampling_rate=rate, decoder_hidden_size=1536)))
        return rate, m.encoder, m.decoder, lambda x: m.encode(x).audio_codes, lambda c: m.decode(audio_codes=c).audio_values
    if case == "snac_24khz":
        from snac import SNAC
        m = calm(SNAC(sampling_rate=24000, encoder_dim=48, encoder_rates=[2, 4, 8, 8], decoder_dim=1024, decoder_rates=[8, 8, 4, 2],
                      attn_window_size=None, codebook_size=4096, codebook_dim=8, vq_strides=[4, 2, 1], noise=True, depthwise=True))
        return 24000, m.encoder, m.decoder, m.encode, m.decode
    if case == "mimi":
        from transformers import MimiConfig, MimiModel
        m = calm(MimiModel(MimiConfig()))
        return 24000, None, None, lambda x: m.encode(x, num_quantizers=8).audio_codes, lambda c: m.decode(c).audio_values
    if case.startswith("hificodec"):
        rate = 16000 if "16k" in case else 24000
        rates, kernels = ([8, 5, 4, 2], [16, 11, 8, 4]) if "320d" in case else ([8, 5, 3, 2], [16, 11, 7, 4])
        enc, dec = calm(HifiEncoder(rates, kernels)), calm(HifiDecoder(rates, kernels))
        return rate, enc, dec, enc, dec
    raise SystemExit(f"no peer for {case}")


def median(f, seconds):
    f()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return statistics.median(times) / seconds


def onnx(network, example):
    f = io.BytesIO()
    torch.onnx.export(network, example, f, dynamo=False, opset_version=17)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    session = onnxruntime.InferenceSession(f.getvalue(), options, providers=["CPUExecutionProvider"])
    name, value = session.get_inputs()[0].name, np.asarray(example)
    return lambda: session.run(None, {name: value})


def ours(case):
    command = ["cargo", "bench", "--quiet", "--bench", "speed", "--", "--threads", str(args.threads), "--seconds", str(args.seconds), case]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {r["part"]: r for r in map(json.loads, lines)}


print(f"| model | part | ours | GMAC/s | PyTorch | ONNX Runtime | × PyTorch | × ONNX Runtime |\n|---|---|---|---|---|---|---|---|")
with torch.inference_mode():
    for case in args.cases:
        result = ours(case)
        rate, encoder, decoder, encode, decode = peer(case)
        n = int(rate * args.seconds) // 2048 * 2048
        t = torch.arange(n) / rate
        x = (0.2 * torch.sin(2 * math.pi * 220 * t) + 0.05 * torch.randn(n, generator=torch.Generator().manual_seed(1)))[None, None]
        codes = encode(x)
        latent = encoder(x) if encoder else None
        for part, run, network, example in (("encode", lambda: encode(x), encoder, x), ("decode", lambda: decode(codes), decoder, latent)):
            torch_time = median(run, n / rate)
            ort_time = None if args.no_onnx or network is None else median(onnx(network, example), n / rate)
            r = result[part]
            ratio = "–" if ort_time is None else f"{ort_time / r['rtf']:.2f}"
            shown = "–" if ort_time is None else f"{ort_time:.4f}"
            print(f"| {case} | {part} | {r['rtf']:.4f} | {r['gmac_per_second']:.0f} | {torch_time:.4f} | {shown} | {torch_time / r['rtf']:.2f} | {ratio} |", flush=True)
