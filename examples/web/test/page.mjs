// Drives the page in headless Chromium as a person would, and compares with the host's files:
// node page.mjs IMAGE WAV CODEBOOKS HOST.nac HOST.wav LEAST_SNR_DB SCREENSHOT.png [built-in]
// With `built-in` the image is that of the model in the box: the page opens it by itself, and again where it is asked to.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { readWav } from "../page/wav.js";
import { Chromium, serve } from "./chromium.mjs";
import { compare } from "./compare.mjs";

const [image, wav, codebooks, nac, hostWav, least, screenshot, builtIn] = process.argv.slice(2);
const host = readWav(new Uint8Array(fs.readFileSync(hostWav)).buffer);
let failures = 0;
const check = (what, ok, found = "") => {
  console.log(`${ok ? "ok    " : "FAILED"} ${what} ${found}`);
  if (!ok) failures++;
};

const server = await serve(fileURLToPath(new URL("../page", import.meta.url)));
const browser = await Chromium.start();
try {
  const state = "document.body.dataset.state";
  const status = () => browser.evaluate("document.getElementById('status').textContent");
  const settled = () => browser.until(`['ready', 'failed'].includes(${state})`);
  const choose = async (selector, file) => {
    await browser.evaluate(`${state} = 'chosen'`);
    await browser.choose(selector, file);
    await settled();
    return browser.evaluate(state);
  };
  const floats = async (name) => {
    const values = await browser.evaluate(`import('./app.js').then(({ page }) => Array.from(page.${name}))`);
    return Float32Array.from(values);
  };
  const figure = (name) => browser.evaluate(
    `[...document.querySelectorAll('#figures div')].find((d) => d.querySelector('dt').textContent === '${name}').querySelector('dd').firstChild.data`);
  // Different colours, and how far they are apart: a blank picture has one.
  const colours = (canvas) => browser.evaluate(`(() => {
    const canvas = document.querySelector('${canvas}');
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
  })()`);

  const started = () => browser.until(`document.readyState === 'complete' && ['ready', 'failed'].includes(${state})`);
  const selected = () => browser.evaluate("document.getElementById('built-in').selectedOptions[0]?.text ?? ''");
  await browser.open(`${server.url}?model=models.json`);
  await started();
  check("what is no model does not load", (await browser.evaluate(state)) === "failed", await status());
  check("a sound needs a model first", await browser.evaluate("document.getElementById('sound').disabled"));
  await browser.open(server.url);
  await browser.until("location.search === ''");
  await started();
  check("the page opens the model in the box", (await browser.evaluate(state)) === "ready" && (await selected()) === "nano-16k", await status());
  if (!builtIn) {
    check("a model loads", (await choose("#model-file", image)) === "ready", await status());
    check("and none in the box is selected", (await selected()) === "");
  }
  await browser.evaluate(`document.getElementById('bitrate').value = '${codebooks}'`);
  check("a wav is encoded and decoded", (await choose("#sound-file", wav)) === "ready", await status());

  const original = await floats("original");
  check("samples come in unchanged", compare(original, readWav(new Uint8Array(fs.readFileSync(wav)).buffer).pcm) === Infinity);
  const codes = await floats("codes");
  const snr = compare(await floats("decoded"), host.pcm);
  const own = Buffer.from(await floats("nac"));
  const same = own.equals(fs.readFileSync(nac));
  console.log(`       the saved .nac is the host's: ${same}`);
  // The model in the box is int8: a last bit of a sum in f32, which WebAssembly rounds otherwise, can turn the rounding of an
  // activation, and so a token now and then. The host's own tokens are decoded and compared below.
  if (same || !builtIn) {
    check(`decoded samples are the host's (at least ${least} dB)`, snr >= Number(least), `${snr.toFixed(1)} dB`);
  } else {
    console.log(`       decoded from other tokens: ${snr.toFixed(1)} dB`);
  }
  check("the saved .nac has the host's length", own.length === fs.statSync(nac).size, `${own.length} bytes`);
  for (const [what, canvas, some] of [["the original's spectrogram", "#original canvas", 50], ["the decoded spectrogram", "#decoded canvas", 50], ["the tokens", "#tokens canvas", 8]]) {
    const found = await colours(canvas);
    check(`${what} is not blank`, found >= some, `${found} colours`);
  }
  // Reported, not checked: the machine may have other things to do.
  console.log(`       times real time: encoding ${await figure("Encoding")}, decoding ${await figure("Decoding")}`);
  await browser.evaluate("document.querySelector('#decoded audio').play()");
  await browser.until("document.querySelector('#decoded audio').currentTime > 0.2", 10);
  check("the decoded sound plays", true);
  await browser.evaluate("document.getElementById('switch').click()");
  await browser.until("!document.querySelector('#original audio').paused && document.querySelector('#decoded audio').paused", 10);
  check("switching goes to the other player", true);
  await browser.evaluate("document.querySelector('#original audio').pause()");
  await browser.screenshot(screenshot, 1200, 1250);
  if (builtIn) {
    check("the same model from a file", (await choose("#model-file", image)) === "ready" && (await selected()) === "", await status());
    const codesOfFile = await floats("codes");
    await browser.evaluate(`${state} = 'chosen'; document.getElementById('built-in').selectedIndex = 0; document.getElementById('built-in').dispatchEvent(new Event('change'))`);
    await settled();
    check("and from the list again", (await browser.evaluate(state)) === "ready" && (await selected()) === "nano-16k", await status());
    // Either codes the sound anew, at the highest bitrate.
    check("give the same codes", compare(await floats("codes"), codesOfFile) === Infinity, `${codesOfFile.length} codes`);
    await browser.evaluate(`document.getElementById('bitrate').value = '${codebooks}'`);
  }

  check("the host's .nac opens", (await choose("#sound-file", nac)) === "ready", await status());
  const again = compare(await floats("decoded"), host.pcm);
  check("and decodes to the host's samples", again >= Number(least), `${again.toFixed(1)} dB`);
  check("its codes", (await floats("codes")).length === codes.length);

  await browser.evaluate("document.getElementById('record').click()");
  await browser.until("document.getElementById('record').textContent === 'Stop'", 20);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  await browser.evaluate("document.getElementById('record').click()");
  await browser.until(`${state} === 'busy' || document.getElementById('sound-name').textContent === 'Recording'`, 20);
  await settled();
  const recorded = await floats("original");
  check("a recording is coded", (await browser.evaluate(state)) === "ready" && recorded.some((v) => v !== 0), `${recorded.length} samples: ${await status()}`);

  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "codec-page-"));
  const damaged = path.join(folder, "damaged.nac");
  const bytes = fs.readFileSync(nac);
  bytes[bytes.length >> 1] ^= 1;
  fs.writeFileSync(damaged, bytes);
  const noSound = path.join(folder, "text.wav");
  fs.writeFileSync(noSound, "no sound");
  const noModel = path.join(folder, "text.bin");
  fs.writeFileSync(noModel, "no model");
  check("a damaged .nac is refused", (await choose("#sound-file", damaged)) === "failed", await status());
  check("a text is refused as sound", (await choose("#sound-file", noSound)) === "failed", await status());
  check("a text is refused as a model", (await choose("#model-file", noModel)) === "failed", await status());
  fs.rmSync(folder, { recursive: true });
  check("the page logged no error", browser.errors.length === 0, browser.errors.join("; "));
} catch (error) {
  check(String(error), false, await browser.evaluate("document.getElementById('status').textContent").catch(() => ""));
  console.log(browser.errors.join("\n"));
} finally {
  await browser.close();
  server.close();
}
process.exitCode = failures === 0 ? 0 : 1;
