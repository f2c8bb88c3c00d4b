// Sounds from files and from the microphone, at a model's rate and channels.
import { readWav } from "./wav.js";

/** What a sound file's bytes hold, for `fit`. */
export function fromFile(name, /** @type {ArrayBuffer} */ bytes) {
  const wav = readWav(bytes);
  return { name, ...(wav ?? { bytes }) };
}

/** The sound as `{ pcm, note }`: interleaved samples as the model takes them, and what was done to them. */
export async function fit(sound, rate, channels) {
  let { pcm } = sound;
  const notes = [];
  let from = sound.channels;
  if (!pcm || sound.rate !== rate) {
    const buffer = pcm ? await resample(sound, rate) : await decode(sound, rate);
    if (pcm) notes.push(`resampled from ${sound.rate} Hz`);
    else notes.push(`decoded by the browser at ${rate} Hz`);
    from = buffer.numberOfChannels;
    pcm = interleave(buffer);
  }
  if (from !== channels) {
    notes.push(`${from} ${from === 1 ? "channel" : "channels"} mixed to ${channels}`);
    pcm = mix(pcm, from, channels);
  }
  return { pcm, note: notes.join(", ") };
}

async function decode({ name, bytes }, rate) {
  try {
    // The context takes the bytes away.
    return await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes.slice(0));
  } catch {
    throw new Error(`${name}: this browser cannot read it as sound. Try a WAV file.`);
  }
}

async function resample({ pcm, rate: from, channels }, rate) {
  const rows = pcm.length / channels;
  const context = new OfflineAudioContext(channels, Math.max(1, Math.round((rows * rate) / from)), rate);
  const buffer = context.createBuffer(channels, Math.max(1, rows), from);
  for (let c = 0; c < channels; c++) {
    const channel = buffer.getChannelData(c);
    for (let i = 0; i < rows; i++) channel[i] = pcm[i * channels + c];
  }
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(context.destination);
  source.start();
  return context.startRendering();
}

function interleave(buffer) {
  const channels = buffer.numberOfChannels;
  const pcm = new Float32Array(buffer.length * channels);
  for (let c = 0; c < channels; c++) {
    const channel = buffer.getChannelData(c);
    for (let i = 0; i < channel.length; i++) pcm[i * channels + c] = channel[i];
  }
  return pcm;
}

/** Every channel of the result is the mean of all. */
function mix(pcm, from, to) {
  const rows = pcm.length / from;
  const out = new Float32Array(rows * to);
  for (let i = 0; i < rows; i++) {
    let sum = 0;
    for (let c = 0; c < from; c++) sum += pcm[i * from + c];
    out.fill(sum / from, i * to, (i + 1) * to);
  }
  return out;
}

/** Starts to record; the result's `stop` gives the sound. */
export async function record() {
  const constraints = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  if (!navigator.mediaDevices) throw new Error("This page may record only when it comes from https or localhost.");
  const stream = await navigator.mediaDevices.getUserMedia({ audio: constraints }).catch((error) => {
    throw new Error(`The microphone is not available (${error.message}).`);
  });
  const context = new AudioContext();
  await context.audioWorklet.addModule("recorder.js");
  const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  const pieces = [];
  recorder.port.onmessage = ({ data }) => pieces.push(data);
  context.createMediaStreamSource(stream).connect(recorder);
  return {
    async stop() {
      stream.getTracks().forEach((track) => track.stop());
      await context.close();
      const pcm = new Float32Array(pieces.reduce((length, piece) => length + piece.length, 0));
      let at = 0;
      for (const piece of pieces) {
        pcm.set(piece, at);
        at += piece.length;
      }
      return { name: "Recording", pcm, rate: context.sampleRate, channels: 1 };
    },
  };
}
