//! systemd's unit files and their drop-ins: systemd.syntax(7).
//!
//! Sections of `Key=value` lines. A backslash at the end of a line joins the next one, with a blank in its place; comment lines
//! between joined ones are passed over. What a key given twice means is the reader's business: lists grow, an empty value clears
//! them, and of other keys the last counts.

/// One `Key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The line that it starts on, from 1.
    pub line: usize,
    /// `Unit`, `Service`, `Mount`.
    pub section: String,
    /// `ExecStart`.
    pub key: String,
    /// Without blanks around it.
    pub value: String,
}

/// The assignments of a file, in order. Any bytes can be parsed; a line that is none, or that comes before the first section,
/// is passed over, as systemd does with a warning.
pub fn parse(bytes: &[u8]) -> Vec<Assignment> {
    let text = String::from_utf8_lossy(bytes);
    let mut found = Vec::new();
    let mut section = String::new();
    // The line that is being put together, and where it began.
    let mut joined: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) {
            continue;
        }
        let (start, mut whole) = joined.take().unwrap_or_else(|| (number, String::new()));
        match trimmed.strip_suffix('\\') {
            Some(part) => {
                whole.push_str(part);
                whole.push(' ');
                joined = Some((start, whole));
            }
            None => {
                whole.push_str(trimmed);
                take(&whole, start, &mut section, &mut found);
            }
        }
    }
    if let Some((start, whole)) = joined {
        take(&whole, start, &mut section, &mut found);
    }
    found
}

fn take(line: &str, number: usize, section: &mut String, found: &mut Vec<Assignment>) {
    let line = line.trim();
    if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        section.clear();
        section.push_str(name);
    } else if let Some((key, value)) = line.split_once('=')
        && !section.is_empty()
    {
        found.push(Assignment {
            line: number,
            section: section.clone(),
            key: key.trim().to_owned(),
            value: value.trim().to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let show =
            |found: Assignment| format!("{} {} {}={}", found.line, found.section, found.key, found.value);
        parse(text.as_bytes()).into_iter().map(show).collect()
    }

    #[test]
    fn sections_comments_and_joined_lines() {
        let text = "stray=1\n[Unit]\n# a comment\nAfter = a.target b.target\n;x=1\n[Service]\nExecStart=/bin/a \\\n# between\n  -b \\\n  -c\nnonsense\nUser=\n";
        assert_eq!(
            shown(text),
            ["4 Unit After=a.target b.target", "7 Service ExecStart=/bin/a  -b  -c", "12 Service User="]
        );
    }

    #[test]
    fn a_backslash_at_the_end_of_the_file_joins_nothing() {
        assert_eq!(shown("[A]\nb=c\\"), ["2 A b=c"]);
        assert!(shown("\u{0}\u{ff}=\\\n\\\n[").is_empty());
    }
}
