//! Which device nodes a sandbox may open or make, whoever made the node and
//! whenever: what the launcher hides by name, and what appears later.

/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_ACC_MKNOD` of `include/uapi/linux/bpf.h`.
const BLOCK: u32 = 1;
const MAKE: u32 = 1;

/// `cgroup/dev`: what carries packets past every hook, and what root's mere
/// ownership of a node would give away: disks, memory, keyboards. Numbers are
/// from the kernel's `Documentation/admin-guide/devices.txt`. Drivers that get
/// their number at run time are not known here and pass, graphics among them.
#[inline(always)]
pub const fn is_refused(access: u32, major: u32, minor: u32) -> bool {
    let (kind, wanted) = (access & 0xffff, access >> 16);
    if kind == BLOCK || wanted & MAKE != 0 {
        return true;
    }
    match major {
        // Memory: null, zero, full, random and urandom are open; mem, port and
        // kmsg are not.
        1 => !matches!(minor, 3 | 5 | 7 | 8 | 9),
        // Miscellaneous: fuse, kvm. TUN, vhost, vsock, RDMA's connection
        // manager, uinput and others of this number are not.
        10 => !matches!(minor, 229 | 232),
        13 // keyboards and mice
        | 21 // SCSI, past the file system
        | 90 // flash memory
        | 108 // PPP
        | 166 | 188 | 189 // modems and USB devices
        | 202 | 203 // registers of processors
        | 231 => true, // RDMA adapters
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_refused;

    /// Reading and writing a character device.
    const OPEN: u32 = 6 << 16 | 2;

    #[test]
    fn what_every_program_needs_is_open() {
        for (major, minor) in [
            (1, 3),
            (1, 5),
            (1, 7),
            (1, 8),
            (1, 9),
            (4, 64),
            (5, 0),
            (5, 2),
            (136, 7),
            (10, 229),
            (226, 128),
        ] {
            assert!(!is_refused(OPEN, major, minor), "{major}:{minor}");
        }
    }

    #[test]
    fn what_carries_packets_or_gives_the_machine_away_is_refused() {
        for (major, minor) in [
            (1, 1),
            (1, 4),
            (10, 200),
            (10, 223),
            (10, 238),
            (108, 0),
            (231, 1),
        ] {
            assert!(is_refused(OPEN, major, minor), "{major}:{minor}");
        }
        let read_a_disk = 2 << 16 | 1;
        assert!(is_refused(read_a_disk, 8, 0));
        let make_null = 1 << 16 | 2;
        assert!(is_refused(make_null, 1, 3));
    }
}
