//! Disks in trouble: a small one that can be filled, and one whose syncs are slow.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A disk of its own, in memory.
pub(crate) struct SmallDisk {
    place: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where nothing may be mounted, which is said.
    pub(crate) fn mount(mebibytes: u32) -> Option<Self> {
        let place = tempfile::tempdir().expect("a folder");
        let size = format!("size={mebibytes}m");
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(place.path()).output();
        if done.is_ok_and(|done| done.status.success()) {
            return Some(Self { place });
        }
        let what = "no small disk can be mounted here (it needs root), so a full disk is not tested";
        assert!(std::env::var_os("HEADROOM_REQUIRE_MOUNT").is_none(), "{what}");
        eprintln!("skipped: {what}");
        None
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    fn filler(&self) -> PathBuf {
        self.place.path().join("filler")
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) {
        let mut file =
            std::fs::File::options().create(true).append(true).open(self.filler()).expect("a file");
        for piece in [1 << 20, 4096, 1] {
            let bytes = vec![0; piece];
            while file.write_all(&bytes).is_ok() {}
        }
    }

    /// Gives it back.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.filler()).expect("the filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.place.path()).status();
    }
}

/// A library that makes every sync of a process take as long as a file says.
pub(crate) struct SlowSyncs {
    folder: tempfile::TempDir,
}

impl SlowSyncs {
    /// `None` where there is no C compiler, which is said.
    pub(crate) fn build() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/slow_syncs.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(folder.path().join("slow_syncs.so"))
            .arg(source)
            .stdin(Stdio::null())
            .status();
        match built {
            Ok(status) => {
                assert!(status.success(), "the library compiles");
                let slow = Self { folder };
                slow.take(Duration::ZERO);
                Some(slow)
            }
            Err(error) => {
                eprintln!(
                    "skipped: there is no C compiler `cc` here ({error}), so a slow disk is not tested"
                );
                None
            }
        }
    }

    /// From now on each sync takes so much longer.
    pub(crate) fn take(&self, longer: Duration) {
        // Whole or not at all: it may be read at this moment.
        let (fresh, file) = (self.folder.path().join("fresh"), self.folder.path().join("longer"));
        std::fs::write(&fresh, longer.as_millis().to_string()).expect("a file");
        std::fs::rename(fresh, file).expect("a file");
    }

    /// What a process needs to be slowed down.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        vec![("LD_PRELOAD", path("slow_syncs.so")), ("HEADROOM_TEST_SYNC_MS", path("longer"))]
    }
}
