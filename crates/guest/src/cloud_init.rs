//! cloud-init: whether it runs at the next boot, and where it takes its data from.

use filesystem::FileKind;
use guest_files::cloud_cfg::datasource_list;

use crate::reader::Reader;

const CONFIG: &str = "/etc/cloud/cloud.cfg";
const DROP_INS: &str = "/etc/cloud/cloud.cfg.d";
const DISABLED: &str = "/etc/cloud/cloud-init.disabled";
const SEEDS: &str = "/var/lib/cloud/seed";

/// An installed cloud-init.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloudInit {
    /// Whether `/etc/cloud/cloud-init.disabled` is there. A kernel's command line can disable it too.
    pub is_disabled: bool,
    /// Where it looks for data; `None` where no file says so.
    pub datasources: Option<Datasources>,
    /// The instance that this system was last run as: `/var/lib/cloud/data/instance-id`. Another one at the next boot
    /// makes everything run again that runs once an instance.
    pub instance_id: Option<String>,
    /// What the link `/var/lib/cloud/instance` leads to.
    pub instance: Option<String>,
    /// Folders with NoCloud's data in the system itself.
    pub seeds: Vec<String>,
}

/// `datasource_list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datasources {
    /// The names in order.
    pub names: Vec<String>,
    /// The file that says so.
    pub file: String,
    /// The line of the key, from 1.
    pub line: usize,
}

/// cloud-init as it is installed, if it is.
pub(crate) fn cloud_init(reader: &mut Reader<'_>) -> Option<CloudInit> {
    let is_there = [CONFIG, "/usr/bin/cloud-init"].iter().any(|path| reader.kind(path).is_some());
    is_there.then(|| CloudInit {
        is_disabled: reader.kind(DISABLED).is_some(),
        datasources: datasources(reader),
        instance_id: reader.file("/var/lib/cloud/data/instance-id").and_then(|bytes| {
            let text = String::from_utf8_lossy(&bytes);
            text.lines().next().map(|line| line.trim().to_owned()).filter(|id| !id.is_empty())
        }),
        instance: reader.link("/var/lib/cloud/instance"),
        seeds: seeds(reader),
    })
}

/// Later names win over earlier ones, and all of them over the main file.
fn datasources(reader: &mut Reader<'_>) -> Option<Datasources> {
    let names = reader.names(DROP_INS, |name| name.ends_with(".cfg"));
    let files = names.iter().rev().map(|name| format!("{DROP_INS}/{name}"));
    files.chain([CONFIG.to_owned()]).find_map(|file| {
        let list = datasource_list(&reader.file(&file)?)?;
        Some(Datasources { names: list.names, file, line: list.line })
    })
}

fn seeds(reader: &mut Reader<'_>) -> Vec<String> {
    let names = reader.names(SEEDS, |name| name.starts_with("nocloud"));
    let folders = names.iter().map(|name| format!("{SEEDS}/{name}"));
    folders.filter(|folder| reader.kind(folder) == Some(FileKind::Directory)).collect()
}
