//! Cures on the command line of kernels, and in the searches for them, in a boot loader's files: `grub.cfg`, BLS
//! entries, `grubenv`.
//!
//! Every entry of a file that has the same wrong value gets the same right one, so that no entry is left behind.
//! Whether a cure works is not judged here: the boot is followed again with it.

use std::collections::BTreeSet;
use std::ops::Range;

use boot::Cause;
use filesystem::path::resolve;
use guest_files::Edit;
use guest_files::bls::BlsEntry;
use guest_files::grub_cfg::{GrubCfg, Simple};
use guest_files::grubenv::Grubenv;
use repair::{Applicability, FileEdit, Fix};
use storage::{Content, NodeId, NodeKind, Target, kernel_disk_name, udev_node};

use crate::Case;
use crate::case::GuestFile;

/// Commands that are looked at in one file, and BLS entries in one folder.
const LIMIT: usize = 10_000;

/// Words that GRUB passes to a kernel, as they stand in a file.
struct Words {
    span: Range<usize>,
    /// Whether an initramfs is loaded with that kernel.
    has_initrd: bool,
}

/// `root=` and `rootfstype=`: what names nothing becomes the root file system of the only system there is.
pub(crate) fn cure_root(case: &Case<'_>, cause: &Cause) -> Option<Fix> {
    let file = case.file(&cause.file)?;
    if !case.is_only_system || !fstab_agrees(case) {
        return None;
    }
    let found = words_at(&file, cause.line?);
    let spec = found.iter().rev().find_map(|word| word.strip_prefix("root="))?.to_owned();
    let device = udev_node(spec.as_bytes()).unwrap_or_else(|| spec.clone());
    let is_bare = kernel_disk_name(&spec).is_some();
    let (old, new, applicability) = match case.names.get(&device) {
        Some(Target::Node(node)) if node == case.guest.root && is_bare => {
            (spec.clone(), format!("UUID={}", case.own_uuid(node)?), Applicability::Safe)
        }
        Some(Target::Node(node)) if node == case.guest.root => return cure_type(case, &file, &found),
        None | Some(Target::Extra) => {
            let sure = if is_bare { Applicability::Suggested } else { Applicability::Safe };
            (spec.clone(), name_like(case, &spec)?, sure)
        }
        Some(_) => return None,
    };
    let (old, new) = (format!("root={old}"), format!("root={new}"));
    let mut edits = replace_words(case, &file, &old, &new);
    if edits.is_empty() {
        return None;
    }
    if let Some((old, new)) = renamed_volume(case, &found) {
        edits.extend(replace_words(case, &file, &old, &new));
    }
    if let Some(uuid) = spec.strip_prefix("UUID=") {
        edits.extend(search_edits(case, &file, uuid).into_iter().map(|edit| file.edit(edit)));
    }
    let path = &case.storage.node(case.guest.root).path;
    Some(fix(case, applicability, format!("name {path}, which holds the system, as the root"), edits))
}

/// The UUID in `search` becomes that of the file system that holds the kernel.
pub(crate) fn cure_search(case: &Case<'_>, cause: &Cause) -> Option<Fix> {
    let file = case.file(&cause.file)?;
    let cfg = GrubCfg::parse(file.text()?);
    let commands = cfg.all_commands(LIMIT);
    let line = cause.line?;
    let wrong =
        commands.iter().filter(|command| command.line == line && is_search(command)).find_map(|command| {
            let mut values = command.words.iter().skip(1).filter_map(|word| text(&word.literal()?));
            values.find(|value| value.len() > 3 && cause.symptom.contains(value.as_str()))
        })?;
    let mut edits: Vec<FileEdit> =
        search_edits(case, &file, &wrong).into_iter().map(|edit| file.edit(edit)).collect();
    if edits.is_empty() {
        return None;
    }
    // The same UUID as `root=` had the same fate.
    if case.is_only_system
        && fstab_agrees(case)
        && let Some(uuid) = case.own_uuid(case.guest.root)
    {
        let (old, new) = (format!("root=UUID={wrong}"), format!("root=UUID={uuid}"));
        edits.extend(replace_words(case, &file, &old, &new));
    }
    let title = "look for the file system that holds the kernel".to_owned();
    Some(fix(case, Applicability::Safe, title, edits))
}

/// `rootfstype=` becomes the type that the root file system has.
fn cure_type(case: &Case<'_>, file: &GuestFile, found: &[String]) -> Option<Fix> {
    let old = found.iter().rev().find(|word| word.starts_with("rootfstype="))?;
    let content = case.storage.node(case.guest.root).content_type()?;
    let new = format!("rootfstype={content}");
    let edits = replace_words(case, file, old, &new);
    let title = format!("name the type that the root file system has, {content}");
    (*old != new && !edits.is_empty()).then(|| fix(case, Applicability::Safe, title, edits))
}

fn fix(case: &Case<'_>, sure: Applicability, title: String, edits: Vec<FileEdit>) -> Fix {
    let is_writable = edits.iter().all(|edit| case.is_writable(edit.node));
    let applicability = if is_writable { sure } else { Applicability::Manual };
    Fix { applicability, title, edits }
}

/// Whether fstab's line for `/`, if it leads anywhere, leads to this system.
fn fstab_agrees(case: &Case<'_>) -> bool {
    case.fstab_units().iter().filter(|(_, _, unit)| unit.target == "/").all(|(_, _, unit)| {
        match case.names.get(&unit.what) {
            Some(Target::Node(node)) => node == case.guest.root,
            Some(Target::Ambiguous) => false,
            Some(Target::Extra) | None => true,
        }
    })
}

/// The root file system, named in the way in which `spec` names one.
fn name_like(case: &Case<'_>, spec: &str) -> Option<String> {
    let root = case.guest.root;
    if spec.starts_with("/dev/") && kernel_disk_name(spec).is_none() {
        if !matches!(case.storage.node(root).kind, NodeKind::LogicalVolume { .. }) {
            return None;
        }
        return case.names.of(root).find(|name| name.starts_with("/dev/mapper/")).map(str::to_owned);
    }
    let is_tag = ["UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="].iter().any(|tag| spec.starts_with(tag));
    let uuid = case.own_uuid(root).filter(|_| is_tag || kernel_disk_name(spec).is_some())?;
    Some(format!("UUID={uuid}"))
}

/// The only `rd.lvm.lv=` that names nothing, where none names the volume of the root file system: the two are one.
fn renamed_volume(case: &Case<'_>, found: &[String]) -> Option<(String, String)> {
    let NodeKind::LogicalVolume { group, name, .. } = &case.storage.node(case.guest.root).kind else {
        return None;
    };
    let right = format!("rd.lvm.lv={group}/{name}");
    let mut dead = found.iter().filter(|word| {
        let volume = word.strip_prefix("rd.lvm.lv=");
        volume.is_some_and(|volume| case.names.get(&format!("/dev/{volume}")).is_none())
    });
    let wrong = dead.next().filter(|_| dead.next().is_none() && !found.contains(&right))?;
    Some((wrong.clone(), right))
}

/// Replaces a word of kernels' command lines in a file; of a BLS entry also in those beside it. Kernels without an
/// initramfs are left alone: they know only names of their own.
fn replace_words(case: &Case<'_>, file: &GuestFile, old: &str, new: &str) -> Vec<FileEdit> {
    let mut edits = edits_of(file, old, new);
    for other in beside(case, file) {
        edits.extend(edits_of(&other, old, new));
    }
    edits
}

fn edits_of(file: &GuestFile, old: &str, new: &str) -> Vec<FileEdit> {
    let Some(bytes) = file.text() else { return Vec::new() };
    if is_grubenv(file) {
        // The size of the block stays, so that a value is set as a whole.
        let block = Grubenv::parse(bytes);
        let edit = block.variables().iter().find_map(|variable| {
            let value = text(&variable.value)?;
            let is_old = |word: &&str| *word == old;
            value.split(' ').find(is_old)?;
            let words: Vec<&str> =
                value.split(' ').map(|word| if is_old(&word) { new } else { word }).collect();
            block.set(&text(&variable.name)?, words.join(" ").as_bytes())
        });
        return edit.into_iter().map(|edit| file.edit(edit)).collect();
    }
    let words = words_of(file).into_iter().filter(|words| words.has_initrd);
    let spans = words.flat_map(|words| split(bytes, words.span));
    let wrong = spans.filter(|span| bytes.get(span.clone()) == Some(old.as_bytes()));
    wrong.map(|span| file.edit(Edit::replace(bytes, span, new))).collect()
}

/// The other BLS entries in the folder of one.
fn beside(case: &Case<'_>, file: &GuestFile) -> Vec<GuestFile> {
    let Some((folder, name)) = file.path.rsplit_once('/').filter(|_| is_bls(file)) else {
        return Vec::new();
    };
    let is_of_guest =
        case.file(&file.path).is_some_and(|same| (same.node, same.inode) == (file.node, file.inode));
    let Some(at) = resolve(&case.guest.tree, folder.as_bytes()).ok().filter(|_| is_of_guest) else {
        return Vec::new();
    };
    let entries = filesystem::FileSystem::read_dir(&case.guest.tree, at).unwrap_or_default();
    entries
        .iter()
        .take(LIMIT)
        .filter_map(|entry| text(&entry.name))
        .filter(|other| other.ends_with(".conf") && other != name)
        .filter_map(|other| case.file(&format!("{folder}/{other}")))
        .collect()
}

fn is_bls(file: &GuestFile) -> bool {
    file.path.ends_with(".conf")
}

fn is_grubenv(file: &GuestFile) -> bool {
    file.path.ends_with("/grubenv")
}

/// The words of one line of a file that reach a kernel.
fn words_at(file: &GuestFile, line: usize) -> Vec<String> {
    let Some(bytes) = file.text() else { return Vec::new() };
    // The line is found once: a file may have as many words as half its bytes.
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let start = match line.checked_sub(2) {
        None => 0,
        Some(before) => match ends.nth(before) {
            Some(end) => end.saturating_add(1),
            None => return Vec::new(),
        },
    };
    let end = ends.next().unwrap_or(bytes.len());
    words_of(file)
        .into_iter()
        .flat_map(|words| split(bytes, words.span))
        .filter(|span| (start..=end).contains(&span.start))
        .filter_map(|span| text(bytes.get(span)?))
        .collect()
}

fn words_of(file: &GuestFile) -> Vec<Words> {
    let Some(bytes) = file.text() else { return Vec::new() };
    if is_grubenv(file) {
        let block = Grubenv::parse(bytes);
        let variables = block.variables().iter();
        return variables.map(|found| Words { span: found.span.clone(), has_initrd: true }).collect();
    }
    if is_bls(file) {
        let entry = BlsEntry::parse(bytes);
        let has_initrd = entry.get("initrd").is_some();
        return entry.all("options").map(|field| Words { span: field.span.clone(), has_initrd }).collect();
    }
    let cfg = GrubCfg::parse(bytes);
    let commands = cfg.all_commands(LIMIT);
    let mut words = Vec::new();
    for (index, command) in commands.iter().enumerate() {
        let first = if is_linux(command) {
            2
        } else if is_named(command, &["set"]) {
            1
        } else {
            continue;
        };
        // The initramfs is loaded behind the kernel, before the next entry starts.
        let behind = commands.iter().skip(index.saturating_add(1));
        let mut entry = behind.take_while(|next| !is_linux(next) && !is_named(next, &["menuentry"]));
        let is_initrd = |next: &Simple| is_named(next, &["initrd", "initrd16", "initrdefi"]);
        let has_initrd = first == 1 || entry.any(is_initrd);
        let literal = command.words.iter().skip(first).filter(|word| word.literal().is_some());
        words.extend(literal.map(|word| Words { span: word.span.clone(), has_initrd }));
    }
    words
}

/// The pieces of a span between blanks and quotes.
fn split(bytes: &[u8], span: Range<usize>) -> Vec<Range<usize>> {
    let is_gap = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'');
    let mut pieces = Vec::new();
    let mut start = span.start;
    for at in span.clone() {
        if bytes.get(at).is_none_or(is_gap) {
            if start < at {
                pieces.push(start..at);
            }
            start = at.saturating_add(1);
        }
    }
    if start < span.end {
        pieces.push(start..span.end);
    }
    pieces
}

/// The edits that let every `search` for `wrong`, which names nothing, find the kernel.
fn search_edits(case: &Case<'_>, file: &GuestFile, wrong: &str) -> Vec<Edit> {
    let names_something = case.storage.iter().any(|(_, node)| {
        node.uuid().is_some_and(|uuid| uuid.eq_ignore_ascii_case(wrong))
            || node.label().is_some_and(|label| label == wrong.as_bytes())
    });
    let Some(bytes) = file.text().filter(|_| !names_something && !is_bls(file) && !is_grubenv(file)) else {
        return Vec::new();
    };
    let cfg = GrubCfg::parse(bytes);
    let commands = cfg.all_commands(LIMIT);
    let kernels: BTreeSet<Vec<u8>> = commands
        .iter()
        .filter(|command| is_linux(command))
        .filter_map(|c| c.words.get(1)?.literal())
        .collect();
    let Some(uuid) = holder(case, &kernels).and_then(|node| case.own_uuid(node)) else { return Vec::new() };
    let is_by_uuid = |command: &&Simple| {
        is_named(command, &["search.fs_uuid"])
            || is_named(command, &["search"])
                && command.words.iter().any(|word| {
                    word.literal().is_some_and(|option| matches!(option.as_slice(), b"--fs-uuid" | b"-u"))
                })
    };
    commands
        .iter()
        .filter(is_by_uuid)
        .flat_map(|command| &command.words)
        .filter(|word| word.literal().as_deref() == Some(wrong.as_bytes()))
        .map(|word| cfg.set_word(word, uuid.as_bytes()))
        .collect()
}

/// The only file system that holds a kernel of these names.
fn holder(case: &Case<'_>, kernels: &BTreeSet<Vec<u8>>) -> Option<NodeId> {
    let holds = |id: NodeId| {
        let node = case.storage.node(id);
        matches!(node.content, Content::FileSystem { .. })
            && node.boot_loader_view().is_ok_and(|view| {
                let is_there =
                    |path: &Vec<u8>| path.starts_with(b"/") && resolve(view.fs.as_ref(), path).is_ok();
                kernels.iter().take(64).any(is_there)
            })
    };
    let mut found = case.storage.iter().map(|(id, _)| id).filter(|id| holds(*id));
    let node = found.next()?;
    found.next().is_none().then_some(node)
}

fn is_linux(command: &Simple) -> bool {
    is_named(command, &["linux", "linux16", "linuxefi"])
}

fn is_search(command: &Simple) -> bool {
    command.name().is_some_and(|name| name.starts_with(b"search"))
}

fn is_named(command: &Simple, names: &[&str]) -> bool {
    command.name().is_some_and(|name| names.iter().any(|known| known.as_bytes() == name.as_slice()))
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}
