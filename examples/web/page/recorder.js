// Passes the microphone's samples on, the mean of its channels.
registerProcessor("recorder", class extends AudioWorkletProcessor {
  process([channels]) {
    if (channels.length > 0) {
      const mono = channels[0].slice();
      for (const channel of channels.slice(1)) channel.forEach((v, i) => { mono[i] += v; });
      this.port.postMessage(mono.map((v) => v / channels.length));
    }
    return true;
  }
});
