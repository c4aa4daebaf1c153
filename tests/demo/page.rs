//! How the demo looks: numbered headings, quoted commands, what programs said, and verdicts.

use std::io::IsTerminal as _;
use std::io::stdout;

/// Prints the demo, in colour where somebody looks at it.
#[derive(Debug)]
pub(crate) struct Page {
    colour: bool,
    section: u32,
}

impl Page {
    pub(crate) fn new() -> Self {
        Self { colour: stdout().is_terminal(), section: 0 }
    }

    /// Starts a numbered section.
    pub(crate) fn section(&mut self, title: &str) {
        self.section += 1;
        println!("\n{}", self.paint("1;36", &format!("{}. {title}", self.section)));
    }

    /// Plain words.
    pub(crate) fn text(&self, words: &str) {
        println!("   {}", self.paint("0", words));
    }

    /// A command as somebody would type it on a node.
    pub(crate) fn command(&self, node: &str, line: &str) {
        println!("   {} {}", self.paint("2", &format!("{node}$")), self.paint("1", line));
    }

    /// What a program said.
    pub(crate) fn output(&self, said: &str) {
        for line in said.trim_end().lines() {
            println!("   {} {line}", self.paint("2", "|"));
        }
    }

    /// Something that was checked and is so.
    pub(crate) fn verdict(&self, words: &str) {
        println!("   {} {words}", self.paint("1;32", "ok"));
    }

    /// Names and values under each other.
    pub(crate) fn facts(&self, title: &str, facts: &[(&str, String)]) {
        println!("   {}", self.paint("1", title));
        for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
            println!("     {} {value}", self.paint("2", &format!("{name:<12}")));
        }
    }

    fn paint(&self, code: &str, words: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{words}\u{1b}[0m") } else { words.to_owned() }
    }
}

/// The first bytes of something, as hexdump shows them.
pub(crate) fn hexdump(bytes: &[u8]) -> String {
    let line = |(number, row): (usize, &[u8])| {
        let hex: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let letters: String = row
            .iter()
            .map(|&byte| if byte.is_ascii_graphic() { char::from(byte) } else { '.' })
            .collect();
        format!("{:04x}  {:<47}  {letters}", number * 16, hex.join(" "))
    };
    bytes.chunks(16).enumerate().map(line).collect::<Vec<_>>().join("\n")
}
