use std::{
    io::{BufWriter, Write},
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
};

use codec::{
    Codes, Error, Model, Options,
    audio::{AudioError, SampleFormat, WavReport, WavWriter},
    core::{RunError, bitstream::CodeGroup, spec::Framing},
    tokens::{self, Known, Levels, Step, StreamInfo, TokenReader},
};

use super::{
    Failure, Global, batch,
    device::{Decoder, Device, DeviceArgs, Half, Open},
    model::{Books, ModelArgs},
    output::{Output, check_free},
    progress::Progress,
    report::{FileReport, Lost, Report},
    shape::ShapeArgs,
};

/// Extensions of the token files that are looked for in a folder.
const TOKENS: &[&str] = &["nac", "npy", "safetensors", "jsonl"];
/// The most silence, in seconds, that stands for lost frames: a short hostile file can claim to have lost years.
const MAX_SILENCE: u64 = 24 * 3600;

#[derive(clap::Args)]
pub struct Args {
    /// Token file (.nac, .npy, .safetensors, .jsonl); with --out-dir, a folder or a .txt list of files
    input: PathBuf,
    /// Wav file, or `-` for standard output
    #[arg(required_unless_present = "out_dir", conflicts_with = "out_dir")]
    output: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Codes a frame of a flat or tree .npy file, which does not say it; all that the model has by default
    #[arg(long, short = 'n', value_name = "N", help_heading = "Shape of the tokens")]
    codebooks: Option<usize>,
    /// Decode only codebooks A to B-1 of a frame: `0..1` the semantic one of Mimi, `1..8` the acoustic ones. A file
    /// that does not say which codebooks it has has these, if it has so many, and otherwise the first
    #[arg(long, value_name = "A..B")]
    books: Option<Books>,
    /// How samples are stored
    #[arg(long, value_name = "FORMAT", default_value = "i16")]
    sample_format: Format,
    /// Add the noise that SNAC's decoder was trained with; the same seed gives the same samples. None by default
    #[arg(long, value_name = "SEED")]
    noise_seed: Option<u64>,
    /// Decode what is left of a damaged .nac file, with silence in place of what is lost
    #[arg(long)]
    salvage: bool,
    /// Replace files that exist
    #[arg(long, short)]
    force: bool,
    /// Decode many files into this folder, keeping their relative paths; files that exist there are skipped
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Format {
    I16,
    I24,
    F32,
}

impl From<Format> for SampleFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::I16 => Self::I16,
            Format::I24 => Self::I24,
            Format::F32 => Self::F32,
        }
    }
}

pub fn run(args: Args, global: &Global, open: Option<&Open<'_>>) -> Result<ExitCode, Failure> {
    if let Some(elsewhere) = args.device.elsewhere("decode", open) {
        return elsewhere;
    }
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    if to_stdout && global.json {
        return Err(Failure::usage("standard output cannot take both audio and --json", "name a wav file"));
    }
    if let (Some(output), false) = (&args.output, to_stdout) {
        if !output.extension().is_some_and(|e| e.eq_ignore_ascii_case("wav")) {
            let text = format!("{}: only wav can be written", output.display());
            return Err(Failure::usage(text, "name it .wav, or write to `-` and pipe it into `ffmpeg -i - OUT`"));
        }
        check_free(output, args.force)?;
    }
    let path = args.model.path()?;
    let model = args.model.load()?;
    let quantizer = model.decoder_plan().map_err(|e| Failure::engine(path, e))?.quantizer();
    let codebooks = args.codebooks.unwrap_or(quantizer.codebooks());
    quantizer.check_codebooks(0, codebooks).map_err(|e| Failure::engine(path, e.into()))?;
    let books = args.books.map(|Books(range)| range);
    let mut part = Vec::new();
    if let Some(range) = &books {
        quantizer.check_codebooks(range.start, range.len()).map_err(|e| Failure::engine(path, e.into()))?;
        part = levels(&model, range.clone())?;
    }
    let whole = match &books {
        Some(range) if args.codebooks == Some(range.len()) => part.clone(),
        _ => levels(&model, 0..codebooks)?,
    };
    let known = Known { shape: args.shape.shape()?, levels: whole, part };
    let device = args.device.open(open, Half::Decoder, path, &model, global.quiet)?;
    let device = device.as_ref();
    let job = Job {
        model: &model,
        device,
        known,
        books,
        options: Options { noise_seed: args.noise_seed, ..args.model.options(global, None, 1) },
        format: args.sample_format.into(),
        salvage: args.salvage,
        force: args.force,
        quiet: global.quiet,
    };
    let report = Report::new("decode", path, &model.spec().name);
    let report = Report { device: device.map(|d| d.name().to_owned()), ..report };
    let options = job.options.clone();
    Device::serving(device, &options, || match (&args.out_dir, &args.output) {
        (Some(folder), _) => {
            let plan = batch::Plan {
                input: &args.input,
                folder,
                from: TOKENS,
                to: "wav",
                force: args.force,
                threads: if device.is_some() { args.device.batch } else { args.model.thread_count() },
            };
            let job = Job { options: Options { threads: 1, ..job.options.clone() }, ..job };
            batch::run(&plan, report, global, |input, output, progress| job.run(input, Some(output), Some(progress)))
        }
        (None, Some(output)) => {
            let output = (!to_stdout).then_some(output.as_path());
            batch::single(report, global, to_stdout, || job.run(&args.input, output, None))
        }
        (None, None) => unreachable!("clap asks for one of them"),
    })
}

/// The levels of some of the model's codes.
fn levels(model: &Model, books: Range<usize>) -> Result<Vec<CodeGroup>, Failure> {
    let failed = |e| Failure::engine(Path::new(&model.spec().name), e);
    let quantizer = model.quantizer().map_err(failed)?;
    CodeGroup::of(quantizer, books.start, books.len())
        .map_err(|e| Failure::tokens(Path::new(&model.spec().name), e.into()))
}

/// What is the same for every file.
struct Job<'a> {
    model: &'a Model,
    device: Option<&'a Device<'a>>,
    known: Known,
    /// The codebooks asked for.
    books: Option<Range<usize>>,
    options: Options,
    format: SampleFormat,
    salvage: bool,
    force: bool,
    quiet: bool,
}

impl Job<'_> {
    /// Decodes `input` to a file, or to standard output.
    fn run(&self, input: &Path, output: Option<&Path>, progress: Option<&Progress>) -> Result<FileReport, Failure> {
        let started = std::time::Instant::now();
        let name = output.unwrap_or(Path::new("standard output"));
        if input.is_dir() {
            let text = format!("{} is a folder", input.display());
            return Err(Failure::new(text, "give --out-dir DIR to decode all files in it"));
        }
        let mut reader = tokens::open_with(input, self.salvage, &self.known).map_err(|e| Failure::tokens(input, e))?;
        let stream = reader.info().clone();
        let books = self.check(input, &stream)?;
        let spec = self.model.spec();
        let own;
        let progress = match progress {
            Some(shared) => shared,
            None => {
                let samples = stream.samples.or(stream.frames.map(|f| f.saturating_mul(spec.hop.into())));
                own = Progress::of_audio(self.quiet, samples.map(|n| n as f64 / f64::from(spec.sample_rate)));
                &own
            }
        };
        let mut report = FileReport {
            input: input.to_owned(),
            output: output.map_or_else(|| "-".into(), Path::to_owned),
            codebooks: books.decoded.len(),
            bytes: std::fs::metadata(input).map_err(|e| Failure::read(input, &e))?.len(),
            ..FileReport::default()
        };
        let written = match output {
            Some(path) => {
                let target = Output::create(path, self.force)?;
                let out = BufWriter::new(target.file()?);
                let writer = WavWriter::new(out, self.format, spec.sample_rate, spec.channels as u16, None);
                let mut wav = writer.map_err(|e| Failure::write(name, &e))?;
                self.signal(input, name, &books, reader.as_mut(), &mut wav, &mut report, progress)?;
                let (out, written) = wav.finish_file().map_err(|e| Failure::write(name, &e))?;
                drop(out);
                target.commit()?;
                written
            }
            None => {
                let length = stream.samples.or(match spec.framing {
                    Framing::Stream | Framing::Windows { .. } => {
                        stream.frames.map(|f| f.saturating_mul(spec.hop.into()))
                    }
                    Framing::Segments { .. } => None,
                });
                let out = BufWriter::new(std::io::stdout());
                let writer = WavWriter::new(out, self.format, spec.sample_rate, spec.channels as u16, length);
                let mut wav = writer.map_err(|e| Failure::write(name, &e))?;
                self.signal(input, name, &books, reader.as_mut(), &mut wav, &mut report, progress)?;
                wav.finish_stream().map_err(|e| Failure::write(name, &e))?.1
            }
        };
        let WavReport { frames, clipped } = written;
        (report.samples, report.clipped) = (frames, clipped);
        let report = report.complete(spec.sample_rate, started.elapsed().as_secs_f64());
        report.warnings().iter().for_each(|line| progress.warn(line));
        Ok(report)
    }

    /// Whether the model made these codes, as far as the file tells, and which of them are decoded.
    fn check(&self, input: &Path, stream: &StreamInfo) -> Result<Chosen, Failure> {
        let spec = self.model.spec();
        let model = self.model.fingerprint();
        if let Some(file) = stream.fingerprint.filter(|&f| f != model.0) {
            let file = codec::tokens::to_hex(&file);
            return Err(Failure::new(
                format_args!(
                    "{}: it was made with model {file}, and this is model {model} ({})",
                    input.display(),
                    spec.name
                ),
                "give the model that made it; `codec info` prints a model's fingerprint",
            ));
        }
        let first = match (stream.levels.first(), &self.books) {
            // A codebook that the model does not have is not the one of code 0 either.
            (Some(level), _) => CodeGroup::position(&levels(self.model, 0..usize::MAX)?, level.first_book).unwrap_or(0),
            (None, Some(asked)) if asked.len() == stream.codebooks => asked.start,
            (None, _) => 0,
        };
        let file = first..first.saturating_add(stream.codebooks);
        let own = levels(self.model, file.clone())?;
        let book = |levels: &[CodeGroup]| levels.first().map(|level| level.first_book);
        let same = CodeGroup::each(&stream.levels).eq(CodeGroup::each(&own)) && book(&stream.levels) == book(&own);
        if !stream.levels.is_empty() && !same {
            return Err(Failure::new(
                format_args!(
                    "{}: the levels of its codes are {}, and those of the model ({}) are {}",
                    input.display(),
                    Levels(stream.levels.clone()),
                    spec.name,
                    Levels(own)
                ),
                "give the model that made it; `codec info` prints the levels of a token file",
            ));
        }
        let segmented = matches!(spec.framing, Framing::Segments { .. });
        if stream.segmented != segmented {
            let (has, wants) = if segmented { ("no segments", "them") } else { ("segments", "none") };
            return Err(Failure::new(
                format_args!("{}: it has {has} and the model needs {wants}", input.display()),
                "give the model that made it; a model with segments needs .nac, .safetensors or .jsonl",
            ));
        }
        let decoded = self.books.clone().unwrap_or_else(|| file.clone());
        if decoded.start < file.start || decoded.end > file.end {
            return Err(Failure::new(
                format_args!(
                    "{}: codebooks {} to {} are asked for, and it has {} to {}",
                    input.display(),
                    decoded.start,
                    decoded.end - 1,
                    file.start,
                    file.end.saturating_sub(1)
                ),
                "give --books A..B with codebooks that the file has, or encode the others too",
            ));
        }
        Ok(Chosen { column: decoded.start - file.start, width: stream.codebooks, decoded })
    }

    #[allow(clippy::too_many_arguments)]
    fn signal<W: Write>(
        &self,
        input: &Path,
        name: &Path,
        books: &Chosen,
        reader: &mut dyn TokenReader,
        wav: &mut WavWriter<W>,
        report: &mut FileReport,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let spec = self.model.spec();
        let channels = spec.channels as usize;
        let Chosen { ref decoded, .. } = *books;
        let options = Options { first_codebook: decoded.start, codebooks: Some(decoded.len()), ..self.options.clone() };
        let engine = |e| Failure::engine(input, e);
        let mut decoder = Device::decoder(self.device, self.model, &options).map_err(engine)?;
        let sizes = self.model.decoder_plan().map_err(engine)?.quantizer().sizes();
        let sizes = sizes.get(decoded.clone()).unwrap_or_default();
        // What the last hop was filled up with is held back until the exact length is known.
        let slack = self.model.slack();
        let mut out = Exact { wav, channels, held: Vec::new(), hold: slack as usize * channels, samples: 0 };
        let mut codes = Codes::new(reader.info().codebooks);
        // Frames and samples of what is behind the last loss.
        let (mut frames, mut run) = (0u64, Run::default());
        loop {
            let step = reader.next(&mut codes).map_err(|e| Failure::tokens(input, e))?;
            match step {
                Step::Frames => {
                    let before = out.held.len();
                    books.narrow(&mut codes);
                    check_range(&codes, decoded.start, sizes, frames).map_err(engine)?;
                    decoder.push(&codes, &mut out.held).map_err(engine)?;
                    let new = (out.held.len() - before) / channels;
                    frames += codes.frames() as u64;
                    run.frames += codes.frames() as u64;
                    run.samples += new as u64;
                    progress.advance(new as f64 / f64::from(spec.sample_rate));
                    out.write_ready().map_err(|e| audio(name, e))?;
                }
                Step::Lost(lost) => {
                    self.end_run(&mut run, &mut decoder, &mut out, input)?;
                    decoder.reset();
                    let silence = match lost {
                        Some(n) => self.samples_of(n),
                        None => reader.info().samples.map_or(0, |n| n.saturating_sub(out.total())),
                    };
                    let all = silence + report.lost.iter().map(|l| l.silence).sum::<u64>();
                    if all > MAX_SILENCE * u64::from(spec.sample_rate) {
                        return Err(Failure::new(
                            format_args!(
                                "{}: {all} samples a channel are lost by frame {frames}, more than a day",
                                input.display()
                            ),
                            "the file's positions cannot be trusted",
                        ));
                    }
                    out.silence(silence).map_err(|e| audio(name, e))?;
                    if lost != Some(0) {
                        report.lost.push(Lost { first_frame: frames, frames: lost, silence });
                    }
                    frames += lost.unwrap_or(0);
                }
                Step::End => break,
            }
        }
        let before = out.held.len();
        decoder.finish(&mut out.held).map_err(engine)?;
        progress.advance(((out.held.len() - before) / channels) as f64 / f64::from(spec.sample_rate));
        let made = out.total();
        report.frames = frames;
        let samples = reader.info().samples.unwrap_or(made);
        let plausible = samples.abs_diff(made) <= slack;
        if !plausible && report.lost.is_empty() {
            return Err(Failure::new(
                format_args!(
                    "{}: it states {samples} samples a channel, and its {frames} frames make {made}",
                    input.display()
                ),
                "check what made the file",
            ));
        }
        out.end(if plausible { samples } else { made }).map_err(|e| audio(name, e))
    }

    /// Ends what is before a loss at the exact sample where its frames end.
    fn end_run<W: Write>(
        &self,
        run: &mut Run,
        decoder: &mut Decoder<'_, '_>,
        out: &mut Exact<'_, W>,
        input: &Path,
    ) -> Result<(), Failure> {
        let Run { frames, samples } = std::mem::take(run);
        if frames == 0 {
            return Ok(());
        }
        let before = out.held.len();
        decoder.finish(&mut out.held).map_err(|e| Failure::engine(input, e))?;
        let made = samples + ((out.held.len() - before) / out.channels) as u64;
        let exact = self.samples_of(frames);
        // The difference is at most what the model looks ahead, far less than is held.
        let excess = made.saturating_sub(exact) as usize * out.channels;
        out.held.truncate(out.held.len().saturating_sub(excess));
        let missing = exact.saturating_sub(made).min(out.hold as u64) as usize * out.channels;
        out.held.resize(out.held.len() + missing, 0.0);
        Ok(())
    }

    /// Samples a channel that frames stand for.
    fn samples_of(&self, frames: u64) -> u64 {
        let spec = self.model.spec();
        match spec.framing {
            Framing::Stream | Framing::Windows { .. } => frames.saturating_mul(spec.hop.into()),
            Framing::Segments { length, stride, .. } => {
                let segment = u64::from(length.div_ceil(spec.hop.max(1))).max(1);
                (u128::from(frames) * u128::from(stride) / u128::from(segment)) as u64
            }
        }
    }
}

/// Which codes of a file's frames are decoded.
struct Chosen {
    /// In the model's frame.
    decoded: Range<usize>,
    /// The first of them in the file's frame, and codes of that.
    column: usize,
    width: usize,
}

impl Chosen {
    /// Leaves the codes that are decoded.
    fn narrow(&self, codes: &mut Codes) {
        let kept = self.column..self.column + self.decoded.len();
        if kept.len() == self.width {
            return;
        }
        let mut column = 0;
        codes.data.retain(|_| {
            let keep = kept.contains(&column);
            column = (column + 1) % self.width;
            keep
        });
        codes.codebooks = kept.len();
    }
}

/// Frames and samples since the decoder was reset.
#[derive(Default)]
struct Run {
    frames: u64,
    samples: u64,
}

/// Writes samples and holds the last ones back, so that the length can be set at the end.
struct Exact<'a, W> {
    wav: &'a mut WavWriter<W>,
    channels: usize,
    held: Vec<f32>,
    /// Values to hold back.
    hold: usize,
    /// Samples a channel written.
    samples: u64,
}

impl<W: Write> Exact<'_, W> {
    /// Samples a channel so far, held ones included.
    fn total(&self) -> u64 {
        self.samples + (self.held.len() / self.channels) as u64
    }

    fn write_ready(&mut self) -> Result<(), AudioError> {
        let ready = self.held.len().saturating_sub(self.hold);
        if ready < self.hold {
            return Ok(());
        }
        self.write(ready)
    }

    fn write(&mut self, values: usize) -> Result<(), AudioError> {
        self.wav.write(&self.held[..values])?;
        self.samples += (values / self.channels) as u64;
        self.held.drain(..values);
        Ok(())
    }

    fn silence(&mut self, samples: u64) -> Result<(), AudioError> {
        let mut left = samples;
        while left > 0 {
            let some = left.min((self.hold / self.channels) as u64);
            self.held.resize(self.held.len() + some as usize * self.channels, 0.0);
            self.write_ready()?;
            left -= some;
        }
        Ok(())
    }

    /// Cuts or fills up to `samples` a channel, which differ from the total by no more than is held.
    fn end(mut self, samples: u64) -> Result<(), AudioError> {
        let rest = samples.saturating_sub(self.samples) as usize * self.channels;
        self.held.resize(rest, 0.0);
        self.write(rest)
    }
}

fn audio(path: &Path, error: AudioError) -> Failure {
    match error {
        AudioError::Io(e) => Failure::write(path, &e),
        error => Failure::new(
            format_args!("{}: the decoder's {error}", path.display()),
            "the codes drive the model out of its range; check what made them, and `codec info` of the model",
        ),
    }
}

/// The first code that its codebook does not have, with its frame counted from the start of the file.
fn check_range(codes: &Codes, first: usize, sizes: &[u32], frames: u64) -> Result<(), Error> {
    for (i, frame) in codes.data.chunks_exact(codes.codebooks.max(1)).enumerate() {
        for (codebook, (&code, &size)) in frame.iter().zip(sizes).enumerate() {
            if u32::from(code) >= size {
                let frame = frames.saturating_add(i as u64) as usize;
                return Err(RunError::CodeOutOfRange { frame, codebook: first + codebook, code, size }.into());
            }
        }
    }
    Ok(())
}
