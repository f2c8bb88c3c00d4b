//! Writes the small models of the tests, and a wav file for each, into a folder: `test_models FOLDER`.

#[path = "../tests/support/models.rs"]
mod models;

fn main() {
    let folder = std::env::args().nth(1).expect("the folder to write to");
    let folder = std::path::Path::new(&folder);
    for name in models::MODELS {
        models::write(name, &folder.join(format!("{name}.safetensors")));
        let channels = models::channels(name);
        let pcm = models::signal(9137, channels.into());
        let samples = pcm.iter().flat_map(|v| ((v * 32_768.0) as i16).to_le_bytes());
        let samples: Vec<u8> = samples.collect();
        let mut wav = Vec::from(*b"RIFF");
        wav.extend((36 + samples.len() as u32).to_le_bytes());
        wav.extend(b"WAVEfmt \x10\0\0\0\x01\0");
        wav.extend(channels.to_le_bytes());
        wav.extend(8000u32.to_le_bytes());
        wav.extend((16_000 * u32::from(channels)).to_le_bytes());
        wav.extend((2 * channels).to_le_bytes());
        wav.extend(b"\x10\0data");
        wav.extend((samples.len() as u32).to_le_bytes());
        wav.extend(samples);
        std::fs::write(folder.join(format!("{name}.wav")), wav).expect("the folder can be written");
    }
}
