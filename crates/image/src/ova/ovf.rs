//! The description of an appliance: which of its files are disks.
//!
//! DMTF DSP0243, "References Section" and "Disk Section". A `File` has an identifier and a name; a `Disk` refers to a
//! file, or to none when it starts empty.

use super::xml::Tags;

/// Bound on the text in bytes.
pub(super) const MAX_SIZE: u64 = 4 << 20;

/// Bound on files and on disks.
const MAX_ITEMS: usize = 1024;

/// What the text says of disks, in its order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) disks: Vec<Disk>,
    /// What was odd: fragments.
    pub(super) problems: Vec<String>,
}

/// A disk with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    /// The name of its file, as references are written: possibly with `%20`.
    pub(super) href: String,
    /// Length of the file in bytes, where it is stated.
    pub(super) size: Option<u64>,
    /// Why the file is not the disk as it is: compressed, in pieces, over another.
    pub(super) refusal: Option<String>,
}

#[derive(Debug)]
struct File {
    id: String,
    disk: Disk,
}

impl Description {
    pub(super) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        let mut files: Vec<File> = Vec::new();
        let mut disks = Vec::new();
        let mut tags = Tags::new(text.trim_start_matches('\u{feff}'));
        for tag in tags.by_ref() {
            let get = |name| tag.get(name).map(str::to_owned);
            match tag.name {
                "File" if files.len() < MAX_ITEMS => {
                    if let (Some(id), Some(href)) = (get("id"), get("href")) {
                        let compression =
                            tag.get("compression").filter(|name| !matches!(*name, "" | "identity"));
                        let compressed =
                            compression.map(|name| format!("the compression {name} of a whole disk"));
                        let pieces = tag.get("chunkSize").map(|_| "a disk in pieces".to_owned());
                        let size = tag.get("size").and_then(|digits| digits.parse().ok());
                        files.push(File { id, disk: Disk { href, size, refusal: compressed.or(pieces) } });
                    }
                }
                "Disk" if disks.len() < MAX_ITEMS => {
                    // A disk without a file starts empty; an item of the hardware section may share the name.
                    if let Some(file) = get("fileRef") {
                        disks.push((file, tag.get("parentRef").is_some_and(|parent| !parent.is_empty())));
                    }
                }
                "File" | "Disk" => found.problem(&format!("more than {MAX_ITEMS} files or disks")),
                _ => {}
            }
        }
        if let Some(broken) = tags.broken {
            found.problem(&format!("the text ends in {broken}"));
        }
        for (id, has_parent) in disks {
            match files.iter().find(|file| file.id == id) {
                Some(file) => {
                    let mut disk = file.disk.clone();
                    if has_parent {
                        disk.refusal = disk.refusal.or_else(|| Some("a disk over another".to_owned()));
                    }
                    found.disks.push(disk);
                }
                None => found.problem(&format!("a disk refers to the file `{id}`, which is not listed")),
            }
        }
        found
    }

    fn problem(&mut self, text: &str) {
        let text: String =
            text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
        if self.problems.len() < 16 && !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }
}

/// A reference without its `%` escapes.
pub(super) fn unescaped(href: &str) -> String {
    let mut bytes = Vec::with_capacity(href.len());
    let mut rest = href.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let code = after.first_chunk::<2>().filter(|_| *byte == b'%');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"<Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"><References>
        <File ovf:href="disk2.vmdk" ovf:id="f2" ovf:size="7"/><File ovf:href="disk1.vmdk.gz" ovf:id="f1"
        ovf:compression="gzip"/><ovf:File ovf:href="cd.iso" ovf:id="f3"/></References><DiskSection>
        <Disk ovf:capacity="1" ovf:diskId="d1" ovf:fileRef="f1"/><Disk ovf:capacity="1" ovf:diskId="empty"/>
        <Disk ovf:diskId="d2" ovf:fileRef="f2" ovf:parentRef=""/><Disk ovf:diskId="d3" ovf:fileRef="f9"/>
        </DiskSection></Envelope>"#;

    #[test]
    fn disks_come_in_the_order_of_their_section() {
        let found = Description::parse(TEXT);
        let disks: Vec<_> = found.disks.iter().map(|disk| (disk.href.as_str(), disk.size)).collect();
        assert_eq!(disks, [("disk1.vmdk.gz", None), ("disk2.vmdk", Some(7))]);
        assert_eq!(found.disks[0].refusal.as_deref(), Some("the compression gzip of a whole disk"));
        assert_eq!(found.disks[1].refusal, None);
        assert_eq!(found.problems, ["a disk refers to the file `f9`, which is not listed"]);
    }

    #[test]
    fn escapes() {
        assert_eq!(unescaped("my%20disk%C3%A9.vmdk"), "my disk\u{e9}.vmdk");
        assert_eq!(unescaped("100%.vmdk%2"), "100%.vmdk%2");
    }
}
