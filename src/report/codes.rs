use codec::Codes;

use super::{WHEEL, picture, plot, seconds};

/// Most columns of a picture.
const COLUMNS: usize = 2048;

/// Codes by time, the first codebook at the bottom; a colour is a code's place in its codebook. `sizes` are the codebooks'.
pub fn codes_figure(codes: &Codes, sizes: &[usize], length: f64) -> String {
    let (books, frames) = (codes.codebooks, codes.frames());
    if books == 0 || frames == 0 {
        return String::new();
    }
    let columns = frames.min(COLUMNS);
    let pixel = |book: usize, column: usize| {
        let code = usize::from(codes.data[column * frames / columns * books + book]);
        let size = sizes.get(book).copied().unwrap_or(1024).max(2);
        (code * 255 / (size - 1)).min(255) as u8
    };
    let pixels: Vec<u8> =
        (0..books).rev().flat_map(|book| (0..columns).map(move |c| (book, c))).map(|(b, c)| pixel(b, c)).collect();
    let Some(image) = picture(columns, books, &WHEEL, &pixels) else { return String::new() };
    let label = |book: usize| ((book as f64 + 0.5) / books as f64, format!("book {}", book + 1));
    let mut ys = vec![label(0)];
    if books > 1 {
        ys.push(label(books - 1));
    }
    let plot = plot(&image, "codes", "Codes by time and codebook", &seconds(length), &ys);
    format!(
        "<figure class=\"wide\"><figcaption>Codes <span>{frames} frames of {books}</span></figcaption>{plot}</figure>"
    )
}
