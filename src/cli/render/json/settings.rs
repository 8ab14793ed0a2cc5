//! The settings of an installed system in JSON.

use guest::{CloudInit, Datasources, DefaultTarget, Kernel, Settings};
use guest_files::crypttab::Entry;
use guest_files::mdadm_conf::Array;
use guest_files::shell_conf::Variable;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct SettingsJson {
    default_target: Option<DefaultTargetJson>,
    kernels: Vec<KernelJson>,
    grub: Vec<VariableJson>,
    dracut: Vec<VariableJson>,
    initramfs_tools: Vec<VariableJson>,
    selinux: Vec<VariableJson>,
    cloud_init: Option<CloudInitJson>,
    mdadm: Option<MdadmJson>,
    crypttab: Vec<EntryJson>,
}

#[derive(Debug, Serialize)]
struct DefaultTargetJson {
    unit: String,
    file: String,
}

#[derive(Debug, Serialize)]
struct KernelJson {
    release: String,
    has_modules: bool,
    image: Option<String>,
    initramfs: Option<String>,
}

#[derive(Debug, Serialize)]
struct VariableJson {
    name: String,
    /// Null when only a shell could tell.
    value: Option<String>,
    /// Of the last assignment.
    file: String,
    line: usize,
}

#[derive(Debug, Serialize)]
struct CloudInitJson {
    is_disabled: bool,
    datasources: Option<DatasourcesJson>,
    instance_id: Option<String>,
    instance: Option<String>,
    seeds: Vec<String>,
}

#[derive(Debug, Serialize)]
struct DatasourcesJson {
    names: Vec<String>,
    file: String,
    line: usize,
}

#[derive(Debug, Serialize)]
struct MdadmJson {
    file: String,
    arrays: Vec<MdadmArrayJson>,
    home_host: Option<String>,
    mail_address: Option<String>,
}

#[derive(Debug, Serialize)]
struct MdadmArrayJson {
    line: usize,
    device: Option<String>,
    uuid: Option<String>,
    name: Option<String>,
}

#[derive(Debug, Serialize)]
struct EntryJson {
    line: usize,
    name: String,
    source: String,
    key: Option<String>,
    options: Vec<String>,
}

impl SettingsJson {
    pub(crate) fn new(settings: &Settings) -> Self {
        let variables = |variables: &[Variable]| variables.iter().map(VariableJson::new).collect();
        Self {
            default_target: settings.default_target.as_ref().map(DefaultTargetJson::new),
            kernels: settings.kernels.iter().map(KernelJson::new).collect(),
            grub: variables(&settings.grub),
            dracut: variables(&settings.dracut),
            initramfs_tools: variables(&settings.initramfs_tools),
            selinux: variables(&settings.selinux),
            cloud_init: settings.cloud_init.as_ref().map(CloudInitJson::new),
            mdadm: settings.mdadm.as_ref().map(|mdadm| MdadmJson {
                file: mdadm.file.clone(),
                arrays: mdadm.conf.arrays.iter().map(MdadmArrayJson::new).collect(),
                home_host: mdadm.conf.home_host.clone(),
                mail_address: mdadm.conf.mail_address.clone(),
            }),
            crypttab: settings.crypttab.iter().map(EntryJson::new).collect(),
        }
    }
}

impl DefaultTargetJson {
    fn new(target: &DefaultTarget) -> Self {
        Self { unit: target.unit.clone(), file: target.file.clone() }
    }
}

impl KernelJson {
    fn new(kernel: &Kernel) -> Self {
        let Kernel { release, has_modules, image, initramfs } = kernel.clone();
        Self { release, has_modules, image, initramfs }
    }
}

impl VariableJson {
    fn new(variable: &Variable) -> Self {
        let Variable { name, value, file, line } = variable.clone();
        Self { name, value, file, line }
    }
}

impl CloudInitJson {
    fn new(found: &CloudInit) -> Self {
        let CloudInit { is_disabled, datasources, instance_id, instance, seeds } = found.clone();
        let datasources =
            datasources.map(|Datasources { names, file, line }| DatasourcesJson { names, file, line });
        Self { is_disabled, datasources, instance_id, instance, seeds }
    }
}

impl MdadmArrayJson {
    fn new(array: &Array) -> Self {
        let Array { line, device, uuid, name } = array.clone();
        Self { line, device, uuid, name }
    }
}

impl EntryJson {
    fn new(entry: &Entry) -> Self {
        let Entry { line, name, source, key, options } = entry.clone();
        Self { line, name, source, key, options }
    }
}
