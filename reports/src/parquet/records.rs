//! The columns of the record rows of `policy`, in the order of their fields.

use policy::records::{ChargeRow, DecisionRow, InstanceRow, JobRow, MinuteRow};

use super::{Cell, Column, Table};

/// Jobs, or a weighted sample of them.
pub static JOBS: Table<JobRow> = Table {
    name: "jobs",
    columns: &[
        Column { name: "job", cell: Cell::U64(|row| row.job) },
        Column { name: "class", cell: Cell::Text(|row| &row.class) },
        Column { name: "region", cell: Cell::Text(|row| &row.region) },
        Column { name: "arrived_s", cell: Cell::F64(|row| row.arrived_s) },
        Column { name: "ended_s", cell: Cell::F64(|row| row.ended_s) },
        Column { name: "outcome", cell: Cell::Text(|row| row.outcome.name()) },
        Column { name: "wait_s", cell: Cell::F64(|row| row.wait_s) },
        Column { name: "service_s", cell: Cell::F64(|row| row.service_s) },
        Column { name: "deliveries", cell: Cell::U32(|row| row.deliveries) },
        Column { name: "quality", cell: Cell::Text(|row| &row.quality) },
        Column { name: "weight", cell: Cell::F64(|row| row.weight) },
    ],
};

/// Minutes of each group of pools.
pub static MINUTES: Table<MinuteRow> = Table {
    name: "minutes",
    columns: &[
        Column { name: "at_s", cell: Cell::F64(|row| row.at_s) },
        Column { name: "group", cell: Cell::Text(|row| &row.group) },
        Column { name: "arrived", cell: Cell::U64(|row| row.arrived) },
        Column { name: "done", cell: Cell::U64(|row| row.done) },
        Column { name: "lost", cell: Cell::U64(|row| row.lost) },
        Column { name: "probes_refused", cell: Cell::U64(|row| row.probes_refused) },
        Column { name: "waiting", cell: Cell::U32(|row| row.waiting) },
        Column { name: "running", cell: Cell::U32(|row| row.running) },
        Column { name: "ready", cell: Cell::U32(|row| row.ready) },
        Column { name: "starting", cell: Cell::U32(|row| row.starting) },
        Column { name: "draining", cell: Cell::U32(|row| row.draining) },
        Column { name: "target", cell: Cell::U32(|row| row.target) },
        Column { name: "slots", cell: Cell::U32(|row| row.slots) },
    ],
};

/// Instances.
pub static INSTANCES: Table<InstanceRow> = Table {
    name: "instances",
    columns: &[
        Column { name: "pool", cell: Cell::Text(|row| &row.pool) },
        Column { name: "instance", cell: Cell::U32(|row| row.instance) },
        Column { name: "capacity_type", cell: Cell::Text(|row| row.capacity_type) },
        Column { name: "requested_s", cell: Cell::F64(|row| row.requested_s) },
        Column { name: "ready_s", cell: Cell::OptionF64(|row| row.ready_s) },
        Column { name: "ended_s", cell: Cell::F64(|row| row.ended_s) },
        Column { name: "busy_slot_s", cell: Cell::F64(|row| row.busy_slot_s) },
        Column { name: "billed_nanousd", cell: Cell::I64(|row| row.billed_nanousd) },
        Column { name: "end", cell: Cell::Text(|row| row.end.name()) },
    ],
};

/// Decisions that changed something.
pub static DECISIONS: Table<DecisionRow> = Table {
    name: "decisions",
    columns: &[
        Column { name: "at_s", cell: Cell::F64(|row| row.at_s) },
        Column { name: "policy", cell: Cell::Text(|row| row.policy) },
        Column { name: "subject", cell: Cell::Text(|row| &row.subject) },
        Column { name: "from", cell: Cell::U32(|row| row.from) },
        Column { name: "to", cell: Cell::U32(|row| row.to) },
        Column { name: "code", cell: Cell::Text(|row| row.code) },
        Column { name: "reason", cell: Cell::Text(|row| &row.reason) },
    ],
};

/// Lines of the bill.
pub static CHARGES: Table<ChargeRow> = Table {
    name: "charges",
    columns: &[
        Column { name: "from_s", cell: Cell::F64(|row| row.from_s) },
        Column { name: "to_s", cell: Cell::F64(|row| row.to_s) },
        Column { name: "category", cell: Cell::Text(|row| row.category.name()) },
        Column { name: "resource", cell: Cell::Text(|row| &row.resource) },
        Column { name: "item", cell: Cell::Text(|row| &row.item) },
        Column { name: "quantity", cell: Cell::F64(|row| row.quantity) },
        Column { name: "unit", cell: Cell::Text(|row| row.unit) },
        Column { name: "billed_nanousd", cell: Cell::I64(|row| row.billed_nanousd) },
        Column { name: "list_nanousd", cell: Cell::I64(|row| row.list_nanousd) },
        Column { name: "source", cell: Cell::Text(|row| &row.source) },
    ],
};
