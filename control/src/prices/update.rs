//! Asks Amazon for the prices of the instance types that the catalog holds.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::InstanceType;
use aws_sdk_pricing::types::{Filter, FilterType};

use super::price_list::{OnDemandQuote, ProductError};
use super::rows::Quotes;
use super::spot::{SpotQuote, latest};
use super::usd_per_hour;
use crate::aws::{Reach, failure};

/// Region whose Price List API is asked; it knows the prices of all.
const PRICE_LIST_REGION: &str = "us-east-1";

/// Pages of one question at most.
const PAGES_MAX: usize = 100;

/// Tries of one call that is throttled or has no clear answer.
const TRIES_MAX: u32 = 4;

/// What to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Types.
    pub types: BTreeSet<String>,
    /// Regions.
    pub regions: BTreeSet<String>,
}

/// What came, and what did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Prices.
    pub quotes: Quotes,
    /// Questions that had no answer, with what to do about it.
    pub failures: Vec<String>,
    /// Products that could not be read.
    pub unreadable: usize,
}

/// Asks for all prices. A region or type that fails is named in [`Fetched::failures`]; the others come all the same.
pub async fn fetch(wanted: &Wanted, reach: &Reach) -> Fetched {
    let mut fetched = Fetched::default();
    let pricing = aws_sdk_pricing::Client::new(&reach.region(PRICE_LIST_REGION).config().await);
    for kind in &wanted.types {
        match on_demand(&pricing, kind, &mut fetched.unreadable).await {
            Ok(quotes) => {
                let here = quotes.into_iter().filter(|quote| wanted.regions.contains(&quote.region));
                fetched.quotes.on_demand.extend(here);
            }
            Err(what) => fetched.failures.push(format!("on-demand prices of {kind}: {what}")),
        }
    }
    for region in &wanted.regions {
        let client = aws_sdk_ec2::Client::new(&reach.region(region).config().await);
        match spot(&client, &wanted.types).await {
            Ok(quotes) => {
                fetched.quotes.spot.insert(region.clone(), quotes);
            }
            Err(what) => fetched.failures.push(format!("spot prices of {region}: {what}")),
        }
    }
    fetched
}

async fn on_demand(
    client: &aws_sdk_pricing::Client,
    kind: &str,
    unreadable: &mut usize,
) -> Result<Vec<OnDemandQuote>, String> {
    let filters: Vec<Filter> = [
        ("instanceType", kind),
        ("operatingSystem", "Linux"),
        ("tenancy", "Shared"),
        ("preInstalledSw", "NA"),
        ("capacitystatus", "Used"),
    ]
    .into_iter()
    .filter_map(|(field, value)| {
        Filter::builder().r#type(FilterType::TermMatch).field(field).value(value).build().ok()
    })
    .collect();
    let mut quotes = Vec::new();
    let mut next: Option<String> = None;
    for _ in 0..PAGES_MAX {
        let ask = || {
            let request = client.get_products().service_code("AmazonEC2").format_version("aws_v1");
            request.set_filters(Some(filters.clone())).max_results(100).set_next_token(next.clone()).send()
        };
        let output = patiently(|| async { ask().await.map_err(|error| failure(&error)) }).await?;
        for product in output.price_list() {
            match OnDemandQuote::parse(product) {
                Ok(quote) => quotes.push(quote),
                Err(ProductError::OtherKind) => {}
                Err(error) => {
                    *unreadable += 1;
                    tracing::warn!("{kind}: {error}");
                }
            }
        }
        next = output.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
        if next.is_none() {
            return Ok(quotes);
        }
    }
    Err(format!("more than {PAGES_MAX} pages"))
}

/// The spot prices that hold now, of all zones of the client's region.
pub(super) async fn spot(
    client: &aws_sdk_ec2::Client,
    types: &BTreeSet<String>,
) -> Result<Vec<SpotQuote>, String> {
    let types: Vec<InstanceType> = types.iter().map(|kind| InstanceType::from(kind.as_str())).collect();
    let now = aws_sdk_ec2::primitives::DateTime::from(std::time::SystemTime::now());
    let mut quotes = Vec::new();
    let mut next: Option<String> = None;
    for _ in 0..PAGES_MAX {
        let ask = || {
            client
                .describe_spot_price_history()
                .set_instance_types(Some(types.clone()))
                .product_descriptions("Linux/UNIX")
                .start_time(now)
                .set_next_token(next.clone())
                .send()
        };
        let output = patiently(|| async { ask().await.map_err(|error| failure(&error)) }).await?;
        quotes.extend(output.spot_price_history().iter().filter_map(|row| {
            Some(SpotQuote {
                instance_type: row.instance_type()?.as_str().to_owned(),
                zone: row.availability_zone_id().or(row.availability_zone())?.to_owned(),
                price: usd_per_hour(row.spot_price()?)?,
                since: row.timestamp()?.secs(),
            })
        }));
        next = output.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
        if next.is_none() {
            return Ok(latest(quotes));
        }
    }
    Err(format!("more than {PAGES_MAX} pages"))
}

/// Asks again what was throttled or had no clear answer: reading prices twice does no harm.
async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, crate::fleet::ec2::call::CloudError>>,
{
    use crate::fleet::ec2::call::CloudError;
    let mut tries = 0;
    loop {
        match ask().await {
            Ok(output) => return Ok(output),
            Err(CloudError::Refused(why)) => return Err(format!("{why:?}")),
            Err(error @ (CloudError::Throttled | CloudError::InDoubt(_))) if tries < TRIES_MAX => {
                tries += 1;
                tracing::info!("{error}; again");
                tokio::time::sleep(std::time::Duration::from_millis(250 << tries)).await;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// What `headroom prices update` asks for by default: every type and region of Amazon's that the catalog holds.
pub fn wanted(catalog: &scenarios::catalog::Catalog) -> Wanted {
    let filter = scenarios::catalog::RowFilter { provider: Some("aws"), ..Default::default() };
    let mut places: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for row in catalog.show(filter) {
        places.entry(&row.region).or_default().insert(&row.instance_type);
    }
    Wanted {
        types: places.values().flatten().map(|kind| (*kind).to_owned()).collect(),
        regions: places.keys().map(|region| (*region).to_owned()).collect(),
    }
}
