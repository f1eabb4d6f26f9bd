//! Room of a pipe: how much it takes in one write(2), and how it grows.
//!
//! A pipe is a ring of slots of at most a page each. A write fills the last slot if the part of its
//! length that exceeds whole pages fits there, and takes new slots for the rest (`pipe_write` in
//! Linux's fs/pipe.c). Two slots in a row therefore hold more than a page together, except for the
//! first slot, which may be read in part.

/// Number of bytes that a pipe takes in one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Now, at least.
    pub(crate) now: usize,
    /// When it is empty.
    pub(crate) empty: usize,
}

/// Largest number of slots that `bytes` bytes may take in a pipe.
#[cfg(any(test, target_os = "linux", target_os = "android"))]
fn slots_of(bytes: usize, page: usize) -> usize {
    match bytes.checked_sub(1) {
        None => 0,
        // At least one byte of the first slot, more than a page in each two of the others, and one
        // slot may be left over.
        Some(others) => 2 + 2 * (others / (page + 1)),
    }
}

/// Room of a pipe of `size` bytes that holds `waiting` bytes.
#[cfg(any(test, target_os = "linux", target_os = "android"))]
fn room(size: usize, waiting: usize, page: usize) -> Room {
    let free = (size / page).saturating_sub(slots_of(waiting, page));
    Room { now: free * page, empty: size }
}

/// Capacity that a pipe needs to take `len` bytes in one write, in bytes: in addition to what waits
/// in it, as long as that does not exceed `usual`.
#[cfg(any(test, target_os = "linux", target_os = "android"))]
fn wanted(len: usize, waiting: usize, usual: usize, page: usize) -> usize {
    let own = len.div_ceil(page);
    let beside = own.saturating_add(slots_of(waiting, page)).min(usual / page);
    own.max(beside).saturating_mul(page)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) use self::linux::make_room;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::sync::OnceLock;

    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    use super::{Room, room, wanted};
    use crate::sys::LARGEST_PIPE;

    /// Largest capacity for one buffer, in bytes: what waits in a pipe is memory of the kernel.
    const AT_ONCE_MAX: usize = 64 << 20;

    /// Grows a pipe so that it takes `len` bytes in one write, as far as the system allows. Returns
    /// its room, or `None` if it is no pipe. `refused` is the smallest capacity that the system has
    /// refused, in bytes.
    pub(in crate::sys) fn make_room(fd: &OwnedFd, len: usize, refused: &mut usize) -> Option<Room> {
        let page = page();
        let mut size = usize::try_from(fcntl(fd, FcntlArg::F_GETPIPE_SZ).ok()?).ok()?;
        let waiting = waiting(fd)?;
        let wanted = wanted(len.min(AT_ONCE_MAX), waiting, LARGEST_PIPE, page);
        for wanted in [wanted, LARGEST_PIPE.min(wanted)] {
            if wanted <= size || wanted >= *refused {
                continue;
            }
            // The kernel rounds up to a power of two of pages, and refuses more than pipe-max-size
            // or the allowance of the user (`pipe-user-pages-soft`, pipe(7)).
            let wish = libc::c_int::try_from(wanted).ok()?;
            match fcntl(fd, FcntlArg::F_SETPIPE_SZ(wish))
                .ok()
                .and_then(|size| usize::try_from(size).ok())
            {
                Some(grown) => size = grown,
                None => *refused = wanted, // a refused capacity is not tried again
            }
        }
        Some(room(size, waiting, page))
    }

    /// Number of bytes in the pipe.
    fn waiting(fd: &OwnedFd) -> Option<usize> {
        let mut count: libc::c_int = 0;
        // SAFETY: FIONREAD (pipe(7)) writes an int to where the third argument points.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) };
        if result == -1 { None } else { usize::try_from(count).ok() }
    }

    /// Size of a page, in bytes.
    fn page() -> usize {
        static PAGE: OnceLock<usize> = OnceLock::new();
        *PAGE.get_or_init(|| {
            // SAFETY: sysconf only reads a number.
            let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            usize::try_from(size)
                .ok()
                .filter(|size| *size > 0)
                .unwrap_or(super::super::POLLED_WRITE_MAX)
        })
    }
}

/// Other systems do not say how much a pipe holds.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn make_room(
    _fd: &std::os::fd::OwnedFd,
    _len: usize,
    _refused: &mut usize,
) -> Option<Room> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    #[test]
    fn an_empty_pipe_takes_all_that_it_holds() {
        assert_eq!(room(16 * PAGE, 0, PAGE), Room { now: 16 * PAGE, empty: 16 * PAGE });
    }

    #[test]
    fn what_waits_may_take_up_more_slots_than_it_has_pages() {
        for (bytes, slots) in
            [(1, 2), (PAGE + 1, 2), (PAGE + 2, 4), (2 * PAGE + 2, 4), (2 * PAGE + 3, 6)]
        {
            assert_eq!(slots_of(bytes, PAGE), slots, "{bytes}");
        }
        assert_eq!(room(4 * PAGE, PAGE + 2, PAGE).now, 0);
        assert_eq!(room(4 * PAGE, 4 * PAGE, PAGE).now, 0);
    }

    /// Writes of all kinds into a ring like that of the kernel, some read in part: the estimate is
    /// never too low.
    #[test]
    fn no_order_of_writes_takes_up_more_slots_than_estimated() {
        let mut seed = 1_u64;
        let mut random = |below: usize| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        // Of each slot, where its data begins and ends.
        let mut wake: std::collections::VecDeque<(usize, usize)> =
            std::collections::VecDeque::new();
        for _ in 0..100_000 {
            let mut len = match random(4) {
                0 => 1 + random(10),
                1 => PAGE / 2 + random(10),
                2 => 1 + random(PAGE),
                _ => 1 + random(4 * PAGE),
            };
            if let Some((_, end)) = wake.back_mut()
                && *end + len % PAGE <= PAGE
            {
                *end += len % PAGE;
                len -= len % PAGE;
            }
            while len > 0 {
                wake.push_back((0, len.min(PAGE)));
                len -= len.min(PAGE);
            }
            let mut read = random(3 * PAGE);
            while let Some((start, end)) = wake.front_mut()
                && read > 0
            {
                let step = read.min(*end - *start);
                *start += step;
                read -= step;
                if start == end {
                    wake.pop_front();
                }
            }
            let waiting = wake.iter().map(|(start, end)| end - start).sum();
            assert!(
                wake.len() <= slots_of(waiting, PAGE),
                "{} slots for {waiting} bytes",
                wake.len()
            );
            if wake.len() > 300 {
                wake.clear();
            }
        }
    }

    #[test]
    fn a_pipe_grows_for_header_and_buffer_and_to_its_usual_size_for_what_waits() {
        let usual = 256 * PAGE;
        assert_eq!(wanted(65_530 + 20, 0, usual, PAGE), 17 * PAGE);
        assert_eq!(wanted(65_530 + 20, 65_550, usual, PAGE), 49 * PAGE);
        assert_eq!(wanted(PAGE + 1, 1 << 30, usual, PAGE), usual);
        assert_eq!(wanted(2 * usual, 1 << 30, usual, PAGE), 2 * usual);
    }
}
