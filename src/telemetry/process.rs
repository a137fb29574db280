//! What the kernel knows of this process and every Prometheus exporter shows: memory and open files. Only Linux keeps
//! it where it can be read without a system call of its own; elsewhere the metrics are absent.

use std::fs;

/// Returns the memory in use, in octets.
pub(super) fn resident_memory() -> Option<u64> {
    resident_in(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Returns the number of open file descriptors; the one that lists them is not counted.
pub(super) fn open_files() -> Option<u64> {
    let files = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(files.saturating_sub(1)).ok()
}

/// Finds the resident memory in the text of `/proc/self/status`, which counts in units of 1024.
fn resident_in(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_found_among_the_others() {
        let status = "Name:\tveildns\nVmHWM:\t    9000 kB\nVmRSS:\t    4812 kB\nThreads:\t3\n";
        assert_eq!(resident_in(status), Some(4812 * 1024));
        assert_eq!(resident_in("VmRSS:\tmuch\n"), None);
        assert_eq!(resident_in(""), None);
    }

    #[test]
    fn this_process_has_memory_and_open_files() {
        assert!(resident_memory().unwrap() > 0);
        assert!(open_files().unwrap() >= 3);
    }
}
