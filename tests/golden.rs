//! Every published system against the outputs of the original projects (`tests/golden/README.md`): tokens equal, latents
//! and samples within ten times what the peer itself differs by between f32 and f64.
//!
//! `CODEC_ISA` forces an instruction set.

mod support;

use codec::{Codes, Model, Options};
use codec_core::{kernel::Isa, pipeline::Chain};
use support::{
    golden::{self, Array, Case, assert_close, assert_codes},
    import_case,
};

fn options() -> Options {
    let isa =
        std::env::var("CODEC_ISA").map_or_else(|_| Isa::detect(), |name| name.parse().expect("an instruction set"));
    Options { isa, threads: 0, ..Options::default() }
}

/// A case with its model.
struct Fixture {
    case: Case,
    model: Model,
}

/// An array's first `n` samples of every channel, interleaved.
fn head(pcm: &Array, n: usize) -> Vec<f32> {
    let channels = pcm.shape[0];
    pcm.channels_last()[..n * channels].to_vec()
}

impl Fixture {
    fn new(name: &str) -> Self {
        Self::of(Case::load(&golden::committed(), name))
    }

    fn of(case: Case) -> Self {
        let model = import_case(&case, &case.tensors());
        Self { case, model }
    }

    /// A case that is another one under other names.
    fn alias(name: &str, of: &str) -> Self {
        let alias = Case::load(&golden::committed(), name);
        let model = import_case(&alias, &alias.tensors());
        Self { case: Case::load(&golden::committed(), of), model }
    }

    fn pcm(&self, n: Option<usize>) -> Vec<f32> {
        let pcm = self.case.array("pcm");
        head(pcm, n.unwrap_or(pcm.shape[1]))
    }

    fn odd(&self) -> Option<usize> {
        Some(self.case.manifest["input"]["odd_length"].as_u64().unwrap() as usize)
    }

    fn tolerance(&self, of: &str) -> f32 {
        10.0 * self.case.measured(&format!("{of}_f32_f64"))
    }

    fn latent(&self, n: Option<usize>, array: &str) {
        let chain = self.model.encoder_plan().unwrap().chain();
        let got = whole(chain, &self.pcm(n));
        assert_close(array, &got, &self.case.array(array).channels_last(), self.tolerance("latent"));
    }

    fn codes(&self, n: Option<usize>, array: &str) {
        let expected = self.case.array(array);
        let codebooks = expected.shape[0];
        let options = Options { codebooks: Some(codebooks), ..options() };
        let got = self.model.encode(&self.pcm(n), &options).unwrap();
        assert_codes(array, &got.data, &expected.codes_by_frame(), codebooks);
    }

    /// Decodes stored codes (the first `codebooks` of them) and compares the raw output.
    fn decoded(&self, codes: &str, codebooks: Option<usize>, array: &str) {
        let stored = self.case.array(codes);
        let codebooks = codebooks.unwrap_or(stored.shape[0]);
        let data = stored.codes_by_frame().chunks(stored.shape[0]).flat_map(|f| f[..codebooks].to_vec()).collect();
        let got = self.model.decode(&Codes { codebooks, data, segments: vec![] }, None, &options()).unwrap();
        assert_close(array, &got, &self.case.array(array).channels_last(), self.tolerance("pcm"));
    }

    /// Decodes some books in the middle alone.
    fn decoded_range(&self, codes: &str, books: std::ops::Range<usize>, array: &str) {
        let stored = self.case.array(codes);
        let data: Vec<u16> =
            stored.codes_by_frame().chunks(stored.shape[0]).flat_map(|f| f[books.clone()].to_vec()).collect();
        let codes = Codes { codebooks: books.len(), data, segments: vec![] };
        let options = Options { first_codebook: books.start, ..options() };
        let got = self.model.decode(&codes, None, &options).unwrap();
        assert_close(array, &got, &self.case.array(array).channels_last(), self.tolerance("pcm"));
    }

    fn dequantised(&self, codes: &str) {
        let stored = self.case.array(codes);
        let (codebooks, frames) = (stored.shape[0], stored.shape[1]);
        let quantizer = self.model.decoder_plan().unwrap().quantizer();
        let mut latent = vec![0.0; frames * quantizer.dim()];
        let mut scratch = vec![0.0; quantizer.scratch_len(frames, 1)];
        let cx = codec_core::kernel::Compute { isa: options().isa, pool: None };
        quantizer.decode(cx, &stored.codes_by_frame(), frames, codebooks, &mut latent, &mut scratch).unwrap();
        // Of long ones the first frames are stored.
        let expected = self.case.array("dequant").channels_last();
        assert_close("dequant", &latent[..expected.len()], &expected, self.tolerance("latent"));
    }
}

fn whole(chain: &Chain, pcm: &[f32]) -> Vec<f32> {
    let mut state = chain.state(pcm.len() / chain.input_channels());
    let cx = codec_core::kernel::Compute { isa: options().isa, pool: None };
    chain.step(cx, &mut state, pcm, true).unwrap().to_vec()
}

fn encodec_24khz(f: &Fixture) {
    f.latent(None, "latent");
    f.latent(f.odd(), "latent_odd");
    for kbps in ["6kbps", "24kbps"] {
        f.codes(None, &format!("codes_{kbps}"));
        f.codes(f.odd(), &format!("codes_odd_{kbps}"));
        f.decoded(&format!("codes_{kbps}"), None, &format!("pcm_out_{kbps}"));
    }
    f.decoded("codes_odd_24kbps", None, "pcm_out_odd_24kbps");
    f.dequantised("codes_24kbps");
}

#[test]
fn encodec_24khz_original() {
    encodec_24khz(&Fixture::new("encodec_24khz"));
}

#[test]
fn encodec_24khz_transformers() {
    encodec_24khz(&Fixture::alias("encodec_24khz_transformers", "encodec_24khz"));
}

#[test]
fn encodec_48khz() {
    let f = Fixture::new("encodec_48khz");
    let check = |n: Option<usize>, odd: &str, kbps: &str| -> Codes {
        let scales = f.case.array(&format!("scale{odd}")).f32().to_vec();
        let expected: Vec<&Array> = (0..2).map(|i| f.case.array(&format!("codes{odd}_{kbps}_seg{i}"))).collect();
        let codebooks = expected[0].shape[0];
        let got = f.model.encode(&f.pcm(n), &Options { codebooks: Some(codebooks), ..options() }).unwrap();
        assert_eq!(got.segments.len(), 2);
        for (segment, (codes, scale)) in got.segments.iter().zip(expected.iter().zip(&scales)) {
            assert_eq!(segment.frames, codes.shape[1]);
            assert!((segment.scale - scale).abs() < 1e-6 * scale, "scale {} for {scale}", segment.scale);
        }
        let all: Vec<u16> = expected.iter().flat_map(|a| a.codes_by_frame()).collect();
        assert_codes(&format!("codes{odd}_{kbps}"), &got.data, &all, codebooks);
        Codes {
            segments: got.segments.iter().zip(&scales).map(|(s, &scale)| codec::Segment { scale, ..*s }).collect(),
            codebooks,
            data: all,
        }
    };
    check(None, "", "6kbps");
    for (n, odd) in [(None, ""), (f.odd(), "_odd")] {
        let codes = check(n, odd, "24kbps");
        let pcm = f.model.decode(&codes, None, &options()).unwrap();
        let array = format!("pcm_out{odd}_24kbps");
        assert_close(&array, &pcm, &f.case.array(&array).channels_last(), f.tolerance("pcm"));
    }
}

fn academicodec(name: &str, low: &str, high: &str) {
    let f = Fixture::new(name);
    f.latent(None, "latent");
    f.latent(f.odd(), "latent_odd");
    f.codes(None, &format!("codes_{low}"));
    f.codes(None, &format!("codes_{high}"));
    f.codes(f.odd(), "codes_odd");
    f.decoded(&format!("codes_{high}"), None, "pcm_out");
    f.decoded("codes_odd", None, "pcm_out_odd");
    f.dequantised(&format!("codes_{high}"));
}

#[test]
fn academicodec_encodec_16k_320d() {
    academicodec("academicodec_encodec_16k_320d", "2kbps", "12kbps");
}

#[test]
fn academicodec_encodec_24k_32d() {
    academicodec("academicodec_encodec_24k_32d", "7p5kbps", "15kbps");
}

#[test]
fn academicodec_soundstream_24k_240d() {
    academicodec("academicodec_soundstream_24k_240d", "2kbps", "12kbps");
}

fn hificodec(name: &str) {
    let f = Fixture::new(name);
    f.latent(None, "latent");
    f.latent(f.odd(), "latent_odd");
    f.codes(None, "codes");
    f.codes(f.odd(), "codes_odd");
    f.decoded("codes", None, "pcm_out");
    f.decoded("codes_odd", None, "pcm_out_odd");
    f.dequantised("codes");
}

#[test]
fn hificodec_16k_320d() {
    hificodec("hificodec_16k_320d");
}

#[test]
fn hificodec_24k_240d() {
    hificodec("hificodec_24k_240d");
}

#[test]
fn hificodec_24k_320d() {
    hificodec("hificodec_24k_320d");
}

fn dac(f: &Fixture) {
    let fewer = f.case.manifest["fewer_codebooks"].as_u64().unwrap() as usize;
    f.latent(None, "latent");
    f.codes(None, "codes");
    f.codes(f.odd(), "codes_odd");
    f.decoded("codes", None, "pcm_out");
    f.decoded("codes_odd", None, "pcm_out_odd");
    f.decoded("codes", Some(fewer), &format!("pcm_out_nq{fewer}"));
    f.dequantised("codes");
}

#[test]
fn dac_16khz_original() {
    dac(&Fixture::new("dac_16khz"));
}

#[test]
fn dac_16khz_transformers() {
    dac(&Fixture::alias("dac_16khz_transformers", "dac_16khz"));
}

#[test]
fn dac_24khz() {
    dac(&Fixture::new("dac_24khz"));
}

#[test]
fn dac_44khz_original() {
    dac(&Fixture::new("dac_44khz"));
}

#[test]
fn dac_44khz_transformers() {
    dac(&Fixture::alias("dac_44khz_transformers", "dac_44khz"));
}

/// MusicGen's and AudioGen's EnCodec.
fn audiocraft(name: &str) {
    let f = Fixture::new(name);
    f.latent(None, "latent");
    f.codes(None, "codes");
    f.codes(f.odd(), "codes_odd");
    f.decoded("codes", None, "pcm_out");
    f.decoded("codes_odd", None, "pcm_out_odd");
    f.dequantised("codes");
}

#[test]
fn encodec_32khz() {
    audiocraft("encodec_32khz_transformers");
}

#[test]
fn audiogen_16khz() {
    audiocraft("audiogen_16khz_transformers");
}

#[test]
fn dac_44khz_16kbps() {
    audiocraft("dac_44khz_16kbps_transformers");
}

#[test]
fn speechtokenizer_snake() {
    let f = Fixture::new("speechtokenizer_snake");
    f.latent(None, "latent");
    f.codes(None, "codes");
    f.codes(f.odd(), "codes_odd");
    f.decoded("codes", None, "pcm_out");
    f.decoded("codes_odd", None, "pcm_out_odd");
}

#[test]
fn speechtokenizer() {
    let f = Fixture::new("speechtokenizer_hubert_avg");
    f.latent(None, "latent");
    f.codes(None, "codes");
    f.codes(f.odd(), "codes_odd");
    f.decoded("codes", None, "pcm_out");
    f.decoded("codes_odd", None, "pcm_out_odd");
    f.decoded("codes", Some(1), "pcm_out_nq1");
    f.dequantised("codes");
    f.decoded_range("codes", 1..3, "pcm_out_codes_1_to_3");
}

fn mimi(f: &Fixture) {
    f.latent(None, "latent");
    for books in [8, 32] {
        f.codes(None, &format!("codes_nq{books}"));
        f.decoded(&format!("codes_nq{books}"), None, &format!("pcm_out_nq{books}"));
    }
    f.dequantised("codes_nq32");
}

#[test]
fn mimi_transformers() {
    let f = Fixture::new("mimi");
    mimi(&f);
    f.latent(f.odd(), "latent_odd");
    f.codes(f.odd(), "codes_odd");
    f.decoded("codes_odd", None, "pcm_out_odd");
}

#[test]
fn mimi_native() {
    let own = Fixture::new("mimi_native");
    let f = Fixture { case: Case::load(&golden::committed(), "mimi"), model: own.model };
    mimi(&f);
    // This code completes the last frame with silence, where the other pads each convolution.
    let odd = f.pcm(f.odd());
    let expected = own.case.array("codes_odd");
    let got = f.model.encode(&odd, &Options { codebooks: Some(32), ..options() }).unwrap();
    assert_codes("codes_odd", &got.data, &expected.codes_by_frame(), 32);
    let pcm = f.model.decode(&got, None, &options()).unwrap();
    assert_close("pcm_out_odd", &pcm, &own.case.array("pcm_out_odd").channels_last(), f.tolerance("pcm"));
}

#[test]
fn wavtokenizer_75() {
    let f = Fixture::new("wavtokenizer_75");
    f.latent(None, "latent");
    f.codes(None, "codes");
    f.codes(f.odd(), "codes_odd");
    f.decoded("codes", None, "pcm_out");
    f.decoded("codes_odd", None, "pcm_out_odd");
}

/// Levels of different rates to frames: of each level in turn, what falls into the frame.
fn by_frame(case: &Case, prefix: &str, levels: usize) -> Vec<u16> {
    let levels: Vec<Vec<u16>> = (0..levels).map(|n| case.array(&format!("{prefix}_{n}")).codes()).collect();
    let frames = levels[0].len();
    let part = |frame: usize, level: &Vec<u16>| {
        let each = level.len() / frames;
        level[frame * each..(frame + 1) * each].to_vec()
    };
    (0..frames).flat_map(|frame| levels.iter().flat_map(move |level| part(frame, level))).collect()
}

fn snac(name: &str, levels: usize) {
    let f = Fixture::new(name);
    f.latent(None, "latent");
    let mut noisy = None;
    for (n, odd) in [(None, ""), (f.odd(), "_odd")] {
        let expected = by_frame(&f.case, &format!("codes{odd}"), levels);
        let got = f.model.encode(&f.pcm(n), &options()).unwrap();
        assert_codes(&format!("codes{odd}"), &got.data, &expected, got.codebooks);
        let pcm = f.model.decode(&Codes { data: expected, ..got.clone() }, None, &options()).unwrap();
        let array = format!("pcm_out{odd}");
        assert_close(&array, &pcm, &f.case.array(&array).channels_last(), f.tolerance("pcm"));
        noisy = Some(got);
    }
    // The same codes with noise from a seed.
    let options = Options { noise_seed: f.case.manifest["seed"].as_u64(), ..options() };
    let pcm = f.model.decode(&noisy.unwrap(), None, &options).unwrap();
    let expected = f.case.array("pcm_out_odd_noise").channels_last();
    assert_close("pcm_out_odd_noise", &pcm, &expected, f.tolerance("pcm"));
}

#[test]
fn snac_24khz() {
    snac("snac_24khz", 3);
}

#[test]
fn snac_32khz() {
    snac("snac_32khz", 4);
}

#[test]
fn snac_44khz() {
    snac("snac_44khz", 4);
}

#[test]
fn s3tokenizer_v2_25hz() {
    let f = Fixture::new("s3tokenizer_v2_25hz");
    let pcm = f.case.array("pcm").f32();
    let chain = f.model.encoder_plan().unwrap().chain();
    let hidden = f.case.array("hidden").f32();
    assert_close("hidden", &whole(chain, pcm), hidden, f.tolerance("hidden"));
    for (n, array) in [(None, "codes"), (f.odd(), "codes_odd")] {
        let got = f.model.encode(&pcm[..n.unwrap_or(pcm.len())], &options()).unwrap();
        assert_codes(array, &got.data, &f.case.array(array).codes(), 1);
    }
    let error = f.model.decoder(&options()).err().expect("no decoder").to_string();
    assert!(error.contains("only encodes"), "{error}");
}
