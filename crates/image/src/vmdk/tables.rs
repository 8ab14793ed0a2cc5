//! Grain directories and grain tables: from the number of a grain to the word that says where it is.
//!
//! VMware Virtual Disk Format 5.0, "Grain Directory and Grain Tables". Little-endian words: 4 bytes that count sectors
//! in hosted and COWD extents, 8 bytes in seSparse ones. Hosted extents keep both twice; the second copy is asked
//! where the first is damaged. Directories are read in slices and tables whole, both through the caches of the
//! image: neither is ever in memory as a whole.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use blockdev::Device;
use ondisk::Corrupt;

use super::header::SECTOR;
use super::sesparse;
use super::stream::Found;
use crate::arithmetic::{overflow, to_index};
use crate::open::Shared;
use crate::problems::damaged;

/// Entries of a directory that are read at once.
const SLICE: u64 = 2048;

/// Entries in a sector of a hosted table.
pub(super) const IN_SECTOR: usize = 128;

const DIRECTORY: &str = "VMDK grain directory";
const TABLE: &str = "VMDK grain table";

/// The tables of one sparse extent.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) file: Device,
    pub(super) scheme: Scheme,
    /// Entries in a table.
    pub(super) entries: u64,
    /// How many tables there are.
    pub(super) count: u64,
    /// The number of this layer, and the first of the cache keys in it that are ours; see [`Tables::keys`].
    pub(super) layer: usize,
    pub(super) first_key: u64,
    pub(super) shared: Arc<Shared>,
    /// What differs from the file, while it is open for writing.
    pub(super) changes: Option<RwLock<Changes>>,
}

/// Where the directory is and what words mean. Offsets in bytes.
#[derive(Debug)]
pub(super) enum Scheme {
    Hosted(Hosted),
    /// `free` is where the writer puts the next grain.
    Cowd {
        directory: u64,
        free: u64,
    },
    SeSparse(sesparse::Header),
    /// A stream without its end: its grains were found one by one.
    Scanned(Found),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hosted {
    pub(super) directory: u64,
    pub(super) redundant: Option<u64>,
    /// 1 in a table means zeros.
    pub(super) has_zero_grains: bool,
    /// Grains are zlib streams, …
    pub(super) is_packed: bool,
    /// … after a marker that says where they belong.
    pub(super) has_markers: bool,
    /// No grain lies before this.
    pub(super) overhead: u64,
}

/// The first or the second of what there is twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copy {
    First,
    Second,
}

/// Tables that differ from the file, by number.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) tables: BTreeMap<u64, Arc<[u64]>>,
    /// Where copies of tables lie that no directory points to yet.
    pub(super) places: HashMap<u64, NewPlaces>,
}

/// Where the copies of one table lie that are new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewPlaces {
    pub(super) first: Option<u64>,
    pub(super) second: Option<u64>,
}

impl NewPlaces {
    pub(super) fn of(self, copy: Copy) -> Option<u64> {
        if copy == Copy::First { self.first } else { self.second }
    }
}

/// What the words of one table say about a grain. Offsets in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Not here: the parent decides.
    Absent,
    Zero,
    /// The grain itself.
    At(u64),
    /// Its marker, or the zlib stream itself.
    Packed(u64),
}

impl Tables {
    /// How many cache keys an extent with `count` tables needs: one for each table, and no more than that for
    /// the slices of each directory.
    pub(super) fn keys(count: u64) -> u64 {
        count.saturating_mul(3)
    }

    fn key(&self, number: u64) -> (usize, u64) {
        (self.layer, self.first_key.saturating_add(number))
    }

    /// Bytes in a word.
    pub(super) fn word_size(&self) -> u64 {
        if matches!(self.scheme, Scheme::SeSparse(_)) { 8 } else { 4 }
    }

    /// Bytes in a table.
    pub(super) fn table_size(&self) -> u64 {
        self.entries.saturating_mul(self.word_size())
    }

    /// The bytes of a directory; `None` when there is no such copy.
    pub(super) fn directory(&self, copy: Copy) -> Option<Range<u64>> {
        let start = match (&self.scheme, copy) {
            (Scheme::Hosted(hosted), Copy::First) => hosted.directory,
            (Scheme::Hosted(hosted), Copy::Second) => hosted.redundant?,
            (Scheme::Cowd { directory, .. }, Copy::First) => *directory,
            (Scheme::SeSparse(header), Copy::First) => header.directory,
            _ => return None,
        };
        Some(start..start.saturating_add(self.count.saturating_mul(self.word_size())))
    }

    /// The directory's word for table `number`; 0 where there is no such copy. Whoever asks while a writer may
    /// be at work holds [`changes`](Self::changes): a slice that changes meanwhile would be cached as it was.
    pub(super) fn directory_word(&self, copy: Copy, number: u64) -> io::Result<u64> {
        let Some(directory) = self.directory(copy) else { return Ok(0) };
        let (slice, within) = (number / SLICE, to_index(number % SLICE)?);
        let copies = if copy == Copy::First { 1 } else { 2 };
        let key = self.key(self.count.saturating_mul(copies).saturating_add(slice));
        let words = match self.shared.tables.get(key) {
            Some(words) => words,
            None => {
                let first = slice.saturating_mul(SLICE);
                let count = self.count.saturating_sub(first).min(SLICE);
                let at = directory.start.saturating_add(first.saturating_mul(self.word_size()));
                let words = self.read_words(at, count)?;
                self.shared.tables.insert(key, words.clone());
                words
            }
        };
        words.get(within).copied().ok_or_else(overflow)
    }

    /// Forgets the slice of a directory that holds the word for table `number`.
    pub(super) fn forget_directory(&self, copy: Copy, number: u64) {
        let copies = if copy == Copy::First { 1 } else { 2 };
        self.shared.tables.remove(self.key(self.count.saturating_mul(copies).saturating_add(number / SLICE)));
    }

    /// First byte of table `number` by one copy of the directory: nothing where there is no table, and the
    /// damage of an entry that cannot be. Reads the directory, as [`directory_word`](Self::directory_word) does.
    pub(super) fn place(&self, copy: Copy, number: u64) -> io::Result<Result<Option<u64>, Corrupt>> {
        let word = self.directory_word(copy, number)?;
        let size = self.file.size();
        let at = match &self.scheme {
            Scheme::SeSparse(header) => sesparse::table_offset(word, header.tables),
            _ => Ok(Some(word.saturating_mul(SECTOR)).filter(|at| *at != 0)),
        };
        let fits = |at: &Option<u64>| {
            at.is_none_or(|at| {
                // The header fills the first sector at least.
                at >= SECTOR && at.checked_add(self.table_size()).is_some_and(|end| end <= size)
            })
        };
        Ok(at.ok().filter(fits).ok_or_else(|| {
            let start = self.directory(copy).map_or(0, |directory| directory.start);
            let expected = format!("a table of {} bytes before {size:#x}", self.table_size());
            let found = format!("{word:#x} in entry {number}");
            Corrupt::new(DIRECTORY, start, "grain table offset", expected, found)
        }))
    }

    /// The words of table `number`; `None` when it is absent.
    pub(super) fn table(&self, number: u64) -> io::Result<Option<Arc<[u64]>>> {
        let key = self.key(number);
        if let Some(table) = self.shared.tables.get(key) {
            return Ok(Some(table));
        }
        // Held until the table is cached: a writer that changes it meanwhile would leave a stale copy behind.
        let changes = self.changes();
        if let Some(table) = changes.as_ref().and_then(|changes| changes.tables.get(&number)) {
            return Ok(Some(table.clone()));
        }
        let Some(table) = self.load(number)? else { return Ok(None) };
        self.shared.tables.insert(key, table.clone());
        Ok(Some(table))
    }

    /// Forgets table `number`, or keeps what it is now.
    pub(super) fn cache(&self, number: u64, table: Option<Arc<[u64]>>) {
        match table {
            Some(table) => self.shared.tables.insert(self.key(number), table),
            None => self.shared.tables.remove(self.key(number)),
        }
    }

    fn load(&self, number: u64) -> io::Result<Option<Arc<[u64]>>> {
        if let Scheme::Scanned(found) = &self.scheme {
            return Ok(found.table(number, self.entries));
        }
        let first = self.place(Copy::First, number)?;
        if self.directory(Copy::Second).is_none() {
            return match first {
                Ok(Some(at)) => self.read_words(at, self.entries).map(Some),
                Ok(None) => Ok(None),
                Err(corrupt) => Err(damaged(corrupt)),
            };
        }
        match first {
            Ok(Some(at)) => self.completed(number, self.read_words(at, self.entries)?).map(Some),
            // A healthy file has both or none, so that a lonely second copy is what is left.
            Ok(None) => {
                let second = self.second(number)?.filter(|table| table.iter().any(|word| *word != 0));
                if second.is_some() {
                    self.record_second(number, "the first copy of the directory has no such table");
                }
                Ok(second)
            }
            Err(corrupt) => match self.second(number)? {
                Some(second) => {
                    self.record(corrupt);
                    Ok(Some(second))
                }
                None => Err(damaged(corrupt)),
            },
        }
    }

    /// The second copy of a table, if it can be read.
    fn second(&self, number: u64) -> io::Result<Option<Arc<[u64]>>> {
        match self.place(Copy::Second, number)? {
            Ok(Some(at)) => self.read_words(at, self.entries).map(Some),
            Ok(None) | Err(_) => Ok(None),
        }
    }

    /// The first copy of a table with what only the second copy knows: sectors that hold nothing in the first,
    /// and words that cannot be.
    fn completed(&self, number: u64, first: Arc<[u64]>) -> io::Result<Arc<[u64]>> {
        let is_empty = |sector: &[u64]| sector.iter().all(|word| *word == 0);
        let size = self.file.size();
        let is_wrong =
            |word: u64| word != 0 && self.content(word).map_or(true, |content| is_past(content, size));
        if !first.chunks(IN_SECTOR).any(is_empty) && !first.iter().any(|word| is_wrong(*word)) {
            return Ok(first);
        }
        let Some(second) = self.second(number)? else { return Ok(first) };
        let mut merged = first.to_vec();
        for (sector, other) in merged.chunks_mut(IN_SECTOR).zip(second.chunks(IN_SECTOR)) {
            if is_empty(sector) {
                sector.copy_from_slice(other);
                continue;
            }
            for (word, other) in sector.iter_mut().zip(other) {
                if is_wrong(*word) && *other != 0 && !is_wrong(*other) {
                    *word = *other;
                }
            }
        }
        if merged[..] == first[..] {
            return Ok(first);
        }
        self.record_second(number, "the first copy of the table has lost entries");
        Ok(merged.into())
    }

    /// What a word of a table says; the error says what it should have been.
    pub(super) fn content(&self, word: u64) -> Result<Content, String> {
        let bytes = word.saturating_mul(SECTOR);
        match &self.scheme {
            Scheme::Scanned(_) if word == 0 => Ok(Content::Absent),
            Scheme::Scanned(_) => Ok(Content::Packed(bytes)),
            Scheme::SeSparse(header) => match sesparse::entry(word, header.grains) {
                Some(sesparse::Entry::Absent) => Ok(Content::Absent),
                Some(sesparse::Entry::Zero) => Ok(Content::Zero),
                Some(sesparse::Entry::At(at)) => Ok(Content::At(at)),
                None => Err("0, 0x1…, 0x2… or 0x3…".to_owned()),
            },
            Scheme::Cowd { .. } | Scheme::Hosted(_) if word == 0 => Ok(Content::Absent),
            Scheme::Cowd { directory, .. } => match bytes > *directory {
                true => Ok(Content::At(bytes)),
                false => Err(format!("a grain after sector {}", directory / SECTOR)),
            },
            Scheme::Hosted(hosted) if word == 1 && hosted.has_zero_grains => Ok(Content::Zero),
            Scheme::Hosted(hosted) if bytes < hosted.overhead.max(SECTOR) => {
                Err(format!("0 or a grain from sector {} on", hosted.overhead / SECTOR))
            }
            Scheme::Hosted(hosted) if hosted.is_packed => Ok(Content::Packed(bytes)),
            Scheme::Hosted(_) => Ok(Content::At(bytes)),
        }
    }

    /// Names the damaged word `entry` of table `number`.
    pub(super) fn corrupt_word(
        &self,
        number: u64,
        entry: u64,
        expected: impl std::fmt::Display,
        word: u64,
    ) -> Corrupt {
        let _changes = self.changes();
        let place = self.place(Copy::First, number).ok().and_then(Result::ok).flatten().unwrap_or(0);
        let found = format!("{word:#x} in entry {entry} of table {number}");
        Corrupt::new(TABLE, place, "grain offset", expected, found)
    }

    /// `count` words from byte `at` on, which lie within the file.
    pub(super) fn read_words(&self, at: u64, count: u64) -> io::Result<Arc<[u64]>> {
        let length = count.saturating_mul(self.word_size());
        blockdev::check_range(self.file.size(), at, length)?;
        let mut bytes = vec![0; to_index(length)?];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(match self.word_size() {
            8 => bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect(),
            _ => bytes.as_chunks::<4>().0.iter().map(|word| u64::from(u32::from_le_bytes(*word))).collect(),
        })
    }

    pub(super) fn record(&self, corrupt: Corrupt) {
        self.shared.problems.record(self.layer, corrupt);
    }

    fn record_second(&self, number: u64, found: &str) {
        let place = self.place(Copy::First, number).ok().and_then(Result::ok).flatten();
        let at = place.or_else(|| self.directory(Copy::First).map(|directory| directory.start)).unwrap_or(0);
        let found = format!("taken from the second, for {found} ({number})");
        self.record(Corrupt::new(TABLE, at, "content", "what the second copy says", found));
    }

    /// What differs from the file; while the guard lives, nothing of it changes.
    pub(super) fn changes(&self) -> Option<RwLockReadGuard<'_, Changes>> {
        Some(self.changes.as_ref()?.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// # Errors
    /// [`io::ErrorKind::PermissionDenied`] when the image was opened read-only.
    pub(super) fn changes_mut(&self) -> io::Result<RwLockWriteGuard<'_, Changes>> {
        let read_only = || io::Error::new(io::ErrorKind::PermissionDenied, "the image was opened read-only");
        let changes = self.changes.as_ref().ok_or_else(read_only)?;
        Ok(changes.write().unwrap_or_else(PoisonError::into_inner))
    }
}

fn is_past(content: Content, size: u64) -> bool {
    matches!(content, Content::At(at) | Content::Packed(at) if at >= size)
}
