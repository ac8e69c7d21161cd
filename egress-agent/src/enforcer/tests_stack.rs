//! How much of its stack each program uses, read from its instructions: Linux 6.1
//! counts it otherwise than later kernels do, and refuses what they take.

use super::object::functions;
use std::collections::BTreeMap;

/// The frame pointer.
const FRAME: u8 = 10;
/// `MAX_BPF_STACK`, `include/linux/filter.h`.
const MOST: u32 = 512;
/// What 6.1 rounds each function's part up to (`check_max_stack_depth`,
/// `kernel/bpf/verifier.c`); 16 from 6.8 on.
const ROUNDED: u32 = 32;

/// Instruction classes and codes, `include/uapi/linux/bpf.h`.
mod code {
    pub const LOAD: u8 = 0x01;
    pub const STORE: u8 = 0x02;
    pub const STORE_REGISTER: u8 = 0x03;
    pub const MOVE: u8 = 0xbf;
    pub const ADD: u8 = 0x07;
    pub const CALL: u8 = 0x85;
    /// In the source register of a call: of a function of the object.
    pub const LOCAL: u8 = 1;
}

#[test]
fn the_programs_fit_on_the_stack_of_the_oldest_kernel() {
    let mut deepest: BTreeMap<String, (u32, bool)> = BTreeMap::new();
    for function in functions().expect("the object that was built") {
        let mut depth = 0;
        let mut calls = false;
        let mut frame_in = [false; 11];
        for instruction in &function.instructions {
            let (to, from) = (instruction.dst_reg(), instruction.src_reg());
            let offset = i32::from(instruction.off);
            let reached = match instruction.code & 0x07 {
                code::LOAD if from == FRAME => offset,
                code::STORE | code::STORE_REGISTER if to == FRAME => offset,
                _ if instruction.code == code::ADD && frame_in[usize::from(to)] => instruction.imm,
                _ => 0,
            };
            depth = depth.max(reached.min(0).unsigned_abs());
            frame_in[usize::from(to)] = instruction.code == code::MOVE && from == FRAME;
            calls |= instruction.code == code::CALL && from == code::LOCAL;
        }
        deepest.insert(function.name, (depth, calls));
    }
    // What they call are copies of memory, which keep nothing on the stack.
    let own = |(depth, calls): &(u32, bool)| {
        let leaf = if *calls { ROUNDED } else { 0 };
        depth.max(&1).next_multiple_of(ROUNDED) + leaf
    };
    for name in ["memcpy", "memset", "memmove"] {
        assert_eq!(
            deepest.get(name).map_or(0, |(depth, _)| *depth),
            0,
            "{name}"
        );
    }
    assert!(
        deepest["link_leaves"].0 > 256,
        "the reading sees nothing: {deepest:?}"
    );
    for (name, use_of_stack) in &deepest {
        assert!(
            own(use_of_stack) <= MOST,
            "{name}: {use_of_stack:?} of {MOST} bytes"
        );
    }
}
