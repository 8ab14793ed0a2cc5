//! `image map`: which file holds which part of the disk.

use std::io::{self, Write};

use crate::cli::Status;
use crate::cli::args::{Common, Image, Output};
use crate::cli::input;
use crate::cli::render::{container, json};
use crate::container::map;

pub(crate) fn run(common: &Common, args: &Image) -> anyhow::Result<Status> {
    let opened = input::open(common, &args.image)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if common.output == Output::Human {
        container::map_head(&mut out)?;
        map::map(&opened, &mut |part| container::map_row(&mut out, &part, &opened))?;
    } else {
        // A line a part: a large disk has millions.
        map::map(&opened, &mut |part| {
            let row = json::container::Part::new(&part, &opened);
            json::print(&mut out, &json::document("image map", row), Output::Jsonl)
        })?;
    }
    out.flush()?;
    Ok(Status::Clean)
}
