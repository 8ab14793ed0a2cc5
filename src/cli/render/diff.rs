//! A change as a unified diff.

use repair::FileChange;
use similar::TextDiff;

use super::{Style, plain};

/// The unified diff of one file, three lines of context, as `diff -u` prints it.
pub(crate) fn unified(change: &FileChange, volume: &str, style: Style) -> String {
    let (old, new) = (String::from_utf8_lossy(&change.old), String::from_utf8_lossy(&change.new));
    let diff = TextDiff::from_lines(old.as_ref(), new.as_ref());
    let path = change.path.trim_start_matches('/');
    let text = diff
        .unified_diff()
        .context_radius(3)
        .header(&format!("a/{path}\t({volume})"), &format!("b/{path}\t({volume})"))
        .to_string();
    text.lines()
        .map(|line| {
            let safe = plain(line);
            let painted = match line.as_bytes().first() {
                Some(b'+') => style.green(&safe),
                Some(b'-') => style.red(&safe),
                Some(b'@') => style.blue(&safe),
                _ => safe,
            };
            painted + "\n"
        })
        .collect()
}
