// Pictures of sounds and tokens.

/** 256 colours as RGB from a few, dark to light. */
function ramp(stops) {
  const colours = new Uint8Array(256 * 3);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (stops.length - 1);
    const k = Math.min(Math.floor(place), stops.length - 2);
    for (let c = 0; c < 3; c++) colours[i * 3 + c] = stops[k][c] + (stops[k + 1][c] - stops[k][c]) * (place - k);
  }
  return colours;
}

const HEAT = ramp([[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]]);
const WHEEL = ramp([[38, 70, 140], [42, 140, 170], [90, 175, 110], [225, 200, 70], [230, 120, 60], [170, 60, 120], [90, 60, 160]]);

/** Paints `pixel(x, y)`, an index into the colours, y upwards. */
function paint(canvas, width, height, colours, pixel) {
  [canvas.width, canvas.height] = [Math.max(1, width), Math.max(1, height)];
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = ((height - 1 - y) * width + x) * 4;
      const colour = pixel(x, y) * 3;
      for (let c = 0; c < 3; c++) image.data[at + c] = colours[colour + c];
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

/** Puts labels beside a plot: `[place from 0 to 1, text]`, x from the left and y from the bottom. */
function label(plot, xs, ys) {
  plot.querySelectorAll("b").forEach((old) => old.remove());
  const add = (axis, side, [place, text]) => {
    const tick = document.createElement("b");
    tick.className = axis;
    tick.ariaHidden = "true";
    tick.textContent = text;
    tick.style[side] = `${place * 100}%`;
    plot.append(tick);
  };
  ys.forEach(([place, text]) => add("y", "top", [1 - place, text]));
  xs.forEach((tick) => add("x", "left", tick));
}

/** Four to ten round times. */
function seconds(length) {
  const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800];
  const step = steps.find((step) => length / step <= 8) ?? 3600;
  const ticks = Array.from({ length: Math.floor(length / step) + 1 }, (_, i) => i * step);
  return ticks.map((at) => [at / length, `${Number(at.toFixed(2))} s`]);
}

/** A picture from `Codec.spectrogram`. */
export function drawSpectrogram(plot, picture, columns, size, rate, duration) {
  const bins = size / 2 + 1;
  // The topmost decibels are rare and the lowest are noise: stretch what is between.
  const stretch = (v) => Math.max(0, Math.min(255, Math.round((v - 40) * 1.35)));
  paint(plot.querySelector("canvas"), columns, bins, HEAT, (x, y) => stretch(picture[x * bins + y]));
  const hertz = [0, 0.25, 0.5, 0.75, 1].map((at) => [at, `${Number(((rate / 2000) * at).toFixed(2))} kHz`]);
  label(plot, seconds(duration), hertz);
}

/** Codes `[frames, codebooks]`, the first codebook at the bottom; the colour is the code's place in its codebook. */
export function drawTokens(plot, codes, sizes, duration) {
  const books = sizes.length;
  const frames = codes.length / books;
  const columns = Math.min(frames, 4096);
  const canvas = plot.querySelector("canvas");
  paint(canvas, columns, books, WHEEL, (x, y) => {
    const frame = Math.floor((x * frames) / columns);
    return Math.floor((codes[frame * books + y] * 255) / Math.max(1, sizes[y] - 1));
  });
  canvas.style.height = `${Math.max(4, Math.min(20, books * 1.5))}rem`;
  const last = [1 - 0.5 / books, String(books)];
  label(plot, seconds(duration), books > 1 ? [[0.5 / books, "book 1"], last] : [[0.5, "book 1"]]);
}
