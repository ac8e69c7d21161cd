//! Which program belongs to which attach point.

use super::sys::{AttachPoint, Side};
use egress_common::names::programs;

/// One program of the object and where it is attached.
#[derive(Clone, Copy, Debug)]
pub struct HookPoint {
    /// Its name in the object and in the kernel.
    pub program: &'static str,
    /// Where it goes.
    pub point: AttachPoint,
}

const fn at(program: &'static str, point: AttachPoint) -> HookPoint {
    HookPoint { program, point }
}

/// All programs in the order in which they are attached: the gate first, so
/// that nothing leaves while the rest is still missing.
pub const HOOKS: &[HookPoint] = &[
    at(programs::EGRESS, AttachPoint::InetEgress),
    at(programs::INGRESS, AttachPoint::InetIngress),
    at(programs::SOCKET_CREATE, AttachPoint::SockCreate),
    at(programs::SET_OPTION, AttachPoint::Setsockopt),
    at(programs::CONNECT4, AttachPoint::Inet4Connect),
    at(programs::CONNECT6, AttachPoint::Inet6Connect),
    at(programs::SENDMSG4, AttachPoint::Udp4Sendmsg),
    at(programs::SENDMSG6, AttachPoint::Udp6Sendmsg),
    at(programs::RECVMSG4, AttachPoint::Udp4Recvmsg),
    at(programs::RECVMSG6, AttachPoint::Udp6Recvmsg),
    at(programs::GETPEERNAME4, AttachPoint::Inet4Getpeername),
    at(programs::GETPEERNAME6, AttachPoint::Inet6Getpeername),
    at(programs::BOUND4, AttachPoint::Inet4PostBind),
    at(programs::BOUND6, AttachPoint::Inet6PostBind),
    at(programs::SOCKET_RELEASE, AttachPoint::SockRelease),
    at(programs::DEVICE, AttachPoint::Device),
];

/// The programs at an interface, in the order in which they are attached: what
/// the sandbox sends is judged first.
pub const LINK_HOOKS: [(&str, Side); 2] = [
    (programs::LINK_LEAVES, Side::Ingress),
    (programs::LINK_REACHES, Side::Egress),
];
