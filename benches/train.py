#!/usr/bin/env python3
"""Training steps per second: `codec-train` beside PyTorch with the same networks, losses, batch and optimiser, on this
processor, in one run.

    python3 benches/train.py CODEC_TRAIN [--system nano-16k|encodec-24k] [--discriminators] [--threads N] [--rounds N]

Needs torch, and for encodec-24k and --discriminators (EnCodec's multi-scale STFT ones, of three windows) the package
encodec. Both sides train on noise; steps are timed by the difference of a long
and a short run, in turn, and the medians compared."""
import argparse, math, os, statistics, subprocess, tempfile, time, wave

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("codec_train")
parser.add_argument("--system", choices=["nano-16k", "encodec-24k"], default="nano-16k")
parser.add_argument("--discriminators", action="store_true")
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--steps", type=int, default=20)
args = parser.parse_args()

import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(args.threads)
torch.manual_seed(0)
RATE, BATCH = {"nano-16k": (16000, 12), "encodec-24k": (24000, 4)}[args.system]
# Steps before those that are timed: until memory is what it stays.
WARM_UP = 10
SCALES = [(128, 64, 20), (256, 128, 40), (512, 256, 80), (1024, 320, 80)]


class Causal(nn.Conv1d):
    """A convolution that looks back only."""
    def forward(self, x):
        return super().forward(F.pad(x, (self.kernel_size[0] - self.stride[0], 0)))


class Norm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, channels=160, hidden=416, ahead=0):
        super().__init__()
        self.ahead, self.depthwise, self.norm = ahead, nn.Conv1d(channels, channels, 7, groups=channels), Norm(channels, eps=1e-6)
        self.expand, self.reduce = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x):
        y = self.norm(self.depthwise(F.pad(x, (6 - self.ahead, self.ahead)))).transpose(1, 2)
        return x + (self.reduce(F.silu(self.expand(y))) * self.scale).transpose(1, 2)


class Residual(nn.Module):
    """Residual codebooks that learn by moving averages."""
    def __init__(self, stages, size, dim, decay=0.98):
        super().__init__()
        self.decay = decay
        self.register_buffer("books", torch.randn(stages, size, dim))
        self.register_buffer("counts", torch.ones(stages, size))
        self.register_buffer("sums", self.books.clone())

    def forward(self, x):
        rows = x.transpose(1, 2).reshape(-1, x.shape[1])
        left, commitment = rows, 0.0
        for i in range(len(self.books)):
            with torch.no_grad():
                book = self.books[i]
                codes = (book.pow(2).sum(1) - 2 * left @ book.T).argmin(1)
                found = book[codes]
                counts = torch.zeros_like(self.counts[i]).index_add_(0, codes, torch.ones(len(codes)))
                sums = torch.zeros_like(book).index_add_(0, codes, left)
                self.counts[i].lerp_(counts, 1 - self.decay)
                self.sums[i].lerp_(sums, 1 - self.decay)
                self.books[i] = self.sums[i] / self.counts[i].clamp_min(1e-5).unsqueeze(1)
            commitment = commitment + F.mse_loss(left, found)
            left = left - found
        rows = rows + (rows - left - rows).detach()
        return rows.view(x.shape[0], x.shape[2], -1).transpose(1, 2), commitment


class Nano(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Conv1d(483, 160, 1)
        self.encoder = nn.Sequential(Norm(160, eps=1e-6), *[Block() for _ in range(4)], Norm(160, eps=1e-6), Causal(160, 64, 4, 2))
        self.quantizer = Residual(20, 64, 64)
        self.decoder = nn.Sequential(Causal(64, 160, 3), nn.ConvTranspose1d(160, 160, 2, 2), Norm(160, eps=1e-6),
                                     *[Block(ahead=int(i == 0)) for i in range(5)], Norm(160, eps=1e-6), nn.Conv1d(160, 322, 1))
        self.register_buffer("window", torch.hann_window(320))

    def forward(self, x):
        spectrum = torch.fft.rfft(F.pad(x[:, 0], (160, 0)).unfold(1, 320, 160) * self.window)
        nepers = 0.5 * (spectrum.real.square() + spectrum.imag.square() + 1e-6).log()
        compressed = spectrum * (-0.7 * nepers).exp()
        features = torch.cat([nepers / math.log(10), compressed.real, compressed.imag], 2).transpose(1, 2)
        z, commitment = self.quantizer(self.encoder(self.embed(features)))
        log, phase = self.decoder(z).chunk(2, 1)
        spectrum = torch.polar(log.exp().clamp_max(100.0), phase)
        frames = torch.fft.irfft(spectrum, 320, dim=1) * self.window[:, None]
        size = (1, (frames.shape[2] - 1) * 160 + 320)
        fold = lambda v: F.fold(v, size, (1, 320), stride=(1, 160))[:, 0, 0]
        y = fold(frames) / fold(self.window.square()[None, :, None].expand(1, -1, frames.shape[2])).clamp_min(1e-8)
        return y[:, None, 80:80 + frames.shape[2] * 160], commitment


def encodec():
    from encodec.model import EncodecModel
    from encodec.modules import SEANetDecoder, SEANetEncoder
    class Codec(nn.Module):
        def __init__(self):
            super().__init__()
            options = dict(channels=1, norm="weight_norm", causal=True)
            self.encoder, self.decoder = SEANetEncoder(**options), SEANetDecoder(**options)
            self.quantizer = Residual(8, 1024, 128)
        def forward(self, x):
            z, commitment = self.quantizer(self.encoder(x))
            return self.decoder(z), commitment
    return Codec()


def mel_filters(n, mels):
    """Triangles of equal area, evenly on Slaney's scale."""
    def mel(f): return f / (200 / 3) if f < 1000 else 15 + math.log(f / 1000) * 27 / math.log(6.4)
    def hz(m): return m * 200 / 3 if m < 15 else 1000 * math.exp((m - 15) * math.log(6.4) / 27)
    edges = [hz(mel(RATE / 2) * i / (mels + 1)) for i in range(mels + 2)]
    bins = torch.arange(n // 2 + 1) * RATE / n
    rows = [torch.minimum((bins - a) / (b - a), (c - bins) / (c - b)).clamp_min(0) * 2 / (c - a)
            for a, b, c in zip(edges, edges[1:], edges[2:])]
    return torch.stack(rows)


WINDOWS = [(n, hop, torch.hann_window(n), mel_filters(n, mels)) for n, hop, mels in SCALES]


def mel_loss(a, b):
    total = 0.0
    for n, hop, window, filters in WINDOWS:
        def mel(x):
            z = torch.stft(x[:, 0], n, hop, window=window, return_complex=True)
            return filters @ torch.view_as_real(z).square().sum(-1).clamp_min(1e-12).sqrt()
        total = total + (mel(a).clamp_min(1e-5).log10() - mel(b).clamp_min(1e-5).log10()).abs().mean()
    return total


model = Nano() if args.system == "nano-16k" else encodec()
optimizer = torch.optim.AdamW(model.parameters(), 3e-4, (0.9, 0.99), weight_decay=0.0)
if args.discriminators:
    from encodec.msstftd import MultiScaleSTFTDiscriminator
    windows = [2048, 1024, 512]
    judges = MultiScaleSTFTDiscriminator(
        filters=32, n_ffts=windows, hop_lengths=[n // 4 for n in windows], win_lengths=windows)
    print(f"discriminators: {sum(p.numel() for p in judges.parameters())} parameters")
    judge_optimizer = torch.optim.AdamW(judges.parameters(), 3e-4, (0.9, 0.99), weight_decay=0.0)
print(f"PyTorch {torch.__version__}: {sum(p.numel() for p in model.parameters())} parameters, {args.threads} threads, "
      f"{BATCH} items of one second")


def judge_step(x, y):
    """Hinge loss of the discriminators (their gradients stay), and what the codec gets: hinge loss and relative features."""
    real, of_real = judges(x)
    fake, _ = judges(y.detach())
    own = sum(F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake)) / len(real)
    judge_optimizer.zero_grad(set_to_none=True)
    own.backward()
    for p in judges.parameters():
        p.requires_grad_(False)
    fake, of_fake = judges(y)
    for p in judges.parameters():
        p.requires_grad_(True)
    adversarial = sum(F.relu(1 - f).mean() for f in fake) / len(fake)
    pairs = [(a.detach(), b) for real, fake in zip(of_real, of_fake) for a, b in zip(real, fake)]
    return adversarial + sum((b - a).abs().mean() / a.abs().mean() for a, b in pairs) / len(pairs)


def torch_step():
    x = torch.randn(BATCH, 1, RATE) * 0.1
    y, commitment = model(x)
    loss = mel_loss(y, x) + (y - x).abs().mean() + 0.25 * commitment
    if args.discriminators:
        loss = loss + judge_step(x, y)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    if args.discriminators:
        nn.utils.clip_grad_norm_(judges.parameters(), 5.0)
        judge_optimizer.step()


JUDGES = """
adversarial = 1.0
features = 1.0
adversarial_kind = "hinge"
feature_norm = "relative"
[[discriminators]]
type = "multi-stft"
windows = [2048, 1024, 512]
channels = 32
[discriminator_optimizer]
betas = [0.9, 0.99]
clip = 5.0
"""
RECIPE = """
[model]
system = "%s"
%s
[data]
segment = 1.0
batch = %d
silence_db = -100.0
[quantizer]
kmeans = 0
decay = 0.98
[loss]
waveform_l1 = 1.0
mel_scales = [%s]
%s
[optimizer]
betas = [0.9, 0.99]
clip = 5.0
[run]
steps = %d
validate_every = 0
checkpoint_every = 100000
"""


def codec_train(folder, steps):
    run = tempfile.mkdtemp(dir=folder)
    recipe = os.path.join(run, "recipe.toml")
    scales = ", ".join("{ window = %d, hop = %d, mels = %d }" % s for s in SCALES)
    system, more = {"nano-16k": ("nano-16k", ""), "encodec-24k": ("encodec-24khz", "stages = 8\nweight_norm = true")}[args.system]
    with open(recipe, "w") as f:
        f.write(RECIPE % (system, more, BATCH, scales, JUDGES if args.discriminators else "", steps))
    start = time.perf_counter()
    subprocess.run([args.codec_train, "train", recipe, "--data", os.path.join(folder, "data"), "--out", os.path.join(run, "out"),
                    "--quiet"], check=True, env=dict(os.environ, RAYON_NUM_THREADS=str(args.threads)))
    return time.perf_counter() - start


with tempfile.TemporaryDirectory() as folder:
    os.mkdir(os.path.join(folder, "data"))
    for i in range(8):
        with wave.open(os.path.join(folder, "data", f"{i}.wav"), "wb") as f:
            f.setnchannels(1), f.setsampwidth(2), f.setframerate(RATE)
            f.writeframes((torch.randn(RATE * 10) * 3000).clamp(-32000, 32000).to(torch.int16).numpy().tobytes())
    ours, theirs = [], []
    for _ in range(WARM_UP):
        torch_step()
    for _ in range(args.rounds):
        start = time.perf_counter()
        for _ in range(args.steps):
            torch_step()
        theirs.append((time.perf_counter() - start) / args.steps)
        ours.append((codec_train(folder, args.steps + WARM_UP) - codec_train(folder, WARM_UP)) / args.steps)
    a, b = statistics.median(ours), statistics.median(theirs)
    name = args.system + (" with discriminators" if args.discriminators else "")
    print(f"{name}: codec-train {1 / a:.2f} steps/s, PyTorch {1 / b:.2f} steps/s, ratio {b / a:.2f}")
