//! `image convert`: the same disk in another container.

use std::io::{self, Write};

use image::NewImage;

use crate::cli::Status;
use crate::cli::args::{Common, ImageConvert, Output};
use crate::cli::input;
use crate::cli::render::json;
use crate::container::convert;

pub(crate) fn run(common: &Common, args: &ImageConvert) -> anyhow::Result<Status> {
    let opened = input::open(common, &args.image)?;
    let format = match &args.to {
        Some(name) => image::format_named(name)?,
        None => input::format_of_name(&args.out)?,
    };
    let new = NewImage {
        size: opened.device.size(),
        subformat: args.subformat.clone(),
        cluster_size: args.cluster_size,
        sector_size: Some(opened.device.sector_size()),
    };
    convert::convert(&*opened.device, &args.image, &args.out, format.name, &new)?;
    let mut out = io::stdout().lock();
    let problems = input::problems_of(&opened);
    if common.output == Output::Human {
        for problem in &problems {
            writeln!(io::stderr(), "problem: {}", crate::cli::render::plain(problem))?;
        }
        writeln!(out, "{}: {} image of {} bytes", args.out.display(), format.name, new.size)?;
    } else {
        let body = json::container::Convert::new(&args.image, &args.out, format.name, new.size, problems);
        json::print(&mut out, &json::document("image convert", body), common.output)?;
    }
    Ok(Status::Clean)
}
