//! The raw-memory room: everything that is read from or written to a context
//! structure, a packet or a socket that the kernel hands to a program.
//!
//! Context fields are read and written through plain pointers, one access per
//! field at a constant offset: the verifier rewrites exactly such accesses, and
//! refuses a program in which two of them were merged into one.

pub mod option;

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_skb_ancestor_cgroup_id, bpf_tcp_sock,
    },
    programs::{DeviceContext, SkBuffContext, SockAddrContext, SockContext},
};
use core::ptr::NonNull;
use egress_common::{CgroupId, Destination, Ip, Port, Protocol, Reason};

/// Depth of a sandbox below the cgroup2 root; set when the object is loaded.
#[unsafe(no_mangle)]
static SANDBOX_LEVEL: u32 = 0;

/// The depth as the helpers want it.
#[inline(always)]
pub fn sandbox_level() -> i32 {
    // SAFETY: a static is always valid to read. Volatile, because the loader
    // replaces the value in the object after the compiler has seen it.
    unsafe { core::ptr::read_volatile(&raw const SANDBOX_LEVEL) as i32 }
}

/// The sandbox cgroup of the running process; `None` above the sandbox level.
#[inline(always)]
pub fn current_cgroup() -> Option<CgroupId> {
    // SAFETY: the helper takes any level and reads only the current task.
    match unsafe { bpf_get_current_ancestor_cgroup_id(sandbox_level()) } {
        0 => None,
        id => Some(CgroupId(id)),
    }
}

/// Adds one to a number that other programs, on this CPU too, may be adding to.
#[inline(always)]
pub fn add_one(value: &mut u64) {
    add(value, 1);
}

/// Adds to such a number.
#[inline(always)]
pub fn add(value: &mut u64, more: u64) {
    // SAFETY: a reference points to eight aligned, writable bytes. Assembly,
    // because `core` for this target is built without read-modify-write atomics,
    // although every supported kernel has this one instruction (BPF_XADD).
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({pointer} + 0) += {more}",
            pointer = in(reg) core::ptr::from_mut(value),
            more = in(reg) more,
        );
    }
}

/// Adds to a number that other programs may be adding to; gives what it was before.
/// Linux 5.12 (`BPF_ATOMIC` with `BPF_FETCH`).
#[inline(always)]
pub fn fetch_add(value: &mut u64, more: u64) -> u64 {
    let mut before = more;
    // SAFETY: as for `add_one`.
    unsafe {
        core::arch::asm!(
            "{before} = atomic_fetch_add((u64 *)({pointer} + 0), {before})",
            pointer = in(reg) core::ptr::from_mut(value),
            before = inout(reg) before,
        );
    }
    before
}

/// Family, type and protocol of a socket that is being made.
#[inline(always)]
pub fn socket_kind(context: &SockContext) -> (u32, u32, u32) {
    // SAFETY: the kernel passes a valid context for the time of the call.
    let sk = unsafe { &*context.sock };
    (sk.family, sk.type_, sk.protocol)
}

/// What is wanted, from which kind of device, and its two numbers.
#[inline(always)]
pub fn device(context: &DeviceContext) -> (u32, u32, u32) {
    // SAFETY: the kernel passes a valid context for the time of the call.
    let device = unsafe { &*context.device };
    (device.access_type, device.major, device.minor)
}

/// An address family, as a type: each hook is compiled for one, so that every
/// context access has a constant offset.
pub trait Family {
    /// Reads the destination (or source) address of a socket-address hook.
    fn read(address: &bpf_sock_addr) -> Ip;
    /// Writes it; an IPv4 hook can only be given an IPv4 address.
    fn write(address: &mut bpf_sock_addr, ip: &Ip);
}

/// IPv4 hooks.
pub struct Inet;
/// IPv6 hooks; IPv4-mapped addresses come through here too.
pub struct Inet6;

impl Family for Inet {
    #[inline(always)]
    fn read(address: &bpf_sock_addr) -> Ip {
        Ip::from_v4(address.user_ip4)
    }

    #[inline(always)]
    fn write(address: &mut bpf_sock_addr, ip: &Ip) {
        address.user_ip4 = ip.words()[3];
    }
}

impl Family for Inet6 {
    #[inline(always)]
    fn read(address: &bpf_sock_addr) -> Ip {
        let [a, b, c, d] = address.user_ip6;
        Ip::from_v6([a, b, c, d])
    }

    #[inline(always)]
    fn write(address: &mut bpf_sock_addr, ip: &Ip) {
        let [a, b, c, d] = ip.words();
        address.user_ip6[0] = a;
        address.user_ip6[1] = b;
        address.user_ip6[2] = c;
        address.user_ip6[3] = d;
    }
}

/// A socket-address hook's view: who is addressed, through which socket.
pub struct Address<'a> {
    context: &'a SockAddrContext,
}

impl<'a> Address<'a> {
    /// Takes the hook's context.
    #[inline(always)]
    pub const fn new(context: &'a SockAddrContext) -> Self {
        Self { context }
    }

    /// The context pointer, for helpers that look sockets up.
    #[inline(always)]
    pub const fn raw(&self) -> *mut core::ffi::c_void {
        self.context.sock_addr.cast()
    }

    /// The address and port.
    #[inline(always)]
    pub fn endpoint<F: Family>(&self) -> (Ip, Port) {
        // SAFETY: the kernel passes a valid context for the time of the call.
        let address = unsafe { &*self.context.sock_addr };
        (
            F::read(address),
            Port::from_network(address.user_port as u16),
        )
    }

    /// Replaces the address and port.
    #[inline(always)]
    pub fn rewrite<F: Family>(&self, ip: &Ip, port: Port) {
        // SAFETY: the kernel passes a valid context, and no other reference to
        // it is alive here.
        let address = unsafe { &mut *self.context.sock_addr };
        F::write(address, ip);
        address.user_port = u32::from(port.network());
    }

    /// IANA protocol number of the socket.
    #[inline(always)]
    pub fn protocol(&self) -> u32 {
        // SAFETY: as in `endpoint`.
        unsafe { (*self.context.sock_addr).protocol }
    }

    /// The socket.
    #[inline(always)]
    pub fn socket(&self) -> *mut bpf_sock {
        // SAFETY: as in `endpoint`; every member of the union is that pointer.
        unsafe { (*self.context.sock_addr).__bindgen_anon_1.sk }
    }
}

/// The kernel's TCP states that decide here (`include/net/tcp_states.h`).
mod state {
    pub const ESTABLISHED: u32 = 1;
    pub const SYN_SENT: u32 = 2;
    pub const SYN_RECV: u32 = 3;
    pub const LISTEN: u32 = 10;
    pub const NEW_SYN_RECV: u32 = 12;
}

/// How many data segments a TCP connection sends before remembering it is
/// worth its price: making socket storage costs as much as judging about eight
/// segments without it.
const SEGMENTS_WORTH_REMEMBERING: u32 = 8;

/// The socket that a packet belongs to.
#[derive(Clone, Copy)]
pub struct Socket(NonNull<bpf_sock>);

impl Socket {
    /// The pointer, for helpers.
    #[inline(always)]
    pub const fn raw(self) -> *mut bpf_sock {
        self.0.as_ptr()
    }

    #[inline(always)]
    fn state(self) -> u32 {
        // SAFETY: the kernel holds it for the time of the call.
        unsafe { self.0.as_ref().state }
    }

    /// Whether it is a TCP socket that waits for connections.
    #[inline(always)]
    pub fn is_listening(self) -> bool {
        self.state() == state::LISTEN
    }

    /// Whether it is a connection that has begun: for TCP any state behind the
    /// handshake, for UDP that a peer is set, which the kernel calls by the name
    /// of the TCP state.
    #[inline(always)]
    pub fn goes_on(self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Tcp => !matches!(
                self.state(),
                state::SYN_SENT | state::SYN_RECV | state::LISTEN | state::NEW_SYN_RECV
            ),
            // No socket of a sandbox speaks ICMP.
            Protocol::Udp | Protocol::Icmp => self.state() == state::ESTABLISHED,
        }
    }

    /// Whether a TCP connection has sent enough to be remembered.
    #[inline(always)]
    pub fn has_sent_much(self) -> bool {
        // SAFETY: a socket as above; the helper gives null for other than TCP.
        let tcp = unsafe { bpf_tcp_sock(self.raw()) };
        // SAFETY: the helper's result is null or valid as long as the socket.
        unsafe { tcp.as_ref() }.is_some_and(|tcp| tcp.data_segs_out >= SEGMENTS_WORTH_REMEMBERING)
    }
}

/// What a packet says about itself, in the direction that it travels.
pub struct Packet {
    /// Source address.
    pub from: Ip,
    /// Source port.
    pub from_port: Port,
    /// Where it goes.
    pub to: Destination,
}

/// The IPv4 header without options (RFC 791) and the two ports behind it.
#[repr(C)]
#[derive(Clone, Copy)]
struct V4 {
    version_and_length: u8,
    service: u8,
    length: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    from: u32,
    to: u32,
    from_port: u16,
    to_port: u16,
}

/// The IPv6 header (RFC 8200) and the two ports right behind it.
#[repr(C)]
#[derive(Clone, Copy)]
struct V6 {
    version_class_flow: [u8; 4],
    length: u16,
    next_header: u8,
    hop_limit: u8,
    from: [u32; 4],
    to: [u32; 4],
    from_port: u16,
    to_port: u16,
}

/// More fragments, and the offset: any of them makes the ports untrustworthy.
const FRAGMENT_BITS: u16 = 0x3fff;
/// EtherTypes as `skb->protocol` holds them.
const ETHERTYPE_IPV4: u32 = 0x0800_u16.to_be() as u32;
const ETHERTYPE_IPV6: u32 = 0x86dd_u16.to_be() as u32;

/// A packet hook's view.
pub struct Skb<'a> {
    context: &'a SkBuffContext,
}

impl<'a> Skb<'a> {
    /// Takes the hook's context.
    #[inline(always)]
    pub const fn new(context: &'a SkBuffContext) -> Self {
        Self { context }
    }

    /// The context pointer, for helpers that look sockets up.
    #[inline(always)]
    pub const fn raw(&self) -> *mut core::ffi::c_void {
        self.context.skb.skb.cast()
    }

    /// The sandbox cgroup of the socket that the packet belongs to.
    #[inline(always)]
    pub fn cgroup(&self) -> Option<CgroupId> {
        // SAFETY: the kernel passes a valid context for the time of the call.
        match unsafe { bpf_skb_ancestor_cgroup_id(self.context.skb.skb, sandbox_level()) } {
            0 => None,
            id => Some(CgroupId(id)),
        }
    }

    /// The packet's socket, which is always a full one: the kernel runs packet
    /// programs with the socket whose cgroup they are attached to
    /// (`__cgroup_bpf_run_filter_skb`), for a half-open connection with its
    /// listener. Saying so to the verifier (`bpf_sk_fullsock`) would cost a
    /// helper call and offer nothing that is needed here.
    #[inline(always)]
    pub fn socket(&self) -> Option<Socket> {
        // SAFETY: the kernel passes a valid context for the time of the call;
        // every member of the union is that pointer.
        NonNull::new(unsafe { (*self.context.skb.skb).__bindgen_anon_2.sk }).map(Socket)
    }

    /// Its length from the IP header on, in bytes; of many packets at once where the
    /// kernel still holds them together.
    #[inline(always)]
    pub fn length(&self) -> u32 {
        // SAFETY: the kernel passes a valid context for the time of the call.
        unsafe { (*self.context.skb.skb).len }
    }

    /// Whether the packet is too long to be nothing but headers.
    #[inline(always)]
    pub fn carries_data(&self) -> bool {
        /// IPv6 and the longest TCP header.
        const HEADERS: u32 = 40 + 60;
        // SAFETY: as in `socket`.
        unsafe { (*self.context.skb.skb).len > HEADERS }
    }

    /// Whether the packet is many that are cut apart later (UDP_SEGMENT).
    #[inline(always)]
    pub fn is_many(&self) -> bool {
        // SAFETY: as in `socket`.
        unsafe { (*self.context.skb.skb).gso_segs > 1 }
    }

    /// Whether the packet travels on the loopback device, whose index is 1 in
    /// every network namespace.
    #[inline(always)]
    pub fn is_on_loopback(&self) -> bool {
        // SAFETY: the kernel passes a valid context for the time of the call.
        unsafe { (*self.context.skb.skb).ifindex == 1 }
    }

    /// The user that owns the packet's socket.
    #[inline(always)]
    pub fn user(&self) -> u32 {
        self.context.skb.get_socket_uid()
    }

    /// The first bytes of the packet, which begins with its IP header.
    ///
    /// They are read in place: a helper that copies them costs more than the
    /// rest of the parse. Whatever the kernel's own TCP and UDP build, and
    /// whatever they accepted before the ingress hook, has its headers in one
    /// piece; what has not is refused like every packet that cannot be read.
    #[inline(always)]
    fn start<T: Copy>(&self) -> Result<T, Reason> {
        // SAFETY: the kernel passes a valid context for the time of the call.
        let (data, end) = unsafe {
            let skb = self.context.skb.skb;
            ((*skb).data as usize, (*skb).data_end as usize)
        };
        if data + size_of::<T>() > end {
            return Err(Reason::Unparsable);
        }
        // SAFETY: the verifier has seen the comparison: that many bytes can be
        // read. Headers are plain integers, for which any bits are good, and
        // the kernel aligns them where the machine needs it (NET_IP_ALIGN);
        // elsewhere a BPF load may have any alignment.
        Ok(unsafe { *(data as *const T) })
    }

    /// Reads the headers strictly. Options, fragments, extension headers and
    /// every transport but TCP and UDP are refused: each of them can carry
    /// another destination or none.
    #[inline(always)]
    pub fn packet(&self) -> Result<Packet, Reason> {
        // SAFETY: the kernel passes a valid context for the time of the call.
        match unsafe { (*self.context.skb.skb).protocol } {
            ETHERTYPE_IPV4 => {
                let header: V4 = self.start()?;
                let protocol = Protocol::from_number(header.protocol).ok_or(Reason::Unparsable)?;
                if header.version_and_length != 0x45
                    || u16::from_be(header.fragment) & FRAGMENT_BITS != 0
                {
                    return Err(Reason::Unparsable);
                }
                Ok(Packet {
                    from: Ip::from_v4(header.from),
                    from_port: Port::from_network(header.from_port),
                    to: Destination {
                        ip: Ip::from_v4(header.to),
                        port: Port::from_network(header.to_port),
                        protocol,
                    },
                })
            }
            ETHERTYPE_IPV6 => {
                let header: V6 = self.start()?;
                let protocol =
                    Protocol::from_number(header.next_header).ok_or(Reason::Unparsable)?;
                let to = Ip::from_v6(header.to);
                // A mapped address inside an IPv6 header is no IPv4 traffic.
                if header.version_class_flow[0] >> 4 != 6 || to.is_v4() {
                    return Err(Reason::Unparsable);
                }
                Ok(Packet {
                    from: Ip::from_v6(header.from),
                    from_port: Port::from_network(header.from_port),
                    to: Destination {
                        ip: to,
                        port: Port::from_network(header.to_port),
                        protocol,
                    },
                })
            }
            _ => Err(Reason::Unparsable),
        }
    }
}
