//! Tries things from inside a sandbox and prints what it was told.
//!
//! Each argument is a step, words separated by spaces; for each it prints one
//! JSON object `{"step", "ok", "errno", "detail"}`. It always ends with status
//! 0 unless a step is not understood, which ends it with 2.
//!
//! | step | does |
//! |---|---|
//! | `tcp-exchange ADDR TEXT` | connects, sends, expects the same back |
//! | `udp-exchange ADDR TEXT` | sends with `sendto`, expects the same back |
//! | `udp-send ADDR TEXT` | sends with `sendto`, expects nothing |
//! | `udp-connect-send ADDR TEXT` | connects, then sends |
//! | `udp-flood ADDR MILLISECONDS` | sends all the time, and counts |
//! | `udp-storm ADDR COUNT` | sends as fast as it can, and counts |
//! | `resolve NAME` | asks the C library |
//! | `named-exchange NAME PORT TEXT` | resolves, then `tcp-exchange` with the first address |
//! | `rounds FIRST COUNT AT-ONCE PORT SUFFIX` | resolves and connects to `nFIRST.SUFFIX` and the following names |
//! | `siege OPEN CLOSED SERVER NAME` | until a line comes: uses the first, tries the second, asks the third for the fourth; counts |
//! | `until-resolved SERVER NAME` | asks until there is an answer; how many milliseconds that took |
//! | `wildcard FIRST COUNT SUFFIX` | asks for `nFIRST.SUFFIX` and the following names on one connection |
//! | `dns-udp SERVER TYPE NAME` | asks with a datagram; `dns-udp-once` waits much longer for the answer |
//! | `dns-class SERVER CLASS TYPE NAME` | asks with a datagram, in a class by its number |
//! | `dns-tcp SERVER TYPE NAME…` | asks all names on one connection without waiting |
//! | `dns-pieces SERVER TYPE NAME…` | the same, a byte at a time |
//! | `self-tcp ADDR TEXT`, `self-udp ADDR TEXT` | listens, and speaks to itself |
//! | `socket FAMILY TYPE PROTOCOL` | makes a socket, all as numbers |
//! | `join GROUP` | joins a multicast group |
//! | `bind-device NAME` | binds a socket to a device |
//! | `open AS KIND` | makes a socket `AS`; KIND is `tcp4`, `tcp6`, `udp4`, `udp6` |
//! | `connect AS ADDR`, `send AS TEXT`, `send-to AS ADDR TEXT`, `receive AS` | uses it |
//! | `make AS FAMILY TYPE PROTOCOL` | makes a socket `AS`, all as numbers |
//! | `inherited AS NUMBER` | calls an inherited standard stream `AS` |
//! | `bind AS ADDR`, `disconnect AS`, `close AS` | what it says |
//! | `flood AS MILLISECONDS` | sends DNS queries as fast as it can |
//! | `option AS LEVEL NAME HEX` | sets a socket option |
//! | `send-flags AS FLAGS ADDR TEXT` | `sendto` with flags; `-` for no address |
//! | `send-raw AS HEX TEXT` | `sendto` with these bytes as the address |
//! | `send-control AS FLAGS ADDR LEVEL TYPE HEX TEXT` | `sendmsg` with a control message |
//! | `send-many AS TEXT ADDR…` | `sendmmsg` of the same text to all of them |
//! | `race AS ADDR ADDR MILLISECONDS TEXT` | connects to both in turn while another thread sends |
//! | `call-32 NUMBER ARGUMENT…` | a system call of the 32-bit table, of numbers |
//! | `call NUMBER ARGUMENT…` | any system call: numbers, `text:…`, `bytes:HEX`, `fd:AS` |
//! | `call-as AS NUMBER ARGUMENT…` | one whose result is a descriptor, kept as `AS` |
//! | `connect-unix PATH` | connects to a Unix socket; `@NAME` for an abstract one |
//! | `self-unix NAME` | listens at an abstract Unix socket, and connects to it |
//! | `device NAME` | the index of a network device |
//! | `listen AS ADDR`, `accept AS NEW` | the server's side |
//! | `give AS PATH`, `take AS PATH` | passes a socket through a Unix socket |
//! | `attempts` | tries what it is told on its input, a line each |
//! | `pause` | reports, then waits for a line |
//! | `sleep MILLISECONDS` | waits |
//! | `status FIELD` | a field of `/proc/self/status` |
//! | `descriptors` | the open descriptors |
//! | `environment` | the names of the environment variables |
//! | `read PATH`, `write PATH` | opens a file to read, to write |

mod attempts;
mod calls;
mod exchange;
mod named;
mod process;
mod resolve;
mod rounds;
mod siege;

use named::Sockets;
use serde_json::json;
use std::io::{self, Write};
use std::process::ExitCode;

/// What a step got, or the error of the call that failed.
type Result<T = String> = io::Result<T>;

fn main() -> ExitCode {
    let mut sockets = Sockets::default();
    for step in std::env::args().skip(1) {
        let words: Vec<&str> = step.split(' ').collect();
        let Some(result) = perform(&mut sockets, &words) else {
            eprintln!("egress-probe: not a step: {step}");
            return ExitCode::from(2);
        };
        report(&step, &result);
        if step == "pause" && io::stdin().read_line(&mut String::new()).is_err() {
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn perform(sockets: &mut Sockets, words: &[&str]) -> Option<Result> {
    Some(match *words {
        ["tcp-exchange", address, text] => exchange::tcp(address, text),
        ["udp-exchange", address, text] => exchange::udp(address, text),
        ["udp-send", address, text] => exchange::udp_send(address, text),
        ["udp-connect-send", address, text] => exchange::udp_connect_send(address, text),
        ["udp-storm", address, count] => exchange::udp_storm(address, count),
        ["udp-flood", address, milliseconds] => exchange::udp_flood(address, milliseconds),
        ["siege", open, closed, server, name] => siege::run(open, closed, server, name),
        ["until-resolved", server, name] => siege::until_resolved(server, name),
        ["self-tcp", address, text] => exchange::tcp_with_self(address, text),
        ["self-udp", address, text] => exchange::udp_with_self(address, text),
        ["resolve", name] => resolve::by_library(name),
        ["named-exchange", name, port, text] => resolve::then_exchange(name, port, text),
        ["rounds", first, count, at_once, port, suffix] => {
            rounds::run(first, count, at_once, port, suffix)
        }
        ["wildcard", first, count, suffix] => resolve::wildcard(first, count, suffix),
        ["dns-udp", server, kind, name] => {
            resolve::by_datagram(server, kind, name, exchange::PATIENCE)
        }
        ["dns-udp-once", server, kind, name] => {
            resolve::by_datagram(server, kind, name, 20 * exchange::PATIENCE)
        }
        ["dns-class", server, class, kind, name] => resolve::in_class(server, class, kind, name),
        ["dns-tcp", server, kind, ref names @ ..] => {
            resolve::by_stream(server, kind, names, resolve::Pieces::All)
        }
        ["dns-pieces", server, kind, ref names @ ..] => {
            resolve::by_stream(server, kind, names, resolve::Pieces::Bytes)
        }
        ["socket", family, kind, protocol] => exchange::make_socket(family, kind, protocol),
        ["join", group] => exchange::join_group(group),
        ["bind-device", device] => exchange::bind_device(device),
        ["open", name, kind] => sockets.open(name, kind),
        ["connect", name, address] => sockets.connect(name, address),
        ["send", name, text] => sockets.send(name, text),
        ["send-to", name, address, text] => sockets.send_to(name, address, text),
        ["receive", name] => sockets.receive(name),
        ["make", name, family, kind, protocol] => sockets.make(name, [family, kind, protocol]),
        ["inherited", name, number] => sockets.inherited(name, number),
        ["bind", name, address] => sockets.bind(name, address),
        ["close", name] => sockets.close(name),
        ["flood", name, milliseconds] => sockets.flood(name, milliseconds),
        ["disconnect", name] => sockets.named(name).and_then(calls::disconnect),
        ["option", name, level, option, value] => sockets
            .named(name)
            .and_then(|socket| calls::set_option(socket, level, option, value)),
        ["send-raw", name, address, text] => sockets
            .named(name)
            .and_then(|socket| calls::send_to_raw(socket, address, text)),
        ["send-flags", name, flags, address, text] => sockets
            .named(name)
            .and_then(|socket| calls::send_with_flags(socket, flags, address, text)),
        [
            "send-control",
            name,
            flags,
            address,
            level,
            kind,
            data,
            text,
        ] => sockets.named(name).and_then(|socket| {
            calls::send_with_control(socket, (flags, address), (level, kind, data), text)
        }),
        ["send-many", name, text, ref addresses @ ..] => sockets
            .named(name)
            .and_then(|socket| calls::send_many(socket, text, addresses)),
        ["race", name, first, second, milliseconds, text] => {
            sockets.race(name, [first, second], milliseconds, text)
        }
        ["call-32", number, ref arguments @ ..] => calls::call_of_32_bits(number, arguments),
        ["call", number, ref arguments @ ..] => sockets
            .numbers(arguments)
            .and_then(|arguments| calls::system_call(number, &arguments))
            .map(|returned| returned.to_string()),
        ["call-as", name, number, ref arguments @ ..] => sockets
            .numbers(arguments)
            .and_then(|arguments| calls::system_call(number, &arguments))
            .and_then(|returned| sockets.keep_descriptor(name, calls::owned(returned)?)),
        ["connect-unix", name] => calls::connect_unix(name),
        ["self-unix", name] => calls::unix_with_self(name),
        ["device", name] => calls::device_index(name),
        ["listen", name, address] => sockets.listen(name, address),
        ["accept", name, accepted] => sockets.accept(name, accepted),
        ["give", name, path] => sockets.give(name, path),
        ["take", name, path] => sockets.take(name, path),
        ["attempts"] => attempts::answer_all(),
        ["pause"] => Ok(String::new()),
        ["sleep", milliseconds] => process::sleep(milliseconds),
        ["status", field] => process::status(field),
        ["descriptors"] => process::descriptors(),
        ["environment"] => Ok(process::environment()),
        ["read", path] => std::fs::File::open(path).map(|_| String::new()),
        ["write", path] => std::fs::OpenOptions::new()
            .append(true)
            .open(path)
            .map(|_| String::new()),
        _ => return None,
    })
}

fn report(step: &str, result: &Result) {
    let line = match result {
        Ok(detail) => json!({"step": step, "ok": true, "errno": null, "detail": detail}),
        Err(error) => json!({
            "step": step,
            "ok": false,
            "errno": error.raw_os_error(),
            "detail": error.to_string(),
        }),
    };
    // Without a reader there is nobody to tell.
    let _ = writeln!(io::stdout(), "{line}");
}

/// Reads a number or an address out of a step.
fn parse<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse()
        .map_err(|_| io::Error::other(format!("not understood: {text}")))
}
