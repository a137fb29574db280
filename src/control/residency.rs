//! Keeps what answers a query in memory while nobody asks. After some seconds of quiet a system short of memory writes pages
//! out (to compressed memory, on many routers), and the host of a virtual machine may take them away unasked: the next
//! query then waits for hundreds of them, one by one. So for as long as connections to servers are kept, an octet of each
//! page that the program had when the last queries came is read now and then. A busy program needs no such thing, and one
//! that nobody uses is left to the system.
//!
//! What is *not* here: memory that must not be written out at all. Nothing is locked; a system that needs the memory more
//! gets it, a little later.

use crate::telemetry::counters::Telemetry;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use tracing::debug;

/// How often pages are read. Half of the time after which some were seen to be gone.
const EVERY: Duration = Duration::from_secs(4);
/// So often after the last query: for 2 minutes, which is as long as connections to servers are kept without one.
const TIMES: u32 = 30;
/// Queries between two looks that keep all that they need in memory by themselves.
const MANY: u64 = 1000;
/// Octets of a page. Where pages are larger each is read several times, which costs a little and harms nothing.
const PAGE: usize = 4096;
/// Pages that are kept at most: 16 MiB. The program itself comes first, so that of a large cache a part is left out.
const MOST_PAGES: usize = 4096;
/// Pages of one mapping that are looked at for whether they are in memory: 64 MiB.
const MOST_LOOKS: usize = 16_384;
/// Pages read by one system call.
const AT_ONCE: usize = 64;
/// Octets of the list of mappings that are read; a usual one has 5,000.
const LONGEST_LIST: u64 = 1 << 20;
/// The bit of `/proc/PID/pagemap` that says that a page is in memory (Documentation/admin-guide/mm/pagemap.rst of Linux).
const PRESENT: u64 = 1 << 63;

/// Keeps pages as the queries that `telemetry` counts want it; for ever. Cancel safe.
pub(super) async fn keep(telemetry: &Telemetry) -> Infallible {
    let mut quiet = Quiet::default();
    let mut pages = Pages::default();
    loop {
        tokio::time::sleep(EVERY).await;
        let kept = match quiet.look(telemetry.queries()) {
            Wish::Nothing => continue,
            Wish::Renew => Pages::now().and_then(|now| {
                pages = now;
                pages.read()
            }),
            Wish::Keep => pages.read(),
        };
        if let Err(error) = kept {
            // A sandbox that forbids it, most likely: it will forbid it the next time, too.
            debug!(%error, "pages cannot be kept in memory while nobody asks");
            return std::future::pending().await;
        }
    }
}

/// What is to be done with the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Leave them to the system.
    Nothing,
    /// Find out which there are, for there were queries, and read them.
    Renew,
    /// Read them.
    Keep,
}

/// How long nobody has asked. Pure.
#[derive(Debug, Default)]
struct Quiet {
    /// Queries so far.
    queries: u64,
    /// Looks without a new one. None before the first look, and while there are many: then there is no list of pages, or
    /// an old one.
    looks: Option<u32>,
}

impl Quiet {
    /// Takes the number of queries so far.
    fn look(&mut self, queries: u64) -> Wish {
        let new = queries.saturating_sub(self.queries);
        self.queries = queries;
        match (new, self.looks) {
            (MANY.., _) => {
                self.looks = None;
                Wish::Nothing
            }
            (1.., _) | (0, None) => {
                self.looks = Some(0);
                Wish::Renew
            }
            (0, Some(looks)) if looks < TIMES => {
                self.looks = Some(looks + 1);
                Wish::Keep
            }
            (0, Some(_)) => Wish::Nothing,
        }
    }
}

/// A mapping of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    /// Where it is.
    addresses: Range<usize>,
    /// Whether it is of a file.
    is_file: bool,
}

impl Mapping {
    /// Reads a line of `/proc/PID/maps` (`proc_pid_maps(5)`); None for what cannot be read, is shared, or is the kernel's.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?;
        let path = fields.nth(3).unwrap_or_default();
        let is_ours = permissions.starts_with('r') && permissions.ends_with('p');
        if !is_ours || path.starts_with("[v") {
            return None;
        }
        let address = |text| usize::from_str_radix(text, 16).ok();
        Some(Self { addresses: address(start)?..address(end)?, is_file: path.starts_with('/') })
    }

    /// Returns the number of its pages.
    fn pages(&self) -> usize {
        self.addresses.len() / PAGE
    }
}

/// Pages that were in memory.
#[derive(Debug, Default)]
struct Pages {
    /// Where they are; each range is of whole pages.
    ranges: Vec<Range<usize>>,
    /// How many.
    count: usize,
}

impl Pages {
    /// Returns those that are in memory now, up to `MOST_PAGES`: of the program's file and its libraries first, then of
    /// small mappings (stacks, say), and at last of the heap.
    fn now() -> io::Result<Self> {
        let list = io::read_to_string(io::Read::take(File::open("/proc/self/maps")?, LONGEST_LIST))?;
        let mut mappings: Vec<Mapping> = list.lines().filter_map(Mapping::parse).collect();
        mappings.sort_by_key(|mapping| (!mapping.is_file, mapping.pages()));
        let present = File::open("/proc/self/pagemap")?;
        let mut pages = Self::default();
        for mapping in &mappings {
            pages.add(mapping, &present)?;
        }
        Ok(pages)
    }

    /// Adds those of a mapping that are in memory, as `present` tells.
    fn add(&mut self, mapping: &Mapping, present: &File) -> io::Result<()> {
        let mut bits = [0; AT_ONCE * 8];
        for first in (0..mapping.pages().min(MOST_LOOKS)).step_by(AT_ONCE) {
            let start = mapping.addresses.start + first * PAGE;
            let wanted = (mapping.pages() - first).min(AT_ONCE) * 8;
            let Some(bits) = bits.get_mut(..wanted) else { return Ok(()) };
            present.read_exact_at(bits, u64::try_from(start / PAGE * 8).unwrap_or(u64::MAX))?;
            let entries = bits.as_chunks::<8>().0.iter().enumerate();
            let there = entries.filter(|(_, entry)| u64::from_ne_bytes(**entry) & PRESENT != 0);
            let room = MOST_PAGES.saturating_sub(self.count);
            there.take(room).for_each(|(place, _)| self.push(start + place * PAGE));
        }
        Ok(())
    }

    /// Adds the page that begins at `address`.
    fn push(&mut self, address: usize) {
        self.count += 1;
        match self.ranges.last_mut() {
            Some(last) if last.end == address => last.end += PAGE,
            _ => self.ranges.push(address..address + PAGE),
        }
    }

    /// Reads an octet of each. One that is gone meanwhile is passed over.
    fn read(&self) -> io::Result<()> {
        let mut addresses = self.ranges.iter().flat_map(|range| range.clone().step_by(PAGE));
        let mut some: Vec<RemoteIoVec> = Vec::with_capacity(AT_ONCE);
        loop {
            some.extend(addresses.by_ref().take(AT_ONCE).map(|base| RemoteIoVec { base, len: 1 }));
            if some.is_empty() {
                return Ok(());
            }
            read_some(&some)?;
            some.clear();
        }
    }
}

/// Reads what `places` name, up to `AT_ONCE` octets, but those that are gone.
fn read_some(mut places: &[RemoteIoVec]) -> io::Result<()> {
    let mut octets = [0; AT_ONCE];
    while !places.is_empty() {
        let read = match process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut octets)], places) {
            Ok(read) => read,
            Err(Errno::EFAULT) => 0,
            Err(error) => return Err(error.into()),
        };
        // It ends before the first that is gone.
        places = places.get(read + 1..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_kept_for_two_minutes_after_the_last_query() {
        let mut quiet = Quiet::default();
        assert_eq!(quiet.look(0), Wish::Renew, "the start counts as a query");
        assert_eq!(quiet.look(3), Wish::Renew);
        for _ in 0..TIMES {
            assert_eq!(quiet.look(3), Wish::Keep);
        }
        for _ in 0..3 {
            assert_eq!(quiet.look(3), Wish::Nothing);
        }
        assert_eq!(quiet.look(4), Wish::Renew);
        assert_eq!(quiet.look(4), Wish::Keep);
    }

    #[test]
    fn a_busy_program_keeps_its_pages_by_itself() {
        let mut quiet = Quiet::default();
        for looks in 1..=3 {
            assert_eq!(quiet.look(MANY * looks), Wish::Nothing);
        }
        assert_eq!(quiet.look(MANY * 3), Wish::Renew, "the list is old");
        assert_eq!(quiet.look(MANY * 4 - 1), Wish::Renew);
        assert_eq!(quiet.look(MANY * 4 - 1), Wish::Keep);
    }

    #[test]
    fn mappings_of_our_own_are_told_from_others() {
        let file = "55d4c8130000-55d4c830d000 r-xp 00001000 fe:00 1234    /usr/bin/veil dns";
        let wanted = Mapping { addresses: 0x55d4_c813_0000..0x55d4_c830_d000, is_file: true };
        assert_eq!(Mapping::parse(file), Some(wanted));
        let heap = "55d4f4147000-55d4f4168000 rw-p 00000000 00:00 0       [heap]";
        assert!(Mapping::parse(heap).is_some_and(|heap| !heap.is_file && heap.pages() == 33));
        assert!(Mapping::parse("7f68d2372000-7f68d2572000 rw-p 00000000 00:00 0").is_some());
        for other in [
            "7f68c4021000-7f68c8000000 ---p 00000000 00:00 0",
            "7f68c4021000-7f68c8000000 rw-s 00000000 00:01 7 /dev/zero",
            "7f68d2984000-7f68d2988000 r--p 00000000 00:00 0   [vvar]",
            "7f68d2984000-7f68d2988000 r--p 00000000 00:00 0   [vvar_vclock]",
            "7f68d298a000-7f68d298c000 r-xp 00000000 00:00 0   [vdso]",
            "7f68d298a000 r-xp",
            "nothing",
            "",
        ] {
            assert_eq!(Mapping::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_pages_of_this_process_are_found_and_can_be_read() {
        let mine = vec![1_u8; 64 * PAGE];
        let pages = Pages::now().unwrap();
        assert!((64..=MOST_PAGES).contains(&pages.count), "{}", pages.count);
        assert_eq!(pages.ranges.iter().map(|range| range.len() / PAGE).sum::<usize>(), pages.count);
        let start = mine.as_ptr().addr().next_multiple_of(PAGE);
        let place = start + 32 * PAGE;
        assert!(pages.ranges.iter().any(|range| range.contains(&place)) || pages.count == MOST_PAGES);
        pages.read().unwrap();
    }

    #[test]
    fn pages_that_are_gone_are_passed_over() {
        let mine = [1_u8; AT_ONCE];
        let there = RemoteIoVec { base: mine.as_ptr().addr(), len: 1 };
        // No process may map its first page (vm.mmap_min_addr).
        let gone = RemoteIoVec { base: 0, len: 1 };
        for places in [&[gone][..], &[gone, there], &[there, gone, there], &[gone; 3], &[there; AT_ONCE], &[]]
        {
            read_some(places).unwrap();
        }
    }
}
