//! Programs at an interface below Linux 6.6: filters of a `clsact` queueing
//! discipline, through `rtnetlink(7)`.

use super::netlink::{Netlink, flag, get, put};
use super::sys::Side;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Message kinds, `include/uapi/linux/rtnetlink.h`.
mod message {
    pub const NEW_DISCIPLINE: u16 = 36;
    pub const NEW_FILTER: u16 = 44;
    pub const DELETE_FILTER: u16 = 45;
    pub const GET_FILTER: u16 = 46;
}

/// Attributes, `include/uapi/linux/pkt_cls.h`.
mod attribute {
    pub const KIND: u16 = 1;
    pub const OPTIONS: u16 = 2;
    pub const FD: u16 = 6;
    pub const NAME: u16 = 7;
    pub const FLAGS: u16 = 8;
    pub const ID: u16 = 11;
}

/// `TC_H_CLSACT`, and its two minors.
const CLSACT: u32 = 0xffff_fff1;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// Of all filters there the first.
const PRIORITY: u32 = 1;
/// Our place among filters of that priority.
const HANDLE: u32 = 1;
/// `TCA_BPF_FLAG_ACT_DIRECT`: what the program returns is what happens.
const DIRECT: u32 = 1;
/// `struct tcmsg`.
const TCMSG: usize = 20;

const fn parent(side: Side) -> u32 {
    match side {
        Side::Ingress => INGRESS,
        Side::Egress => EGRESS,
    }
}

fn tcmsg(interface: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(interface.to_ne_bytes());
    body.extend(handle.to_ne_bytes());
    body.extend(parent.to_ne_bytes());
    body.extend(info.to_ne_bytes());
    body
}

/// Priority and protocol of a filter: all frames.
fn info() -> u32 {
    const ALL: u16 = 3;
    PRIORITY << 16 | u32::from(ALL.to_be())
}

/// Attaches, or replaces what stands there.
pub(super) fn attach(
    interface: u32,
    program: BorrowedFd<'_>,
    side: Side,
    name: &str,
) -> io::Result<()> {
    let netlink = Netlink::open(None)?;
    discipline(&netlink, interface)?;
    let mut options = Vec::new();
    let descriptor = program.as_raw_fd() as u32;
    put(&mut options, attribute::FD, &descriptor.to_ne_bytes());
    let name = CString::new(name)?;
    put(&mut options, attribute::NAME, name.as_bytes_with_nul());
    put(&mut options, attribute::FLAGS, &DIRECT.to_ne_bytes());
    let mut filter = tcmsg(interface, HANDLE, parent(side), info());
    put(&mut filter, attribute::KIND, b"bpf\0");
    put(&mut filter, attribute::OPTIONS, &options);
    let create = flag::CREATE | flag::ACKNOWLEDGE;
    netlink.call(message::NEW_FILTER, create, &filter).map(drop)
}

/// Sees to it that the interface has a `clsact`. Of another kind that takes its
/// place, `ingress`, the kernel would take a filter for the way out as one for the
/// way in (`net/sched/sch_ingress.c`, `ingress_tcf_block`).
fn discipline(netlink: &Netlink, interface: u32) -> io::Result<()> {
    let mut wanted = tcmsg(interface, CLSACT & 0xffff_0000, CLSACT, 0);
    put(&mut wanted, attribute::KIND, b"clsact\0");
    let create = flag::CREATE | flag::EXCLUSIVE | flag::ACKNOWLEDGE;
    match netlink.call(message::NEW_DISCIPLINE, create, &wanted) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
        done => return done.map(drop),
    }
    // A change of nothing, which the kernel refuses where the kind is another
    // (`net/sched/sch_api.c`, `tc_modify_qdisc`).
    match netlink.call(message::NEW_DISCIPLINE, flag::ACKNOWLEDGE, &wanted) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(io::Error::other(
            "a queueing discipline of another kind than `clsact` takes its place; \
             `tc qdisc show` names it",
        )),
        done => done.map(drop),
    }
}

/// Takes the filter out. The queueing discipline stays: others may use it.
pub(super) fn detach(interface: u32, side: Side) -> io::Result<()> {
    let mut filter = tcmsg(interface, HANDLE, parent(side), info());
    put(&mut filter, attribute::KIND, b"bpf\0");
    Netlink::open(None)?
        .call(message::DELETE_FILTER, flag::ACKNOWLEDGE, &filter)
        .map(drop)
}

/// The ids of the programs at a side, in the order in which they run.
pub(super) fn attached(interface: u32, side: Side) -> io::Result<Vec<u32>> {
    let request = tcmsg(interface, 0, parent(side), 0);
    let answers = Netlink::open(None)?.call(message::GET_FILTER, flag::DUMP, &request)?;
    let id = |body: &Vec<u8>| {
        let options = get(body.get(TCMSG..)?, attribute::OPTIONS)?;
        let id = get(options, attribute::ID)?.try_into().ok()?;
        Some(u32::from_ne_bytes(id))
    };
    Ok(answers.iter().filter_map(id).collect())
}
