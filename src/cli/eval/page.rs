//! The page of `codec eval --report`.

use crate::report::{Page, codes_figure, sound_figure, table};

use super::{Group, Report, Row, book_line, cells};

pub fn page(report: &Report) -> String {
    let about = match &report.model {
        Some(model) => format!("{}, coded and scored by codec {}", model.display(), env!("CARGO_PKG_VERSION")),
        None => format!("Scored by codec {}", env!("CARGO_PKG_VERSION")),
    };
    let mut page = Page::new("Quality of decoded audio", &about);
    for group in &report.groups {
        let (head, rows) = cells(group);
        let note = group.coding.as_ref().map(|c| c.line().trim_start_matches(": ").to_owned()).unwrap_or_default();
        let mut html = table(&head, &rows, 2);
        html += "<p class=\"note\">NSIM (up to 1), ViSQOL (1 to 5), STOI, ESTOI (up to 1) and SI-SDR: higher is better; mel, MR-STFT and LSD are distances: lower is better. \
                 The delay is removed before scoring.</p>";
        if let Some(coding) = &group.coding {
            let books: Vec<Vec<String>> = coding
                .codebook_use
                .iter()
                .enumerate()
                .map(|(i, book)| vec![(i + 1).to_string(), book_line(book)])
                .collect();
            html += &format!(
                "<details><summary>Codebook use</summary>{}</details>",
                table(&["codebook".into(), "use".into()], &books, 0)
            );
        }
        page.section(&group.what, &note, &html);
    }
    let most = report.groups.iter().map(|g| g.files.len()).max().unwrap_or(0);
    let mut shown = 0;
    if let Some(first) = report.groups.first() {
        for row in first.files.iter().filter(|row| row.shown.is_some()) {
            shown += 1;
            let same: Vec<(&Group, &Row)> = report
                .groups
                .iter()
                .filter_map(|g| g.files.iter().find(|r| r.file == row.file).map(|r| (g, r)))
                .collect();
            page.section(&row.file, &format!("{:.2} s", row.scores.seconds), &file(&same));
        }
    }
    if shown < most {
        page.section(
            "More files",
            "",
            &format!("<p>{shown} of {most} files are shown; --report-files N shows more.</p>"),
        );
    }
    page.finish()
}

/// The original, and what came of it at every bitrate.
fn file(rows: &[(&Group, &Row)]) -> String {
    let mut html = String::from("<div class=\"pair\">");
    for (i, (group, row)) in rows.iter().enumerate() {
        let Some(shown) = &row.shown else { continue };
        if i == 0 {
            html += &sound_figure("Original", &format!("{} Hz", shown.reference.sample_rate), &shown.reference);
        }
        let title = match &group.coding {
            Some(_) => format!("Decoded, {:.2} kbit/s", row.kbps.unwrap_or(0.0)),
            None => "Decoded".to_owned(),
        };
        let s = &row.scores;
        let nsim = s.nsim.map(|v| format!("NSIM {v:.3}, ")).unwrap_or_default();
        let visqol = s.visqol.map(|v| format!("ViSQOL {v:.2}, ")).unwrap_or_default();
        let note = format!("{nsim}{visqol}ESTOI {:.3}, SI-SDR {:.1} dB, mel {:.3}", s.estoi, s.si_sdr, s.mel);
        html += &sound_figure(&title, &note, &shown.degraded);
    }
    // A prefix of the codebooks is the same at every bitrate: the most are enough.
    let codes = rows.iter().filter_map(|(_, row)| row.shown.as_ref()?.codes.as_ref().map(|c| (c, row.scores.seconds)));
    if let Some(((codes, sizes), seconds)) = codes.max_by_key(|((codes, _), _)| codes.codebooks) {
        html += &codes_figure(codes, sizes, seconds);
    }
    html + "</div>"
}
