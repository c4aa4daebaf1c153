//! What is wrong with a configuration, and what to do about it; and the reader that collects all
//! such problems while a file becomes typed values.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::file::{Given, Key};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Line in it, from 1; `None` where the file as a whole is meant.
    pub line: Option<usize>,
    /// The key, such as `scope[0].cgroup`; empty where no key is to blame.
    pub key: String,
    /// The value as the file gives it.
    pub value: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// All that is wrong; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        if let Some(value) = &self.value {
            write!(f, ": `{value}`")?;
        }
        write!(f, ": {}; {}", self.what, self.remedy)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Where in a file something stands, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) key: String,
    pub(super) at: Option<Range<usize>>,
    pub(super) value: Option<String>,
}

/// Turns the keys of one file into values and collects what is wrong with them.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) path: &'a Path,
    text: &'a str,
    problems: &'a mut Vec<Problem>,
}

/// Longest value that a problem quotes, in characters.
const QUOTED: usize = 120;

impl<'a> Reader<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str, problems: &'a mut Vec<Problem>) -> Self {
        Self { path, text, problems }
    }

    /// The value of a key, if the file gives one that can be read.
    pub(super) fn given<T>(&mut self, key: impl Into<String>, field: Key<T>) -> Option<(T, Place)> {
        let Given { at, text, value } = field.0?;
        let place = Place { key: key.into(), at: Some(at), value: Some(text) };
        match value {
            Ok(value) => Some((value, place)),
            Err(what) => {
                self.problem(&place, what, "write it as config.example.toml shows");
                None
            }
        }
    }

    /// The value of a key that must be there, in the table at `table`.
    pub(super) fn required<T>(
        &mut self,
        name: &str,
        field: Key<T>,
        table: &Place,
        remedy: &str,
    ) -> Option<(T, Place)> {
        if field.0.is_none() {
            self.problem(table, format!("has no {name}"), remedy);
        }
        self.given(format!("{}.{name}", table.key), field)
    }

    /// The value of a key that has a default.
    pub(super) fn or<T>(&mut self, key: &str, field: Key<T>, default: T) -> T {
        self.given(key, field).map_or(default, |(value, _)| value)
    }

    /// The value of a key that has a default and a range. `show` spells a bound.
    pub(super) fn within<T: PartialOrd>(
        &mut self,
        key: &str,
        field: Key<T>,
        default: T,
        range: &(T, T),
        show: impl Fn(&T) -> String,
    ) -> T {
        let Some((value, place)) = self.given(key, field) else {
            return default;
        };
        if value >= range.0 && value <= range.1 {
            return value;
        }
        let remedy = format!("write a value from {} to {}", show(&range.0), show(&range.1));
        self.problem(&place, "out of range", remedy);
        default
    }

    /// Notes that a value is wrong.
    pub(super) fn problem(
        &mut self,
        place: &Place,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let problem = self.warning(place, what, remedy);
        self.problems.push(problem);
    }

    /// What is probably not meant, and wrong with nothing.
    pub(super) fn warning(
        &self,
        place: &Place,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Problem {
        Problem {
            file: self.path.to_owned(),
            line: place.at.as_ref().map(|at| line_of(self.text, at.start)),
            key: place.key.clone(),
            value: place.value.as_ref().map(|value| value.chars().take(QUOTED).collect()),
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// The line, from 1, of a place in the file.
    pub(super) fn line(&self, at: usize) -> usize {
        line_of(self.text, at)
    }
}

impl Place {
    /// The same place, quoting only this part of its value.
    pub(super) fn quoting(&self, value: impl fmt::Display) -> Self {
        Self { value: Some(value.to_string()), ..self.clone() }
    }

    /// A key of the same table.
    pub(super) fn table(key: impl Into<String>, at: usize) -> Self {
        Self { key: key.into(), at: Some(at..at), value: None }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or(text);
    before.matches('\n').count() + 1
}

/// The known word that is most like `word`, if any is like it.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let limit = (word.chars().count() / 3).max(1);
    let by_distance = known.iter().map(|known| (distance(word, known), *known));
    by_distance.filter(|(distance, _)| *distance <= limit).min().map(|(_, known)| known)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        let mut left = i + 1;
        for (b, pair) in b.iter().zip(row.windows(2)) {
            let (diagonal, above) = match pair {
                [diagonal, above] => (*diagonal, *above),
                _ => continue,
            };
            left = (diagonal + usize::from(a != *b)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_and_suggests() {
        for (a, b, expected) in
            [("", "", 0), ("a", "", 1), ("cgruop", "cgroup", 2), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
        assert_eq!(nearest("cgrup", &["mode", "cgroup", "user"]), Some("cgroup"));
        assert_eq!(nearest("zzzz", &["mode", "cgroup"]), None);
    }
}
