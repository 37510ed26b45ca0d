//! Products of the AWS Price List API: JSON texts of which a few fields matter.
//!
//! Format: "Reading the price list file for an AWS service", docs.aws.amazon.com, read in November 2026.

use policy::units::UsdPerHour;
use serde_json::Value;

use super::usd_per_hour;

/// The on-demand price of Linux on shared hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDemandQuote {
    /// e.g. `g5.xlarge`.
    pub instance_type: String,
    /// e.g. `us-east-1`.
    pub region: String,
    /// Per instance.
    pub price: UsdPerHour,
}

/// Why a product gave no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProductError {
    /// Not JSON.
    #[error("a product is no JSON")]
    Syntax,
    /// Windows, dedicated hosts, capacity blocks and the like.
    #[error("a product of another kind")]
    OtherKind,
    /// A field is not there or not as documented.
    #[error("a product has no field `{0}`, or another kind of value in it")]
    Field(&'static str),
    /// Several on-demand prices, and no reason to take one.
    #[error("a product has several on-demand prices")]
    Ambiguous,
}

/// Attributes that a product must have where it has them at all.
const WANTED: &[(&str, &str)] = &[
    ("operatingSystem", "Linux"),
    ("tenancy", "Shared"),
    ("preInstalledSw", "NA"),
    ("capacitystatus", "Used"),
    ("operation", "RunInstances"),
    ("marketoption", "OnDemand"),
];

impl OnDemandQuote {
    /// Reads one text of `PriceList`.
    ///
    /// # Errors
    /// [`ProductError`].
    pub fn parse(product: &str) -> Result<Self, ProductError> {
        let product: Value = serde_json::from_str(product).map_err(|_| ProductError::Syntax)?;
        let attributes = &product["product"]["attributes"];
        let text = |name: &'static str| attributes[name].as_str();
        if WANTED.iter().any(|(name, value)| text(name).is_some_and(|own| own != *value)) {
            return Err(ProductError::OtherKind);
        }
        let field = |name| text(name).map(str::to_owned).ok_or(ProductError::Field(name));
        Ok(Self {
            instance_type: field("instanceType")?,
            region: field("regionCode")?,
            price: price(&product["terms"]["OnDemand"])?,
        })
    }
}

/// The one price per hour among the terms.
fn price(terms: &Value) -> Result<UsdPerHour, ProductError> {
    let terms = terms.as_object().ok_or(ProductError::Field("terms.OnDemand"))?;
    let dimensions = terms.values().filter_map(|term| term["priceDimensions"].as_object());
    let hourly = dimensions.flat_map(|all| all.values()).filter(|one| one["unit"].as_str() == Some("Hrs"));
    let mut prices: Vec<UsdPerHour> =
        hourly.filter_map(|one| usd_per_hour(one["pricePerUnit"]["USD"].as_str()?)).collect();
    prices.sort_unstable();
    prices.dedup();
    match prices.as_slice() {
        [] => Err(ProductError::Field("pricePerUnit.USD")),
        [price] => Ok(*price),
        _ => Err(ProductError::Ambiguous),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As GetProducts gave it for g5.xlarge, shortened.
    pub(super) const PRODUCT: &str = r#"{"product":{"productFamily":"Compute Instance","attributes":{
        "memory":"16 GiB","vcpu":"4","capacitystatus":"Used","instanceType":"g5.xlarge","tenancy":"Shared",
        "usagetype":"BoxUsage:g5.xlarge","marketoption":"OnDemand","gpu":"1","preInstalledSw":"NA",
        "operatingSystem":"Linux","regionCode":"us-east-1","operation":"RunInstances"},"sku":"ABC"},
        "serviceCode":"AmazonEC2","terms":{"OnDemand":{"ABC.JRTCKXETXF":{"priceDimensions":{
        "ABC.JRTCKXETXF.6YS6EN2CT7":{"unit":"Hrs","endRange":"Inf","pricePerUnit":{"USD":"1.0060000000"}}},
        "effectiveDate":"2026-11-01T00:00:00Z"}},"Reserved":{}},"publicationDate":"2026-11-20T00:00:00Z"}"#;

    #[test]
    fn product_gives_its_price() {
        let quote = OnDemandQuote::parse(PRODUCT).unwrap();
        assert_eq!((quote.instance_type.as_str(), quote.region.as_str()), ("g5.xlarge", "us-east-1"));
        assert_eq!(quote.price.as_f64(), 1.006);
    }

    #[test]
    fn what_is_no_plain_linux_price_is_left_out() {
        let check = |from: &str, to: &str, expected: ProductError| {
            assert_eq!(OnDemandQuote::parse(&PRODUCT.replace(from, to)), Err(expected), "{from} -> {to}");
        };
        check("\"Linux\"", "\"Windows\"", ProductError::OtherKind);
        check("\"Shared\"", "\"Host\"", ProductError::OtherKind);
        check("\"RunInstances\"", "\"RunInstances:0010\"", ProductError::OtherKind);
        check("regionCode", "location", ProductError::Field("regionCode"));
        check("\"1.0060000000\"", "\"0.0000000000\"", ProductError::Field("pricePerUnit.USD"));
        check("\"1.0060000000\"", "1.006", ProductError::Field("pricePerUnit.USD"));
        check("\"Hrs\"", "\"Quantity\"", ProductError::Field("pricePerUnit.USD"));
        check("{\"USD\"", "{\"CNY\"", ProductError::Field("pricePerUnit.USD"));
        check("\"OnDemand\":{", "\"onDemand\":{", ProductError::Field("terms.OnDemand"));
        let two =
            r#""X":{"priceDimensions":{"Y":{"unit":"Hrs","pricePerUnit":{"USD":"2"}}}},"ABC.JRTCKXETXF":"#;
        check("\"ABC.JRTCKXETXF\":", two, ProductError::Ambiguous);
        assert_eq!(OnDemandQuote::parse("<html>"), Err(ProductError::Syntax));
        for shape in ["null", "[]", "{}", r#"{"product":[1],"terms":{"OnDemand":[]}}"#] {
            assert!(matches!(OnDemandQuote::parse(shape), Err(ProductError::Field(_))), "{shape}");
        }
    }
}
