//! `/etc/cloud/cloud.cfg` and its drop-ins: where cloud-init looks for its data.
//!
//! Only the key `datasource_list` at the top level, in the ways in which it is written: a flow list, `[ NoCloud, None ]`,
//! also over several lines, or a block list of `- NoCloud`. This is no YAML parser: anchors, nested lists and escapes
//! in strings are not known, and the rest of the file is not looked at.

/// The value of `datasource_list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasourceList {
    /// The line of the key, from 1.
    pub line: usize,
    /// The names in order, the first that answers is taken.
    pub names: Vec<String>,
}

/// The last `datasource_list` of a file, `None` where it has none or its value is no list. Any bytes are accepted.
pub fn datasource_list(bytes: &[u8]) -> Option<DatasourceList> {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    let (index, value) =
        lines.iter().enumerate().rev().find_map(|(index, line)| Some((index, value(line)?)))?;
    let behind = || lines.iter().skip(index + 1).map(|line| without_comment(line));
    let names: Vec<String> = if let Some(first) = value.strip_prefix('[') {
        let list: Vec<&str> = std::iter::once(first).chain(behind()).collect();
        let list = list.join(" ");
        list.split_once(']')?.0.split(',').map(plain).collect()
    } else if value.is_empty() {
        let items = behind().filter(|line| !line.is_empty());
        let items = items.map_while(|line| line.strip_prefix('-').filter(|item| is_apart(item)));
        let names: Vec<String> = items.map(plain).collect();
        // A key without a value, not an empty list.
        if names.is_empty() {
            return None;
        }
        names
    } else {
        return None;
    };
    Some(DatasourceList {
        line: index + 1,
        names: names.into_iter().filter(|name| !name.is_empty()).collect(),
    })
}

/// What stands behind the key, if this is its line.
fn value(line: &str) -> Option<&str> {
    let behind = line.strip_prefix("datasource_list")?.trim_start_matches([' ', '\t']).strip_prefix(':')?;
    is_apart(behind).then(|| without_comment(behind))
}

/// A colon and a dash mean something only in front of a blank or at the end of the line.
fn is_apart(behind: &str) -> bool {
    behind.is_empty() || behind.starts_with([' ', '\t'])
}

/// The line up to a `#` at its start or behind a blank, trimmed.
fn without_comment(line: &str) -> &str {
    let starts = line.match_indices('#').map(|(at, _)| at);
    let end = starts.into_iter().find(|at| *at == 0 || line[..*at].ends_with([' ', '\t']));
    line[..end.unwrap_or(line.len())].trim()
}

fn plain(item: &str) -> String {
    let item = item.trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| item.strip_prefix(quote)?.strip_suffix(quote));
    quoted.unwrap_or(item).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(usize, &[&str])>) {
        let found = datasource_list(text.as_bytes());
        let found = found.as_ref().map(|list| (list.line, list.names.iter().map(String::as_str).collect()));
        assert_eq!(found, expected.map(|(line, names)| (line, names.to_vec())), "{text}");
    }

    #[test]
    fn the_forms_of_a_list() {
        check(
            "#cloud-config\nusers:\n - default\ndatasource_list: [ NoCloud, None ]\n",
            Some((4, &["NoCloud", "None"])),
        );
        check("datasource_list: ['NoCloud', \"Ec2\",] # two\nx: 1", Some((1, &["NoCloud", "Ec2"])));
        check(
            "datasource_list: [\n  NoCloud, # here\n  ConfigDrive\n  ]\n",
            Some((1, &["NoCloud", "ConfigDrive"])),
        );
        check(
            "datasource_list:\n# a\n\n  - NoCloud\n  - None # last\nruncmd:\n - x",
            Some((1, &["NoCloud", "None"])),
        );
        check("datasource_list :  # below\r\n- Ec2\r\n---\n- x", Some((1, &["Ec2"])));
        check("datasource_list: []", Some((1, &[])));
        check("datasource_list: [ Azure ]\na: b\ndatasource_list: [ GCE ]", Some((3, &["GCE"])));
    }

    #[test]
    fn what_is_no_list() {
        check("", None);
        check("# datasource_list: [ A ]\n x:\n  datasource_list: [ B ]", None);
        check("datasource_list: NoCloud", None);
        check("datasource_list:\nx: [ A ]", None);
        check("datasource_list: [ A, B", None);
        check("datasource_list:[ A ]", None);
        check("datasource_lists: [ A ]", None);
    }

    #[test]
    fn any_bytes() {
        let mut state = 13_u32;
        for _ in 0..2000 {
            let mut bytes = b"datasource_list: [ A,\n - #'\n".to_vec();
            for _ in 0..6 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (state >> 8) as usize % bytes.len();
                bytes[at] = b"\n#[],- :\0\xff\xc3'"[(state >> 3) as usize % 12];
            }
            if let Some(list) = datasource_list(&bytes) {
                assert!(list.names.iter().all(|name| !name.is_empty()));
            }
        }
    }
}
