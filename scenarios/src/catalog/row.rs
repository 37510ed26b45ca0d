//! One price of one instance type in one place. A `Row` that exists has been checked on its own; what holds between
//! rows is checked by [`super::Catalog`].

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::Date;
use policy::model::CapacityType;
use policy::units::UsdPerHour;

use super::CatalogError;
use super::file::OfferingFile;

/// The price of an instance type in a place under a capacity type, with where and when it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// e.g. `aws`.
    pub provider: String,
    /// e.g. `us-east-1`.
    pub region: String,
    /// `None`: on-demand and reserved prices hold in the whole region; a spot price is the region's average.
    pub zone: Option<String>,
    /// e.g. `g5.xlarge`.
    pub instance_type: String,
    /// e.g. `A10G`.
    pub accelerator: String,
    /// Accelerators per instance; below 1 is a share of one.
    pub accelerator_count: f64,
    /// Memory of one accelerator, or of the share, GiB.
    pub accelerator_memory_gib: f64,
    /// Virtual CPUs.
    pub vcpu: u32,
    /// Memory of the host, GiB.
    pub memory_gib: f64,
    /// How it is bought.
    pub capacity_type: CapacityType,
    /// What was promised for a reserved price, e.g. `1-year all-upfront`.
    pub commitment: Option<String>,
    /// Price of holding one instance.
    pub price: UsdPerHour,
    /// Repository, commit and date of the fact.
    pub source: String,
    /// The day on which the price was valid; the oldest one where the source gives a span.
    pub as_of: Date,
}

impl Row {
    pub(super) fn read(file: OfferingFile, sources: &BTreeMap<String, String>) -> Result<Self, CatalogError> {
        let place = format!(
            "offering {}",
            place(
                &file.provider,
                &file.region,
                file.zone.as_deref(),
                &file.instance_type,
                &file.capacity_type
            )
        );
        for (field, text) in [
            ("provider", &file.provider),
            ("region", &file.region),
            ("instance_type", &file.instance_type),
            ("accelerator", &file.accelerator),
            ("zone", file.zone.as_ref().unwrap_or(&file.region)),
        ] {
            not_empty(&place, field, text)?;
        }
        for (field, value) in [
            ("accelerator_count", file.accelerator_count),
            ("accelerator_memory_gib", file.accelerator_memory_gib),
            ("vcpu", f64::from(file.vcpu)),
            ("memory_gib", file.memory_gib),
        ] {
            positive(&place, field, value)?;
        }
        let Some(capacity_type) = [CapacityType::Spot, CapacityType::OnDemand, CapacityType::Reserved]
            .into_iter()
            .find(|known| known.name() == file.capacity_type)
        else {
            return Err(CatalogError::CapacityType { place, text: file.capacity_type });
        };
        if file.commitment.is_some() != (capacity_type == CapacityType::Reserved) {
            return Err(CatalogError::Commitment { place });
        }
        let price = UsdPerHour::parse(&file.price)
            .map_err(|source| CatalogError::Price { place: place.clone(), source })?;
        positive(&place, "price", price.as_f64())?;
        Ok(Self {
            source: citation(&place, file.source, sources)?,
            as_of: date(&place, &file.as_of)?,
            provider: file.provider,
            region: file.region,
            zone: file.zone,
            instance_type: file.instance_type,
            accelerator: file.accelerator,
            accelerator_count: file.accelerator_count,
            accelerator_memory_gib: file.accelerator_memory_gib,
            vcpu: file.vcpu,
            memory_gib: file.memory_gib,
            capacity_type,
            commitment: file.commitment,
            price,
        })
    }

    /// The source and its date in one text, as reports print it.
    pub fn provenance(&self) -> String {
        format!("{}, as of {}", self.source, self.as_of)
    }

    pub(super) fn same_place(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    pub(super) fn key(&self) -> (&str, &str, &str, CapacityType, Option<&str>) {
        let zone = self.zone.as_deref();
        (&self.provider, &self.region, &self.instance_type, self.capacity_type, zone)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capacity = self.capacity_type.name();
        let zone = self.zone.as_deref();
        write!(out, "{}", place(&self.provider, &self.region, zone, &self.instance_type, capacity))?;
        write!(out, " ({} USD/h)", self.price.as_f64())
    }
}

/// How a place is written in messages.
pub(super) fn place(provider: &str, region: &str, zone: Option<&str>, kind: &str, capacity: &str) -> String {
    match zone {
        Some(zone) => format!("{provider} {region} {zone} {kind} {capacity}"),
        None => format!("{provider} {region} {kind} {capacity}"),
    }
}

pub(super) fn not_empty(place: &str, field: &'static str, text: &str) -> Result<(), CatalogError> {
    if text.trim().is_empty() {
        return Err(CatalogError::Empty { place: place.to_owned(), field });
    }
    Ok(())
}

pub(super) fn positive(place: &str, field: &'static str, value: f64) -> Result<(), CatalogError> {
    if !(value.is_finite() && value > 0.0) {
        return Err(CatalogError::NotPositive { place: place.to_owned(), field, value });
    }
    Ok(())
}

/// The full citation behind a source's short name.
pub(super) fn citation(
    place: &str,
    name: String,
    sources: &BTreeMap<String, String>,
) -> Result<String, CatalogError> {
    not_empty(place, "source", &name)?;
    let Some(citation) = sources.get(&name) else {
        return Err(CatalogError::UnknownSource { place: place.to_owned(), name });
    };
    not_empty(place, "sources", citation)?;
    Ok(citation.clone())
}

pub(super) fn date(place: &str, text: &str) -> Result<Date, CatalogError> {
    not_empty(place, "as_of", text)?;
    text.parse().map_err(|_| CatalogError::AsOf { place: place.to_owned(), text: text.to_owned() })
}
