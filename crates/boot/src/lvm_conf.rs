//! The device filter of lvm.conf(5), as far as it decides which physical volumes are seen.

use regex_lite::Regex;

/// Patterns in a filter; real ones have a handful.
const MAX_PATTERNS: usize = 1000;

/// Patterns with what each does: `a` accepts, `r` rejects; the first that fits a name counts.
#[derive(Debug)]
pub(crate) struct Filter {
    patterns: Vec<(bool, Regex)>,
}

impl Filter {
    /// The last `global_filter` or `filter` that is set outside of comments; `None` when there is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut found = None;
        let mut is_global = false;
        let code: String = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n");
        let mut rest = code.as_str();
        while let Some(at) = rest.find("filter") {
            let key =
                rest[..at].rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '/')).next();
            let key = key.unwrap_or_default().rsplit('/').next().unwrap_or_default();
            rest = &rest[at + "filter".len()..];
            let Some(value) = rest.trim_start().strip_prefix('=') else { continue };
            // Strings hold brackets; only one outside of them ends the list.
            let list = strings(value);
            if (key.is_empty() && !is_global || key == "global_") && !list.is_empty() {
                is_global |= key == "global_";
                found = Some(Self {
                    patterns: list.iter().take(MAX_PATTERNS).filter_map(|text| pattern(text)).collect(),
                });
            }
        }
        found
    }

    /// Whether a device with these names is looked at: by the first pattern that fits any of them, each name in turn.
    pub(crate) fn accepts(&self, names: &[&str]) -> bool {
        let mut is_rejected = false;
        for name in names {
            match self.patterns.iter().find(|(_, regex)| regex.is_match(name)) {
                Some((true, _)) => return true,
                Some((false, _)) => is_rejected = true,
                None => {}
            }
        }
        !is_rejected
    }
}

/// The groups and volumes that may be activated, `activation/volume_list`; `None` where all may be, or where tags decide.
pub(crate) fn volume_list(text: &str) -> Option<Vec<String>> {
    list(text, "volume_list")
}

/// Those that events activate, `activation/auto_activation_volume_list`.
pub(crate) fn auto_activation_volume_list(text: &str) -> Option<Vec<String>> {
    list(text, "auto_activation_volume_list")
}

/// `global/event_activation`: whether a group is activated when its disks appear.
pub(crate) fn has_event_activation(text: &str) -> bool {
    let code = code_of(text);
    let value = values(&code, "event_activation")
        .last()
        .map(|value| value.trim_start().as_bytes().first() == Some(&b'0'));
    value != Some(true)
}

fn list(text: &str, key: &str) -> Option<Vec<String>> {
    let code = code_of(text);
    let found = values(&code, key).last().map(strings)?;
    (!found.iter().any(|entry| entry.starts_with('@'))).then_some(found)
}

/// The text without its comments, which are most of it.
pub(crate) fn code_of(text: &str) -> String {
    text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// What stands behind each `KEY =`.
fn values<'a>(code: &'a str, key: &str) -> impl Iterator<Item = &'a str> {
    let found = code.match_indices(key).map(|(at, key)| (at, at + key.len())).collect::<Vec<_>>();
    found.into_iter().filter_map(move |(at, end)| {
        let is_whole = !code[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        code[end..].trim_start().strip_prefix('=').filter(|_| is_whole)
    })
}

/// The strings of a list, or the single one.
fn strings(value: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut text: Option<String> = None;
    for c in value.trim_start().chars() {
        match (&mut text, c) {
            (Some(_), '"') => found.extend(text.take()),
            (Some(text), c) => text.push(c),
            (None, '"') => text = Some(String::new()),
            (None, '[' | ',' | ' ' | '\t' | '\n') => {}
            (None, _) => break,
        }
    }
    found
}

/// `a|regex|` and `r|regex|`, with any delimiter.
fn pattern(text: &str) -> Option<(bool, Regex)> {
    let accepts = match text.chars().next()? {
        'a' => true,
        'r' => false,
        _ => return None,
    };
    let delimiter = text.chars().nth(1)?;
    let closing = match delimiter {
        '(' => ')',
        '[' => ']',
        '{' => '}',
        other => other,
    };
    let body = text.get(1 + delimiter.len_utf8()..)?;
    let body = body.strip_suffix(closing).unwrap_or(body);
    Some((accepts, Regex::new(body).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_volumes() {
        let text = "activation {\n # volume_list = [ \"a\" ]\n auto_activation_volume_list = [ \"b\" ]\n volume_list=[\"c\", \"d/e\"]\n}";
        assert_eq!(volume_list(text), Some(vec!["c".to_owned(), "d/e".to_owned()]));
        assert_eq!(volume_list("auto_activation_volume_list = [ \"b\" ]"), None);
        assert_eq!(volume_list("volume_list = [ \"b\", \"@tag\" ]"), None);
        assert_eq!(volume_list("volume_list = []"), Some(Vec::new()));
    }

    #[test]
    fn what_events_activate() {
        let text = "activation {\n auto_activation_volume_list = [ \"b\" ]\n}";
        assert_eq!(auto_activation_volume_list(text), Some(vec!["b".to_owned()]));
        assert_eq!(auto_activation_volume_list("volume_list = [ \"b\" ]"), None);
        assert!(has_event_activation("# event_activation = 0\n"));
        assert!(has_event_activation("event_activation = 0\nevent_activation=1"));
        assert!(!has_event_activation("global {\n\tevent_activation = 0\n}"));
    }

    #[test]
    fn filters() {
        let text =
            "devices {\n  # filter = [ \"r|.*|\" ]\n  filter = [ \"a|^/dev/sd[a-b]|\", \"r|.*|\" ]\n}\n";
        let filter = Filter::parse(text).unwrap();
        assert!(filter.accepts(&["/dev/sda2"]));
        assert!(filter.accepts(&["/dev/disk/by-id/x", "/dev/sdb"]));
        assert!(!filter.accepts(&["/dev/vda2", "/dev/disk/by-id/x"]));
        assert!(Filter::parse("# filter = [ \"r|.*|\" ]").is_none());
        assert!(Filter::parse("global { use_filter_x = 1 }").is_none());
        let global = Filter::parse("global_filter=[\"r|/dev/vda|\"]\nfilter=[\"a|.*|\"]").unwrap();
        assert!(!global.accepts(&["/dev/vda2"]));
        assert!(global.accepts(&["/dev/sda2"]));
    }
}
