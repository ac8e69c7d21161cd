//! The kernel programs. Each entry point is a shim: it hands the context to a
//! function in [`hooks`], and [`conclude`] turns the result into the code that
//! the kernel wants. Nothing else decides about codes.

#![no_std]
#![no_main]
// For one atomic addition in `context`; the toolchain is a nightly, or stable
// with RUSTC_BOOTSTRAP, in any case because aya-ebpf asks for the same feature.
#![feature(asm_experimental_arch)]
#![allow(
    missing_docs,
    reason = "the attribute macros make undocumented twins of the entry points"
)]

mod context;
mod emit;
mod frame;
mod headers;
mod hooks;
mod lookups;
mod maps;

use aya_ebpf::{
    macros::{
        cgroup_device, cgroup_skb, cgroup_sock, cgroup_sock_addr, cgroup_sockopt, classifier,
    },
    programs::{
        DeviceContext, SkBuffContext, SockAddrContext, SockContext, SockoptContext, TcContext,
    },
};
use context::{Address, Inet, Inet6, Skb, option};
use egress_common::{Counter, Hook, Outcome, Reason};
use emit::{Actor, Seen, count, emit};
use frame::Frame;
use hooks::{Judged, Passed, call, connections, interface, packet, redirect, socket, traffic};

/// The kernel's words for refusing and for passing, the same on every hook here.
const REFUSE: i32 = 0;
const PASS: i32 = 1;

/// The outcome table: what the kernel is told, for everything that can happen.
#[inline(always)]
fn conclude(judged: Judged, seen: &Seen, actor: Actor<'_>) -> i32 {
    let reason = match judged {
        Ok(Passed::Quietly) => return PASS,
        Ok(Passed::Noted) => {
            emit(seen, Outcome::Allowed, 0, actor);
            return PASS;
        }
        Err(reason) => reason,
    };
    let outcome = match (seen.shadow, reason) {
        // Shadow mode belongs to a sandbox; what is in none is never let pass.
        (_, Reason::UnknownSandbox) => Outcome::Denied,
        // The emergency block asks no policy.
        (_, Reason::Emergency) => Outcome::Denied,
        (true, _) => Outcome::WouldDeny,
        (false, _) => Outcome::Denied,
    };
    emit(seen, outcome, reason as u8, actor);
    match outcome {
        Outcome::Allowed | Outcome::WouldDeny => {
            count(Counter::WouldDeny);
            PASS
        }
        Outcome::Denied => {
            count(if seen.sandbox.0 == 0 {
                Counter::UnknownSandbox
            } else {
                Counter::Denied
            });
            REFUSE
        }
    }
}

/// The gate for what leaves.
#[cgroup_skb]
pub fn egress(ctx: SkBuffContext) -> i32 {
    let skb = Skb::new(&ctx);
    let mut seen = Seen::at(Hook::Egress);
    let judged = packet::egress(&skb, &mut seen);
    let code = conclude(judged, &seen, Actor::Owner(&skb));
    if code == PASS {
        traffic::sent(&skb);
    }
    code
}

/// The gate for what enters.
#[cgroup_skb]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    let skb = Skb::new(&ctx);
    let mut seen = Seen::at(Hook::Ingress);
    let judged = packet::ingress(&skb, &mut seen);
    let code = conclude(judged, &seen, Actor::Owner(&skb));
    if code == PASS {
        traffic::received(&skb);
    }
    code
}

/// `connect(2)` over IPv4.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    let mut seen = Seen::at(Hook::Connect);
    let judged = call::connect::<Inet>(&Address::new(&ctx), &mut seen);
    conclude(judged, &seen, Actor::Current)
}

/// `connect(2)` over IPv6.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let mut seen = Seen::at(Hook::Connect);
    let judged = call::connect::<Inet6>(&Address::new(&ctx), &mut seen);
    conclude(judged, &seen, Actor::Current)
}

/// `sendto(2)` and `sendmsg(2)` with an IPv4 address.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    let mut seen = Seen::at(Hook::Sendmsg);
    let judged = call::sendmsg::<Inet>(&Address::new(&ctx), &mut seen);
    conclude(judged, &seen, Actor::Current)
}

/// `sendto(2)` and `sendmsg(2)` with an IPv6 address.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    let mut seen = Seen::at(Hook::Sendmsg);
    let judged = call::sendmsg::<Inet6>(&Address::new(&ctx), &mut seen);
    conclude(judged, &seen, Actor::Current)
}

/// The source address that `recvfrom(2)` shows, IPv4.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    redirect::from_resolver::<Inet>(&Address::new(&ctx));
    PASS
}

/// The source address that `recvfrom(2)` shows, IPv6.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    redirect::from_resolver::<Inet6>(&Address::new(&ctx));
    PASS
}

/// The peer that `getpeername(2)` shows, IPv4.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    redirect::from_resolver::<Inet>(&Address::new(&ctx));
    PASS
}

/// The peer that `getpeername(2)` shows, IPv6.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    redirect::from_resolver::<Inet6>(&Address::new(&ctx));
    PASS
}

/// `socket(2)`.
#[cgroup_sock(sock_create)]
pub fn socket_create(ctx: SockContext) -> i32 {
    let (family, kind, protocol) = context::socket_kind(&ctx);
    let mut seen = Seen::at(Hook::SocketCreate);
    let judged = socket::create(family, kind, protocol, &mut seen);
    conclude(judged, &seen, Actor::Current)
}

/// The last `close(2)` of a socket.
#[cgroup_sock(sock_release)]
pub fn socket_release(ctx: SockContext) -> i32 {
    redirect::forget(ctx.sock);
    connections::close(ctx.sock);
    PASS
}

/// After `bind(2)`, IPv4.
#[cgroup_sock(post_bind4)]
pub fn bound4(ctx: SockContext) -> i32 {
    socket::bound(ctx.sock);
    PASS
}

/// After `bind(2)`, IPv6.
#[cgroup_sock(post_bind6)]
pub fn bound6(ctx: SockContext) -> i32 {
    socket::bound(ctx.sock);
    PASS
}

/// `setsockopt(2)`.
#[cgroup_sockopt(setsockopt)]
pub fn set_option(ctx: SockoptContext) -> i32 {
    let mut seen = Seen::at(Hook::SetSocketOption);
    let judged = socket::set_option(&ctx, &mut seen);
    let code = conclude(judged, &seen, Actor::Current);
    if code == PASS {
        option::pass_large(&ctx);
    }
    code
}

/// Opening or making a device node. What is refused is only counted: there is no
/// destination to tell of.
#[cgroup_device]
pub fn device(ctx: DeviceContext) -> i32 {
    let (access, major, minor) = context::device(&ctx);
    if egress_common::device::is_refused(access, major, minor) {
        count(Counter::DeviceRefused);
        return REFUSE;
    }
    PASS
}

/// The same at an interface, in the words of `tc`: dropped (`TC_ACT_SHOT`), or
/// left to whoever is attached behind this program (`TC_ACT_UNSPEC`).
#[inline(always)]
fn conclude_frame(ruling: interface::Ruling, seen: &Seen) -> i32 {
    const DROP: i32 = 2;
    const NEXT: i32 = -1;
    match ruling.map(|judged| conclude(judged, seen, Actor::Behind)) {
        Some(PASS) => NEXT,
        Some(_) | None => DROP,
    }
}

/// What the sandbox behind an interface sends.
#[classifier]
pub fn link_leaves(ctx: TcContext) -> i32 {
    let mut seen = Seen::at(Hook::InterfaceLeaves);
    let ruling = interface::leaves(&Frame::new(&ctx), &mut seen);
    conclude_frame(ruling, &seen)
}

/// What would reach it.
#[classifier]
pub fn link_reaches(ctx: TcContext) -> i32 {
    let mut seen = Seen::at(Hook::InterfaceReaches);
    let ruling = interface::reaches(&Frame::new(&ctx), &mut seen);
    conclude_frame(ruling, &seen)
}

/// Never runs: a program with a path to it is refused by the verifier.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Lets the programs call helpers that the kernel offers to GPL-compatible code.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
