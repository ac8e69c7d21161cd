//! The blocks of a policy document.

use super::block;
use super::lists::{Groups, Items};
use super::quantities::{Cpu, Device, Number, Size, Weight};
use super::values::{
    Address, Amount, Cidr, Count, Domain, Expiry, LabelLength, PolicyName, PortItem, RecordType,
    Relax, Seconds, Text, User,
};
use super::words::{
    Action, AlwaysTrue, ApiVersion, AtBoundWord, ContractWord, Enabled, Internal, Logging,
    ModeWord, ProtocolWord, RecordWord, SeccompWord,
};

block! {
    /// An egress policy: which destinations a sandbox may reach. What is not allowed is denied.
    Document {
        /// The version of the policy language. The only one is `egress/v1`.
        api_version as "apiVersion": ApiVersion,
        /// The policy's name; the file's name without its ending if absent.
        name: PolicyName,
        /// Which sandboxes are under this policy, when `--policy` does not say.
        applies_to: Items<Applies>,
        /// What happens to what no rule allows.
        egress: EgressBlock,
        /// Rules in named groups. The group names are free.
        allowlist: Groups<Allow>,
        /// More rules, as a plain list.
        project_allowlist: Items<Allow>,
        /// Destinations that are refused even where a rule allows them.
        blocklist: Items<Block>,
        /// More refused destinations.
        project_blocklist: Items<Block>,
        /// How names are resolved.
        dns: DnsBlock,
        /// How the command runs.
        sandbox: SandboxBlock,
    }
    later {
        "rate_limit", "rate_limits", "fault_containment", "circuit_breaker", "tls",
        "compliance_logging", "alerts", "gateway", "limits", "approvals", "retention", "redaction",
    }
}

block! {
    /// Which sandboxes a policy is for.
    Applies {
        /// The sandbox's name; `*` stands for any text.
        sandbox: Text,
        /// A systemd service or scope directly below the governed root; `*` stands for any text.
        unit: Text,
        /// A systemd slice directly below the governed root, as one sandbox with all that is in it.
        slice: Text,
        /// Any cgroup directly below the governed root, such as a container's, by its
        /// directory's name.
        cgroup: Text,
        /// The name of an interface on the host, such as `tap-*`: what is behind it is a
        /// sandbox, found when it appears.
        interface: Text,
    }
    later { "container", "image", "label", "namespace", "user" }
}

block! {
    /// What happens to what no rule allows.
    EgressBlock {
        /// `deny` is the only default. To see what would be denied, use `mode: shadow`.
        default_action: Action,
        /// `enforce` refuses what no rule allows; `shadow` lets it pass and records it.
        mode: ModeWord,
        /// Every decision is recorded; `all_requests` says so.
        logging: Logging,
        /// Always on; `enabled` says so.
        monitoring: Enabled,
    }
    later { "alerts", "rate_limit", "rate_limits" }
}

block! {
    /// A rule: a destination that is allowed.
    Allow {
        /// A name: `example.com` is that name only, `*.example.com` every name below it,
        /// `**.example.com` both. `localhost` opens loopback listeners outside the sandbox.
        domain: Domain,
        /// A network or an address, instead of `domain`.
        cidr: Cidr,
        /// A list of names that `egressctl names build` made, instead of `domain`: an
        /// absolute path, or one from the directory of the policy file.
        domain_list: Text,
        /// Ports, ranges such as `8000-8080`, or `any`. With `https` and `http` the
        /// default is 443 and 80.
        ports: Items<PortItem>,
        /// `https` and `http` mean TCP; `tcp` and `udp` need `ports`; `icmp` means echo
        /// (ping), has no ports, and opens it for sandboxes behind interfaces only.
        protocols: Items<ProtocolWord>,
        /// Whether the name, or the network, may lead to private addresses (RFC 1918,
        /// shared 100.64.0.0/10, unique local fc00::/7). Default `false`.
        allow_private: bool,
        /// The private or link-local networks that the name may lead to.
        allow_private_networks: Items<Cidr>,
        /// When the rule stops applying: a date (its beginning, UTC) or an RFC 3339 time.
        expires: Expiry,
        /// For people.
        note: Text,
        /// For people: why the rule is there.
        justification: Text,
        /// For people: why the rule is there.
        reason: Text,
        /// For people: who approved it.
        approved_by: Text,
    }
    later {
        "rate_limit", "methods", "paths", "path", "headers", "credentials", "tls", "pins", "when",
        "require_approval", "max_bytes", "circuit_breaker", "timeout", "burst",
    }
}

block! {
    /// A destination that is refused even where a rule allows it.
    Block {
        /// A name, in the three spellings of `allowlist`.
        domain: Domain,
        /// A network or an address, instead of `domain`.
        cidr: Cidr,
        /// For people: why it is refused.
        reason: Text,
        /// For people.
        note: Text,
    }
    later { "ports", "protocols", "expires", "alert" }
}

block! {
    /// How names are resolved.
    DnsBlock {
        /// Only the agent's own resolver is reachable; `internal` says so.
        resolver: Internal,
        /// Every query is recorded; `true` says so.
        query_logging: AlwaysTrue,
        /// Every answer is screened; `true` says so.
        response_validation: AlwaysTrue,
        /// Names that are refused even where a rule allows them.
        block_patterns: Items<Domain>,
        /// Lists of names that are refused even where a rule allows them, made by
        /// `egressctl names build`: absolute paths, or from the directory of the policy file.
        block_lists: Items<Text>,
        /// Record types that are answered beside addresses and what clients need around them.
        query_types: Items<RecordType>,
        /// The longest time that an answer may be kept by whoever asked. Default 300s.
        cache_ttl: Seconds,
        /// How long a refusal may be kept. Default 60s.
        negative_cache_ttl: Seconds,
        /// A granted address stays open for new connections at least so long. Default 30s.
        min_ttl: Seconds,
        /// A granted address stays open for new connections at most so long. Default 1h.
        max_ttl: Seconds,
        /// Added to the time above, for clients that connect late. Default 60s.
        grace: Seconds,
        /// Addresses taken from one answer. Default 32.
        max_addresses: Count,
        /// How much a sandbox may say in the names that it asks for.
        limits: NameLimitsBlock,
        /// Whether names of which the sandbox has a live connection are asked for again
        /// shortly before their grants lapse. Default `true`.
        keep_fresh: bool,
        /// The view of the agent's configuration whose upstreams are asked for names.
        view: PolicyName,
        /// Names with addresses of their own: `db.example: ["10.0.0.5"]`. A rule still
        /// has to allow the name, and where it leads.
        hosts: Groups<Address>,
    }
    later { "upstreams", "upstream", "dnssec", "rate_limit", "max_queries", "entropy", "search" }
}

block! {
    /// How much a sandbox may say in the names that it asks for: what stands below a
    /// wildcard is chosen by the client, and read by whoever serves the domain.
    /// Names that the cache answers leave nobody, and cost nothing.
    NameLimitsBlock {
        /// Names below wildcards that may leave the host per minute. Default 600.
        names: Amount,
        /// The same below each wildcard rule. Default 240.
        names_per_wildcard: Amount,
        /// Bytes of labels below wildcards per minute. Default 12288.
        bytes: Amount,
        /// The same below each wildcard rule. Default 4096.
        bytes_per_wildcard: Amount,
        /// Bits of entropy of labels below wildcards per minute. Default 49152.
        entropy: Amount,
        /// The same below each wildcard rule. Default 16384.
        entropy_per_wildcard: Amount,
        /// The longest label below a wildcard. Default 63, which DNS allows.
        label_length: LabelLength,
        /// Queries of any kind per second. Default: what the host allows every sandbox.
        queries_per_second: Amount,
        /// What happens beyond: `refuse`, `alert` (answer, and record the reason) or
        /// `shadow` (answer, and record what would have been refused). Default `refuse`.
        at_bound: AtBoundWord,
        /// Whether names beyond are recorded as `name` or as `hash`. Default `name`.
        record: RecordWord,
    }
    later { "window", "burst" }
}

block! {
    /// How the command runs.
    SandboxBlock {
        /// What the sandbox sees of the network.
        network: NetworkBlock,
        /// The user that the command runs as: a name or a number. `root` is a relaxation.
        user: User,
        /// The most CPU it gets: thousandths such as `"100m"`, or CPUs such as `1.5`.
        cpu_limit: Cpu,
        /// Its share of the CPU against other sandboxes, 1 to 10000. Default 100.
        cpu_weight: Weight,
        /// The most memory. A sandbox that wants more is killed. Swap is off unless
        /// `memory_swap` says otherwise.
        memory_limit: Size,
        /// Memory beyond which it is slowed down.
        memory_high: Size,
        /// The most swap.
        memory_swap: Size,
        /// Processes and threads at a time. Beyond them none can be started.
        pids_limit: Number,
        /// TCP connections that are open at a time. Beyond them none can be begun.
        max_connections: Number,
        /// Bytes that wait to be sent on its TCP connections, all together; each gets its
        /// part, so `max_connections` has to be there too.
        max_pending_bytes: Size,
        /// Limits of block devices, each per second.
        io_limit: Items<IoBlock>,
        /// Wall-clock time from the beginning of the sandbox to its end. Then it is killed.
        timeout: Seconds,
        /// Everything is read-only, except a `/tmp` in memory of a bounded size.
        disk: DiskBlock,
        /// Which system calls the command cannot make: `default` those that go round the
        /// kernel programs, `strict` also what ordinary programs do without, `none` nothing
        /// (a relaxation, and `seccomp_reason` says why).
        seccomp: SeccompWord,
        /// For people: why there is no filter.
        seccomp_reason: Text,
        /// What happens where somebody else started a process with more than a sandbox has:
        /// `refuse` (its cgroup stays denied) or `report` (a relaxation). Default `refuse`.
        unmet_contract: ContractWord,
        /// A limit that the host cannot enforce is left out and shown as a relaxation,
        /// instead of being a reason to refuse. Default `false`.
        best_effort: bool,
        /// Points of the fence that are opened: `ptrace` (debuggers), `user-namespaces` (tools
        /// with sandboxes of their own), `host-socket:/PATH` (a Unix socket of the host).
        relax: Items<Relax>,
    }
    later {
        "filesystem", "capabilities", "env", "devices",
    }
}

block! {
    /// What a block device may be asked to do, per second.
    IoBlock {
        /// The device's path, or that of a directory on it.
        device: Device,
        /// Bytes read.
        read: Size,
        /// Bytes written.
        write: Size,
        /// Read operations.
        read_ops: Number,
        /// Write operations.
        write_ops: Number,
    }
    later { "latency", "weight" }
}

block! {
    /// What can be written.
    DiskBlock {
        /// The size of `/tmp`, which is in memory, and counts as the sandbox's memory.
        tmp: Size,
    }
    later { "writable", "size" }
}

block! {
    /// What the sandbox sees of the network.
    NetworkBlock {
        /// No connection comes in; `true` says so.
        egress_only: AlwaysTrue,
        /// Only the agent's own resolver is reachable; `internal` says so.
        dns_resolver: Internal,
        /// At an interface: whether DHCP with the host passes. Default `false`.
        dhcp: bool,
        /// At an interface: whether the host's IPv6 router advertisements pass. Default `false`.
        router_advertisements: bool,
    }
    later { "mode", "interfaces", "bandwidth", "ingress" }
}
