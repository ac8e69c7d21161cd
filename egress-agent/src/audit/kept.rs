//! Checkpoints as they were kept elsewhere: notes one after the other, or lines of
//! a syslog collector that hold one each.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// What the first line of a note begins with.
const ORIGIN: &str = "egress-audit/";
/// What stands before a note in the structured data of a message.
const FIELD: &str = " note=\"";

/// The notes in a text, in their order. Whether they are genuine is not looked at.
pub fn read_notes(text: &str) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    // Whether further lines belong to the last note.
    let mut open = false;
    for line in text.split_inclusive('\n') {
        if let Some(note) = in_message(line) {
            notes.push(note);
            open = false;
        } else if line.starts_with(ORIGIN) {
            notes.push(line.to_owned());
            open = true;
        } else if open && let Some(note) = notes.last_mut() {
            note.push_str(line);
        }
    }
    notes
}

fn in_message(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(FIELD)?;
    let (encoded, _) = rest.split_once('"')?;
    let note = String::from_utf8(BASE64.decode(encoded).ok()?).ok()?;
    note.starts_with(ORIGIN).then_some(note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_found_in_files_and_in_what_a_collector_wrote() {
        let note =
            |n: u32| format!("egress-audit/v1/n/c\n{n}\nroot\n\n— egress-audit/v1/n/c sig\n");
        let text = format!(
            "{}{}Nov 26 host egress-agent: [checkpoint@32473 size=\"3\" note=\"{}\"] checkpoint\nother line\n",
            note(1),
            note(2),
            BASE64.encode(note(3))
        );
        let notes = read_notes(&text);
        assert_eq!(notes, [note(1), note(2), note(3)]);
        assert_eq!(read_notes("nothing\n"), Vec::<String>::new());
    }
}
