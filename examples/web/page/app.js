import { drawSpectrogram, drawTokens } from "./draw.js";
import { fit, fromFile, record } from "./sound.js";
import { writeWav } from "./wav.js";

const $ = (id) => document.getElementById(id);
const COLUMNS = 900;

/** What the page holds: the model's info, the sound that was given, and the signal as the model saw and made it. */
export const page = { info: null, sound: null, original: null, decoded: null, codes: null, nac: null };

// --- the worker ---

const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
let calls = 0;

worker.onmessage = ({ data: { id, progress, result, error } }) => {
  const call = waiting.get(id);
  if (progress !== undefined) return call.progress?.(progress);
  waiting.delete(id);
  if (error !== undefined) call.reject(new Error(error));
  else call.resolve(result);
};
worker.onerror = (event) => {
  for (const { reject } of waiting.values()) reject(new Error(`The worker failed: ${event.message}`));
  waiting.clear();
};

function ask(call, values = {}, progress = undefined) {
  return new Promise((resolve, reject) => {
    waiting.set(++calls, { resolve, reject, progress });
    worker.postMessage({ id: calls, call, ...values });
  });
}

// --- one thing at a time ---

function say(text, error = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", error);
}

function show(part) {
  $("progress").value = part;
}

/** Runs work that the page waits for. */
async function busy(text, work) {
  if (document.body.dataset.state === "busy") return;
  document.body.dataset.state = "busy";
  for (const id of ["sound", "built-in", "model-file"]) $(id).disabled = true;
  say(text);
  show(0);
  $("progress").hidden = $("cancel").hidden = false;
  try {
    say((await work()) ?? "");
    document.body.dataset.state = "ready";
  } catch (error) {
    say(error.message, true);
    document.body.dataset.state = "failed";
  }
  $("progress").hidden = $("cancel").hidden = true;
  for (const id of ["built-in", "model-file"]) $(id).disabled = false;
  $("sound").disabled = page.info === null;
}

$("cancel").onclick = () => worker.postMessage({ call: "cancel" });

// --- the model ---

/** Opens a model; `url` is that of one that comes with the page. */
function openModel(name, bytes, url = "") {
  return busy(`Loading ${name}…`, async () => {
    [page.info, page.codes, page.original, page.decoded] = [null, null, null, null];
    $("result").hidden = true;
    $("model-info").textContent = "";
    // Nothing is selected while a model of the user's is open, so that any can be chosen again.
    $("built-in").value = url;
    const info = await ask("load", { bytes: new Uint8Array(await bytes()) });
    page.info = info;
    const network = info.decoder ?? info.encoder;
    const facts = [
      `${info.sample_rate / 1000} kHz`,
      info.channels === 1 ? "mono" : `${info.channels} channels`,
      `${Number(info.frame_rate.toFixed(2))} frames/s`,
      `${network.mmac_per_second.toFixed(0)} MMAC/s to ${info.decoder ? "decode" : "encode"}`,
      ...(info.license ? [info.license] : []),
    ];
    const title = document.createElement("strong");
    title.textContent = info.name;
    $("model-info").replaceChildren(title, ` · ${facts.join(" · ")}`);
    $("bitrate").replaceChildren(...info.bitrates.map(({ codebooks, kbps }) => {
      const books = `${codebooks} ${codebooks === 1 ? "codebook" : "codebooks"}`;
      return new Option(`${Number(kbps.toFixed(2))} kbit/s (${books})`, codebooks);
    }));
    $("bitrate").selectedIndex = info.bitrates.length - 1;
    if (page.sound) return encode();
    return "Now open a sound, or record one.";
  });
}

async function download(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return response.arrayBuffer();
}

// --- sound to tokens and back ---

async function encode() {
  const { info, sound } = page;
  if (!info.encoder) throw new Error("This model only decodes: open a .nac file that it made.");
  const codebooks = Number($("bitrate").value);
  const { pcm, note } = await fit(sound, info.sample_rate, info.channels);
  say("Encoding…");
  const encoded = await ask("encode", { pcm, info, codebooks }, (part) => show(part / 2));
  Object.assign(page, { original: pcm, decoded: null, codes: encoded.codes, nac: encoded.nac });
  return decode(codebooks, sound.name, note, encoded.ms);
}

async function decode(codebooks, name, note, encodeMs) {
  const { info, codes, nac, original } = page;
  let ms = null;
  page.decoded = null;
  if (info.decoder) {
    say("Decoding…");
    const decoded = await ask("decode", {}, (part) => show(original ? 0.5 + part / 2 : part));
    page.decoded = decoded.pcm;
    ms = decoded.ms;
  }
  const frames = codes.length / codebooks;
  const length = (original ?? page.decoded)?.length / info.channels || frames * info.hop;
  const duration = length / info.sample_rate;
  $("sound-name").textContent = name;
  figures({ codebooks, frames, duration, length, encodeMs, ms });
  // Canvases have no size, and players no sound, before they are shown.
  $("result").hidden = false;
  await side("original", original, length);
  await side("decoded", page.decoded, length);
  drawTokens($("tokens").querySelector(".plot"), codes, info.codebook_sizes.slice(0, codebooks), duration);
  $("tokens-note").textContent = `${frames} frames × ${codebooks}, the first codebook at the bottom; the colour is the code`;
  link("save-nac", new Blob([nac]), `${stem(name)}.nac`);
  return [`${name}: ready.`, note && `The sound was ${note}.`].filter(Boolean).join(" ");
}

function figures({ codebooks, frames, duration, length, encodeMs, ms }) {
  const { info, nac } = page;
  const stated = info.bitrates.find((rate) => rate.codebooks === codebooks);
  const kbps = duration > 0 ? (nac.length * 8) / duration / 1000 : 0;
  const plain = (length * info.channels * 16) / (nac.length * 8);
  const speed = (ms) => (ms ? [`${Number((duration * 1000 / ms).toPrecision(3))}×`, "real time"] : ["–", "not done"]);
  const rows = [
    ["Length", `${duration.toFixed(2)} s`, `${frames} frames`],
    ["Codes", stated ? `${Number(stated.kbps.toFixed(2))} kbit/s` : `${codebooks} a frame`, `${codebooks} codebooks`],
    ["File", `${nac.length.toLocaleString("en")} bytes`, `${kbps.toFixed(2)} kbit/s`],
    ["Smaller", `${plain.toFixed(0)}×`, "than 16-bit PCM"],
    ["Encoding", ...speed(encodeMs)],
    ["Decoding", ...speed(ms)],
  ];
  $("figures").replaceChildren(...rows.map((row) => {
    const box = document.createElement("div");
    const [name, value, small] = ["dt", "dd", "small"].map((tag, i) => {
      const element = document.createElement(tag);
      element.textContent = row[i];
      return element;
    });
    value.append(small);
    box.append(name, value);
    return box;
  }));
}

/** A spectrogram and a player. */
async function side(id, pcm, length) {
  $(id).hidden = !pcm;
  if (id === "decoded") $("save-wav").hidden = !pcm;
  $("switch").hidden = !page.original || !page.decoded;
  if (!pcm) return;
  const { sample_rate: rate, channels } = page.info;
  const size = 2 ** Math.round(Math.log2(rate * 0.035));
  const picture = await ask("spectrogram", { pcm, channels, length, columns: COLUMNS, size });
  drawSpectrogram($(id).querySelector(".plot"), picture, COLUMNS, size, rate, length / rate);
  const player = $(id).querySelector("audio");
  const wav = writeWav(pcm, rate, channels);
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(wav);
  if (id === "decoded") link("save-wav", wav, `${stem($("sound-name").textContent)}.decoded.wav`);
}

function link(id, blob, name) {
  URL.revokeObjectURL($(id).href);
  Object.assign($(id), { href: URL.createObjectURL(blob), download: name });
}

const stem = (name) => name.replace(/\.[^.]*$/, "");

// --- what is opened ---

/** Whether a file begins with these characters. */
async function begins(file, text) {
  const bytes = new Uint8Array(await file.slice(0, text.length).arrayBuffer());
  return String.fromCharCode(...bytes) === text;
}

const isModel = (file) => begins(file, "CODECIMG");

async function open(file) {
  if (await isModel(file)) return openModel(file.name, () => file.arrayBuffer());
  if (page.info === null) return say("Open a model first.", true);
  if (await begins(file, "\x89NAC")) return openNac(file);
  return busy(`Reading ${file.name}…`, async () => {
    page.sound = fromFile(file.name, await file.arrayBuffer());
    return encode();
  });
}

function openNac(file) {
  return busy(`Reading ${file.name}…`, async () => {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const { codebooks, codes } = await ask("open", { bytes });
    Object.assign(page, { sound: null, original: null, codes, nac: bytes });
    $("bitrate").value = codebooks;
    return decode(codebooks, file.name, "", null);
  });
}

for (const [id, take] of [["model-file", (file) => openModel(file.name, () => file.arrayBuffer())], ["sound-file", open]]) {
  $(id).onchange = async ({ target }) => {
    const [file] = target.files;
    if (file) await take(file);
    // The same file may be opened again.
    target.value = "";
  };
}

$("built-in").onchange = ({ target }) => openModel(target.selectedOptions[0].text, () => download(target.value), target.value);

$("bitrate").onchange = () => {
  if (page.sound) busy("Encoding…", encode);
};

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const files = [...event.dataTransfer.files].slice(0, 2);
  // A model comes before a sound.
  if (files.length === 2 && (await isModel(files[1]))) files.reverse();
  for (const file of files) await open(file);
});

let recording = null;
$("record").onclick = async ({ target }) => {
  try {
    if (recording === null) {
      recording = await record();
      say("Recording… press the button again to stop.");
    } else {
      const sound = await recording.stop();
      recording = null;
      busy("Encoding…", () => {
        page.sound = sound;
        return encode();
      });
    }
  } catch (error) {
    recording = null;
    say(error.message, true);
  }
  target.ariaPressed = String(recording !== null);
  target.textContent = recording ? "Stop" : "Record";
};

// --- players ---

/** Whoever pauses a player before it begins makes `play` fail, which is no failure. */
const play = (player) => player.play().catch(() => {});

const players = ["original", "decoded"].map((id) => $(id).querySelector("audio"));

function follow(player) {
  for (const figure of [player.parentElement, $("tokens")]) {
    figure.classList.toggle("playing", !player.paused);
    figure.querySelector(".head").style.left = `${(player.currentTime / player.duration || 0) * 100}%`;
  }
  if (!player.paused) requestAnimationFrame(() => follow(player));
}

for (const player of players) {
  const other = players.find((p) => p !== player);
  player.onplay = () => {
    other.pause();
    follow(player);
  };
  player.onpause = player.onseeked = () => follow(player);
  player.parentElement.querySelector("canvas").onclick = ({ offsetX, target }) => {
    player.currentTime = (offsetX / target.clientWidth) * player.duration;
    play(player);
  };
}

$("switch").onclick = () => {
  const now = players.find((player) => !player.paused) ?? players[0];
  const next = players.find((player) => player !== now);
  next.currentTime = now.currentTime;
  play(next);
};

// --- start ---

const builtIn = await download("models.json").then((bytes) => JSON.parse(new TextDecoder().decode(bytes))).catch(() => []);
$("built-in").replaceChildren(...builtIn.map(({ name, url }) => new Option(name, url)));
$("built-in-row").hidden = builtIn.length === 0;
const asked = new URLSearchParams(location.search).get("model") ?? builtIn[0]?.url;
document.body.dataset.state = "ready";
if (asked) openModel(asked.split("/").pop(), () => download(asked), asked);
else say("Open a model to begin.");
