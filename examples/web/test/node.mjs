// Encodes and decodes in node and compares with the host's files:
// node node.mjs CODEC.wasm IMAGE WAV CODEBOOKS HOST.nac HOST.wav LEAST_SNR_DB
import fs from "node:fs";
import { Codec } from "../page/codec.js";
import { readWav } from "../page/wav.js";
import { compare } from "./compare.mjs";

const [wasm, image, wav, codebooks, nac, pcm, least] = process.argv.slice(2);
const bytes = (path) => new Uint8Array(fs.readFileSync(path));
const codec = await Codec.create(fs.readFileSync(wasm));
const info = codec.loadModel(bytes(image));
const audio = readWav(bytes(wav).buffer);
const seconds = audio.pcm.length / audio.channels / audio.rate;
const timed = (f) => {
  const start = performance.now();
  const result = f();
  return [result, seconds / ((performance.now() - start) / 1000)];
};

const [frames, encodeSpeed] = timed(() => {
  codec.startEncode(Number(codebooks), audio.pcm.length / audio.channels);
  return codec.encode(audio.pcm, true);
});
const own = codec.writeNac();
const host = bytes(nac);
const mine = codec.codes();

// The host's file decodes here, and what it decodes to is what the host makes of it.
codec.readNac(host);
const theirs = codec.codes();
const equal = theirs.reduce((n, code, i) => n + (code === mine[i] ? 1 : 0), 0);
const decode = () => {
  const pieces = [];
  for (let left = codec.startDecode(); left > 0; ) {
    const step = codec.decode();
    pieces.push(...step.pcm);
    left = step.left;
  }
  return Float32Array.from(pieces);
};
// The best of three: other work on the machine only slows it.
const runs = [timed(decode), timed(decode), timed(decode)];
const [[decoded]] = runs;
const decodeSpeed = Math.max(...runs.map(([, speed]) => speed));
const snr = compare(decoded, readWav(bytes(pcm).buffer).pcm);
const report = {
  model: info.name, mmac: info.decoder.mmac_per_second, seconds, frames,
  codes: theirs.length, equalCodes: equal, sameNac: Buffer.compare(own, host) === 0,
  snr: String(snr), encodeSpeed, decodeSpeed,
};
console.log(JSON.stringify(report));

const fail = (text) => { console.error(`FAILED: ${text}`); process.exitCode = 1; };
if (mine.length !== theirs.length) fail(`${mine.length} codes, ${theirs.length} on the host`);
if (!(snr >= Number(least))) fail(`the decoded samples differ: ${snr} dB, at least ${least} needed`);
const refused = (what, f) => {
  try { f(); fail(`${what} was taken`); } catch (e) { if (e.constructor.name !== "CodecError") fail(`${what}: ${e}`); }
};
const damaged = host.slice();
damaged[damaged.length >> 1] ^= 1;
refused("a damaged .nac file", () => codec.readNac(damaged));
refused("a cut .nac file", () => codec.readNac(host.slice(0, -20)));
refused("a wav file as .nac", () => codec.readNac(bytes(wav)));
refused("a sample that is no number", () => { codec.startEncode(1, 1); codec.encode(Float32Array.of(NaN), true); });
refused("no codebooks", () => codec.startEncode(0, 1));
refused("a wav file as a model", () => codec.loadModel(bytes(wav)));
refused("a cut model", () => codec.loadModel(bytes(image).slice(0, 100000)));
refused("work without a model", () => codec.startEncode(1, 1));
