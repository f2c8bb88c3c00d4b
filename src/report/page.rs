use std::fmt::Write as _;

/// A page that needs nothing beside itself.
pub struct Page {
    title: String,
    html: String,
}

impl Page {
    /// A page with its heading and a line below it.
    pub fn new(title: &str, about: &str) -> Self {
        let mut html = String::new();
        let _ = write!(html, "<header><h1>{}</h1><p>{}</p></header><main>", escape(title), escape(about));
        Self { title: title.to_owned(), html }
    }

    /// A card with a heading, a note beside it, and what is in it as HTML; nothing if that is empty.
    pub fn section(&mut self, heading: &str, note: &str, html: &str) {
        if !html.is_empty() {
            let (heading, note) = (escape(heading), escape(note));
            let _ = write!(self.html, "<section><h2>{heading} <span>{note}</span></h2>{html}</section>");
        }
    }

    /// The whole document.
    pub fn finish(self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'\">\
             <title>{}</title><style>{}</style></head><body>{}</main></body></html>\n",
            escape(&self.title),
            include_str!("style.css"),
            self.html
        )
    }
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A table of text, the last `means` rows of which are set off.
pub fn table(head: &[String], rows: &[Vec<String>], means: usize) -> String {
    let cells =
        |row: &[String], tag: &str| row.iter().map(|c| format!("<{tag}>{}</{tag}>", escape(c))).collect::<String>();
    let body: String = rows
        .iter()
        .enumerate()
        .map(|(i, row)| {
            let class = if i + means >= rows.len() { " class=\"mean\"" } else { "" };
            format!("<tr{class}>{}</tr>", cells(row, "td"))
        })
        .collect();
    format!("<div class=\"scroll\"><table><tr>{}</tr>{body}</table></div>", cells(head, "th"))
}
