//! `headroom prices`: what the dated catalog says.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use policy::model::CapacityType;
use scenarios::catalog::{Catalog, Row, RowFilter};
use serde::Serialize;

use crate::commands::price_update::{self, UpdateArgs};
use crate::failure::{Failure, Status, nearest};
use crate::numerals::figure;
use crate::screen::Screen;
use crate::table::{Align, Table};

const SHOW_EXAMPLES: &str = "\
Examples:
  headroom prices show --accelerator L4
  headroom prices show --provider aws --region us-east-1 --instance g5
  headroom prices show --capacity-type spot --json
  headroom prices show --catalog prices-aws.toml --instance g6

Prices are those of instances per hour, without tax. Every row names its source and its day.";

#[derive(Debug, Subcommand)]
pub(crate) enum PricesCommand {
    /// Show the prices of instances.
    Show(ShowArgs),
    /// Ask AWS for today's prices, and write them as rows of the catalog.
    Update(UpdateArgs),
}

#[derive(Args, Debug)]
#[command(after_long_help = SHOW_EXAMPLES)]
pub(crate) struct ShowArgs {
    /// Only this provider, e.g. `aws`.
    #[arg(long)]
    provider: Option<String>,
    /// Only this region, e.g. `us-east-1`.
    #[arg(long)]
    region: Option<String>,
    /// Only this instance type or family, e.g. `g5` or `g5.xlarge`.
    #[arg(long, value_name = "TYPE")]
    instance: Option<String>,
    /// Only this accelerator, e.g. `A10G`.
    #[arg(long, value_name = "NAME")]
    accelerator: Option<String>,
    /// Only this way of buying.
    #[arg(long, value_name = "KIND")]
    capacity_type: Option<Capacity>,
    /// Rows that replace or extend the built-in ones, e.g. of `prices update`.
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Capacity {
    Spot,
    OnDemand,
    Reserved,
}

/// A row as programs read it.
#[derive(Serialize)]
struct PriceRecord<'a> {
    provider: &'a str,
    region: &'a str,
    zone: Option<&'a str>,
    instance_type: &'a str,
    accelerator: &'a str,
    accelerator_count: f64,
    accelerator_memory_gib: f64,
    vcpu: u32,
    memory_gib: f64,
    capacity_type: &'static str,
    commitment: Option<&'a str>,
    price_usd_per_hour: f64,
    as_of: String,
    source: &'a str,
}

pub(crate) fn run(command: &PricesCommand, screen: &Screen) -> Result<(), Failure> {
    match command {
        PricesCommand::Show(args) => show(args, screen),
        PricesCommand::Update(args) => price_update::run(args, screen),
    }
}

fn show(args: &ShowArgs, screen: &Screen) -> Result<(), Failure> {
    let catalog = match &args.catalog {
        Some(path) => Cow::Owned(extended(path)?),
        None => Cow::Borrowed(Catalog::embedded()),
    };
    let catalog = catalog.as_ref();
    let filter = RowFilter {
        provider: args.provider.as_deref(),
        region: args.region.as_deref(),
        instance_type: args.instance.as_deref(),
        accelerator: args.accelerator.as_deref(),
        capacity_type: args.capacity_type.map(|capacity| match capacity {
            Capacity::Spot => CapacityType::Spot,
            Capacity::OnDemand => CapacityType::OnDemand,
            Capacity::Reserved => CapacityType::Reserved,
        }),
    };
    check_names(catalog, filter)?;
    let rows: Vec<&Row> = catalog.show(filter).collect();
    if screen.json {
        return screen.print_json(&rows.iter().map(|row| record(row)).collect::<Vec<_>>());
    }
    if rows.is_empty() {
        screen.note("no price passes all of these filters; leave one out");
        return Ok(());
    }
    screen.print(&table(&rows))
}

/// The built-in catalog with the rows of a file.
fn extended(path: &Path) -> Result<Catalog, Failure> {
    let invalid = |code, what: String| Failure::new(Status::InvalidInput, code, what);
    let text = std::fs::read_to_string(path).map_err(|error| {
        invalid("prices::read", format!("could not read the price catalog `{}`: {error}", path.display()))
    })?;
    let wrong = |error: scenarios::catalog::CatalogError| invalid("prices::catalog", error.to_string());
    Catalog::embedded().updated_with_toml(&path.display().to_string(), &text).map_err(wrong)
}

/// Names that a filter may give.
#[derive(Clone, Copy, Debug)]
enum NameKind {
    Provider,
    Region,
    InstanceType,
    Accelerator,
}

impl NameKind {
    fn text(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Region => "region",
            Self::InstanceType => "instance type",
            Self::Accelerator => "accelerator",
        }
    }

    fn of(self, row: &Row) -> &str {
        match self {
            Self::Provider => &row.provider,
            Self::Region => &row.region,
            Self::InstanceType => &row.instance_type,
            Self::Accelerator => &row.accelerator,
        }
    }
}

/// Each filter must pass some row by itself: a name that the catalog has nowhere is a mistake, not an empty answer.
fn check_names(catalog: &Catalog, filter: RowFilter<'_>) -> Result<(), Failure> {
    let none = RowFilter::default();
    let RowFilter { provider, region, instance_type, accelerator, .. } = filter;
    let names = [
        (NameKind::Provider, provider, RowFilter { provider, ..none }),
        (NameKind::Region, region, RowFilter { region, ..none }),
        (NameKind::InstanceType, instance_type, RowFilter { instance_type, ..none }),
        (NameKind::Accelerator, accelerator, RowFilter { accelerator, ..none }),
    ];
    for (kind, given, alone) in names {
        let Some(given) = given.filter(|_| catalog.show(alone).next().is_none()) else { continue };
        let known: BTreeSet<&str> = catalog.show(none).map(|row| kind.of(row)).collect();
        let help = match nearest(given, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the catalog has {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        };
        let message = format!("the price catalog has no {} `{given}`", kind.text());
        return Err(Failure::new(Status::InvalidInput, "prices::unknown-name", message).with_help(help));
    }
    Ok(())
}

fn record(row: &Row) -> PriceRecord<'_> {
    PriceRecord {
        provider: &row.provider,
        region: &row.region,
        zone: row.zone.as_deref(),
        instance_type: &row.instance_type,
        accelerator: &row.accelerator,
        accelerator_count: row.accelerator_count,
        accelerator_memory_gib: row.accelerator_memory_gib,
        vcpu: row.vcpu,
        memory_gib: row.memory_gib,
        capacity_type: row.capacity_type.name(),
        commitment: row.commitment.as_deref(),
        price_usd_per_hour: row.price.as_f64(),
        as_of: row.as_of.to_string(),
        source: &row.source,
    }
}

/// The rows, with a number for each source and the sources below.
fn table(rows: &[&Row]) -> String {
    let mut sources: Vec<&str> = Vec::new();
    let mut table = Table::new(&[
        ("provider", Align::Left),
        ("region", Align::Left),
        ("zone", Align::Left),
        ("instance", Align::Left),
        ("accelerator", Align::Left),
        ("GiB", Align::Right),
        ("vCPU", Align::Right),
        ("capacity", Align::Left),
        ("USD/h", Align::Right),
        ("as of", Align::Left),
        ("source", Align::Left),
    ]);
    for row in rows {
        let source = sources.iter().position(|source| *source == row.source).unwrap_or_else(|| {
            sources.push(&row.source);
            sources.len() - 1
        });
        let capacity = match &row.commitment {
            Some(commitment) => format!("{} ({commitment})", row.capacity_type.name()),
            None => row.capacity_type.name().to_owned(),
        };
        table.push(vec![
            row.provider.clone(),
            row.region.clone(),
            row.zone.clone().unwrap_or_default(),
            row.instance_type.clone(),
            format!("{} x {}", figure(row.accelerator_count), row.accelerator),
            figure(row.accelerator_memory_gib),
            row.vcpu.to_string(),
            capacity,
            format!("{:.4}", row.price.as_f64()),
            row.as_of.to_string(),
            format!("[{}]", source + 1),
        ]);
    }
    let mut text = table.text("");
    text.push_str("\nSources:\n");
    for (number, source) in sources.iter().enumerate() {
        text.push_str(&format!("[{}] {source}\n", number + 1));
    }
    text
}
