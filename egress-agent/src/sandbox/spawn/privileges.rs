//! Giving every privilege away, and reading back that it is gone.

use super::{Failure, Step};
use crate::sandbox::user::User;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{self, CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

/// No kernel has more: a set is 64 bits wide.
const MOST_CAPABILITIES: u32 = 64;

const NONE: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::empty(),
    permitted: CapabilitySet::empty(),
    inheritable: CapabilitySet::empty(),
};

/// Becomes `user` with no capability and no way to any.
///
/// The order matters: what needs a capability comes before the capabilities go.
pub(super) fn give_away(user: &User) -> Result<(), Failure> {
    let at = |step| move |errno| Failure::new(step, errno);
    for number in 0..MOST_CAPABILITIES {
        match thread::remove_capability_from_bounding_set(capability(number)) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(Errno::INVAL) if number > 0 => break,
            Err(errno) => return Err(Failure::new(Step::BoundingSet, errno)),
        }
    }
    lock_secure_bits().map_err(at(Step::SecureBits))?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    thread::set_thread_groups(&[]).map_err(at(Step::Groups))?;
    thread::set_thread_res_gid(gid, gid, gid).map_err(at(Step::Group))?;
    thread::set_thread_res_uid(uid, uid, uid).map_err(at(Step::User))?;
    thread::set_capabilities(None, NONE).map_err(at(Step::Capabilities))?;
    thread::clear_ambient_capability_set().map_err(at(Step::Capabilities))?;
    thread::set_no_new_privs(true).map_err(at(Step::NoNewPrivileges))?;
    verify(uid, gid).map_err(at(Step::Verify))
}

fn capability(number: u32) -> CapabilitySet {
    CapabilitySet::from_bits_retain(1 << number)
}

/// With these, exec as uid 0 gains nothing, and nothing undoes it.
fn lock_secure_bits() -> Result<(), Errno> {
    type Bits = CapabilitiesSecureBits;
    let locked = Bits::NO_ROOT
        | Bits::NO_ROOT_LOCKED
        | Bits::KEEP_CAPS_LOCKED
        | Bits::NO_CAP_AMBIENT_RAISE
        | Bits::NO_CAP_AMBIENT_RAISE_LOCKED;
    thread::set_capabilities_secure_bits(thread::capabilities_secure_bits()? | locked)
}

/// Asks the kernel for each thing that was given away.
fn verify(uid: Uid, gid: Gid) -> Result<(), Errno> {
    let user_is_right = rustix::process::getuid() == uid
        && rustix::process::geteuid() == uid
        && rustix::process::getgid() == gid
        && rustix::process::getegid() == gid;
    let capabilities_are_gone = thread::capabilities(None)? == NONE;
    // SAFETY: with a size of 0 nothing is written; the count is returned.
    let groups = unsafe { libc::getgroups(0, std::ptr::null_mut()) };
    let mut bounded = true;
    for number in 0..MOST_CAPABILITIES {
        match thread::capability_is_in_bounding_set(capability(number)) {
            Ok(present) => bounded &= !present,
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    if user_is_right && capabilities_are_gone && groups == 0 && bounded && thread::no_new_privs()? {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}
