//! Small disks that can be filled, and files that can be damaged.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A small file system in memory. Unmounted when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one; nothing, with a line that says so, where the test may not.
    pub fn mount(at: &Path, mib: u64) -> Option<Self> {
        fs::create_dir_all(at).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(at);
        if !mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: this test mounts a small file system, which needs root");
            return None;
        }
        Some(Self(at.into()))
    }

    /// Fills it with a file, leaving so many KiB free.
    pub fn fill(&self, leaving_kib: usize) {
        let mut file = fs::File::create(self.filler()).expect("room for a name");
        let block = vec![0; 64 << 10];
        while file.write_all(&block).is_ok() {}
        let length = file.metadata().expect("its length").len();
        file.set_len(length.saturating_sub((leaving_kib << 10) as u64)).expect("cut");
    }

    /// Removes that file.
    pub fn make_room(&self) {
        fs::remove_file(self.filler()).expect("it is there");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is still open there goes with the process that has it open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The largest file of a directory with that ending.
pub fn largest(dir: &Path, ending: &str) -> PathBuf {
    let files =
        fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let files = files.filter(|path| path.extension().is_some_and(|found| found == ending));
    let size = |path: &PathBuf| fs::metadata(path).expect("its size").len();
    files.max_by_key(size).unwrap_or_else(|| panic!("no .{ending} in {}", dir.display()))
}

/// Turns some bytes around, at a place given as a part of the file's length.
pub fn damage(file: &Path, numerator: usize, denominator: usize) {
    let mut bytes = fs::read(file).expect("it is read");
    let at = bytes.len() * numerator / denominator;
    for byte in &mut bytes[at..at + 16] {
        *byte = !*byte;
    }
    fs::write(file, bytes).expect("it is written");
}
