//! Tests of the catalog.

use policy::units::Duration;

use super::*;

const SOURCES: &str = "[sources]\nlist = \"a list, 2026-01-02\"\n";

/// One offering in TOML, with lines replaced: `("price", "\"1 USD/h\"")`; an empty value drops the line.
fn offering(changes: &[(&str, &str)]) -> String {
    let mut text = "[[offering]]\n".to_owned();
    for (field, value) in [
        ("provider", "\"aws\""),
        ("region", "\"us-east-1\""),
        ("zone", ""),
        ("instance_type", "\"g5.xlarge\""),
        ("accelerator", "\"A10G\""),
        ("accelerator_count", "1"),
        ("accelerator_memory_gib", "22.4"),
        ("vcpu", "4"),
        ("memory_gib", "16"),
        ("capacity_type", "\"on-demand\""),
        ("commitment", ""),
        ("price", "\"1.006 USD/h\""),
        ("source", "\"list\""),
        ("as_of", "\"2026-01-02\""),
    ] {
        let value = changes.iter().find(|(name, _)| *name == field).map_or(value, |(_, value)| value);
        if !value.is_empty() {
            text += &format!("{field} = {value}\n");
        }
    }
    text
}

fn read(body: &str) -> Result<Catalog, CatalogError> {
    Catalog::from_toml(&[("test.toml", &format!("{SOURCES}{body}"))])
}

#[test]
fn pinned_offerings_have_their_published_price() {
    use CapacityType::{OnDemand, Reserved, Spot};
    for (provider, region, zone, instance_type, capacity_type, price) in [
        ("aws", "us-east-1", None, "g4dn.xlarge", OnDemand, "0.526 USD/h"),
        ("aws", "us-east-1", None, "g4dn.12xlarge", OnDemand, "3.912 USD/h"),
        ("aws", "us-east-1", None, "g5.xlarge", OnDemand, "1.006 USD/h"),
        ("aws", "us-east-1", None, "g5.48xlarge", OnDemand, "16.288 USD/h"),
        ("aws", "us-east-1", None, "g6.xlarge", OnDemand, "0.8048 USD/h"),
        ("aws", "us-east-1", None, "g6e.xlarge", OnDemand, "1.861 USD/h"),
        ("aws", "us-east-1", None, "p4d.24xlarge", OnDemand, "21.957642 USD/h"),
        ("aws", "us-east-1", None, "p5.48xlarge", OnDemand, "55.04 USD/h"),
        ("aws", "us-east-1", None, "inf2.xlarge", OnDemand, "0.7582 USD/h"),
        ("aws", "us-east-1", Some("use1-az2"), "g4dn.xlarge", Spot, "0.2 USD/h"),
        ("aws", "us-east-1", None, "g5.xlarge", Reserved, "0.591553 USD/h"),
        ("gcp", "us-central1", None, "g2-standard-4", OnDemand, "0.706832 USD/h"),
        ("gcp", "us-central1", None, "a2-highgpu-1g", Spot, "1.92802 USD/h"),
        ("gcp", "us-central1", None, "a3-highgpu-8g", OnDemand, "88.49 USD/h"),
        ("azure", "eastus", None, "Standard_NC4as_T4_v3", OnDemand, "0.526 USD/h"),
        ("azure", "eastus", None, "Standard_ND96isr_H100_v5", OnDemand, "98.32 USD/h"),
        ("azure", "eastus", None, "Standard_NV36ads_A10_v5", Spot, "0.8 USD/h"),
        ("azure", "japaneast", None, "Standard_NC24ads_A100_v4", OnDemand, "5.326 USD/h"),
    ] {
        let row = Catalog::embedded().offering(provider, region, zone, instance_type, capacity_type);
        let row = row.expect("listed");
        assert_eq!(Ok(row.price), UsdPerHour::parse(price), "{row}");
    }
}

#[test]
fn known_catalogue_bugs_are_not_copied() {
    let catalog = Catalog::embedded();
    let h100 = catalog
        .offering("azure", "eastus", None, "Standard_ND96isr_H100_v5", CapacityType::OnDemand)
        .expect("listed");
    assert_eq!(h100.accelerator_count, 8.0);
    let share =
        catalog.offering("aws", "us-east-1", None, "g6f.large", CapacityType::OnDemand).expect("listed");
    assert_eq!(share.accelerator_count, 0.125);
    for (zone, instance_type) in [(None, "p5.48xlarge"), (Some("apne1-az4"), "g5.12xlarge")] {
        let region = if zone.is_some() { "ap-northeast-1" } else { "us-east-1" };
        assert!(catalog.offering("aws", region, zone, instance_type, CapacityType::Spot).is_err());
    }
}

#[test]
fn every_row_has_a_date_and_a_source_that_names_a_repository() {
    let catalog = Catalog::embedded();
    let (oldest, newest) = (jiff::civil::date(2023, 12, 1), jiff::civil::date(2026, 9, 1));
    let mut count = 0;
    for row in catalog.show(RowFilter::default()) {
        assert!(row.as_of >= oldest && row.as_of < newest, "{row} {}", row.as_of);
        assert!(row.source.len() > 20 && row.source.contains("20"), "{row} {}", row.source);
        assert!(row.provenance().ends_with(&row.as_of.to_string()));
        count += 1;
    }
    assert!(count > 700, "{count}");
    for tariff in catalog.tariffs() {
        assert!(tariff.as_of >= oldest && tariff.as_of < newest, "{}", tariff.name);
        assert!(tariff.source.contains("20"), "{}", tariff.name);
    }
}

#[test]
fn a_faulty_row_is_refused_with_its_place_and_remedy() {
    let twice = format!("{}{}", offering(&[]), offering(&[("price", "\"2 USD/h\"")]));
    let spot_at = |price| offering(&[]) + &offering(&[("capacity_type", "\"spot\""), ("price", price)]);
    for (body, message) in [
        (offering(&[("price", "\"-1 USD/h\"")]), "offering aws us-east-1 g5.xlarge on-demand: bad price"),
        (offering(&[("price", "\"0 USD/h\"")]), "price 0 must be a finite number above zero"),
        (offering(&[("price", "\"1 EUR/h\"")]), "bad price"),
        (offering(&[("as_of", "\"2026-13-02\"")]), "as_of `2026-13-02` is not a date"),
        (offering(&[("as_of", "\"\"")]), "`as_of` is empty"),
        (offering(&[("as_of", "")]), "missing field `as_of`"),
        (offering(&[("source", "")]), "missing field `source`"),
        (offering(&[("source", "\"lost\"")]), "source `lost` is not in [sources]"),
        (offering(&[("accelerator_count", "0")]), "accelerator_count 0 must be"),
        (offering(&[("capacity_type", "\"preemptible\"")]), "not one of spot, on-demand, reserved"),
        (offering(&[("commitment", "\"1-year\"")]), "`commitment` belongs to reserved prices"),
        (offering(&[("zone", "\" \"")]), "`zone` is empty"),
        (offering(&[]) + "colour = 1\n", "unknown field `colour`"),
        (twice, "is listed twice"),
        (spot_at("\"1.006 USD/h\""), "spot 1.006 USD/h is not below on-demand 1.006 USD/h"),
        (offering(&[("capacity_type", "\"spot\"")]), "has no on-demand row"),
    ] {
        let error = read(&body).expect_err(message).to_string();
        assert!(error.contains(message), "`{error}` should say `{message}`");
    }
    assert!(read(&spot_at("\"0.4 USD/h\"")).is_ok());
}

#[test]
fn a_faulty_tariff_is_refused() {
    let tariff = |price: &str| {
        format!(
            "[[tariff]]\nname = \"t\"\nprovider = \"p\"\nregion = \"r\"\nsource = \"list\"\nas_of = \"2026-01-02\"\n{price}"
        )
    };
    let tiers = |second: f64| {
        format!(
            "[[tariff.price]]\nitem = \"get\"\ntiers = [{{ from = 0, price = \"2 USD/GiB\" }}, \
             {{ from = {second:.1}, price = \"1 USD/GiB\" }}]\n"
        )
    };
    let get = "[[tariff.price]]\nitem = \"get\"\nprice = \"1 USD/GiB\"\n";
    for (body, message) in [
        (tariff(&tiers(0.0)), "tiers must start at 0 and rise; `from` = 0"),
        (tariff(&format!("{get}{get}")), "price `get` is listed twice"),
        (tariff("[[tariff.price]]\nitem = \"get\"\n"), "give either `price` or `tiers`"),
        (tariff(get) + &tariff(get), "tariff `t` is listed twice"),
        (tariff("requests_per_delivery = -1\nprice = []\n"), "requests_per_delivery -1"),
    ] {
        let error = read(&body).expect_err(message).to_string();
        assert!(error.contains(message), "`{error}` should say `{message}`");
    }
    assert!(read(&tariff(&tiers(10.0))).is_ok());
}

#[test]
fn an_unknown_offering_names_the_nearest() {
    let catalog = Catalog::embedded();
    let error = catalog.offering("aws", "us-east-1", None, "g5.xlrage", CapacityType::OnDemand);
    let message = error.expect_err("misspelt").to_string();
    assert!(message.contains("no aws us-east-1 g5.xlrage on-demand"), "{message}");
    assert!(message.contains("nearest: aws us-east-1 g5.xlarge on-demand (1.006 USD/h)"), "{message}");
    let empty = Catalog::default();
    let error = empty.offering("aws", "us-east-1", None, "g5.xlarge", CapacityType::Spot);
    assert!(error.expect_err("empty").to_string().ends_with("none, the catalog is empty"));
}

#[test]
fn a_zone_falls_back_to_its_region_unless_zones_are_listed() {
    let spot = |zone: &str, price: &str| {
        offering(&[("capacity_type", "\"spot\""), ("zone", zone), ("price", price)])
    };
    let price = |catalog: &Catalog, zone, capacity_type| {
        catalog
            .offering("aws", "us-east-1", zone, "g5.xlarge", capacity_type)
            .map(|row| row.price.as_f64())
            .ok()
    };
    let region_only = read(&(offering(&[]) + &spot("", "\"0.4 USD/h\""))).expect("valid");
    assert_eq!(price(&region_only, Some("use1-az1"), CapacityType::OnDemand), Some(1.006));
    assert_eq!(price(&region_only, Some("use1-az1"), CapacityType::Spot), Some(0.4));
    let zoned = read(&(offering(&[]) + &spot("", "\"0.4 USD/h\"") + &spot("\"use1-az1\"", "\"0.5 USD/h\"")));
    let zoned = zoned.expect("valid");
    assert_eq!(price(&zoned, Some("use1-az1"), CapacityType::Spot), Some(0.5));
    assert_eq!(price(&zoned, Some("use1-az2"), CapacityType::Spot), None);
    assert_eq!(price(&zoned, None, CapacityType::Spot), Some(0.4));
}

#[test]
fn a_purchase_carries_its_list_price_and_provenance() {
    let catalog = Catalog::embedded();
    let spot = catalog.offering("aws", "us-east-1", None, "g5.xlarge", CapacityType::Spot).expect("listed");
    let bought = catalog.purchase(spot);
    assert_eq!(bought.price_list, UsdPerHour::from_nanos(1_006_000_000));
    assert!(bought.price < bought.price_list);
    assert!(bought.source.contains("2025-06-28"), "{}", bought.source);
}

#[test]
fn storage_and_queue_prices_are_read_from_tariffs() {
    let usd = |text| Usd::parse(text).expect("an amount");
    let catalog = Catalog::embedded();
    let (old, source) = catalog.storage_prices("s3-express-before-2025-04-10").expect("listed");
    assert_eq!(
        old,
        TransferPrices {
            per_million_get: usd("0.20 USD"),
            per_million_put: usd("2.50 USD"),
            per_thousand_gib_month: usd("160 USD"),
            per_thousand_gib_get: usd("1.50 USD"),
            per_thousand_gib_put: usd("8 USD"),
            free_bytes: Bytes::new(512 << 10),
        }
    );
    assert!(source.ends_with("as of 2023-12-26"), "{source}");
    let (new, _) = catalog.storage_prices("s3-express-from-2025-04-10").expect("listed");
    assert_eq!((new.per_million_put, new.free_bytes), (usd("1.13 USD"), Bytes::ZERO));
    let (standard, _) = catalog.storage_prices("s3-standard").expect("listed");
    assert_eq!((standard.per_million_get, standard.per_thousand_gib_get), (usd("0.40 USD"), Usd::ZERO));
    assert!(catalog.storage_prices("sns").expect_err("no store").to_string().contains("no price of `get`"));

    let (queue, _) = catalog.queue_prices("sqs").expect("listed");
    assert_eq!((queue.per_million_requests, queue.requests_per_delivery), (usd("0.40 USD"), 3.0));
    assert_eq!(queue.idle_poll, Some(Duration::from_secs(20)));
    let error = catalog.queue_prices("s3-standard").expect_err("no queue").to_string();
    assert!(error.contains("use one of sqs, sqs-fifo, sqs-fair"), "{error}");
    assert!(catalog.tariff("s4").expect_err("unknown").to_string().contains("s3-standard"));
}

#[test]
fn a_newer_catalog_replaces_rows_of_the_same_place() {
    let newer = read(&offering(&[("price", "\"0.9 USD/h\"")])).expect("valid");
    let catalog = Catalog::embedded().updated_with(&newer).expect("fits");
    let row =
        catalog.offering("aws", "us-east-1", None, "g5.xlarge", CapacityType::OnDemand).expect("listed");
    assert_eq!(row.price.as_f64(), 0.9);
    let count = |catalog: &Catalog| catalog.show(RowFilter::default()).count();
    assert_eq!(count(&catalog), count(Catalog::embedded()));
    // Old spot prices above a new on-demand price are gone; a new one is refused.
    let spots = |catalog: &Catalog| {
        let filter =
            RowFilter { region: Some("us-east-1"), instance_type: Some("g5.xlarge"), ..RowFilter::default() };
        catalog.show(filter).filter(|row| row.capacity_type == CapacityType::Spot).count()
    };
    assert!(spots(Catalog::embedded()) > 0);
    let cut = read(&offering(&[("price", "\"0.1 USD/h\"")])).expect("valid");
    assert_eq!(spots(&Catalog::embedded().updated_with(&cut).expect("fits")), 0);
    let dear = offering(&[("capacity_type", "\"spot\""), ("price", "\"9 USD/h\"")]);
    let refused = Catalog::embedded().updated_with_toml("dear", &format!("{SOURCES}{dear}"));
    assert!(matches!(refused, Err(CatalogError::SpotNotBelowOnDemand { .. })), "{refused:?}");
}

#[test]
fn a_filter_shows_one_family_in_one_region() {
    let filter = RowFilter {
        provider: Some("aws"),
        region: Some("us-east-1"),
        instance_type: Some("g6"),
        accelerator: Some("l4"),
        capacity_type: Some(CapacityType::OnDemand),
    };
    let shown: Vec<&str> = Catalog::embedded().show(filter).map(|row| row.instance_type.as_str()).collect();
    assert!(shown.contains(&"g6.xlarge") && shown.contains(&"g6.48xlarge"), "{shown:?}");
    assert!(shown.iter().all(|name| name.starts_with("g6.")), "{shown:?}");
}
