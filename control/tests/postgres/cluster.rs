//! A PostgreSQL of the tests' own, in a temporary folder on a free port; gone with its last user.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A database server.
pub(crate) struct Cluster {
    bin: PathBuf,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
    server: Mutex<Option<Child>>,
    databases: Mutex<u32>,
}

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

impl Cluster {
    /// A server for tests that leave it alone; `None` where there is no PostgreSQL, which is said.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = shared.upgrade() {
            return Some(cluster);
        }
        let cluster = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&cluster);
        Some(cluster)
    }

    /// A server of one's own.
    pub(crate) fn start() -> Option<Self> {
        Self::start_in(&[], "127.0.0.1")
    }

    /// The same, begun by `prefix` (to run it in a network namespace) and listening at `listen`.
    pub(crate) fn start_in(prefix: &[&str], listen: &str) -> Option<Self> {
        let Some(bin) = binaries() else {
            let what = "there is no PostgreSQL (Debian: apt install postgresql), so this is not tested";
            assert!(std::env::var_os("HEADROOM_REQUIRE_POSTGRES").is_none(), "{what}");
            eprintln!("skipped: {what}");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("headroom-pg").tempdir().expect("a folder");
        if is_root() {
            let owned = Command::new("chown").arg("postgres").arg(folder.path()).status().expect("chown");
            assert!(owned.success(), "user postgres owns its folder");
        }
        let data = folder.path().join("data");
        let made = as_owner(Command::new(bin.join("initdb")))
            .args(["-A", "trust", "-U", "postgres", "-N", "--no-locale", "-E", "UTF8", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status();
        assert!(made.expect("initdb").success(), "initdb makes a cluster");
        let access = data.join("pg_hba.conf");
        std::fs::write(access, "host all all all trust\nlocal all all trust\n").expect("pg_hba.conf");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let cluster = Self { bin, folder, port, server: Mutex::new(None), databases: Mutex::new(0) };
        cluster.run(prefix, listen);
        Some(cluster)
    }

    fn run(&self, prefix: &[&str], listen: &str) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("a log");
        let mut command = match prefix {
            [] => as_owner(Command::new(self.bin.join("postgres"))),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments);
                if is_root() {
                    command.args(["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]);
                }
                command.arg(self.bin.join("postgres"));
                command
            }
        };
        let server = command
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args(["-p", &self.port.to_string()])
            .args(["-c", &format!("listen_addresses={listen}"), "-c", "max_connections=200"])
            .args(["-c", &format!("unix_socket_directories={}", self.folder.path().display())])
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("postgres");
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        let until = Instant::now() + Duration::from_secs(60);
        while !self.sql("postgres", "SELECT 1") {
            assert!(Instant::now() < until, "the server answers: {}", self.folder.path().display());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs with TLS from the next start on; the certificate to trust. `None` where there is no openssl to make one.
    pub(crate) fn secure(&self) -> Option<PathBuf> {
        let data = self.folder.path().join("data");
        let made = as_owner(Command::new("openssl"))
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=headroom"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
            .arg(data.join("server.key"))
            .arg("-out")
            .arg(data.join("server.crt"))
            .stderr(Stdio::null())
            .status();
        if !made.is_ok_and(|made| made.success()) {
            eprintln!("skipped: there is no openssl to make a certificate");
            return None;
        }
        let settings = std::fs::File::options().append(true).open(data.join("postgresql.conf"));
        std::io::Write::write_all(&mut settings.expect("settings"), b"ssl = on\n").expect("settings");
        let copy = self.folder.path().join("trust.crt");
        std::fs::copy(data.join("server.crt"), &copy).expect("a copy");
        std::fs::write(data.join("pg_hba.conf"), "hostssl all all all trust\nlocal all all trust\n")
            .expect("pg_hba.conf");
        Some(copy)
    }

    /// Ends the server; whatever it did not commit is lost.
    pub(crate) fn stop(&self) {
        if let Some(mut server) = self.server.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status();
            let _ = server.wait();
        }
    }

    /// Starts it again.
    pub(crate) fn start_again(&self) {
        self.run(&[], "127.0.0.1");
    }

    /// Runs SQL by `psql`, over the server's own socket; whether it worked.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> bool {
        self.query(database, sql).is_some()
    }

    /// What `psql` prints.
    pub(crate) fn query(&self, database: &str, sql: &str) -> Option<String> {
        let output = Command::new(self.bin.join("psql"))
            .args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql])
            .args(["-h", &self.folder.path().display().to_string(), "-p", &self.port.to_string()])
            .output()
            .expect("psql");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Makes a database; its name.
    pub(crate) fn database(&self) -> String {
        let mut count = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        let name = format!("t{count}");
        assert!(self.sql("postgres", &format!("CREATE DATABASE {name}")), "a database");
        name
    }

    /// How to connect to a database.
    pub(crate) fn connection(&self, host: &str, database: &str) -> String {
        format!("host={host} port={} user=postgres dbname={database}", self.port)
    }

    /// A folder that the server may use.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id");
    String::from_utf8_lossy(&id.stdout).trim() == "0"
}

/// PostgreSQL does not run as root.
fn as_owner(mut command: Command) -> Command {
    if is_root() {
        let id = |what: &str| {
            let id = Command::new("id").args([what, "postgres"]).output().expect("id");
            String::from_utf8_lossy(&id.stdout).trim().parse::<u32>().expect("there is a user postgres")
        };
        command.uid(id("-u")).gid(id("-g")).current_dir("/");
    }
    command
}

/// The folder of `initdb` and its kin: `HEADROOM_PGBIN`, Debian's, or on the path.
fn binaries() -> Option<PathBuf> {
    let named = std::env::var_os("HEADROOM_PGBIN").map(PathBuf::from);
    let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    debian.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).collect::<Vec<_>>();
    let all = named.into_iter().chain(debian.into_iter().rev()).chain(on_path);
    all.into_iter().find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}
