//! How much memory Linux can still give to this process: the memory that the machine has left, and what each control
//! group ("cgroup") of this process and above may still take.
//!
//! Format sources: proc_meminfo(5), proc_pid_mountinfo(5), cgroups(7), and cgroup-v1/memory.rst and cgroup-v2.rst of the
//! kernel's documentation.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes available by the files below `proc`, which is `/proc` but in tests. `None` where there are no such files.
///
/// The least of `MemAvailable` and, for each group from this process's own to the outermost that can be seen, its limit
/// minus its usage. Pages that cache files do not count as used: the kernel frees them before it refuses memory, and
/// after a large checkpoint was written or verified they are most of a group's "usage".
pub(super) fn available_bytes(proc: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(proc.join("meminfo")).ok()?;
    let machine = super::status_bytes(&meminfo, "MemAvailable:")?;
    Some(machine.min(within_groups(&proc.join("self")).unwrap_or(u64::MAX)))
}

fn within_groups(process: &Path) -> Option<u64> {
    let memberships = fs::read_to_string(process.join("cgroup")).ok()?;
    let mounts = fs::read_to_string(process.join("mountinfo")).ok()?;
    (mounts.lines())
        .filter_map(|line| Mount::parse(line)?.available_bytes(&memberships))
        .min()
}

#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

/// A mounted hierarchy of groups that counts memory.
struct Mount {
    version: Version,
    /// The group that is seen at `point`.
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// Reads a line of `mountinfo`: `36 35 0:30 ROOT POINT OPTIONS ... - TYPE SOURCE SUPER-OPTIONS`.
    fn parse(line: &str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let version = match kind.next()? {
            "cgroup2" => Version::Two,
            "cgroup" if kind.nth(1)?.split(',').any(|option| option == "memory") => Version::One,
            _ => return None,
        };
        let mut place = place.split(' ').skip(3).map(unescaped);
        Some(Self {
            version,
            root: place.next()?.into(),
            point: place.next()?.into(),
        })
    }

    /// The least that a group may still take, of the process's own and those above it.
    fn available_bytes(&self, memberships: &str) -> Option<u64> {
        let path = memberships
            .lines()
            .find_map(|line| self.version.group(line))?;
        // If the process is in a group outside of the mounted subtree, the nearest visible group is the mount's root.
        let inside = Path::new(path)
            .strip_prefix(&self.root)
            .unwrap_or(Path::new(""));
        let own = self.point.join(inside);
        (own.ancestors())
            .take_while(|group| group.starts_with(&self.point))
            .filter_map(|group| self.version.available_bytes(group))
            .min()
    }
}

impl Version {
    /// The group of a process, from the line of its `cgroup` file that is about this hierarchy: `4:memory:/group` or
    /// `0::/group`.
    fn group(self, line: &str) -> Option<&str> {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let is_meant = match self {
            Self::One => controllers.split(',').any(|name| name == "memory"),
            Self::Two => controllers.is_empty(),
        };
        is_meant.then_some(path)
    }

    /// What the processes in the group at `dir` may still take; `None` where there is no limit.
    fn available_bytes(self, dir: &Path) -> Option<u64> {
        let (limit, usage, cached) = match self {
            Self::One => (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                ["total_inactive_file", "total_active_file"],
            ),
            Self::Two => (
                "memory.max",
                "memory.current",
                ["inactive_file", "active_file"],
            ),
        };
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
        // Without a limit the file of version 2 says `max`.
        let limit: u64 = read(limit)?.trim().parse().ok()?;
        let usage: u64 = read(usage)?.trim().parse().ok()?;
        let statistics = read("memory.stat").unwrap_or_default();
        let cached = cached.map(|name| count(&statistics, name)).iter().sum();
        Some(limit.saturating_sub(usage.saturating_sub(cached)))
    }
}

/// A number of `memory.stat`, which has lines `NAME NUMBER`.
fn count(statistics: &str, name: &str) -> u64 {
    (statistics.lines())
        .filter_map(|line| line.split_once(' '))
        .find(|(found, _)| *found == name)
        .and_then(|(_, number)| number.trim().parse().ok())
        .unwrap_or(0)
}

/// A path of `mountinfo`, in which spaces, tabs, line ends and backslashes are `\` and three octal digits.
fn unescaped(path: &str) -> String {
    let mut parts = path.split('\\');
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                out += &part[3..];
            }
            None => {
                out.push('\\');
                out += part;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// A simulated machine with 24 GiB available, whose groups are below `groups` in a temporary folder.
    struct Machine(tempfile::TempDir);

    impl Machine {
        /// `mount` and `membership` are lines in which `POINT` stands for the mount point.
        fn new(membership: &str, mount: &str) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            let point = machine.0.path().join("my groups");
            let point = point.to_str().unwrap().replace(' ', "\\040");
            machine.file(
                "proc/meminfo",
                "MemTotal:       33554432 kB\nMemFree:         1048576 kB\nMemAvailable:   25165824 kB\n",
            );
            machine.file("proc/self/cgroup", membership);
            let root = "22 1 8:1 / / rw - ext4 /dev/root rw\n";
            machine.file(
                "proc/self/mountinfo",
                &format!("{root}{}", mount.replace("POINT", &point)),
            );
            machine
        }

        fn file(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn group_v1(&self, group: &str, limit: u64, usage: u64, inactive: u64, active: u64) {
            let dir = format!("my groups/{group}");
            self.file(
                &format!("{dir}/memory.limit_in_bytes"),
                &format!("{limit}\n"),
            );
            self.file(
                &format!("{dir}/memory.usage_in_bytes"),
                &format!("{usage}\n"),
            );
            let own = "cache 5\ninactive_file 1\nactive_file 2\n";
            let total = format!("total_inactive_file {inactive}\ntotal_active_file {active}\n");
            self.file(&format!("{dir}/memory.stat"), &format!("{own}{total}"));
        }

        fn group_v2(&self, group: &str, limit: &str, usage: u64, inactive: u64, active: u64) {
            let dir = format!("my groups/{group}");
            self.file(&format!("{dir}/memory.max"), &format!("{limit}\n"));
            self.file(&format!("{dir}/memory.current"), &format!("{usage}\n"));
            let cache = format!("anon 7\nfile 9\ninactive_file {inactive}\nactive_file {active}\n");
            self.file(&format!("{dir}/memory.stat"), &cache);
        }

        fn available_bytes(&self) -> Option<u64> {
            available_bytes(&self.0.path().join("proc"))
        }
    }

    const V1: &str = "35 31 0:32 / POINT rw,relatime shared:9 - cgroup cgroup rw,memory\n";
    const V2: &str = "41 31 0:38 / POINT rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn files_in_the_cache_of_version_1_are_not_taken() {
        let machine = Machine::new("5:devices:/\n4:memory:/box\n0::/\n", V1);
        // 9 GiB of a checkpoint that was written and read again, 1 GiB of a program.
        machine.group_v1("box", 16 * GIB, 10 * GIB, 6 * GIB, 3 * GIB);
        assert_eq!(machine.available_bytes(), Some(15 * GIB));
    }

    #[test]
    fn files_in_the_cache_of_version_2_are_not_taken() {
        let machine = Machine::new("0::/box\n", V2);
        let limit = (16 * GIB).to_string();
        machine.group_v2("box", &limit, 10 * GIB, 9 * GIB, 0);
        assert_eq!(machine.available_bytes(), Some(15 * GIB));
    }

    #[test]
    fn every_group_above_counts() {
        let machine = Machine::new("0::/outer/inner/own\n", V2);
        machine.group_v2("outer", &(8 * GIB).to_string(), 6 * GIB, GIB, 0);
        machine.group_v2("outer/inner", "max", 2 * GIB, 0, 0);
        machine.group_v2("outer/inner/own", &(5 * GIB).to_string(), GIB, 0, 0);
        assert_eq!(machine.available_bytes(), Some(3 * GIB));
        // The inner ones are tighter now.
        machine.group_v2("outer/inner", &(4 * GIB).to_string(), 2 * GIB, 0, 0);
        assert_eq!(machine.available_bytes(), Some(2 * GIB));
    }

    #[test]
    fn the_machine_itself_is_the_most() {
        let unlimited = Machine::new("4:memory:/\n", V1);
        unlimited.group_v1(".", 0x7fff_ffff_ffff_f000, 20 * GIB, GIB, 0);
        assert_eq!(unlimited.available_bytes(), Some(24 * GIB));
        let large = Machine::new("0::/\n", V2);
        large.group_v2(".", &(100 * GIB).to_string(), GIB, 0, 0);
        assert_eq!(large.available_bytes(), Some(24 * GIB));
        assert_eq!(Machine::new("", "").available_bytes(), Some(24 * GIB));
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_mount_point() {
        // The membership is given with the host's path.
        let mount = V1.replace(" / POINT", " /docker/1f POINT");
        let machine = Machine::new("4:memory:/docker/1f/job\n", &mount);
        machine.group_v1(".", 4 * GIB, GIB, 0, 0);
        machine.group_v1("job", 3 * GIB, GIB, 0, 0);
        assert_eq!(machine.available_bytes(), Some(2 * GIB));
        // A process that was moved to an invisible group is limited by the visible groups.
        let elsewhere = Machine::new("4:memory:/../other\n", &mount);
        elsewhere.group_v1(".", 4 * GIB, GIB, 0, 0);
        assert_eq!(elsewhere.available_bytes(), Some(3 * GIB));
    }

    #[test]
    fn a_full_group_has_nothing() {
        let machine = Machine::new("0::/box\n", V2);
        machine.group_v2("box", "1000", 2000, 100, 100);
        assert_eq!(machine.available_bytes(), Some(0));
    }

    #[test]
    fn odd_files_do_no_harm() {
        let machine = Machine::new("x\n0::\n4:memory\n", "1 2 3\n - cgroup2\n - cgroup x\n");
        assert_eq!(machine.available_bytes(), Some(24 * GIB));
        machine.file("proc/meminfo", "MemTotal: 5 kB\n");
        assert_eq!(machine.available_bytes(), None);
        assert_eq!(unescaped(r"/a\040b\134c\9"), r"/a b\c\9");
    }
}
