//! "No such name" for what policy refuses, written straight into the datagram.
//!
//! It says what [`super::reply::Reply::refusal`] says (a test compares them); names
//! that are refused are asked by the thousand, so the way is short.

use super::query::{HEADER, Plain};
use super::reply::{MAX_EXPLANATION, cut, extended_code};
use super::template::{OPT, head};
use egress_common::Reason;

/// Owner and person of the SOA record, which name nobody, then its times:
/// serial, refresh, retry, expire.
const SOA_NAMES: &[u8] = b"\x0cegress-agent\x07invalid\0\x06nobody\x07invalid\0";
const SOA_TIMES: [u32; 4] = [1, 3600, 600, 86_400];
const EXTENDED_ERROR: u16 = 15;

/// Bytes one after the other, as far as there is room.
struct Writer<'a> {
    room: &'a mut [u8],
    length: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length + bytes.len();
        self.room.get_mut(self.length..end)?.copy_from_slice(bytes);
        self.length = end;
        Some(())
    }

    fn short(&mut self, number: usize) -> Option<()> {
        self.put(&u16::try_from(number).ok()?.to_be_bytes())
    }
}

/// Writes the refusal of a query for a name; its length.
pub(super) fn write(
    query: &Plain<'_>,
    (reason, help): (Reason, Option<&str>),
    negative_ttl: u32,
    out: &mut [u8],
) -> Option<usize> {
    let limit = query.limit().min(out.len());
    let mut writer = Writer {
        room: out.get_mut(..limit)?,
        length: 0,
    };
    let authorities = u8::from(negative_ttl > 0);
    let additional = u8::from(query.speaks_edns());
    // A reply, recursion available, no such name.
    writer.put(&[0, 0, 0x80, 0x83, 0, 1, 0, 0, 0, authorities, 0, additional])?;
    writer.put(query.question())?;
    if negative_ttl > 0 {
        soa(&mut writer, query, negative_ttl)?;
    }
    if query.speaks_edns() {
        let (fixed, _) = OPT.split_last_chunk::<2>()?;
        writer.put(fixed)?;
        let sentence = reason.sentence();
        let text = match help {
            Some(help) => &format!("{sentence}; {help}"),
            None => sentence,
        };
        let text = cut(text, MAX_EXPLANATION).as_bytes();
        // The option's head, its code, and the text.
        if writer.length + 2 + 6 + text.len() <= limit {
            writer.short(6 + text.len())?;
            writer.short(EXTENDED_ERROR.into())?;
            writer.short(2 + text.len())?;
            writer.short(extended_code(reason).into())?;
            writer.put(text)?;
        } else {
            writer.short(0)?;
        }
    }
    let length = writer.length;
    head(query, out)?;
    Some(length)
}

/// The record by which clients know how long the "no" lasts. Its owner is the
/// name above the asked one, which stands in the question.
fn soa(writer: &mut Writer<'_>, query: &Plain<'_>, ttl: u32) -> Option<()> {
    let first = usize::from(*query.question().first()?);
    let above = 1 + first;
    if *query.question().get(above)? == 0 {
        writer.put(&[0])?;
    } else {
        writer.short(0xc000 | (HEADER + above))?;
    }
    writer.put(&[0, 6, 0, 1])?;
    writer.put(&ttl.to_be_bytes())?;
    writer.short(SOA_NAMES.len() + 4 * (SOA_TIMES.len() + 1))?;
    writer.put(SOA_NAMES)?;
    for time in SOA_TIMES {
        writer.put(&time.to_be_bytes())?;
    }
    writer.put(&ttl.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::query::QuestionKey;
    use super::super::reply::Reply;
    use super::super::{name, question};
    use super::*;
    use egress_common::Protocol;
    use hickory_proto::op::{Edns, Message, Query, ResponseCode};
    use hickory_proto::rr::{Name, RecordType};
    use std::time::Duration;

    fn both(asked: &str, edns: bool, help: Option<&str>, ttl: u32) -> (Message, Message) {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.metadata.checking_disabled = true;
        let asked = Name::from_ascii(asked).expect("a name");
        message.add_query(Query::query(asked, RecordType::A));
        if edns {
            message.set_edns(Edns::new());
        }
        let bytes = message.to_vec().expect("encodes");
        let mut key = QuestionKey::new();
        let plain = Plain::read(&bytes, &mut key).expect("ordinary");
        let mut out = [0; 1232];
        let why = (Reason::NameNotAllowed, help);
        let length = write(&plain, why, ttl, &mut out).expect("it fits");
        let quick = Message::from_vec(&out[..length]).expect("a message");
        let question = question::read(&bytes).expect("a question");
        assert_eq!(
            key.name(),
            name::canonical(&question.envelope.query.as_ref().expect("one").name)
        );
        let wait = Duration::from_secs(ttl.into());
        let reply = Reply::refusal(&question.envelope, ResponseCode::NXDomain, why, wait);
        let slow = reply.encode(Protocol::Udp).expect("it fits");
        (quick, Message::from_vec(&slow).expect("a message"))
    }

    #[test]
    fn it_says_what_the_long_way_says() {
        let long = "x".repeat(500);
        for asked in ["nope.example.com.", "SinGle.", "a.b."] {
            for (edns, help) in [
                (false, None),
                (true, None),
                (true, Some("do this")),
                (true, Some(long.as_str())),
            ] {
                for ttl in [0, 60] {
                    let (quick, slow) = both(asked, edns, help, ttl);
                    assert_eq!(quick, slow, "{asked} {edns} {help:?} {ttl}");
                }
            }
        }
    }
}
