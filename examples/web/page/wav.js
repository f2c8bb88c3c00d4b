// WAV files. What else a browser can read, it decodes itself.

/** Samples of a PCM or float WAV file, or null if it is none of those. */
export function readWav(/** @type {ArrayBuffer} */ buffer) {
  const view = new DataView(buffer);
  const tag = (at) => (at + 4 <= view.byteLength ? view.getUint32(at) : 0);
  if (tag(0) !== 0x52494646 || tag(8) !== 0x57415645) return null; // RIFF, WAVE
  let format = null;
  for (let at = 12; at + 8 <= view.byteLength; ) {
    const [id, body] = [tag(at), at + 8];
    const length = Math.min(view.getUint32(at + 4, true), view.byteLength - body);
    if (id === 0x666d7420 && length >= 16) { // "fmt "
      let code = view.getUint16(body, true);
      if (code === 0xfffe && length >= 26) code = view.getUint16(body + 24, true);
      format = {
        code,
        channels: view.getUint16(body + 2, true),
        rate: view.getUint32(body + 4, true),
        bits: view.getUint16(body + 14, true),
      };
    } else if (id === 0x64617461 && format) { // "data"
      const read = reader(view, format);
      if (!read || format.channels === 0 || format.rate === 0) return null;
      const rows = Math.floor(length / (format.channels * format.bits / 8));
      const pcm = new Float32Array(rows * format.channels);
      for (let i = 0; i < pcm.length; i++) pcm[i] = read(body + i * format.bits / 8);
      return { rate: format.rate, channels: format.channels, pcm };
    }
    at = body + length + (length & 1);
  }
  return null;
}

function reader(view, { code, bits }) {
  if (code === 3 && bits === 32) return (at) => view.getFloat32(at, true);
  if (code !== 1) return null;
  if (bits === 8) return (at) => (view.getUint8(at) - 128) / 128;
  if (bits === 16) return (at) => view.getInt16(at, true) / 32768;
  if (bits === 24) return (at) => (view.getInt8(at + 2) * 65536 + view.getUint16(at, true)) / 8388608;
  if (bits === 32) return (at) => view.getInt32(at, true) / 2147483648;
  return null;
}

/** A 16-bit WAV file of interleaved samples. */
export function writeWav(/** @type {Float32Array} */ pcm, rate, channels) {
  const view = new DataView(new ArrayBuffer(44 + pcm.length * 2));
  const words = [[0, 0x52494646], [8, 0x57415645], [12, 0x666d7420], [36, 0x64617461]];
  for (const [at, word] of words) view.setUint32(at, word);
  view.setUint32(4, 36 + pcm.length * 2, true);
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, channels, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * channels * 2, true);
  view.setUint16(32, channels * 2, true);
  view.setUint16(34, 16, true);
  view.setUint32(40, pcm.length * 2, true);
  for (let i = 0; i < pcm.length; i++) {
    view.setInt16(44 + i * 2, Math.max(-32768, Math.min(32767, Math.round(pcm[i] * 32768))), true);
  }
  return new Blob([view], { type: "audio/wav" });
}
