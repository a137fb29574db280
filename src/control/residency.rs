//! Keeps what answers a query in memory while nobody asks. The host of a virtual machine may take pages away that were not
//! used for some seconds: the next query then waits for hundreds of them, one by one. So for as long as connections to
//! servers are kept, an octet of each page that the program had when the last queries came is read now and then. A program
//! that nobody uses is left to the system.
//!
//! What is *not* here: memory that must not be written out at all. Nothing is locked. A system that is short of memory
//! counts a read by way of the kernel as use, but as less than the program's own (Linux, `mm/gup.c`): it takes such pages
//! later, not never.

use crate::telemetry::counters::Telemetry;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use tokio::task::yield_now;
use tracing::debug;

/// How often pages are read. A third of the time after which some were seen to be gone.
const EVERY: Duration = Duration::from_secs(4);
/// Queries between two looks with which there is nothing to do: they keep what they need in memory themselves. 100 a second.
const MANY: u64 = 400;
/// So often after the last query: for 2 minutes, which is as long as connections to servers are kept without one.
const TIMES: u32 = 30;
/// Octets that are kept at most. The program itself comes first, so that of a large cache a part is left out.
const MOST_OCTETS: usize = 16 << 20;
/// Octets of one mapping of which is looked at whether they are in memory.
const MOST_LOOKED_AT: usize = 64 << 20;
/// Pages read by one system call. The control thread does nothing else meanwhile, which is long when a page has to come
/// from a slow disk.
const AT_ONCE: usize = 64;
/// Octets of the list of mappings that are read; a usual one has 5,000.
const LONGEST_LIST: u64 = 1 << 20;
/// Octets of an entry of `/proc/PID/pagemap` (Documentation/admin-guide/mm/pagemap.rst of Linux).
const ENTRY: usize = 8;
/// The bit of an entry that says that the page is in memory.
const PRESENT: u64 = 1 << 63;

/// Keeps pages as the queries that `telemetry` counts want it; for ever. Cancel safe.
pub(super) async fn keep(telemetry: &Telemetry) -> Infallible {
    let mut quiet = Quiet::default();
    let mut pages = Pages::default();
    loop {
        tokio::time::sleep(EVERY).await;
        match look(&mut quiet, &pages, telemetry.queries()).await {
            Ok(None) => {}
            Ok(Some(now)) => pages = now,
            Err(error) if is_for_good(&error) => {
                debug!(%error, "pages cannot be kept in memory while nobody asks");
                return std::future::pending().await;
            }
            Err(error) => {
                debug!(%error, "pages were not kept in memory this time");
                (quiet, pages) = Default::default();
            }
        }
    }
}

/// Reads the pages unless nobody has asked for long. Returns those that there are now, if there were new queries.
async fn look(quiet: &mut Quiet, pages: &Pages, queries: u64) -> io::Result<Option<Pages>> {
    let wish = quiet.look(queries);
    if wish != Wish::Nothing {
        pages.read().await?;
    }
    // After reading: what is gone by now, and comes back, is among them.
    if wish == Wish::Renew { Pages::now().await.map(Some) } else { Ok(None) }
}

/// Tells errors that come again: a sandbox that forbids it, a kernel that lacks it.
fn is_for_good(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied, UnexpectedEof, Unsupported};
    matches!(error.kind(), NotFound | PermissionDenied | UnexpectedEof | Unsupported)
}

/// What is to be done with the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Leave them to the system, or to the queries that use them.
    Nothing,
    /// Read them.
    Keep,
    /// Read them, then find out anew which there are, for there were queries.
    Renew,
}

/// How long nobody has asked. Pure.
#[derive(Debug, Default)]
struct Quiet {
    /// Queries so far.
    queries: u64,
    /// Looks without a new one since it was last found out which pages there are; None before that.
    looks: Option<u32>,
}

impl Quiet {
    /// Takes the number of queries so far.
    fn look(&mut self, queries: u64) -> Wish {
        let new = queries.saturating_sub(self.queries);
        self.queries = queries;
        if new >= MANY {
            self.looks = None;
            return Wish::Nothing;
        }
        let looks = self.looks.filter(|_| new == 0);
        self.looks = Some(looks.map_or(0, |looks| looks.saturating_add(1)));
        match looks {
            None => Wish::Renew,
            Some(TIMES..) => Wish::Nothing,
            Some(_) => Wish::Keep,
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

    /// Returns the octets that it has.
    fn size(&self) -> usize {
        self.addresses.len()
    }
}

/// Pages that were in memory.
#[derive(Debug, Default)]
struct Pages {
    /// Octets of one.
    size: usize,
    /// Where they are; each range is of whole pages.
    ranges: Vec<Range<usize>>,
    /// How many.
    count: usize,
}

impl Pages {
    /// Returns those that are in memory now, up to `MOST_OCTETS`: of the program's file and its libraries first, then of
    /// small mappings (stacks, say), and at last of the heap.
    async fn now() -> io::Result<Self> {
        let mut list = Vec::new();
        File::open("/proc/self/maps")?.take(LONGEST_LIST).read_to_end(&mut list)?;
        let list = String::from_utf8_lossy(&list);
        let mut mappings: Vec<Mapping> = list.lines().filter_map(Mapping::parse).collect();
        mappings.sort_by_key(|mapping| (!mapping.is_file, mapping.size()));
        let present = File::open("/proc/self/pagemap")?;
        let mut pages = Self { size: page_size()?, ..Self::default() };
        for mapping in &mappings {
            pages.add(mapping, &present)?;
            yield_now().await;
        }
        Ok(pages)
    }

    /// Adds those of a mapping that are in memory, as `present` tells.
    fn add(&mut self, mapping: &Mapping, present: &File) -> io::Result<()> {
        let all = mapping.size().min(MOST_LOOKED_AT) / self.size;
        let mut entries = [0; AT_ONCE * ENTRY];
        for first in (0..all).step_by(AT_ONCE) {
            let room = (MOST_OCTETS / self.size).saturating_sub(self.count);
            let Some(entries) = entries.get_mut(..(all - first).min(AT_ONCE) * ENTRY).filter(|_| room > 0)
            else {
                return Ok(());
            };
            let start = mapping.addresses.start + first * self.size;
            present.read_exact_at(entries, place_of_entry(start, self.size))?;
            let entries = entries.as_chunks::<ENTRY>().0.iter().enumerate();
            let there = entries.filter(|(_, entry)| u64::from_ne_bytes(**entry) & PRESENT != 0);
            there.take(room).for_each(|(place, _)| self.push(start + place * self.size));
        }
        Ok(())
    }

    /// Adds the page that begins at `address`.
    fn push(&mut self, address: usize) {
        self.count += 1;
        match self.ranges.last_mut() {
            Some(last) if last.end == address => last.end += self.size,
            _ => self.ranges.push(address..address + self.size),
        }
    }

    /// Reads an octet of each. One that is gone meanwhile is passed over.
    async fn read(&self) -> io::Result<()> {
        let mut addresses = self.ranges.iter().flat_map(|range| range.clone().step_by(self.size));
        let mut some: Vec<RemoteIoVec> = Vec::with_capacity(AT_ONCE);
        loop {
            some.extend(addresses.by_ref().take(AT_ONCE).map(|base| RemoteIoVec { base, len: 1 }));
            if some.is_empty() {
                return Ok(());
            }
            read_some(&some)?;
            some.clear();
            yield_now().await;
        }
    }
}

/// Returns the octets of a page: 4,096, or 16 or 64 KiB on some ARM machines.
fn page_size() -> io::Result<usize> {
    let size = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| usize::try_from(size).ok());
    size.filter(|size| *size > 0).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Returns where the entry of the page at `address` is in `/proc/PID/pagemap`.
fn place_of_entry(address: usize, page: usize) -> u64 {
    address.checked_div(page).and_then(|number| u64::try_from(number * ENTRY).ok()).unwrap_or(u64::MAX)
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
    fn while_many_queries_come_nothing_is_done_and_what_they_used_is_kept_after_them() {
        let mut quiet = Quiet::default();
        assert_eq!(quiet.look(0), Wish::Renew);
        for queries in [MANY, 3 * MANY, 10 * MANY] {
            assert_eq!(quiet.look(queries), Wish::Nothing);
        }
        assert_eq!(quiet.look(10 * MANY), Wish::Renew);
        assert_eq!(quiet.look(10 * MANY), Wish::Keep);
        assert_eq!(quiet.look(11 * MANY - 1), Wish::Renew, "few");
        assert_eq!(quiet.look(12 * MANY - 1), Wish::Nothing);
        assert_eq!(quiet.look(13 * MANY - 2), Wish::Renew, "few after many");
    }

    #[test]
    fn the_list_of_what_is_in_memory_is_read_by_pages_of_the_machine() {
        for (page, place) in
            [(4096, 0x5_5d4c_8130 * 8), (16_384, 0x1_5753_204c * 8), (65_536, 0x55d4_c813 * 8)]
        {
            assert_eq!(place_of_entry(0x55d4_c813_0000, page), place, "{page}");
        }
        assert_eq!(page_size().unwrap() % 4096, 0);
    }

    #[test]
    fn mappings_of_our_own_are_told_from_others() {
        let file = "55d4c8130000-55d4c830d000 r-xp 00001000 fe:00 1234    /usr/bin/veil dns";
        let wanted = Mapping { addresses: 0x55d4_c813_0000..0x55d4_c830_d000, is_file: true };
        assert_eq!(Mapping::parse(file), Some(wanted));
        let heap = "55d4f4147000-55d4f4168000 rw-p 00000000 00:00 0       [heap]";
        assert!(Mapping::parse(heap).is_some_and(|heap| !heap.is_file && heap.size() == 33 * 4096));
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

    #[tokio::test]
    async fn the_pages_of_this_process_are_found_and_can_be_read() {
        let page = page_size().unwrap();
        let mine = vec![1_u8; 64 * page];
        let pages = match Pages::now().await {
            Err(error) if is_for_good(&error) => return eprintln!("not looked at here: {error}"),
            pages => pages.unwrap(),
        };
        let most = MOST_OCTETS / page;
        assert!((1..=most).contains(&pages.count), "{}", pages.count);
        assert_eq!(pages.ranges.iter().map(|range| range.len() / page).sum::<usize>(), pages.count);
        let place = mine.as_ptr().addr() + 32 * page;
        assert!(pages.ranges.iter().any(|range| range.contains(&place)) || pages.count == most);
        match pages.read().await {
            Err(error) if is_for_good(&error) => eprintln!("not read here: {error}"),
            read => read.unwrap(),
        }
    }

    #[test]
    fn pages_that_are_gone_are_passed_over() {
        let mine = [1_u8; AT_ONCE];
        let there = RemoteIoVec { base: mine.as_ptr().addr(), len: 1 };
        // No program maps its first page.
        let gone = RemoteIoVec { base: 0, len: 1 };
        for places in [&[gone][..], &[gone, there], &[there, gone, there], &[gone; 3], &[there; AT_ONCE], &[]]
        {
            match read_some(places) {
                Err(error) if is_for_good(&error) => eprintln!("not read here: {error}"),
                read => read.unwrap(),
            }
        }
    }

    #[test]
    fn errors_that_come_again_are_told_from_those_that_pass() {
        for errno in [Errno::EPERM, Errno::EACCES, Errno::ENOSYS, Errno::ENOENT] {
            assert!(is_for_good(&errno.into()), "{errno}");
        }
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM] {
            assert!(!is_for_good(&errno.into()), "{errno}");
        }
    }
}
