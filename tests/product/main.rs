//! The whole product: images in, screens and bytes out.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it skips")]

mod causes;
mod container;
mod definition;
mod hostile;
mod images;
mod look;
mod mend;
mod prediction;
mod rules;
mod screens;
mod stack;
mod support;
