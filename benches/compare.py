#!/usr/bin/env python3
"""compare.py [--threads N] [--seconds S] [CASE ...]: whole models beside PyTorch and ONNX Runtime, in one run.

    pip install torch transformers encodec snac einops onnx onnxruntime && pip install --no-deps speechtokenizer
    python benches/compare.py > table.md

Every case is run in turn: ours, PyTorch eager, ONNX Runtime; fp32, one call on one signal, the median of five runs after a
warm-up. Figures are seconds of compute per second of audio; what counts is the ratios. The peers' weights are random, scaled so that
activations stay normal; speed does not depend on them. ONNX Runtime runs the networks alone, without the codebook search.
"""
import argparse, importlib.util, io, json, math, os, statistics, subprocess, sys, time, types

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


class MimiHalf(nn.Module):
    """Mimi's networks, the transformer and the change of rate with them."""

    def __init__(self, model, side):
        super().__init__()
        half = getattr(model, side)
        self.side, self.network, self.transformer = side, getattr(half, f"{side}_seanet"), getattr(half, f"{side}_transformer")
        self.rate = half.downsample if side == "encoder" else half.upsample

    def forward(self, x):
        turn = lambda x: self.transformer(x.transpose(1, 2), return_dict=False)[0].transpose(1, 2)
        return self.rate(turn(self.network(x))) if self.side == "encoder" else self.network(turn(self.rate(x)))


class PositionResnet(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(32, c, eps=1e-6) for _ in range(2))
        self.conv1, self.conv2 = (nn.Conv1d(c, c, 3, padding=1) for _ in range(2))

    def forward(self, x):
        return x + self.conv2(nn.functional.silu(self.norm2(self.conv1(nn.functional.silu(self.norm1(x))))))


class PositionAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = nn.GroupNorm(32, c, eps=1e-6)
        self.q, self.k, self.v, self.out = (nn.Conv1d(c, c, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        q, k, v = self.q(h), self.k(h), self.v(h)
        weights = torch.softmax(torch.bmm(q.transpose(1, 2), k) * q.shape[1] ** -0.5, dim=2)
        return x + self.out(torch.bmm(v, weights.transpose(1, 2)))


class ConvNext(nn.Module):
    """ConvNeXt block of Vocos (Siuzdak 2023) with the adaptive normalisation of WavTokenizer (Ji et al. 2024)."""

    def __init__(self, c, hidden):
        super().__init__()
        self.depthwise = nn.Conv1d(c, c, 7, padding=3, groups=c)
        self.scale, self.shift = nn.Embedding(4, c), nn.Embedding(4, c)
        self.up, self.down = nn.Linear(c, hidden), nn.Linear(hidden, c)
        self.gamma = nn.Parameter(torch.full((c,), 1 / 12))

    def forward(self, x, band):
        h = self.depthwise(x).transpose(1, 2)
        h = nn.functional.layer_norm(h, (h.shape[-1],), eps=1e-6) * self.scale(band) + self.shift(band)
        return x + (self.gamma * self.down(nn.functional.gelu(self.up(h)))).transpose(1, 2)


class WavTokenizerDecoder(nn.Module):
    """Backbone and inverse Fourier transform of WavTokenizer, layers of the published shapes."""

    def __init__(self, hop=320, c=768, hidden=2304, layers=12):
        super().__init__()
        self.hop, self.n_fft = hop, 4 * hop
        self.embed = nn.Conv1d(512, c, 7, padding=3)
        self.position = nn.Sequential(PositionResnet(c), PositionResnet(c), PositionAttention(c), PositionResnet(c), PositionResnet(c),
                                      nn.GroupNorm(32, c, eps=1e-6), nn.SiLU())
        self.scale, self.shift = nn.Embedding(4, c), nn.Embedding(4, c)
        self.blocks = nn.ModuleList(ConvNext(c, hidden) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(c, eps=1e-6), nn.Linear(c, self.n_fft + 2)
        self.register_buffer("window", torch.hann_window(self.n_fft))

    def forward(self, x):
        band = torch.zeros(1, dtype=torch.long)
        x = self.position(self.embed(x)).transpose(1, 2)
        x = nn.functional.layer_norm(x, (x.shape[-1],), eps=1e-6) * self.scale(band) + self.shift(band)
        x = x.transpose(1, 2)
        for block in self.blocks:
            x = block(x, band)
        magnitude, phase = self.out(self.norm(x.transpose(1, 2))).transpose(1, 2).chunk(2, dim=1)
        magnitude = magnitude.exp().clip(max=100)
        frames = torch.fft.irfft(torch.complex(magnitude * phase.cos(), magnitude * phase.sin()), self.n_fft, dim=1) * self.window[:, None]
        count = frames.shape[-1]
        fold = lambda x: nn.functional.fold(x, (1, (count - 1) * self.hop + self.n_fft), (1, self.n_fft), stride=(1, self.hop))[:, 0, 0]
        cut = slice((self.n_fft - self.hop) // 2, -(self.n_fft - self.hop) // 2)
        weight = fold(self.window.square()[None, :, None].expand(1, -1, count))
        return fold(frames)[:, cut] / weight[:, cut]


def encodec_package():
    stub = "torchaudio" not in sys.modules  # encodec wants it for reading files alone
    if stub:
        sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    import encodec
    if stub:
        del sys.modules["torchaudio"]
    return encodec


def wavtokenizer():
    package = encodec_package()
    encoder = package.modules.SEANetEncoder(dimension=512, n_filters=32, ratios=[8, 5, 4, 2], causal=False, lstm=2, norm="weight_norm")
    book = package.quantization.ResidualVectorQuantizer(dimension=512, n_q=1, bins=4096)
    for m in (encoder, book, decoder := WavTokenizerDecoder()):
        calm(m)
    return (24000, None, None, lambda x: book.encode(encoder(x), 75), lambda c: decoder(book.decode(c)))


def speechtokenizer():
    # The package imports its trainer, and that many others.
    package = types.ModuleType("speechtokenizer")
    package.__path__ = list(importlib.util.find_spec("speechtokenizer").submodule_search_locations)
    sys.modules["speechtokenizer"] = package
    from speechtokenizer.model import SpeechTokenizer
    m = calm(SpeechTokenizer(dict(n_filters=64, strides=[8, 5, 4, 2], dimension=1024, semantic_dimension=768, bidirectional=True, dilation_base=2,
                                  residual_kernel_size=3, n_residual_layers=1, lstm_layers=2, activation="ELU", codebook_size=1024, n_q=8,
                                  sample_rate=16000)))
    return 16000, None, None, m.encode, m.decode


def peer(case):
    """Sample rate, the networks (encoder, decoder), and encode and decode as the library has them."""
    if case == "encodec_24khz":
        m = encodec_package().EncodecModel.encodec_model_24khz(pretrained=False)
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
        from transformers.models.mimi import modeling_mimi

        def mask(config, inputs_embeds, **_):
            """The library's own cannot be exported."""
            t = torch.arange(inputs_embeds.shape[1])
            back = t[:, None] - t
            return torch.where((back >= 0) & (back < config.sliding_window), 0.0, -1e30)[None, None]

        modeling_mimi.create_sliding_window_causal_mask = mask
        m = calm(MimiModel(MimiConfig(attn_implementation="eager")))
        return 24000, MimiHalf(m, "encoder"), MimiHalf(m, "decoder"), lambda x: m.encode(x, num_quantizers=8).audio_codes, lambda c: m.decode(c).audio_values
    if case == "wavtokenizer_75":
        return wavtokenizer()
    if case.startswith("speechtokenizer"):
        return speechtokenizer()
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
