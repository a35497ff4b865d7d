//! A page of HTML that needs nothing from elsewhere: no script, no font, no picture of another address.

/// Light or dark as the reader's system is; tables and pictures that are too wide scroll in themselves.
const STYLE: &str = "\
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2328; --dim: #59636e; --line: #d1d9e0; --band: #f6f8fa; }
@media (prefers-color-scheme: dark) { :root { --paper: #0d1117; --ink: #e6edf3; --dim: #9198a1; --line: #30363d; --band: #161b22; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 16px; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, \"DejaVu Sans\", Arial, sans-serif; }
h1 { font-size: 24px; line-height: 1.25; margin: 8px 0; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 32px 0 8px; padding-top: 8px; border-top: 1px solid var(--line); }
p { margin: 8px 0; } .note { color: var(--dim); }
.wide { overflow-x: auto; margin: 12px 0; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--dim); font-weight: 600; } th, td { padding: 4px 12px 4px 0; white-space: nowrap; vertical-align: top; }
td.text { white-space: normal; min-width: 180px; } th.number, td.number { text-align: right; }
tbody tr:nth-child(odd) { background: var(--band); }
.tiles { display: flex; flex-wrap: wrap; gap: 8px; margin: 16px 0; }
.tile { flex: 1 1 150px; border: 1px solid var(--line); border-radius: 8px; padding: 8px 12px; }
.tile b { display: block; font-size: 20px; } .tile span { color: var(--dim); font-size: 13px; }
.picture svg { display: block; width: 100%; min-width: 620px; height: auto; border: 1px solid var(--line); border-radius: 8px; }
";

/// How a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// Words that are not broken.
    Name(&'static str),
    /// Sentences.
    Text(&'static str),
    Number(&'static str),
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Name(title) | Self::Text(title) | Self::Number(title) => title,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Name(_) => "",
            Self::Text(_) => " class=\"text\"",
            Self::Number(_) => " class=\"number\"",
        }
    }
}

/// A page that is being written.
#[derive(Debug)]
pub(super) struct Page(String);

impl Page {
    pub(super) fn new(title: &str) -> Self {
        let title = escaped(title);
        Self(format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        ))
    }

    pub(super) fn heading(&mut self, text: &str) {
        self.0 += &format!("<h2>{}</h2>\n", escaped(text));
    }

    /// What explains.
    pub(super) fn note(&mut self, text: &str) {
        self.0 += &format!("<p class=\"note\">{}</p>\n", escaped(text));
    }

    /// The figures that matter most, each with what it is.
    pub(super) fn tiles(&mut self, tiles: &[(&str, String)]) {
        self.0 += "<div class=\"tiles\">\n";
        for (name, value) in tiles {
            let (value, name) = (escaped(value), escaped(name));
            self.0 += &format!("<div class=\"tile\"><b>{value}</b><span>{name}</span></div>\n");
        }
        self.0 += "</div>\n";
    }

    pub(super) fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) {
        self.0 += "<div class=\"wide\"><table>\n<thead><tr>";
        for column in columns {
            let title = escaped(column.title());
            self.0 += &format!("<th{}>{title}</th>", column.class());
        }
        self.0 += "</tr></thead>\n<tbody>\n";
        for row in rows {
            self.0 += "<tr>";
            for (column, cell) in columns.iter().zip(row) {
                self.0 += &format!("<td{}>{}</td>", column.class(), escaped(cell));
            }
            self.0 += "</tr>\n";
        }
        self.0 += "</tbody></table></div>\n";
    }

    /// A picture of `plot::svg`, which is escaped already.
    pub(super) fn picture(&mut self, svg: &str) {
        self.0 += &format!("<div class=\"wide picture\">\n{svg}</div>\n");
    }

    pub(super) fn end(mut self) -> String {
        self.0 += "</body>\n</html>\n";
        self.0
    }
}

/// Text for HTML: nothing of it is markup.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_told_becomes_markup() {
        let evil = "<script>alert('1')</script>\"&\u{1b}";
        let mut page = Page::new(evil);
        page.heading(evil);
        page.note(evil);
        page.tiles(&[("x", evil.to_owned())]);
        page.table(
            &[Column::Name("<i>"), Column::Text("t")],
            &[vec![evil.to_owned(), evil.to_owned()]],
        );
        let text = page.end();
        assert!(!text.contains("<script") && !text.contains("<i>"), "{text}");
        assert!(!text.contains('\u{1b}'));
        assert_eq!(text.matches("&lt;script&gt;").count(), 7);
    }

    #[test]
    fn a_page_names_no_other_address() {
        let text = Page::new("t").end();
        for word in ["http:", "https:", "src=", "href=", "@import", "url("] {
            assert!(!text.contains(word), "{word}");
        }
    }
}
