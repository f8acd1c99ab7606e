//! Texts that people write: which ones a name, a line or a description may be, and how a terminal may show any text.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::RangeInclusive;

/// What is wrong with a text that must stand on one line: a name, a section, a venue, a reason. None if it is good.
pub fn line_problem(text: &str, chars: &RangeInclusive<usize>) -> Option<String> {
    let forbidden = |letter: char| letter.is_control() || breaks_line(letter) || turns_direction(letter);
    problem(text, chars, forbidden, "no control characters, line breaks or changes of the writing direction")
}

/// What is wrong with a text of several lines, a description. None if it is good.
pub fn block_problem(text: &str, chars: &RangeInclusive<usize>) -> Option<String> {
    let forbidden = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t');
    problem(text, chars, forbidden, "no control characters but line breaks and tabs")
}

/// Characters that no line may have, for a class of a regular expression.
const NOT_IN_LINES: &str = r"\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069";
/// Characters that cannot be seen, those that no line may have among them.
const UNSEEN: &str = concat!(
    r"\u0000-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f",
    r"\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb",
    "\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}"
);

/// What [`line_problem`] accepts whatever its length, as a regular expression of ECMA-262. `may_be_empty` is about a line
/// whose shortest length is 0: nothing of it needs to be seen.
pub fn line_pattern(may_be_empty: bool) -> String {
    let unseen = if may_be_empty { String::new() } else { format!("[^{UNSEEN}][^{NOT_IN_LINES}]*") };
    format!("^[^{NOT_IN_LINES}]*{unseen}$")
}

/// What [`block_problem`] accepts of a text that may be empty.
pub const BLOCK_PATTERN: &str = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$";

fn problem(
    text: &str,
    chars: &RangeInclusive<usize>,
    forbidden: impl Fn(char) -> bool,
    rule: &str,
) -> Option<String> {
    let (least, most) = (*chars.start(), *chars.end());
    // A character has at most four bytes, so a text that is far too long is not read.
    if text.len() > most.saturating_mul(4) || !chars.contains(&text.chars().count()) {
        return Some(format!("must have {least} to {most} characters"));
    }
    if text.chars().any(forbidden) {
        return Some(format!("must have {rule} in it"));
    }
    (least > 0 && !is_visible(text)).then(|| "must have a character in it that can be seen".to_owned())
}

/// Whether anything of a text can be seen: it is not only spaces and characters without a shape.
pub fn is_visible(text: &str) -> bool {
    text.chars().any(|letter| !letter.is_whitespace() && !is_shapeless(letter))
}

/// A text for one line or one cell of a terminal: whatever could move the cursor, break the line, reorder or hide
/// something is written as an escape such as `\u{1b}`.
pub fn escape_line(text: &str) -> Cow<'_, str> {
    escape(text, must_escape, |letter, out| out.extend(letter.escape_default()))
}

/// The same for a text that is laid out already: its own line breaks stay.
pub fn escape_block(text: &str) -> Cow<'_, str> {
    let dangerous = |letter: char| letter != '\n' && must_escape(letter);
    escape(text, dangerous, |letter, out| out.extend(letter.escape_default()))
}

/// JSON for a terminal: the same value, with every such character as a JSON escape.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    // Outside of strings compact JSON has no such characters but line breaks between values.
    let dangerous = |letter: char| letter != '\n' && must_escape(letter);
    escape(json, dangerous, |letter, out| {
        for unit in letter.encode_utf16(&mut [0; 2]) {
            let _written = write!(out, "\\u{unit:04x}");
        }
    })
}

fn escape(text: &str, dangerous: impl Fn(char) -> bool, write: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.chars().any(&dangerous) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if dangerous(letter) {
            write(letter, &mut escaped);
        } else {
            escaped.push(letter);
        }
    }
    Cow::Owned(escaped)
}

/// Joiners and variation selectors stay: emoji and several scripts are written with them.
fn must_escape(letter: char) -> bool {
    let joins = matches!(letter, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}');
    letter.is_control() || breaks_line(letter) || (is_shapeless(letter) && !joins)
}

fn breaks_line(letter: char) -> bool {
    matches!(letter, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Embeddings, overrides and isolates; what follows them is shown in another order than it is written.
fn turns_direction(letter: char) -> bool {
    matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Characters that take no visible place by themselves.
fn is_shapeless(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_visible_and_one_line() {
        for good in ["Hall 7", "Große Bühne", "ليلى", "👩‍👩‍👧", "می‌خواهم", "a\u{200f}b"]
        {
            assert_eq!(line_problem(good, &(1..=100)), None, "{good:?}");
        }
        let bad = [
            "",
            " ",
            "\u{a0}\u{3000}",
            "\u{200b}\u{feff}",
            "\u{2800}",
            "\u{3164}",
            "a\nb",
            "a\u{2028}b",
            "a\u{85}b",
            "a\tb",
            "\u{1b}[2J",
            "a\u{9b}1mb",
            "gpj\u{202e}exe",
            "a\u{2066}b",
            "a\0",
        ];
        for bad in bad {
            assert!(line_problem(bad, &(1..=100)).is_some(), "{bad:?}");
        }
        assert_eq!(line_problem("", &(0..=10)), None);
        assert!(line_problem(&"é".repeat(11), &(0..=10)).unwrap().contains("0 to 10"));
        assert!(line_problem(&"a".repeat(1 << 20), &(0..=10)).unwrap().contains("0 to 10"));
    }

    #[test]
    fn a_description_has_lines() {
        assert_eq!(block_problem("one\r\n\ttwo\n", &(0..=100)), None);
        assert!(block_problem("one\u{1b}[31m", &(0..=100)).is_some());
        assert!(block_problem("\n\n", &(1..=100)).is_some());
    }

    #[test]
    fn patterns_accept_what_the_checks_accept() {
        let visible = regex::Regex::new(&line_pattern(false)).unwrap();
        let any = regex::Regex::new(&line_pattern(true)).unwrap();
        let block = regex::Regex::new(BLOCK_PATTERN).unwrap();
        for letter in '\0'..=char::MAX {
            for text in [letter.to_string(), format!("a{letter}"), format!("{letter} ")] {
                let is_line = |least| line_problem(&text, &(least..=10)).is_none();
                assert_eq!(visible.is_match(&text), is_line(1), "{text:?}");
                assert_eq!(any.is_match(&text), is_line(0), "{text:?}");
                assert_eq!(block.is_match(&text), block_problem(&text, &(0..=10)).is_none(), "{text:?}");
            }
        }
        for (pattern, is_match) in [(&visible, false), (&any, true), (&block, true)] {
            assert_eq!(pattern.is_match(""), is_match, "{pattern}");
        }
    }

    #[test]
    fn a_terminal_gets_no_commands() {
        assert_eq!(escape_line("plain 👩‍👩‍👧 é"), "plain 👩‍👩‍👧 é");
        assert_eq!(escape_line("a\u{1b}[2J\nb\t\u{9b}1m\u{202e}"), r"a\u{1b}[2J\nb\t\u{9b}1m\u{202e}");
        assert_eq!(escape_block("a\u{1b}\nb"), "a\\u{1b}\nb");
    }

    #[test]
    fn escaped_json_is_the_same_value() {
        let value = serde_json::json!({ "k\u{202e}": "\u{9b}1m \u{e0041} \u{7f} é" });
        let text = value.to_string();
        let escaped = escape_json(&text);
        assert!(escaped.contains("\\u009b1m \\udb40\\udc41 \\u007f é"), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }
}
