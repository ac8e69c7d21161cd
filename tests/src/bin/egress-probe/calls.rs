//! Steps that make one system call exactly as they say, for what no library offers.

use crate::{Result, parse};
use socket2::{SockAddr, Socket};
use std::ffi::CString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{UnixListener, UnixStream};

/// Turns the kernel's -1 into the error behind it.
fn checked(returned: i64) -> Result {
    if returned < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(returned.to_string())
    }
}

/// Any system call. An argument is a number, or `text:…` for a pointer to text,
/// or `bytes:HEX` for a pointer to bytes that the kernel may also write.
pub fn system_call(number: &str, arguments: &[String]) -> Result<i64> {
    let mut texts = Vec::new();
    let mut buffers: Vec<Vec<u8>> = Vec::new();
    let mut values = [0_i64; 6];
    if arguments.len() > values.len() {
        return Err(io::Error::other("a system call has six arguments at most"));
    }
    for (value, argument) in values.iter_mut().zip(arguments) {
        *value = if let Some(text) = argument.strip_prefix("text:") {
            let text = CString::new(text).map_err(io::Error::other)?;
            let pointer = text.as_ptr() as i64;
            texts.push(text);
            pointer
        } else if let Some(digits) = argument.strip_prefix("bytes:") {
            let mut buffer = hexadecimal(digits)?;
            let pointer = buffer.as_mut_ptr() as i64;
            buffers.push(buffer);
            pointer
        } else {
            parse(argument)?
        };
    }
    let [a, b, c, d, e, f] = values;
    // SAFETY: pointers among the arguments lead to buffers that live until the
    // call has returned. Which call it is, the test says; none that the tests
    // make writes more than it is given, or unmaps what this process runs on.
    let returned = unsafe { libc::syscall(parse(number)?, a, b, c, d, e, f) };
    checked(returned).map(|_| returned)
}

/// The descriptor that a call has just made.
pub fn owned(returned: i64) -> Result<OwnedFd> {
    let number = i32::try_from(returned).map_err(io::Error::other)?;
    // SAFETY: the test says so of the call; nobody else has the number yet.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// `setsockopt(2)` with a value in hexadecimal.
pub fn set_option(socket: &Socket, level: &str, name: &str, value: &str) -> Result {
    let value = hexadecimal(value)?;
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the value is `length` readable bytes, and the socket is open.
    let returned = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            parse(level)?,
            parse(name)?,
            value.as_ptr().cast(),
            length,
        )
    };
    checked(returned.into())
}

/// `connect(2)` to nobody: AF_UNSPEC, which ends a connection.
pub fn disconnect(socket: &Socket) -> Result {
    let nobody = [0_u8; 16];
    // SAFETY: an address of family 0 is sixteen readable bytes here.
    let returned = unsafe { libc::connect(socket.as_raw_fd(), nobody.as_ptr().cast(), 16) };
    checked(returned.into())
}

/// `sendto(2)` with flags; `-` for no address.
pub fn send_with_flags(socket: &Socket, flags: &str, address: &str, text: &str) -> Result {
    let flags = parse(flags)?;
    let sent = match address {
        "-" => socket.send_with_flags(text.as_bytes(), flags)?,
        address => {
            let address = SockAddr::from(parse::<SocketAddr>(address)?);
            socket.send_to_with_flags(text.as_bytes(), &address, flags)?
        }
    };
    Ok(sent.to_string())
}

/// `sendto(2)` with an address of any family and shape.
pub fn send_to_raw(socket: &Socket, address: &str, text: &str) -> Result {
    let address = hexadecimal(address)?;
    let length = libc::socklen_t::try_from(address.len()).map_err(io::Error::other)?;
    // SAFETY: text and address are readable for the lengths beside them.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            text.as_ptr().cast(),
            text.len(),
            0,
            address.as_ptr().cast(),
            length,
        )
    };
    checked(i64::try_from(sent).map_err(io::Error::other)?)
}

/// `sendmsg(2)` with flags and one control message, whose data is in hexadecimal.
pub fn send_with_control(
    socket: &Socket,
    (flags, address): (&str, &str),
    (level, kind, data): (&str, &str, &str),
    text: &str,
) -> Result {
    let address = SockAddr::from(parse::<SocketAddr>(address)?);
    let data = hexadecimal(data)?;
    // `struct cmsghdr` and its data, by hand: length, level, type.
    let mut control = Vec::new();
    control.extend((16 + data.len()).to_ne_bytes());
    control.extend(parse::<i32>(level)?.to_ne_bytes());
    control.extend(parse::<i32>(kind)?.to_ne_bytes());
    control.extend(&data);
    control.resize(control.len().next_multiple_of(8), 0);
    let mut part = libc::iovec {
        iov_base: text.as_ptr().cast_mut().cast(),
        iov_len: text.len(),
    };
    // SAFETY: zero is a valid value for every field of this structure.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = address.as_ptr().cast_mut().cast();
    message.msg_namelen = address.len();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control.len();
    // SAFETY: every pointer in `message` leads to a value that outlives the
    // call, with the length that stands beside it; the kernel only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, parse(flags)?) };
    checked(i64::try_from(sent).map_err(io::Error::other)?)
}

/// `sendmmsg(2)`: the same text to several addresses in one call; how many went.
pub fn send_many(socket: &Socket, text: &str, addresses: &[&str]) -> Result {
    let addresses = addresses.iter().map(|text| parse::<SocketAddr>(text));
    let addresses: Vec<SockAddr> = addresses
        .map(|address| address.map(SockAddr::from))
        .collect::<Result<_>>()?;
    let mut part = libc::iovec {
        iov_base: text.as_ptr().cast_mut().cast(),
        iov_len: text.len(),
    };
    let message = |address: &SockAddr| {
        // SAFETY: zero is a valid value for every field of this structure.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        message.msg_hdr.msg_name = address.as_ptr().cast_mut().cast();
        message.msg_hdr.msg_namelen = address.len();
        message.msg_hdr.msg_iov = &raw mut part;
        message.msg_hdr.msg_iovlen = 1;
        message
    };
    let mut messages: Vec<libc::mmsghdr> = addresses.iter().map(message).collect();
    let count = libc::c_uint::try_from(messages.len()).map_err(io::Error::other)?;
    // SAFETY: every pointer leads to a value that outlives the call, with the
    // length that stands beside it; of those the kernel only reads.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
    checked(sent.into())
}

/// A system call by the table of 32-bit programs, which any program may use.
#[cfg(target_arch = "x86_64")]
pub fn call_of_32_bits(number: &str, arguments: &[&str]) -> Result {
    let mut values = [0_i32; 3];
    for (value, argument) in values.iter_mut().zip(arguments) {
        *value = parse(argument)?;
    }
    let [first, second, third] = values;
    let mut result = i64::from(parse::<i32>(number)?);
    // SAFETY: the calls that the tests make take numbers only. The gate saves no
    // more registers than these, and the first argument goes where the compiler
    // keeps a register of its own.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) i64::from(first) => _,
            inout("rax") result,
            in("rcx") i64::from(second),
            in("rdx") i64::from(third),
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    let result = i64::from(result as i32);
    if result < 0 {
        let errno = i32::try_from(-result).map_err(io::Error::other)?;
        return Err(io::Error::from_raw_os_error(errno));
    }
    Ok(result.to_string())
}

/// There is no other table on this machine.
#[cfg(not(target_arch = "x86_64"))]
pub fn call_of_32_bits(_: &str, _: &[&str]) -> Result {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// Connects to a Unix socket: `@name` for an abstract one, or a path.
pub fn connect_unix(name: &str) -> Result {
    match name.strip_prefix('@') {
        Some(name) => {
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            UnixStream::connect_addr(&address)?
        }
        None => UnixStream::connect(name)?,
    };
    Ok(String::new())
}

/// Listens at an abstract Unix socket and connects to it.
pub fn unix_with_self(name: &str) -> Result {
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let _listener = UnixListener::bind_addr(&address)?;
    UnixStream::connect_addr(&address).map(|_| String::new())
}

/// The index of a network device, as the kernel's table has it.
pub fn device_index(name: &str) -> Result {
    let index = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
    Ok(index.trim().to_owned())
}

/// A descriptor that this process has, by its number.
pub fn borrowed(number: &str) -> Result<BorrowedFd<'static>> {
    let number: i32 = parse(number)?;
    if !(0..3).contains(&number) {
        return Err(io::Error::other("only standard streams are inherited"));
    }
    // SAFETY: nothing in this process closes its standard streams.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

fn hexadecimal(digits: &str) -> Result<Vec<u8>> {
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).map_err(io::Error::other)?;
            u8::from_str_radix(pair, 16).map_err(io::Error::other)
        })
        .collect()
}
