//! `codec eval`: scores of decoded audio.

mod coded;
mod page;
mod pairs;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use codec::{
    Codes,
    audio::{Allow, AudioReader, Conform},
    eval::{BookUse, EvalError, Lattice, MOST_SECONDS, Options, Scores, Signal, Summary, UseVisqol},
};
use serde::Serialize;

use super::{
    Failure, Global,
    model::ModelArgs,
    output::{Output, check_free},
    report::{FileFailure, print_json, say},
};

#[derive(clap::Args)]
#[command(
    override_usage = "codec eval [OPTIONS] <REFERENCE> <DEGRADED>\n       codec eval [OPTIONS] --data <FOLDER> [--bitrates <LIST>]"
)]
pub struct Args {
    /// The originals: an audio file or a folder of them
    #[arg(required_unless_present = "data", requires = "degraded")]
    reference: Option<PathBuf>,
    /// The decoded audio: a file, or a folder whose files have the names of the originals
    #[arg(conflicts_with = "data")]
    degraded: Option<PathBuf>,
    /// Code every audio file of this folder (or this file) with the model, and score what comes out
    #[arg(long, value_name = "FOLDER", help_heading = "Coding and scoring in one go")]
    data: Option<PathBuf>,
    /// Bitrates in kbit/s to code at, as `1.5,3,6`; the highest by default
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "KBPS",
        requires = "data",
        help_heading = "Coding and scoring in one go"
    )]
    bitrates: Vec<f64>,
    #[command(flatten)]
    model: ModelArgs,
    /// Resample: the decoded audio to the original's rate, or audio to the model's
    #[arg(long)]
    resample: bool,
    /// Mix the channels of audio into one before it is coded; scores are always of the mean of the channels
    #[arg(long, requires = "data")]
    downmix: bool,
    /// Measure spectral distances and SI-SDR at this rate too, in hertz
    #[arg(long, value_name = "HZ", value_parser = clap::value_parser!(u32).range(1000..=192_000))]
    rate: Option<u32>,
    /// The longest delay of the decoded audio that is looked for, in milliseconds
    #[arg(long, default_value_t = 300.0, value_name = "MS")]
    max_delay: f64,
    /// ViSQOL's lattice, which makes its opinion score of the similarity; examples/visqol_lattice.py makes the file
    #[arg(long, env = "CODEC_VISQOL", value_name = "FILE")]
    visqol: Option<PathBuf>,
    /// Leave out ViSQOL and its similarity (NSIM), which take longer than all the rest
    #[arg(long)]
    no_visqol: bool,
    /// Token files to show on the page: a file, or a folder whose files have the names of the originals
    #[arg(long, value_name = "PATH", requires = "report", conflicts_with = "data")]
    codes: Option<PathBuf>,
    /// Write a page with the table, spectrograms, players and codes; it needs nothing beside itself
    #[arg(long, value_name = "HTML")]
    report: Option<PathBuf>,
    /// Files of which the page has spectrograms and players
    #[arg(long, default_value_t = 8, value_name = "N", requires = "report")]
    report_files: usize,
    /// Replace the page if it exists
    #[arg(long, short)]
    force: bool,
}

impl Args {
    fn options(&self) -> Result<Options, Failure> {
        let visqol = match &self.visqol {
            _ if self.no_visqol => UseVisqol::No,
            None => UseVisqol::Similarity,
            Some(path) => {
                let failed =
                    |e| Failure::new(e, "give --visqol, or CODEC_VISQOL, a file of examples/visqol_lattice.py");
                UseVisqol::Opinion(Arc::new(Lattice::open(path).map_err(failed)?))
            }
        };
        Ok(Options { max_delay_ms: self.max_delay, visqol, rate: self.rate })
    }
}

/// Scores of a file.
#[derive(Debug, Serialize)]
struct Row {
    file: String,
    /// Bits of the `.nac` file a second, in thousands.
    #[serde(skip_serializing_if = "Option::is_none")]
    kbps: Option<f64>,
    /// Bytes of the `.nac` file.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(flatten)]
    scores: Scores,
    /// What is on the page.
    #[serde(skip)]
    shown: Option<Shown>,
}

/// Signals and codes of a file for the page.
#[derive(Debug)]
struct Shown {
    reference: Signal,
    degraded: Signal,
    codes: Option<(Codes, Vec<usize>)>,
}

impl Shown {
    /// Seconds of a file that the page has.
    const MOST_SECONDS: usize = 60;

    fn new(mut reference: Signal, mut degraded: Signal, codes: Option<(Codes, Vec<usize>)>) -> Self {
        for signal in [&mut reference, &mut degraded] {
            signal.samples.truncate(Self::MOST_SECONDS * signal.sample_rate as usize);
        }
        Self { reference, degraded, codes }
    }
}

/// All files at one bitrate, or as they were found.
#[derive(Debug, Serialize)]
struct Group {
    what: String,
    #[serde(flatten)]
    coding: Option<Coding>,
    files: Vec<Row>,
    mean: Means,
}

/// What coding took.
#[derive(Debug, Serialize)]
struct Coding {
    codebooks: usize,
    /// Of the `.nac` files as they are, headers and all.
    kbps: f64,
    bytes: u64,
    seconds: f64,
    /// Seconds of audio a second.
    encode_speed: f64,
    decode_speed: f64,
    /// Seconds of computing for a second of audio.
    encode_real_time_factor: f64,
    decode_real_time_factor: f64,
    codebook_use: Vec<BookUse>,
}

#[derive(Debug, Serialize)]
struct Means {
    #[serde(skip_serializing_if = "Option::is_none")]
    nsim: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    visqol: Option<Summary>,
    stoi: Option<Summary>,
    estoi: Option<Summary>,
    si_sdr: Option<Summary>,
    mel: Option<Summary>,
    mr_stft: Option<Summary>,
    lsd: Option<Summary>,
    delay_ms: Option<Summary>,
}

impl Means {
    fn of(rows: &[Row]) -> Self {
        let all = |of: fn(&Scores) -> Option<f64>| Summary::of(rows.iter().filter_map(|row| of(&row.scores)));
        Self {
            nsim: all(|s| s.nsim),
            visqol: all(|s| s.visqol),
            stoi: all(|s| Some(s.stoi)),
            estoi: all(|s| Some(s.estoi)),
            si_sdr: all(|s| Some(s.si_sdr)),
            mel: all(|s| Some(s.mel)),
            mr_stft: all(|s| Some(s.mr_stft)),
            lsd: all(|s| Some(s.lsd)),
            delay_ms: all(|s| Some(s.delay_ms)),
        }
    }
}

#[derive(Serialize)]
struct Report {
    command: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<PathBuf>,
    groups: Vec<Group>,
    /// Originals without a decoded file.
    missing: Vec<PathBuf>,
    failures: Vec<FileFailure>,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, Failure> {
    if let Some(path) = &args.report {
        check_free(path, args.force)?;
    }
    if !(0.0..=10_000.0).contains(&args.max_delay) {
        return Err(Failure::usage(EvalError::Delay(args.max_delay), "give --max-delay 0 to 10000"));
    }
    let options = args.options()?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.model.thread_count()).build();
    let pool = pool.map_err(|e| Failure::new(format_args!("cannot start threads: {e}"), "give fewer --threads"))?;
    let report = match (&args.data, &args.reference, &args.degraded) {
        (Some(data), ..) => coded::run(args, &options, data, global, &pool)?,
        (None, Some(reference), Some(degraded)) => pairs::run(args, &options, [reference, degraded], global, &pool)?,
        _ => unreachable!("clap asks for one of them"),
    };
    if global.json {
        print_json(&report)?;
    } else if !global.quiet {
        for group in &report.groups {
            for line in lines(group) {
                say(&line);
            }
        }
    }
    if !report.missing.is_empty() && !global.quiet {
        let (n, first) = (report.missing.len(), report.missing[0].display());
        eprintln!("warning: {n} original(s) have no decoded file and are left out, the first is {first}");
    }
    for failure in &report.failures {
        eprintln!("error: {}\nhelp: {}", failure.error, failure.help);
    }
    if let Some(path) = &args.report {
        let target = Output::create(path, args.force)?;
        let html = page::page(&report);
        std::io::Write::write_all(&mut target.file()?, html.as_bytes()).map_err(|e| Failure::write(path, &e))?;
        target.commit()?;
    }
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Heads of the columns, and cells of each file and of the means.
fn cells(group: &Group) -> (Vec<String>, Vec<Vec<String>>) {
    type Of = fn(&Scores) -> Option<f64>;
    let of_visqol: [(&str, Option<Summary>, Of); 2] =
        [("NSIM", group.mean.nsim, |s| s.nsim), ("ViSQOL", group.mean.visqol, |s| s.visqol)];
    let of_visqol: Vec<_> = of_visqol.into_iter().filter(|(_, mean, _)| mean.is_some()).collect();
    let kbps = group.coding.is_some();
    let mut head = vec!["file".to_owned(), "s".to_owned()];
    head.extend(kbps.then(|| "kbit/s".to_owned()));
    head.extend(of_visqol.iter().map(|(name, ..)| (*name).to_owned()));
    head.extend(["STOI", "ESTOI", "SI-SDR dB", "mel", "MR-STFT", "LSD dB", "delay ms"].map(str::to_owned));
    let mut rows: Vec<Vec<String>> = Vec::new();
    for row in &group.files {
        let s = &row.scores;
        let mut cells = vec![row.file.clone(), format!("{:.2}", s.seconds)];
        cells.extend(row.kbps.map(|v| format!("{v:.2}")));
        cells.extend(of_visqol.iter().map(|(.., of)| of(s).map_or_else(|| "-".to_owned(), |v| format!("{v:.3}"))));
        cells.extend([s.stoi, s.estoi].map(|v| format!("{v:.3}")));
        cells.push(format!("{:.2}", s.si_sdr));
        cells.extend([s.mel, s.mr_stft].map(|v| format!("{v:.3}")));
        cells.extend([s.lsd, s.delay_ms].map(|v| format!("{v:.2}")));
        rows.push(cells);
    }
    let m = &group.mean;
    let seconds: f64 = group.files.iter().map(|row| row.scores.seconds).sum();
    let kbps = group.coding.as_ref().map(|c| format!("{:.2}", c.kbps));
    let columns = [(m.stoi, 3), (m.estoi, 3), (m.si_sdr, 2), (m.mel, 3), (m.mr_stft, 3), (m.lsd, 2), (m.delay_ms, 2)];
    let columns: Vec<_> = of_visqol.iter().map(|(_, mean, _)| (*mean, 3)).chain(columns).collect();
    let mean =
        |(s, digits): &(Option<Summary>, usize)| s.map_or_else(|| "-".to_owned(), |s| format!("{:.*}", digits, s.mean));
    let ci = |(s, digits): &(Option<Summary>, usize)| {
        s.and_then(|s| s.ci95).map_or_else(|| "-".to_owned(), |v| format!("±{v:.digits$}"))
    };
    let name = format!("mean of {}", group.files.len());
    let start = |name: &str, seconds: String, kbps: Option<String>| -> Vec<String> {
        [name.to_owned(), seconds].into_iter().chain(kbps).collect()
    };
    rows.push(
        start(&name, format!("{seconds:.2}"), kbps.clone()).into_iter().chain(columns.iter().map(mean)).collect(),
    );
    rows.push(
        start("95 % interval", String::new(), kbps.map(|_| String::new()))
            .into_iter()
            .chain(columns.iter().map(ci))
            .collect(),
    );
    (head, rows)
}

/// The table of a group for a terminal.
fn lines(group: &Group) -> Vec<String> {
    let (head, rows) = cells(group);
    let width =
        |i: usize| rows.iter().chain([&head]).filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cell = |(i, c): (usize, &String)| {
            let w = widths[i];
            if i == 0 { format!("{c:<w$}") } else { format!("{c:>w$}") }
        };
        row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut out = vec![format!("{}{}", group.what, group.coding.as_ref().map(Coding::line).unwrap_or_default())];
    out.push(line(&head));
    out.extend(rows.iter().map(line));
    if let Some(coding) = &group.coding {
        for (i, book) in coding.codebook_use.iter().enumerate() {
            out.push(format!("codebook {}: {}", i + 1, book_line(book)));
        }
    }
    out.push(String::new());
    out
}

fn book_line(book: &BookUse) -> String {
    let (used, size) = (book.used, book.size);
    format!("{used} of {size} entries used ({:.1} %), perplexity {:.1}", book.share * 100.0, book.perplexity)
}

impl Coding {
    fn line(&self) -> String {
        format!(
            ": {} codebook(s), {:.2} kbit/s in {} bytes, encoded at {:.1} and decoded at {:.1} × real time",
            self.codebooks, self.kbps, self.bytes, self.encode_speed, self.decode_speed
        )
    }
}

/// The mean of a file's channels.
fn read_mono(path: &Path) -> Result<Signal, Failure> {
    let (pcm, sample_rate, channels) = read(path)?;
    let samples = pcm.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect();
    Ok(Signal { samples, sample_rate })
}

/// Interleaved samples, rate and channels.
fn read(path: &Path) -> Result<(Vec<f32>, u32, usize), Failure> {
    let audio = |e| Failure::audio(path, e);
    let mut reader = AudioReader::open(path).map_err(audio)?;
    let (rate, channels) = (reader.info().sample_rate, reader.info().channels);
    let most = MOST_SECONDS as usize * rate as usize * channels;
    let mut pcm = Vec::new();
    while let Some(block) = reader.next_block().map_err(audio)? {
        pcm.extend_from_slice(block);
        if pcm.len() > most {
            let text = format!("{}: it is longer than {MOST_SECONDS} s", path.display());
            return Err(Failure::new(text, "cut it into shorter files"));
        }
    }
    Ok((pcm, rate, channels))
}

/// Makes audio fit a model.
fn fit(
    path: &Path,
    (pcm, rate, channels): (Vec<f32>, u32, usize),
    to: (u32, usize),
    allow: Allow,
) -> Result<Vec<f32>, Failure> {
    let mut conform = Conform::new((rate, channels), to, allow).map_err(|e| Failure::audio(path, e))?;
    if conform.is_identity() {
        return Ok(pcm);
    }
    let mut out = Vec::new();
    conform.push(&pcm, &mut out);
    conform.finish(&mut out);
    Ok(out)
}

fn eval_failure(path: &Path, error: EvalError) -> Failure {
    let help = match &error {
        EvalError::Rates { .. } => "give --resample to resample the decoded audio to the original's rate",
        EvalError::TooShort { .. } => {
            "give at least a tenth of a second; speech needs half a second for STOI and ViSQOL"
        }
        EvalError::TooLong { .. } => "cut it into shorter files",
        EvalError::Delay(_) => "give --max-delay 0 to 10000",
        _ => "check what wrote the file",
    };
    Failure::new(format_args!("{}: {error}", path.display()), help)
}

fn file_failure(input: &Path, failure: &Failure) -> FileFailure {
    FileFailure { input: input.to_owned(), error: failure.message().to_owned(), help: failure.help().to_owned() }
}
