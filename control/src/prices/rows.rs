//! New prices as rows of the catalog: each with its source and date, each checked against the catalog it will extend.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use policy::model::CapacityType;
use policy::units::UsdPerHour;
use scenarios::catalog::{Catalog, CatalogError, Row, RowFilter};

use super::price_list::OnDemandQuote;
use super::spot::SpotQuote;

/// Name of the source of on-demand prices in the file.
const ON_DEMAND: &str = "aws-price-list";

/// Name of the source of spot prices in the file.
const SPOT: &str = "aws-spot-history";

/// What Amazon gave on one day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotes {
    /// Of all regions.
    pub on_demand: Vec<OnDemandQuote>,
    /// By region.
    pub spot: BTreeMap<String, Vec<SpotQuote>>,
}

/// A file of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowsFile {
    /// The TOML text.
    pub text: String,
    /// On-demand rows in it.
    pub on_demand: usize,
    /// Spot rows in it.
    pub spot: usize,
    /// Prices left out, and why.
    pub left_out: Vec<String>,
}

/// Rows for the instance types that `catalog` knows, as of `now`. What they say beside prices is the catalog's.
///
/// A spot price that is not below on-demand is left out: it is no discount, and the catalog refuses it.
///
/// # Errors
/// [`CatalogError`] when the rows do not fit the catalog all the same.
pub fn rows(catalog: &Catalog, quotes: &Quotes, now: jiff::Timestamp) -> Result<RowsFile, CatalogError> {
    let day = now.to_zoned(jiff::tz::TimeZone::UTC).date();
    let mut file = RowsFile { text: head(now), on_demand: 0, spot: 0, left_out: Vec::new() };
    let mut on_demand: BTreeMap<(&str, &str), UsdPerHour> = BTreeMap::new();
    for quote in &quotes.on_demand {
        let place = (quote.region.as_str(), quote.instance_type.as_str());
        if let Some(other) = on_demand.insert(place, quote.price).filter(|other| *other != quote.price) {
            on_demand.remove(&place);
            let why = format!("{} and {}", usd(other), usd(quote.price));
            file.left_out.push(format!("{} {} on-demand: two prices, {why}", place.0, place.1));
        }
    }
    for ((region, kind), price) in &on_demand {
        let Some(like) = like(catalog, kind) else { continue };
        push(&mut file.text, like, region, None, CapacityType::OnDemand, *price, ON_DEMAND, day);
        file.on_demand += 1;
    }
    for (region, quotes) in &quotes.spot {
        for quote in quotes {
            let kind = quote.instance_type.as_str();
            let Some(like) = like(catalog, kind) else { continue };
            let listed = on_demand.get(&(region.as_str(), kind)).copied().or_else(|| {
                let row = catalog.offering("aws", region, None, kind, CapacityType::OnDemand).ok()?;
                Some(row.price)
            });
            let place = format!("{region} {} {kind} spot {}", quote.zone, usd(quote.price));
            match listed {
                None => file.left_out.push(format!("{place}: no on-demand price beside it")),
                Some(listed) if quote.price >= listed => {
                    file.left_out.push(format!("{place}: not below on-demand {}", usd(listed)));
                }
                Some(_) => {
                    let (zone, spot) = (Some(quote.zone.as_str()), CapacityType::Spot);
                    push(&mut file.text, like, region, zone, spot, quote.price, SPOT, day);
                    file.spot += 1;
                }
            }
        }
    }
    catalog.updated_with_toml("the new prices", &file.text).map(|_| file)
}

fn head(now: jiff::Timestamp) -> String {
    let now = now.round(jiff::Unit::Second).unwrap_or(now);
    format!(
        "# Prices of EC2 as Amazon gave them at {now}. Linux, shared hardware, USD per hour, without tax.\n\
         # Written by `headroom prices update`; running it again replaces this file.\n\n\
         [sources]\n\
         {ON_DEMAND} = \"AWS Price List API, GetProducts AmazonEC2, asked at {now}\"\n\
         {SPOT} = \"EC2 DescribeSpotPriceHistory, Linux/UNIX, the price that held at {now}\"\n"
    )
}

/// A row of the catalog for that type, whatever its place.
fn like<'a>(catalog: &'a Catalog, kind: &str) -> Option<&'a Row> {
    let filter = RowFilter { provider: Some("aws"), ..RowFilter::default() };
    catalog.show(filter).find(|row| row.instance_type == kind)
}

fn push(
    text: &mut String,
    like: &Row,
    region: &str,
    zone: Option<&str>,
    capacity: CapacityType,
    price: UsdPerHour,
    source: &str,
    day: jiff::civil::Date,
) {
    let zone = zone.map_or(String::new(), |zone| format!("zone = {}\n", quoted(zone)));
    let written = write!(
        text,
        "\n[[offering]]\nprovider = \"aws\"\nregion = {}\n{zone}instance_type = {}\naccelerator = {}\n\
         accelerator_count = {}\naccelerator_memory_gib = {}\nvcpu = {}\nmemory_gib = {}\n\
         capacity_type = \"{}\"\nprice = \"{}\"\nsource = \"{source}\"\nas_of = \"{day}\"\n",
        quoted(region),
        quoted(&like.instance_type),
        quoted(&like.accelerator),
        like.accelerator_count,
        like.accelerator_memory_gib,
        like.vcpu,
        like.memory_gib,
        capacity.name(),
        usd(price),
    );
    written.expect("a string takes everything");
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A price in full: every billionth that is not zero.
fn usd(price: UsdPerHour) -> String {
    let nanos = price.as_nanos();
    let (whole, part) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let digits = format!("{part:09}");
    match digits.trim_end_matches('0') {
        "" => format!("{whole} USD/h"),
        digits => format!("{whole}.{digits} USD/h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(nanos: i64) -> UsdPerHour {
        UsdPerHour::from_nanos(nanos)
    }

    fn on_demand(kind: &str, region: &str, nanos: i64) -> OnDemandQuote {
        let price = price(nanos);
        OnDemandQuote { instance_type: kind.to_owned(), region: region.to_owned(), price }
    }

    fn spot(kind: &str, zone: &str, nanos: i64) -> SpotQuote {
        let price = price(nanos);
        SpotQuote { instance_type: kind.to_owned(), zone: zone.to_owned(), price, since: 0 }
    }

    #[test]
    fn rows_extend_the_catalog_with_date_and_source() {
        let quotes = Quotes {
            on_demand: vec![
                on_demand("g5.xlarge", "us-east-1", 1_006_000_001),
                on_demand("g5.xlarge", "mars-1", 2_000_000_000),
                on_demand("m5.large", "us-east-1", 96_000_000),
                on_demand("g6.xlarge", "us-east-1", 1),
                on_demand("g6.xlarge", "us-east-1", 2),
            ],
            spot: BTreeMap::from([(
                "us-east-1".to_owned(),
                vec![
                    spot("g5.xlarge", "use1-az4", 400_000_000),
                    spot("g5.xlarge", "use1-az5", 1_006_000_001),
                    spot("m5.large", "use1-az4", 1),
                ],
            )]),
        };
        let now = "2026-11-22T11:30:00.25Z".parse().unwrap();
        let file = rows(Catalog::embedded(), &quotes, now).unwrap();
        assert_eq!((file.on_demand, file.spot), (2, 1), "{}", file.text);
        assert_eq!(file.left_out.len(), 2, "{:?}", file.left_out);
        let merged = Catalog::embedded().updated_with_toml("new", &file.text).unwrap();
        let row =
            merged.offering("aws", "us-east-1", Some("use1-az4"), "g5.xlarge", CapacityType::Spot).unwrap();
        assert_eq!((row.price, row.as_of.to_string().as_str()), (price(400_000_000), "2026-11-22"));
        assert!(
            row.source.contains("DescribeSpotPriceHistory") && row.source.contains("2026-11-22T11:30:00Z")
        );
        let row = merged.offering("aws", "mars-1", None, "g5.xlarge", CapacityType::OnDemand).unwrap();
        assert_eq!((row.price, row.accelerator.as_str(), row.vcpu), (price(2_000_000_000), "A10G", 4));
        let row = merged.offering("aws", "us-east-1", None, "g5.xlarge", CapacityType::OnDemand).unwrap();
        assert_eq!(row.price, price(1_006_000_001), "every billionth is kept");
    }

    #[test]
    fn an_on_demand_price_that_fell_drops_the_old_spot_prices_above_it() {
        let quotes =
            Quotes { on_demand: vec![on_demand("g5.xlarge", "us-east-1", 1_000)], spot: BTreeMap::new() };
        let file = rows(Catalog::embedded(), &quotes, jiff::Timestamp::UNIX_EPOCH).unwrap();
        let merged = Catalog::embedded().updated_with_toml("new", &file.text).unwrap();
        assert!(merged.offering("aws", "us-east-1", None, "g5.xlarge", CapacityType::Spot).is_err());
        assert!(merged.offering("aws", "us-west-2", None, "g5.xlarge", CapacityType::OnDemand).is_ok());
    }

    #[test]
    fn prices_are_written_in_full() {
        for (nanos, expected) in
            [(1, "0.000000001 USD/h"), (3_000_000_000, "3 USD/h"), (12_030_000_000, "12.03 USD/h")]
        {
            assert_eq!(usd(price(nanos)), expected);
        }
    }
}
