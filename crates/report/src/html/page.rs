//! A page of sections, for reports of more than one run.

use super::{head, push_section};
use crate::escape::escape;

/// A page before it is written: it is self-contained, without scripts and network access.
#[derive(Debug)]
pub struct Page {
    html: String,
}

impl Page {
    /// A page with a title, a line above it and a paragraph below it.
    #[must_use]
    pub fn new(kicker: &str, title: &str, lead: &str) -> Self {
        Self {
            html: format!(
                "{}<p class=\"kicker\">{}</p>\n<h1>{}</h1>\n<p class=\"lead\">{}</p>\n",
                head(title),
                escape(kicker),
                escape(title),
                escape(lead)
            ),
        }
    }

    /// Adds a drawn figure.
    pub fn figure(&mut self, svg: &str) {
        self.html += &format!("<figure class=\"card\">{svg}</figure>\n");
    }

    /// Adds a list of remarks in a box; nothing for none.
    pub fn notes(&mut self, notes: &[String]) {
        self.html += &super::notes(notes);
    }

    /// Adds what a model said of pictures.
    pub fn pictures(&mut self, report: &crate::pictures::PictureReport) {
        self.html += &crate::pictures::sections(report);
    }

    /// Adds a heading.
    pub fn heading(&mut self, text: &str) {
        self.html += &format!("<h2>{}</h2>\n", escape(text));
    }

    /// Adds a table of text, the first column left and the others right; `plain` lets them wrap at the left.
    pub fn table(&mut self, heading: &str, headers: &[&str], rows: &[Vec<String>], plain: bool) {
        if rows.is_empty() {
            return;
        }
        let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| -> String {
            cells
                .map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)))
                .collect()
        };
        let body: String = rows
            .iter()
            .map(|row| {
                format!(
                    "<tr>{}</tr>\n",
                    cells("td", &mut row.iter().map(String::as_str))
                )
            })
            .collect();
        let class = if plain { " class=\"words\"" } else { "" };
        let table = format!(
            "<div class=\"card scroll\"><table{class}><thead><tr>{}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n",
            cells("th", &mut headers.iter().copied())
        );
        push_section(&mut self.html, &escape(heading), &table);
    }

    /// The whole page.
    #[must_use]
    pub fn finish(self, footer: &str) -> String {
        format!(
            "{}<footer>{}</footer>\n</main>\n</html>\n",
            self.html,
            escape(footer)
        )
    }
}
