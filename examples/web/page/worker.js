// The codec, off the page's own thread. A message is { id, call, ... }; the answer has the same id and either a result or
// an error. Long work tells its progress, and stops between two steps where it is told to.
import { Codec, CodecError } from "./codec.js";

const started = fetch("codec.wasm").then(async (response) => {
  if (!response.ok) throw new CodecError("codec.wasm is not there: build it first (docs/web.md)");
  return Codec.create(await response.arrayBuffer());
});
let cancelled = false;

const calls = {
  async load(codec, { bytes }) {
    return codec.loadModel(bytes);
  },

  async encode(codec, { pcm, info, codebooks, progress }) {
    const clock = new Clock();
    clock.run(() => codec.startEncode(codebooks, pcm.length / info.channels));
    // A model that cannot be cut takes everything at once.
    const piece = info.encoder.whole ? pcm.length : info.sample_rate * info.channels;
    let at = 0;
    do {
      const end = Math.min(at + piece, pcm.length);
      clock.run(() => codec.encode(pcm.subarray(at, end), end === pcm.length));
      at = end;
      await pause(progress, at / pcm.length);
    } while (at < pcm.length);
    return { codes: codec.codes(), nac: codec.writeNac(), ms: clock.ms };
  },

  async decode(codec, { progress }) {
    const clock = new Clock();
    const pieces = [];
    const frames = clock.run(() => codec.startDecode());
    for (let left = frames; left > 0; ) {
      const step = clock.run(() => codec.decode());
      pieces.push(step.pcm);
      left = step.left;
      await pause(progress, 1 - left / frames);
    }
    const pcm = new Float32Array(pieces.reduce((length, piece) => length + piece.length, 0));
    let at = 0;
    for (const piece of pieces) {
      pcm.set(piece, at);
      at += piece.length;
    }
    return { pcm, ms: clock.ms };
  },

  async open(codec, { bytes }) {
    return { codebooks: codec.readNac(bytes), codes: codec.codes() };
  },

  async spectrogram(codec, { pcm, channels, length, columns, size }) {
    return codec.spectrogram(pcm, channels, length, columns, size);
  },
};

/** Adds up the time of the work alone. */
class Clock {
  ms = 0;
  run(work) {
    const start = performance.now();
    try {
      return work();
    } finally {
      this.ms += performance.now() - start;
    }
  }
}

async function pause(progress, part) {
  progress(part);
  await new Promise((resolve) => setTimeout(resolve));
  if (cancelled) throw new CodecError("Cancelled.");
}

onmessage = async ({ data }) => {
  if (data.call === "cancel") {
    cancelled = true;
    return;
  }
  cancelled = false;
  const { id } = data;
  try {
    const progress = (part) => postMessage({ id, progress: part });
    postMessage({ id, result: await calls[data.call](await started, { ...data, progress }) });
  } catch (error) {
    const text = error instanceof CodecError ? error.message : `The codec failed: ${error}. Reload the page.`;
    postMessage({ id, error: text });
  }
};
