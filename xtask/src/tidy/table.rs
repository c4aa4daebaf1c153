//! Markdown tables as data: ARCHITECTURE.md is where the rules are written.

/// The rows of the table whose header starts with this cell; each row as its cells.
pub(super) fn rows<'a>(markdown: &'a str, first_header: &str) -> Vec<Vec<&'a str>> {
    markdown
        .lines()
        .skip_while(|line| cells(line).first().is_none_or(|cell| *cell != first_header))
        .skip(2)
        .take_while(|line| line.trim_start().starts_with('|'))
        .map(cells)
        .collect()
}

/// The names in a cell: comma-separated, in back quotes or bare, without what is in parentheses.
pub(super) fn names(cell: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut depth = 0_usize;
    for letter in cell.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '`' => {}
            _ if depth == 0 => plain.push(letter),
            _ => {}
        }
    }
    plain.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn cells(line: &str) -> Vec<&str> {
    let line = line.trim();
    let Some(inner) = line.strip_prefix('|') else {
        return Vec::new();
    };
    inner.strip_suffix('|').unwrap_or(inner).split('|').map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_right_table() {
        let text = "| Other | x |\n|---|---|\n| o | 1 |\n\n| Module | May |\n|---|---|\n| `a`, b | c (why, so) |\ntext\n| d | e |\n";
        assert_eq!(rows(text, "Module"), vec![vec!["`a`, b", "c (why, so)"]]);
        assert!(rows(text, "None").is_empty());
    }

    #[test]
    fn reads_names() {
        assert_eq!(names("`a`, b (only, this), `c/d.rs`"), ["a", "b", "c/d.rs"]);
        assert!(names("(nothing)").is_empty());
    }
}
