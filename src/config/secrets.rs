//! Reading secrets: given directly, by an environment variable, or by a file.

use std::{fs, io::Read as _, path::Path};

use super::{
    layers::{Entry, Value},
    read::{Found, Given, Section},
};
use crate::secret::Secret;

/// A file that holds one secret is small; more is a slip, such as naming a log or a device.
const MAX_SECRET_FILE_BYTES: u64 = 64 * 1024;

impl<'t> Section<'t, '_, '_> {
    /// A secret: the key itself, or the file that `key_file` names. Both in one layer are a fault; otherwise the
    /// higher layer wins. `show` turns the secret into what may be shown of it.
    pub(super) fn secret(
        &mut self,
        key: &'static str,
        file_key: &'static str,
        check: impl FnOnce(&str) -> Result<(), String>,
        show: impl FnOnce(&str) -> String,
    ) -> Given<Secret> {
        let rank = |entry: Option<&Entry>| entry.map(|entry| entry.origin.rank());
        let (direct, by_file) = (rank(self.table.get(key)), rank(self.table.get(file_key)));
        self.know(&[key, file_key]);
        if direct.is_some() && direct == by_file {
            let other = self.name(file_key);
            self.fault(key, format!("is given twice, also by {other}"), "one of the two");
            return Given::Faulty;
        }
        let (text, found) = if by_file > direct {
            match self.secret_file(file_key) {
                Some((text, found)) => (text, found),
                None => return Given::Faulty,
            }
        } else {
            let found = match self.find(key) {
                Given::Absent => return Given::Absent,
                Given::Faulty => return Given::Faulty,
                Given::Value(found) => found,
            };
            let (Value::Text(text) | Value::Word(text)) = &*found.value else {
                self.fault(key, format!("is {}", found.value.kind()), "a text");
                return Given::Faulty;
            };
            (Secret::new(text.clone()), found)
        };
        let named = if by_file > direct { file_key } else { key };
        if text.is_empty() {
            let problem = match &found.reference {
                _ if named == file_key => "names a file that is empty".to_owned(),
                Some(name) => format!("is empty, because the environment variable {name} is"),
                None => "is empty".to_owned(),
            };
            self.fault(named, problem, "a value that is not empty");
            return Given::Faulty;
        }
        if let Err(problem) = check(text.expose()) {
            self.fault(named, problem, "");
            return Given::Faulty;
        }
        if named == key {
            self.note_secret(key, show(text.expose()), &found, text.clone());
        }
        Given::Value(text)
    }

    /// The content of the file that a key names.
    fn secret_file(&mut self, key: &'static str) -> Option<(Secret, Found<'t>)> {
        let Given::Value(found) = self.find(key) else { return None };
        let (Value::Text(path) | Value::Word(path)) = &*found.value else {
            self.fault(key, format!("is {}", found.value.kind()), "the path of a file");
            return None;
        };
        match read_secret(Path::new(path)) {
            Ok(secret) => {
                self.note_secret(key, path.as_str(), &found, secret.clone());
                Some((secret, found))
            }
            Err(problem) => {
                self.fault(key, format!("{}: {problem}", found.quote()), "the path of a readable file");
                None
            }
        }
    }

    /// A list of secrets, each shown by `show`.
    pub(super) fn secrets(
        &mut self,
        key: &'static str,
        expected: &str,
        check: impl Fn(&str) -> Result<(), String>,
        show: impl Fn(&str) -> String,
    ) -> Option<Vec<Secret>> {
        let Given::Value(found) = self.find(key) else { return None };
        let list = self.list(key, expected, &found)?;
        if list.is_empty() {
            self.fault(key, "is empty", expected);
            return None;
        }
        let mut shown = Vec::with_capacity(list.len());
        let mut secrets = Vec::with_capacity(list.len());
        for (index, entry) in list.iter().enumerate() {
            let place = format!("{key}[{index}]");
            let Some(text) = self.text_at(&place, expected, entry).map(Secret::new) else { continue };
            if let Err(problem) = check(text.expose()) {
                self.fault_at(&place, entry, problem, expected);
                continue;
            }
            shown.push(toml::Value::from(show(text.expose())));
            secrets.push(text);
        }
        (secrets.len() == list.len()).then(|| {
            let all: Vec<_> = secrets.iter().map(Secret::expose).collect();
            self.note_secret(key, shown, &found, Secret::new(all.join("\n")));
            secrets
        })
    }

    /// A list of secrets in a file, one a line.
    pub(super) fn secret_lines(
        &mut self,
        key: &'static str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Option<Vec<Secret>> {
        let (content, _) = self.secret_file(key)?;
        let mut secrets = Vec::new();
        for (index, line) in content.expose().lines().enumerate() {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            if let Err(problem) = check(line) {
                self.fault(key, format!("line {} of the file {problem}", index + 1), "");
                return None;
            }
            secrets.push(Secret::new(line));
        }
        if secrets.is_empty() {
            self.fault(key, "names a file that is empty", "one URL a line");
            return None;
        }
        Some(secrets)
    }
}

/// Reads a secret from a file; the error says what is wrong with the file.
///
/// Line ends at the end are cut off: most ways to write such a file put one there.
pub(crate) fn read_secret(path: &Path) -> Result<Secret, String> {
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    fs::File::open(path)
        .and_then(|file| file.take(MAX_SECRET_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_SECRET_FILE_BYTES {
        return Err(format!("is larger than {MAX_SECRET_FILE_BYTES} bytes"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_end_of_a_secret_file_is_not_part_of_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "fake token \r\n\n").unwrap();
        assert!(read_secret(&path).unwrap().equals("fake token "));
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(read_secret(&path).unwrap_err(), "is not UTF-8 text");
        fs::write(&path, vec![b'a'; 70_000]).unwrap();
        assert!(read_secret(&path).unwrap_err().starts_with("is larger than"));
        assert!(read_secret(&dir.path().join("none")).unwrap_err().starts_with("cannot be read"));
    }
}
