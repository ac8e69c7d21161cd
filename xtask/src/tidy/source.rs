//! Rust source without what is not code.

/// Blanks out comments, strings and character literals, so that what is left
/// is code. Lines and columns stay where they were.
pub fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while !rest.is_empty() {
        let length = literal_or_comment(rest);
        if length == 0 {
            // Words are taken whole, so that the `r` at the end of one is not
            // read as the start of a raw string.
            let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            let taken = word.max(rest.chars().next().map_or(1, char::len_utf8));
            code.push_str(&rest[..taken]);
            rest = &rest[taken..];
        } else {
            code.extend(
                rest[..length]
                    .chars()
                    .map(|c| if c == '\n' { '\n' } else { ' ' }),
            );
            rest = &rest[length..];
        }
    }
    code
}

/// Says whether a character may be part of an identifier.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The identifiers of `code` with the byte offsets behind them.
pub fn words(code: &str) -> impl Iterator<Item = (&str, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + code[at..].find(is_word)?;
        let length = code[start..]
            .find(|c| !is_word(c))
            .unwrap_or(code.len() - start);
        at = start + length;
        Some((&code[start..at], at))
    })
}

/// The line, counted from 1, of a byte offset.
pub fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// The length of the comment or literal at the start of `text`, or 0.
fn literal_or_comment(text: &str) -> usize {
    let until = |end: &str, from: usize| {
        text[from..]
            .find(end)
            .map_or(text.len(), |at| from + at + end.len())
    };
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment(text);
    }
    // `br"…"` and `cr"…"` have no escapes either; `b"…"` and `c"…"` have.
    let prefix = ["br", "cr", "r"]
        .iter()
        .find(|prefix| text.starts_with(**prefix));
    if let Some(prefix) = prefix {
        let marks = text[prefix.len()..].find(|c| c != '#').unwrap_or(0);
        let quote = prefix.len() + marks;
        if text[quote..].starts_with('"') {
            return until(&format!("\"{}", "#".repeat(marks)), quote + 1);
        }
    }
    match text.as_bytes() {
        [b'"', ..] => quoted(text, '"', 1),
        [b'b' | b'c', b'"', ..] => quoted(text, '"', 2),
        [b'b', b'\'', ..] => quoted(text, '\'', 2),
        [b'\'', b'\\', ..] => quoted(text, '\'', 1),
        // A lifetime has no quote behind its first character.
        [b'\'', ..] => match text[1..].chars().next() {
            Some(c) if text[1 + c.len_utf8()..].starts_with('\'') => c.len_utf8() + 2,
            _ => 0,
        },
        _ => 0,
    }
}

fn quoted(text: &str, end: char, from: usize) -> usize {
    let mut escaped = false;
    for (at, c) in text[from..].char_indices() {
        if c == end && !escaped {
            return from + at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_words(source: &str) -> Vec<String> {
        words(&code_of(source))
            .map(|(word, _)| word.to_owned())
            .collect()
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        let source = "a /* b /* c */ d */ \"e \\\" f\" 'g' b'h' r#\"i \" j\"# k // l\nm";
        assert_eq!(code_words(source), ["a", "k", "m"]);
    }

    #[test]
    fn lifetimes_and_words_that_end_in_r_are_code() {
        assert_eq!(
            code_words("fn a<'b>(for_str: &'b str) {}"),
            ["fn", "a", "b", "for_str", "b", "str"]
        );
        assert_eq!(code_words("bar\"x\" '\\'' y"), ["bar", "y"]);
    }

    #[test]
    fn lines_stay_where_they_were() {
        let source = "\"one\ntwo\" three";
        let code = code_of(source);
        assert_eq!(line_of(&code, code.find("three").expect("it is code")), 2);
    }
}
