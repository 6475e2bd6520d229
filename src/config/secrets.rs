//! Reads secrets: given directly, by an environment variable, or by a file.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    slice,
};

use super::{
    files,
    layers::Entry,
    origin::Origin,
    read::{Found, Given, Section},
    show::REDACTED,
};
use crate::secret::Secret;

/// A larger file is a mistake, such as naming a log or a device.
const MAX_SECRET_FILE_BYTES: u64 = 64 * 1024;

/// The kind of a secret, which determines its checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Chosen by the operator: one line that must be hard to guess.
    Chosen,
    /// Issued by a third party: one line.
    Given,
    /// Several of these, one per line.
    Lines,
    /// A public key in PEM; not a secret.
    PublicKey,
}

/// Shorter secrets can be brute-forced: a fault, unless `allow_weak_secrets`.
const TRIED_OUT: usize = 8;

/// Shorter secrets may be guessed: a warning.
const GUESSABLE: usize = 16;

impl Kind {
    fn fault(self, text: &str, allow_weak: bool) -> Option<String> {
        match self {
            Self::Lines | Self::PublicKey => None,
            Self::Chosen if text.len() < TRIED_OUT && !allow_weak => Some(format!(
                "has fewer than {TRIED_OUT} bytes; `countersign keygen` makes a good one, and allow_weak_secrets = true \
                 has this one taken"
            )),
            Self::Chosen | Self::Given => fault_of(text),
        }
    }

    fn oddities(self, text: &str) -> Vec<String> {
        let mut odd = match self {
            Self::Lines | Self::PublicKey => return Vec::new(),
            Self::Chosen | Self::Given => oddities_of(text),
        };
        if self == Self::Chosen && text.len() < GUESSABLE {
            odd.push(format!(
                "has fewer than {GUESSABLE} bytes, and could be guessed; `countersign keygen` makes a good one"
            ));
        }
        odd
    }
}

/// Why a text cannot be a secret: it contains characters that no form or header accepts. Completes a sentence without
/// revealing the text.
fn fault_of(text: &str) -> Option<String> {
    let strange =
        text.chars().find(|c| (c.is_control() && *c != '\t') || matches!(c, '\u{2028}' | '\u{2029}'))?;
    Some(match strange {
        '\0' => "has a NUL in it; is it UTF-16?".to_owned(),
        '\r' => {
            "has a carriage return in it; does its file have Windows line ends, or several lines?".to_owned()
        }
        '\n' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
            "has a line break in it; a secret is one line".to_owned()
        }
        other => format!("has the control character U+{:04X} in it", u32::from(other)),
    })
}

/// Characters that probably do not belong to the secret. Each completes a sentence without revealing the text.
fn oddities_of(text: &str) -> Vec<String> {
    let mut odd = Vec::new();
    let (first, last) = (text.chars().next(), text.chars().next_back());
    for (at, place) in [(first, "begins"), (last, "ends")] {
        if at.is_some_and(char::is_whitespace) {
            odd.push(format!("{place} with a blank, which is part of it"));
        }
        if at.is_some_and(|c| "\"'`\u{201c}\u{201d}\u{201e}\u{2018}\u{2019}\u{300c}\u{300d}".contains(c)) {
            odd.push(format!("{place} with a quotation mark, which is part of it"));
        }
    }
    if let Some(unseen) = text.chars().find(|c| is_unseen(*c)) {
        odd.push(format!(
            "has the invisible character U+{:04X} in it, which is part of it",
            u32::from(unseen)
        ));
    }
    odd
}

/// Zero-width characters: soft hyphen, zero-width joiners and spaces, direction marks, BOM.
fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    )
}

impl<'t> Section<'t, '_, '_> {
    /// A secret that is fully redacted: the key itself, or the file that `file_key` names.
    pub(super) fn secret(&mut self, key: &'static str, file_key: &'static str, kind: Kind) -> Given<Secret> {
        self.secret_shown(key, file_key, kind, |_| Ok(()), |_| REDACTED.to_owned())
    }

    /// A secret: the key itself, or the file that `file_key` names. Setting both in one layer is a fault; otherwise
    /// the higher layer wins. `show` returns the displayable form.
    pub(super) fn secret_shown(
        &mut self,
        key: &'static str,
        file_key: &'static str,
        kind: Kind,
        check: impl FnOnce(&str) -> Result<(), String>,
        show: impl FnOnce(&str) -> String,
    ) -> Given<Secret> {
        let rank = |entry: Option<&Entry>| entry.map(|entry| entry.origin.rank());
        let (direct, by_file) = (rank(self.table.get(key)), rank(self.table.get(file_key)));
        self.know(&[key, file_key]);
        if direct.is_some() && direct == by_file {
            let other = self.name(file_key);
            self.fault(key, format!("is given twice, also by {other}"), "one of the two");
            return None;
        }
        let (text, found) = if by_file > direct {
            self.secret_file(file_key, kind)?
        } else {
            let Some(found) = self.find(key)? else { return Some(None) };
            (Secret::new(without_bom(self.text_of(key, &found, "a text")?)), found)
        };
        let named = if by_file > direct { file_key } else { key };
        if text.is_empty() {
            let problem = match &found.reference {
                _ if named == file_key => "names a file that is empty".to_owned(),
                Some(name) => format!("is empty, because the environment variable {name} is"),
                None => "is empty".to_owned(),
            };
            self.fault(named, problem, "a value that is not empty");
            return None;
        }
        // Faults about the content of a file or a variable name that file or variable.
        let of = |problem: String| match &found.reference {
            _ if named == file_key => format!("the content of {} {problem}", found.quote()),
            Some(_) => format!("{} {problem}", found.quote()),
            None => problem,
        };
        let fault = kind.fault(text.expose(), self.report.allow_weak_secrets).or(check(text.expose()).err());
        if let Some(problem) = fault {
            self.fault(named, of(problem), "");
            return None;
        }
        for problem in kind.oddities(text.expose()) {
            self.warn(named, of(problem));
        }
        if named == key {
            let shown = show(text.expose());
            if shown != text.expose() && found.reference.is_none() {
                let in_file = matches!(found.origin, Origin::File { .. });
                self.report.secrets_in_file |= in_file && kind != Kind::PublicKey;
            }
            self.note_secrets(key, shown, &found, slice::from_ref(&text));
        }
        Some(Some(text))
    }

    fn text_of<'f>(&mut self, key: &str, found: &'f Found<'_>, expected: &str) -> Option<&'f str> {
        let text = found.value.text();
        if text.is_none() {
            self.fault(key, format!("is {}", found.value.kind()), expected);
        }
        text
    }

    /// The content of the file that a key names. The line end is stripped from one-line secrets.
    fn secret_file(&mut self, key: &'static str, kind: Kind) -> Option<(Secret, Found<'t>)> {
        let found = self.find(key)??;
        let path = PathBuf::from(self.text_of(key, &found, "the path of a file")?);
        let original = self.report.beside.as_ref().and_then(|beside| files::original_of(&path, beside));
        let path = original.unwrap_or(path);
        match read_text(&path) {
            Ok(text) => {
                let secret = match kind {
                    Kind::Chosen | Kind::Given => Secret::new(without_line_end(text.expose())),
                    Kind::Lines | Kind::PublicKey => text,
                };
                if kind != Kind::Lines {
                    self.note_secrets(key, path.display().to_string(), &found, slice::from_ref(&secret));
                }
                if kind != Kind::PublicKey
                    && let Some(warning) = files::exposed(&path)
                {
                    self.warn(key, warning);
                }
                Some((secret, found))
            }
            Err(problem) => {
                self.fault(key, format!("{}: {problem}", found.quote()), "the path of a readable file");
                None
            }
        }
    }

    /// A list of secrets, displayed by `show`.
    pub(super) fn secrets(
        &mut self,
        key: &'static str,
        expected: &str,
        check: impl Fn(&str) -> Result<(), String>,
        show: impl Fn(&str) -> String,
    ) -> Option<Vec<Secret>> {
        let found = self.find(key)??;
        let list = self.list(key, expected, &found)?;
        if list.is_empty() {
            self.fault(key, "is empty", expected);
            return None;
        }
        let mut shown = Vec::with_capacity(list.len());
        let mut secrets = Vec::with_capacity(list.len());
        for (index, entry) in list.iter().enumerate() {
            let place = format!("{key}[{index}]");
            let Some(text) = self.text_at(&place, expected, entry) else { continue };
            let text = Secret::new(without_bom(&text));
            if let Some(problem) = fault_of(text.expose()).or(check(text.expose()).err()) {
                self.fault_at(&place, entry, problem, expected);
                continue;
            }
            for problem in oddities_of(text.expose()) {
                self.warn(key, format!("[{index}] {problem}"));
            }
            shown.push(toml::Value::from(show(text.expose())));
            secrets.push(text);
        }
        (secrets.len() == list.len()).then(|| {
            self.note_secrets(key, shown, &found, &secrets);
            secrets
        })
    }

    /// A list of secrets in a file, one per line.
    pub(super) fn secret_lines(
        &mut self,
        key: &'static str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Option<Vec<Secret>> {
        let (content, found) = self.secret_file(key, Kind::Lines)?;
        let mut secrets = Vec::new();
        for (index, line) in content.expose().lines().enumerate() {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            if let Some(problem) = fault_of(line).or(check(line).err()) {
                self.fault(key, format!("line {} of the file {problem}", index + 1), "");
                return None;
            }
            for problem in oddities_of(line) {
                self.warn(key, format!("line {} of the file {problem}", index + 1));
            }
            secrets.push(Secret::new(line));
        }
        if secrets.is_empty() {
            self.fault(key, "names a file that is empty", "one URL a line");
            return None;
        }
        self.note_secrets(key, found.value.text()?, &found, &secrets);
        Some(secrets)
    }
}

/// Reads a one-line secret from a file. The error describes what is wrong with the file.
///
/// A leading BOM and one trailing line end are stripped: many tools add them.
pub(crate) fn read_secret(path: &Path) -> Result<Secret, String> {
    let text = read_text(path)?;
    let secret = Secret::new(without_line_end(text.expose()));
    match fault_of(secret.expose()) {
        None => Ok(secret),
        Some(problem) => Err(problem),
    }
}

/// Reads a file of secret text and strips the BOM.
pub(crate) fn read_text(path: &Path) -> Result<Secret, String> {
    // Reserve space for a whole file: a growing vector leaves copies of its content in memory.
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(MAX_SECRET_FILE_BYTES as usize + 1));
    fs::File::open(path)
        .and_then(|file| file.take(MAX_SECRET_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_SECRET_FILE_BYTES {
        return Err(format!("is larger than {MAX_SECRET_FILE_BYTES} bytes"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    Ok(Secret::new(without_bom(text)))
}

fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Strips only one line end. More is a mistake, such as two files concatenated.
fn without_line_end(text: &str) -> &str {
    text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bom_and_one_line_end_of_a_secret_file_are_no_part_of_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for (content, secret) in [
            ("fake-token", "fake-token"),
            ("fake-token\n", "fake-token"),
            ("fake-token\r\n", "fake-token"),
            ("\u{feff}fake-token\r\n", "fake-token"),
            ("fake token \n", "fake token "),
        ] {
            fs::write(&path, content).unwrap();
            assert!(read_secret(&path).unwrap().equals(secret), "{content:?}");
        }
        let told = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            read_secret(&path).unwrap_err()
        };
        assert_eq!(told(b"fake-token\n\n"), "has a line break in it; a secret is one line");
        assert!(told(b"fake-token\r").starts_with("has a carriage return in it"));
        assert!(told(b"fake\r\ntoken").starts_with("has a carriage return in it"));
        assert!(told(b"f\0a\0k\0e\0").starts_with("has a NUL in it; is it UTF-16?"));
        assert_eq!(told(b"fake\x1b[2Jtoken"), "has the control character U+001B in it");
        assert_eq!(told("fake\u{2028}token".as_bytes()), "has a line break in it; a secret is one line");
        assert_eq!(told(&[0xff, 0xfe]), "is not UTF-8 text");
        assert!(told(&vec![b'a'; 70_000]).starts_with("is larger than"));
        assert!(read_secret(&dir.path().join("none")).unwrap_err().starts_with("cannot be read"));
    }
}
