//! One page's model and signal.

use codec_core::{
    bitstream::{CodeGroup, Event, GROUP_LEN, Header, Layout, MAX_SEEK_ENTRIES, Method, Stream, Writer},
    kernel::{Compute, Isa},
    pipeline::{ChainPlan, DecoderState, EncoderState},
};

use crate::model::{Model, hex};

/// The most codes of a file that is opened: days of speech.
const MAX_CODES: usize = 1 << 26;
/// The most samples (all channels) of a signal that a model must see at once.
const MAX_WHOLE: usize = 1 << 24;

/// The buffers that a page writes and reads, and what runs between them.
#[derive(Default)]
pub struct Session {
    /// A deploy image, a `.nac` file or a picture.
    pub bytes: Vec<u8>,
    /// Interleaved samples: what is to be encoded next, or was decoded last.
    pub pcm: Vec<f32>,
    /// `[frames, codebooks]`, of the whole signal.
    pub codes: Vec<u16>,
    /// What was asked about, or the last error.
    pub text: String,
    codebooks: usize,
    /// Exact samples a channel, where known.
    samples: Option<u64>,
    model: Option<Model>,
    encoder: Option<EncoderState>,
    decoder: Option<Decoding>,
}

struct Decoding {
    state: DecoderState,
    /// Codes and samples (all channels) so far.
    codes: usize,
    pcm: u64,
}

fn compute() -> Compute<'static> {
    Compute { isa: Isa::detect(), pool: None }
}

fn text(e: impl ToString) -> String {
    e.to_string()
}

/// Frames of one step: about a second, or all of a signal that cannot be cut.
fn step_frames(model: &Model, plan: &ChainPlan, all: usize) -> Result<usize, String> {
    let samples = (model.hop as usize).saturating_mul(model.channels as usize).saturating_mul(all);
    match &plan.whole {
        None => Ok((model.frame_rate() as usize).clamp(1, 128)),
        Some(_) if samples <= MAX_WHOLE => Ok(all.max(1)),
        Some(reason) => Err(format!("the model needs the whole signal at once ({reason}): take a shorter one")),
    }
}

impl Session {
    fn model(&self) -> Result<&Model, String> {
        self.model.as_ref().ok_or_else(|| "load a model first".to_owned())
    }

    /// Takes the bytes as a deploy image and describes the model, as JSON in `text`.
    pub fn load_model(&mut self) -> Result<usize, String> {
        let bytes = std::mem::take(&mut self.bytes);
        (self.model, self.encoder, self.decoder) = (None, None, None);
        self.codes.clear();
        let model = Model::open(bytes)?;
        self.text = model.info()?.to_string();
        self.model = Some(model);
        Ok(0)
    }

    /// Begins a signal; `samples` (a channel) is how long it will be.
    pub fn encode_start(&mut self, codebooks: usize, samples: u64) -> Result<usize, String> {
        let model = self.model()?;
        let encoder = model.encoder.as_ref().map_err(Clone::clone)?;
        let frames = usize::try_from(samples.div_ceil(u64::from(model.hop))).map_err(text)?;
        let state = encoder.state(step_frames(model, encoder.chain().plan(), frames)?, codebooks, 1).map_err(text)?;
        self.encoder = Some(state);
        self.codes.clear();
        (self.codebooks, self.samples) = (codebooks, Some(samples));
        Ok(0)
    }

    /// Encodes `pcm`, which goes on where the last call ended; adds to `codes` and returns the number of frames so far.
    pub fn encode_step(&mut self, finish: bool) -> Result<usize, String> {
        let model = self.model.as_ref().ok_or("load a model first")?;
        let encoder = model.encoder.as_ref().map_err(Clone::clone)?;
        let state = self.encoder.as_mut().ok_or("begin a signal first")?;
        let channels = model.channels as usize;
        let mut rest = self.pcm.as_slice();
        loop {
            let (now, later) = rest.split_at(rest.len().min(state.max_samples() * channels));
            rest = later;
            if encoder.chain().plan().whole.is_some() && !(finish && rest.is_empty()) {
                return Err("the model needs the whole signal in one call".into());
            }
            let at = self.codes.len();
            self.codes.resize(at + encoder.max_frames(now.len() / channels) * self.codebooks, 0);
            let room = self.codes.get_mut(at..).unwrap_or_default();
            let frames = encoder.step(compute(), state, now, finish && rest.is_empty(), room).map_err(text)?;
            self.codes.truncate(at + frames * self.codebooks);
            if rest.is_empty() {
                return Ok(self.codes.len() / self.codebooks);
            }
        }
    }

    /// Begins to decode `codes`; returns the number of frames.
    pub fn decode_start(&mut self) -> Result<usize, String> {
        let model = self.model()?;
        let decoder = model.decoder.as_ref().map_err(Clone::clone)?;
        if !decoder.quantizer().can_decode() {
            return Err("this model's quantizer has no inverse: its codes cannot be decoded".into());
        }
        let frames = self.codes.len().checked_div(self.codebooks).ok_or("encode a signal or open a file first")?;
        let step = step_frames(model, decoder.chain().plan(), frames)?;
        let state = decoder.state(step, self.codebooks).map_err(text)?;
        self.decoder = Some(Decoding { state, codes: 0, pcm: 0 });
        Ok(frames)
    }

    /// Decodes some more frames to `pcm` and returns how many are left.
    pub fn decode_step(&mut self) -> Result<usize, String> {
        let model = self.model.as_ref().ok_or("load a model first")?;
        let decoder = model.decoder.as_ref().map_err(Clone::clone)?;
        let now = self.decoder.as_mut().ok_or("begin to decode first")?;
        let rest = self.codes.get(now.codes..).unwrap_or_default();
        let (codes, rest) = rest.split_at(rest.len().min(now.state.max_frames() * self.codebooks));
        now.codes += codes.len();
        let pcm = decoder.step(compute(), &mut now.state, codes, rest.is_empty()).map_err(text)?;
        self.pcm.clear();
        self.pcm.extend_from_slice(pcm);
        if let Some(samples) = self.samples {
            let channels = u64::from(model.channels);
            let missing = samples.saturating_mul(channels).saturating_sub(now.pcm);
            let made = self.pcm.len() as u64;
            if rest.is_empty() {
                // What the last frame was filled up with, or what a system drops at the end.
                let slack = u64::from(model.sample_rate).max(4 * u64::from(model.hop)).saturating_mul(channels);
                if missing.abs_diff(made) > slack {
                    let made = (now.pcm + made) / channels;
                    return Err(format!("{samples} samples are stated, but the frames make {made}"));
                }
                self.pcm.resize(missing as usize, 0.0);
            } else {
                self.pcm.truncate(missing.min(made) as usize);
            }
            now.pcm += self.pcm.len() as u64;
        }
        Ok(rest.len() / self.codebooks)
    }

    /// Writes `codes` as a `.nac` file to `bytes`; returns its length.
    pub fn write_nac(&mut self) -> Result<usize, String> {
        let model = self.model()?;
        let groups = CodeGroup::of(model.quantizer()?, 0, self.codebooks).map_err(text)?;
        let mut storage = vec![0; groups.len() * GROUP_LEN];
        let layout = Layout::new(&groups, &mut storage).map_err(text)?;
        let (sample_rate, hop) = (model.sample_rate, model.hop);
        let header = Header {
            fingerprint: model.fingerprint,
            sample_rate,
            channels: u16::try_from(model.channels).map_err(text)?,
            hop,
            samples: self.samples,
            method: Method::default(),
            segments: false,
            chunk_frames: Header::default_chunk_frames(sample_rate, hop, false, &layout),
            layout,
        };
        let buffer = vec![0; Writer::<Vec<u8>>::buffer_len(&header, MAX_SEEK_ENTRIES)];
        let mut writer = Writer::new(&header, buffer).map_err(text)?;
        let mut bytes = writer.header_bytes().to_vec();
        let mut rest = self.codes.as_slice();
        while !rest.is_empty() {
            let (frames, chunk) = writer.push(rest).map_err(text)?;
            bytes.extend_from_slice(chunk);
            rest = rest.get(frames * self.codebooks..).unwrap_or_default();
        }
        bytes.extend_from_slice(writer.finish(self.samples).map_err(text)?);
        self.bytes = bytes;
        Ok(self.bytes.len())
    }

    /// Reads `bytes` as a `.nac` file to `codes`; returns the number of codebooks.
    pub fn read_nac(&mut self) -> Result<usize, String> {
        let bytes = std::mem::take(&mut self.bytes);
        let model = self.model()?;
        let stream = Stream::new(&bytes).map_err(text)?;
        let header = stream.header();
        if header.fingerprint != model.fingerprint {
            return Err(format!(
                "the file was made with the model {}, and this is {} ({})",
                hex(&header.fingerprint),
                hex(&model.fingerprint),
                model.name
            ));
        }
        if let Some(first) = header.layout.groups().next().map(|group| group.first_book).filter(|&first| first != 0) {
            return Err(format!(
                "the file has codebooks from number {first} on, and this decodes those from number 0 on: use `codec decode`"
            ));
        }
        let per_frame = header.layout.codes_per_frame();
        model.quantizer()?.check_codebooks(0, per_frame).map_err(text)?;
        let mut samples = header.samples;
        let mut codes: Vec<u16> = Vec::new();
        for event in stream {
            match event.map_err(text)? {
                Event::Codes(chunk) => {
                    for segment in chunk.segments() {
                        let at = codes.len();
                        let end = at + segment.frames() * per_frame;
                        if end > MAX_CODES {
                            return Err(format!("the file has more than {MAX_CODES} codes"));
                        }
                        codes.resize(end, 0);
                        segment.unpack(0, codes.get_mut(at..).unwrap_or_default());
                    }
                }
                Event::Lost(lost) => return Err(format!("frames are missing from frame {} on", lost.first_frame)),
                Event::End(end) => samples = end.samples.or(samples),
                _ => {}
            }
        }
        (self.codes, self.codebooks, self.samples) = (codes, per_frame, samples);
        Ok(per_frame)
    }
}
