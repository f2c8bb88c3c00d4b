//! Pages of one file: pictures of sound and of codes, players, curves.

mod codes;
mod curve;
mod page;
mod sound;

pub use codes::codes_figure;
pub use curve::curve_figure;
pub use page::{Page, escape, table};
pub use sound::sound_figure;

/// Colours from dark to light, and around the wheel.
const HEAT: [[u8; 3]; 8] = [
    [0, 0, 4],
    [40, 11, 84],
    [101, 21, 110],
    [159, 42, 99],
    [212, 72, 66],
    [245, 125, 21],
    [250, 193, 39],
    [252, 255, 164],
];
const WHEEL: [[u8; 3]; 7] =
    [[38, 70, 140], [42, 140, 170], [90, 175, 110], [225, 200, 70], [230, 120, 60], [170, 60, 120], [90, 60, 160]];

/// A picture as a data URI: 256 colours blended from a few, rows from the top.
fn picture(width: usize, height: usize, colours: &[[u8; 3]], pixels: &[u8]) -> Option<String> {
    let palette: Vec<u8> = (0..256)
        .flat_map(|i| {
            let place = i as f32 / 255.0 * (colours.len() - 1) as f32;
            let k = (place as usize).min(colours.len() - 2);
            let blend = move |c: usize| {
                let (a, b) = (f32::from(colours[k][c]), f32::from(colours[k + 1][c]));
                (a + (b - a) * (place - k as f32)) as u8
            };
            [blend(0), blend(1), blend(2)]
        })
        .collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette);
    encoder.write_header().ok()?.write_image_data(pixels).ok()?;
    Some(data_uri("image/png", &bytes))
}

fn data_uri(kind: &str, bytes: &[u8]) -> String {
    use base64::Engine as _;
    format!("data:{kind};base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// A few round times up to `length` seconds: place from 0 to 1, and text.
fn seconds(length: f64) -> Vec<(f64, String)> {
    const STEPS: [f64; 14] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];
    let step = STEPS.into_iter().find(|step| length / step <= 6.0).unwrap_or(3600.0);
    if !length.is_finite() || length <= 0.0 {
        return Vec::new();
    }
    (0..=(length / step) as usize)
        .map(|i| {
            let text = format!("{:.2}", i as f64 * step);
            (i as f64 * step / length, format!("{} s", text.trim_end_matches('0').trim_end_matches('.')))
        })
        .collect()
}

/// A picture with labels along both axes.
fn plot(image: &str, class: &str, alt: &str, xs: &[(f64, String)], ys: &[(f64, String)]) -> String {
    let mut html = format!("<div class=\"plot {class}\"><img src=\"{image}\" alt=\"{}\">", escape(alt));
    for (at, text) in ys {
        html += &format!("<b class=\"y\" style=\"bottom:{:.2}%\">{}</b>", at * 100.0, escape(text));
    }
    for (at, text) in xs {
        html += &format!("<b class=\"x\" style=\"left:{:.2}%\">{}</b>", at * 100.0, escape(text));
    }
    html + "</div>"
}
