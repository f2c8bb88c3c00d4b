// The WebAssembly module as a class. Runs in pages, workers and node.

/** What the engine refuses, with its reason as the message. */
export class CodecError extends Error {}

export class Codec {
  #e;

  /** @param {BufferSource} wasm the bytes of `codec.wasm` */
  static async create(wasm) {
    const { instance } = await WebAssembly.instantiate(wasm, {});
    const codec = new Codec();
    codec.#e = instance.exports;
    return codec;
  }

  /** Opens a model's deploy image and returns what is known of it. */
  loadModel(/** @type {Uint8Array} */ bytes) {
    this.#writeBytes(bytes);
    this.#check(this.#e.load_model());
    return JSON.parse(this.#text());
  }

  /** Begins to encode a signal of `samples` samples a channel. */
  startEncode(codebooks, samples) {
    this.#check(this.#e.encode_start(codebooks, samples));
  }

  /** Encodes interleaved samples that go on where the last call ended; `finish` ends the signal. Returns the frames so far. */
  encode(/** @type {Float32Array} */ pcm, finish) {
    this.#writePcm(pcm);
    return this.#check(this.#e.encode_step(finish ? 1 : 0));
  }

  /** The codes of the signal, `[frames, codebooks]`. */
  codes() {
    return new Uint16Array(this.#e.memory.buffer, this.#e.codes_at(), this.#e.codes_len()).slice();
  }

  /** Begins to decode the codes and returns the number of frames. */
  startDecode() {
    return this.#check(this.#e.decode_start());
  }

  /** Decodes about a second: interleaved samples, and the number of frames that are left. */
  decode() {
    const left = this.#check(this.#e.decode_step());
    const pcm = new Float32Array(this.#e.memory.buffer, this.#e.pcm_at(), this.#e.pcm_len()).slice();
    return { pcm, left };
  }

  /** The codes as a `.nac` file. */
  writeNac() {
    this.#check(this.#e.write_nac());
    return this.#bytes();
  }

  /** Reads a `.nac` file and returns the number of its codebooks. */
  readNac(/** @type {Uint8Array} */ bytes) {
    this.#writeBytes(bytes);
    return this.#check(this.#e.read_nac());
  }

  /** `columns` spectra of `size / 2 + 1` bytes, low frequencies first, 0 for -100 dB and 255 for full scale. */
  spectrogram(pcm, channels, length, columns, size) {
    this.#writePcm(pcm);
    this.#check(this.#e.spectrogram(channels, length, columns, size));
    return this.#bytes();
  }

  #check(n) {
    if (n < 0) throw new CodecError(this.#text());
    return n;
  }

  #text() {
    return new TextDecoder().decode(new Uint8Array(this.#e.memory.buffer, this.#e.text_at(), this.#e.text_len()));
  }

  #bytes() {
    return new Uint8Array(this.#e.memory.buffer, this.#e.bytes_at(), this.#e.bytes_len()).slice();
  }

  #writeBytes(bytes) {
    const at = this.#room(this.#e.bytes_room(bytes.length), bytes.byteLength);
    new Uint8Array(this.#e.memory.buffer, at, bytes.length).set(bytes);
  }

  #writePcm(pcm) {
    const at = this.#room(this.#e.pcm_room(pcm.length), pcm.byteLength);
    new Float32Array(this.#e.memory.buffer, at, pcm.length).set(pcm);
  }

  #room(at, bytes) {
    if (at === 0) throw new CodecError(`no memory for ${(bytes / 2 ** 20).toFixed(0)} MiB`);
    return at;
  }
}
