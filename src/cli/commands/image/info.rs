//! `image info`: what the file is.

use std::io;

use crate::cli::Status;
use crate::cli::args::{Common, Image, Output};
use crate::cli::input;
use crate::cli::render::{Style, container, json};

pub(crate) fn run(common: &Common, args: &Image) -> anyhow::Result<Status> {
    let keys = input::keys(common)?;
    let options = input::options(common, keys.passphrases().next());
    let (chain, error) = image::chain(&args.image, &options, &input::gate(common));
    let Some(layer) = chain.first() else {
        return Err(error.map_or_else(|| anyhow::anyhow!("nothing was opened"), Into::into));
    };
    let in_use = input::is_in_use(&args.image);
    let mut out = io::stdout().lock();
    if common.output == Output::Human {
        container::info(&mut out, layer, in_use, error.as_ref(), Style::stdout(common.color))?;
    } else {
        let body = json::container::Info::new(layer, in_use, error.as_ref());
        json::print(&mut out, &json::document("image info", body), common.output)?;
    }
    Ok(if error.is_some() { Status::Findings } else { Status::Clean })
}
