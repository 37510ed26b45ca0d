//! `headroom schema`: the JSON Schema of scenario files.

use crate::failure::Failure;
use crate::screen::Screen;

pub(crate) const EXAMPLES: &str = "\
Examples:
  headroom schema > scenario.schema.json

Editors that know TOML check a scenario whose first line is
  #:schema ./scenario.schema.json";

pub(crate) fn run(screen: &Screen) -> Result<(), Failure> {
    screen.print_json(&scenarios::json_schema())
}
