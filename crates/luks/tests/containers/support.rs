//! Loading the images of `test-images/volume`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use blockdev::{BlockDevice, Device, MemoryDevice};

/// What opens the images of scripts/images/luks.sh.
pub(crate) const PASSPHRASE: &[u8] = b"correct horse";

/// The bytes of `test-images/volume/{name}.zst`.
pub(crate) fn image(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test-images/volume");
    let packed = std::fs::read(folder.join(format!("{name}.zst"))).unwrap();
    let mut content = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(packed.as_slice()).unwrap().read_to_end(&mut content).unwrap();
    content
}

pub(crate) fn device(content: Vec<u8>) -> Device {
    Arc::new(MemoryDevice::new(content))
}

/// A file of the corpus beside the project, unpacked into `folder`; `None` where there is no corpus.
pub(crate) fn corpus(name: &str, folder: &Path) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let root = std::env::var_os("GUESTMEND_CORPUS").map_or(beside, PathBuf::from);
    let packed = root.join(name);
    if !packed.exists() {
        println!("skipped: no corpus at {}", root.display());
        return None;
    }
    let output = Command::new("xz").arg("-dc").arg(&packed).output().unwrap();
    let path = folder.join(name.replace('/', "_"));
    std::fs::write(&path, output.stdout).unwrap();
    Some(path)
}

/// Checks the 128 sectors that scripts/images/pattern.py wrote with seed 9.
pub(crate) fn assert_pattern(device: &dyn BlockDevice) {
    let mut bytes = vec![0; 128 * 512];
    device.read_exact_at(&mut bytes, 0).unwrap();
    for (number, sector) in (0_u64..).zip(bytes.chunks_exact(512)) {
        for (word, found) in (0_u64..).zip(sector.chunks_exact(8)) {
            let expected = number | 9 << 48 | word << 56;
            assert_eq!(found, expected.to_le_bytes(), "sector {number}, word {word}");
        }
    }
}
