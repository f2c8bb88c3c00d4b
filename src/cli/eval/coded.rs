//! Files that are coded here.

use std::{
    io::Cursor,
    path::{Path, PathBuf},
    time::Instant,
};

use codec::{
    Codes, Model, Options,
    audio::Allow,
    core::{bitstream::CodeGroup, spec::Framing},
    eval::{self, BookUses, Signal, score},
    tokens::{NacTokens, NacTokensWriter, Step, StreamInfo, TokenReader as _, TokenWriter as _},
};
use rayon::prelude::*;

use super::{
    super::{encode::AUDIO, model::codebooks_of_bandwidth, progress::Progress},
    Args, Coding, Failure, Global, Group, Means, Report, Row, Shown, eval_failure, file_failure, fit, read,
};

/// Coded files of a bitrate.
struct Rate {
    options: Options,
    stream: StreamInfo,
    sizes: Vec<usize>,
    uses: BookUses,
    rows: Vec<Row>,
    bytes: u64,
    seconds: f64,
    encode: f64,
    decode: f64,
}

pub fn run(
    args: &Args,
    measured: &eval::Options,
    data: &Path,
    global: &Global,
    pool: &rayon::ThreadPool,
) -> Result<Report, Failure> {
    let path = args.model.path()?;
    let model = args.model.load()?;
    let engine = |e| Failure::engine(path, e);
    let quantizer = model.quantizer().map_err(engine)?;
    let (sizes, bitrates) = (quantizer.sizes(), model.bitrates().map_err(engine)?);
    let books: Vec<usize> = if args.bitrates.is_empty() {
        vec![sizes.len()]
    } else {
        let of = |kbps: &f64| codebooks_of_bandwidth(&bitrates, sizes.len(), *kbps);
        args.bitrates.iter().map(of).collect::<Result<_, _>>()?
    };
    let mut rates = Vec::new();
    for books in books {
        let options = args.model.options(global, Some(books), 1);
        model.encoder(&options).map_err(engine)?;
        model.decoder(&options).map_err(engine)?;
        let levels = CodeGroup::of(quantizer, 0, books).map_err(|e| Failure::tokens(path, e.into()))?;
        let sizes: Vec<usize> = sizes.iter().take(books).map(|size| *size as usize).collect();
        rates.push(Rate {
            stream: stream(&model, books, levels),
            options,
            uses: BookUses::new(&sizes),
            sizes,
            rows: Vec::new(),
            bytes: 0,
            seconds: 0.0,
            encode: 0.0,
            decode: 0.0,
        });
    }
    let files = files(data)?;
    let progress = Progress::of_files(global.quiet, files.len());
    let mut failures = Vec::new();
    for (i, (name, file)) in files.iter().enumerate() {
        let shown = args.report.is_some() && i < args.report_files;
        match one(args, measured, &model, (name, file), &mut rates, pool, shown) {
            Ok(()) => {}
            Err(failure) if files.len() == 1 => return Err(failure),
            Err(failure) => failures.push(file_failure(file, &failure)),
        }
        progress.file_done();
    }
    drop(progress);
    let name = &model.spec().name;
    Ok(Report {
        command: "eval",
        model: Some(path.to_owned()),
        groups: rates.into_iter().map(|rate| rate.group(name)).collect(),
        missing: Vec::new(),
        failures,
    })
}

/// Codes a file at every bitrate, one after the other so that times are those of one signal, and scores all of it at once.
fn one(
    args: &Args,
    measured: &eval::Options,
    model: &Model,
    (name, file): (&str, &Path),
    rates: &mut [Rate],
    pool: &rayon::ThreadPool,
    shown: bool,
) -> Result<(), Failure> {
    let spec = model.spec();
    let channels = spec.channels as usize;
    let allow = Allow { resample: args.resample, downmix: args.downmix, upmix: false };
    let pcm = fit(file, read(file)?, (spec.sample_rate, channels), allow)?;
    let mono = |pcm: &[f32]| Signal {
        samples: pcm.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect(),
        sample_rate: spec.sample_rate,
    };
    let reference = mono(&pcm);
    let mut coded = Vec::new();
    for rate in rates.iter() {
        coded.push(code(model, file, rate, &pcm, channels)?);
    }
    let scores: Vec<_> =
        pool.install(|| coded.par_iter().map(|c| score(&reference, &mono(&c.pcm), measured)).collect());
    let scores = scores.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| eval_failure(file, e))?;
    for ((rate, coded), scores) in rates.iter_mut().zip(coded).zip(scores) {
        rate.uses.add(&coded.codes);
        rate.bytes += coded.bytes;
        rate.seconds += reference.seconds();
        rate.encode += coded.encode;
        rate.decode += coded.decode;
        let kbps = Some(coded.bytes as f64 * 8e-3 / reference.seconds());
        let shown =
            shown.then(|| Shown::new(reference.clone(), mono(&coded.pcm), Some((coded.codes, rate.sizes.clone()))));
        rate.rows.push(Row { file: name.to_owned(), kbps, bytes: Some(coded.bytes), scores, shown });
    }
    Ok(())
}

struct Coded {
    codes: Codes,
    pcm: Vec<f32>,
    bytes: u64,
    encode: f64,
    decode: f64,
}

/// To a `.nac` file in memory and back from it.
fn code(model: &Model, file: &Path, rate: &Rate, pcm: &[f32], channels: usize) -> Result<Coded, Failure> {
    let engine = |e| Failure::engine(file, e);
    let tokens = |e| Failure::tokens(file, e);
    let samples = (pcm.len() / channels) as u64;
    let started = Instant::now();
    let codes = model.encode(pcm, &rate.options).map_err(engine)?;
    let encode = started.elapsed().as_secs_f64();
    let mut held = Cursor::new(Vec::new());
    let mut writer = NacTokensWriter::new(&mut held, &rate.stream).map_err(tokens)?;
    writer.write(&codes).map_err(tokens)?;
    writer.finish(samples).map_err(tokens)?;
    drop(writer);
    let bytes = held.get_ref().len() as u64;
    held.set_position(0);
    let mut reader = NacTokens::new(held, false).map_err(tokens)?;
    let mut codes = Codes::new(rate.stream.codebooks);
    let mut next = codes.clone();
    while reader.next(&mut next).map_err(tokens)? == Step::Frames {
        codes.data.append(&mut next.data);
        codes.segments.append(&mut next.segments);
    }
    let started = Instant::now();
    let pcm = model.decode(&codes, Some(samples), &rate.options).map_err(engine)?;
    Ok(Coded { codes, pcm, bytes, encode, decode: started.elapsed().as_secs_f64() })
}

fn stream(model: &Model, codebooks: usize, levels: Vec<CodeGroup>) -> StreamInfo {
    let spec = model.spec();
    StreamInfo {
        fingerprint: Some(model.fingerprint().0),
        sample_rate: Some(spec.sample_rate),
        channels: Some(spec.channels as usize),
        hop: Some(spec.hop),
        codebooks,
        levels,
        segmented: matches!(spec.framing, Framing::Segments { .. }),
        ..StreamInfo::default()
    }
}

impl Rate {
    fn group(self, model: &str) -> Group {
        let seconds = self.seconds.max(1e-9);
        let coding = Coding {
            codebooks: self.sizes.len(),
            kbps: self.bytes as f64 * 8e-3 / seconds,
            bytes: self.bytes,
            seconds: self.seconds,
            encode_speed: self.seconds / self.encode.max(1e-9),
            decode_speed: self.seconds / self.decode.max(1e-9),
            encode_real_time_factor: self.encode / seconds,
            decode_real_time_factor: self.decode / seconds,
            codebook_use: self.uses.uses(),
        };
        let mean = Means::of(&self.rows);
        Group { what: model.to_owned(), coding: Some(coding), files: self.rows, mean }
    }
}

/// Audio files of a folder and of those in it, with their names in it; or one file.
fn files(data: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    if !data.is_dir() {
        return Ok(vec![(data.file_name().unwrap_or_default().to_string_lossy().into_owned(), data.to_owned())]);
    }
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(data).follow_links(true).sort_by_file_name() {
        let entry =
            entry.map_err(|e| Failure::new(format_args!("cannot look into {}: {e}", data.display()), "check it"))?;
        let extension = entry.path().extension().and_then(|e| e.to_str()).unwrap_or("");
        if entry.file_type().is_file() && AUDIO.iter().any(|e| extension.eq_ignore_ascii_case(e)) {
            let name = entry.path().strip_prefix(data).unwrap_or(entry.path()).with_extension("");
            found.push((name.to_string_lossy().into_owned(), entry.into_path()));
        }
    }
    if found.is_empty() {
        let text = format!("there are no audio files in {}", data.display());
        return Err(Failure::new(text, format_args!("these extensions are taken: {}", AUDIO.join(", "))));
    }
    Ok(found)
}
