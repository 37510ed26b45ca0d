//! Pools: what is bought, for how much, how it starts and how it is lost.

use policy::model::{Billing, CapacityType, Offering, POOL_INSTANCES_MAX, Pool, RegionId, SLOT_KINDS_MAX};
use policy::units::{Duration, Usd, UsdPerHour};

use super::{Resolver, share};
use crate::catalog::Catalog;
use crate::defaults;
use crate::diagnostics::{ErrorKind, Key};
use crate::file::fleet::{
    AvailabilityFile, CapacityFile, InterruptionFile, PoolFile, ShockFile, SlotsFile, StartupFile,
};
use crate::file::quantity::{HourlyPrice, Money, Share, Time};
use crate::scenario::{AvailabilityTrace, Interruption, Launch, Law, PoolWorld, Shock, Startup};

impl Resolver<'_> {
    pub(super) fn pools(&mut self) -> (Vec<Pool>, Vec<PoolWorld>) {
        if self.names.slot_kinds.len() > SLOT_KINDS_MAX {
            let message =
                format!("{} slot kinds are too many; at most {SLOT_KINDS_MAX}", self.names.slot_kinds.len());
            self.problems.add(ErrorKind::Overflow, &Key::of("fleet.slot_kinds"), message);
            self.names.slot_kinds.truncate(SLOT_KINDS_MAX);
        }
        self.file.fleet.pool.iter().map(|(name, file)| self.pool(name, file)).unzip()
    }

    fn pool(&mut self, name: &str, file: &PoolFile) -> (Pool, PoolWorld) {
        let key = Key::of("fleet.pool").at(name);
        let capacity_type = match file.capacity_type {
            None | Some(CapacityFile::OnDemand) => CapacityType::OnDemand,
            Some(CapacityFile::Spot) => CapacityType::Spot,
            Some(CapacityFile::Reserved) => CapacityType::Reserved,
            Some(CapacityFile::External) => CapacityType::External,
        };
        let region = file.region.as_deref().map_or(Some(0), |region| {
            self.problems.find(&key.at("region"), "region", region, &self.names.regions)
        });
        let class = file.class.as_deref().unwrap_or(name);
        let pool_class = self.names.pool_classes.iter().position(|known| known == class);
        let startup = self.startup(&key.at("startup"), file.startup.as_ref());
        let (count_initial, count_min, count_max) = counts(file, capacity_type);
        let speed_factor = file.speed_factor.unwrap_or(defaults::SPEED_FACTOR);
        let pool = Pool {
            name: name.to_owned(),
            pool_class: pool_class.unwrap_or_default() as u16,
            region: RegionId(region.unwrap_or_default() as u16),
            offering: self.offering(&key, name, file, capacity_type),
            slots: self.slots(&key, name, file, capacity_type),
            count_initial,
            count_min,
            count_max,
            startup_expected: startup.boot.mean() + startup.image.mean() + startup.weights.mean(),
            speed_factor: self.positive(&key.at("speed_factor"), speed_factor),
        };
        (pool, self.world(&key, name, file, capacity_type, startup))
    }

    fn world(
        &mut self,
        key: &Key,
        name: &str,
        file: &PoolFile,
        capacity_type: CapacityType,
        startup: Startup,
    ) -> PoolWorld {
        if capacity_type == CapacityType::Spot && file.interruption.is_none() {
            let message = format!("spot pool `{name}` does not say how it is interrupted");
            let help = "add `interruption = { hazard_per_hour = 0.05 }` or a trace; 0 never interrupts";
            self.problems.add_with_help(ErrorKind::Missing, key, message, help);
        }
        let external = file.external.as_ref().filter(|_| capacity_type == CapacityType::External);
        let billing = &file.billing;
        let time = |stated: Option<Time>, otherwise| stated.map_or(otherwise, |Time(value)| value);
        PoolWorld {
            startup,
            launch: Launch {
                insufficient: file
                    .launch
                    .insufficient
                    .map_or_else(|| share(defaults::INSUFFICIENT), |Share(chance)| chance),
                refusal_after: time(file.launch.refusal_after, defaults::REFUSAL_AFTER),
            },
            interruption: self.interruption(&key.at("interruption"), file),
            billing: Billing {
                granularity: time(billing.granularity, defaults::BILLING_GRANULARITY),
                minimum: time(billing.minimum, defaults::BILLING_MINIMUM),
                interrupted_first_hour_free: billing
                    .interrupted_first_hour_free
                    .unwrap_or(defaults::INTERRUPTED_FIRST_HOUR_FREE),
            },
            external_time: external.map(|external| self.law(&key.at("external").at("time"), &external.time)),
            external_concurrency_max: external.and_then(|external| external.concurrency_max),
        }
    }

    fn offering(&mut self, key: &Key, name: &str, file: &PoolFile, capacity_type: CapacityType) -> Offering {
        let region = file.region.clone().unwrap_or_else(|| self.names.regions[0].clone());
        let mut offering = Offering {
            provider: file.provider.clone().unwrap_or_else(|| defaults::PROVIDER.to_owned()),
            region,
            zone: file.zone.clone().unwrap_or_default(),
            instance_type: file.instance_type.clone().unwrap_or_else(|| defaults::INSTANCE_TYPE.to_owned()),
            accelerator: String::new(),
            capacity_type,
            price: UsdPerHour::default(),
            price_list: UsdPerHour::default(),
            price_per_call: Usd::ZERO,
            source: file.price_source.clone().unwrap_or_else(|| "stated in the scenario".to_owned()),
        };
        match (capacity_type, &file.external) {
            (CapacityType::External, None) => {
                let message = format!("external pool `{name}` has no price");
                let help = "add `external = { price_per_call = \"0.04 USD\", time = \"5s\" }`";
                self.problems.add_with_help(ErrorKind::Price, key, message, help);
            }
            (CapacityType::External, Some(external)) => {
                let Money(price) = external.price_per_call;
                offering.price_per_call = price;
            }
            (_, Some(_)) => {
                let message = "only a pool with `capacity_type = \"external\"` has `external`";
                self.problems.add(ErrorKind::Conflict, &key.at("external"), message);
            }
            (_, None) => match file.price {
                Some(HourlyPrice(price)) => {
                    offering.price = price;
                    offering.price_list = file.price_list.map_or(price, |HourlyPrice(list)| list);
                }
                None => offering = self.priced_by_catalog(key, name, file, offering),
            },
        }
        offering
    }

    /// The offering with the catalog's price, or as it was with a note of what is missing.
    fn priced_by_catalog(&mut self, key: &Key, name: &str, file: &PoolFile, bare: Offering) -> Offering {
        if file.provider.is_none() || file.instance_type.is_none() {
            let message = format!("pool `{name}` has no price");
            let help = "state `price = \"0.526 USD/h\"`, or `provider`, `region` and `instance_type` of a row \
                        of the price catalog";
            self.problems.add_with_help(ErrorKind::Price, key, message, help);
            return bare;
        }
        let zone = file.zone.as_deref();
        let (provider, instance_type) = (bare.provider.as_str(), bare.instance_type.as_str());
        let catalog = Catalog::embedded();
        match catalog.offering(provider, &bare.region, zone, instance_type, bare.capacity_type) {
            Ok(row) => {
                let mut found = catalog.purchase(row);
                found.zone = bare.zone;
                if let Some(HourlyPrice(list)) = file.price_list {
                    found.price_list = list;
                }
                found
            }
            Err(error) => {
                let message = format!("pool `{name}` has no price: {error}");
                let help = "correct the row, or state `price = \"0.526 USD/h\"`";
                self.problems.add_with_help(ErrorKind::Price, key, message, help);
                bare
            }
        }
    }

    fn slots(
        &mut self,
        key: &Key,
        name: &str,
        file: &PoolFile,
        capacity_type: CapacityType,
    ) -> [u16; SLOT_KINDS_MAX] {
        let mut slots = [0; SLOT_KINDS_MAX];
        let key = key.at("slots");
        match &file.slots {
            None => slots[0] = defaults::SLOTS,
            Some(SlotsFile::Count(count)) => slots[0] = *count,
            Some(SlotsFile::ByKind(kinds)) => {
                for (kind, count) in kinds.iter() {
                    let found = self.problems.find(&key.at(kind), "slot kind", kind, &self.names.slot_kinds);
                    if let Some(slot) = found.and_then(|index| slots.get_mut(index)) {
                        *slot = *count;
                    }
                }
            }
        }
        if slots.iter().all(|count| *count == 0) && capacity_type != CapacityType::External {
            let message = format!("pool `{name}` has no slots, so it can do no work");
            self.problems.add(ErrorKind::Capacity, &key, message);
        }
        slots
    }

    fn startup(&mut self, key: &Key, file: Option<&StartupFile>) -> Startup {
        let none = Law::Constant(Duration::ZERO);
        let Some(file) = file else {
            return Startup {
                boot: Law::Constant(defaults::STARTUP_TOTAL),
                image: none.clone(),
                weights: none,
                warm_count: defaults::WARM_COUNT,
                warm_resume: Law::Constant(defaults::WARM_RESUME),
                warm_price: UsdPerHour::default(),
            };
        };
        let step = defaults::STARTUP_STEP;
        Startup {
            boot: self.law_or(&key.at("boot"), file.boot.as_ref(), step),
            image: self.law_or(&key.at("image"), file.image.as_ref(), step),
            weights: self.law_or(&key.at("weights"), file.weights.as_ref(), step),
            warm_count: file.warm_count.unwrap_or(defaults::WARM_COUNT),
            warm_resume: self.law_or(
                &key.at("warm_resume"),
                file.warm_resume.as_ref(),
                defaults::WARM_RESUME,
            ),
            warm_price: file.warm_price.map_or(UsdPerHour::default(), |HourlyPrice(price)| price),
        }
    }

    fn interruption(&mut self, key: &Key, pool: &PoolFile) -> Interruption {
        let nothing = InterruptionFile::default();
        let file = pool.interruption.as_ref().unwrap_or(&nothing);
        let hazard = file.hazard_per_hour.unwrap_or(defaults::HAZARD_PER_HOUR);
        let region = pool.region.as_deref().unwrap_or(&self.names.regions[0]).to_owned();
        Interruption {
            hazard_per_hour: self.not_negative(&key.at("hazard_per_hour"), hazard),
            notice: file.notice.map_or(defaults::NOTICE, |Time(notice)| notice),
            notice_missed: file
                .notice_missed
                .map_or_else(|| share(defaults::NOTICE_MISSED), |Share(chance)| chance),
            shock: file.shock.as_ref().map(|shock| self.shock(&key.at("shock"), shock, region)),
            trace: file.trace.as_ref().map(|trace| self.availability(&key.at("trace"), trace)),
        }
    }

    fn shock(&mut self, key: &Key, file: &ShockFile, region: String) -> Shock {
        Shock {
            group: file.group.clone().unwrap_or(region),
            per_day: self.not_negative(&key.at("per_day"), file.per_day),
            share: file.share.0,
            outage: file.outage.map_or(defaults::SHOCK_OUTAGE, |Time(outage)| outage),
        }
    }

    fn availability(&mut self, key: &Key, file: &AvailabilityFile) -> AvailabilityTrace {
        let nodes_full = file.nodes_full.unwrap_or(defaults::NODES_FULL);
        AvailabilityTrace {
            path: self.existing_file(&key.at("path"), &file.path),
            nodes_full: self.at_least_one(&key.at("nodes_full"), nodes_full),
            start: file.start.map_or(defaults::TRACE_START, |Time(start)| start),
        }
    }
}

/// Initial, fewest and most instances; an external pool has none, and takes at most as many calls at once.
fn counts(file: &PoolFile, capacity_type: CapacityType) -> (u32, u32, u32) {
    if capacity_type == CapacityType::External {
        let calls_max = file.external.as_ref().and_then(|external| external.concurrency_max);
        return (0, 0, calls_max.unwrap_or(POOL_INSTANCES_MAX).min(POOL_INSTANCES_MAX));
    }
    let count_min = file.count_min.unwrap_or(defaults::COUNT_MIN);
    let count_initial = file.count.unwrap_or(count_min);
    let count_max = file.count_max.unwrap_or(count_initial.max(count_min));
    (count_initial, count_min, count_max)
}
