//! The profiles as container engines read them: the `linux.seccomp` object of an
//! OCI runtime configuration, for `--security-opt seccomp=FILE`.

use super::profile::{
    FAMILIES, NAMESPACES, NETLINK_PROTOCOLS, PROFILE, Refusal, RefusedCall, When,
};
use crate::policy::SeccompProfile;
use serde_json::{Value, json};

/// A machine that a profile is for. Calls through any other table are killed by
/// libseccomp, since no other architecture is named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Machine {
    /// 64-bit x86; neither i386 nor x32.
    X86_64,
    /// 64-bit ARM; not 32-bit ARM.
    Aarch64,
}

impl Machine {
    /// This one, if there is a profile for it.
    pub const fn own() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
        }
    }
}

/// Socket families and netlink protocols beyond these do not exist (`AF_MAX` is
/// 46, `MAX_LINKS` is 32); what is greater is refused by one comparison.
const LAST_FAMILY: i32 = 63;
const LAST_PROTOCOL: i32 = 31;

/// A profile as an OCI `linux.seccomp` object. [`SeccompProfile::None`] has none.
pub fn export(profile: SeccompProfile, machine: Machine) -> Option<Value> {
    if profile == SeccompProfile::None {
        return None;
    }
    let calls: Vec<Value> = PROFILE
        .iter()
        .filter(|entry| entry.since <= profile)
        .flat_map(|entry| {
            conditions(entry.when)
                .into_iter()
                .map(move |arguments| refusal(entry, arguments))
        })
        .collect();
    Some(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": [machine.name()],
        "syscalls": calls,
    }))
}

fn refusal(entry: &RefusedCall, arguments: Vec<Value>) -> Value {
    let errno = match entry.refusal {
        Refusal::NotPermitted => libc::EPERM,
        Refusal::Unknown => libc::ENOSYS,
    };
    json!({
        "names": [entry.name],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": errno,
        "args": arguments,
        "comment": entry.why,
    })
}

/// The conditions, any of which refuses. libseccomp compares an argument once in
/// a rule, so "none of these" has to be spelt as "one of all others".
fn conditions(when: When) -> Vec<Vec<Value>> {
    let compare = |index: u32, operator: &str, value: i64| json!({ "index": index, "value": value, "op": operator });
    let others = |index, allowed: &[i32], last: i32| -> Vec<Value> {
        (0..=last)
            .filter(|number| !allowed.contains(number))
            .map(|number| compare(index, "SCMP_CMP_EQ", number.into()))
            .chain([compare(index, "SCMP_CMP_GT", last.into())])
            .collect()
    };
    let asks_for = |flag: i32| json!({ "index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ" });
    match when {
        When::Always => vec![Vec::new()],
        When::Family => others(0, &FAMILIES, LAST_FAMILY)
            .into_iter()
            .map(|one| vec![one])
            .collect(),
        When::NetlinkProtocol => others(2, &NETLINK_PROTOCOLS, LAST_PROTOCOL)
            .into_iter()
            .map(|one| vec![compare(0, "SCMP_CMP_EQ", libc::AF_NETLINK.into()), one])
            .collect(),
        When::UserNamespace => vec![vec![asks_for(libc::CLONE_NEWUSER)]],
        When::AnyNamespace => NAMESPACES
            .iter()
            .map(|flag| vec![asks_for(*flag)])
            .collect(),
        When::Request(request) => {
            vec![vec![
                json!({ "index": 1, "value": request, "op": "SCMP_CMP_EQ" }),
            ]]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Machine, export};
    use crate::policy::SeccompProfile;
    use serde_json::Value;

    fn entries(profile: SeccompProfile, call: &str) -> Vec<Value> {
        let exported = export(profile, Machine::X86_64).expect("a profile");
        let calls = exported["syscalls"].as_array().expect("a list").clone();
        calls
            .into_iter()
            .filter(|entry| entry["names"][0] == call)
            .collect()
    }

    #[test]
    fn families_that_the_programs_judge_are_in_no_refusal() {
        let refused: Vec<i64> = entries(SeccompProfile::Default, "socketpair")
            .iter()
            .filter(|entry| entry["args"][0]["op"] == "SCMP_CMP_EQ")
            .map(|entry| entry["args"][0]["value"].as_i64().expect("a number"))
            .collect();
        for family in [libc::AF_PACKET, libc::AF_VSOCK, libc::AF_TIPC] {
            assert!(refused.contains(&family.into()), "{family}");
        }
        for family in super::FAMILIES {
            assert!(!refused.contains(&family.into()), "{family}");
        }
    }

    #[test]
    fn one_rule_never_compares_an_argument_twice() {
        let exported = export(SeccompProfile::Strict, Machine::Aarch64).expect("a profile");
        assert_eq!(exported["architectures"][0], "SCMP_ARCH_AARCH64");
        for entry in exported["syscalls"].as_array().expect("a list") {
            let mut indices: Vec<_> = entry["args"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|argument| argument["index"].as_u64())
                .collect();
            let all = indices.len();
            indices.dedup();
            assert_eq!(indices.len(), all, "{entry}");
        }
    }

    #[test]
    fn the_strict_profile_refuses_more_and_none_is_no_profile() {
        assert!(entries(SeccompProfile::Default, "chroot").is_empty());
        assert_eq!(entries(SeccompProfile::Strict, "chroot").len(), 1);
        assert!(export(SeccompProfile::None, Machine::X86_64).is_none());
    }
}
