//! Prices, from the small Amazon to rows of the catalog.

use std::collections::BTreeSet;

use control::prices::rows::rows;
use control::prices::update::{Wanted, fetch};
use policy::model::CapacityType;
use scenarios::catalog::Catalog;

use super::fake::{Fake, Fault};
use super::setup::reach;

fn product(kind: &str, region: &str, usd: &str) -> String {
    serde_json::json!({
        "product": {"attributes": {
            "instanceType": kind, "regionCode": region, "operatingSystem": "Linux", "tenancy": "Shared",
            "preInstalledSw": "NA", "capacitystatus": "Used", "operation": "RunInstances",
        }},
        "terms": {"OnDemand": {"A": {"priceDimensions": {"B": {"unit": "Hrs", "pricePerUnit": {"USD": usd}}}}}},
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_become_rows_of_the_catalog() {
    let fake = Fake::start().await;
    {
        let mut account = fake.account();
        let list = vec![
            product("g5.xlarge", "us-east-1", "1.0060000000"),
            product("g5.xlarge", "eu-west-9", "1.5"),
            "<not json>".to_owned(),
        ];
        account.products.insert("g5.xlarge".to_owned(), list);
        let row = |zone: &str, price: &str, time: &str| {
            (zone.to_owned(), "g5.xlarge".to_owned(), price.to_owned(), time.to_owned())
        };
        account.spot_prices = vec![
            row("use1-az1", "0.410000", "2026-11-22T08:00:00Z"),
            row("use1-az1", "0.390000", "2026-11-22T07:00:00Z"),
            row("use1-az2", "1.006000", "2026-11-22T08:00:00Z"),
            row("use1-az3", "cheap", "2026-11-22T08:00:00Z"),
        ];
        account.faults.push_back(("GetProducts", Fault::Error(400, "ThrottlingException")));
        account.faults.push_back(("DescribeSpotPriceHistory", Fault::Page));
    }
    let text = |text: &str| text.to_owned();
    let wanted = Wanted {
        types: BTreeSet::from([text("g5.xlarge"), text("g6.xlarge")]),
        regions: BTreeSet::from([text("us-east-1")]),
    };
    let fetched = fetch(&wanted, &reach(&fake.url())).await;
    assert_eq!((fetched.failures.as_slice(), fetched.unreadable), (&[][..], 1));
    let file = rows(Catalog::embedded(), &fetched.quotes, jiff::Timestamp::now()).expect("rows");
    assert_eq!((file.on_demand, file.spot, file.left_out.len()), (1, 1, 1), "{file:?}");
    let merged = Catalog::embedded().updated_with_toml("new", &file.text).expect("both");
    let row = merged.offering("aws", "us-east-1", Some("use1-az1"), "g5.xlarge", CapacityType::Spot);
    assert_eq!(row.expect("a row").price.as_f64(), 0.41);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_without_an_answer_is_named_and_the_others_are_answered() {
    let fake = Fake::start().await;
    fake.account().products.insert("g5.xlarge".to_owned(), vec![product("g5.xlarge", "us-east-1", "1")]);
    fake.account().faults.push_back(("DescribeSpotPriceHistory", Fault::Error(403, "UnauthorizedOperation")));
    let wanted = Wanted {
        types: BTreeSet::from(["g5.xlarge".to_owned()]),
        regions: BTreeSet::from(["us-east-1".to_owned()]),
    };
    let fetched = fetch(&wanted, &reach(&fake.url())).await;
    assert_eq!((fetched.quotes.on_demand.len(), fetched.failures.len()), (1, 1));
    assert!(fetched.failures[0].contains("IAM policy"), "{:?}", fetched.failures);
}
