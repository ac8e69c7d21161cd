//! The limits of a sandbox, and what they mean together.

use crate::policy::diagnostic::Report;
use crate::policy::limits::{Bytes, IoLimit, LEAST_SEND_BUFFER, Limits};
use crate::policy::wire::{Document, Field, IoBlock, SandboxBlock, Size};
use std::time::Duration;

/// Less memory than this cannot hold a process and its page tables, in bytes.
const LEAST_MEMORY: u64 = 1 << 20;

/// What the document limits.
pub fn read(document: &Document, report: &mut Report) -> Limits {
    let Some(block) = document.sandbox.as_ref().map(|field| &field.value) else {
        return Limits::default();
    };
    let limits = Limits {
        cpu: block.cpu_limit.as_ref().map(|field| field.value.0),
        cpu_weight: block.cpu_weight.as_ref().map(|field| field.value.0),
        memory: bytes(&block.memory_limit),
        memory_high: bytes(&block.memory_high),
        memory_swap: bytes(&block.memory_swap),
        pids: block.pids_limit.as_ref().map(|field| field.value.0),
        io: io(block, report),
        timeout: block
            .timeout
            .as_ref()
            .map(|field| Duration::from_secs(field.value.0.into())),
        disk: disk(block, report),
        max_connections: block.max_connections.as_ref().map(|field| field.value.0),
        max_pending_bytes: bytes(&block.max_pending_bytes),
        best_effort: block.best_effort.as_ref().is_some_and(|field| field.value),
    };
    check_memory(block, &limits, report);
    check_pending(block, &limits, report);
    if let Some(field) = &block.timeout
        && field.value.0 == 0
    {
        report.error(
            "invalid-value",
            field.span,
            "a sandbox without any time cannot run",
            "write at least `timeout: 1s`, or remove the key",
        );
    }
    if let Some(field) = &block.best_effort
        && limits.is_empty()
        && !block.written.has_later()
    {
        report.error(
            "no-effect",
            field.key,
            "`best_effort` is about limits, and there are none",
            "remove it",
        );
    }
    limits
}

fn bytes(field: &Option<Field<Size>>) -> Option<u64> {
    field.as_ref().map(|field| field.value.0)
}

fn check_memory(block: &SandboxBlock, limits: &Limits, report: &mut Report) {
    for field in [&block.memory_limit, &block.memory_high]
        .into_iter()
        .flatten()
    {
        if field.value.0 < LEAST_MEMORY {
            report.error(
                "invalid-value",
                field.span,
                format!("no command can run in {} bytes of memory", field.value.0),
                "write at least `1Mi`",
            );
        }
    }
    if let (Some(high), Some(limit), Some(field)) =
        (limits.memory_high, limits.memory, &block.memory_high)
        && high >= limit
    {
        report.error(
            "no-effect",
            field.span,
            format!(
                "`memory_high` ({}) is not below `memory_limit` ({})",
                Bytes(high),
                Bytes(limit)
            ),
            "a sandbox is slowed down before it is killed: write less, or remove `memory_high`",
        );
    }
    if let Some(field) = &block.memory_swap
        && limits.memory.is_none()
        && block.written.lacks("memory_limit")
    {
        report.error(
            "no-effect",
            field.key,
            "`memory_swap` without `memory_limit` limits nothing that matters",
            "write `memory_limit` too",
        );
    }
}

/// The bound is shared out among the connections, so there has to be a number of
/// them, and each has to get what the kernel gives at least.
fn check_pending(block: &SandboxBlock, limits: &Limits, report: &mut Report) {
    let Some(field) = &block.max_pending_bytes else {
        return;
    };
    let Some(connections) = limits.max_connections else {
        if block.written.lacks("max_connections") {
            report.error(
                "missing-key",
                field.key,
                "`max_pending_bytes` is shared out among the connections, and their number has no bound",
                "write `max_connections` too",
            );
        }
        return;
    };
    let least = u64::from(connections) * LEAST_SEND_BUFFER;
    if field.value.0 < least {
        report.error(
            "invalid-value",
            field.span,
            format!(
                "{} bytes for {connections} connections are less than the {LEAST_SEND_BUFFER} \
                 that the kernel gives each",
                field.value.0
            ),
            format!("write at least {least}, or lower `max_connections`"),
        );
    }
}

fn io(block: &SandboxBlock, report: &mut Report) -> Vec<IoLimit> {
    let items = block.io_limit.iter().flat_map(|field| &field.value.0);
    let mut limits: Vec<IoLimit> = Vec::new();
    for item in items {
        let IoBlock {
            device,
            read,
            write,
            read_ops,
            write_ops,
            written,
        } = &item.value;
        let mut missing = |message: &str, help: &str| {
            report.error("missing-key", item.span, message.to_owned(), help);
        };
        if device.is_none() && written.lacks("device") {
            missing(
                "the limit names no device",
                "write `device:` with a path such as `/dev/vda`",
            );
        }
        let nothing =
            read.is_none() && write.is_none() && read_ops.is_none() && write_ops.is_none();
        let unwritten = ["read", "write", "read_ops", "write_ops"]
            .iter()
            .all(|key| written.lacks(key));
        if nothing && unwritten && !written.has_later() {
            missing(
                "the limit limits nothing",
                "write `read`, `write`, `read_ops` or `write_ops`",
            );
        }
        let Some(device) = device else { continue };
        for field in [read, write].into_iter().flatten() {
            if field.value.0 == 0 {
                report.error(
                    "invalid-value",
                    field.span,
                    "the kernel has no limit of 0 bytes per second",
                    "write at least 1; for a read-only file system write `disk`",
                );
            }
        }
        if limits.iter().any(|limit| limit.device == device.value.0) {
            report.error(
                "invalid-value",
                device.span,
                format!("`{}` is limited twice", device.value.0),
                "write one limit with all that it says",
            );
            continue;
        }
        limits.push(IoLimit {
            device: device.value.0.clone(),
            read_bytes: bytes(read),
            write_bytes: bytes(write),
            read_operations: read_ops.as_ref().map(|field| field.value.0.into()),
            write_operations: write_ops.as_ref().map(|field| field.value.0.into()),
        });
    }
    limits
}

fn disk(block: &SandboxBlock, report: &mut Report) -> Option<u64> {
    const PAGE: u64 = 4096;
    let field = block.disk.as_ref()?;
    let Some(tmp) = &field.value.tmp else {
        if field.value.written.lacks("tmp") && !field.value.written.has_later() {
            report.error(
                "missing-key",
                field.span,
                "`disk` does not say how large `/tmp` is",
                "write `tmp:` with a size such as `64Mi`",
            );
        }
        return None;
    };
    if tmp.value.0 < PAGE {
        report.error(
            "invalid-value",
            tmp.span,
            format!("a `/tmp` of {} bytes holds nothing", tmp.value.0),
            "write at least `4Ki`",
        );
    }
    Some(tmp.value.0)
}
