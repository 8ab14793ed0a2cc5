//! Lists the logical volumes on some physical volumes as `lvs -a` does, or writes one to standard output.
//!
//! usage: lvm_list [--cat GROUP/NAME] DISK...
#![expect(clippy::print_stdout, reason = "a listing for scripts/oracles/lvm.sh")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use blockdev::{Device, FileDevice};
use volume::lvm2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted = if arguments.first().is_some_and(|first| first == "--cat") {
        arguments.drain(..2).nth(1)
    } else {
        None
    };
    let mut pvs = Vec::new();
    for path in &arguments {
        let device: Device = Arc::new(FileDevice::open(Path::new(path))?);
        pvs.extend(lvm2::read_pv(&device)?.map(|found| found.value));
    }
    let mut lines = Vec::new();
    for group in lvm2::assemble(&pvs).value {
        for lv in &group.value.lvs {
            if let Some(wanted) = &wanted {
                if *wanted == format!("{}/{}", group.value.name, lv.name) {
                    let device = lv.device.as_ref().map_err(Clone::clone)?;
                    let mut buffer = vec![0; 1 << 16];
                    let mut at = 0;
                    while at < device.size() {
                        let length = buffer.len().min((device.size() - at) as usize);
                        device.read_exact_at(&mut buffer[..length], at)?;
                        std::io::stdout().write_all(&buffer[..length])?;
                        at += length as u64;
                    }
                }
                continue;
            }
            for segment in &lv.segments {
                let targets = segment.targets.iter().filter(|target| !target.name.contains("_rmeta_"));
                let on: Vec<String> = targets
                    .map(|target| {
                        let pv = group.value.pvs.iter().find(|pv| pv.name == target.name);
                        let name = pv.map_or(target.name.as_str(), |pv| pv.uuid.as_str());
                        format!("{name}({})", target.start)
                    })
                    .collect();
                let visible = if lv.is_visible { "" } else { "hidden" };
                lines.push(format!(
                    "{}|{}|{}|{}|{}|{}|{visible}|{}",
                    group.value.name,
                    lv.name,
                    lv.uuid,
                    segment.type_name(),
                    segment.start,
                    segment.count,
                    on.join(",")
                ));
            }
        }
    }
    lines.sort();
    for line in lines {
        println!("{line}");
    }
    Ok(())
}
