//! Every map and program name, once. The kernel truncates names to 15 bytes,
//! so none here is longer.

/// Declares map names and the list of them.
macro_rules! maps {
    ($($(#[$doc:meta])* $name:ident;)+) => {
        $($(#[$doc])* pub const $name: &str = stringify!($name);)+
        /// Every map that an agent can take over from its predecessor.
        pub const MAPS: &[&str] = &[$($name),+];
        const _: () = { $(assert!($name.len() <= 15);)+ };
    };
}

maps! {
    /// [`crate::Settings`], one element.
    SETTINGS;
    /// [`crate::Emergency`], one element.
    EMERGENCY;
    /// [`crate::CgroupId`] → [`crate::Sandbox`].
    SANDBOXES;
    /// [`crate::CgroupId`] → [`crate::Meter`].
    METERS;
    /// [`crate::GrantKey`] → [`crate::Grant`].
    GRANTS;
    /// [`crate::NetworkKey`] → [`crate::Network`], longest prefix.
    NETWORKS;
    /// [`crate::AskerKey`] → [`crate::Asker`].
    ASKERS;
    /// UDP port of a loopback address → [`crate::AskerWord`], in memory that the agent maps.
    ASKER_WORDS;
    /// The same places → process that asks, in memory that the agent maps.
    ASKER_PROCESSES;
    /// How often the resolver has read all that waited for it, in memory that the agent maps.
    DRAINED;
    /// Socket → [`crate::Flow`].
    FLOWS;
    /// Socket → [`crate::Origin`].
    ORIGINS;
    /// Bound socket → [`crate::CgroupId`] of its sandbox.
    HOMES;
    /// [`crate::CgroupId`] → TCP sockets that are connected, where they are counted.
    OPEN_SOCKETS;
    /// Connected socket → [`crate::CgroupId`] of the sandbox that it counts for.
    COUNTED;
    /// [`crate::CgroupId`] → [`crate::Traffic`], per CPU.
    TRAFFIC;
    /// Interface index → [`crate::Link`].
    INTERFACES;
    /// Interface index → [`crate::LinkUse`].
    INTERFACE_USE;
    /// [`crate::ConnectionKey`] → [`crate::Connection`].
    CONNECTIONS;
    /// [`crate::AskerKey`] → [`crate::Asked`].
    ASKED;
    /// Ring of [`crate::Event`].
    EVENTS;
    /// [`crate::Counter`] → count, per CPU.
    COUNTERS;
}

/// A program: its name in the object and in the kernel.
pub mod programs {
    /// `cgroup_skb/egress`: the gate.
    pub const EGRESS: &str = "egress";
    /// `cgroup_skb/ingress`.
    pub const INGRESS: &str = "ingress";
    /// `cgroup/connect4`.
    pub const CONNECT4: &str = "connect4";
    /// `cgroup/connect6`.
    pub const CONNECT6: &str = "connect6";
    /// `cgroup/sendmsg4`.
    pub const SENDMSG4: &str = "sendmsg4";
    /// `cgroup/sendmsg6`.
    pub const SENDMSG6: &str = "sendmsg6";
    /// `cgroup/recvmsg4`.
    pub const RECVMSG4: &str = "recvmsg4";
    /// `cgroup/recvmsg6`.
    pub const RECVMSG6: &str = "recvmsg6";
    /// `cgroup/getpeername4`.
    pub const GETPEERNAME4: &str = "getpeername4";
    /// `cgroup/getpeername6`.
    pub const GETPEERNAME6: &str = "getpeername6";
    /// `cgroup/sock_create`.
    pub const SOCKET_CREATE: &str = "socket_create";
    /// `cgroup/sock_release`.
    pub const SOCKET_RELEASE: &str = "socket_release";
    /// `cgroup/post_bind4`.
    pub const BOUND4: &str = "bound4";
    /// `cgroup/post_bind6`.
    pub const BOUND6: &str = "bound6";
    /// `cgroup/setsockopt`.
    pub const SET_OPTION: &str = "set_option";
    /// `cgroup/dev`.
    pub const DEVICE: &str = "device";
    /// `tcx/ingress` (or `clsact`) of the host's side of an interface: what the sandbox sends.
    pub const LINK_LEAVES: &str = "link_leaves";
    /// `tcx/egress` (or `clsact`): what reaches it.
    pub const LINK_REACHES: &str = "link_reaches";
}

/// The symbol that holds the depth of a sandbox below the cgroup2 root, set
/// when the object is loaded so that the verifier sees a constant.
pub const SANDBOX_LEVEL: &str = "SANDBOX_LEVEL";

/// The section of the object that [`SANDBOX_LEVEL`] lives in.
pub const READ_ONLY_DATA: &str = ".rodata";
