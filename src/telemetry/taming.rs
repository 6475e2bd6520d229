//! Makes foreign text harmless for terminals and line-based readers.
//!
//! Text from strangers, approvers, the platform or a broker ends up in logs and tables. ESC and the C1 controls move
//! the cursor, change earlier output, or type into the terminal; line breaks forge lines; bidirectional marks reverse
//! the writing direction. All printed and logged text passes through here.

use std::{
    borrow::Cow,
    fmt::{self, Display, Write},
};

/// True for characters that move the cursor, break lines, or change the writing direction.
#[must_use]
pub fn acts(c: char) -> bool {
    // Fast path: called for each character of a log.
    if (' '..='~').contains(&c) {
        return false;
    }
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

/// A text on one line, without characters that act on a terminal: those are shown by their code, as `\u{1b}`.
#[derive(Debug, Clone, Copy)]
pub struct Tamed<T>(pub T);

impl<T: Display> Display for Tamed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Taming(f), "{}", self.0)
    }
}

/// Tames the text written to it and passes it on.
pub struct Taming<'a, W: Write + ?Sized>(pub &'a mut W);

impl<W: Write + ?Sized> Write for Taming<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| acts(*c)) {
            self.0.write_str(&rest[..at])?;
            write!(self.0, "{}", c.escape_default())?;
            rest = &rest[at + c.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

impl<W: Write + ?Sized> fmt::Debug for Taming<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Taming")
    }
}

/// The same text with its line breaks, for our own layouts whose parts are already tamed.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    if text.split('\n').all(|line| !line.contains(acts)) {
        return Cow::Borrowed(text);
    }
    let tamed: Vec<String> = text.split('\n').map(|line| Tamed(line).to_string()).collect();
    Cow::Owned(tamed.join("\n"))
}

/// The same JSON on one line: JSON passed on verbatim may have line breaks between its tokens, and a line-based reader
/// would take the text after one for a line of ours.
///
/// Some characters that JSON allows unescaped in strings act on terminals: DEL, the C1 controls (U+009B begins an
/// escape sequence as ESC [ does), the bidirectional marks.
#[must_use]
pub fn json(json: &str) -> Cow<'_, str> {
    if !json.contains(acts) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            // Never within a string: JSON requires them to be escaped there.
            '\n' | '\r' | '\t' => text.push(' '),
            c => push_in_json(c, &mut text),
        }
    }
    Cow::Owned(text)
}

/// Appends a character of a JSON string, escaped if it acts.
pub fn push_in_json(c: char, text: &mut String) {
    if acts(c) {
        // All of them are below U+10000, so one escape is enough.
        write!(text, "\\u{:04x}", u32::from(c)).expect("writing to a String cannot fail");
    } else {
        text.push(c);
    }
}

/// JSON with one member on a line. It is only laid out: parsing it would lose the order of members and the digits of numbers.
#[must_use]
pub fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    };
    let mut rest = json.chars().peekable();
    while let Some(c) = rest.next() {
        if in_string {
            push_in_json(c, &mut text);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            c if c.is_ascii_whitespace() => {}
            '{' | '[' => {
                text.push(c);
                while rest.next_if(char::is_ascii_whitespace).is_some() {}
                match rest.next_if(|c| matches!(c, '}' | ']')) {
                    Some(end) => text.push(end),
                    None => {
                        depth += 1;
                        line(&mut text, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            c => {
                in_string = c == '"';
                text.push(c);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_shown_by_its_code_and_all_else_is_left_as_it_is() {
        let nasty = "a\u{1b}[2Jb\nc\rd\u{9b}e\u{7f}f\u{202e}g\u{2028}h\u{feff}i\u{0}审批 é";
        let tame = "a\\u{1b}[2Jb\\nc\\rd\\u{9b}e\\u{7f}f\\u{202e}g\\u{2028}h\\u{feff}i\\u{0}审批 é";
        assert_eq!(Tamed(nasty).to_string(), tame);
        assert_eq!(Tamed(format_args!("{nasty}{}", 1)).to_string(), format!("{tame}1"));
        assert_eq!(lines("a\n\u{1b}b\n"), "a\n\\u{1b}b\n");
        assert!(matches!(lines("a\nb"), Cow::Borrowed(_)));
        for c in ('\0'..=char::MAX).filter(|c| acts(*c)) {
            assert!(u32::from(c) < 0x1_0000, "{c:?} needs more than one escape");
        }
    }

    #[test]
    fn json_stays_on_its_line_and_says_the_same() {
        let odd = "{\"a\":\r\n[1,\n{\"b\":\"\u{9b}2J\u{7f}\u{202e}\u{2028}\\n\"}\t]}";
        assert_eq!(json(odd), r#"{"a":  [1, {"b":"\u009b2J\u007f\u202e\u2028\n"} ]}"#);
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(odd), value(&json(odd)));
        assert!(matches!(json(r#"{"文":1}"#), Cow::Borrowed(_)));
    }

    #[test]
    fn json_is_indented_and_otherwise_left_as_it_is() {
        let compact = r#"{"b":12345678901234567890.10,"a":[],"c":[1, {"d" : "x\"{,:\\"} ],"e":{ }}"#;
        let shown = indented(compact);
        assert_eq!(
            shown,
            "{\n  \"b\": 12345678901234567890.10,\n  \"a\": [],\n  \"c\": [\n    1,\n    {\n      \"d\": \"x\\\"{,:\\\\\"\n    }\n  ],\n  \"e\": {}\n}"
        );
    }

    #[test]
    fn json_stays_on_its_line_and_does_not_act_on_the_terminal() {
        let odd = "{\"a\":\r\n[1,\n{\"b\":\"\u{9b}2J\u{7f}\u{202e}\u{2028}\\n\"}\t]}";
        assert!(indented(odd).contains(r#""\u009b2J\u007f\u202e\u2028\n""#));
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(odd), value(&indented(odd)));
    }
}
