//! `/etc/mdadm/mdadm.conf`, mdadm.conf(5): the arrays that are known by name.
//!
//! A keyword and its words, separated by blanks or tabs. A line that begins with one goes on with the line before. `#`
//! at the start of a word begins a comment; quotes keep blanks in a word. Keywords are read in any letter case, and
//! three letters of one are enough. Where a thing is said twice, mdadm takes the first.

/// The lines that name arrays, and what concerns all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MdadmConf {
    /// The `ARRAY` lines in order.
    pub arrays: Vec<Array>,
    /// `HOMEHOST`: the host whose arrays get short names; `<system>` stands for the name of the host.
    pub home_host: Option<String>,
    /// `MAILADDR`: who is told of failures.
    pub mail_address: Option<String>,
}

/// One `ARRAY` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// Line number, from 1.
    pub line: usize,
    /// The device, `/dev/md0`; `<ignore>` for an array that is never assembled.
    pub device: Option<String>,
    /// `UUID=`, as written.
    pub uuid: Option<String>,
    /// `name=`, as written, mostly with its host: `web:0`.
    pub name: Option<String>,
}

impl MdadmConf {
    /// Parses any bytes; bytes that are not UTF-8 are replaced.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines: Vec<(usize, Vec<String>)> = Vec::new();
        for (number, line) in (1..).zip(text.split('\n')) {
            let found = words(line);
            match lines.last_mut() {
                _ if found.is_empty() => {}
                Some((_, before)) if line.starts_with(is_blank) => before.extend(found),
                _ => lines.push((number, found)),
            }
        }
        let mut file = Self::default();
        for (line, words) in lines {
            file.take(line, words);
        }
        file
    }

    fn take(&mut self, line: usize, words: Vec<String>) {
        let mut words = words.into_iter();
        let Some(keyword) = words.next().filter(|keyword| keyword.len() >= 3) else { return };
        let keyword = keyword.to_ascii_lowercase();
        if "array".starts_with(&keyword) {
            self.arrays.push(Array::new(line, words));
        } else if "homehost".starts_with(&keyword) {
            let said = words.find(|word| !word.eq_ignore_ascii_case("<ignore>"));
            self.home_host = self.home_host.take().or(said);
        } else if "mailaddr".starts_with(&keyword) {
            self.mail_address = self.mail_address.take().or(words.next());
        }
    }
}

impl Array {
    fn new(line: usize, words: impl Iterator<Item = String>) -> Self {
        let mut array = Self { line, device: None, uuid: None, name: None };
        for word in words {
            let (place, value) = match word.split_once('=') {
                Some((key, value)) if key.eq_ignore_ascii_case("uuid") => (&mut array.uuid, value),
                Some((key, value)) if key.eq_ignore_ascii_case("name") => (&mut array.name, value),
                Some(_) if !word.starts_with('/') => continue,
                _ => (&mut array.device, word.as_str()),
            };
            place.get_or_insert_with(|| value.to_owned());
        }
        array
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// The words of a line, without their quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start_matches(is_blank);
    while !rest.is_empty() && !rest.starts_with('#') {
        let mut quote = None;
        let mut word = String::new();
        let mut length = rest.len();
        for (at, c) in rest.char_indices() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (None, c) if is_blank(c) => {
                    length = at;
                    break;
                }
                _ => word.push(c),
            }
        }
        words.push(word);
        rest = rest[length..].trim_start_matches(is_blank);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_and_the_first_of_two() {
        let file = MdadmConf::parse(
            b"# ARRAY /dev/md9 UUID=9\nHOMEHOST <ignore> <system>\nMAILADDR root\nmailaddr nobody\nDEVICE partitions\n\
            ARRAY /dev/md/0  metadata=1.2\n# between\n\n   UUID=6f1c77a0:0b2d4c3e:9a510c7d:e1000002 name=web:0 # the root\n\
            arr 'name=a b' uuid=2 uuid=3 /dev/md\"1\"\nARRAY <ignore> UUID=4\nar x\nARRAY\n",
        );
        let text = |text: &str| Some(text.to_owned());
        let array = |line, device: Option<String>, uuid, name| Array { line, device, uuid, name };
        assert_eq!(
            file.arrays,
            [
                array(6, text("/dev/md/0"), text("6f1c77a0:0b2d4c3e:9a510c7d:e1000002"), text("web:0")),
                array(10, text("/dev/md1"), text("2"), text("a b")),
                array(11, text("<ignore>"), text("4"), None),
                array(13, None, None, None),
            ]
        );
        assert_eq!((file.home_host, file.mail_address), (text("<system>"), text("root")));
    }

    #[test]
    fn any_bytes() {
        assert_eq!(MdadmConf::parse(b" ARRAY x\n").arrays.len(), 1);
        let mut state = 11_u32;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..80)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    b"arARray \t\n\n#'\"=/\xff"[(state >> 24) as usize % 17]
                })
                .collect();
            assert!(MdadmConf::parse(&bytes).arrays.iter().all(|array| array.line > 0));
        }
    }
}
