use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
    process::ExitCode,
};

use codec::{
    Codes, Model, Options,
    audio::{Allow, AudioReader, Conform},
    core::{bitstream::CodeGroup, spec::Framing},
    tokens::{
        JsonlWriter, Kind, NacTokensWriter, NpyWriter, SafetensorsWriter, Shape, ShapeError, StreamInfo, TokenError,
        TokenWriter,
    },
};

use super::{
    Failure, Global, batch,
    device::{Device, DeviceArgs, Half, Open},
    model::{Books, ModelArgs, codebooks_of_bandwidth},
    output::{Output, check_free},
    progress::Progress,
    report::{FileReport, Report},
    shape::ShapeArgs,
};

/// Extensions of the audio files that are looked for in a folder.
pub const AUDIO: &[&str] = &["wav", "wave", "flac", "mp3", "ogg", "oga", "m4a", "mp4", "aac"];

#[derive(clap::Args)]
pub struct Args {
    /// Audio file (wav, flac, mp3, ogg vorbis, m4a/aac) or `-` for standard input; with --out-dir, a folder or a
    /// .txt list of files
    input: PathBuf,
    /// Token file; its extension says of which kind: .nac, .npy, .safetensors or .jsonl
    #[arg(required_unless_present = "out_dir", conflicts_with = "out_dir")]
    output: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Codebooks to use; all by default
    #[arg(long, short = 'n', value_name = "N", conflicts_with = "bandwidth")]
    codebooks: Option<usize>,
    /// Only codebooks A to B-1 of a frame; those before A are searched and left out
    #[arg(long, value_name = "A..B", conflicts_with_all = ["codebooks", "bandwidth"])]
    books: Option<Books>,
    /// Bitrate instead of a number of codebooks
    #[arg(long, short, visible_alias = "bitrate", value_name = "KBPS")]
    bandwidth: Option<f64>,
    /// Width of the codebook search, at most 64: more is slower and better, 1 is what published systems do
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=codec::core::quantizer::MAX_BEAM as i64))]
    beam: u16,
    /// Encode the first N codebooks at half the rate, as VALL-E R does: neighbouring frames share their codes
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    merge_books: usize,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Resample audio of another rate than the model's
    #[arg(long)]
    resample: bool,
    /// Mix the channels into one for a mono model
    #[arg(long)]
    downmix: bool,
    /// Copy mono to all channels of the model
    #[arg(long)]
    upmix: bool,
    /// Replace files that exist
    #[arg(long, short)]
    force: bool,
    /// Encode many files into this folder, keeping their relative paths; files that exist there are skipped
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
    /// Kind of token file for --out-dir
    #[arg(long, value_name = "KIND", requires = "out_dir", default_value = "nac")]
    format: Format,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Format {
    Nac,
    Npy,
    Safetensors,
    Jsonl,
}

impl From<Format> for Kind {
    fn from(format: Format) -> Self {
        match format {
            Format::Nac => Self::Nac,
            Format::Npy => Self::Npy,
            Format::Safetensors => Self::Safetensors,
            Format::Jsonl => Self::Jsonl,
        }
    }
}

pub fn run(args: Args, global: &Global, open: Option<&Open<'_>>) -> Result<ExitCode, Failure> {
    if let Some(elsewhere) = args.device.elsewhere("encode", open) {
        return elsewhere;
    }
    if let (None, Some(output)) = (&args.out_dir, &args.output) {
        kind_of(output)?;
        check_free(output, args.force)?;
    }
    let path = args.model.path()?;
    let model = args.model.load()?;
    let bitrates = model.bitrates().map_err(|e| Failure::engine(path, e))?;
    let sizes = model.quantizer().map_err(|e| Failure::engine(path, e))?.sizes();
    let choices: Vec<usize> = bitrates.iter().map(|b| b.codebooks).collect();
    let (first, end) = match (&args.books, args.codebooks, args.bandwidth) {
        (Some(Books(range)), ..) => (range.start, range.end),
        (None, Some(n), _) => (0, n),
        (None, None, Some(kbps)) => (0, codebooks_of_bandwidth(&bitrates, sizes.len(), kbps)?),
        (None, None, None) => (0, sizes.len()),
    };
    if end == 0 || end > sizes.len() {
        return Err(Failure::new(
            format_args!("{end} codebooks asked for; the model has 1 to {}", sizes.len()),
            format_args!("its publisher offers {choices:?}"),
        ));
    }
    let codebooks = end - first;
    let levels = CodeGroup::of(model.quantizer().map_err(|e| Failure::engine(path, e))?, first, codebooks);
    let levels = levels.map_err(|e| Failure::tokens(path, e.into()))?;
    let stream = StreamInfo {
        fingerprint: Some(model.fingerprint().0),
        sample_rate: Some(model.spec().sample_rate),
        channels: Some(model.spec().channels as usize),
        hop: Some(model.spec().hop),
        codebooks,
        levels,
        shape: args.shape.shape()?.unwrap_or_default(),
        segmented: matches!(model.spec().framing, Framing::Segments { .. }),
        frames: None,
        samples: None,
    };
    let merged_books = args.merge_books;
    let options = Options {
        merged_books,
        first_codebook: first,
        ..args.model.options(global, Some(codebooks), args.beam.into())
    };
    // Whatever is wrong with the options is wrong before the first file.
    model.encoder(&options).map_err(|e| Failure::engine(path, e))?;
    check_shape(&stream, args.output.as_deref(), args.format.into())?;
    let allow = Allow { resample: args.resample, downmix: args.downmix, upmix: args.upmix };
    let device = args.device.open(open, Half::Encoder, path, &model, global.quiet)?;
    let device = device.as_ref();
    let job = Job { model: &model, device, options, stream, allow, force: args.force, quiet: global.quiet };
    let report = Report::new("encode", path, &model.spec().name);
    let report = Report { device: device.map(|d| d.name().to_owned()), ..report };
    let options = job.options.clone();
    Device::serving(device, &options, || match (&args.out_dir, &args.output) {
        (Some(folder), _) => {
            let kind = Kind::from(args.format);
            let plan = batch::Plan {
                input: &args.input,
                folder,
                from: AUDIO,
                to: kind.extension(),
                force: args.force,
                threads: if device.is_some() { args.device.batch } else { args.model.thread_count() },
            };
            let job = Job { options: Options { threads: 1, ..job.options.clone() }, ..job };
            batch::run(&plan, report, global, |input, output, progress| job.run(input, output, Some(progress)))
        }
        (None, Some(output)) => batch::single(report, global, false, || job.run(&args.input, output, None)),
        (None, None) => unreachable!("clap asks for one of them"),
    })
}

/// Whether the codes can have the shape in files of this kind.
fn check_shape(stream: &StreamInfo, output: Option<&Path>, folder: Kind) -> Result<(), Failure> {
    let kind = output.map_or(Ok(folder), kind_of)?;
    let error = match stream.check_shape() {
        Ok(()) if kind == Kind::Nac && stream.shape != Shape::default() => ShapeError::Native,
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    Err(Failure::shape(None, &error))
}

fn kind_of(output: &Path) -> Result<Kind, Failure> {
    Kind::of_path(output).ok_or_else(|| {
        Failure::usage(
            format_args!("{}: the extension says of which kind a token file is, and this is none", output.display()),
            "name it .nac, .npy, .safetensors or .jsonl",
        )
    })
}

/// What is the same for every file.
struct Job<'a> {
    model: &'a Model,
    device: Option<&'a Device<'a>>,
    options: Options,
    stream: StreamInfo,
    allow: Allow,
    force: bool,
    quiet: bool,
}

impl Job<'_> {
    fn run(&self, input: &Path, output: &Path, progress: Option<&Progress>) -> Result<FileReport, Failure> {
        let engine = |e| Failure::engine(input, e);
        let audio = |e| Failure::audio(input, e);
        let started = std::time::Instant::now();
        let kind = kind_of(output)?;
        check_free(output, self.force)?;
        if input.is_dir() {
            let text = format!("{} is a folder", input.display());
            return Err(Failure::new(text, "give --out-dir DIR to encode all files in it"));
        }
        let mut reader = if input == Path::new("-") {
            AudioReader::from_pipe(std::io::stdin()).map_err(audio)?
        } else {
            AudioReader::open(input).map_err(audio)?
        };
        let spec = self.model.spec();
        let (rate, channels) = (spec.sample_rate, spec.channels as usize);
        let info = reader.info().clone();
        let mut conform =
            Conform::new((info.sample_rate, info.channels), (rate, channels), self.allow).map_err(audio)?;
        let mut encoder = Device::encoder(self.device, self.model, &self.options).map_err(engine)?;
        let target = Output::create(output, self.force)?;
        let mut writer = self.writer(kind, &target, output)?;
        let own;
        let progress = match progress {
            Some(shared) => shared,
            None => {
                let seconds = info.frames.map(|f| f as f64 / f64::from(info.sample_rate));
                own = Progress::of_audio(self.quiet, seconds);
                &own
            }
        };

        let write = |writer: &mut Box<dyn TokenWriter>, codes: &mut Codes| {
            let result = if codes.data.is_empty() { Ok(()) } else { writer.write(codes) };
            codes.clear();
            result.map_err(|e| write_failure(output, e))
        };
        // The engine likes pieces of a second.
        let piece = rate as usize * channels;
        let mut pcm = Vec::with_capacity(2 * piece);
        let mut codes = Codes::new(encoder.codebooks());
        let (mut values, mut frames) = (0u64, 0u64);
        let mut more = true;
        while more {
            match reader.next_block().map_err(audio)? {
                Some(block) => conform.push(block, &mut pcm),
                None => {
                    conform.finish(&mut pcm);
                    more = false;
                }
            }
            if pcm.len() >= piece || !more {
                encoder.push(&pcm, &mut codes).map_err(engine)?;
                values += pcm.len() as u64;
                frames += codes.frames() as u64;
                write(&mut writer, &mut codes)?;
                progress.advance((pcm.len() / channels) as f64 / f64::from(rate));
                pcm.clear();
            }
        }
        encoder.finish(&mut codes).map_err(engine)?;
        frames += codes.frames() as u64;
        write(&mut writer, &mut codes)?;
        let samples = values / channels as u64;
        writer.finish(samples).map_err(|e| write_failure(output, e))?;
        drop(writer);
        let bytes = target.commit()?;
        let report = FileReport {
            input: input.to_owned(),
            output: output.to_owned(),
            samples,
            frames,
            codebooks: self.stream.codebooks,
            bytes,
            uncoded: encoder.uncoded_samples(),
            ..FileReport::default()
        };
        let report = report.complete(rate, started.elapsed().as_secs_f64());
        report.warnings().iter().for_each(|line| progress.warn(line));
        Ok(report)
    }

    fn writer(&self, kind: Kind, target: &Output, path: &Path) -> Result<Box<dyn TokenWriter>, Failure> {
        let file: BufWriter<File> = BufWriter::new(target.file()?);
        let failed = |e| write_failure(path, e);
        Ok(match kind {
            Kind::Nac => Box::new(NacTokensWriter::new(file, &self.stream).map_err(failed)?),
            Kind::Npy => Box::new(NpyWriter::new(file, &self.stream).map_err(failed)?),
            Kind::Safetensors => {
                Box::new(SafetensorsWriter::new(file, target.scratch()?, &self.stream).map_err(failed)?)
            }
            Kind::Jsonl => Box::new(JsonlWriter::new(file, &self.stream).map_err(failed)?),
        })
    }
}

fn write_failure(path: &Path, error: TokenError) -> Failure {
    match error {
        TokenError::Io(e) => Failure::write(path, &e),
        other => Failure::tokens(path, other),
    }
}
