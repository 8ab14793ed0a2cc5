//! `inspect`: what is on the disks.

use std::io;

use crate::cli::Status;
use crate::cli::args::{Common, Images, Output};
use crate::cli::input::Disks;
use crate::cli::render::{Style, json, tree};
use crate::examine;

pub(crate) fn run(common: &Common, args: &Images) -> anyhow::Result<Status> {
    let disks = Disks::open(common, &args.images)?;
    let examination = examine(&disks.devices(), &disks.keys, &[]);
    let problems = json::problems(&disks, &examination);
    let mut out = io::stdout().lock();
    if common.output == Output::Human {
        tree::print(&mut out, &disks, &examination, &problems, Style::stdout(common.color))?;
    } else {
        let devices = examination.storage.iter();
        let body = json::Inspect {
            images: json::paths(&disks),
            devices: devices.map(|(id, node)| json::DeviceJson::new(id, node, &examination)).collect(),
            volume_groups: examination.storage.groups.iter().map(json::GroupJson::new).collect(),
            arrays: examination
                .storage
                .arrays
                .iter()
                .map(|found| json::ArrayJson::new(found, &examination.storage))
                .collect(),
            systems: json::systems(&examination),
            problems,
        };
        json::print(&mut out, &json::document("inspect", body), common.output)?;
    }
    Ok(Status::Clean)
}
