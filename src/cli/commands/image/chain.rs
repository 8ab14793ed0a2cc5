//! `image chain`: what the image stands on, what is missing, and what could stand in for it.

use std::io;

use crate::cli::Status;
use crate::cli::args::{Common, Image, Output};
use crate::cli::input;
use crate::cli::render::{Style, container, json};
use crate::container::candidates::{Candidate, candidates};

pub(crate) fn run(common: &Common, args: &Image) -> anyhow::Result<Status> {
    let keys = input::keys(common)?;
    let options = input::options(common, keys.passphrases().next());
    let (chain, error) = image::chain(&args.image, &options, &input::gate(common));
    if chain.is_empty() {
        return Err(error.map_or_else(|| anyhow::anyhow!("nothing was opened"), Into::into));
    }
    let found = if error.is_some() { proposals(&chain) } else { Vec::new() };
    let mut out = io::stdout().lock();
    if common.output == Output::Human {
        let style = Style::stdout(common.color);
        container::chain(&mut out, &chain, error.as_ref(), &found, &args.image, style)?;
    } else {
        let body = json::container::Chain::new(&chain, error.as_ref(), &found);
        json::print(&mut out, &json::document("image chain", body), common.output)?;
    }
    Ok(if error.is_some() { Status::Findings } else { Status::Clean })
}

/// Files that could be what the last layer names.
fn proposals(chain: &[image::Layer]) -> Vec<Candidate> {
    let Some((layer, path, link)) =
        chain.last().and_then(|layer| Some((layer, layer.path.as_ref()?, layer.parent.as_ref()?)))
    else {
        return Vec::new();
    };
    // What the layer holds itself can be read without its parent.
    let nothing: blockdev::Device = std::sync::Arc::new(blockdev::MemoryDevice::new([0; 512]));
    let options =
        image::Options { format: Some(layer.format), below: Some(&nothing), ..image::Options::default() };
    let alone = image::open(path, &options, &image::DenyAll).ok();
    let own = alone.as_ref().and_then(|image| image.chain.first()).and_then(|layer| layer.disk.as_deref());
    candidates(path, layer, link, own)
}
