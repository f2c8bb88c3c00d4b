//! `codec report`: a page of a training run, from what the trainer has written so far.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use codec::{audio::AudioReader, eval::Signal};
use serde_json::Value;

use super::{
    Failure, Global,
    output::{Output, check_free},
    report::say,
};
use crate::report::{Page, curve_figure, escape, sound_figure};

/// Points that a curve keeps; when there are twice as many, neighbours become their means.
const POINTS: usize = 1000;
/// The longest line of a log.
const MOST_LINE: u64 = 1 << 20;
/// Curves at most: a log has some dozens.
const MOST_CURVES: usize = 512;
/// Seconds of a validation item on the page.
const MOST_SECONDS: usize = 30;

#[derive(clap::Args)]
pub struct Args {
    /// The folder of a run of `codec train`
    run: PathBuf,
    /// The page to write; `report.html` in the run's folder by default
    #[arg(long, short, value_name = "HTML")]
    output: Option<PathBuf>,
    /// Validation items of which the page has spectrograms and players
    #[arg(long, default_value_t = 4, value_name = "N")]
    items: usize,
    /// Replace the page if it exists
    #[arg(long, short)]
    force: bool,
}

/// Values by step, thinned as they come.
#[derive(Debug, Default)]
struct Series {
    points: Vec<(f64, f64)>,
    /// Values that a point is the mean of.
    each: usize,
    held: (f64, f64, usize),
}

impl Series {
    fn add(&mut self, x: f64, y: f64) {
        self.each = self.each.max(1);
        self.held = (self.held.0 + x, self.held.1 + y, self.held.2 + 1);
        if self.held.2 == self.each {
            self.flush();
        }
        if self.points.len() >= 2 * POINTS {
            let half = self.points.chunks(2).map(|p| {
                let n = p.len() as f64;
                (p.iter().map(|p| p.0).sum::<f64>() / n, p.iter().map(|p| p.1).sum::<f64>() / n)
            });
            self.points = half.collect();
            self.each *= 2;
        }
    }

    fn flush(&mut self) {
        let (x, y, n) = std::mem::take(&mut self.held);
        if n > 0 {
            self.points.push((x / n as f64, y / n as f64));
        }
    }
}

/// Curves of a log by the names of its fields.
#[derive(Debug, Default)]
struct Log {
    curves: BTreeMap<String, Series>,
    lines: u64,
    last_step: f64,
}

impl Log {
    /// Reads a log; `None` if there is none. A last line without an end is still being written.
    fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failure::read(path, &e)),
        };
        let mut input = BufReader::new(file);
        let mut log = Self::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            (&mut input).take(MOST_LINE).read_until(b'\n', &mut line).map_err(|e| Failure::read(path, &e))?;
            let ended = line.last() == Some(&b'\n');
            if !ended && (line.len() as u64) < MOST_LINE {
                break;
            }
            log.lines += 1;
            let bad = |why: &str| {
                let text = format!("{}: line {} {why}", path.display(), log.lines);
                Failure::new(text, "give the folder of a run of `codec train`; remove that line if the disk damaged it")
            };
            let value: Value = serde_json::from_slice(&line).map_err(|_| bad("is not JSON"))?;
            let step = value.get("step").and_then(Value::as_f64).ok_or_else(|| bad("has no step"))?;
            log.last_step = step;
            log.take("", &value, step);
        }
        log.curves.values_mut().for_each(Series::flush);
        Ok(Some(log))
    }

    /// Numbers of a value, its lists and its objects.
    fn take(&mut self, name: &str, value: &Value, step: f64) {
        let join = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}/{key}") };
        match value {
            Value::Object(fields) => {
                for (key, value) in fields.iter().filter(|(key, _)| *key != "step") {
                    self.take(&join(key), value, step);
                }
            }
            Value::Array(values) => {
                for (i, value) in values.iter().enumerate() {
                    self.take(&join(&format!("{:02}", i + 1)), value, step);
                }
            }
            _ => {
                let number = value.as_f64().filter(|v| v.is_finite());
                if let Some(number) = number
                    && (self.curves.len() < MOST_CURVES || self.curves.contains_key(name))
                {
                    self.curves.entry(name.to_owned()).or_default().add(step, number);
                }
            }
        }
    }

    /// Curves whose names begin so, each by itself or all in one drawing.
    fn figures(&self, prefix: &str, together: Option<&str>) -> String {
        let own = self.curves.iter().filter_map(|(name, series)| Some((name.strip_prefix(prefix)?, series)));
        let curves: Vec<(String, Vec<(f64, f64)>)> = own
            .map(|(name, s)| {
                let name =
                    if together.is_some() { format!("book {}", name.trim_start_matches('0')) } else { name.to_owned() };
                (name, s.points.clone())
            })
            .collect();
        let html: String = match together {
            Some(title) => curve_figure(title, &curves),
            None => curves.into_iter().map(|curve| curve_figure(&curve.0.clone(), &[curve])).collect(),
        };
        if html.is_empty() { html } else { format!("<div class=\"pair\">{html}</div>") }
    }
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, Failure> {
    let output = args.output.clone().unwrap_or_else(|| args.run.join("report.html"));
    check_free(&output, args.force)?;
    if !args.run.is_dir() {
        let text = format!("{} is no folder", args.run.display());
        return Err(Failure::new(text, "give the folder that `codec train --out` wrote to"));
    }
    let metrics = Log::read(&args.run.join("metrics.jsonl"))?;
    let validation = Log::read(&args.run.join("validation.jsonl"))?;
    let Some(metrics) = metrics.filter(|log| log.lines > 0) else {
        let text = format!("{} has no step in metrics.jsonl", args.run.display());
        return Err(Failure::new(text, "give the folder that `codec train --out` wrote to, after its first step"));
    };
    let name = args.run.canonicalize().ok();
    let name = name.as_deref().and_then(Path::file_name).unwrap_or(args.run.as_os_str()).to_string_lossy().into_owned();
    let steps = metrics.last_step + 1.0;
    let validations = validation.as_ref().map_or(0, |log| log.lines);
    let mut page = Page::new(&format!("Training run {name}"), &format!("{steps} steps, {validations} validations"));
    if let Some(log) = &validation {
        page.section("Validation", "by steps done", &log.figures("", None));
    }
    page.section("Losses", "before their weights, by step", &metrics.figures("losses/", None));
    page.section("Gradient norms", "by step", &metrics.figures("gradient_norms/", None));
    let books = metrics.figures("perplexity/", Some("Perplexity"));
    let dead = metrics.figures("dead/", Some("Share of dead entries"));
    page.section("Codebooks", "by step", &[books, dead].concat());
    page.section("Learning rate", "by step", &metrics.figures("rate", None));
    sounds(&mut page, &args.run.join("validation"), args.items)?;
    if let Some(recipe) = text(&args.run.join("recipe.toml"))? {
        page.section("Recipe", "", &format!("<pre>{}</pre>", escape(&recipe)));
    }
    let target = Output::create(&output, args.force)?;
    target.file()?.write_all(page.finish().as_bytes()).map_err(|e| Failure::write(&output, &e))?;
    let bytes = target.commit()?;
    if global.json {
        super::report::print_json(&serde_json::json!({
            "command": "report", "run": args.run, "output": output, "bytes": bytes, "steps": steps, "validations": validations,
        }))?;
    } else if !global.quiet {
        say(&format!("{}: {steps} steps, {validations} validations, {bytes} bytes", output.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Originals, and what the first and the last validation made of them.
fn sounds(page: &mut Page, folder: &Path, items: usize) -> Result<(), Failure> {
    let steps: Vec<PathBuf> =
        entries(folder)?.into_iter().filter(|path| name(path).starts_with("step-") && path.is_dir()).collect();
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return Ok(()) };
    let mut originals: Vec<PathBuf> = entries(&folder.join("reference"))?;
    originals.retain(|path| path.extension().is_some_and(|e| e == "wav"));
    originals.sort_by_key(|path| path.file_stem().and_then(|s| s.to_str()?.parse::<u64>().ok()).unwrap_or(u64::MAX));
    for original in originals.iter().take(items) {
        let wav = name(original);
        let step = |path: &Path| name(path).trim_start_matches("step-").trim_start_matches('0').to_owned();
        let mut html = figure("Original", original)?;
        html += &figure(&format!("After {} steps", step(last)), &last.join(&wav))?;
        if first != last {
            html += &figure(&format!("After {} steps", step(first)), &first.join(&wav))?;
        }
        page.section(
            &format!("Validation item {}", wav.trim_end_matches(".wav")),
            "",
            &format!("<div class=\"pair\">{html}</div>"),
        );
    }
    Ok(())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What is in a folder, by name; nothing if there is none.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let all = match fs::read_dir(folder) {
        Ok(all) => all,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Failure::read(folder, &e)),
    };
    let mut found =
        all.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(|e| Failure::read(folder, &e))?;
    found.sort();
    Ok(found)
}

/// The start of a sound, the mean of its channels; nothing if there is no such file.
fn figure(title: &str, path: &Path) -> Result<String, Failure> {
    if !path.is_file() {
        return Ok(String::new());
    }
    let audio = |e| Failure::audio(path, e);
    let mut reader = AudioReader::open(path).map_err(audio)?;
    let (rate, channels) = (reader.info().sample_rate, reader.info().channels);
    let most = MOST_SECONDS * rate as usize;
    let mut samples = Vec::new();
    while let Some(block) = reader.next_block().map_err(audio)? {
        samples.extend(block.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32));
        if samples.len() >= most {
            samples.truncate(most);
            break;
        }
    }
    let signal = Signal { samples, sample_rate: rate };
    Ok(sound_figure(title, &format!("{rate} Hz, {:.2} s", signal.seconds()), &signal))
}

/// A text file of at most a mebibyte.
fn text(path: &Path) -> Result<Option<String>, Failure> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::read(path, &e)),
    };
    let mut bytes = Vec::new();
    file.take(MOST_LINE).read_to_end(&mut bytes).map_err(|e| Failure::read(path, &e))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
