use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use codec::{
    Codes, Error, Model,
    audio::AudioReader,
    tokens::{self, Kind, Levels, SafetensorsReader, Step},
};
use serde_json::{Value, json};

use super::{Failure, Global, report};

#[derive(clap::Args)]
pub struct Args {
    /// Model, token file or audio file; which it is is found from its content
    file: PathBuf,
    /// Compute a model's fingerprint from its content and compare it with the one that the file states
    #[arg(long)]
    verify: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, Failure> {
    let path = &args.file;
    let value = match Kind::of_content(path).map_err(|e| Failure::read(path, &e))? {
        Some(Kind::Safetensors) if !SafetensorsReader::has_codes(path).map_err(|e| Failure::tokens(path, e))? => {
            model(path, args.verify)?
        }
        Some(kind) => tokens(path, kind)?,
        None if Model::is_image(path) => model(path, args.verify)?,
        None => audio(path)?,
    };
    if global.json {
        report::print_json(&value)?;
    } else {
        let mut lines = Vec::new();
        flatten(&value, 0, &mut lines);
        lines.iter().for_each(|line| report::say(line));
    }
    Ok(ExitCode::SUCCESS)
}

fn model(path: &Path, verify: bool) -> Result<Value, Failure> {
    let failed = |e: Error| {
        let help = "if it is a published checkpoint, `codec import` makes a model file of it";
        match e {
            Error::Image(_) => Failure::new(e, "copy the image again, or pack the model again with `codec pack`"),
            // These do not know of the file.
            Error::Build(_) | Error::Run(_) => Failure::new(format_args!("{}: {e}", path.display()), help),
            e => Failure::new(e, help),
        }
    };
    let model = Model::load(path).map_err(failed)?;
    if verify {
        model.verify().map_err(|e| Failure::new(e, "import the checkpoint again, or fetch the model file again"))?;
    }
    let provenance = model.provenance();
    let mut value = json!({
        "kind": "model",
        "system": provenance.system,
        "license": provenance.license,
        "source": provenance.source,
        "verified": verify.then_some(true),
    });
    let info = model.info().map_err(failed)?;
    merge(&mut value, serde_json::to_value(info).map_err(|e| Failure::new(e, "report this"))?);
    Ok(value)
}

fn tokens(path: &Path, kind: Kind) -> Result<Value, Failure> {
    let failed = |e| Failure::tokens(path, e);
    let mut reader = tokens::open(path, false).map_err(failed)?;
    // To the end: that is how damage is found, and what some kinds know only then.
    let (mut codes, mut frames, mut segments) = (Codes::default(), 0u64, 0usize);
    let mut lost = 0u64;
    loop {
        match reader.next(&mut codes).map_err(failed)? {
            Step::Frames => {
                frames += codes.frames() as u64;
                segments += codes.segments.len();
            }
            Step::Lost(n) => lost = lost.saturating_add(n.unwrap_or(0)),
            Step::End => break,
        }
    }
    let info = reader.info();
    let bytes = std::fs::metadata(path).map_err(|e| Failure::read(path, &e))?.len();
    let samples = info.samples.or(info.hop.map(|hop| frames.saturating_add(lost).saturating_mul(hop.into())));
    let seconds = samples.zip(info.sample_rate).map(|(n, rate)| n as f64 / f64::from(rate));
    Ok(json!({
        "kind": "tokens",
        "format": kind.extension(),
        "model_fingerprint": info.fingerprint.as_ref().map(tokens::to_hex),
        "sample_rate": info.sample_rate,
        "channels": info.channels,
        "hop": info.hop,
        "codebooks": info.codebooks,
        "levels": (!info.levels.is_empty()).then(|| Levels(info.levels.clone()).to_string()),
        "shape": info.shape.to_string(),
        "frames": frames,
        "lost_frames": lost,
        "segments": info.segmented.then_some(segments),
        "samples": info.samples,
        "seconds": seconds,
        "bytes": bytes,
        "kbps": seconds.filter(|&s| s > 0.0).map(|s| bytes as f64 * 8e-3 / s),
    }))
}

fn audio(path: &Path) -> Result<Value, Failure> {
    let reader = AudioReader::open(path).map_err(|e| Failure::audio(path, e))?;
    let info = reader.info();
    Ok(json!({
        "kind": "audio",
        "format": info.container,
        "coding": info.codec,
        "sample_rate": info.sample_rate,
        "channels": info.channels,
        "samples": info.frames,
        "seconds": info.frames.map(|f| f as f64 / f64::from(info.sample_rate)),
    }))
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// `key: value` lines; a list of plain values on one line, anything nested indented.
fn flatten(value: &Value, depth: usize, lines: &mut Vec<String>) {
    let plain = |v: &Value| !matches!(v, Value::Object(_) | Value::Array(_));
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let indent = "  ".repeat(depth);
    let Value::Object(map) = value else {
        lines.push(format!("{indent}{}", text(value)));
        return;
    };
    // What is short comes first.
    let (nested, short): (Vec<_>, Vec<_>) = map.iter().partition(|(_, value)| !plain(value));
    for (key, value) in short.into_iter().chain(nested) {
        let key = key.replace('_', " ");
        match value {
            Value::Null => {}
            Value::Array(items) if items.len() > 2 && items.iter().all(|i| plain(i) && Some(i) == items.first()) => {
                lines.push(format!("{indent}{key}: {} × {}", items.len(), items.first().map(text).unwrap_or_default()));
            }
            Value::Array(items) if items.iter().all(plain) => {
                let items: Vec<String> = items.iter().map(text).collect();
                lines.push(format!("{indent}{key}: {}", items.join(", ")));
            }
            Value::Array(items) => {
                lines.push(format!("{indent}{key}:"));
                for item in items {
                    match item {
                        Value::Object(map) if map.values().all(plain) => {
                            let items: Vec<String> =
                                map.iter().map(|(k, v)| format!("{} {}", k.replace('_', " "), text(v))).collect();
                            lines.push(format!("{indent}  {}", items.join(", ")));
                        }
                        item => flatten(item, depth + 1, lines),
                    }
                }
            }
            Value::Object(_) => {
                lines.push(format!("{indent}{key}:"));
                flatten(value, depth + 1, lines);
            }
            value => lines.push(format!("{indent}{key}: {}", text(value))),
        }
    }
}
