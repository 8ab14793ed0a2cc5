//! `/etc/os-release`, os-release(5): which system this is.
//!
//! Shell-like assignments, one a line; values may be quoted, with backslash escapes inside double quotes.

/// The assignments of the file, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OsRelease {
    pairs: Vec<(String, String)>,
}

impl OsRelease {
    /// Parses any bytes; lines that are no assignment are passed over.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let pairs = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.trim().to_owned(), unquote(value.trim())))
            .collect();
        Self { pairs }
    }

    /// The value of a key; the last assignment wins, as in a shell.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// The name for people: `CentOS Linux 7 (Core)`.
    pub fn pretty_name(&self) -> Option<&str> {
        self.get("PRETTY_NAME").or_else(|| self.get("NAME"))
    }

    /// The identifier for programs: `centos`.
    pub fn id(&self) -> Option<&str> {
        self.get("ID")
    }
}

fn unquote(value: &str) -> String {
    if let Some(inner) = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return inner.to_owned();
    }
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let mut text = String::with_capacity(inner.len());
    let mut bytes = inner.chars();
    while let Some(next) = bytes.next() {
        text.extend(if next == '\\' { bytes.next() } else { Some(next) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_comments_and_the_last_assignment() {
        let file = OsRelease::parse(
            b"NAME=\"CentOS Linux\"\n# ID=x\nID='centos'\nVERSION_ID=7\nPRETTY_NAME=\"A \\\"B\\\"\"\nnonsense\nVERSION_ID=8\n",
        );
        assert_eq!(file.id(), Some("centos"));
        assert_eq!(file.get("VERSION_ID"), Some("8"));
        assert_eq!(file.pretty_name(), Some("A \"B\""));
        assert_eq!(OsRelease::parse(b"NAME=x").pretty_name(), Some("x"));
        assert_eq!(OsRelease::parse(b"\xff\x00=").id(), None);
    }
}
