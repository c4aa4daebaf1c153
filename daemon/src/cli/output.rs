//! The one place that writes to standard output. Tables are plain columns without lines; colour
//! only on a terminal; text from outside cannot move the cursor.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Color, ContentArrangement, Table};
use serde::Serialize;

use crate::audit::log::{deceives, plain_json};

/// What a cell means, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Doubtful,
    Bad,
}

/// Rows under headings. Nothing but the headings if there are no rows.
#[derive(Debug)]
pub(super) struct Columns {
    table: Table,
}

impl Columns {
    pub(super) fn new(headings: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(headings.iter().map(Cell::new));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { table }
    }

    pub(super) fn row<I, C>(&mut self, cells: I)
    where
        I: IntoIterator<Item = C>,
        C: Into<Cell>,
    {
        self.table.add_row(cells.into_iter().map(Into::into).collect::<Vec<Cell>>());
    }

    /// Whether there are no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for line in self.table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A cell with text from anywhere; a dash for none.
pub(super) fn cell(text: impl AsRef<str>) -> Cell {
    toned(text, Tone::Plain)
}

/// A cell whose text may be absent.
pub(super) fn maybe(text: Option<impl AsRef<str>>) -> Cell {
    text.map_or_else(|| Cell::new("-"), cell)
}

/// A cell that means something.
pub(super) fn toned(text: impl AsRef<str>, tone: Tone) -> Cell {
    let text = text.as_ref();
    let cell = Cell::new(if text.is_empty() { Cow::Borrowed("-") } else { clean(text) });
    match tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::Green),
        Tone::Doubtful => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
    }
}

/// Text that cannot move a terminal's cursor nor turn the direction of writing.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(deceives) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if deceives(c) { c.escape_unicode().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

/// Bytes as people read them.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut whole, mut rest, mut unit) = (count, 0, "B");
    for next in UNITS {
        if whole < 1024 {
            break;
        }
        (whole, rest, unit) = (whole / 1024, whole % 1024, next);
    }
    // One decimal below ten, as `ls -h` has it.
    if unit == "B" || whole >= 10 {
        return format!("{whole} {unit}");
    }
    format!("{whole}.{} {unit}", rest * 10 / 1024)
}

/// Adds a line to a text.
pub(super) fn put(text: &mut String, line: fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _infallible = fmt::Write::write_fmt(text, format_args!("{line}\n")).is_ok();
}

/// Writes text.
pub(super) fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes one JSON value on one line.
pub(super) fn json<T: Serialize>(value: &T) -> io::Result<()> {
    let mut line = plain_json(value)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// Clears the terminal, if there is one.
pub(super) fn clear() -> io::Result<()> {
    // ECMA-48: cursor to the first position, erase all.
    if is_terminal() { text("\x1b[H\x1b[2J") } else { Ok(()) }
}

/// Whether somebody looks.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes to standard error.
pub(super) fn complain(text: &str) {
    // Nobody is left to hear of a failure to complain.
    let _told = writeln!(io::stderr().lock(), "{text}").is_ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_end_without_blanks() {
        let mut columns = Columns::new(&["ID", "STATE"]);
        columns.row([cell("a-long-name"), toned("ok", Tone::Good)]);
        columns.row([maybe(None::<&str>), cell("")]);
        assert_eq!(columns.render(), "ID           STATE\na-long-name  ok\n-            -\n");
    }

    #[test]
    fn text_from_outside_cannot_move_the_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb\u{202e}\n"), "a\\u{1b}[2Jb\\u{202e}\\u{a}");
        assert!(matches!(clean("plain"), Cow::Borrowed("plain")));
    }

    #[test]
    fn bytes_are_short() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (20 << 20, "20 MiB"),
            (u64::MAX, "15 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
