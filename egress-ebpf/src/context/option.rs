//! Socket options: what a `setsockopt` call wants, and the send buffer.

use super::Address;
use aya_ebpf::{helpers::generated::bpf_setsockopt, programs::SockoptContext};
use core::ffi::c_int;
use egress_common::Reason;

/// What a `setsockopt` call wants.
pub struct SocketOption {
    /// `SOL_…` level.
    pub level: i32,
    /// Option number within the level.
    pub name: i32,
}

/// `include/uapi/asm-generic/socket.h`.
pub const SOL_SOCKET: i32 = 1;
/// As above; so many bytes, which the kernel doubles.
pub const SO_SNDBUF: i32 = 7;

/// The largest option value that the kernel shows to a program.
const SHOWN: i32 = 4096;
/// Bytes of an option that is a number.
const NUMBER: i32 = size_of::<u32>() as i32;

/// Reads a `setsockopt` context.
#[inline(always)]
pub fn read(context: &SockoptContext) -> SocketOption {
    // SAFETY: the kernel passes a valid context for the time of the call.
    let option = unsafe { &*context.sockopt };
    SocketOption {
        level: option.level,
        name: option.optname,
    }
}

/// Whether the option is set on a TCP socket, and not on one of another kind for
/// which there is the same option.
#[inline(always)]
pub fn is_tcp(context: &SockoptContext) -> bool {
    const AF_INET: u32 = 2;
    const AF_INET6: u32 = 10;
    const STREAM: u32 = 1;
    // SAFETY: the kernel passes a valid context for the time of the call; every
    // member of the union is that pointer.
    let sk = unsafe { (*context.sockopt).__bindgen_anon_1.sk };
    // SAFETY: the kernel holds the socket for the time of the call.
    let socket = unsafe { sk.as_ref() };
    socket.is_some_and(|sk| (sk.family == AF_INET || sk.family == AF_INET6) && sk.type_ == STREAM)
}

/// Lets the kernel use the caller's own buffer for a value that is larger than
/// what the program was shown; without it such a call fails with EFAULT.
#[inline(always)]
pub fn pass_large(context: &SockoptContext) {
    // SAFETY: the kernel passes a valid context, and no reference to it is alive.
    unsafe {
        if (*context.sockopt).optlen > SHOWN {
            (*context.sockopt).optlen = 0;
        }
    }
}

/// Lets the kernel have the number that the caller wants, but no more than `most`.
/// It gets the program's copy and nothing behind it, whatever the caller's buffer
/// holds by then. A value that is too short is left to the kernel, which refuses it,
/// although what a program is shown is longer.
#[inline(always)]
pub fn cut_down(context: &SockoptContext, most: u32) {
    // SAFETY: the kernel passes a valid context, and no reference to it is alive.
    unsafe {
        let value = (*context.sockopt).__bindgen_anon_2.optval.cast::<u32>();
        let end = (*context.sockopt).__bindgen_anon_3.optval_end;
        if (*context.sockopt).optlen < NUMBER || value.wrapping_add(1).cast() > end {
            return;
        }
        // The kernel takes a negative number as one that is very large.
        if *value > most {
            *value = most;
        }
        (*context.sockopt).optlen = NUMBER;
    }
}

/// Gives the socket that connects a send buffer of so many bytes, once and for all:
/// the kernel makes it no larger by itself. Linux 5.8.
#[inline(always)]
pub fn fix_send_buffer(address: &Address<'_>, bytes: u32) -> Result<(), Reason> {
    let mut half = half(bytes);
    // SAFETY: the context of a hook that may call this helper, and a number of
    // that length on the stack.
    let code = unsafe {
        bpf_setsockopt(
            address.raw(),
            SOL_SOCKET as c_int,
            SO_SNDBUF as c_int,
            (&raw mut half).cast(),
            NUMBER as c_int,
        )
    };
    if code == 0 {
        Ok(())
    } else {
        Err(Reason::HelperFailed)
    }
}

/// What `SO_SNDBUF` has to say for a buffer of so many bytes.
#[inline(always)]
pub const fn half(bytes: u32) -> u32 {
    bytes / 2
}
