//! The order of the agent's modules, the sole users of crates, and the rooms
//! of `unsafe`.

use super::Finding;
use super::rules::{SOLE_USERS, UNSAFE_ROOMS, may_use, row};
use super::source::{code_of, line_of, words};

/// Checks one Rust file; `path` is relative to the workspace.
pub fn check(path: &str, source: &str) -> Vec<Finding> {
    let code = code_of(source);
    let mut findings = unsafe_code(path, &code);
    if let Some(module) = agent_module(path) {
        findings.extend(order(path, module, &code));
        findings.extend(sole_users(path, module, &code));
    }
    findings
}

/// The module of `egress-agent` that a file belongs to; the crate root and the
/// binaries belong to none.
fn agent_module(path: &str) -> Option<&str> {
    let below = path.strip_prefix("egress-agent/src/")?;
    let first = below.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib" && name != "bin").then_some(name)
}

fn order(path: &str, module: &str, code: &str) -> Vec<Finding> {
    if row(module).is_none() {
        let message =
            format!("module `{module}` has no row; give it one in xtask/src/tidy/rules.rs");
        return vec![Finding::new(path, 1, message)];
    }
    let used = words(code)
        .filter(|(word, _)| *word == "crate")
        .flat_map(|(_, end)| {
            let line = line_of(code, end);
            heads(&code[end..])
                .into_iter()
                .map(move |head| (head, line))
        });
    used.filter(|(head, _)| row(head).is_some() && !may_use(module, head))
        .map(|(head, line)| {
            let message = format!(
                "`{module}` uses `{head}`, which is not in a row above it; \
                 let it own a trait, and `daemon` join the two"
            );
            Finding::new(path, line, message)
        })
        .collect()
}

/// The first names behind `crate`: one of `::a::b`, several of `::{a::b, c}`.
fn heads(after: &str) -> Vec<String> {
    let Some(path) = after.trim_start().strip_prefix("::") else {
        return Vec::new();
    };
    let path = path.trim_start();
    let Some(group) = path.strip_prefix('{') else {
        return words(path)
            .next()
            .map(|(word, _)| word.to_owned())
            .into_iter()
            .collect();
    };
    let mut depth = 0_u32;
    let mut parts = vec![String::new()];
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => parts.push(String::new()),
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let first = |part: &String| words(part).next().map(|(word, _)| word.to_owned());
    parts.iter().filter_map(first).collect()
}

fn sole_users(path: &str, module: &str, code: &str) -> Vec<Finding> {
    let foreign = |word: &str, end: usize| {
        let is_path = code[end..].trim_start().starts_with("::");
        // `x::aya::y` is something else of that name.
        let is_first = !code[..end - word.len()].trim_end().ends_with("::");
        let (_, owner) = SOLE_USERS.iter().find(|(name, _)| *name == word)?;
        (is_path && is_first && *owner != module).then_some(*owner)
    };
    words(code)
        .filter_map(|(word, end)| Some((word, end, foreign(word, end)?)))
        .map(|(word, end, owner)| {
            let message = format!("only `{owner}` may use {word}, and this is `{module}`");
            Finding::new(path, line_of(code, end), message)
        })
        .collect()
}

fn unsafe_code(path: &str, code: &str) -> Vec<Finding> {
    if UNSAFE_ROOMS.iter().any(|room| path.starts_with(room)) {
        return Vec::new();
    }
    words(code)
        .filter(|(word, _)| *word == "unsafe")
        // `#[unsafe(no_mangle)]` names an entry point; it runs nothing.
        .filter(|(word, end)| !code[..end - word.len()].trim_end().ends_with('['))
        .map(|(_, end)| {
            let message = "`unsafe` outside of its rooms (xtask/src/tidy/rules.rs)".to_owned();
            Finding::new(path, line_of(code, end), message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, source: &str) -> Vec<String> {
        check(path, source)
            .into_iter()
            .map(|finding| finding.to_string())
            .collect()
    }

    #[test]
    fn a_module_that_looks_sideways_or_down_is_found() {
        let source =
            "use crate::{model::Name, enforcer::{Image, x}};\nfn f() { crate::audit::g() }";
        let found = messages("egress-agent/src/dns/server.rs", source);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].starts_with("egress-agent/src/dns/server.rs:1: `dns` uses `enforcer`"));
        assert!(found[1].starts_with("egress-agent/src/dns/server.rs:2: `dns` uses `audit`"));
    }

    #[test]
    fn looking_up_and_into_oneself_is_fine() {
        let source = "use crate::policy::Policy;\nuse crate::dns::wire;\nuse crate::telemetry;";
        assert_eq!(messages("egress-agent/src/dns/server.rs", source), [""; 0]);
        assert_eq!(
            messages("egress-agent/src/bin/egressctl.rs", "use crate::cli;"),
            [""; 0]
        );
    }

    #[test]
    fn a_module_without_a_row_is_found() {
        let found = messages("egress-agent/src/utils.rs", "");
        assert!(found[0].contains("has no row"), "{found:?}");
    }

    #[test]
    fn crates_have_one_user() {
        let source = "use sqlx::Row; // aya::maps\nlet hickory_proto = my::aya::x;";
        let found = messages("egress-agent/src/api/mod.rs", source);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("only `audit` may use sqlx"));
        assert_eq!(messages("egress-agent/src/audit/mod.rs", source), [""; 0]);
    }

    #[test]
    fn unsafe_stays_in_its_rooms() {
        let source = "#![deny(unsafe_code)]\n#[unsafe(no_mangle)]\nfn f() { unsafe { g() } }";
        let found = messages("egress-ebpf/src/main.rs", source);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with("egress-ebpf/src/main.rs:3:"));
        assert_eq!(messages("egress-ebpf/src/context.rs", source), [""; 0]);
    }
}
