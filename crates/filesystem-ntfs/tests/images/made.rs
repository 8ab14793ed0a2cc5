//! Volumes of every size of cluster and sector, made by mkntfs and filled by ntfscp, which need no root.

use std::process::{Command, Stdio};

use filesystem_ntfs::FORMAT;

use crate::common::{content, device, has_tool, names, numbers, open};

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn every_size_of_cluster_and_sector() {
    if !has_tool("mkntfs") || !has_tool("ntfscp") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
    let (image, source) = (file("image"), file("source"));
    std::fs::write(&source, numbers(300_000, 7)).unwrap();
    for (sector, cluster, mebibytes) in [
        (512, 512, 4),
        (512, 1024, 4),
        (512, 8192, 8),
        (512, 65536, 16),
        (512, 2 << 20, 48),
        (1024, 4096, 8),
        (2048, 2048, 8),
        (4096, 4096, 16),
        (4096, 131_072, 24),
    ] {
        std::fs::File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        let (sector_text, cluster_text) = (sector.to_string(), cluster.to_string());
        let options = ["-qQF", "-s", &sector_text, "-c", &cluster_text, "-L", "label", &image];
        assert!(run("mkntfs", &options), "{sector}/{cluster}");
        assert!(run("ntfscp", &["-f", &image, &source, "Copied File"]), "{sector}/{cluster}");
        let bytes = std::fs::read(&image).unwrap();
        let identity = (FORMAT.probe)(&*device(bytes.clone())).unwrap().unwrap();
        assert_eq!(identity.label.as_deref(), Some(&b"label"[..]));
        let fs = open(bytes);
        assert_eq!(names(&fs, "/"), ["Copied File"]);
        assert!(content(&fs, "/copied file") == numbers(300_000, 7), "{sector}/{cluster}");
        assert!(fs.state().is_clean());
    }
}
