//! `headroom keys`: who may ask the job API for what.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use control::api::{
    AuditEntry, KeyEntry, KeyFileError, KeyWish, Scope, create, key_file, revoke, write_audit,
};
use jiff::Timestamp;
use serde::Serialize;

use crate::failure::{Failure, Status};
use crate::screen::Screen;
use crate::table::{Align, Table};

const CREATE_EXAMPLES: &str = "\
Examples:
  headroom keys create --name app --scope submit,read --jobs-max 1000 --rate 50
  headroom keys create --name monitoring --scope observe
  headroom keys create --name workers --scope join --expires-in 30d
  headroom keys create --name app-2027 --scope submit,read --tenant 1     a new key for the jobs of an older one

The key is printed once; only a digest of it is kept. Running planes take it within seconds.";

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key, and print it.
    Create(CreateArgs),
    /// Show all keys, without their secrets.
    List(DataArgs),
    /// Revoke a key.
    Revoke(RevokeArgs),
}

#[derive(Args, Debug)]
pub(crate) struct DataArgs {
    /// Data folder of the plane.
    #[arg(long, value_name = "DIR", default_value = "headroom-data")]
    data: PathBuf,
}

#[derive(Args, Debug)]
#[command(after_long_help = CREATE_EXAMPLES)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    data: DataArgs,
    /// What to call it.
    #[arg(long)]
    name: String,
    /// What it may do: submit, read, observe, operate, join; several with commas.
    #[arg(long, value_delimiter = ',', required = true)]
    scope: Vec<Scope>,
    /// Jobs that it may have in the system at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs_max: Option<u32>,
    /// Requests per second; no limit without.
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// Requests at once; what comes in two seconds without.
    #[arg(long, value_name = "N", requires = "rate", value_parser = clap::value_parser!(u32).range(1..))]
    burst: Option<u32>,
    /// Time after which it ends by itself, e.g. `30d`.
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<String>,
    /// Number of an older key's tenant, whose jobs it shall submit and see.
    #[arg(long, value_name = "N")]
    tenant: Option<u32>,
}

#[derive(Args, Debug)]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Id of the key, the part between the two underscores.
    id: String,
}

/// A key as programs read it.
#[derive(Serialize)]
struct KeyRecord<'a> {
    id: &'a str,
    name: &'a str,
    scopes: &'a [Scope],
    tenant: u32,
    jobs_max: u32,
    rate: Option<f64>,
    burst: Option<u32>,
    created: String,
    expires: Option<String>,
    revoked: Option<String>,
    /// Only when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

/// Runs `headroom keys`.
pub(crate) fn run(command: &KeysCommand, screen: &Screen) -> Result<(), Failure> {
    match command {
        KeysCommand::Create(args) => make(args, screen),
        KeysCommand::List(args) => list(args, screen),
        KeysCommand::Revoke(args) => end(args, screen),
    }
}

fn make(args: &CreateArgs, screen: &Screen) -> Result<(), Failure> {
    let wish = KeyWish {
        name: args.name.clone(),
        scopes: args.scope.clone(),
        tenant: args.tenant,
        jobs_max: args.jobs_max,
        rate: args.rate,
        burst: args.burst,
        expires: args.expires_in.as_deref().map(expiry).transpose()?,
    };
    let (key, entry) = create(&args.data.data, wish).map_err(failure)?;
    audit(args.data.data.as_path(), "create-key", &entry, screen);
    if screen.json {
        return screen.print_json(&record(&entry, Some(&key)));
    }
    screen.note(&format!("key {} of tenant {}; it is shown this once", entry.id, entry.tenant));
    screen.print(&format!("{key}\n"))
}

fn list(args: &DataArgs, screen: &Screen) -> Result<(), Failure> {
    let keys = key_file::read(&args.data).map_err(failure)?.map(|file| file.keys).unwrap_or_default();
    if screen.json {
        return screen.print_json(&keys.iter().map(|entry| record(entry, None)).collect::<Vec<_>>());
    }
    if keys.is_empty() {
        screen.note(&format!(
            "`{}` has no keys: a plane on it listens to this machine alone",
            args.data.display()
        ));
        return Ok(());
    }
    let mut table = Table::new(&[
        ("id", Align::Left),
        ("name", Align::Left),
        ("scopes", Align::Left),
        ("tenant", Align::Right),
        ("jobs max", Align::Right),
        ("per second", Align::Right),
        ("created", Align::Left),
        ("state", Align::Left),
    ]);
    for entry in &keys {
        table.push(vec![
            entry.id.clone(),
            entry.name.clone(),
            entry.scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(","),
            entry.tenant.to_string(),
            entry.jobs_max.to_string(),
            entry.rate.map(|rate| rate.to_string()).unwrap_or_default(),
            day(entry.created),
            state(entry),
        ]);
    }
    screen.print(&table.text(""))
}

fn end(args: &RevokeArgs, screen: &Screen) -> Result<(), Failure> {
    let entry = revoke(&args.data.data, &args.id).map_err(failure)?;
    audit(args.data.data.as_path(), "revoke-key", &entry, screen);
    if screen.json {
        return screen.print_json(&record(&entry, None));
    }
    screen.note(&format!(
        "key {} ({}) is revoked; running planes refuse it within seconds",
        entry.id, entry.name
    ));
    Ok(())
}

/// The key is made or ended already: a log that cannot be written is no reason to hide that.
fn audit(folder: &std::path::Path, action: &'static str, entry: &KeyEntry, screen: &Screen) {
    if let Err(error) = write_audit(folder, &AuditEntry::on_key(action, &entry.id, &entry.name, entry.tenant))
    {
        screen.warn(&format!("the audit log was not written: {error}"));
    }
}

fn expiry(text: &str) -> Result<Timestamp, Failure> {
    let wrong = |why: String| {
        Failure::new(Status::Usage, "keys::expires-in", why).with_help("use a duration like 12h or 30d")
    };
    let span = policy::units::Duration::parse(text).map_err(|error| wrong(error.to_string()))?;
    let seconds = i64::try_from(span.as_nanos() / 1_000_000_000).unwrap_or(i64::MAX);
    let at = Timestamp::now().checked_add(jiff::SignedDuration::from_secs(seconds));
    at.map_err(|_| wrong(format!("`{text}` ends after the calendar")))
}

fn state(entry: &KeyEntry) -> String {
    match (entry.revoked, entry.expires) {
        (Some(at), _) => format!("revoked {}", day(at)),
        (None, Some(at)) if at <= Timestamp::now() => format!("expired {}", day(at)),
        (None, Some(at)) => format!("until {}", day(at)),
        (None, None) => "valid".to_owned(),
    }
}

fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

fn record<'a>(entry: &'a KeyEntry, key: Option<&'a str>) -> KeyRecord<'a> {
    KeyRecord {
        id: &entry.id,
        name: &entry.name,
        scopes: &entry.scopes,
        tenant: entry.tenant,
        jobs_max: entry.jobs_max,
        rate: entry.rate,
        burst: entry.burst,
        created: entry.created.to_string(),
        expires: entry.expires.map(|at| at.to_string()),
        revoked: entry.revoked.map(|at| at.to_string()),
        key,
    }
}

fn failure(error: KeyFileError) -> Failure {
    let status = match &error {
        KeyFileError::Io { .. } => Status::Failed,
        KeyFileError::Open { .. } | KeyFileError::Damaged { .. } => Status::InvalidInput,
        KeyFileError::Wish(_) | KeyFileError::Unknown(_) => Status::InvalidInput,
    };
    Failure::new(status, "keys::file", error.to_string())
}
